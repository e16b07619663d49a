"""Tables with named columns through pyarrow: text, Parquet, Arrow files, frames, named arrays."""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from pyarrow import feather

from dptrain.data.cells import PLAIN, Cells, column
from dptrain.data.delimited import begin_with_numbers, read
from dptrain.data.form import Form, check_names, form
from dptrain.data.roles import Picked, Roles
from dptrain.data.table import Column, Table
from dptrain.machine import usable_cores
from dptrain.words import InputError

INDEX = re.compile(r"(Unnamed: \d+|__index_level_\d+__|)")
"""Names that a column gets which had none: the numbers of the rows, mostly."""

LARGE = 10_000
"""Rows from which a column is work enough for a thread."""


@dataclass(frozen=True)
class Lines:
    """Where rows stand that come from several files of text."""

    forms: tuple[Form, ...]
    ends: tuple[int, ...]

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


def read_text(paths: Sequence[str], roles: Roles, source: str) -> Table:
    """Return the rows of files of delimited text, one behind the other."""
    forms = [form(path, roles.delimiter, roles.header) for path in paths]
    for one in forms:
        check_names(one)
        _check_alike(forms[0].names, one.names, one.path)
    names = roles.pick(forms[0].names, source)
    tables, notes = _texts(forms, names, roles)
    ends = tuple(accumulate(len(table) for table in tables))
    whole = pa.concat_tables(tables)
    return _table(whole, names, roles, source, Lines(tuple(forms), ends), notes, written=True)


def _texts(
    forms: Sequence[Form], names: Picked, roles: Roles
) -> tuple[list[pa.Table], Iterable[str]]:
    """Return the rows of each file, and what is to be said of them.

    Inputs are read as numbers at once, where all files' first rows, and then all rows, allow it.
    """
    others = {*names.targets, *names.ids, names.weight}
    free = [n for n in names.features if roles.kinds.get(n, "numbers") == "numbers"]
    typed = set() if roles.decimal == "," else {*free} - others
    for one in forms:
        typed &= begin_with_numbers(one, sorted(typed))
    while True:
        found = [read(one, names.every, typed) for one in forms]
        tables = [table for table, _ in found]
        if len({table.schema for table in tables}) == 1:
            return tables, itertools.chain.from_iterable(notes for _, notes in found)
        typed &= {n for n in typed if all(t.schema.field(n).type == pa.float64() for t in tables)}


def read_typed(
    paths: Sequence[str], roles: Roles, source: str, keys: Sequence[Mapping[str, str | None]]
) -> Table:
    """Return the rows of Parquet and Arrow files, one behind the other.

    `keys` are further columns of each file's rows: numbers where all files have whole ones.
    """
    tables: list[pa.Table] = []
    names = Picked((), (), None, ())
    texts = {name for held in keys for name, v in held.items() if v and not re.match(PLAIN, v)}
    for path, held in zip(paths, keys, strict=True):
        try:
            found = [*_schema(path), *held]
            names = names if tables else roles.pick(found, source)
            _check_alike(names.every, [name for name in found if name in names.every], path)
            rows = _columns(path, [name for name in names.every if name not in held])
            for name in held.keys() & {*names.every}:
                value = pa.scalar(held[name]).cast(pa.string() if name in texts else pa.int64())
                rows = rows.append_column(name, pa.repeat(value, len(rows)))
            tables.append(rows.select(names.every))
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            if isinstance(error, InputError):
                raise
            why = str(error).split("\n")[0]
            raise InputError(f"{path} can't be read: {why}", local=True) from None
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, TypeError) as error:
        raise InputError(f"the files of {source} differ in their types: {error}") from None
    return _table(whole, names, roles, source, by_number, [])


def _schema(path: str) -> list[str]:
    """Return the names of a file's columns."""
    with Path(path).open("rb") as file:
        if file.read(4) == b"PAR1":
            return list(parquet.read_schema(path).names)
    return list(_arrow(path).schema.names)


def _arrow(path: str) -> pa.Table:
    """Return the rows of an Arrow file or stream."""
    with Path(path).open("rb") as file:
        magic = file.read(6)
    if magic == b"ARROW1" or magic[:4] == b"FEA1":
        return feather.read_table(path, memory_map=True)
    with pa.OSFile(path) as file:
        return pa.ipc.open_stream(file).read_all()


def _columns(path: str, names: Sequence[str]) -> pa.Table:
    with Path(path).open("rb") as file:
        packed = file.read(4) == b"PAR1"
    found = parquet.ParquetFile(path).read(columns=[*names]) if packed else _arrow(path)
    found = found.select([*names])
    found.validate(full=True)
    return found


def _check_alike(first: Sequence[str], names: Sequence[str], path: str) -> None:
    if sorted(first) != sorted(names):
        other = next(iter({*first} ^ {*names}), "")
        raise InputError(
            f"{path} has other columns than the files before it ({other!r}); give the same"
        )


def from_frame(frame: Any, roles: Roles, source: str) -> Table:
    """Return the rows of anything that hands out Arrow streams: pandas, polars, pyarrow."""
    try:
        table = pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"{source} can't be read: {error}") from None
    return _table(table, roles.pick(table.column_names, source), roles, source, by_number, [])


def from_arrays(arrays: Mapping[str, Any], roles: Roles, source: str) -> Table:
    """Return named arrays of equal length as a table's columns."""
    names = roles.pick(list(arrays), source)
    columns = {}
    for name in names.every:
        try:
            columns[name] = _as_arrow(np.asarray(arrays[name][:]))
        except (pa.ArrowException, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{source}: {name} can't be a column: {error}") from None
    lengths = {name: len(values) for name, values in columns.items()}
    if len({*lengths.values()}) > 1:
        raise InputError(
            f"{source}: its arrays have {lengths} rows; they must have the same number"
        )
    return _table(pa.table(columns), names, roles, source, by_number, [])


def _as_arrow(values: Any) -> Any:
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
    if values.ndim == 1:
        return pa.array(values)
    flat = values.reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def _table(
    whole: pa.Table,
    names: Picked,
    roles: Roles,
    source: str,
    line: Callable[[int], str],
    notes: Iterable[str],
    *,
    written: bool = False,
) -> Table:
    """Return what a table's columns hold; the cores of this process share those of a large one."""
    if len(whole) == 0:
        raise InputError(f"{source} has no example: no row behind the names of its columns")

    places = {name: place for place, name in enumerate(whole.column_names)}

    def one(name: str, *, label: bool = False, text: bool = False) -> Column:
        cells = Cells(name, whole.column(places[name]), source, line, written, roles.decimal)
        kind = "words" if text else roles.label_kind if label else roles.kinds.get(name)
        return column(cells, kind, label=label, as_written=label and roles.as_written)

    large = len(whole) > LARGE
    with ThreadPoolExecutor(len(usable_cores()) if large else 1) as pool:
        each = pool.map if large else map
        found = each(one, names.features)
        targets = each(partial(one, label=True), names.targets)
        weights = each(one, filter(None, (names.weight,)))
        ids = each(partial(one, text=True), names.ids)
        whys = [(c, None if roles.kinds else _left_out(c)) for c in found]
        inputs = tuple(column for column, why in whys if not why)
        told = [f"{c.name or 'the column without a name'} is left out: {w}" for c, w in whys if w]
        if not inputs:
            raise InputError(f"{source} has no input beside the target")
        return Table(
            source, inputs, tuple(targets), next(iter(weights), None), tuple(ids), named=True,
            notes=(*notes, *told), line=line,
        )  # fmt: skip


def _left_out(found: Column) -> str | None:
    """Return why a column teaches nothing; None where it may teach something."""
    values = np.asarray(found.values)
    if INDEX.fullmatch(found.name) and found.kind == "numbers" and values.ndim == 1:
        start = values[0]
        if start in (0, 1) and np.array_equal(values, np.arange(len(values)) + start):
            return "it counts the rows"
    if found.kind == "words":
        num = int((values >= 0).sum())
        if num == len(found.ends) > 1:
            return f"its {num:,} texts are all different"
    if len(found) > 1 and (values == values[:1]).all():
        return "it is the same in every row"
    if found.kind == "numbers" and values.ndim == 1 and found.gaps(values).all():
        return "it has no value in any row"
    return None
