"""CSV and its relatives: pyarrow reads them; what is wrong in a row gets its line."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from dptrain.data.form import Form, no_utf8, open_text
from dptrain.words import InputError

BLOCK = 2**24
"""Bytes that are parsed at a time."""

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

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        found = bytes(self._file.read(size if size > 0 else BLOCK))
        if not found and not self._ended:
            self._ended = True
            return self._end
        return found


def read(form: Form, wanted: Sequence[str]) -> pa.Table:
    """Return the wanted columns of a file, all as texts.

    Raises
    ------
    InputError
        A row has more or fewer cells than the first, a quote is never closed, or text is no UTF-8.
    """
    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append(row)
        return "skip"

    names = [str(number) for number in range(len(form.names))]
    places = {name: str(place) for place, name in enumerate(form.names)}
    keep = [*dict.fromkeys(["0", *(places[name] for name in wanted)])]
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(keep, pa.string()),
        include_columns=keep,
        strings_can_be_null=False,
    )
    parse = arrow_csv.ParseOptions(
        delimiter=form.delimiter, newlines_in_values=True, invalid_row_handler=note
    )
    table, block = None, BLOCK
    while table is None:
        bad.clear()
        options = arrow_csv.ReadOptions(column_names=names, block_size=block)
        try:
            table = arrow_csv.read_csv(pa.PythonFile(Rows(form), "r"), options, parse, convert)
        except (pa.ArrowInvalid, OSError, EOFError) as error:
            if "straddl" not in str(error) or block > 2**30:
                raise _fault(form, str(error)) from None
            block *= 8
    first = table.column(0)
    if bad or not len(first) or first[len(first) - 1].as_py() != END:
        raise _fault(form, "its rows don't have the same number of cells")
    table = table.slice(0, len(table) - 1)
    return table.select([places[name] for name in wanted]).rename_columns([*wanted])


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


def suspicious(form: Form, table: pa.Table) -> Iterable[str]:
    """Yield what to say of the first cell of several lines: rows, maybe, by a quote too many."""
    rows = []
    for name in table.column_names:
        within = pc.match_substring(table[name], "\n")
        if pc.any(within).as_py():
            rows.append((pc.index(within, True).as_py(), name))
    if rows:
        row, name = min(rows)
        yield (
            f"{form.path}: {form.line(row)} has a text of several lines in column {name!r}; is "
            "there a quote too many?"
        )
