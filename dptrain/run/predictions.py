"""Predictions as CSV, Parquet or .npy, by the name of the file, written block by block."""

import csv
import importlib
import io
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.config import InputError, shown
from dptrain.record.files import write_whole

GROUP = 2**16
"""Rows, at least, in a part of a Parquet file that is read at once."""


def check_name(out: str) -> None:
    """Raise InputError where nothing is written to a file of that name, or can't be here."""
    if Path(out).suffix not in WRITERS:
        raise InputError(f"out is {out}; predictions are written to a {SUFFIXES} file")
    if Path(out).suffix == ".parquet":
        _parquet()


def write_predictions(
    out: str | None, names: Sequence[str], blocks: Iterator[Array], num_rows: int
) -> None:
    """Write blocks of predictions [m] or [m, columns], `num_rows` in all, to a file or stdout."""
    if out is not None:
        return write_whole(Path(out), WRITERS[Path(out).suffix](names, blocks, num_rows))
    for text in _lines(names, blocks, for_people=sys.stdout.isatty()):
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(text.encode())  # data: as in a file, in any locale
        else:
            sys.stdout.write(text)
    return None


def _as_csv(names: Sequence[str], blocks: Iterator[Array], _: int) -> Iterator[bytes]:
    return (text.encode() for text in _lines(names, blocks))


def _lines(
    names: Sequence[str], blocks: Iterator[Array], *, for_people: bool = False
) -> Iterator[str]:
    """Yield a CSV file's header, and the lines of each block; for people names are escaped."""
    header: list[Any] = [names]
    tables = (block.reshape(len(block), -1).tolist() for block in blocks)
    for rows in itertools.chain([header], tables):
        if for_people:  # a pipe gets names as they are
            rows = [[shown(x) if isinstance(x, str) else x for x in row] for row in rows]
        odd = any("\r" in x for row in rows for x in row if isinstance(x, str))
        text = io.StringIO()  # of which the writer puts none in quotes by itself
        quoting = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
        csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)  # type: ignore[arg-type]
        yield text.getvalue()


def _as_npy(_: Sequence[str], blocks: Iterator[Array], num_rows: int) -> Iterator[bytes]:
    """Yield a .npy file's header, and the bytes of each block."""
    for number, block in enumerate(blocks):
        if number == 0:
            start = io.BytesIO()
            whole = {"descr": block.dtype.str, "fortran_order": False}
            np.lib.format.write_array_header_1_0(
                start, whole | {"shape": (num_rows, *block.shape[1:])}
            )
            yield start.getvalue()
        yield block.tobytes()


class _Pieces:
    """What a file is written to that is handed on piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._place = 0

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._place += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        return self._place

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> list[bytes]:
        """Return what was written since this was asked before."""
        pieces, self._pieces = self._pieces, []
        return pieces


def _as_parquet(names: Sequence[str], blocks: Iterator[Array], _: int) -> Iterator[bytes]:
    """Yield a Parquet file, a column for each of the names."""
    pa, parquet = _parquet()
    out, writer = _Pieces(), None
    for group in _groups(blocks):
        columns = list(group.reshape(len(group), -1).T)
        arrays = [
            column.astype(object) if column.dtype.kind == "U" else column for column in columns
        ]
        table = pa.table([pa.array(array) for array in arrays], names=[*names])
        writer = writer or parquet.ParquetWriter(out, table.schema)
        writer.write_table(table)
        yield from out.taken()
    if writer is not None:
        writer.close()
    yield from out.taken()


def _groups(blocks: Iterator[Array]) -> Iterator[Array]:
    """Yield blocks put together, until there are enough rows for a part of a Parquet file."""
    held: list[Array] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= GROUP:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _parquet() -> tuple[Any, Any]:
    """Return pyarrow's modules; InputError where they are not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            "a .parquet file needs pyarrow: pip install 'dptrain[tables]', or write .csv",
            local=True,
        ) from None


Writer = Callable[[Sequence[str], Iterator[Array], int], Iterator[bytes]]
WRITERS: dict[str, Writer] = {".csv": _as_csv, ".parquet": _as_parquet, ".npy": _as_npy}
SUFFIXES = "{}, {} or {}".format(*WRITERS)
