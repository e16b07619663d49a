"""CSV and its relatives: pyarrow reads them; what is wrong in a row gets its line."""

import csv
import io
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from dptrain.data.cells import GAPS
from dptrain.data.form import NUMBER, Form, no_utf8, open_text
from dptrain.words import InputError

BLOCK = 2**24
"""Bytes that are parsed at a time."""

LOOKED_AT = 20_000
"""Cells by which it is guessed what is read as numbers."""

EMPTY = [*{form for gap in GAPS for form in (gap, gap.upper(), gap.capitalize())}, "NaN", "NaT"]
"""How gaps among numbers are written mostly; where otherwise, they are read as texts."""

END = "\x1fend of the rows\x1f"
"""What is read behind the last row: within a quote that is never closed it is no row of its own."""


class Rows(io.RawIOBase):
    """A file's bytes from its first row on, with one more row at the end."""

    def __init__(self, form: Form) -> None:
        self._file = open_text(form.path)
        left = form.start
        while left:
            left -= len(self._file.read(left)) or left
        self._end = f"\n{END}{form.delimiter * (len(form.names) - 1)}\n".encode()
        self._ended = False
        self.quoted = False
        """Whether there is a quote in what was read so far."""

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        found = bytes(self._file.read(size if size > 0 else BLOCK))
        self.quoted = self.quoted or b'"' in found
        if not found and not self._ended:
            self._ended = True
            return self._end
        return found


def read(form: Form, wanted: Sequence[str], typed: Collection[str]) -> tuple[pa.Table, list[str]]:
    """Return the wanted columns of a file, and what a person should know of it.

    All as texts but the columns of `typed`, which are float64, as far as each of their cells is a
    number or empty.

    Raises
    ------
    InputError
        A row has more or fewer cells than the first, a quote is never closed, or text is no UTF-8.
    """
    places = {name: str(place) for place, name in enumerate(form.names)}
    keep = [*dict.fromkeys(["0", *(places[name] for name in wanted)])]
    asked = numbers = {places[name] for name in typed} - {"0"}  # whose last cell ends the rows
    while True:
        try:
            table, quoted = _parsed(form, keep, numbers)
            break
        except pa.ArrowInvalid as error:  # then all is read once more
            wrong = re.search(r"column #(\d+): .*conversion error to double", str(error))
            if wrong is None or wrong[1] not in numbers:
                raise _fault(form, str(error)) from None
            numbers = numbers - {wrong[1]} if numbers == asked else set()
    table = table.select([places[name] for name in wanted]).rename_columns([*wanted])
    return table, [*_suspicious(form, table)] if quoted else []


def _parsed(form: Form, keep: list[str], numbers: Collection[str]) -> tuple[pa.Table, bool]:
    """Return columns by their numbers, and whether there is a quote in the file.

    Raises pa.ArrowInvalid where a cell of `numbers` is none, or for what `_fault` finds.
    """
    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append(row)
        return "skip"

    convert = arrow_csv.ConvertOptions(
        column_types={name: pa.float64() if name in numbers else pa.string() for name in keep},
        include_columns=keep,
        null_values=EMPTY,
        strings_can_be_null=False,
    )
    parse = arrow_csv.ParseOptions(
        delimiter=form.delimiter, newlines_in_values=True, invalid_row_handler=note
    )
    names, block = [str(number) for number in range(len(form.names))], BLOCK
    while True:
        bad.clear()
        rows, options = Rows(form), arrow_csv.ReadOptions(column_names=names, block_size=block)
        try:
            table = arrow_csv.read_csv(pa.PythonFile(rows, "r"), options, parse, convert)
            break
        except (OSError, EOFError) as error:
            raise _fault(form, str(error)) from None
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error) or block > 2**30:
                raise
            block *= 8
    first = table.column(0)
    if bad or not len(first) or first[len(first) - 1].as_py() != END:
        raise _fault(form, "its rows don't have the same number of cells")
    return table.slice(0, len(table) - 1), rows.quoted


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
        if all(NUMBER.fullmatch(cell) or cell in EMPTY for cell in cells.get(name, ("no",)))
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
                spans = any("\n" in cell for cell in row)
                if spans:
                    return _quote(form, line)
                return InputError(
                    f"{form.path}: line {line} has {len(row)} cells; the header has "
                    f"{len(form.names)}"
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


def _suspicious(form: Form, table: pa.Table) -> Iterable[str]:
    """Yield what to say of the first cell of several lines: rows, maybe, by a quote too many."""
    rows = []
    for name in [one.name for one in table.schema if one.type == pa.string()]:
        within = pc.match_substring(table[name], "\n")
        if pc.any(within).as_py():
            rows.append((pc.index(within, True).as_py(), name))
    if rows:
        row, name = min(rows)
        yield (
            f"{form.path}: {form.line(row)} has a text of several lines in column {name!r}; is "
            "there a quote too many?"
        )
