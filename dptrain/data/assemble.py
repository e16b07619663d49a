"""What was read of a table, piece by piece, becomes a table: by threads, and in the rows' order."""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dptrain.arrays import Array
from dptrain.data.cells import Asked, Fault, Piece, piece
from dptrain.data.dates import day_first
from dptrain.data.delimited import Job
from dptrain.data.form import Lines, by_number
from dptrain.data.keep import Done, Part, Pieces
from dptrain.data.roles import Picked, Roles
from dptrain.data.table import BLANK, Column, Stacked, Table
from dptrain.data.texts import texts
from dptrain.machine import usable_cores
from dptrain.words import InputError

INDEX = re.compile(r"(Unnamed: \d+|__index_level_\d+__|)")
"""Names that a column gets which had none: the numbers of the rows, mostly."""

ROW_NUMBER = re.compile(r"(?i)(.*[ _.])?(index|nr|no\.?|row|rownames)|.*id")
"""Names of what may count the rows: of rows sorted by their target that would be the answer."""

ROWS = 2**16
"""Rows of typed files and of tables in memory that are looked at together."""

TEXTS = pa.schema([("", pa.large_string())])


class Growing:
    """A column of which pieces are added.

    Texts are kept as numbers of the different ones: what they mean, all together, is looked at
    once all are there, and then stands for each number.
    """

    def __init__(self, asked: Asked, pieces: Pieces) -> None:
        self.asked, self._keep = asked, pieces.keep
        self._parts: list[Part] = []

    def add(self, part: Part) -> None:
        """Add some rows."""
        shapes = [some.values.shape[1:] for some in (*self._parts[:1], part)]
        if shapes[0] != shapes[-1]:
            raise InputError(
                f"{self.asked.source}: column {self.asked.name!r} holds lists of "
                f"{shapes[0][0]} numbers and of {shapes[-1][0]}; give lists of as many"
            )
        self._parts.append(part._replace(values=self._keep(part.values)))

    def column(self, line: Callable[[int], str]) -> tuple[Column, str | None]:
        """Return the column, and what a person should know of it; InputError where it is none."""
        asked, found, told = self.asked, None, None
        _, parts, messages = zip(*self._parts, strict=True)
        if messages[0] is not None:
            every = [pa.ipc.read_record_batch(pa.py_buffer(one), TEXTS)[0] for one in messages]
            coded = pa.concat_arrays(every).dictionary_encode(null_encoding="encode")
            ends = np.cumsum([len(some) for some in every])[:-1]
            places = np.split(coded.indices.to_numpy(), ends)
            try:
                found = texts(asked, coded.dictionary)
            except Fault as fault:
                where = line(self._row(fault.place, places))
                raise InputError(f"{asked.source}: {where} {fault}") from None
            lines = pc.index(pc.match_substring(coded.dictionary, "\n"), True).as_py()
            if asked.written and lines >= 0:
                told = (
                    f"{asked.source}: {line(self._row(lines, places))} has a text of several lines "
                    f"in column {asked.name!r}; is there a quote too many?"
                )
            written = pc.utf8_trim(coded.dictionary, BLANK)  # as `texts` takes them
            order = day_first(written) if found.kind == "date" else None
            if order is not None:
                told = f"dates in {asked.name}: {'day/month' if order else 'month/day'}/year"
            meanings = np.asarray(found.values)
            values = Stacked(parts, [meanings[some] for some in places])
            return Column(asked.name, found.kind, values, found.text, found.ends), told
        return Column(asked.name, self._parts[0].kind, Stacked(parts)), None

    def _row(self, place: int, places: list[Array]) -> int:
        """Return the first row that has a text, given by its place among the different ones."""
        start = 0
        for part, meant in zip(self._parts, places, strict=True):
            rows = np.flatnonzero(meant[part.values[:]] == place)
            if len(rows):
                return start + int(rows[0])
            start += len(part.values)
        raise IndexError(place)


def assembled(
    jobs: Iterable[tuple[int, Job]],
    names: Picked,
    roles: Roles,
    source: str,
    spool: Pieces,
    lines: Lines | None = None,
    typed: Collection[str] = (),
) -> Table:
    """Return what the columns hold of the rows that jobs return, each with its file's number.

    The values stay in the pieces that are kept; `share` makes arrays of those in memory.
    `lines` are those of files of text, of which the columns in `typed` are believed to be numbers.
    """
    of = partial(Asked, source, written=lines is not None, decimal=roles.decimal, typed=typed)
    inputs = [of(name, roles.kinds.get(name)) for name in names.features]
    label = partial(of, label=True, several=len(names.targets) > 1, as_written=roles.as_written)
    targets = [label(name, roles.label_kind) for name in names.targets]
    others = [*map(of, names.weights), *(of(name, "words") for name in names.ids)]
    growing = [Growing(one, spool) for one in (*inputs, *targets, *others)]
    line = lines or by_number

    rows = _grown(jobs, growing, spool, lines)
    if rows == 0:
        raise InputError(f"{source} has no example: no row behind the names of its columns")
    every = [one.column(line) for one in growing]
    columns, notes = [column for column, _ in every], [note for _, note in every if note]
    found, rest = columns[: len(inputs)], columns[len(inputs) :]
    whys = [(column, _left_out(column, roles.features) if roles.new else None) for column in found]
    kept = tuple(column for column, why in whys if not why)
    told = [f"{c.name or 'the column without a name'} is left out: {w}" for c, w in whys if w]
    if not kept:
        why = f": {'; '.join(told[:5])}; give one that differs" if told else ""
        raise InputError(f"{source} has no input beside the target{why}")
    if lines is not None:
        _check_no_second_header(every, source, lines)
    ends = [*accumulate((len(names.targets), len(names.weights), len(names.ids)), initial=0)]
    labels, weights, ids = (tuple(rest[a:b]) for a, b in pairwise(ends))
    return Table(
        source, kept, labels, next(iter(weights), None), ids, named=True,
        notes=(*notes[:1], *told), line=line,
    )  # fmt: skip


def _check_no_second_header(
    every: Sequence[tuple[Column, object]], source: str, line: Lines
) -> None:
    """Raise InputError where a row of texts alone holds the names of its columns once more."""
    columns = [column for column, _ in every]
    if not all(column.kind == "words" and column.name in column.words for column in columns):
        return
    rows = np.arange(len(columns[0]))
    for column in columns:
        rows = rows[column.read(rows) == column.words.index(column.name)]
    if len(rows):
        raise InputError(
            f"{source}: {line(int(rows[0]))} has the names of the columns again; if files were put "
            "together, leave it out, or give each by itself"
        )


def _grown(
    jobs: Iterable[tuple[int, Job]], growing: Sequence[Growing], spool: Pieces, lines: Lines | None
) -> int:
    """Have columns grow by what jobs return; return how many rows that are."""

    def read(job: Job) -> Done:
        table = job()
        columns = dict(zip(table.column_names, table.columns, strict=True))  # a look-up takes long
        some = [_part(piece(one.asked, columns[one.asked.name])) for one in growing if len(table)]
        return len(table), some

    spool.clear()
    rows, source = 0, growing[0].asked.source
    try:
        for number, (more, pieces) in _in_order(read, jobs, spool):
            for one, some in zip(growing, pieces, strict=False):
                one.add(some)
            rows += more
            spool.told(rows)
            if lines is not None:
                lines.ends[number:] = [rows] * len(lines.ends[number:])
    except Fault as fault:
        line = lines or by_number
        raise InputError(f"{source}: {line(rows + fault.place)} {fault}") from None
    except MemoryError:
        raise InputError(
            f"{source} needs more memory than there is: it has {rows:,} rows and more; make arrays "
            "on disk of it with dptrain data convert, or leave columns out with --drop",
            local=True,
        ) from None
    except pa.ArrowException as error:
        raise InputError(f"{source} can't be read: {error}") from None
    return rows


def _part(found: Piece) -> Part:
    """Return what some rows are as it is kept, of texts the places among the different ones."""
    if isinstance(found, Column):
        return Part(found.kind, np.asarray(found.values))
    texts = found.dictionary.cast(pa.large_string())
    if found.null_count:
        texts = pa.concat_arrays([texts, pa.nulls(1, texts.type)])
    places = found.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
    message = pa.record_batch([texts], TEXTS).serialize()
    return Part("words", places.astype(np.int32, copy=False), np.frombuffer(message, np.uint8))


def _in_order(
    read: Callable[[Job], Done], jobs: Iterable[tuple[int, Job]], spool: Pieces
) -> Iterator[tuple[int, Done]]:
    """Yield what is read of each job, in their order: a thread a core, and few jobs ahead."""
    cores = len(usable_cores())
    waiting: deque[tuple[int, Future[Done]]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for place, (number, job) in enumerate(jobs):
            waiting.append((number, pool.submit(spool.through, place, partial(read, job))))
            if len(waiting) > cores:
                first, done = waiting.popleft()
                yield first, done.result()
        for number, done in waiting:
            yield number, done.result()


def _left_out(found: Column, asked: Sequence[str]) -> str | None:
    """Return why a column teaches nothing; None where it may teach something, or is asked for."""
    starts = range(0, len(found), ROWS)

    def every(holds: Callable[[Array], bool]) -> bool:
        return all(holds(found.read(slice(start, start + ROWS))) for start in starts)

    first = found.read(slice(0, 1))
    numbers = found.kind == "numbers" and first.ndim == 1
    named = ROW_NUMBER.fullmatch(found.name) and found.name not in asked
    if numbers and named and len(found) > 1:
        rows = (found.read(slice(start, start + ROWS)) - first - start for start in starts)
        if all(bool((some == np.arange(len(some))).all()) for some in rows):
            return "it counts the rows (taken where --features names it)"
    index = INDEX.fullmatch(found.name) and numbers
    whole = index and every(lambda some: bool((some == np.floor(some)).all()))
    if whole and (
        found.name.startswith("__") or len(np.unique(found.read(slice(None)))) == len(found)
    ):
        return "it counts the rows"
    if found.kind == "words" and len(found) >= len(found.ends) > 1:
        num = sum(int((found.read(slice(s, s + ROWS)) >= 0).sum()) for s in starts)
        if num == len(found.ends):
            return f"its {num:,} texts are all different"
    if len(found) > 1 and every(lambda some: bool((some == first).all())):
        return "it is the same in every row"
    if numbers and every(lambda some: bool(found.gaps(some).all())):
        return "it has no value in any row"
    return None
