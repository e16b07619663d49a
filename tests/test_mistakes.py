"""Shows that a person's mistake is said once, at once and on every rank, and writes nothing."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conftest import BIN, Finished, Mistake, Start, check_mistake, contents, start
from numpy.typing import NDArray

from dptrain.checked import option_name
from dptrain.config import DataConfig, ModelConfig, TrainConfig
from dptrain.config.tools import BenchConfig, ExplainConfig, PlotConfig
from dptrain.launch import Launch, misfit
from dptrain.words import InputError

Content = str | bytes | NDArray[Any] | Mapping[str, Any]


def write(folder: Path, files: Mapping[str, Content]) -> None:
    """Write files: text, bytes, an array (.npy) or named arrays (.npz); folders as they come."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, np.ndarray):
            np.save(path, content, allow_pickle=True)
        else:
            np.savez(path, **content)


# Data

RANDOM = np.random.Generator(np.random.Philox(0))
X = RANDOM.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(np.int64)
GOOD = {"x": X, "y": Y}
CSV = "width,height,label\n" + "".join(f"{row},{row % 7},{row % 2}\n" for row in range(60))


def put(array: NDArray[Any], value: float, *places: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a copy with a value put in some places."""
    changed = array.astype(np.float64)
    for place in places:
        changed[place] = value
    return changed


class WritesAFile:
    """Leaves a trace where someone loads the pickle that it is in."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (Path("loaded"),))


@dataclass(frozen=True)
class Case:
    """What the folder holds, what is typed, what is answered."""

    files: Mapping[str, Content]
    line: str
    words: str


BLOCKS = RANDOM.normal(size=(3000, 3))  # 3 blocks, so that each of 3 ranks checks one

DATA = {
    "a missing file": Case({}, "nope.npz", r"/nope\.npz: No such file"),
    "a missing file of test data": Case(
        {"d.npz": GOOD}, "d.npz --test-data nope.npz", r"nope\.npz: No such file"
    ),
    "a folder": Case({"d.npz/_/x.npy": X}, "d.npz", "is a directory without files"),
    "an empty file": Case({"d.npz": b""}, "d.npz", r"d\.npz is empty; give a CSV, Parquet"),
    "text named npz": Case({"d.npz": CSV}, "d.npz", r"named \.npz but begins with b'width.*\.csv"),
    "binary named csv": Case(
        {"d.csv": b"\x7fELF\0\0"}, "d.csv --target y", r"d\.csv is binary; give"
    ),
    "npy in place of npz": Case({"x.npy": X}, "x.npy", r"x\.npy has no target: store y beside x"),
    "a truncated npz": Case(
        {"d.npz": b"PK\x03\x04" + bytes(200)}, "d.npz", r"d\.npz can't be read: "
    ),
    "a pickle": Case(
        {"x.npy": pickle.dumps([WritesAFile()]), "y.npy": Y},
        "x.npy y.npy",
        r"x\.npy can't be read: .*pickle.* never loaded",
    ),
    "an npy of Python objects": Case(
        {"x.npy": np.array([WritesAFile(), None]), "y.npy": Y[:2]},
        "x.npy y.npy",
        r"x\.npy can't be read: .*Python objects",
    ),
    "an npz of Python objects": Case(
        {"d.npz": {"x": np.array([WritesAFile(), None]), "y": Y[:2]}},
        "d.npz",
        r"d\.npz can't be read: it holds Python objects \(a pickle\), which are never loaded",
    ),
    "x and y of different lengths": Case(
        {"d.npz": {"x": X, "y": Y[:50]}}, "d.npz", r"x has 60 rows and y has 50; they must"
    ),
    "x and y of different lengths in two files": Case(
        {"x.npy": X, "y.npy": Y[:50]},
        "x.npy y.npy",
        r"/x\.npy and \S*/y\.npy: x has 60 rows and y has 50",
    ),
    "NaN in x": Case(
        {"d.npz": {"x": put(BLOCKS, np.nan, (2900, 0), (1500, 2)), "y": BLOCKS[:, 0]}},
        "d.npz",
        r"x has nan in row 1500, column 2",
    ),
    "infinity in x": Case(
        {"d.npz": {"x": put(BLOCKS, -np.inf, (2999, 1)), "y": BLOCKS[:, 0]}},
        "d.npz",
        r"x has -inf in row 2999, column 1",
    ),
    "NaN in y": Case(
        {"d.npz": {"x": X, "y": put(X[:, 0], np.nan, (7,), (9,))}}, "d.npz", r"y has nan in row 7"
    ),
    "NaN in the test rows": Case(
        {"d.npz": {**GOOD, "x_test": put(X, np.nan, (4, 1)), "y_test": Y}},
        "d.npz",
        r"test rows of \S*d\.npz: x has nan in row 4, column 1",
    ),
    "an empty cell": Case(
        {"d.csv": CSV + "7,7,\n"}, "d.csv --target label", r"line 62 has '' in column 'label'"
    ),
    "labels that training has not": Case(
        {"d.npz": {**GOOD, "x_test": X, "y_test": 2 * Y}},
        "d.npz",
        rf"y has label 2 in row {np.argmax(Y)}; give one of the training rows' .*valid: 0, 1",
    ),
    "labels all equal": Case(
        {"d.npz": {"x": X, "y": 0 * Y}}, "d.npz", r"all 60 labels are 0; .*at least two classes"
    ),
    "test rows of another width": Case(
        {"d.npz": {**GOOD, "x_test": X[:, :2], "y_test": Y}},
        "d.npz",
        r"test rows of \S*d\.npz: x has 2 columns; the training data has 3",
    ),
    "test data of another width": Case(
        {"d.npz": GOOD, "other.npz": {"x": X[:, :2], "y": Y}},
        "d.npz --test-data other.npz",
        r"other\.npz: x has 2 columns; the training data has 3",
    ),
    "test rows without targets": Case(
        {"d.npz": {**GOOD, "x_test": X}},
        "d.npz",
        r"test rows of \S*d\.npz have x and no y",
    ),
    "an unknown column": Case(
        {"d.csv": CSV}, "d.csv --target lable", r"no column 'lable'; .*did you mean 'label'"
    ),
    "no target": Case(
        {"d.csv": CSV}, "d.csv", r"no target: give --target NAME; .*width, height, label"
    ),
    "three files": Case({"x.npy": X}, "x.npy x.npy x.npy", r"3 data files are given; give one"),
}


@pytest.mark.parametrize("case", DATA.values(), ids=DATA)
def test_data_that_can_not_be_learned_from(case: Case, mistake: Mistake, tmp_path: Path) -> None:
    write(tmp_path, case.files)
    mistake("train", *case.line.split(), words=case.words)


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "not an array")
        archive.writestr("y", "nor this")


def damaged_zip(path: Path) -> None:
    """Write arrays whose first compressed block says that it is of a kind that does not exist."""
    np.savez_compressed(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", content, 26)
    content[30 + name + extra] = 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [zip_of_text, damaged_zip])
def test_an_npz_file_that_only_begins_like_one(
    damage: Callable[[Path], None], mistake: Mistake, tmp_path: Path
) -> None:
    damage(tmp_path / "d.npz")
    mistake("train", "d.npz", words=r"d\.npz")


# Settings

SETTINGS = {
    "a word for a number": ("--epochs two", r"--epochs.*'two' is not a whole number"),
    "a word among layers": ("--hidden 3,x", r"--hidden.*'3,x' is not whole numbers"),
    "digits without end": (f"--seed {'9' * 5000}", r"--seed.*: '9{36}\.\.\. is not a whole"),
    "an option without its value": ("--seed", r"--seed.*requires an argument"),
    "a learning rate that is no number": ("--learning-rate nan", r"learning-rate is nan; it must"),
    "no shards": ("--shards 0", r"shards is 0; it must be at least 1"),
    "a layer without units": ("--hidden 3,0", r"hidden is 0; it must be at least 1"),
    "everything held out": ("--validation 1", r"validation is 1\.0; it must be .* below 1"),
    "a loss misspelt": ("--loss huver", r"loss is 'huver'; .*did you mean 'huber'"),
    "a layer that no memory holds": (
        "--hidden 99999999999999999999",
        r"hidden is 9{20}; .* below 2",
    ),
    "epochs without end": (
        f"--epochs {10**400}",
        r"epochs is about 1e400; .* below 9007199254740992",
    ),
    "a rate that grows": (
        "--decay-factor 1e200",
        r"decay-factor is 1e\+200; it must be .* below 1",
    ),
    "a missing settings file": ("--config nope.toml", r"nope\.toml: No such file"),
    "a settings file that is none": ("--config d.npz", r"d\.npz is no TOML file"),
    "a number of 5,000 digits": (
        "--config long.toml",
        r"no TOML file: [^;]* 5000 digits$",
    ),
    "an unknown option": ("--bath-size 3", r"--bath-size.*[Dd]id you mean '?--batch-size"),
    "an unknown value": ("--optimizer adma", r"optimizer is 'adma'; .*did you mean 'adam'"),
    "a seed that no file of settings holds": (
        "--seed 9223372036854775808",
        r"seed is 9223372036854775808; it must be at least 0 and below 9223372036854775808",
    ),
    "a batch of 0": ("--batch-size 0", r"batch-size is 0; it must be at least 1"),
    "nothing held out": ("--validation 0.001", r"of 60 rows that holds out 0; hold out at least"),
    "epochs and steps": ("--epochs 2 --steps 3", r"epochs and steps are both given; give one"),
    "patience with nothing to watch": ("--patience 3", r"patience is 3.*; give --validation"),
    "a loss for another task": (
        "--loss huber",
        r"loss is 'huber'; for classification of 2 classes .* cross-entropy or binary-cross-e",
    ),
    "a target without names": ("--target y", r"target 'y' is given, but \S*d\.npz is no table"),
    "a model that no memory holds": (
        "--hidden 1000000,1000000",
        r"\d MB are needed beside the data, and [0-9,.]+ MB are free on \S+: take more nodes",
    ),
    "gradients that no memory holds": (
        "--reduce allreduce --shards 4096 --hidden 1000000",
        r"\d MB are needed beside the data",
    ),
    "an unknown key of the settings file": (
        "--config bad.toml",
        r"bad\.toml sets 'bath-size'; .*did you mean 'batch-size'",
    ),
    "a run directory in use": ("--out used", r"used exists and is not empty; give another --out"),
    "a run directory that is a file": ("--out d.npz", r"d\.npz is a file; --out needs"),
    "a run directory in a file": ("--out d.npz/run", r"d\.npz/run can't be written: "),
}


@pytest.mark.parametrize(("line", "words"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_can_not_be(line: str, words: str, mistake: Mistake, tmp_path: Path) -> None:
    files = {"bad.toml": "bath-size = 3\n", "long.toml": f"seed = {'9' * 5000}\n"}
    write(tmp_path, {"d.npz": GOOD, "used/mine.txt": "mine", **files})
    mistake("train", "d.npz", *line.split(), words=words)


COMMANDS = {
    r"rounds is 1000000; it must be at least 5 and below 1001": "bench --rounds 1000000",
    r"MB are needed beside the data": "bench --batch-size 9007199254740991",
    r"[0-9] MB are needed beside the data": "bench --inputs 1000000 --hidden 1000000",
    r"rounds is 4": "bench --rounds 4",
    r"needs at least 2 classes": "bench --outputs 1",
    r"--cpu-level.*'x86' is not one of .*'x86-64-v3'": "verify run --cpu-level x86",
    r"task is 'ranking'": "bench --task ranking",
    r"'none' is not a whole number": "bench --batch-size none",
    r"\.png, \.svg, \.pdf": "plot a --out a.gif",
    r"no directory nowhere": "plot a --out nowhere/a.png",
    r"--epochs": "bench --epochs 3",
    r"inputs is 9{20}; it must be .*below 2147483648": "doctor --inputs 99999999999999999999",
    r"seed is about 1e400; it must be": f"explain --seed {10**400}",
    r"there is no chapter '9'": "explain 9",
    r"examples is 7": "explain --examples 7",
    r"--html is nowhere/a\.html, but there is no dir": "explain --html nowhere/a.html",
    r"nowhere/metrics\.jsonl: No such file": "plot nowhere",
    r"did you mean 'steps'": "plot a --x step",
    r"width is 1\.0; it must be at least 3": "plot a --width 1",
    r"RUN\.\.\.": "plot",
    r"no command 'trian'; .*did you mean 'train'": "trian d.npz",
    r"resume is ''; name one, or leave it out": "train --resume=",
    r"init-from is ''": "train d.npz --init-from=",
    r"no command 'd\.npz'; .*to train on a file: dptrain train d\.npz": "d.npz",
}
"""Mistakes of every command, by what is answered."""


@pytest.mark.parametrize(
    ("words", "line"), COMMANDS.items(), ids=[line[:30] for line in COMMANDS.values()]
)
def test_every_command_says_a_mistake_once(
    words: str, line: str, mistake: Mistake, tmp_path: Path
) -> None:
    write(tmp_path, {"d.npz": GOOD})
    mistake(*line.split(), words=words)


CONFIGS = (BenchConfig, DataConfig, ExplainConfig, ModelConfig, PlotConfig, TrainConfig)


@pytest.mark.parametrize("config", CONFIGS)
def test_no_whole_number_is_too_large_to_be_refused(config: type[Any]) -> None:
    for item in fields(config):
        for value in (10**400, -(10**400), 10**5000, -(10**5000)):
            given = (value,) if item.type == tuple[int, ...] else value
            with pytest.raises(InputError, match=f"{option_name(item)} is "):
                config(**{item.name: given})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("batch-size = 3.9", r"batch-size.*3\.9"),
        ("hidden = [3.7]", r"hidden.*3\.7"),
        ("epochs = true", r"epochs.*[Tt]rue"),
        ("optimizer = 3", r"optimizer is '?3'?; valid"),
        ("batch-size = 0", r"batch-size is 0"),
        ("[train]\nepochs = 1", r"sets 'train'"),
    ],
    ids=["fraction", "fraction in a list", "boolean", "number for a name", "bounds", "section"],
)
def test_a_settings_file_with_a_value_of_the_wrong_type(
    content: str, words: str, mistake: Mistake, tmp_path: Path
) -> None:
    write(tmp_path, {"d.npz": GOOD, "run.toml": content})
    mistake("train", "d.npz", "--config", "run.toml", words=words)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("DPTRAIN_BATCH_SIZE", "abc", r"batch-size.*'abc' is not a whole number"),
        ("DPTRAIN_BATCH_SIZE", "0", r"batch-size is 0; it must be at least 1"),
        ("DPTRAIN_OPTIMIZER", "adma", r"optimizer is 'adma'; .*did you mean 'adam'"),
    ],
)
def test_a_variable_with_a_value_that_can_not_be(
    variable: str, value: str, words: str, mistake: Mistake, tmp_path: Path
) -> None:
    write(tmp_path, {"d.npz": GOOD})
    mistake("train", "d.npz", words=words, env={variable: value})


def test_a_mistake_prints_its_message_and_nothing_else(dptrain: Start) -> None:
    done = dptrain("train", "nope.npz", ranks=3)
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("ask", [("--debug",), ()], ids=["option", "variable"])
def test_debug_shows_the_traceback_of_a_mistake(ask: Sequence[str], dptrain: Start) -> None:
    env = {} if ask else {"DPTRAIN_DEBUG": "1"}
    done = dptrain("train", "nope.npz", *ask, env=env)
    assert done.status == 2
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert 'dptrain/data/read.py", line' in done.stderr
    assert done.stderr.count("\ndptrain: ") == 1


# Ranks that differ from each other


@pytest.mark.parametrize("rank", [0, 1])
def test_a_file_that_only_one_rank_can_not_read(rank: int, quick: Start, tmp_path: Path) -> None:
    write(tmp_path, {"d.npz": GOOD, "other/empty": b""})
    before, folders = contents(tmp_path), [tmp_path, tmp_path]
    folders[rank] = tmp_path / "other"
    line = ("train", "d.npz")
    done = quick(*line, ranks=2, cwd=folders[0], last=(line, folders[1]))
    words = rf"on rank {rank} \(host \S+\), not on all: \S*/other/d\.npz: No such file"
    check_mistake(done, words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("", "--learning-rate 0.5", r"learning-rate.*0\.5"),
        ("--seed 1", "--seed 2", r"seed"),
        ("", "--hidden 7", r"hidden.*7"),
        ("--validation 0.1", "--validation 0.2", r"validation.*0\.2"),
        ("", "--scale none", r"scale.*none"),
        ("", "--task regression", r"task.*regression"),
    ],
)
def test_ranks_with_different_options(
    first: str, second: str, words: str, quick: Start, tmp_path: Path
) -> None:
    write(tmp_path, {"d.npz": GOOD})
    before = contents(tmp_path)
    odd = ("train", "d.npz", *second.split())
    done = quick("train", "d.npz", *first.split(), ranks=2, last=(odd, tmp_path))
    check_mistake(done, words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("value", "words"),
    [("0", r"batch-size is 0; it must"), ("abc", r"batch-size.*'abc' is not a whole number")],
)
def test_a_rank_with_an_option_that_none_can_have(value: str, words: str, tmp_path: Path) -> None:
    name = f"{'d' * 250}.npz"  # which is longer than what a board has room for
    write(tmp_path, {name: GOOD})
    before = contents(tmp_path)
    line = ("-n", "1", BIN / "dptrain", "train", name, "--batch-size")
    check_mistake(start("mpirun", *line, "8", ":", *line, value, cwd=tmp_path), words)
    assert contents(tmp_path) == before


def test_ranks_that_find_different_data_under_one_name(quick: Start, tmp_path: Path) -> None:
    write(tmp_path, {"d.npz": GOOD, "other/d.npz": {"x": BLOCKS, "y": BLOCKS[:, 0]}})
    before = contents(tmp_path)
    line = ("train", "d.npz")
    done = quick(*line, ranks=2, last=(line, tmp_path / "other"))
    check_mistake(done, r"data is x \(3000, 3\)")
    assert contents(tmp_path) == before


# A stored model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a classifier of d.csv, with 2 features and a label, in run."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder, {"d.csv": CSV})
    line = ("train", "d.csv", "--target", "label", "--epochs", "1", "--out", "run", "--quiet")
    assert start("dptrain", *line, cwd=folder).status == 0
    return folder / "run"


STORED = {
    "predict without a run": Case({}, "predict nope d.csv", r"nope/model\.safetensors does not ex"),
    "evaluate with a file for a run": Case({}, "evaluate d.csv d.csv", r"finished run"),
    "evaluate without test rows": Case({}, "evaluate run", r"no test rows; name the DATA"),
    "predict of another width": Case(
        {"w.npz": {"x": X}}, "predict run w.npz", r"w\.npz: x has 3 columns; .* has 2"
    ),
    "evaluate of another width": Case(
        {"x.npy": X, "y.npy": Y}, "evaluate run x.npy y.npy", r"x has 3 columns; .* has 2"
    ),
    "evaluate without a feature": Case(
        {"f.csv": "width,label\n1,0\n"}, "evaluate run f.csv", r"f\.csv has no column 'height'"
    ),
    "predict without a feature": Case(
        {"f.csv": "width,heigth\n1,0\n"}, "predict run f.csv", r"'height'; .*did you mean 'heigth'"
    ),
    "evaluate without the target": Case(
        {"f.csv": "width,height\n1,0\n"}, "evaluate run f.csv", r"f\.csv has no column 'label'"
    ),
    "evaluate on labels never seen": Case(
        {"f.csv": "width,height,label\n1,0,0\n1,0,2\n"},
        "evaluate run f.csv",
        r"f\.csv: label has label 2 in line 3; give one of the training rows' labels",
    ),
    "evaluate without targets": Case(
        {"x.npy": X[:, :2]}, "evaluate run x.npy", r"x\.npy has no y; store a target"
    ),
    "predict from NaN": Case(
        {"x.npy": put(X[:, :2], np.nan, (4, 1))},
        "predict run x.npy",
        r"nan in row 4, column 1 .*'height'",
    ),
    "predict from infinity": Case(
        {"x.npy": put(X[:, :2], np.inf, (0, 1))}, "predict run x.npy", r"inf in row 0, column 1"
    ),
    "predict into a text file": Case(
        {},
        "predict run d.csv --out p.txt",
        r"out is p\.txt; .* to a \.csv, \.parquet or \.npy file",
    ),
    "predict one row that is none": Case(
        {"x.npy": X[0, :2]},
        "predict run x.npy",
        r"1 columns; .*one row has shape \[1, n\]",
    ),
    "predict into no folder": Case(
        {}, "predict run d.csv --out no/p.npy", r"--out is no/p\.npy, but there is no dir"
    ),
    "predict nothing": Case({}, "predict run", r"DATA... is missing; see"),
}


@pytest.mark.parametrize("case", STORED.values(), ids=STORED)
def test_a_stored_model_and_data_that_do_not_fit(
    case: Case, mistake: Mistake, trained: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"d.csv": CSV, **case.files})
    shutil.copytree(trained, tmp_path / "run")
    mistake(*case.line.split(), words=case.words)


def test_a_regression_has_no_probabilities(mistake: Mistake, quick: Start, tmp_path: Path) -> None:
    write(tmp_path, {"d.npz": {"x": X, "y": X[:, 0]}})
    assert quick("train", "d.npz", "--epochs", "1", "--out", "run", "--quiet").status == 0
    mistake("predict", "run", "d.npz", "--probabilities", words=r"probabilities; use predict")


def one_row(content: bytes) -> bytes:
    """Return a stored model with one unit's weights, where the model has 128 units."""
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    tensors = safetensors.numpy.load(content)
    tensors["layers.0.weight"] = np.ascontiguousarray(tensors["layers.0.weight"][:1])
    return safetensors.numpy.save(tensors, metadata)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-10],
    "empty": lambda _: b"",
    "a header of nonsense": lambda content: content[:8] + b"?" * 40 + content[48:],
    "a length of nonsense": lambda content: b"\xff" * 8 + content[8:],
    "a bit of a weight": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "of another program": lambda content: content.replace(b'"dptrain"', b'"another"', 1),
    "of another shape": one_row,
}


@pytest.mark.parametrize(
    ("command", "damage"),
    [("evaluate", damage) for damage in DAMAGES.values()] + [("predict", DAMAGES["truncated"])],
    ids=[*DAMAGES, "truncated for predict"],
)
def test_a_stored_model_that_is_damaged(
    command: str,
    damage: Callable[[bytes], bytes],
    mistake: Mistake,
    trained: Path,
    tmp_path: Path,
) -> None:
    write(tmp_path, {"d.csv": CSV})
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    mistake(command, "run", "d.csv", words=r"run/model\.safetensors (is no|does not)")


# While a run goes on


def test_a_loss_that_becomes_nan_ends_the_run_before_the_update(
    quick: Start, tmp_path: Path
) -> None:
    write(tmp_path, {"d.npz": GOOD})
    line = ("--learning-rate", "1e25", "--batch-size", "30", "--log-every", "1", "--out", "run")
    done = quick("train", "d.npz", *line, "--quiet", ranks=3)
    check_mistake(
        done, r"the loss of step \d+ \(epoch \d+\), shard \d+ is (nan|inf)(, as is .*)?: stop"
    )
    step = re.search(r"step (\d+) \(epoch (\d+)\)", done.stderr)
    assert step
    assert int(step[2]) == (int(step[1]) + 1) // 2  # two steps an epoch
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len([line for line in lines if '"loss"' in line]) == int(step[1]) - 1
    assert not (tmp_path / "run" / "model.safetensors").exists()


MODEL = """
import dptrain
from dptrain import MLP, InputError, TrainConfig


class Model(MLP):
    def loss_and_grad_sum(self, *args):
        loss_sum, weight_sum, _ = super().loss_and_grad_sum(*args)
        FAULT
        return dptrain.Sums(loss_sum, weight_sum)


rank = dptrain.connect().rank
data = dptrain.load("d.npz")
dptrain.fit(Model([3, 8, 2]), data, TrainConfig(shards=3, epochs=3), out="run")
"""


def test_an_exception_on_one_rank_ends_all_with_its_traceback(tmp_path: Path) -> None:
    fault = 'if rank == 1: raise RuntimeError("the disk of rank 1 is on fire")'
    write(tmp_path, {"d.npz": GOOD, "train.py": MODEL.replace("FAULT", fault)})
    done = start("python", "train.py", ranks=2, cwd=tmp_path)
    assert done.status not in (0, 2)
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert re.search(r"(?m)^dptrain: rank 1 of 2 on \S+ failed and ends the run:$", done.stderr)
    assert "RuntimeError: the disk of rank 1 is on fire" in done.stderr
    assert 'train.py", line 9' in done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_nan_loss_of_a_model_of_ones_own_names_step_and_shard(tmp_path: Path) -> None:
    fault = "self.n = vars(self).get('n', 0) + 1; loss_sum /= rank != 1 or self.n < 2 or np.nan"
    script = "import numpy as np" + MODEL.replace("FAULT", fault)
    write(tmp_path, {"d.npz": GOOD, "train.py": script})
    done = start("python", "train.py", ranks=3, cwd=tmp_path)
    assert done.status not in (0, None)
    assert done.stderr.count("the loss of step 1 (epoch 1), shard 1 is nan") == 1, done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_nan_gradient_ends_the_run_before_it_is_kept(tmp_path: Path) -> None:
    """Of one shard of a model of one's own, at a finite loss; the run then goes on without it."""
    fault = (
        "self.n = vars(self).get('n', 0) + 1; rank == 1 and self.n == 6 and args[4].put(26, np.nan)"
    )
    script = MODEL.replace("FAULT", fault).replace(
        "import dptrain\n", "import dptrain, numpy as np\n"
    )
    script = script.replace("epochs=3", "epochs=9, checkpoint_every='1 step'")
    mended = script.replace("== 6", "== 0").replace(
        ', out="run"', ', out="run", resume=True, force=True'
    )  # as its source is another
    whole = mended.replace('"run", resume=True, force=True', '"whole"')
    write(tmp_path, {"d.npz": GOOD, "train.py": script, "again.py": mended + whole})
    done = start("python", "train.py", ranks=3, cwd=tmp_path)
    words = "the gradient of step 5 (epoch 5), shard 1 is not finite, first in layers.0.bias: "
    assert done.stderr.count(words) == 1, done.stderr
    run = tmp_path / "run"
    assert max(run.glob("checkpoints/*")).name == "step-0000000004.safetensors"
    assert not (run / "model.safetensors").exists()
    assert start("python", "again.py", cwd=tmp_path).status == 0
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert models[0] == models[1]


def test_an_update_that_is_not_finite_is_never_kept(quick: Start, tmp_path: Path) -> None:
    """The checkpoints of a good run stay as they are."""
    write(tmp_path, {"d.npz": GOOD})
    good = ("--steps", "2", "--checkpoint-every", "1", "--quiet", "--out", "run")
    assert quick("train", "d.npz", *good).status == 0
    before = contents(tmp_path / "run" / "checkpoints")
    line = ("--steps", "3", "--learning-rate", "1e300", "--out", "other", "--quiet")
    for ranks in (None, 3):
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        done = quick("train", "d.npz", *line, ranks=ranks)
        check_mistake(
            done, r"the update of step 1 \(epoch 1\) is not finite at parameter 0, in lay"
        )
        assert not [*(tmp_path / "other").rglob("*.safetensors")]
    assert contents(tmp_path / "run" / "checkpoints") == before


# Ranks that are not like the others

ODD = """
import os
import sys
from dataclasses import replace
from unittest import mock

import dptrain
from dptrain.run import identity
from dptrain.run.apply import predict_run


class Named(dptrain.MLP):
    def __init__(self, sizes):
        super().__init__(sizes)
        self.layout = tuple(replace(one, name=one.name + "w" * odd) for one in self.layout)


world = dptrain.connect()
odd, here = world.rank == 1, os.getcwd()
found = identity.in_use()


def used(**values):
    return mock.patch.object(identity, "in_use", lambda: found._replace(**values))


def library(text):
    return mock.patch.object(dptrain.MLP, "software", lambda _: [text], create=True)


other = {
    "dptrain": mock.patch.object(identity, "__version__", "9" if odd else "1"),
    "NumPy": mock.patch.object(identity.np, "__version__", "9" if odd else "1"),
    "BLAS": mock.patch.object(identity, "known_blas", lambda: [("mkl" if odd else "blis", "x")]),
    "torch": library("torch 9 (AVX2)" if odd else "torch 8 (AVX2)"),
    "AVX512": library("torch 9 (AVX512)" if odd else "torch 9 (AVX2)"),
    "kernel": used(kernels=("Core2",) if odd else ("Penryn",)),
    "libm": used(libm="1" if odd else "2"),
    "cpu": mock.patch.object(identity, "cpu", lambda: "A CPU" if odd else "B CPU"),
    "many": mock.patch.object(identity, "WHOLE", 0),
    "none": used(kernels=()),
}
data = dptrain.load("d.npz")
run, model = f"{here}/run", dptrain.mlp_for(data)
dptrain.fit(model, data, dptrain.TrainConfig(epochs=1), out=run)
world.allgather("rank 0 has written it")
for own, out in (
    (Named(model.sizes), None),
    (model, f"other-{odd}"),
    (model, "other" if odd else None),
):
    try:
        dptrain.fit(own, data, dptrain.TrainConfig(epochs=1), out=out)
    except dptrain.InputError as error:
        if world.rank == 0:
            print(f"own: {error}", flush=True)
try:
    dptrain.load([([0.0], 0), ([0.0], 1), ([0.0, 1.0], 1)])
except dptrain.InputError as error:  # every rank's
    if world.rank == 0:
        print(f"items: {error}", flush=True)
for name in sys.argv[1:]:
    with other.get(name, mock.patch.object(identity, "WHOLE", 2**20)):
        os.chdir(f"{here}/odd" if odd and name == "test" else here)
        path = f"{here}/odd/d.npz" if odd and name in ("data", "many") else f"{here}/d.npz"
        config = dptrain.DataConfig(test_data=("d.npz",))
        for call in (
            lambda: dptrain.load(path, config),
            lambda: dptrain.fit(dptrain.mlp_for(data), data, dptrain.TrainConfig(epochs=1)),
            lambda: predict_run(run, [path], "p.csv", probabilities=False, world=world),
            lambda: dptrain.verify(run, "1:1"),
        ):
            try:
                call()
            except dptrain.InputError as error:
                if world.rank == 0:
                    print(f"{name}: {error}", flush=True)
"""


def test_a_rank_with_other_data_or_versions_is_named(tmp_path: Path) -> None:
    """In one start of MPI: other data, also where it is too large to be hashed whole; versions."""
    odd = {name: array.copy() for name, array in GOOD.items()}
    odd["x"].reshape(-1)[-1] += 1
    write(tmp_path, {"d.npz": GOOD, "odd/d.npz": odd, "odd.py": ODD})
    names = "data many test dptrain NumPy BLAS torch AVX512 kernel libm cpu none"
    done = start("python", "odd.py", *names.split(), ranks=3, cwd=tmp_path, timeout=60)
    assert done.status == 0, done.stderr
    said = done.stdout.splitlines()
    assert said.pop(3) == "items: data[2] has float64 (2,); data[0] has float64 (1,)"
    expected = [
        *[("data", "the data's SHA-256")] * 2,  # to train on, and to predict for
        *[("many", "the data's SHA-256")] * 2,
        ("test", "the test data's SHA-256"),
        *((name, name) for name in ("dptrain", "NumPy", "BLAS") for _ in range(4)),
        *[("torch", "torch")] * 3,  # to read data they need none
    ]
    expected[:0] = ("own", "model array 0"), ("own", "out"), ("own", "out")
    assert len(said) == len(expected), said
    for line, (name, what) in zip(said, expected, strict=True):
        assert line.startswith(f"{name}: {what} is "), line
        assert " on rank 1 and " in line, line
        assert " on ranks 0, 2; start all ranks with the same " in line, line
    warned = [line for line in done.stderr.splitlines() if "warning" in line]
    patterns = (
        r"not all ranks compute alike: .*torch 9 \(AVX2\), .*torch 9 \(AVX512\); bits depend",
        "not all ranks compute alike: .*Penryn.*Core2",
        "not all ranks have the same libm",
        "is none that threadpoolctl knows",
    )
    for line, pattern in zip(warned, patterns, strict=True):
        assert re.search(pattern, line), line


# Launchers and libraries


@dataclass(frozen=True)
class Launcher:
    """A launcher that announces ranks, by its variables for rank and size, and its name."""

    rank: str
    size: str
    name: str
    env: Mapping[str, str] = field(default_factory=dict)

    def of(self, rank: int, size: int) -> dict[str, str]:
        return {**self.env, self.rank: str(rank), self.size: str(size)}


NO_MPI = {"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}
OPEN_MPI = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Slurm's srun")
ALONE = {
    "Open MPI's mpirun": Launcher(*OPEN_MPI),
    "MPICH's mpiexec": Launcher("PMI_RANK", "PMI_SIZE", "MPICH's or Intel MPI's mpiexec"),
    "srun": Launcher(*SLURM),
    "Open MPI's mpirun and no library": Launcher(*OPEN_MPI, NO_MPI),
    "srun and no library": Launcher(*SLURM, NO_MPI),
}


@pytest.mark.parametrize("launcher", ALONE.values(), ids=ALONE)
def test_ranks_that_would_each_think_they_are_alone_are_refused(
    launcher: Launcher, dptrain: Start
) -> None:
    found = r"no MPI library" if launcher.env else r"the MPI library .*MPICH"
    words = rf"{launcher.name} announces 4 ranks, but .*{found}"
    check_mistake(dptrain("train", env=launcher.of(0, 4)), words)


@pytest.mark.parametrize("launcher", ALONE.values(), ids=ALONE)
def test_of_ranks_that_would_think_they_are_alone_only_the_first_says_so(
    launcher: Launcher, dptrain: Start, tmp_path: Path
) -> None:
    done = dptrain("train", env=launcher.of(1, 4))
    assert done == Finished(2, "", "")
    assert contents(tmp_path) == {}


def test_ranks_without_an_mpi_library_are_refused_once_under_mpirun(dptrain: Start) -> None:
    done = dptrain("train", ranks=3, env=NO_MPI)
    check_mistake(done, r"announces 3 ranks, but there is no MPI library")


def test_one_rank_that_could_not_start_is_refused_before_mpi_ends_it(dptrain: Start) -> None:
    words = r"Open MPI's mpirun announces 1 rank, but the MPI library is MPICH.* could not start"
    check_mistake(dptrain("train", env=Launcher(*OPEN_MPI).of(0, 1)), words)


HYDRA, PRTE = Launch("MPICH's or Intel MPI's mpiexec", 0, 1), Launch("Open MPI's mpirun", 0, 1)


@pytest.mark.parametrize(
    ("launch", "library", "env", "trouble"),
    [
        (HYDRA, "MPICH Version: 5.0.2", {}, None),
        (HYDRA, "Intel(R) MPI Library 2021.18", {}, None),
        (HYDRA, "Open MPI v5.0.11", {}, "alone"),
        (HYDRA, "Open MPI v4.1.6", {}, None),  # it may find the others through Slurm's pmi2
        (PRTE, "Open MPI v5.0.11", {"PMIX_RANK": "0"}, None),
        (PRTE, "MPICH Version: 5.0.2", {"PMIX_RANK": "0"}, "could not start"),
        (Launch("Slurm's srun", 0, 1), "Open MPI v10.0.0", {}, "alone"),
    ],
)
def test_launcher_and_library_are_known_to_fit_or_not(
    launch: Launch, library: str, env: Mapping[str, str], trouble: str | None
) -> None:
    found = misfit(launch, library, env)
    assert found is None if trouble is None else trouble in str(found)


OTHER = os.environ.get("DPTRAIN_OTHER_MPI", "")


@pytest.mark.skipif(not OTHER, reason="DPTRAIN_OTHER_MPI names no environment with another MPI")
@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("command", [("train",), ("evaluate", "run"), ("bench",)], ids=" ".join)
@pytest.mark.parametrize(("launcher", "library"), [(BIN, OTHER), (OTHER, BIN)])
def test_launcher_and_library_of_two_environments(
    launcher: Path, library: Path, command: Sequence[str], ranks: int, tmp_path: Path
) -> None:
    words = rf"announces {ranks} ranks, but the MPI library is"
    line = [f"{launcher}/mpirun", "-n", str(ranks), f"{library}/dptrain", *command]
    env = {name: value for name, value in os.environ.items() if name != "DPTRAIN_OTHER_MPI"}
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    check_mistake(Finished(done.returncode, done.stdout, done.stderr), words)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "env",
    [
        NO_MPI,
        Launcher(*SLURM, NO_MPI).of(0, 1),
        Launcher(*SLURM).of(0, 1),
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # in a batch script no step runs
        {"SLURM_PROCID": "\u00b9", "SLURM_STEP_NUM_TASKS": "\u00b2"},  # digits, and no numbers
    ],
    ids=["no library", "no library and srun -n 1", "srun -n 1", "a batch script", "no numbers"],
)
def test_one_process_alone_works(env: Mapping[str, str], dptrain: Start, tmp_path: Path) -> None:
    write(tmp_path, {"d.npz": GOOD})
    done = dptrain("train", "d.npz", "--epochs", "1", "--json", env=env)
    assert done.json["ranks"] == 1
