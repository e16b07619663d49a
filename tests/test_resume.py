"""Shows that a run goes on from any of its checkpoints to the bytes of the undisturbed run."""

import dataclasses
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start
from tiny import receipt_of

import dptrain
from dptrain import MLP, Data, DataConfig, InputError, ModelConfig, Param, TrainConfig, World
from dptrain.arrays import Sums
from dptrain.checked import option_name
from dptrain.level import in_use
from dptrain.model import described
from dptrain.record import checkpoint
from dptrain.record.receipt import Receipt, follow
from dptrain.run import identity
from dptrain.run.config import Identity
from dptrain.run.resume import settings_of

OTHER_LIBM = in_use()._replace(libm="another")
SHORT = TrainConfig(
    batch_size=64, shards=3, epochs=3, checkpoint_every="17 steps", keep_checkpoints=100
)
RICH = replace(
    SHORT,
    optimizer="rmsprop",
    clip_norm=1.0,
    noise_scale=True,
    patience=1,
    learning_rate=0.01,
    log_every=10,
    schedule="cosine",
    warmup=20,
)
MODELS = {"plain": ModelConfig(), "rich": ModelConfig(hidden=(20, 9), dropout=0.3, dtype="float64")}
CONFIGS = {"plain": SHORT, "rich": RICH}
LINES = ("metrics.jsonl", "receipt.jsonl")


def fit(
    out: Path, kind: str = "plain", resume: bool = False, force: bool = False, **changes: Any
) -> dptrain.Trained:
    """Train, or go on, in this process."""
    config = replace(CONFIGS[kind], **changes)
    data = dptrain.load(config=DataConfig(validation=0.2), seed=config.seed, world=World())
    model = dptrain.mlp_for(data, MODELS[kind])
    return dptrain.fit(model, data, config, out=out, resume=resume, force=force, world=World())


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of a file, times aside."""
    found = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def bytes_of(run: Path) -> dict[str, bytes]:
    """Return the run's checkpoints and model by name."""
    return {path.name: path.read_bytes() for path in run.rglob("*.safetensors")}


@pytest.fixture(scope="module", params=["plain", "rich"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp(request.param) / request.param
    fit(out, request.param)
    assert len(checkpoint.steps_of(out)) > 5
    return out


def test_from_every_checkpoint_the_run_ends_alike(whole: Path, tmp_path: Path) -> None:
    for step in checkpoint.steps_of(whole):
        run = tmp_path / str(step)
        shutil.copytree(whole, run)
        for later in checkpoint.steps_of(run):
            if later > step:
                checkpoint.path_of(run, later).unlink()
        (run / "model.safetensors").unlink()
        trained = fit(run, whole.name, resume=True)
        assert bytes_of(run) == bytes_of(whole)
        for name in LINES:
            assert lines(run, name) == lines(whole, name)
        stored = map(json.loads, (run / LINES[0]).read_text().splitlines())
        assert trained.history == [line for line in stored if "train_loss" in line]


def test_a_checkpoint_of_another_receipt_is_not_gone_on_with(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    path = checkpoint.path_of(run, checkpoint.steps_of(run)[-1])
    arrays, state = checkpoint.read(path)
    checkpoint.write(path, arrays, state | {"receipt_lines": state["receipt_lines"] - 1})
    before = bytes_of(run)
    with pytest.raises(InputError, match="is not the receipt of step-"):
        fit(run, whole.name, resume=True)
    assert bytes_of(run) == before


def test_without_a_checkpoint_it_begins_anew(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match="seed is 1; the run has 0"):
        fit(run, whole.name, resume=True, seed=1)
    fit(run, whole.name, resume=True)
    assert bytes_of(run) == bytes_of(whole)
    assert (run / "receipt.jsonl").read_bytes() == (whole / "receipt.jsonl").read_bytes()


def test_more_epochs_can_be_asked_for(tmp_path: Path) -> None:
    fit(tmp_path / "long", epochs=4)
    fit(tmp_path / "short", epochs=2)
    fit(tmp_path / "short", resume=True, epochs=4)
    assert bytes_of(tmp_path / "short").items() >= {
        ("model.safetensors", (tmp_path / "long" / "model.safetensors").read_bytes())
    }
    assert lines(tmp_path / "short", LINES[0]) == lines(tmp_path / "long", LINES[0])
    noted = receipt_of(tmp_path / "short").notes
    assert noted == [(96, {"settings": {"epochs": 4}})]
    with pytest.raises(InputError, match=r"has done 192 steps, and epochs 1 would be 48; ask"):
        fit(tmp_path / "short", resume=True, epochs=1)


def test_a_run_that_is_over_stays_as_it_is(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = fit(run, whole.name, resume=True).summary
    assert bytes_of(run) == bytes_of(whole)
    kept = json.loads((whole / "summary.json").read_text())
    timed = ("seconds", "examples_per_second", "run")
    assert {k: v for k, v in before.plain().items() if k not in timed} == {
        k: v for k, v in kept.items() if k not in timed
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 32}, r"batch-size is 32; the run has 64"),
        ({"seed": 1}, r"seed is 1; the run has 0"),
        ({"shards": 2}, r"shards is 2, was 3\. The result would not be .* --force"),
        ({"threads": 2}, r"threads is 2, was 1\."),
    ],
)
def test_other_settings_are_refused(
    changes: dict[str, Any], message: str, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = bytes_of(run)
    with pytest.raises(InputError, match=message):
        fit(run, whole.name, resume=True, **changes)
    assert bytes_of(run) == before
    for name in (*LINES, "config.toml"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("in_use", OTHER_LIBM, "libm is ['another']"),
        ("linear_algebra", ["another blas"], "blas is ['another blas']"),
        ("__version__", "99", "dptrain is 99"),
    ],
)
def test_another_machine_is_refused_or_noted(
    name: str, value: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dptrain.load(world=World())
    model = dptrain.mlp_for(data)
    dptrain.fit(model, data, SHORT, out=tmp_path / "run", world=World())
    found = value if name == "__version__" else lambda: value
    monkeypatch.setattr(identity, name, found)
    longer = replace(SHORT, epochs=4)
    with pytest.raises(InputError) as error:
        dptrain.fit(model, data, longer, out=tmp_path / "run", resume=True, world=World())
    assert said in str(error.value)
    dptrain.fit(model, data, longer, out=tmp_path / "run", resume=True, force=True, world=World())
    (note,) = receipt_of(tmp_path / "run").notes
    dptrain.fit(model, data, longer, out=tmp_path / "run", resume=True, world=World())
    assert receipt_of(tmp_path / "run").notes == [note]  # what is noted has been agreed to
    assert note.changed.pop("settings") == {"epochs": 4}
    (noted,) = note.changed.values()
    assert noted in (value, [getattr(value, "libm", value)])


def test_the_cpu_s_name_is_noted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dptrain.load(world=World())
    model = dptrain.mlp_for(data)
    dptrain.fit(model, data, SHORT, out=tmp_path / "run", world=World())
    monkeypatch.setattr(identity, "cpu", lambda: "Another CPU")
    longer = replace(SHORT, epochs=4)
    dptrain.fit(model, data, longer, out=tmp_path / "run", resume=True, world=World())
    (note,) = receipt_of(tmp_path / "run").notes
    assert note.changed == {"cpu": ["Another CPU"], "settings": {"epochs": 4}}
    assert dptrain.verify(tmp_path / "run", "all", world=World()).verdict == "identical"


def test_other_data_is_refused_or_noted(tmp_path: Path, quick: Start) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 5)), np.arange(300) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y)
    asked = ("train", "--epochs", "2", "--shards", "2", "--quiet")
    assert quick(*asked, "d.npz", "--out", "run").status == 0
    (tmp_path / "d.npz").rename(tmp_path / "moved.npz")
    more = ("train", "--resume", "run", "--epochs", "3", "--quiet")
    gone = quick(*more)
    assert gone.status == 2
    assert "d.npz" in gone.stderr
    assert quick(*more, "moved.npz", ranks=2).status == 0
    x[7, 3] = np.nextafter(x[7, 3], 9)
    np.savez(tmp_path / "moved.npz", x=x, y=y)
    more = ("train", "--resume", "run", "--epochs", "4", "--quiet")
    other = quick(*more)
    assert (other.status, other.stdout) == (2, "")
    assert "data.train is" in other.stderr
    assert "settings" not in other.stderr
    assert "--force" in other.stderr
    assert quick(*more, "--force").status == 0
    notes = receipt_of(tmp_path / "run").notes
    assert [sorted(note.changed) for note in notes] == [["settings"], ["data", "settings"]]


def test_other_test_rows_are_refused(tmp_path: Path) -> None:
    """The receipt's end says what they came to."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 2)), np.arange(40) % 3
    config = TrainConfig(epochs=1, batch_size=20)
    for resume in (False, True):
        np.savez(tmp_path / "d.npz", x=x, y=y, x_test=x[:9] + resume, y_test=y[:9])
        data = dptrain.load(tmp_path / "d.npz", world=World())
        refused = pytest.raises(InputError, match=r"data\.test is ") if resume else nullcontext()
        with refused:
            dptrain.fit(
                dptrain.mlp_for(data, ModelConfig(hidden=(2,))),
                data,
                replace(config, epochs=1 + resume),
                out=tmp_path / "run",
                resume=resume,
                world=World(),
            )


def was(**values: Any) -> Identity:
    """Return what decides the bytes of a run, of which these values count."""
    nothing = dict.fromkeys(Identity._fields)
    return Identity(**{**nothing, "settings": {}, **values})


def test_every_setting_that_changes_bytes_is_fixed() -> None:
    free = {"data", "test-data"}  # where files are; their contents are compared
    free |= {"checkpoint-every", "keep-checkpoints"}
    free |= {"audit-every", "recheck-every", "stall-timeout", "init-from"}
    names = [
        option_name(item)
        for config in (DataConfig, ModelConfig, TrainConfig)
        for item in dataclasses.fields(config)
    ]
    assert len(names) > 30
    for name in ("data", *names):
        stored, now = (was(settings={"seed": 0, name: value}) for value in (1, 2))
        if name in free:
            assert identity.changes(stored, now, force=False) == {}
        elif name in ("epochs", "steps"):
            assert identity.changes(stored, now, force=False) == {"settings": {name: 2}}
        elif name not in ("shards", "threads", "cpu-level"):  # which are compared as they come out
            for force in (False, True):
                with pytest.raises(InputError, match=f"{name} is 2; the run has 1"):
                    identity.changes(stored, now, force=force)


def test_another_number_of_parameters_is_refused_whatever_is_forced() -> None:
    """With what is the reason, as other data."""
    stored = was(num_params=5, data={"train": "x (9, 2): a"})
    now = was(num_params=6, data={"train": "x (9, 3): b"})
    told = r"data.train is x \(9, 3\): b, was x \(9, 2\): a; num_params is 6, was 5: give the run's"
    for force in (False, True):
        with pytest.raises(InputError, match=told):
            identity.changes(stored, now, force=force)


def test_another_value_in_any_row_is_other_data(tmp_path: Path) -> None:
    """Held out or not: the rows that are trained on follow from the seed."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 2)), np.arange(50) % 3
    found = set()
    for row in (None, *range(50)):
        for values in (x, y):
            changed = values.copy()
            if row is not None:
                changed[row] += 1
            arrays: dict[str, Any] = {"x": x, "y": y} | {"x" if values is x else "y": changed}
            np.savez(tmp_path / "d.npz", **arrays)
            config = DataConfig(validation=0.2, task="regression")
            data = dptrain.load(tmp_path / "d.npz", config, world=World())
            assert data.validation is not None
            one, other = (
                identity.fingerprint(rows, World()) for rows in (data.train, data.validation)
            )
            assert one == other
            found.add(one)
    assert len(found) == 1 + 2 * 50


@pytest.mark.parametrize("new", ["1,2,zz,p\n", "1,3,w,p\n"], ids=["a text", "a weight"])
def test_another_text_or_weight_is_other_data(new: str, tmp_path: Path) -> None:
    """Also where the texts have the same order, so that the columns of numbers are the same."""
    found, config = set(), DataConfig(target=("y",), weight="w")
    for row in ("1,2,w,p\n", new):
        text = f"a,w,c,y\n{row}2,1,v,q\n3,1,v,p\n{row}"
        (tmp_path / "d.csv").write_text(text)
        data = dptrain.load(tmp_path / "d.csv", config, world=World())
        found.add(identity.fingerprint(data.train, World()))
    assert len(found) == 2


def test_with_force_the_shards_can_change_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    fit(tmp_path / "run", steps=100, epochs=None)
    data = dptrain.load(config=DataConfig(validation=0.2), world=World())
    config = replace(SHORT, steps=150, epochs=None, shards=5)
    model = dptrain.mlp_for(data)
    run = tmp_path / "run"
    dptrain.fit(model, data, config, out=run, resume=True, force=True, world=World())
    (note,) = receipt_of(run).notes
    settings = {"shards": 5, "steps": 150}
    assert note == (100, {"shards": 5, "settings": settings})
    assert dptrain.verify(run, "101:150", world=World()).verdict == "identical"
    seen = [line.rows for line in follow(run, Receipt()) if line]
    assert len(seen) == len(set(seen)) == 150


def test_the_sum_of_allreduce_belongs_to_a_number_of_ranks(quick: Start) -> None:
    asked = ("train", "--reduce", "allreduce", "--epochs", "1", "--shards", "4", "--quiet")
    assert quick(*asked, "--out", "run", ranks=2).status == 0
    more = ("train", "--resume", "run", "--epochs", "2", "--quiet")
    assert "ranks is 3, was 2" in quick(*more, ranks=3).stderr
    assert quick(*more, ranks=2).status == 0


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    fit(tmp_path / "run", "rich", checkpoint_every="1 epoch", patience=None, keep_checkpoints=2)
    losses = {
        line["step"]: line["validation_loss"]
        for line in lines(tmp_path / "run", "metrics.jsonl")
        if "validation_loss" in line
    }
    best = min(losses, key=lambda step: losses[step])
    assert checkpoint.steps_of(tmp_path / "run") == sorted({*list(losses)[-2:], best})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--resume", "nothing"], "nothing/config.toml: No such file"),
        (["--resume", "run", "--out", "other"], "leave --out out"),
        (["--resume", "run", "--config", "run/config.toml"], "give it without --config"),
        (["--resume", "run", "--batch-size", "9"], "batch-size is 9; the run has 64"),
        (["--resume", "run", "--hidden", "9"], "hidden is [9]; the run has [128]"),
        (["--out", "run"], "to go on with the run in it: --resume run"),
        (["--out", "new", "--force"], "force is given without resume"),
        (["--checkpoint-every", "2 weeks"], "checkpoint-every is '2 weeks'; give a number"),
        (["--checkpoint-every", "0s"], "checkpoint-every is '0s'; give a number"),
    ],
)
@pytest.mark.parametrize("ranks", [None, 2])
def test_mistakes_are_said_once(
    args: list[str], message: str, ranks: int | None, run: Path, quick: Start
) -> None:
    done = quick("train", *args, ranks=ranks, cwd=run.parent)
    assert done.status == 2
    assert done.stderr.count("dptrain:") == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (run.parent / "new").exists()
    assert [path.name for path in (run / "checkpoints").iterdir()] == [
        "step-0000000060.safetensors"
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    data = dptrain.load(world=World())
    config = TrainConfig(batch_size=64, epochs=1)
    dptrain.fit(dptrain.mlp_for(data), data, config, out=out, world=World())
    return out


# ---- lost settings and metrics


METRICS: dict[str, Any] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half a line": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "a line damaged": lambda path: path.write_bytes(
        path.read_bytes().replace(b'"train_l', b"train_l")
    ),
    "no epoch's seconds": lambda path: path.write_bytes(path.read_bytes().replace(b"sec", b"ces")),
    "too many lines damaged": lambda path: path.write_bytes(b"\n" * 1001 + path.read_bytes()),
}


@pytest.mark.parametrize("how", METRICS)
def test_lost_metrics_cost_a_warning_and_nothing_else(
    how: str, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for step in checkpoint.steps_of(run)[-2:]:
        checkpoint.path_of(run, step).unlink()
    METRICS[how](run / "metrics.jsonl")
    left = (run / "metrics.jsonl").read_bytes() if how != "gone" else b""
    capfd.readouterr()
    trained = fit(run, whole.name, resume=True)
    assert capfd.readouterr().err.count("; the run goes on with what is left") == 1
    for name in ("model.safetensors", "receipt.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted({*steps})
    assert len(trained.history) < len((whole / "metrics.jsonl").read_text().splitlines())
    if "damaged" in how or how == "no epoch's seconds":
        assert (run / "metrics.damaged").read_bytes() == left
    assert dptrain.verify(run, "all", world=World()).verdict == "identical"


CONFIGS_LOST: dict[str, Any] = {
    "gone": lambda path: path.unlink(),
    "no TOML": lambda path: path.write_text(path.read_text().replace("seed = 0", "seed = 0x")),
    "another seed": lambda path: path.write_text(path.read_text().replace("seed = 0", "seed = 9")),
    "another key": lambda path: path.write_text(path.read_text().replace("seed = 0", "sead = 0")),
    "no seed": lambda path: path.write_text(path.read_text().replace("seed = 0", "")),
}


@pytest.mark.parametrize("how", CONFIGS_LOST)
def test_lost_settings_are_those_of_the_checkpoint(
    how: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    good = settings_of(run)
    assert not capsys.readouterr().err
    CONFIGS_LOST[how](run / "config.toml")
    assert settings_of(run) == good
    (word,) = capsys.readouterr().err.splitlines()
    assert "config.toml" in word
    assert "its own settings, and the file is written again" in word
    shutil.rmtree(run / "checkpoints")
    assert settings_of(run) == good  # those of the receipt


def test_what_a_person_may_change_is_taken_from_damaged_settings(
    whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    text = (run / "config.toml").read_text()
    for old, new in (("seed = 0", "seed = 4"), ("epochs = 3", "epochs = 7"), ("= 100\n", "= 5\n")):
        assert old in text
        text = text.replace(old, new)
    (run / "config.toml").write_text(text)
    found = settings_of(run)
    assert (found["seed"], found["epochs"], found["keep-checkpoints"]) == (0, 7, 5)


def test_a_run_without_its_settings_goes_on(run: Path, tmp_path: Path, quick: Start) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "config.toml").unlink()
    (copy / "model.safetensors").unlink()
    done = quick("train", "--resume", "copy", "--quiet")
    assert done.status == 0
    assert done.stderr.count("dptrain: warning: ") == done.stderr.count("\n") == 1
    for name in ("receipt.jsonl", "model.safetensors"):
        assert (copy / name).read_bytes() == (run / name).read_bytes()
    assert quick("verify", "copy").status == 0


# ---- models of one's own


class Own(MLP):
    """A model of one's own that no settings make."""

    def loss_sum(self, *args: Any) -> Sums:
        return super().loss_sum(*args)


class Other(MLP):
    """Another one, with as many parameters."""

    def loss_sum(self, *args: Any) -> Sums:
        found = super().loss_sum(*args)
        return Sums(2 * found.loss, found.weight)


class Plain:
    """One that keeps the protocol and no more, with an attribute that decides what it computes."""

    def __init__(self, model: MLP, rate: float = 1.0) -> None:
        self._model, self.rate = model, rate
        self.layout, self.dtype = model.layout, model.dtype
        self.initial_params, self.outputs = model.initial_params, model.outputs
        self.loss_sum, self.loss_and_grad_sum = model.loss_sum, model.loss_and_grad_sum


def own(data: Data, kind: Any, **changes: Any) -> Any:
    spec = dptrain.mlp_for(data, ModelConfig(hidden=(8,))).spec() | changes
    return kind(**spec)


def test_a_run_goes_on_with_its_own_model_only(tmp_path: Path) -> None:
    data = dptrain.load(world=World())
    out = tmp_path / "run"

    def go(model: Any, epochs: int, **options: Any) -> Any:
        config = replace(SHORT, epochs=epochs)
        return dptrain.fit(model, data, config, out=out, world=World(), **options)

    go(own(data, Own), 1)
    go(own(data, Own), 2, resume=True)
    others = {
        "model.class is Other, was Own; model.source is ": own(data, Other),
        "model.class is Plain, was Own; ": Plain(own(data, MLP)),
        "model.spec.activation is tanh, was relu. ": own(data, Own, activation="tanh"),
    }
    for told, model in others.items():
        with pytest.raises(InputError, match=f"^{told}.*--force"):
            go(model, 3, resume=True)
    with pytest.raises(InputError, match=r"^model\.class is MLP, was Own; .* start a new run"):
        go(own(data, MLP), 3, resume=True, force=True)
    go(own(data, Other), 3, resume=True, force=True)
    assert receipt_of(out).notes[-1].changed["model"]["class"] == "Other"


def test_attributes_of_a_model_tell_it_from_another(tmp_path: Path) -> None:
    data = dptrain.load(world=World())
    out = tmp_path / "run"
    dptrain.fit(Plain(own(data, MLP)), data, SHORT, out=out, world=World())
    again: dict[str, Any] = {"out": out, "resume": True, "world": World()}
    dptrain.fit(Plain(own(data, MLP)), data, SHORT, **again)
    with pytest.raises(InputError, match=r"^model\.attributes\.rate is 2\.0, was 1\.0\. "):
        dptrain.fit(Plain(own(data, MLP), 2.0), data, SHORT, **again)


SHELL = """
class Own:
    def loss(self, x):
        return (lambda y: FACTOR * y)(x)
"""


def test_a_model_from_a_shell_has_no_source_and_is_known_all_the_same() -> None:
    found = []
    for text in (SHELL, "\n\n" + SHELL, SHELL.replace("FACTOR", "2 * FACTOR")):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(text, names)  # noqa: S102 (as a shell does)
        found.append(described(names["Own"]()))
    assert found[0] == found[1] != found[2]


def test_a_subclass_is_stored_as_what_it_is(tmp_path: Path) -> None:
    data = dptrain.load(world=World())
    out = tmp_path / "run"
    trained = dptrain.fit(own(data, Own), data, SHORT, out=out, world=World())
    assert dptrain.verify(out, world=World()).verdict == "whole"
    assert dptrain.verify(out, "all", model=own(data, Own), world=World()).verdict == "identical"
    different = dptrain.verify(out, "all", model=own(data, Other), world=World())
    assert different.verdict == "different"
    with pytest.raises(InputError, match=r"has one's own model: give it to dptrain\.verify"):
        dptrain.verify(out, "all", world=World())
    with pytest.raises(InputError, match="holds a model of one's own class, Own: give it"):
        dptrain.load_trained(out)
    again = dptrain.load_trained(out, own(data, Own))
    stored, _ = checkpoint.read_model(out / "model.safetensors")
    names = {param.name for param in own(data, Own).layout}
    assert stored.keys() == names
    x = np.arange(128.0).reshape(2, 64)
    assert (again.params == trained.params).all()
    assert (again.probabilities(x) == trained.probabilities(x)).all()
    for model, name in ((own(data, Other), "class"), (own(data, Own, activation="tanh"), "spec")):
        with pytest.raises(InputError, match=f"its {name} is "):
            dptrain.load_trained(out, model)


def test_the_command_says_where_a_run_of_ones_own_model_goes_on(
    tmp_path: Path, quick: Start
) -> None:
    from dptrain import fit, load

    data = load(world=World())
    fit(own(data, Own), data, SHORT, out=tmp_path / "run", world=World())
    for words in (("train", "--resume", "run"), ("evaluate", "run")):
        done = quick(*words)
        assert (done.status, done.stdout, done.stderr.count("dptrain: ")) == (2, "", 1)
        assert "a model of one's own" in done.stderr
        assert "dptrain.fit(" in done.stderr or "dptrain.load_trained(" in done.stderr


class Odd(Plain):
    """One whose arrays have names that can't be stored."""

    def __init__(self, model: MLP, name: str) -> None:
        super().__init__(model)
        first, *others = model.layout
        self.layout = (Param(name, first.shape), *others)


@pytest.mark.parametrize("name", ["layers.0.bias", "\ud800", "__metadata__"])
def test_arrays_without_names_of_their_own_are_refused(name: str, tmp_path: Path) -> None:
    data = dptrain.load(world=World())
    with pytest.raises(InputError, match="an array named"):
        dptrain.fit(Odd(own(data, MLP), name), data, SHORT, out=tmp_path / "run", world=World())
    assert not (tmp_path / "run").exists()
