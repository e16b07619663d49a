"""Shows that a model which a file of one's own makes is trained, stored and known again."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start, check_mistake

import dptrain
from dptrain import InputError
from dptrain.config import ModelFile
from dptrain.model import described
from dptrain.model.file import build, of_run

SOFTMAX = '''
"""Softmax regression."""
import types
import dptrain
import numpy as np

class Softmax:
    dtype = np.dtype("float64")

    def __init__(self, shape, start):
        self.shape, self.start = shape, start
        size = int(np.prod(shape))
        self.layout = [types.SimpleNamespace(name="weight", shape=shape, size=size, kind="weight")]

    def initial_params(self, rng):
        return self.start * rng.standard_normal(self.layout[0].size)

    def loss_and_grad_sum(self, params, x, y, weights, out, rng):
        scores = self.outputs(params, x)
        delta = np.exp(scores - scores.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(len(y)), y] -= 1
        np.matmul(x.T, delta, out=out.reshape(self.shape))
        return self.loss_sum(scores, y, weights)

    def outputs(self, params, x):
        return x @ params.reshape(self.shape)

    def loss_sum(self, outputs, y, weights):
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
        return dptrain.Sums(float(losses.sum()), float(len(y)))

    def probabilities(self, outputs):
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

def build(inputs, outputs, start=0.01):
    return Softmax((*inputs, outputs), start)

def nothing(inputs, outputs, made=0):
    return (None, Softmax, Layer, (Layer(), print))[made]


class Layer:  # as a module of PyTorch's is, and never made
    named_parameters = double = print

def fails(inputs, outputs):
    return [][1]

other = dict
'''


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "softmax.py").write_text(SOFTMAX)
    return tmp_path / "softmax.py"


def test_a_run_with_a_file_is_known_again_by_every_command(
    dptrain: Start, quick: Start, model: Path, tmp_path: Path
) -> None:
    line = ("train", "--model", f"{model}:build", "--model-arg", "start=0.02", "--seed", "3")
    found = dptrain(*line, "--steps", "30", "--out", "run", "--json", ranks=2).json
    again = quick(*line, "--steps", "20", "--out", "short", "--json").json
    first = json.loads((tmp_path / "run" / "receipt.jsonl").read_text().splitlines()[0])
    digest = hashlib.sha256(SOFTMAX.encode()).hexdigest()
    assert first["settings"]["model-sha256"] == digest
    assert first["model"]["file"]["model_arg"] == ["start=0.02"]
    config = (tmp_path / "run" / "config.toml").read_text()
    assert "--model FILE.py:build repeats the run" in config
    assert not any(row.startswith(("model =", "hidden")) for row in config.splitlines())

    given = ("--model", "softmax.py:build")
    repeated = quick("--config", "run/config.toml", *given, "--out", "same", "--json").json
    assert repeated["params_sha256"] == found["params_sha256"] != again["params_sha256"]
    longer = quick("--resume", "short", *given, "--steps", "30", "--json", ranks=3).json
    assert longer["params_sha256"] == found["params_sha256"]
    assert quick("evaluate", "run", *given, "--json").json["accuracy"] == found["test_accuracy"]
    np.savez(tmp_path / "new.npz", x=np.ones((3, 64)))
    done = quick("predict", "run", "new.npz", *given, "--probabilities")
    assert done.stdout.count("\n") == 4
    verdict = quick("verify", "run", "--replay", "5:30", *given, "--json").json
    assert verdict["verdict"] == "identical"

    for command in (
        ("evaluate", "run"),
        ("predict", "run", "new.npz"),
        ("verify", "run", "--replay", "all"),
        ("--resume", "short"),
        ("--config", "run/config.toml", "--out", "other"),
    ):
        done = quick(*command)
        assert done.status == 2, command
        assert "--model FILE.py:FUNCTION" in done.stderr
    model.write_text(SOFTMAX + "\n")
    for command in (("evaluate", "run"), ("verify", "run", "--replay", "all"), ("--resume", "run")):
        done = quick(*command, *given)
        assert done.status == 2, command
        assert f"by a file with {digest}: it has changed since" in done.stderr


WIDE = f"""{SOFTMAX}
class Wide(Softmax):
    def loss_and_grad_sum(self, params, x, y, weights, out, rng):
        outputs = self.outputs(params, x)
        np.matmul(x.T, outputs - np.tile(y, 2), out=out.reshape(self.shape))
        return self.loss_sum(outputs, y, weights)

    def loss_sum(self, outputs, y, weights):
        losses = ((outputs - np.tile(y, 2)) ** 2).sum(axis=1) / 2
        return dptrain.Sums(float(losses.sum()), float(len(y)))

def wide(inputs, outputs):
    return Wide((*inputs, 2 * outputs), 0.01)
"""


def test_each_output_has_a_column_where_there_are_more_than_targets(
    quick: Start, tmp_path: Path
) -> None:
    """As of a language model, which has scores for each letter of a row."""
    (tmp_path / "wide.py").write_text(WIDE)
    x = np.arange(120.0).reshape(40, 3) / 120
    np.savez(tmp_path / "data.npz", x=x, y=x[:, :2] + 0.5)
    np.savez(tmp_path / "new.npz", x=x)
    given, how = ("--model", "wide.py:wide"), ("--scale", "none", "--steps", "2", "--out", "run")
    quick("train", "data.npz", *given, *how, "--task", "regression", "--json").json  # noqa: B018
    lines = quick("predict", "run", "new.npz", *given, ranks=2).stdout.splitlines()
    assert lines[0] == ",".join(f"prediction_{number}" for number in range(4))
    assert {line.count(",") for line in lines} == {3}


OTHER = f"""{SOFTMAX}
class Other(Softmax):
    def loss_and_grad_sum(self, params, x, y, weights, out, rng):
        outputs = self.outputs(params, x)
        np.matmul(x.T, outputs - y.reshape(len(y), -1)[:, :1], out=out.reshape(self.shape))
        return self.loss_sum(outputs, y, weights)

    def loss_sum(self, outputs, y, weights):
        losses = ((outputs - y.reshape(len(y), -1)[:, :1]) ** 2).sum(axis=1) / 2
        return dptrain.Sums(float(losses.sum()), float(len(y)))

    def probabilities(self, outputs):
        return outputs

def other(inputs, outputs):
    return Other((*inputs, outputs + 2), 0.01)
"""


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_outputs_that_only_a_loss_of_ones_own_understands_are_given_as_they_are(
    task: str, quick: Start, tmp_path: Path
) -> None:
    """They are no scores of classes or labels, and no values of targets on their scale."""
    (tmp_path / "other.py").write_text(OTHER)
    x = np.arange(120.0).reshape(40, 3) / 120
    y = {"classification": np.arange(40) % 3, "regression": 100 * x[:, :2]}
    np.savez(tmp_path / "data.npz", x=x, y=y.get(task, (x > 0.5).astype(int)))
    given = ("--model", "other.py:other")
    told = ("--task", task, "--validation", "0.2", "--steps", "2", "--out", "run", "--quiet")
    quick("train", "data.npz", *given, *told, "--json").json  # noqa: B018
    quick("predict", "run", "data.npz", *given, "--out", "p.npy", ranks=2)
    trained = dptrain.load_trained(tmp_path / "run", file=f"{tmp_path}/other.py:other")
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), trained.outputs(x))
    found = quick("evaluate", "run", "data.npz", *given, "--json", ranks=2).json
    assert not {"accuracy", "rmse", "f1_macro", "confusion"} & {*found}
    refused = quick("predict", "run", "data.npz", *given, "--probabilities")
    assert refused.status == 2
    assert "use predict" in refused.stderr


def test_what_a_models_file_imports_from_its_folder_belongs_to_it(
    quick: Start, model: Path, tmp_path: Path
) -> None:
    """Also what that imports, where a function does, and what its package begins with."""
    model.write_text("def later():\n    import near_model.middle\n" + SOFTMAX)
    folder = tmp_path / "near_model"
    (folder / "deep").mkdir(parents=True)
    texts = {
        "__init__.py": "",
        "middle.py": "from .deep.far import RATE\n",
        "deep/__init__.py": "from .. import other\n",
        "deep/far.py": "RATE = 1\n",
        "other.py": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    given = ("--model", "softmax.py:build")
    quick("train", *given, "--steps", "4", "--out", "run", "--json").json  # noqa: B018
    assert quick("evaluate", "run", *given, "--json").json
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")
        done = quick("evaluate", "run", *given)
        assert done.status == 2
        assert f"near_model/{name}, which softmax.py imports, is not what it" in done.stderr
        (folder / name).write_text(text)
    (folder / "other.py").write_text("RATE = 2\n")
    assert quick("verify", "run", "--replay", "all", *given).status == 2
    assert quick("--resume", "run", *given, "--steps", "6").status == 2


def test_what_a_file_prints_is_no_result(dptrain: Start, model: Path, tmp_path: Path) -> None:
    """Wherever it prints, and whatever it makes of standard output."""
    says = "print('hello')\nimport sys\n" + SOFTMAX.replace(
        "def outputs(self, params, x):\n", "def outputs(self, params, x):\n        print('so')\n"
    )
    np.savez(tmp_path / "new.npz", x=np.ones((3, 64)))
    for text in (says, says + "sys.stdout = None\nprint = str\n"):
        model.write_text(text)
        given = ("--model", "softmax.py:build")
        done = dptrain("train", *given, "--steps", "2", "--out", f"run{len(text)}", "--json")
        assert done.json["steps"] == 2
        assert ("hello\nso\n" in done.stderr) == (text == says)
    done = dptrain("predict", f"run{len(text)}", "new.npz", *given)
    assert done.stdout.count("\n") == 4


def made_of(folder: Path, *arguments: str, name: str = "own.py") -> Any:
    """Return what a file in a folder makes; it tells in `said`."""
    file = ModelFile(model=f"{folder / name}:build", model_arg=arguments)
    return build(file, (3,), 2, seed=0)


SAID = """
    model = Softmax((*inputs, outputs), 0.01)
    model.said = said
    return model
"""


def test_two_models_of_one_process_import_each_its_own(tmp_path: Path) -> None:
    """Of one name, and of other folders or of other content."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "nearby_one.py").write_text(f"said = '{name}'\n")
        text = f"from nearby_one import said\n{SOFTMAX}\ndef build(inputs, outputs):{SAID}"
        (tmp_path / name / "own.py").write_text(text)
    changed = text.replace("return x @ params", "return x.astype(float) @ params")
    (tmp_path / "a" / "own.py").write_text(changed)
    models = [made_of(tmp_path / name) for name in "aba"]
    assert [model.said for model in models] == ["a", "b", "a"]
    sources = [described(model)["source"] for model in models]
    assert sources[0] == sources[2] != sources[1]
    (tmp_path / "b" / "nearby_one.py").write_text("said = 'another'\n")
    assert made_of(tmp_path / "b").said == "another"


def test_an_import_is_what_its_file_holds_however_old_that_is(tmp_path: Path) -> None:
    """Python knows compiled files by a time and a length, which copies keep."""
    near = tmp_path / "nearby_two.py"
    (tmp_path / "own.py").write_text(
        f"from nearby_two import said\n{SOFTMAX}\ndef build(inputs, outputs):{SAID}"
    )
    for said in "ab":
        near.write_text(f"said = '{said}'\n")
        os.utime(near, (10**9, 10**9))
        assert made_of(tmp_path).said == said


@pytest.mark.parametrize(
    "odd", [{"more": 1}, {"model_arg": 5}, {"siblings": [5]}, {"siblings": [" "]}, {"seed": "1"}]
)
def test_a_run_that_says_odd_things_of_its_models_file_is_refused(odd: dict[str, Any]) -> None:
    stored = {"file": {"model": "build", "model_sha256": 64 * "0", "seed": 1}}
    assert of_run("net.py:build", stored, "a run").seed == 1
    for file in (stored["file"] | odd, 5):
        with pytest.raises(InputError):
            of_run("net.py:build", {"file": file}, "a run")


def test_a_file_may_draw_random_numbers_and_go_elsewhere(tmp_path: Path) -> None:
    """The same numbers each time; and whoever names files is where they were before."""
    begins = f"import os, random\n{SOFTMAX}\nos.chdir('/')\ndef build(inputs, outputs):"
    drawn = "\n    said = random.random(), np.random.random()"
    (tmp_path / "own.py").write_text(begins + drawn + SAID)
    before = Path.cwd()
    assert made_of(tmp_path).said == made_of(tmp_path).said
    assert Path.cwd() == before


def test_a_neighbour_that_another_module_hides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("")
    (tmp_path / "own.py").write_text(f"import json\n{SOFTMAX}")
    with pytest.raises(InputError, match=r"there is json.py beside it, but also a module of that"):
        made_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1e-3", 0.001), ("[1, 2]", [1, 2]), ("null", None), ("true", True),
        ("True", True), ("False", False), ("None", None), ("a=b", "a=b"), ("", ""), ("007", "007"),
        ("Z\u00fcrich", "Z\u00fcrich"), ('"3"', "3"), ("[" * 10**5, "[" * 10**5),
    ],
)  # fmt: skip
def test_arguments_are_what_they_look_like(text: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"{SOFTMAX}\ndef build(inputs, outputs, said):{SAID}")
    assert made_of(tmp_path, f"said={text}").said == value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "softmax.py:biuld"), "has no function 'biuld'; valid: .*mean 'build'"),
        (("--model", "softmax"), "give FILE.py:FUNCTION"),
        (("--model", "none.py:build"), "none.py can't be read"),
        (("--model", "pipe.py:build"), "pipe.py has no function 'build'; valid: none"),
        (("--model", "softmax.py:other"), "no signature found for builtin type <class 'dict'>"),
        (("--model", "leaves.py:build"), "leaves.py, line 3, in <module>: SystemExit: 0$"),
        (("--model", "dptrain/quits.py:build"), "quits.py, line 1, in <module>: GeneratorExit$"),
        (("--model", "softmax.py:nothing"), r"returns None; return a torch.nn.Module"),
        (("--model", "softmax.py:nothing", "--model-arg", "made=1"), "returns <class .*Softmax"),
        (("--model", "softmax.py:nothing", "--model-arg", "made=2"), "returns <class .*Layer"),
        (("--model", "softmax.py:nothing", "--model-arg", "made=3"), r"returns \(<.*Layer object"),
        (("--model", "softmax.py:fails"), r"softmax.py, line \d+, in fails: IndexError"),
        (("--model", "softmax.py:build", "--model-arg", "width=3"), "unexpected keyword .*'width'"),
        (("--model", "softmax.py:build", "--model-arg", "3"), "give NAME=VALUE"),
        (
            ("--model", "softmax.py:build", "--model-arg", "start=3", "--model-arg", "start=4"),
            "gives start twice",
        ),
        (("--model", "softmax.py:build", "--hidden", "3"), "hidden is the perceptron's"),
        (
            ("--model", "softmax.py:build", "--dtype", "float32"),
            "makes a model of float64: leave --dtype out, or have it make one of float32",
        ),
        (
            ("--model", "softmax.py:build", "--label-smoothing", "0.1"),
            "build makes has its own loss",
        ),
        (("--model", "beside.py:build"), "transform is given; what .* has its own .*: leave that"),
        (("--model-arg", "width=3"), "there is no --model"),
        (("--config", "named.toml"), "named.toml sets model; .* never says what is run"),
        (("--model", "torchless.py:build"), r"torch can't be imported .*pip install 'torch>="),
        (("--model", "late.py:build"), r"jax can't be imported .*pip install 'jax>="),
        (("--model", "part.py:build"), "in <module>: ImportError.* name one beside the package"),
        (("--model", "wrong.py:build"), "wrong.py, line 1.*SyntaxError|SyntaxError"),
    ],
)
def test_mistakes_end_with_one_message(
    options: tuple[str, ...], words: str, dptrain: Start, quick: Start, model: Path
) -> None:
    folder = model.parent
    (folder / "named.toml").write_text('model = "softmax.py:build"\n')
    (folder / "wrong.py").write_text("def build(:\n")
    (folder / "leaves.py").write_text("import sys\n\nsys.exit(0)\n")
    (folder / "dptrain").mkdir()  # as a clone is called
    (folder / "dptrain" / "quits.py").write_text("raise GeneratorExit\n")
    (folder / "beside.py").write_text(f"{SOFTMAX}\ndef transform(x, rng):\n    return -x\n")
    os.mkfifo(folder / "pipe.py")
    (folder / "torchless.py").write_text("import sys\nsys.modules['torch'] = None\nimport torch\n")
    late = "    import sys\n    sys.modules['jax'] = None\n    import jax\n"
    (folder / "late.py").write_text(f"def build(inputs, outputs):\n{late}")
    quietly = "import warnings\nwith warnings.catch_warnings(action='ignore'):\n    "
    (folder / "part.py").write_text(f"{quietly}from .softmax import build\n")
    without = {"torchless.py:build", "late.py:build"} & {*options}  # a library, for its process
    run = dptrain if without else quick
    done = run(*options, "--out", "run", ranks=2)
    assert done.status == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(words, done.stderr), done.stderr
    assert not (folder / "run").exists()


def test_code_that_fails_on_one_rank_is_named_with_its_line(dptrain: Start, tmp_path: Path) -> None:
    begins = "def outputs(self, params, x):\n"
    fails = """        self.calls = getattr(self, 'calls', 0) + 1
        if os.environ.get('PMI_RANK') == '1' and self.calls > 9:
            raise KeyError('no such letter')
"""
    text = f"import os\n{SOFTMAX}".replace(begins, begins + fails)
    (tmp_path / "fails.py").write_text(text)
    done = dptrain("--model", "fails.py:build", "--out", "run", "--quiet", ranks=2)
    assert done.status != 0  # 2, but for launchers that count the ranks which they kill
    assert "rank 1 of 2" in done.stderr
    number = text[: text.index("raise KeyError")].count("\n") + 1
    assert f'fails.py", line {number}, in outputs' in done.stderr
    assert "KeyError: 'no such letter'" in done.stderr


ODD = SOFTMAX.replace(
    "import types", "import os, sys, types\nODD = os.environ.get('PMI_RANK') == '1'"
)
WAYS = {
    "what transform returns": ODD.replace(
        "    def outputs(",
        "    def transform(self, x, rng):\n        return x + ODD\n\n    def outputs(",
    ),
    "the gradient of weight": ODD.replace(
        " self.outputs(params, x)", " self.outputs(params + ODD, x)"
    ),
    "its loss": ODD.replace("losses.sum())", "losses.sum()) + 1e-9 * ODD"),
}
"""Of what ranks make by the first examples, what is another on one of them."""


@pytest.mark.parametrize("what", WAYS)
def test_a_model_that_depends_on_its_rank_is_refused(
    what: str, quick: Start, tmp_path: Path
) -> None:
    """It is tried on one rank, and nothing else would tell: it had trained, to bits of its own."""
    (tmp_path / "softmax.py").write_text(WAYS[what])
    given = ("--model", "softmax.py:build", "--out", "run", "--quiet")
    found = r"\w{64} on rank 1 and \w{64} on ranks 0, 2; let it follow from what the model is given"
    check_mistake(quick("train", *given, "--steps", "2", ranks=3), f"SHA-256 of {what} is {found}")
    assert not (tmp_path / "run").exists()
    assert quick("train", *given, "--steps", "2").status == 0


def test_ranks_on_other_cpus_may_make_other_bits(dptrain: Start, tmp_path: Path) -> None:
    says = "sys.modules['dptrain.run.fit'].cpu = lambda: str(ODD)\n"
    (tmp_path / "softmax.py").write_text(WAYS["its loss"] + says)
    done = dptrain("train", "--model", "softmax.py:build", "--steps", "2", "--json", ranks=2)
    assert done.json["steps"] == 2
    assert "warning: the SHA-256 of its loss is" in done.stderr
    assert "of CPUs of several kinds --cpu-level may make the bytes one" in done.stderr
