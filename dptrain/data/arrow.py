"""Tables with named columns through pyarrow: text, Parquet, Arrow files, frames, named arrays."""

import contextlib
import functools
import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from pyarrow import feather

from dptrain.data.assemble import ROWS, assembled
from dptrain.data.cells import Mistaken
from dptrain.data.delimited import Parser, begin_with_numbers
from dptrain.data.form import Lines, as_text, check_names, form
from dptrain.data.keep import Pieces, share
from dptrain.data.roles import Picked, Roles
from dptrain.data.table import Table
from dptrain.data.texts import PLAIN
from dptrain.words import SEVERAL, InputError, brief, quoted

MISTAKES = 8
"""How often the rows are read anew for one column that holds no numbers after all."""


def read_text(paths: Sequence[str], roles: Roles, source: str, kept: Pieces) -> Table:
    """Return the rows of files of delimited text, one behind the other.

    Columns whose first rows are numbers are read as such, and as texts where that was a mistake.
    """
    forms = [form(path, roles.delimiter, roles.header) for path in paths]
    for one in forms:
        check_names(one)
        if roles.target and len(one.names) == 1 and one.names[0] not in roles.target:
            raise InputError(
                f"{one.path}: its first line is {brief(one.names[0])!r}, in which no column ends: "
                "leave out what stands above their names, or say what separates them: --delimiter"
            )
    names = _picked({one.path: one.names for one in forms}, roles, source)
    free = {n for n in names.features if roles.kinds.get(n, "numbers") == "numbers"}
    labels = {*names.targets} if not roles.as_written and roles.label_kind != "words" else set()
    typed = ((free - {*names.targets}) | labels | {*names.weights}) - {*names.ids}
    typed = set() if roles.decimal == "," else typed
    for one in forms:
        typed &= begin_with_numbers(one, sorted(typed))
    mistakes = 0
    while True:
        parsers = [Parser(one, names.every, typed) for one in forms]
        jobs = ((number, job) for number, one in enumerate(parsers) for job in one.jobs())
        lines = Lines(forms, [0] * len(forms))
        try:
            return assembled(jobs, names, roles, source, kept, lines, typed)
        except Mistaken as error:
            mistakes += 1
            typed = typed - {str(error)} if mistakes < MISTAKES else set()


def read_typed(
    paths: Sequence[str],
    roles: Roles,
    source: str,
    keys: Sequence[Mapping[str, str | None]],
    kept: Pieces,
) -> Table:
    """Return the rows of Parquet and Arrow files, one behind the other.

    `keys` are further columns of each file's rows: numbers where all files have whole ones.
    """
    texts = {name for held in keys for name, v in held.items() if v and not re.match(PLAIN, v)}
    schemas: dict[str, pa.Schema] = {}
    for path, held in zip(paths, keys, strict=True):
        with _readable(path):
            schema, _ = _opened(path)
        for name in held:
            schema = schema.append(pa.field(name, pa.string() if name in texts else pa.int64()))
        schemas[path] = schema
    names = _picked({path: schema.names for path, schema in schemas.items()}, roles, source)
    wanted = [pa.schema(map(schema.field, names.every)) for schema in schemas.values()]
    try:
        whole = pa.unify_schemas(wanted, promote_options="permissive").remove_metadata()
    except (pa.ArrowException, TypeError) as error:
        raise InputError(
            f"the files of {source} differ in their types: {error}; write all with the same"
        ) from None
    jobs = (
        (0, partial(_as_whole, path, batch, held, whole))
        for path, held in zip(paths, keys, strict=True)
        for batch in _batches(path, [name for name in names.every if name not in held])
    )
    return assembled(jobs, names, roles, source, kept)


def unpacked(paths: Sequence[str]) -> int:
    """Return how many bytes as many numbers take as Parquet files have cells, however packed.

    0 where they can't be read, which is said by whoever reads them.
    """
    with contextlib.suppress(pa.ArrowException, OSError, ValueError, MemoryError):
        size = 0
        for path in paths:
            with as_text(path) as name:
                found = parquet.read_metadata(name)
            size += 8 * found.num_rows * found.num_columns
        return size
    return 0


def _as_whole(
    path: str, batch: pa.RecordBatch, held: Mapping[str, str | None], schema: pa.Schema
) -> pa.Table:
    """Return some rows of a file with the columns and types that all files have together."""
    with _readable(path):
        rows = pa.table(batch)
        rows.validate(full=True)
        for name in held.keys() & {*schema.names}:
            value = pa.scalar(held[name]).cast(schema.field(name).type)
            rows = rows.append_column(name, pa.repeat(value, len(rows)))
        rows = rows.select(schema.names).replace_schema_metadata(None)
        if rows.schema.equals(schema):
            return rows
        return pa.concat_tables([schema.empty_table(), rows], promote_options="permissive")


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Say which file can't be read, and why."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, NotImplementedError) as error:
        why = str(error).split("\n")[0]
        raise InputError(f"{path} can't be read: {why}", local=True) from None


def _batches(path: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _readable(path):
        for batch in _opened(path, names)[1]:
            yield batch.select([*names])


def _opened(
    path: str, names: Sequence[str] | None = None
) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Return what columns a Parquet or Arrow file or stream has, and its rows.

    Where only `names` are asked for, rows may lack the others, and it was looked at before.
    """
    with Path(path).open("rb") as file:
        magic = file.read(6)
    with as_text(path) as name:
        if magic.startswith(b"PAR1"):
            packed = parquet.ParquetFile(name)
            if names is None:
                _check_alone(name, _rows_end(packed.metadata), b"PAR1PAR1")
            return packed.schema_arrow, packed.iter_batches(ROWS, columns=names and [*names])
        if magic.startswith(b"FEA1"):
            table = feather.read_table(name, columns=names and [*names], memory_map=True)
            return table.schema, table.to_batches()
        source, start = pa.memory_map(name), 8 * magic.startswith(b"ARROW1")
        if names is None:
            with contextlib.suppress(pa.ArrowException):  # which whoever reads the rows says
                end = _messages_end(source, start)
                _check_alone(name, end, b"ARROW1ARROW1" if start else b"\xff")
        source.seek(0)
        if start:
            reader = pa.ipc.open_file(source)
            return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
        stream = pa.ipc.open_stream(source)
    return stream.schema, stream


def _messages_end(source: Any, start: int) -> int:
    """Return where the rows of an Arrow file or stream end, none of which is read."""
    source.seek(start)
    for _ in pa.ipc.MessageReader.open_stream(source):
        pass
    return int(source.tell())


def _rows_end(about: Any) -> int:
    """Return where the rows of a Parquet file end, in front of its footer."""
    last = about.num_row_groups - 1
    parts = [about.row_group(last).column(n) for n in range(about.num_columns) if last >= 0]
    starts = [one.dictionary_page_offset or one.data_page_offset for one in parts]
    return max(
        (a + one.total_compressed_size for a, one in zip(starts, parts, strict=True)), default=4
    )


def _check_alone(name: str, end: int, mark: bytes) -> None:
    """Raise ValueError where a mark of another file stands behind the rows of this one."""
    with Path(name).open("rb") as file:
        file.seek(end)
        if mark in file.read():
            raise ValueError(SEVERAL)


def _picked(found: Mapping[str, Sequence[str]], roles: Roles, source: str) -> Picked:
    """Return what the columns of files are for: those that are read, all of them must have."""
    every = functools.reduce(operator.or_, map(Counter, found.values()))  # two stay two
    names = roles.pick([*every.elements()], source)
    for path, own in found.items():
        for name in sorted({*names.every} - {*own}):
            out = f", or leave it out with --drop {quoted(name)}" * (name in names.features)
            raise InputError(f"{path} has no column {name!r}, as others have; give the same{out}")
    return names


def from_frame(frame: Any, roles: Roles, source: str, beside: Mapping[str, Any] = {}) -> Table:
    """Return the rows of anything that hands out Arrow streams: pandas, polars, pyarrow.

    `beside` are further columns by their names: targets.
    """
    if beside and {*roles.target} - {*beside}:
        raise InputError(f"target {roles.target[0]!r} is given, and a y beside the frame; give one")
    try:
        table = pa.table(frame)
        for name, values in beside.items():
            rows = np.asarray(values).reshape(len(values), -1)
            column = _as_arrow(rows[:, 0] if rows.shape[1] == 1 else rows)
            table, roles = table.append_column(name, column), replace(roles, target=(name,))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        why = "; ".join(map(str, error.args))  # of which pandas gives several
        raise InputError(f"{source} can't be read: {why}") from None
    return _in_memory(table, roles.pick(table.column_names, source), roles, source)


def from_arrays(arrays: Mapping[str, Any], roles: Roles, source: str) -> Table:
    """Return named arrays of equal length as a table's columns."""
    names = roles.pick([name for name, values in arrays.items() if values.shape], source)
    columns = {}
    for name in names.every:
        try:
            columns[name] = _as_arrow(np.asarray(arrays[name][:]))
        except (pa.ArrowException, TypeError, ValueError, IndexError) as error:
            out = f"; leave it out with --drop {quoted(name)}" * (name in names.features)
            raise InputError(f"{source}: {name} can't be a column: {error}{out}") from None
    lengths = {name: len(values) for name, values in columns.items()}
    if len({*lengths.values()}) > 1:
        raise InputError(
            f"{source}: its arrays have {lengths} rows; choose as many as have the same number by "
            "--features, or leave the others out with --drop"
        )
    return _in_memory(pa.table(columns), names, roles, source)


def _as_arrow(values: Any) -> Any:
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind in "mM":
        values = values.astype(f"{values.dtype.kind}8[us]")
    if values.ndim == 1:
        return pa.array(values, from_pandas=values.dtype.kind == "O")  # NaN, too, is a gap
    flat = values.reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def _in_memory(table: pa.Table, names: Picked, roles: Roles, source: str) -> Table:
    """Return what the columns of a table hold that is in memory already."""
    batches = table.select(names.every).to_batches(max_chunksize=ROWS)
    jobs = ((0, partial(pa.table, one)) for one in batches)
    return share(assembled(jobs, names, roles, source, Pieces()))
