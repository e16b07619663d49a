"""Where columns are kept: in pieces while they are parsed, then where a node's ranks share them."""

import contextlib
import io
import math
import mmap
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dptrain.arrays import Array
from dptrain.data.numpy_files import read_npz
from dptrain.data.table import Kind, Rowwise, Stacked, in_memory
from dptrain.machine import too_little_memory
from dptrain.nodes import allgathered, sleep_until
from dptrain.words import InputError

ROOM = 2**23
"""Bytes of memory that are taken at once."""

ALIGNMENT = 64
"""Bytes in a cache line: where arrays begin."""

T = TypeVar("T")

Take = Callable[[int], tuple[memoryview, bool]]
"""Returns so many bytes to write, and whether the ranks of the node share them; else each has its
own. Collective over the node."""

MESSAGE = 2**30
"""Bytes that MPI sends at once."""


@dataclass(frozen=True)
class Kept:
    """An array in a file, of which rows are read when they are asked for: no memory is mapped."""

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: Any) -> Array:
        if not isinstance(wanted, slice):
            return np.asarray(self[:][wanted])
        rows, row = range(len(self))[wanted], np.dtype((self.dtype, self.shape[1:]))
        start = self.start + rows.start * row.itemsize
        return np.fromfile(self.path, row, len(rows), offset=start)


class Part(NamedTuple):
    """Some rows of a column: its values; with texts, which are an Arrow message, their places."""

    kind: Kind
    values: Any
    texts: Array | None = None


Done = tuple[int, list[Part]]
"""How many rows have been read together, and what they are in each column."""


class Pieces:
    """Arrays in memory, one behind the other, which is given back once they are let go of.

    An allocator would keep it: those of other sizes lie between them.
    """

    def __init__(self, told: Callable[[int], object] = lambda _: None) -> None:
        self.told = told
        """Called with how many rows have been read."""

    def clear(self) -> None:
        """Begin anew."""
        self._room, self._used = memoryview(b""), 0

    def through(self, number: int, read: Callable[[], Done]) -> Done:
        """Return what the rows are that are read together, so many after the first."""
        del number
        return read()

    def keep(self, values: Any) -> Rowwise:
        """Return an array as it is kept; one of one value many times takes no room.

        Raises MemoryError where that ends: a small file may hold any number of rows, packed.
        """
        if isinstance(values, Kept):
            return values
        bits = values.view(f"u{values.itemsize}") if values.ndim == 1 else values[:0]
        if len(bits) and bits[0] == bits[-1] and (bits == bits[0]).all():
            return np.broadcast_to(values[0], values.shape)
        if self._used + values.nbytes > len(self._room):
            room = max(ROOM, values.nbytes)
            if too_little_memory(room) is not None:
                raise MemoryError
            try:
                self._room, self._used = memoryview(mmap.mmap(-1, room)), 0
            except OSError:  # a limit of this process's
                raise MemoryError from None
        kept: Array = np.ndarray(values.shape, values.dtype, self._room, self._used)
        kept[...] = values
        self._used += values.nbytes + -values.nbytes % ALIGNMENT
        return kept


class Spool(Pieces):
    """Pieces in files, with which reading goes on where it was ended; `told` as in memory."""

    def __init__(self, folder: Path, told: Callable[[int], object]) -> None:
        super().__init__(told)
        self._folder, self._turn = folder, 0

    def clear(self) -> None:
        """Begin anew: what was kept at the same turn before is found again."""
        self._turn += 1

    def left(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove the files where a person has to mend something first; else they are of use."""
        if kind and issubclass(kind, InputError):
            shutil.rmtree(self._folder, ignore_errors=True)

    def through(self, number: int, read: Callable[[], Done]) -> Done:
        """Return what `read` does, kept in a file; where that is whole already, it is not read."""
        path = self._folder / str(self._turn) / f"{number}.npz"
        with contextlib.suppress(InputError):
            return _found(path, sys.maxsize)
        rows, parts = read()
        arrays = dict[str, Any](rows=[rows])
        for place, (kind, values, texts) in enumerate(parts):
            arrays[f"{place} {kind}"] = values
            if texts is not None:
                arrays[f"{place} texts"] = texts
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **arrays)
        except OSError as error:
            raise InputError(f"{path} can't be written: {error.strerror}") from None
        return _found(path, checked=0)


_READING = threading.Lock()
"""NumPy has Python parse an array's header, at which threads of Python 3.11 disturb each other."""


def _found(path: Path, checked: int) -> Done:
    """Return the rows of a file; InputError where it is not whole, by checksums up to a size."""
    with _READING:
        arrays, parts = read_npz(str(path), checked), list[Part]()
    rows = int(arrays.pop("rows")[0])
    for name, array in arrays.items():
        kind: Any = name.partition(" ")[2]
        if kind == "texts":
            parts[-1] = parts[-1]._replace(texts=np.array(array))
        elif isinstance(array, np.memmap):
            parts.append(Part(kind, Kept(path, array.offset, array.shape, array.dtype)))
        else:  # without entries
            parts.append(Part(kind, array))
    return rows, parts


def own(num_bytes: int) -> tuple[memoryview, bool]:
    """Return memory for one process alone; see `Take`."""
    return np.empty(num_bytes, np.uint8).data, True


def share(found: T | None, comm: Any = None, take: Take = own) -> T:
    """Return what the first rank of the node has, with its arrays in memory that all share.

    The other ranks give None; `comm` are the ranks of the node, None for a process alone. Arrays in
    pieces become whole there, and each piece is let go of once it is copied. Arrays that are mapped
    from files are mapped by each rank. Only what dptrain has made itself is pickled. Collective:
    every rank must call this.
    """
    arrays: list[Any] = []
    told: Any = None
    if comm is None or comm.rank == 0:
        stream = io.BytesIO()
        _Pickler(stream, arrays).dump(found)
        told = stream.getvalue(), [(one.shape, np.dtype(one.dtype)) for one in arrays]
    pickled, shapes = told if comm is None else allgathered(comm, told)[0]
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in shapes]
    ends = list(accumulate((size + -size % ALIGNMENT for size in sizes), initial=0))
    memory, in_one = take(ends[-1])
    whole: list[Array] = [
        np.ndarray(shape, dtype, memory, start)
        for start, (shape, dtype) in zip(ends, shapes, strict=False)
    ]
    _fill(whole, arrays)
    if comm is not None:
        sleep_until(comm.Ibarrier())  # MPI would take a core to wait for the first rank
        for start in range(0, 0 if in_one else ends[-1], MESSAGE):
            comm.Bcast(memory[start : min(start + MESSAGE, ends[-1])])
    for one in whole:
        one.flags.writeable = False
    shared: T = _Unpickler(pickled, whole).load()
    return shared


def _fill(whole: Sequence[Array], arrays: Sequence[Any]) -> None:
    """Copy arrays; those in pieces piece by piece, in the order in which they were read."""
    both = [*zip(whole, arrays, strict=False)]
    for out, one in both:
        if not isinstance(one, Stacked):
            out[...] = one
    pieces = [(out, one) for out, one in both if isinstance(one, Stacked)]
    for number in range(max((len(one.lengths) for _, one in pieces), default=0)):
        for out, one in pieces:
            if number < len(one.lengths):
                one.pour(number, out)


class _Pickler(pickle.Pickler):
    """Leaves arrays out, and of those mapped from files says where they are."""

    def __init__(self, stream: io.BytesIO, arrays: list[Any]) -> None:
        super().__init__(stream, 5)
        self._arrays = arrays

    def persistent_id(self, value: Any) -> int | None:
        """Return the number of an array that is in memory; None for all else."""
        if not (value.in_memory if isinstance(value, Stacked) else in_memory(value)):
            return None
        self._arrays.append(value)
        return len(self._arrays) - 1

    def reducer_override(self, value: Any) -> Any:
        """Return how a mapped array is opened again."""
        if isinstance(value, np.memmap):
            order: Any = "C" if value.flags.c_contiguous else "F"
            about = (str(value.filename), value.dtype, "r", value.offset, value.shape, order)
            return np.memmap, about
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Puts the arrays back."""

    def __init__(self, pickled: bytes, arrays: list[Array]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._arrays = arrays

    def persistent_load(self, number: int) -> Array:
        return self._arrays[number]
