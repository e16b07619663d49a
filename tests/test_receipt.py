"""Shows that a receipt is a chain, that digests are free of the ranks, and how states go around."""

import hashlib
import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import start, temporary_folder
from hypothesis import given
from hypothesis import strategies as st
from tiny import CONFIG, HIDDEN, NUM_STEPS, receipt_of, write_data

from dptrain.arrays import name_of, views
from dptrain.config import DataConfig
from dptrain.model.mlp import MLP
from dptrain.record import receipt, rundir
from dptrain.record.receipt import End, Receipt, differences, encode, head_of, merged, step_line
from dptrain.record.writer import Files, Writer
from dptrain.reduce.digest import HASHED, block_digests, digest, root
from dptrain.run.outcome import outcome
from dptrain.run.ready import load, mlp_for
from dptrain.train.loop import begin
from dptrain.words import InputError
from dptrain.world import World

FIRST = {"dptrain": "0", "shards": 2, "settings": {"seed": 0, "epochs": 3}}

# ---- lines


@given(
    st.integers(0, 2**53),
    st.floats(),
    st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_the_quick_line_of_a_step_is_that_of_json(
    step: int, loss: float, params: str | None
) -> None:
    rows, previous = "1" * 64, "2" * 64
    values = {"step": step, "rows": rows, "loss": loss.hex()}
    values |= {} if params is None else {"params": params}
    assert step_line(step, rows, loss, params, previous) == encode(values, previous)


def test_rows_have_one_digest_whatever_their_type() -> None:
    rows = np.array([3, 1, 2])
    found = {receipt.rows_digest(rows.astype(kind)) for kind in ("<i8", "<i4", ">i8", "u2")}
    assert len(found) == 1
    assert receipt.rows_digest(rows[::-1].copy()) not in found


def test_anyone_can_work_out_what_a_receipt_says() -> None:
    """Lines, and hashes of rows and parameters: stored runs are compared with them for ever."""
    line = (
        b'{"step": 3, "rows": "a", "loss": "0x1.8000000000000p-1", "params": "b", "previous": "c"}'
    )
    assert step_line(3, "a", 0.75, "b", "c") == line
    assert head_of(line) == hashlib.sha256(line).hexdigest()
    rows = hashlib.sha256(struct.pack("<3q", 3, 1, 2)).hexdigest()
    assert receipt.rows_digest(np.array([3, 1, 2])) == rows
    vector = np.arange(2 * 8192 + 5, dtype=np.float32)
    blocks = [vector[start : start + 8192].tobytes() for start in range(0, len(vector), 8192)]
    hashes = b"".join(hashlib.sha256(block).digest() for block in blocks)
    assert digest(World(), vector) == hashlib.sha256(hashes).hexdigest()


def chain(*lines: dict[str, Any]) -> list[bytes]:
    found: list[bytes] = []
    for line in lines:
        found.append(encode(line, head_of(found[-1]) if found else ""))
    return found


def steps(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "rows": f"{step:064}", "loss": float(step).hex()}
        | ({"params": f"{step:064x}"} if step % 2 == 0 else {})
        for step in range(first, last + 1)
    ]


def write(run: Path, lines: list[bytes], tail: bytes = b"") -> Path:
    (run / rundir.RECEIPT).write_bytes(b"".join(line + b"\n" for line in lines) + tail)
    return run


def test_a_chain_is_read_as_what_it_says(tmp_path: Path) -> None:
    note = {"step": 3, "changed": {"shards": 4, "settings": {"epochs": 5}}}
    end = {"step": 6, "end": {"steps": 6}, "model": 64 * "0"}
    lines = chain(FIRST, *steps(1, 3), note, *steps(4, 6), end)
    write(tmp_path, lines, tail=b'{"step": 7')
    found = Receipt()
    read = [(found.head, step) for step in receipt.follow(tmp_path, found)]
    assert [head for head, _ in read] == [head_of(line) for line in lines]
    assert [step._asdict() for _, step in read if step] == [
        {"params": None, **line} for line in steps(1, 6)
    ]
    assert found == receipt_of(tmp_path)
    assert (found.first, found.end) == (FIRST, End(6, {"steps": 6}, 64 * "0"))
    assert (found.num_steps, found.num_lines, found.head) == (6, 9, head_of(lines[-1]))
    assert found.run == found.run_before(6)
    for step, shards, epochs in ((1, 2, 3), (3, 2, 3), (4, 4, 5), (6, 4, 5)):
        run = found.run_before(step)
        assert (run["shards"], run["settings"]) == (shards, {"seed": 0, "epochs": epochs})
    assert receipt.head_at(tmp_path, 3) == head_of(lines[2])
    with pytest.raises(InputError, match="line 10 is not there; put it back whole, or begin anew"):
        receipt.head_at(tmp_path, 10)


def peak(function: Callable[[], object]) -> int:
    """Return the bytes of Python's memory that a call needs at most."""
    tracemalloc.start()
    function()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_reading_needs_no_more_memory_for_a_longer_receipt(tmp_path: Path) -> None:
    for name, last in (("short", 50), ("long", 3000)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, chain(FIRST, *steps(1, last)))
    readers: list[Callable[[Path], object]] = [
        receipt_of,
        receipt.first_line,
        lambda run: receipt.head_at(run, 51),
    ]
    for read in readers:
        short, long = (peak(partial(read, tmp_path / name)) for name in ("short", "long"))
        assert long < short + 10_000


WRONG_LINES: dict[str, Any] = {
    "a note of another step": {"step": 2, "changed": {"shards": 4}},
    "a note of no step": {"changed": {"shards": 4}},
    "a note of more": {"step": 3, "changed": {"shards": 4}, "why": "x"},
    "an end of another step": {"step": 2, "end": {}, "model": ""},
    "an end that is none": {"step": 3, "end": 5, "model": ""},
    "a step beside others": {**steps(4, 4)[0], "more": 1},
    "a step without rows": {"step": 4, "loss": "0x1.0p+0"},
    "a loss that is not written so": {**steps(4, 4)[0], "loss": "0x2.0p+0"},
    "a loss that is none": {**steps(4, 4)[0], "loss": "1"},
    "too much of it": {"step": 3, "changed": {"x": "x" * 2**24}},
}


@pytest.mark.parametrize("name", WRONG_LINES)
def test_lines_that_dptrain_does_not_write_are_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path, chain(FIRST, *steps(1, 3), WRONG_LINES[name]))
    with pytest.raises(InputError, match=r"line 5 is damaged|it has a line of more"):
        receipt_of(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [(b", ", b","), (b'"step": 2', b'"step": 02'), (b'"step": 2, ', b"")]
)
def test_a_line_in_other_letters_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    """Also under right hashes: there is one way only to say the same."""
    lines = chain(FIRST, *steps(1, 2))
    write(tmp_path, [*lines[:2], lines[2].replace(old, new)])
    with pytest.raises(InputError, match="line 3 is damaged"):
        receipt_of(tmp_path)


def test_nothing_follows_an_end(tmp_path: Path) -> None:
    end = {"step": 1, "end": {"steps": 1}, "model": 64 * "0"}
    write(tmp_path, chain(FIRST, *steps(1, 1), end, *steps(2, 2)))
    with pytest.raises(InputError, match=r"line 4 is damaged.*follows the run's end"):
        receipt_of(tmp_path)


def test_any_bit_of_any_line_that_is_flipped_is_found(tmp_path: Path) -> None:
    """All but the last line's are found by the chain; the last one's by who knows its hash."""
    lines = chain(FIRST, *steps(1, 9))
    whole = receipt_of(write(tmp_path, lines)).head
    rng = random.Random(0)  # noqa: S311 (places to test)
    for number, line in enumerate(lines):
        for place in rng.sample(range(len(line)), 40):
            changed = bytearray(line)
            changed[place] ^= 1 << rng.randrange(8)
            write(tmp_path, [*lines[:number], bytes(changed), *lines[number + 1 :]])
            try:
                found = receipt_of(tmp_path).head
            except InputError as error:
                found = str(error)
            assert "is damaged" in found or (number == len(lines) - 1 and found != whole)


def test_lines_that_are_missing_doubled_or_swapped_are_found(tmp_path: Path) -> None:
    lines = chain(FIRST, *steps(1, 5))
    for number in range(len(lines) - 1):
        swapped = lines.copy()
        swapped[number : number + 2] = reversed(lines[number : number + 2])
        doubled = [*lines[: number + 1], *lines[number:]]
        for wrong in (swapped, doubled, lines[:number] + lines[number + 1 :]):
            with pytest.raises(InputError, match=r"line \d+ is damaged"):
                receipt_of(write(tmp_path, wrong))
    with pytest.raises(InputError, match=r"line 4 is damaged.*it is of step 4, after 2"):
        receipt_of(write(tmp_path, chain(FIRST, *steps(1, 2), *steps(4, 5))))


def test_a_receipt_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        receipt_of(tmp_path)


# ---- what a run is

VALUES = st.integers(0, 3) | st.text("ab", max_size=2)
RUNS = st.builds(
    lambda values, settings: {**values, "settings": settings},
    st.fixed_dictionaries({"cpu": VALUES, "blas": VALUES}),
    st.fixed_dictionaries({"seed": VALUES}, optional={"epochs": VALUES}),
)


@given(RUNS, RUNS)
def test_what_differs_makes_one_run_of_the_other(
    run: dict[str, Any], other: dict[str, Any]
) -> None:
    found = differences(run, other)
    assert merged(run, found) == other
    assert differences(run, run) == {}
    assert differences(other, merged(run, found)) == {}


# ---- the files of a run


def test_a_writer_goes_on_where_its_lines_say(tmp_path: Path) -> None:
    rows = np.arange(3)
    said: list[str] = []
    writer = Writer(tmp_path, 2, Files())
    writer.warn = said.append
    writer.say(FIRST)
    for step in range(1, 4):
        writer.step(step, rows, 0.5, None)
        writer.metrics({"step": step})
        if step == 2:
            writer.save(step, {"params": np.zeros(3)}, writer.files()._asdict(), {})
            lines = writer.files()
    writer.close()
    whole = (tmp_path / rundir.RECEIPT).read_bytes()
    assert lines.receipt_lines == 3
    assert receipt.head_at(tmp_path, 3) == lines.receipt_sha256
    again = Writer(tmp_path, 2, lines, num_metrics=2)
    again.warn = said.append
    again.step(3, rows, 0.5, None)
    again.metrics({"step": 3})
    again.close()
    assert (tmp_path / rundir.RECEIPT).read_bytes() == whole
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert receipt_of(tmp_path).head == again.head == writer.head
    assert said == []
    assert writer.trouble is None


def test_what_a_writer_can_not_write_is_said_once_for_each_cause(tmp_path: Path) -> None:
    said: list[str] = []
    writer = Writer(tmp_path, 2, Files())
    writer.warn = said.append
    writer.note_trouble("a")
    writer.note_trouble("b")
    writer.note_trouble("a")
    writer.note_trouble("b")
    writer.close()
    assert [text[0] for text in said] == ["a", "b"]
    assert writer.trouble == "a"


# ---- digests


@given(st.integers(0, 3 * HASHED + 1), st.integers(1, 9))
def test_a_digest_is_free_of_how_the_blocks_are_shared(n: int, parts: int) -> None:
    vector = np.arange(n, dtype=np.float32)
    blocks = -(-n // HASHED)
    pieces = [range(p * blocks // parts, (p + 1) * blocks // parts) for p in range(parts)]
    found = np.concatenate([block_digests(vector, piece) for piece in pieces])
    assert root(found) == digest(World(), vector)


def test_any_bit_changes_a_digest() -> None:
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(2 * HASHED + 5).astype(np.float32)
    good = digest(World(), vector)
    for bit in rng.integers(0, 32 * len(vector), 50):
        changed = vector.copy()
        changed.view(np.uint8)[bit // 8] ^= 1 << bit % 8
        assert digest(World(), changed) != good
    assert digest(World(), -np.zeros(3)) != digest(World(), np.zeros(3))


def test_only_the_first_rank_hashes_all_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(World):
        def broadcast(self, value: Any) -> Any:
            assert not value
            return "what the first one has found"

    world = Second()
    with temporary_folder() as folder:
        data = load(write_data(folder / "data.npz"), DataConfig(validation=0.2), world=World())
    run = begin(mlp_for(data, HIDDEN), data, CONFIG, World())
    monkeypatch.setattr(world, "rank", 1)
    run.world = world
    found = outcome(run, run.reducer.params, {})
    assert found.params_sha256 == "what the first one has found"


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_an_entry_of_the_vector_has_the_name_of_its_array(sizes: list[int]) -> None:
    model = MLP(sizes)
    vector = np.arange(model.num_params, dtype=np.float32)
    for name, array in views(model.layout, vector).items():
        for entry in array.reshape(-1):
            assert name_of(model.layout, int(entry)) == name


# ---- under several ranks

SCRIPT = Path(__file__).parent / "cases.py"
WORLDS: dict[int | None, tuple[str, ...]] = {
    None: ("0",),
    4: ("3:0", "3:1", "3:2", "3", "turn", "reversed"),
}
"""By how many ranks are started; of these some worlds have three."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What cases.py found in each world."""
    found, folder = [], tmp_path_factory.mktemp("state")
    write_data(folder / "data.npz")
    for ranks, names in WORLDS.items():
        done = start("python", SCRIPT, "states", *names, ranks=ranks, cwd=folder)
        assert done.status == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["world"] for line in lines] == [name.split(":")[-1] for name in names]
        found += lines
    return found


def test_digests_are_free_of_ranks_and_nodes(told: list[dict[str, Any]]) -> None:
    vectors = {n: np.arange(n, dtype=np.float32) for n in (1, HASHED, 3 * HASHED + 1)}
    expected = {str(n): digest(World(), vector) for n, vector in vectors.items()}
    assert [line["digests"] for line in told] == [expected] * len(told)


def test_the_first_difference_names_ranks_and_entry(told: list[dict[str, Any]]) -> None:
    """One rank of the second copy changes one bit of each of two entries."""
    several = [line for line in told if len(line["copies"]) > 1]
    assert len(several) >= 5
    for line in told:
        assert line["equal"] is None
        if line in several:
            ranks, entry = line["different"]
            assert ranks == line["copies"][1]
            assert entry == HASHED + 7


def test_what_is_collected_is_what_was_dealt(told: list[dict[str, Any]]) -> None:
    assert all(line["same"] for line in told)


def test_a_state_that_is_restored_is_the_one_that_was_saved(told: list[dict[str, Any]]) -> None:
    assert all(line["restored"] for line in told)


def test_checkpoints_are_the_same_bytes_whoever_writes_them(told: list[dict[str, Any]]) -> None:
    for line in told:
        assert line["checkpoints"] == told[0]["checkpoints"]
    assert len(told[0]["checkpoints"]) == NUM_STEPS


def test_a_receipt_can_be_empty(tmp_path: Path) -> None:
    assert receipt_of(write(tmp_path, [])) == Receipt()
    assert receipt.first_line(tmp_path) is None
    with pytest.raises(InputError, match="has too few lines"):
        receipt.head_at(tmp_path, 1)
