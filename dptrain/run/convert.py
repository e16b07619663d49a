"""Anything that can be read becomes arrays that are mapped: in parallel, resumable."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.checked import Plain
from dptrain.config import DataConfig
from dptrain.data.converted import FORMAT, MANIFEST, Place, places
from dptrain.data.encode import Encoding
from dptrain.data.feed import BLOCK, Rows
from dptrain.data.field import Field
from dptrain.data.keep import Spool
from dptrain.data.kinds import UNFINISHED
from dptrain.data.numpy_files import npy_header
from dptrain.data.prepare import statistics
from dptrain.data.read import look, read
from dptrain.data.roles import Roles
from dptrain.data.show import Seen, added, seen
from dptrain.data.table import Table
from dptrain.machine import usable_cores
from dptrain.record.files import lines_of, lock, make_sized, write_at, write_whole, writing
from dptrain.record.journal import Journal
from dptrain.reduce.digest import root
from dptrain.reduce.memory import shared_rows
from dptrain.reduce.sums import total
from dptrain.run.identity import check_programs, content, leaf
from dptrain.words import InputError
from dptrain.world import World, collective

PART = 2**24
"""Bytes of rows, about, that are written and hashed at a time."""

ADVICE = "; name a new directory"
"""What to do about one that the file system refuses, or has no room for."""

Progress = Callable[[int, int], None]
"""Told how many parts are done, of how many; of 0, how many rows have been read before."""


@dataclass(frozen=True)
class Plan:
    """Which arrays a data set becomes, and which rows are a part."""

    table: Table
    places: tuple[Place, ...]
    rows: int
    """Of a part; a multiple of a block's."""

    @property
    def num_parts(self) -> int:
        """The number of parts."""
        return -(-len(self.table) // self.rows)

    def arrays(self) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
        """Return each array's file, type and shape."""
        found = []
        for number in range(1 + max(place.array for place in self.places)):
            inside = [place for place in self.places if place.array == number]
            values = inside[0].column.values
            dtype = np.dtype(values.dtype).newbyteorder("<")
            shape = (len(inside),) if inside[0].number is not None else tuple(values.shape[1:])
            found.append((f"{number}.npy", dtype, (len(self.table), *shape)))
        return found

    def part(self, number: int) -> tuple[int, list[Array], list[Seen], bytes]:
        """Return a part's first row, the arrays' rows, what was seen, and the blocks' hashes."""
        start = number * self.rows
        rows, blocks = slice(start, min(start + self.rows, len(self.table))), []
        arrays = [np.empty((rows.stop - start, *s[1:]), dtype) for _, dtype, s in self.arrays()]
        content = [place.column.read(rows) for place in self.places]
        noted = [seen(p.column, values) for p, values in zip(self.places, content, strict=True)]
        for at in range(0, len(content[0]), BLOCK):  # whose rows stay in a core's own memory
            found = [values[at : at + BLOCK] for values in content]
            for place, values in zip(self.places, found, strict=True):
                out = arrays[place.array][at : at + BLOCK]
                (out if place.number is None else out[:, place.number])[:] = values
            blocks.append(leaf(self.table, start + at, b"".join(v.tobytes() for v in found)))
        return start, arrays, noted, b"".join(blocks)


@collective
def convert(
    inputs: Sequence[str], out: Path, config: DataConfig, world: World, progress: Progress
) -> None:
    """Write what files hold as a directory of arrays and a manifest.

    A directory that was begun from the same files is gone on with. The bytes are the same on any
    number of ranks. Collective: every rank must call this, with files that all of them see. Raises
    InputError where they can't be read, or the directory is there already or can't be written.
    """
    check_programs(world)
    with contextlib.ExitStack() as undo:
        with world.together():
            roles = Roles.of(config)
            key = look(inputs, roles).key(roles)
            if world.rank == 0:
                undo.callback(os.close, _taken(out, key))
        told = progress if world.rank == 0 else lambda *_: None
        spool = Spool(out / f"rows-{world.rank}-{key}", lambda rows: told(rows, 0))
        undo.push(spool.left)
        plan = _plan(inputs, config, spool, world)
        start = {"format": FORMAT, "rows": plan.rows, "content": content(plan.table)}
        with world.together():
            journal = _begin(out, plan, start) if world.rank == 0 else None
        _write_parts(out, plan, journal, world, progress)
    if world.rank == 0:
        (out / UNFINISHED).unlink(missing_ok=True)


def _plan(inputs: Sequence[str], config: DataConfig, spool: Spool, world: World) -> Plan:
    """Read what files hold; tables into the spool. Collective."""
    take = partial(shared_rows, world.node_comm)
    table, test = read(tuple(inputs), Roles.of(config), world, take, spool)
    with world.together():
        if test is not None:
            raise InputError(
                f"{table.source} holds test rows too, which would be lost: name the arrays to "
                "convert with --x and --y, each pair into its own directory"
            )
    blocks = PART // max(1, table.nbytes // len(table)) // BLOCK  # free of the number of ranks
    return Plan(table, tuple(places(table)), BLOCK * max(1, blocks))


def _write_parts(
    out: Path, plan: Plan, journal: Journal | None, world: World, progress: Progress
) -> None:
    """Write what is not written yet, each rank its parts, and the manifest. Collective."""
    lines = [*lines_of(out / UNFINISHED)][1:] if world.rank == 0 else []
    done = {number: found for number, *found in world.broadcast([*map(json.loads, lines)])}
    left = [number for number in world.mine(plan.num_parts) if number not in done]
    threads = max(1, len(usable_cores()) // len(world.ranks_here))
    for turn in range(-(-max(world.allgather(len(left))) // threads)):
        written = []
        with world.together(), ThreadPoolExecutor(threads) as pool:
            numbers = left[turn * threads : (turn + 1) * threads]
            written = [*zip(numbers, pool.map(partial(_write, out, plan), numbers), strict=True)]
        for number, found in itertools.chain.from_iterable(world.allgather(written)):
            done[number] = found
            if journal is not None:
                journal.append(json.dumps([number, *found]).encode())
        with world.together():
            if journal is not None:
                with writing(journal.path):
                    journal.flush()
                progress(len(done), plan.num_parts)
    _finish(out, plan, [done[number] for number in range(plan.num_parts)], world)
    if journal is not None:
        journal.close()


def _taken(out: Path, key: str) -> int:
    """Return an open file that keeps others from writing to a directory, which may be new."""
    with writing(out, ADVICE):
        out.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in out.iterdir()}
        if MANIFEST in names:
            raise InputError(f"{out} is converted already; give another name, or remove it")
        if names and UNFINISHED not in names:
            raise InputError(f"{out} is a directory with other files; give another name")
        held = lock(out / UNFINISHED)
        if held is None:
            raise InputError(f"another process converts to {out}; wait for it, or name another")
        if (out / MANIFEST).exists():  # it was quicker
            os.close(held)
            (out / UNFINISHED).unlink()
            raise InputError(f"{out} is converted already; give another name, or remove it")
        for path in {*out.glob("rows-*")} - {*out.glob(f"rows-*-{key}")}:  # read of other files
            shutil.rmtree(path)
        return held


def _begin(out: Path, plan: Plan, start: Plain) -> Journal:
    """Return the list of what is done, of a directory that is begun or gone on with."""
    with writing(out, ADVICE):
        whole = [*lines_of(out / UNFINISHED)]
        if whole and json.loads(whole[0]) != start:
            raise InputError(
                f"{out} was begun from other rows, or otherwise; remove it, or give another name"
            )
        journal = Journal(out / UNFINISHED, len(whole))
        if not whole:
            for name, dtype, shape in plan.arrays():
                size = int(np.prod(shape)) * dtype.itemsize
                make_sized(out / name, npy_header(dtype, shape), size)
            journal.append(json.dumps(start).encode())
        journal.flush()
        return journal


def _write(out: Path, plan: Plan, number: int) -> tuple[list[str], list[Any], str]:
    """Write a part; return the hashes of what arrays hold of it, what was seen, its blocks'."""
    start, arrays, noted, blocks = plan.part(number)
    hashes = []
    for (name, dtype, shape), array in zip(plan.arrays(), arrays, strict=True):
        data = array.reshape(-1).view(np.uint8).data
        row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        with writing(out / name):
            write_at(out / name, len(npy_header(dtype, shape)) + start * row, data)
        hashes.append(hashlib.sha256(data).hexdigest())
    return hashes, [list(asdict(one).values()) for one in noted], blocks.hex()


def _finish(out: Path, plan: Plan, done: list[Any], world: World) -> None:
    """Write the words and the manifest. Collective."""
    table, columns = plan.table, []
    for number, place in enumerate(plan.places):
        column, whole = place.column, added([Seen(*noted[number]) for _, noted, _ in done])
        about: Plain = {
            "name": column.name, "role": place.role, "kind": column.kind,
            "array": place.array, "number": place.number,
            "statistics": asdict(whole) | {"mean": whole.mean},
        }  # fmt: skip
        if column.kind == "words":
            about["words"] = [f"{number}.words.npy", f"{number}.ends.npy"]
            about["statistics"]["different"] = len(column.ends)
            with world.together():
                texts: tuple[Array, Array] = (column.text, column.ends)
                for name, array in zip(about["words"], texts, strict=True):
                    if world.rank == 0:
                        head = npy_header(array.dtype, array.shape)
                        write_whole(out / name, [head, array.tobytes()])
        columns.append(about)
    arrays = [
        {"file": name, "dtype": dtype.str, "shape": shape, "sha256": [one[0][k] for one in done]}
        for k, (name, dtype, shape) in enumerate(plan.arrays())
    ]
    inputs = [one["statistics"] for one in columns if one["role"] == "input"]
    finite = not any(one["gaps"] or one["infinite"] for one in inputs)
    digests = np.frombuffer(bytes.fromhex("".join(blocks for *_, blocks in done)), np.uint8)
    facts = {
        "finite": finite, "sha256": root(digests),
        "standard": _standard(table, world) if finite and not table.named else None,
    }  # fmt: skip
    manifest = {
        "format": FORMAT, "source": table.source, "rows": len(table), "named": table.named,
        "notes": table.notes, "part": plan.rows, "facts": facts, "arrays": arrays,
        "columns": columns,
    }  # fmt: skip
    with world.together():
        if world.rank == 0:
            for path in out.glob("rows-*"):
                shutil.rmtree(path, ignore_errors=True)
            write_whole(out / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def _standard(table: Table, world: World) -> list[Any]:
    """Return the mean and the deviation of each number of an array. Collective."""
    field = Field(table.columns[0].name, "numbers", tuple(table.columns[0].values.shape[1:]))
    none = np.zeros(0)
    rows = Rows(table, Encoding("regression", (field,), none, none, none, 1))
    found = statistics("x", rows.raw_x, rows, "standard", world, partial(total, world))
    return [values.tolist() for values in found]
