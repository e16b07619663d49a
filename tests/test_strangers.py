"""Shows that a run directory from a stranger runs no code, and ends a command with one message.

Commands run in this process, with little memory and little time. What a stranger can write is
whatever passes the checks that it is easy to pass: files with right hashes and wrong values.
"""

import functools
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401 (which takes long)
import numpy as np
import pytest
import tomli_w
from conftest import Finished
from tiny import ALONE, NUM_STEPS, train, write_data

from dptrain import world as worlds
from dptrain.cli import main as cli
from dptrain.record import checkpoint
from dptrain.record.receipt import encode, head_of

NAN, INFINITY = float("nan"), float("inf")
WRONG: tuple[Any, ...] = (-1, 2**70, 1.5, "x", None, [], {}, NAN, INFINITY)
"""Values that are nothing like a number of steps, a text or settings; some are one of these."""

DEEP = "[" * 100_000 + "]" * 100_000
SECONDS = 10
MEMORY = 2**30
"""Bytes beyond what this process has that a command may ask for."""

Edit = Callable[[Any], object]


class Evil:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run on it that has ended, with a checkpoint every two steps."""
    folder = tmp_path_factory.mktemp("made")
    train(write_data(folder / "data.npz"), folder / "run", checkpoint_every="2 steps")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, for a stranger to change."""
    return shutil.copytree(made / "run", tmp_path / "run")


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test have little time and memory, and nothing be unpickled."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is unpickled")

    def late(*_: object) -> None:
        raise AssertionError("this takes too long")

    monkeypatch.setattr(worlds, "connect", functools.cache(lambda: ALONE))
    monkeypatch.setattr(os, "fsync", id)
    for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGUSR1)
    }
    signal.signal(signal.SIGALRM, late)
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    for number, handler in handlers.items():
        signal.signal(number, handler)


Call = Callable[..., Finished]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `dptrain ARGS` in this process."""

    def command(*args: str | Path) -> Finished:
        monkeypatch.setattr(sys, "argv", ["dptrain", *map(str, args)])
        signal.alarm(SECONDS)
        status = cli._run()
        signal.alarm(0)
        return Finished(status, *capsys.readouterr())

    return command


def check_refused(done: Finished, name: object = None) -> None:
    """Check that a command said what is wrong in one message, or warned and went on."""
    lines = done.stderr.splitlines()
    assert all(line.isprintable() for line in [*lines, *done.stdout.splitlines()]), (name, done)
    if done.status == 2:
        assert done.stdout == "", name
        assert len([line for line in lines if "dptrain: warning: " not in line]) == 1, (name, lines)
    elif done.status == 1:
        assert '"verdict": "d' in done.stdout, name
    else:
        assert done.status == 0, (name, done)
        told = ("dptrain: warning: ", "dptrain: wrote ")
        assert all(line.startswith(told) for line in lines), (name, lines)


def resume(run: Path) -> Sequence[str | Path]:
    return "train", "--resume", run, "--quiet", "--json"


def resume_for_people(run: Path) -> Sequence[str | Path]:
    return "train", "--resume", run, "--quiet"


def verify(run: Path) -> Sequence[str | Path]:
    return "verify", run, "--json"


def replay(run: Path) -> Sequence[str | Path]:
    return "verify", run, "--replay", "1:", "--quiet", "--json"


def evaluate(run: Path) -> Sequence[str | Path]:
    return "evaluate", run, "--json"


def predict(run: Path) -> Sequence[str | Path]:
    return "predict", run, run.parent / "x.npy", "--probabilities"


def plot(run: Path) -> Sequence[str | Path]:
    return "plot", run, "--out", run.parent / "a.png"


Way = Callable[[Path], Sequence[str | Path]]
GO_ON: tuple[Way, ...] = (resume, replay)
ASK: tuple[Way, ...] = (evaluate, predict)


Change = Callable[[Path], object]
CheckAll = Callable[[Sequence[Way], Change, object], None]


@pytest.fixture
def check_all(made: Path, tmp_path: Path, call: Call) -> CheckAll:
    """Let a stranger change a run, and check what each command makes of it."""
    np.save(tmp_path / "x.npy", np.zeros((3, 5)))
    run = tmp_path / "run"

    def check(ways: Sequence[Way], change: Change, name: object) -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(made / "run", run)
        change(run)
        for way in sorted(ways, key=lambda way: way is resume):  # which comes last, as it writes
            try:
                done = call(*way(run))
            except Exception as error:  # any is a traceback, whatever it is
                raise AssertionError(f"{way.__name__}, {name}: {error!r}") from error
            check_refused(done, (way.__name__, name))

    return check


# ---- what a stranger writes


NEWEST = f"checkpoints/step-{NUM_STEPS:010}.safetensors"
MODEL = "model.safetensors"


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file and what follows it."""
    content = path.read_bytes()
    start = 8 + int(struct.unpack("<Q", content[:8])[0])
    return json.loads(content[8:start]), content[start:]


def join(path: Path, header: dict[str, Any], data: bytes) -> None:
    """Write a safetensors file, under a right checksum if it has a place for one."""
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and "sha256" in metadata:
        metadata["sha256"] = checkpoint.BLANK
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    size = struct.pack("<Q", len(text))
    digest = hashlib.sha256(size + text + data).hexdigest()
    path.write_bytes(size + text.replace(checkpoint.BLANK.encode(), digest.encode()) + data)


def edit_header(name: str, edit: Edit, run: Path) -> None:
    """Change what stands before the arrays of a safetensors file."""
    header, data = split(run / name)
    edit(header)
    join(run / name, header, data)


def edit_values(name: str, edit: Edit, run: Path) -> None:
    """Change what dptrain keeps in a safetensors file beside the arrays."""

    def in_header(header: dict[str, Any]) -> None:
        values = json.loads(header["__metadata__"]["dptrain"])
        edit(values)
        header["__metadata__"]["dptrain"] = json.dumps(values)

    edit_header(name, in_header, run)


def retype(name: str, dtype: str, size: int, run: Path) -> None:
    """Give every array of a safetensors file another type, of zeros."""
    header, _ = split(run / name)
    stop = 0
    for array, about in header.items():
        if array != "__metadata__":
            start, stop = stop, stop + size * int(np.prod(about["shape"]))
            about.update(dtype=dtype, data_offsets=[start, stop])
    join(run / name, header, bytes(stop))


def edit_metrics(key: str, value: Any, run: Path) -> None:
    """Set a value in every line of the metrics."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) | {key: value} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def edit_receipt(edit: Edit, run: Path) -> None:
    """Change a receipt so that its chain holds, and the checkpoints know it."""
    lines = [json.loads(line) for line in (run / "receipt.jsonl").read_text().splitlines()]
    edit(lines)
    found = [b""]
    for line in lines:
        values = {key: value for key, value in line.items() if key != "previous"}
        found.append(encode(values, head_of(found[-1]) if found[-1] else ""))
    (run / "receipt.jsonl").write_bytes(b"\n".join([*found[1:], b""]))

    def name_it(state: dict[str, Any]) -> None:
        state["receipt_sha256"] = head_of(found[state["receipt_lines"]])

    for step in checkpoint.steps_of(run):
        edit_values(f"checkpoints/{checkpoint.path_of(run, step).name}", name_it, run)


def edit_config(key: str, text: str, run: Path) -> None:
    """Set a value in config.toml, given as TOML."""
    path = run / "config.toml"
    values = tomllib.loads(path.read_text())
    values.pop(key, None)
    path.write_text(f"{tomli_w.dumps(values)}{key} = {text}\n")


def write(name: str, content: bytes, run: Path) -> None:
    """Put something else in the place of a file."""
    (run / name).write_bytes(content)


def put(*path: Any, value: Any) -> Edit:
    """Return what sets a value deep in lists and objects."""

    def edit(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return edit


# ---- nothing is unpickled


def test_files_of_pickles_make_nothing(tmp_path: Path, check_all: CheckAll) -> None:
    evil = pickle.dumps(Evil(tmp_path / "made by a pickle"))
    for name in FILES:
        check_all((*GO_ON, *ASK), partial(write, name, evil), name)
    assert not (tmp_path / "made by a pickle").exists()


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_data_of_python_objects_makes_nothing(
    kind: str, run: Path, tmp_path: Path, call: Call
) -> None:
    objects = np.array([Evil(tmp_path / "made by a pickle")] * 300, object).reshape(300, 1)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=objects, y=np.arange(300) % 3)
    for command in ("evaluate", "predict", "verify"):
        more = ("--replay", "1:") if command == "verify" else ()
        done = call(command, run, tmp_path / f"x.{kind}", *more)
        assert done.status == 2
        assert "never loaded" in done.stderr
    assert not (tmp_path / "made by a pickle").exists()


def test_the_guard_itself_bites() -> None:
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(pickle.dumps(1))  # noqa: S301 (refused)


def test_a_run_that_nobody_changed_passes_all_commands(
    run: Path, call: Call, check_all: CheckAll
) -> None:
    check_all((*GO_ON, *ASK, plot), Path.exists, "nothing")
    assert call(*replay(run)).json["verdict"] == "identical"


# ---- files that are something else

CONTENTS = {
    "nothing": b"",
    "zeros": bytes(100),
    "no text": b"\xff\xfe" * 50,
    "a list": b"[]\n",
    "a number": b"5\n",
    "null": b"null\n",
    "nan": b"NaN\n",
    "infinity": b"1e999\n",
    "a large number": b"9" * 5000 + b"\n",
    "an object": b"{}\n" * 20,
    "deep": DEEP.encode() + b"\n",
    "a deep object": b'{"step": ' + DEEP.encode() + b"}\n",
    "deep TOML": b"a = " + b"[" * 100_000,
    "large sizes": struct.pack("<Q", 2**62) + b"{}" * 50,
    "larger sizes": struct.pack("<Q", 2**64 - 1) + b"{}" * 50,
    "a size beyond the file": struct.pack("<Q", 10**9) + b"{}" * 50,
}
FILES: dict[str, Sequence[Way]] = {
    "config.toml": (*GO_ON, *ASK),
    "metrics.jsonl": (*GO_ON, plot),
    "receipt.jsonl": GO_ON,
    "summary.json": (verify,),
    MODEL: (verify, *ASK),
    NEWEST: GO_ON,
}
TEMPORARY = [".config.toml.tmp", f".{MODEL}.tmp", ".summary.json.tmp"]
TEMPORARY += [f"checkpoints/.step-{NUM_STEPS:010}.safetensors.tmp"]


@pytest.mark.parametrize("name", FILES)
def test_files_of_something_else(name: str, check_all: CheckAll) -> None:
    for what, content in CONTENTS.items():
        check_all(FILES[name], partial(write, name, content), what)


@pytest.mark.parametrize("name", [*FILES, *TEMPORARY])
def test_pipes_that_would_block(name: str, check_all: CheckAll) -> None:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    check_all(FILES.get(name, (resume,)), change, name)


@pytest.mark.parametrize("name", FILES)
def test_links_to_what_has_no_end(name: str, check_all: CheckAll) -> None:
    def change(run: Path) -> None:
        (run / name).unlink()
        (run / name).symlink_to("/dev/zero")

    check_all(FILES[name], change, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["a hole", "a tail", "a header"])
def test_files_of_immense_size(kind: str, name: str, check_all: CheckAll) -> None:
    """Of 9 GB, almost all of it a hole: to read it all would take too much memory, or time."""

    def change(run: Path) -> None:
        if kind != "a tail":
            length = 0 if kind == "a hole" else 9 * 2**30 - 8
            (run / name).write_bytes(struct.pack("<Q", length))
        os.truncate(run / name, 9 * 2**30)

    check_all(FILES[name], change, kind)


@pytest.mark.parametrize("link", ["folder", "file", "nothing"])
def test_checkpoints_that_are_another_folder_change_nothing_there(
    link: str, run: Path, tmp_path: Path, call: Call
) -> None:
    mine = tmp_path / "mine"
    if link == "file":
        mine.touch()
    elif link == "folder":
        shutil.copytree(run / "checkpoints", mine)
        for name in (
            ".mine.tmp",
            ".step-0000000009.safetensors.tmp",
            "step-0000000001.safetensors",
        ):
            (mine / name).touch()
    before = {path: path.read_bytes() for path in mine.glob("*")}
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(mine)
    for way in (verify, replay, resume):
        done = call(*way(run))
        assert done.status == 2
        assert "/checkpoints" in done.stderr
        assert "it is no plain folder" in done.stderr
    assert {path: path.read_bytes() for path in mine.glob("*")} == before


def test_only_files_of_ones_own_are_removed(run: Path, call: Call) -> None:
    names = [".mine.tmp", "mine.tmp", ".step-1.safetensors.tmp", "step-².safetensors"]
    own = f".step-{NUM_STEPS:010}.safetensors.tmp"
    for name in (*names, own):
        (run / "checkpoints" / name).touch()
    assert call(*resume(run)).status == 0
    left = {path.name for path in (run / "checkpoints").iterdir()}
    assert {*names} < left
    assert own not in left


@pytest.mark.parametrize("name", [*FILES, *TEMPORARY])
@pytest.mark.parametrize("begun", [True, False])
def test_links_to_a_persons_files_change_none_of_them(
    name: str, begun: bool, run: Path, tmp_path: Path, call: Call
) -> None:
    """Also where the run would begin anew, so that every file is written again."""
    if not begun:
        for path in (run / "checkpoints").iterdir():
            path.unlink()
        for lines in ("receipt.jsonl", "metrics.jsonl"):
            (run / lines).write_bytes(b"")
    content = (run / name).read_bytes() if (run / name).exists() else b"precious"
    (tmp_path / "precious").write_bytes(content)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "precious")
    check_refused(call(*resume(run)), name)
    assert (tmp_path / "precious").read_bytes() == content


@pytest.mark.parametrize("name", ["step-5", "step-0", "step-9999999999999999", "step-000000000٣"])
def test_checkpoints_of_other_names(name: str, check_all: CheckAll) -> None:
    where = f"checkpoints/{name}.safetensors"
    check_all(GO_ON, lambda run: shutil.copy(run / NEWEST, run / where), name)
    check_all(GO_ON, lambda run: (run / where).mkdir(), name)


# ---- values that are something else


@pytest.mark.parametrize(
    "key",
    [
        "step",
        "seen",
        "loss_sum",
        "norm",
        "best_value",
        "measured",
        "kept",
        "kept_metrics",
        "run",
        "receipt_lines",
        "receipt_sha256",
    ],
)
def test_a_checkpoint_of_wrong_values_is_not_used(key: str, check_all: CheckAll) -> None:
    for value in WRONG:
        check_all((resume, verify), partial(edit_values, NEWEST, put(key, value=value)), value)


@pytest.mark.parametrize("value", ['"x"', "5", "[]", "{}", "null", DEEP], ids=lambda text: text[:4])
def test_a_checkpoint_of_no_values(value: str, check_all: CheckAll) -> None:
    edit = put("__metadata__", "dptrain", value=value)
    check_all(GO_ON, partial(edit_header, NEWEST, edit), value[:9])


PLACES: dict[str, Sequence[Any]] = {
    "shape": ([], [-1], [2**62, 2**62], [10**12], [0], "x", [1.5], None),
    "data_offsets": ([0, 10**12], [-4, 4], [4, 0], [0, 0], [0, 2**64], [0], ["a", "b"], None),
}


@pytest.mark.parametrize("key", PLACES)
def test_arrays_that_claim_other_places(key: str, check_all: CheckAll) -> None:
    """Overlapping, beyond the file, of gigantic size, of no sense."""
    for value in PLACES[key]:
        edit = put("layers.0.weight", key, value=value)
        check_all((verify, evaluate), partial(edit_header, MODEL, edit), value)
        edit = put("params", key, value=value)
        check_all((resume, verify), partial(edit_header, NEWEST, edit), value)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("F16", 2),
        ("BF16", 2),
        ("F64", 8),
        ("I8", 1),
        ("BOOL", 1),
        ("U64", 8),
        ("C64", 8),
        ("F8_E4M3", 1),
        ("F8_E5M2", 1),
    ],
)
def test_arrays_of_other_types(dtype: str, size: int, check_all: CheckAll) -> None:
    check_all((resume, verify), partial(retype, NEWEST, dtype, size), dtype)
    check_all((verify, *ASK), partial(retype, MODEL, dtype, size), dtype)


SIZES = ([10**12, 10**12], [5, 10**12], [2**20, 2**20], [5, 4, INFINITY], [5, NAN], [5, 4.5, 3])
ABOUT: dict[tuple[str, ...], Sequence[Any]] = {
    ("model", "spec", "sizes"): (*SIZES, ["5", "4", "3"]),
    ("model", "spec", "activation"): (),
    ("model", "spec", "dropout"): (),
    ("model", "spec", "loss"): ("huber", "binary-cross-entropy"),
    ("model", "spec", "dtype"): ("float64",),
    ("model", "spec", "banana"): (),
    ("encoding", "task"): ("regression", "multilabel"),
    ("encoding", "features"): (["a"], [1, 2, 3, 4, 5]),
    ("encoding", "classes"): (
        [0],
        [0, 1],
        [2, 1, 0],
        [[0], [1], [2]],
        [{}] * 3,
        [NAN] * 3,
        ["a", "b", "\ud800"],
        ["\x1b[2J", "\x07", "a\nb"],
    ),
    ("encoding", "outputs"): (10**12, 3),
}


@pytest.mark.parametrize("key", ABOUT, ids=".".join)
def test_a_model_of_wrong_values(key: tuple[str, ...], check_all: CheckAll) -> None:
    for value in (*WRONG, *ABOUT[key]):
        check_all((*ASK, verify), partial(edit_values, MODEL, put(*key, value=value)), value)


@pytest.mark.parametrize("shape", [[], [3, 13], [0]])
def test_a_model_of_ones_own_of_wrong_arrays(shape: list[int], check_all: CheckAll) -> None:
    """Whose parameters are no vector: a model of one's own has no other arrays."""

    def change(run: Path) -> None:
        header, _ = split(run / MODEL)
        values = json.loads(header["__metadata__"]["dptrain"])
        values["model"] = {"class": "Own", "source": "none"}
        size = 4 * int(np.prod(shape))
        header = {
            "__metadata__": {"dptrain": json.dumps(values)},
            "params": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
        }
        join(run / MODEL, header, bytes(size))

    check_all((*ASK, verify), change, shape)


@pytest.mark.parametrize("key", ["\\u001b]0;evil\\u0007", "a\\nb", "\\u202e"])
def test_foreign_text_is_shown_escaped(key: str, run: Path, made: Path, call: Call) -> None:
    """In a key, which verify tells of and resume mends, and in a value."""
    edit_config(f'"{key}"', "1", run)
    found = call("verify", run)
    assert found.status == 1
    check_refused(Finished(0, found.stdout, found.stderr), key)
    done = call(*resume(run))
    assert "config.toml is not as the run was" in done.stderr
    check_refused(done, key)
    letters = json.loads(f'"{key}"')
    edit_values(MODEL, put("encoding", "classes", value=["a", "b", letters]), run)
    table = call("evaluate", run, made / "data.npz")
    check_refused(table, key)


@pytest.mark.parametrize("key", ["step", "rows", "loss", "params"])
def test_steps_of_wrong_values(key: str, check_all: CheckAll) -> None:
    for value in WRONG:
        check_all((replay,), partial(edit_receipt, put(2, key, value=value)), value)


@pytest.mark.parametrize("note", ["step", "changed", "settings"])
def test_notes_of_wrong_values(note: str, check_all: CheckAll) -> None:
    for value in WRONG:
        line = {
            "step": {"step": value, "changed": {}},
            "changed": {"step": 2, "changed": value},
            "settings": {"step": 2, "changed": {"settings": value}},
        }[note]
        check_all((replay,), partial(edit_receipt, partial(add, line)), value)


def add(line: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    lines.append(line)


@pytest.mark.parametrize(
    "key", ["data", "model", "shards", "threads", "settings", "num_params", "cpu", "cpu_level"]
)
def test_a_run_of_wrong_values(key: str, check_all: CheckAll) -> None:
    for value in WRONG:
        check_all((*GO_ON, replay), partial(edit_receipt, put(0, key, value=value)), value)


@pytest.mark.parametrize(
    "key",
    [
        "data",
        "test-data",
        "hidden",
        "dropout",
        "shards",
        "clip-norm",
        "threads",
        "checkpoint-every",
    ],
)
def test_settings_of_wrong_values(key: str, check_all: CheckAll) -> None:
    """In the receipt, which a replay goes by, and in config.toml, which the others go by."""
    for value in (*WRONG, [5], ["x"]):
        edit = put(0, "settings", key, value=value)
        check_all((replay,), partial(edit_receipt, edit), value)
    for text in ("-1", "1.5", '"x"', "[]", "{}", "nan", "inf", "[5]", '["x"]', "true"):
        check_all((resume, evaluate), partial(edit_config, key, text), text)


@pytest.mark.parametrize(
    "key", ["seconds", "step", "train_loss", "validation_loss", "validation_accuracy"]
)
def test_metrics_of_wrong_values(key: str, check_all: CheckAll) -> None:
    for value in WRONG:
        check_all((resume_for_people,), partial(edit_metrics, key, value), value)


PATHS = ["/dev/zero", "/etc/passwd", "/proc/self/environ", "/", "nothing", "\\u0000", "a pipe"]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_data_that_leads_to_no_data(path: str, run: Path, call: Call) -> None:
    """The message shows no more than the first bytes of a file that a stranger points at."""
    if path == "a pipe":
        os.mkfifo(run / path)
        path = str(run / path)
    edit_config("data", f'["{path}"]', run)
    for way in (evaluate,) if path == "\\u0000" else (resume, evaluate):  # with a NUL it is no TOML
        done = call(*way(run))
        assert done.status == 2
        assert done.stderr.count("dptrain: ") == 1
        assert len(done.stderr) < 400
