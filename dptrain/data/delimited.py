"""CSV and its relatives: pyarrow reads them, piece by piece; a wrong row is named by its line."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from dptrain.data.cells import EMPTY
from dptrain.data.form import NUMBER, Form, no_text, no_utf8, open_text
from dptrain.words import InputError, counted

PIECE, LONGEST = 2**22, 2**26
"""Bytes that are parsed at a time: by one thread of several, and at most, for one row's sake."""

OF_A_COLUMN = 2**12
"""Bytes that a piece has at least for each column, which costs as much as parsing some of them."""

LOOKED_AT = 20_000
"""Cells by which it is guessed what is read as numbers."""

TEXT: pa.DataType = pa.dictionary(pa.int32(), pa.string())
NOT_ALIKE = "its rows don't have the same number of cells"


def end_of(form: Form) -> str:
    """Return what is read behind the last row: in a quote never closed it is no row of its own."""
    return 16 * ("\x1e" if form.delimiter == "\x1f" else "\x1f")


Job = Callable[[], pa.Table]
"""Parses some rows, in whatever thread."""


class Parser:
    """How the rows of one file are parsed.

    The wanted columns become texts, each of which is kept once, but not in those of `typed`.
    """

    def __init__(self, form: Form, wanted: Sequence[str], typed: Collection[str]) -> None:
        self.form = form
        self._names = [str(number) for number in range(len(form.names))]
        places = dict(zip(form.names, self._names, strict=True))
        self._types = {places[name]: pa.string() if name in typed else TEXT for name in wanted}
        self._convert = arrow_csv.ConvertOptions(
            column_types=self._types, include_columns=[*self._types], strings_can_be_null=False
        )
        self._cut = arrow_csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True)

    def jobs(self) -> Iterator[Job]:
        """Yield what parses the rows, piece after piece.

        Raises InputError where a row has more or fewer cells than the first, a quote is never
        closed, or text is no UTF-8; a job too.
        """
        size = max(PIECE, OF_A_COLUMN * len(self._names))
        try:
            with open_text(self.form.path) as file:
                left = self.form.start
                while left:
                    left -= len(file.read(left)) or left
                rest, more = b"", True
                while more:
                    found = bytes(file.read(size))
                    piece, more = rest + found, bool(found)
                    if b"\0" in found:
                        raise no_text(self.form.path)
                    end = _rows_end(piece, self.form.delimiter, last=not more)
                    if end is None or len(piece) - end > LONGEST:
                        yield from self._one_by_one(piece, file)
                        return
                    if end:
                        yield partial(self._parsed, pa.py_buffer(piece).slice(0, end))
                    rest = piece[end:]
        except (OSError, EOFError) as error:
            raise _fault(self.form, str(error)) from None

    def _parsed(self, piece: pa.Buffer) -> pa.Table:
        read = arrow_csv.ReadOptions(
            use_threads=False, column_names=self._names, block_size=len(piece) + 1
        )
        try:
            table = arrow_csv.read_csv(pa.BufferReader(piece), read, self._cut, self._convert)
        except pa.ArrowInvalid as error:
            raise self._mistake(error) from None
        return self._named(table)

    def _one_by_one(self, start: bytes, file: Any) -> Iterator[Job]:
        """Yield the rows of all that is left, where only pyarrow knows where a row ends.

        The first column's last text says that no quote is open.
        """
        convert = self._convert
        convert.column_types = {"0": TEXT} | self._types
        convert.include_columns = [*dict.fromkeys(["0", *self._types])]
        read = arrow_csv.ReadOptions(column_names=self._names, block_size=LONGEST)
        source, last = pa.PythonFile(_Rest(start, file, self.form), "r"), None
        try:
            for batch in arrow_csv.open_csv(source, read, self._cut, convert):
                if last is not None:
                    yield partial(self._named, last)
                last = pa.table(batch)
        except pa.ArrowInvalid as error:
            raise self._mistake(error) from None
        if last is None or last["0"][len(last) - 1].as_py() != end_of(self.form):
            raise _fault(self.form, NOT_ALIKE)
        texts = pa.schema([(name, pa.string()) for name in last.column_names])
        rows = last.slice(0, len(last) - 1).cast(texts)  # nothing of that row is left
        yield partial(self._named, rows)

    def _named(self, table: pa.Table) -> pa.Table:
        """Return columns under their own names."""
        return table.rename_columns([self.form.names[int(name)] for name in table.column_names])

    def _mistake(self, error: pa.ArrowInvalid) -> InputError:
        """Return what pyarrow means."""
        uneven = re.match(r"CSV parse error: (Row #\d+: )?Expected \d+ columns, got", str(error))
        return _fault(self.form, NOT_ALIKE if uneven else str(error))


class _Rest(io.RawIOBase):
    """Some bytes, the rest of a file, and one more row at the end."""

    def __init__(self, start: bytes, file: Any, form: Form) -> None:
        self._file, self._next = file, start
        self._end = f"\n{end_of(form)}{form.delimiter * (len(form.names) - 1)}\n".encode()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = size if size > 0 else PIECE
        self._next += bytes(self._file.read(max(0, size - len(self._next))))
        found, self._next = self._next[:size], self._next[size:]
        if not found:
            found, self._end = self._end, b""
        return found


def _rows_end(text: bytes, delimiter: str, *, last: bool) -> int | None:
    """Return where the last whole row of a text that begins with one ends; None where in doubt.

    That is at the last line break outside of quotes. In doubt it is where some quote stands
    neither at a cell's beginning or end nor twice, or, in the `last` piece, is never closed.
    """
    if b'"' not in text:
        return len(text) if last else text.rfind(b"\n") + 1
    letters = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(letters == ord('"'))
    ends = np.frombuffer(f'{delimiter}\r\n"'.encode(), np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before = letters[opening[opening > 0] - 1]
    after = letters[closing[closing < len(text) - 1] + 1]
    if not (np.isin(before, ends).all() and np.isin(after, ends).all()):
        return None
    if last:
        return None if len(quotes) % 2 else len(text)
    end = text.rfind(b"\n")
    while end >= 0 and (opened := int(np.searchsorted(quotes, end))) % 2:
        end = text.rfind(b"\n", 0, quotes[opened - 1])
    return end + 1


def begin_with_numbers(form: Form, names: Sequence[str]) -> set[str]:
    """Return those of some columns that hold numbers or nothing in a file's first rows."""
    try:
        some = max(1, min(100, LOOKED_AT // len(form.names)))
        rows = [row for _, row in itertools.islice(form.records(), some)]
    except (OSError, EOFError, csv.Error):
        return set()
    cells = dict(zip(form.names, zip(*rows, strict=False), strict=False))
    return {
        name
        for name in names
        if all(cell in EMPTY or re.match(NUMBER, cell) for cell in cells.get(name, ("no",)))
    }


def _fault(form: Form, why: str) -> InputError:
    """Return which row is at fault, found by reading row by row: slow, but only this once."""
    if "UTF8" in why:
        return no_utf8(form.path)
    last = 0
    try:
        for line, row in form.records():
            last = line
            if len(row) != len(form.names):
                if any("\n" in cell for cell in row):
                    return _quote(form, line)
                way = ": put texts in quotes, right behind the delimiter, or name each column"
                return InputError(
                    f"{form.path}: line {line} has {counted(len(row), 'cell')}; the "
                    f"{'header' if form.header else 'first row'} has {len(form.names)}"
                    f"{way * (len(row) > len(form.names))}"
                )
    except (OSError, EOFError, csv.Error) as error:
        return InputError(f"{form.path} can't be read: {error}", local=True)
    if "decompress" in why or "truncated" in why.lower() or "stream" in why.lower():
        return InputError(f"{form.path} can't be read: {why}", local=True)
    return _quote(form, last)


def _quote(form: Form, line: int) -> InputError:
    return InputError(
        f"{form.path}: line {line} opens a quote that is never closed; put one at the end of its "
        "cell, or write two for one that is text"
    )
