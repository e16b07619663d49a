"""Predictions as CSV, Parquet or .npy, by the name of the file, written block by block."""

import csv
import importlib
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.data.numpy_files import npy_header
from dptrain.record.files import write_whole
from dptrain.streams import output
from dptrain.words import InputError, install, shown

Block = tuple[Sequence[Array], Array]
"""What some rows are called by, columns [m] of texts; and their predictions [m] or [m, columns]."""

GROUP = 2**6
"""Blocks in a part of a Parquet file that is read at once."""


def suffix(out: str) -> str:
    """Return the end of a file's name, by which it is known what is written there."""
    return Path(out).suffix.lower()


def check_name(out: str) -> None:
    """Raise InputError where nothing is written to a file of that name, or can't be here."""
    if suffix(out) not in WRITERS:
        raise InputError(f"out is {out}; predictions are written to a {SUFFIXES} file")
    if suffix(out) == ".parquet":
        _parquet()


def write_predictions(
    out: str | None, names: Sequence[str], blocks: Iterator[Block], num_rows: int
) -> None:
    """Write blocks of predictions, `num_rows` rows in all, to a file or as CSV to stdout."""
    if out is not None:
        content = WRITERS[suffix(out)](names, blocks, num_rows)
        return write_whole(Path(out), content, shared=True)
    place = output()
    for text in _lines(names, blocks, for_people=place.isatty()):
        if hasattr(place, "buffer"):
            place.buffer.write(text.encode())  # data: as in a file, in any locale
        else:
            place.write(text)
    return None


def _as_csv(names: Sequence[str], blocks: Iterator[Block], _: int) -> Iterator[bytes]:
    return (text.encode() for text in _lines(names, blocks))


def _lines(
    names: Sequence[str], blocks: Iterator[Block], *, for_people: bool = False
) -> Iterator[str]:
    """Yield a CSV file's header, and the lines of each block; for people names are escaped."""
    header: list[Any] = [names]
    for rows in itertools.chain([header], map(_rows, blocks)):
        if for_people:  # a pipe gets names as they are
            rows = [[shown(x) if isinstance(x, str) else x for x in row] for row in rows]
        odd = any("\r" in x for row in rows for x in row if isinstance(x, str))
        text = io.StringIO()  # of which the writer puts none in quotes by itself
        quoting = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
        csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)  # type: ignore[arg-type]
        yield text.getvalue()


def _rows(block: Block) -> list[list[Any]]:
    ids, values = block
    rows: list[list[Any]] = values.reshape(len(values), -1).tolist()
    return [[*each, *row] for *each, row in zip(*ids, rows, strict=True)]


def _as_npy(_: Sequence[str], blocks: Iterator[Block], num_rows: int) -> Iterator[bytes]:
    """Yield a .npy file's header, and the bytes of each block."""
    for number, (_ids, block) in enumerate(blocks):
        if number == 0:
            yield npy_header(block.dtype, (num_rows, *block.shape[1:]))
        yield block.tobytes()


class _Pieces(io.BytesIO):
    """What a file is written to that is handed on piece by piece."""

    _taken = 0

    def tell(self) -> int:
        return self._taken + super().tell()

    def taken(self) -> bytes:
        """Return what was written since this was asked before."""
        piece = self.getvalue()
        self._taken += len(piece)
        self.seek(0)
        self.truncate()
        return piece


def _as_parquet(names: Sequence[str], blocks: Iterator[Block], _: int) -> Iterator[bytes]:
    """Yield a Parquet file, a column for each of the names."""
    pa, parquet = _parquet()
    out, writer = _Pieces(), None
    while group := [*itertools.islice(blocks, GROUP)]:
        columns = ([*ids, *values.reshape(len(values), -1).T] for ids, values in group)
        whole = map(np.concatenate, zip(*columns, strict=True))
        arrays = [pa.array(c.astype(object) if c.dtype.kind == "U" else c) for c in whole]
        table = pa.table(arrays, names=[*names])
        writer = writer or parquet.ParquetWriter(out, table.schema)
        writer.write_table(table)
        yield out.taken()
    if writer is not None:
        writer.close()
    yield out.taken()


def _parquet() -> tuple[Any, Any]:
    """Return pyarrow's modules; InputError where they are not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            f"a .parquet file needs pyarrow: {install('tables')}, or write .csv", local=True
        ) from None


Writer = Callable[[Sequence[str], Iterator[Block], int], Iterator[bytes]]
WRITERS: dict[str, Writer] = {".csv": _as_csv, ".parquet": _as_parquet, ".npy": _as_npy}
SUFFIXES = "{}, {} or {}".format(*WRITERS)
