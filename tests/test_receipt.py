"""Shows that a receipt is a chain, that digests are free of the ranks, and how states go around."""

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import start
from hypothesis import given
from hypothesis import strategies as st
from short_runs import NUM_STEPS, temporary_folder, write_data

from dptrain.config import InputError
from dptrain.model.mlp import MLP
from dptrain.record import receipt, rundir
from dptrain.record.receipt import Receipt, differences, encode, head_of, merged, step_line
from dptrain.record.store import Store
from dptrain.reduce.digest import HASHED, block_digests, digest, root
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
    lines = chain(FIRST, *steps(1, 3), note, *steps(4, 6))
    found = receipt.read(write(tmp_path, lines, tail=b'{"step": 7'), marks=[1, 5])
    assert found.first == FIRST
    assert [line["step"] for line in found.steps] == [1, 2, 3, 4, 5, 6]
    assert (found.num_lines, found.head) == (8, head_of(lines[-1]))
    assert found.heads == {1: head_of(lines[0]), 5: head_of(lines[4])}
    for step, shards, epochs in ((1, 2, 3), (3, 2, 3), (4, 4, 5), (6, 4, 5)):
        run = found.run_before(step)
        assert (run["shards"], run["settings"]) == (shards, {"seed": 0, "epochs": epochs})
    part = receipt.read(tmp_path, 3)
    assert (part.num_lines, part.head, len(part.steps)) == (3, head_of(lines[2]), 2)
    with pytest.raises(InputError, match="has 8 lines; needed are 9"):
        receipt.read(tmp_path, 9)


def test_any_bit_of_any_line_that_is_flipped_is_found(tmp_path: Path) -> None:
    """All but the last line's are found by the chain; the last one's by who knows its hash."""
    lines = chain(FIRST, *steps(1, 9))
    whole = receipt.read(write(tmp_path, lines)).head
    rng = random.Random(0)  # noqa: S311 (places to test)
    for number, line in enumerate(lines):
        for place in rng.sample(range(len(line)), 40):
            changed = bytearray(line)
            changed[place] ^= 1 << rng.randrange(8)
            write(tmp_path, [*lines[:number], bytes(changed), *lines[number + 1 :]])
            try:
                found = receipt.read(tmp_path).head
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
                receipt.read(write(tmp_path, wrong))
    with pytest.raises(InputError, match=r"line 4 is damaged.*it is of step 4, after 2"):
        receipt.read(write(tmp_path, chain(FIRST, *steps(1, 2), *steps(4, 5))))


def test_a_receipt_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        receipt.read(tmp_path)


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


def test_a_store_goes_on_where_its_lines_say(tmp_path: Path) -> None:
    rows = np.arange(3)
    said: list[str] = []
    store = Store(tmp_path, 2, said.append)
    store.say(FIRST)
    for step in range(1, 4):
        store.step(step, rows, 0.5, None)
        store.metrics({"step": step})
        if step == 2:
            store.save(step, {"params": np.zeros(3)}, store.lines(), {})
            lines = store.lines()
    store.close()
    whole = (tmp_path / rundir.RECEIPT).read_bytes()
    assert receipt.read(tmp_path, lines["receipt_lines"]).head == lines["receipt_sha256"]
    assert lines == {"metrics_lines": 2, "receipt_lines": 3} | {
        "receipt_sha256": lines["receipt_sha256"]
    }
    again = Store(tmp_path, 2, said.append, *lines.values())
    again.step(3, rows, 0.5, None)
    again.metrics({"step": 3})
    again.close()
    assert (tmp_path / rundir.RECEIPT).read_bytes() == whole
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert receipt.read(tmp_path).head == again.head == store.head
    assert said == []
    assert store.trouble is None


def test_what_a_store_can_not_write_is_said_once_for_each_cause(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(tmp_path, 2, said.append)
    store.note_trouble("a")
    store.note_trouble("b")
    store.note_trouble("a")
    store.note_trouble("b")
    store.close()
    assert [text[0] for text in said] == ["a", "b"]
    assert store.trouble == "a"


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


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_an_entry_of_the_vector_has_the_name_of_its_array(sizes: list[int]) -> None:
    model = MLP(sizes)
    vector = np.arange(model.num_params, dtype=np.float32)
    for name, array in model.tensors(vector).items():
        for entry in array.reshape(-1):
            assert model.name_of(int(entry)) == name


# ---- under several ranks

SCRIPT = Path(__file__).parent / "state_runs.py"
WORLDS: dict[int | None, tuple[str, ...]] = {
    None: ("0",),
    2: ("0", "1"),
    3: ("0", "2"),
    4: ("1", "3", "turn", "reversed"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What state_runs.py found in each world."""
    found, folder = [], tmp_path_factory.mktemp("state")
    write_data(folder / "data.npz")
    for ranks, names in WORLDS.items():
        done = start("python", SCRIPT, *names, ranks=ranks, cwd=folder)
        assert done.status == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["world"] for line in lines] == [*names]
        found += [{"ranks": ranks or 1, **line} for line in lines]
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
    assert receipt.read(write(tmp_path, [])) == Receipt()
    with temporary_folder() as run, pytest.raises(InputError, match="has 0 lines"):
        receipt.read(write(run, []), 1)
