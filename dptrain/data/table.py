"""What every file and array becomes: named columns of equal length, of which rows are read."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array
from dptrain.words import InputError

GAPS = (
    "", "na", "n/a", "#n/a", "#na", "nan", "-nan", "null", "(null)", r"\n", "none", "<na>", "nat",
    "#div/0!", "#name?", "#null!", "#num!", "#ref!", "#value!",
)  # fmt: skip
"""What stands, in letters of any size, where a table has no value; also in databases and sheets."""

BLANK = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u200c\u200d\u200e\u200f"
BLANK += "\u2060\ufeff"
"""What nobody sees at the ends of names and cells: spaces of any width, and of none."""

Kind = Literal["numbers", "flag", "date", "words"]
"""What the cells of a column are: numbers, yes or no, points in time, or texts."""

NO_DATE = np.iinfo(np.int64).min
"""What a gap among dates is, as NumPy has it."""


class Rowwise(Protocol):
    """An array of which rows can be read without the others: NumPy's, a file's, an object's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and the shape of one."""

    @property
    def dtype(self) -> Any:
        """The type of its entries."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Column:
    """Named values [rows, ...], read when they are asked for.

    numbers: of any real type, a gap is NaN. flag: int8, 0 or 1. date: int64, microseconds since
    1970, a gap is `NO_DATE`. words: int32, the number of a text among `words`. A gap among flags
    and words is -1. Numbers may have more dimensions than one, and then have no gaps.
    """

    name: str
    kind: Kind
    values: Rowwise
    text: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """The words in their order, one behind the other, as UTF-8."""
    ends: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Where each of them ends in `text`."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        """The number of values in a row."""
        return math.prod(self.values.shape[1:])

    def read(self, rows: Any, out: Array | None = None) -> Array:
        """Return some rows, by slice or by number, in this machine's order of bytes and C's.

        What is given by number may go to `out` [m, ...], where that is of its type and size.
        """
        mapped = isinstance(self.values, np.memmap)  # which takes several times as long to index
        values = np.asarray(self.values) if mapped else self.values
        if isinstance(values, np.ndarray) and isinstance(rows, np.ndarray) and _plain(values):
            if out is None or out.dtype != values.dtype or out.size != len(rows) * self.width:
                return values.take(rows, axis=0)  # a fifth faster than by index
            return values.take(rows, 0, out.reshape(len(rows), *values.shape[1:]), "clip")
        found = np.asarray(values[rows])
        if found.flags.c_contiguous and found.dtype.isnative:
            return found
        return np.ascontiguousarray(found, found.dtype.newbyteorder("="))

    @functools.cached_property
    def words(self) -> list[str]:
        """The different texts, sorted."""
        text, places = self.text.tobytes(), itertools.pairwise([0, *self.ends.tolist()])
        return [text[start:end].decode("utf-8", "surrogatepass") for start, end in places]

    def gaps(self, values: Array) -> NDArray[np.bool_]:
        """Return which of some values, as `read` returns them, are gaps."""
        if self.kind == "numbers":
            return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        found: NDArray[np.bool_] = values == (NO_DATE if self.kind == "date" else -1)
        return found

    def about(self) -> str:
        """Return what it is, by which ranks see whether they have read the same."""
        shape = ", ".join(map(str, self.values.shape)) + "," * (len(self.values.shape) == 1)
        kind = np.dtype(self.values.dtype).name if self.kind == "numbers" else self.kind
        return f"{self.name} ({shape}) {kind}"


def _plain(values: Array) -> bool:
    """Return whether an array is as NumPy computes with it; of another, `take` copies all."""
    return values.flags.c_contiguous and values.flags.aligned and values.dtype.isnative


def in_memory(values: object) -> bool:
    """Return whether that is an array which is not mapped from a file."""
    return isinstance(values, np.ndarray) and not getattr(values, "filename", None)


class Stacked:
    """Several arrays as one, row after row: the files, or the pieces, of one data set.

    With `meanings`, what stands in each array are the places in one of these. `names` are the
    files', where they are such.
    """

    def __init__(
        self, parts: Sequence[Rowwise], meanings: Sequence[Array] = (), names: Sequence[str] = ()
    ) -> None:
        for name, part in zip(names, parts, strict=False):
            if part.shape[1:] != parts[0].shape[1:]:
                raise InputError(
                    f"an array of {name} has rows of shape {part.shape[1:]}, and that of "
                    f"{names[0]} of {parts[0].shape[1:]}; they must be alike"
                )
        self._parts, self._meanings = list(parts), meanings
        self.lengths = [len(part) for part in parts]
        self._ends = np.cumsum(self.lengths)
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])
        self.dtype = np.result_type(*(part.dtype for part in meanings or parts))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            first, last = np.searchsorted(self._ends, (start, stop - 1), side="right").tolist()
            found = [self._read(n, start, stop) for n in range(first, last + 1) if stop > start]
            return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *found])
        rows = np.arange(len(self))[rows]
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        places = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(places):
            mine = places == number
            start = self._ends[number] - self.lengths[number]
            found = self._parts[number][rows[mine] - start]
            out[mine] = self._meanings[number][found] if self._meanings else found
        return out

    @property
    def in_memory(self) -> bool:
        """Whether all of them are."""
        return all(map(in_memory, self._parts))

    def pour(self, number: int, out: Array) -> None:
        """Write one of the arrays to its place in one of all rows, and let go of it."""
        end = int(self._ends[number])
        start = end - self.lengths[number]
        out[start:end] = self._read(number, start, end)
        self._parts[number] = np.empty(0, self.dtype)

    def _read(self, number: int, start: int, stop: int) -> Array:
        """Return those of the rows start .. stop-1 that one of the arrays has."""
        before = int(self._ends[number]) - self.lengths[number]
        found = self._parts[number][max(0, start - before) : stop - before]
        return self._meanings[number][found] if self._meanings else np.asarray(found)


class Facts(NamedTuple):
    """What is known of all rows of an array without reading them."""

    sha256: str
    """Of all that they hold."""
    finite: bool
    """Whether no entry is a gap or infinite."""
    standard: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    """The mean and the deviation of each number [inputs]; None of a table's columns."""


@dataclass(frozen=True)
class Table:
    """Columns of the same number of rows, and what each is for.

    `named` says that the inputs are a table's columns, not one array.
    """

    source: str
    columns: tuple[Column, ...]
    """The inputs."""
    targets: tuple[Column, ...] = ()
    weight: Column | None = None
    ids: tuple[Column, ...] = ()
    named: bool = False
    notes: tuple[str, ...] = ()
    """What a person should know of how it was read."""
    line: Callable[[int], str] | None = None
    """Where a row stands in its file, for people; None where rows have numbers only."""
    facts: Facts | None = None

    def __post_init__(self) -> None:
        for column in self.every():
            shape, kind = column.values.shape, np.dtype(column.values.dtype)
            if kind.kind not in "biuf" or len(shape) == 0:
                label = any(column is one for one in self.targets)
                names = ", astype(str) names" * label
                hint = f"; {column.name}.astype(float) makes numbers{names}"
                hint *= kind.kind == "O" and len(shape) > 0
                raise InputError(
                    f"{self.source}: {column.name} has dtype {kind} and shape {shape}; give "
                    f"rows of numbers{' or names' * label}{hint}"
                )
            if len(column) != len(self):
                raise InputError(
                    f"{self.source}: {self.columns[0].name} has {len(self)} rows and "
                    f"{column.name} has {len(column)}; they must have the same number"
                )
        if self.columns and len(self) and not all(column.width for column in self.targets):
            raise InputError(f"{self.source}: y has rows of no number; give one or more")
        if not self.columns or len(self) == 0 or not any(c.width for c in self.columns):
            empty = bool(self.columns) and len(self) == 0
            what = "no example" if empty else "no input beside the target"
            shapes = f": x has shape {self.columns[0].values.shape}, so" if self.columns else ""
            raise InputError(f"{self.source}{shapes} there is {what}")

    def __len__(self) -> int:
        return len(self.columns[0])

    def every(self) -> Iterator[Column]:
        """Yield all columns: inputs, targets, weights, what rows are called by."""
        return (column for _, column in self.by_role())

    def by_role(self) -> Iterator[tuple[str, Column]]:
        """Yield all columns, each with what it is for: "input", "target", "weight" or "id"."""
        weights = () if self.weight is None else (self.weight,)
        parts = {"input": self.columns, "target": self.targets, "weight": weights, "id": self.ids}
        return ((role, column) for role, columns in parts.items() for column in columns)

    @property
    def nbytes(self) -> int:
        """What all rows take, as they are read."""
        sizes = (c.width * int(np.dtype(c.values.dtype).itemsize) for c in self.every())
        return len(self) * sum(sizes)

    def content(self, rows: Any) -> bytes:
        """Return all that some rows hold, to be hashed; `texts` say what words stand for."""
        return b"".join(column.read(rows).tobytes() for column in self.every())

    def texts(self) -> bytes:
        """Return what all words are, to be hashed."""
        words = ((column.text.tobytes(), column.ends.tobytes()) for column in self.every())
        return b"".join(part for pair in words for part in pair)

    def shapes(self) -> str:
        """Return shapes and types, by which ranks see whether they have read the same."""
        if self.named:
            return f"{len(self)} rows of {len(self.columns)} columns"
        told = ", ".join(column.about() for column in self.every())
        return told if self.targets else f"{told}, no y"
