"""How a file of delimited text is written: its delimiter, the names, where its rows begin."""

import contextlib
import csv
import io
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dptrain.data.table import BLANK
from dptrain.words import InputError, is_text

DELIMITERS = (",", ";", "\t", "|")
HEAD = 2**16
"""Bytes from which it is found what separates cells; more where the first line is longer."""

NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"

csv.field_size_limit(sys.maxsize)


@dataclass(frozen=True)
class Form:
    """How a file of delimited text is written."""

    path: str
    delimiter: str
    names: tuple[str, ...]
    start: int
    """Bytes before the first row."""
    sep: bool = False
    """Whether its first line says what the delimiter is."""
    header: bool = True

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row and the line that it begins in: slow, to find faults only."""
        with open_text(self.path) as binary:
            text = io.TextIOWrapper(binary, "utf-8-sig", errors="replace", newline="")
            rows = csv.reader(text, delimiter=self.delimiter)
            line, skip = 1, self.sep + self.header
            for row in rows:
                if row and skip:
                    skip -= 1
                elif row:
                    yield line, row
                line = rows.line_num + 1

    def line(self, number: int) -> str:
        """Return where a row stands, for people."""
        found = next(itertools.islice(self.records(), number, None), None)
        return f"line {found[0]}" if found else f"row {number} (counts from 0)"


@dataclass(frozen=True)
class Lines:
    """Where rows stand that come from several files of text."""

    forms: Sequence[Form]
    ends: list[int]

    def __call__(self, row: int) -> str:
        """Return the line of a row, and its file where there are several."""
        start = 0
        for one, end in zip(self.forms, self.ends, strict=True):
            if row < end:
                where = one.line(row - start)
                return where if len(self.forms) == 1 else f"{where} of {Path(one.path).name}"
            start = end
        return by_number(row)


def by_number(row: int) -> str:
    """Return where a row stands in what has no lines."""
    return f"row {row} (counts from 0)"


@contextlib.contextmanager
def as_text(path: str) -> Iterator[str]:
    """Yield a name by which a file can be opened within the block: pyarrow knows UTF-8 alone."""
    if is_text(path):
        yield path
        return
    with Path(path).open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def open_text(path: str) -> Any:
    """Return a file's bytes, unpacked where it is packed by gzip or zstandard."""
    import pyarrow as pa  # which those ranks don't need to whom a file's form is handed

    with Path(path).open("rb") as file:
        start = file.read(4)
    packed = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bz2" * (start[2:3] == b"h")}
    with as_text(path) as name:
        return pa.input_stream(name, compression=packed.get(start[:2]) or None)


def form(path: str, delimiter: str, header: bool) -> Form:
    """Return how a file is written; InputError where it is no UTF-8, or has no first row."""
    size = HEAD
    while True:
        raw = _start(path, size)
        head, whole = _decoded(path, raw), len(raw) < size
        sep = re.match(r"(?:\s*\n)?sep=([\t -!#-~])\r?\n", head)
        given = delimiter or (sep[1] if sep else "")
        body = head[sep.end() :] if sep else head
        mark = given or _delimiter(body, whole)
        names, used, ended = _first(body, mark)
        if (ended or whole) or size > 2**30:
            break
        size *= 8
    if not names:
        raise InputError(f"{path} has no first line with the names of its columns")
    if not ended and body[:used].count('"') % 2:
        line = 1 + (sep is not None) + len(body[:used]) - len(body[:used].lstrip("\r\n"))
        raise InputError(f"{path}: line {line} opens a quote that is never closed")
    before = len(raw) - len(_unmarked(raw)) + (len(head[: sep.end()].encode()) if sep else 0)
    if header:
        cells, before = [name.strip(BLANK) for name in names], before + len(body[:used].encode())
        if cells.count("") > 1 and mark != " ":
            cells = [cell or f"Unnamed: {place}" for place, cell in enumerate(cells)]
    else:
        cells = [f"c{n}" for n in range(1, len(names) + 1)]
    return Form(path, mark, tuple(cells), before, sep is not None, header)


def _start(path: str, size: int) -> bytes:
    """Return the first bytes of what a file holds, unpacked."""
    try:
        with open_text(path) as file:
            return bytes(file.read(size))
    except (OSError, EOFError) as error:
        raise InputError(f"{path} can't be read: {error}", local=True) from None


def _decoded(path: str, raw: bytes) -> str:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        code = "UTF-32" if raw[2:4] == b"\0\0" else "UTF-16"
        raise InputError(f"{path} is {code}; make it UTF-8: iconv -f {code} -t UTF-8")
    if b"\0" in raw:
        raise no_text(path)
    raw = _unmarked(raw)
    for cut in range(4):  # the last letter may be cut
        try:
            return raw[: len(raw) - cut].decode()
        except UnicodeDecodeError as error:
            if error.start < len(raw) - 4:
                break
    raise no_utf8(path)


def _unmarked(raw: bytes) -> bytes:
    """Return a text without the marks that it begins with; files put together may have several."""
    while raw.startswith(b"\xef\xbb\xbf"):
        raw = raw[3:]
    return raw


def no_text(path: str) -> InputError:
    """Return what to say of a file that holds zeros."""
    return InputError(f"{path} is binary, or damaged; give text, or a file under its own name")


def no_utf8(path: str) -> InputError:
    """Return what to say of a text in another encoding."""
    return InputError(f"{path} is no UTF-8, Latin-1 perhaps: try iconv -f LATIN1 -t UTF-8")


def _delimiter(text: str, whole: bool) -> str:
    """Return what most likely separates cells: what gives the rows the same number of cells."""
    found = []
    lines = text if whole else text[: text.rfind("\n") + 1] or text
    for mark in DELIMITERS:
        rows = csv.reader(io.StringIO(lines, newline=""), delimiter=mark)
        widths = [len(row) for row, _ in zip((r for r in rows if r), range(50), strict=False)]
        if not widths or widths[0] < 2:
            continue
        alike = sum(width == widths[0] for width in widths) / len(widths)
        found.append((alike, widths[0], mark))
    return max(found, key=lambda one: one[:2])[2] if found else ","


def _first(text: str, delimiter: str) -> tuple[list[str], int, bool]:
    """Return the cells of the first row, the letters up to its end, and whether it ends there."""
    stream = io.StringIO(text, newline="")
    row = next(filter(None, csv.reader(stream, delimiter=delimiter)), None)
    return (row, stream.tell(), stream.tell() < len(text)) if row else ([], 0, False)


def check_names(form: Form) -> None:
    """Raise InputError where the first row holds numbers, not names."""
    if not form.header:
        return
    numbers = [float(name) for name in form.names if re.match(NUMBER, name)]
    rising = all(a < b for a, b in itertools.pairwise(numbers))
    years = rising and all(map(float.is_integer, numbers))  # or the like: names all the same
    if 2 * len(numbers) >= len(form.names) and not years:
        told = ", ".join(form.names[:5])
        raise InputError(
            f"{form.path}: the first line holds numbers, no names ({told}): give --no-header, "
            "and the columns are c1, c2, ..."
        )
