"""Where columns are kept from the time that they are parsed: in memory, or on disk."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.data.table import Rowwise
from dptrain.words import InputError

ROOM = 2**23
"""Bytes of memory that are taken at once."""

ALIGNMENT = 64
"""Bytes in a cache line: where arrays begin."""


class Pieces:
    """Arrays in memory, one behind the other, which is given back once they are let go of.

    An allocator would keep it: those of other sizes lie between them.
    """

    def clear(self) -> None:
        """Begin anew."""
        self._room, self._used = memoryview(b""), 0

    def told(self, rows: int) -> None:
        """Take note of how many rows have been read."""

    def keep(self, values: Array) -> Rowwise:
        """Return an array as it is kept."""
        if self._used + values.nbytes > len(self._room):
            self._room, self._used = memoryview(mmap.mmap(-1, max(ROOM, values.nbytes))), 0
        kept: Array = np.ndarray(values.shape, values.dtype, self._room, self._used)
        kept[...] = values
        self._used += values.nbytes + -values.nbytes % ALIGNMENT
        return kept


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
        first, stop, step = wanted.indices(len(self))
        width = int(np.prod(self.shape[1:], dtype=np.int64))
        num = max(0, stop - first)
        start = self.start + first * width * self.dtype.itemsize
        found: Array = np.fromfile(self.path, self.dtype, num * width, offset=start)
        return found.reshape(num, *self.shape[1:])[::step]


class Spool(Pieces):
    """A file of arrays, one behind the other.

    `told` is called with the number of rows that have been read.
    """

    def __init__(self, path: Path, told: Callable[[int], None]) -> None:
        self._path, self._told = path, told

    def clear(self) -> None:
        """Begin anew."""
        self._write("wb", b"")
        self._size = 0

    def told(self, rows: int) -> None:
        """Say how many rows have been read."""
        self._told(rows)

    def remove(self) -> None:
        """Remove the file, where there is one."""
        self._path.unlink(missing_ok=True)

    def keep(self, values: Array) -> Rowwise:
        """Write an array; return it as it can be read."""
        plain = np.ascontiguousarray(values)
        start = self._size
        self._size += plain.nbytes
        self._write("ab", plain.reshape(-1).view(np.uint8).data)
        return Kept(self._path, start, plain.shape, plain.dtype)

    def _write(self, mode: str, content: Any) -> None:
        try:
            with self._path.open(mode) as file:
                file.write(content)
        except OSError as error:
            raise InputError(f"{self._path} can't be written: {error.strerror}") from None
