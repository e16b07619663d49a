"""Shows that a checkpoint is what was written or is refused, whatever bit of it has changed."""

import json
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from conftest import temporary_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tiny import ALONE, CONFIG, HIDDEN, NUM_STEPS, bytes_of, load_once, train, write_data

from dptrain.record import checkpoint
from dptrain.record.checkpoint import DamagedError, path_of, steps_of
from dptrain.run.fit import fit
from dptrain.run.ready import mlp_for
from dptrain.train.state import State

Arrays = dict[str, NDArray[Any]]

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    elements={"allow_nan": True, "allow_infinity": True},
)
NAMES = st.text('abc.0123456789é"\\', min_size=1, max_size=6)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=50)
@given(
    st.dictionaries(NAMES, ARRAYS, max_size=3),
    st.dictionaries(st.text(max_size=4), PLAIN, max_size=3),
)
def test_arrays_and_values_come_back(tensors: Arrays, state: dict[str, Any]) -> None:
    """Of both types and any shape, empty ones and NaN too; anyone can read the file."""
    with temporary_folder() as folder:
        checkpoint.write(folder / "file", tensors, state)
        arrays, found = checkpoint.read(folder / "file")
        anyone = safetensors.numpy.load((folder / "file").read_bytes())
    assert found == state
    assert arrays.keys() == anyone.keys() == tensors.keys()
    for name, array in tensors.items():
        for other in (arrays[name], anyone[name]):
            assert (other.shape, other.dtype) == (array.shape, array.dtype)
            assert other.tobytes() == array.tobytes()


@pytest.mark.parametrize("text", [checkpoint.BLANK, f'"sha256":"{checkpoint.BLANK}"'])
def test_a_state_may_hold_what_stands_in_the_place_of_the_digest(text: str, tmp_path: Path) -> None:
    """Such as a file of that name among the data."""
    checkpoint.write(tmp_path / "file", {}, {text: text})
    assert checkpoint.read(tmp_path / "file") == ({}, {text: text})


def test_arrays_that_are_not_contiguous_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x is not contiguous"):
        checkpoint.write(tmp_path / "file", {"x": np.ones((4, 4))[:, ::2]}, {})
    assert list(tmp_path.iterdir()) == []


# ---- damage

STATE = {"step": 3, "loss": "0x1.8p+1", "run": {"settings": {"seed": 0}}}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of two vectors and a matrix."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("checkpoint") / "file"
    tensors = {"params": (900,), "optimizer.0": (2, 900), "best": (0,)}
    checkpoint.write(
        path, {k: rng.standard_normal(v, np.float32) for k, v in tensors.items()}, STATE
    )
    return path.read_bytes()


def header_of(content: bytes) -> int:
    """Return how many bytes stand before the arrays."""
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def check_damaged(content: bytes, path: Path) -> str:
    path.write_bytes(content)
    with pytest.raises(DamagedError) as error:
        checkpoint.read(path)
    return str(error.value)


def test_every_byte_of_the_header_and_a_thousand_bits_behind_it(
    content: bytes, tmp_path: Path
) -> None:
    rng = random.Random(0)  # noqa: S311 (places to test)
    header = 8 * header_of(content)
    bits = [rng.randrange(first, first + 8) for first in range(0, header, 8)]
    for bit in [*bits, *rng.sample(range(header, 8 * len(content)), 1000)]:
        check_damaged(flipped(content, bit), tmp_path / "file")
    (tmp_path / "file").write_bytes(content)
    assert checkpoint.read(tmp_path / "file")[1] == STATE


def test_a_file_cut_off_anywhere(content: bytes, tmp_path: Path) -> None:
    lengths = [*range(header_of(content) + 2), *range(header_of(content), len(content), 97)]
    for length in [*lengths, len(content) - 1]:
        check_damaged(content[:length], tmp_path / "file")


def test_bytes_more_or_in_other_places(content: bytes, tmp_path: Path) -> None:
    path, half, header = tmp_path / "file", len(content) // 2, header_of(content)
    for more in (b"\0", b" ", b"\n", content[-4:], content):
        check_damaged(content + more, path)
        check_damaged(more + content, path)
        check_damaged(content[:half] + more + content[half:], path)
    check_damaged(content[:half] + content[half + 4 :], path)
    for size in (1, 4, 64, 1024):
        for start in range(header, len(content) - 2 * size, len(content) // 9):
            one, two = content[start : start + size], content[start + size : start + 2 * size]
            if one != two:
                swapped = content[:start] + two + one + content[start + 2 * size :]
                check_damaged(swapped, path)
    check_damaged(content[:header] + bytes(len(content) - header), path)
    check_damaged(bytes(len(content)), path)
    assert "can't be" not in check_damaged(b"", path)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(OSError, match=r"is no plain file|No such file"):
            checkpoint.read(path)


# ---- which are kept


def touch(run: Path, *steps: int) -> None:
    (run / "checkpoints").mkdir(exist_ok=True)
    for step in steps:
        path_of(run, step).touch()


def test_steps_are_those_of_whole_names(tmp_path: Path) -> None:
    assert steps_of(tmp_path) == []
    touch(tmp_path, 10, 9, 10**10)
    for name in (
        "step-5.safetensors",
        "step-0000000004.damaged",
        ".step-0000000003.safetensors.tmp",
    ):
        (tmp_path / "checkpoints" / name).touch()
    (tmp_path / "checkpoints" / "step-000000000٣.safetensors").touch()
    assert steps_of(tmp_path) == [9, 10, 10**10]


@given(
    st.sets(st.integers(1, 60), min_size=1),
    st.integers(1, 5),
    st.dictionaries(st.integers(1, 60), st.floats(0, 9) | st.just(float("inf"))),
)
def test_the_last_and_the_best_are_kept(
    steps: set[int], keep: int, losses: Mapping[int, float]
) -> None:
    with temporary_folder() as run:
        touch(run, *steps)
        checkpoint.prune(run, keep, losses)
        kept = steps_of(run)
    assert kept[-keep:] == sorted(steps)[-keep:]
    known = [step for step in sorted(steps) if losses.get(step, float("inf")) < float("inf")]
    if known:
        assert min(known, key=lambda step: losses[step]) in kept
        assert len(kept) <= keep + 1


def test_without_losses_only_the_last_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, *range(1, 8))
    checkpoint.prune(tmp_path, 3, {})
    assert steps_of(tmp_path) == [5, 6, 7]


def test_of_equally_good_ones_the_first_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, *range(1, 8))
    checkpoint.prune(tmp_path, 2, {2: 0.5, 3: 0.25, 4: 0.25, 5: 0.25, 7: 0.5})
    assert steps_of(tmp_path) == [3, 6, 7]


def test_a_checkpoint_set_aside_is_none_any_more(tmp_path: Path) -> None:
    touch(tmp_path, 3, 4)
    checkpoint.set_aside(path_of(tmp_path, 4))
    assert steps_of(tmp_path) == [3]
    assert (tmp_path / "checkpoints" / "step-0000000004.damaged").exists()


# ---- runs that go on from damaged checkpoints


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """The data, a run with a checkpoint after each step, and what the run comes to."""
    folder = tmp_path_factory.mktemp("stopped")
    data = write_data(folder / "data.npz")
    train(data, folder / "run", keep_checkpoints=9)
    assert steps_of(folder / "run") == [*range(1, NUM_STEPS + 1)]
    return data, folder / "run", bytes_of(folder / "run")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda content: flipped(content, 8 * (len(content) - 9)),
    "a cut": lambda content: content[:-1],
    "a tail": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "nothing": lambda content: content[:0],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("num", [1, 2, NUM_STEPS])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    damage: str, num: int, stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, expected = stopped
    shutil.copytree(run, tmp_path / "run")
    for step in range(NUM_STEPS, NUM_STEPS - num, -1):
        path = path_of(tmp_path / "run", step)
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    damaged = {
        path.stem: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()
    }
    train(data, tmp_path / "run", resume=True, keep_checkpoints=9)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == num
    for line, step in zip(said, range(NUM_STEPS, 0, -1), strict=False):
        assert f"step-{step:010}.safetensors is damaged" in line
    assert bytes_of(tmp_path / "run") == expected
    assert steps_of(tmp_path / "run") == [*range(1, NUM_STEPS + 1)]
    aside = list((tmp_path / "run" / "checkpoints").glob("*.damaged"))
    assert len(aside) == num
    assert all(path.read_bytes() == damaged[path.stem] for path in aside)


def test_a_checkpoint_under_another_steps_name_is_not_used(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole as it is: the steps in between would not be done, or be done twice."""
    data, run, expected = stopped
    shutil.copytree(run, tmp_path / "run")
    path_of(tmp_path / "run", 2).rename(path_of(tmp_path / "run", 4))
    path_of(tmp_path / "run", 1).rename(path_of(tmp_path / "run", 2))
    train(data, tmp_path / "run", resume=True, keep_checkpoints=9)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "step-0000000004.safetensors is damaged (it is of step 2)" in said[0]
    assert bytes_of(tmp_path / "run") == expected


def test_half_a_checkpoint_that_a_kill_has_left_is_removed(stopped: Any, tmp_path: Path) -> None:
    data, run, expected = stopped
    shutil.copytree(run, tmp_path / "run")
    path_of(tmp_path / "run", 4).rename(
        path_of(tmp_path / "run", 4).with_name(".step-0000000004.safetensors.tmp")
    )
    train(data, tmp_path / "run", resume=True, keep_checkpoints=9)
    assert bytes_of(tmp_path / "run") == expected
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == NUM_STEPS


def test_a_run_goes_on_from_its_newest_checkpoint(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, expected = stopped
    shutil.copytree(run, tmp_path / "run")
    path_of(tmp_path / "run", 4).unlink()
    loaded, out = load_once(data), tmp_path / "run"
    config = replace(CONFIG, keep_checkpoints=9)
    model = mlp_for(loaded, HIDDEN)
    fit(model, loaded, config, out=out, resume=True, quiet=False, world=ALONE)
    assert "dptrain: the run goes on after step 3\n" in capsys.readouterr().err
    assert bytes_of(out) == expected


STATE = State(1, 1, 1, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, {"train_loss": 0.5}).plain()


@pytest.mark.parametrize("name", STATE)
def test_a_state_of_values_that_can_not_be_is_none(name: str) -> None:
    assert State.read(STATE).plain() == STATE
    whole = type(STATE[name]) is int
    for value in (
        [-1, 1.0, True, "1", None, {}] if whole else [0.5, None, "x", "0x1p99999", {"a": 1}]
    ):
        with pytest.raises(ValueError, match=r"its |float"):
            State.read(STATE | {name: value})
    with pytest.raises(ValueError, match=f"its {name} is None"):
        State.read({key: value for key, value in STATE.items() if key != name})


def test_of_arrays_of_another_model_none_is_used(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of other shapes or types, under a right SHA-256."""
    data, run, expected = stopped
    shutil.copytree(run, tmp_path / "run")
    changes: list[Callable[[Arrays], object]] = [
        lambda arrays: arrays.update(params=arrays["params"][1:].copy()),
        lambda arrays: arrays.update(params=arrays["params"].astype(np.float64)),
        lambda arrays: arrays.pop("best"),
    ]
    for step, change in zip((4, 3, 2), changes, strict=True):
        arrays, state = checkpoint.read(path_of(run, step))
        change(arrays)
        checkpoint.write(path_of(tmp_path / "run", step), arrays, state)
    train(data, tmp_path / "run", resume=True, keep_checkpoints=9)
    said = capsys.readouterr().err
    assert [step for step in range(1, 5) if f"{step}.safetensors is damaged" in said] == [2, 3, 4]
    assert bytes_of(tmp_path / "run") == expected


def test_the_file_that_json_makes_is_the_one_that_is_hashed(content: bytes) -> None:
    """The header is JSON with the state as text in the metadata, as the format wants it."""
    header = json.loads(content[8 : header_of(content)])
    assert json.loads(header["__metadata__"]["dptrain"]) == STATE
    assert len(header["__metadata__"]["sha256"]) == 64
    assert header_of(content) % 8 == 0
