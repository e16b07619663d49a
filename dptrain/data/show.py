"""What people are told of data: what is in it, and what was understood before it teaches."""

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array
from dptrain.checked import Plain
from dptrain.data.feed import blocks
from dptrain.data.field import Field
from dptrain.data.table import Column, Table
from dptrain.data.task import Answer, uneven
from dptrain.words import brief, counted, listed, shown
from dptrain.world import World

ROWS = 5
"""Rows that are shown."""

MOST_LABELS = 100
"""Different targets up to which each is counted."""


@dataclass(frozen=True)
class Seen:
    """What was seen of some entries of a column. A sum, not a mean, so that parts add up."""

    entries: int
    gaps: int
    infinite: int
    sum: float
    low: float | None
    """The least of the finite ones; None where there is none."""
    high: float | None

    @property
    def mean(self) -> float | None:
        """The mean of the entries that are no gap; None where no float is as large as their sum."""
        known = self.entries - self.gaps - self.infinite
        return self.sum / known if known and math.isfinite(self.sum) else None


@np.errstate(over="ignore", invalid="ignore")
def seen(column: Column, values: Array) -> Seen:
    """Return what is seen in some rows, as `column.read` returned them."""
    if values.dtype.kind == "f" and values.size:
        low, high = float(values.min()), float(values.max())
        if math.isfinite(low) and math.isfinite(high):  # as most are
            return Seen(values.size, 0, 0, float(values.sum(dtype=np.float64)), low, high)
    gaps = column.gaps(values)
    infinite = np.isinf(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    known = values[~(gaps | infinite)]
    return Seen(
        values.size, int(gaps.sum()), int(infinite.sum()), float(known.sum(dtype=np.float64)),
        float(known.min()) if known.size else None, float(known.max()) if known.size else None,
    )  # fmt: skip


def added(parts: Sequence[Seen]) -> Seen:
    """Return what was seen in all parts; the sum is exact, so in any order."""
    whole = math.nan
    with contextlib.suppress(OverflowError, ValueError):
        whole = math.fsum(part.sum for part in parts)
    return Seen(
        sum(part.entries for part in parts), sum(part.gaps for part in parts),
        sum(part.infinite for part in parts), whole,
        min((part.low for part in parts if part.low is not None), default=None),
        max((part.high for part in parts if part.high is not None), default=None),
    )  # fmt: skip


def in_words(column: Column, value: float | None) -> str:
    """Return a value of a column, for people."""
    if value is None:
        return ""
    if column.kind == "date":
        return str(np.datetime64(int(value), "us").astype("datetime64[s]"))
    if column.kind == "words":
        return column.words[int(value)]
    return f"{value:,.6g}" if column.kind == "numbers" else ("no", "yes")[int(value)]


def as_cell(column: Column, value: Any) -> str:
    """Return one cell of a column, for people; nothing for a gap."""
    array = np.asarray(value)
    if array.ndim:
        return f"{array.dtype} {list(array.shape)}"
    return "" if column.gaps(array.reshape(1))[0] else in_words(column, value)


def look(table: Table, world: World) -> Plain:
    """Return what is in a table, as plain values, the same on every rank.

    `rows`; `columns`, each with name, role, kind, and its gaps, least, mean, largest and how many
    different; `first`, some rows; `balance`, how often each target is there; `notes`, what was left
    out and what looks wrong. Each rank reads its own blocks. Collective: every rank must call this.
    """
    roles, columns = zip(*table.by_role(), strict=True)
    own: list[list[Seen]] = [[] for _ in columns]
    labels: Counter[Any] | None = Counter()
    for rows in blocks(len(table), world):
        for column, parts in zip(columns, own, strict=True):
            parts.append(seen(column, column.read(rows)))
        labels = _counted(labels, table.targets[0].read(rows)) if table.targets else None
    everyone = world.allgather((own, labels))
    whole = [added([s for held, _ in everyone for s in held[k]]) for k in range(len(columns))]
    found = [_about(*one) for one in zip(columns, roles, whole, strict=True)]
    cells = [[as_cell(one, value) for value in one.read(slice(0, ROWS))] for one in columns]
    balance = _balance(table, [counts for _, counts in everyone])
    return {
        "data": table.source, "rows": len(table), "columns": found,
        "first": [*map(list, zip(*cells, strict=True))], "balance": balance,
        "notes": [*table.notes, *_odd(columns, whole, balance)],
    }  # fmt: skip


def _counted(labels: Counter[Any] | None, values: Any) -> Counter[Any] | None:
    """Return the counts with some more targets; None once they are too many to be classes."""
    if labels is None or values.ndim > 1:
        return None
    labels.update(values.tolist())
    return labels if len(labels) <= MOST_LABELS else None


def _balance(table: Table, parts: list[Counter[Any] | None]) -> dict[str, int]:
    """Return how often each target is there, the most frequent first; nothing for values."""
    whole = sum((part for part in parts if part is not None), Counter[Any]())
    if not table.targets or None in parts or len(whole) > MOST_LABELS:
        return {}
    target = table.targets[0]
    return {as_cell(target, value): count for value, count in whole.most_common()}


def _about(column: Column, role: str, one: Seen) -> Plain:
    shape = list(column.values.shape[1:])
    about = {"name": column.name, "role": role, "kind": column.kind, "gaps": one.gaps}
    if shape:
        about["shape"] = shape
    if column.kind == "words":
        return about | {"different": len(column.ends)}
    mean = {"mean": one.mean} if column.kind != "date" else {}
    return about | mean | {"low": in_words(column, one.low), "high": in_words(column, one.high)}


def _odd(columns: Sequence[Column], whole: list[Seen], balance: dict[str, int]) -> list[str]:
    """Return what a person should look at, a line each."""
    lines = []
    for column, one in zip(columns, whole, strict=True):
        known = one.entries - one.gaps
        if one.infinite:
            lines.append(f"{column.name} has {one.infinite:,} infinite numbers")
        if one.gaps > one.entries / 2:
            lines.append(f"{column.name} is empty in {one.gaps / one.entries:.0%} of the rows")
        if known > 1 and one.low == one.high and not one.infinite:
            lines.append(f"{column.name} is the same in every row: {in_words(column, one.low)}")
        if column.kind == "words" and known > 100 and len(column.ends) > known / 2:
            lines.append(f"{column.name} has {len(column.ends):,} different texts: is it a name?")
    counts = np.array([*balance.values()], np.int64)
    if len(balance) > 1 and uneven(counts):
        name = min(balance, key=balance.__getitem__)
        rows = f"{balance[name]:,} rows of {counts.sum():,}"
        lines.append(f"of the target {name!r} there are {rows} only")
    return lines


def rare(counts: NDArray[np.int64], classes: Array) -> str:
    """Return what a person should know of classes of which some are rare."""
    least, most = (shown(brief(str(classes[n]))) for n in (counts.argmin(), counts.argmax()))
    share = counts.max() / counts.sum()
    return (
        f"{counts.min():,} of {counts.sum():,} rows only have the label {least!r}, and to say "
        f"{most!r} each time is right in {share:.1%}: --class-weight balanced lets each class "
        "count the same"
    )


def understood(
    table: Table, fields: tuple[Field, ...], answer: Answer, still: NDArray[np.bool_]
) -> list[str]:
    """Return what was understood, for people: three to ten lines.

    `still` are the inputs, and perhaps the targets, that are the same in every row to train on.
    """
    width = sum(field.width for field in fields)
    rows = f"{table.source}: {counted(len(table), 'row')}, {counted(width, 'input')}"
    columns = f" from {counted(len(fields), 'column')}" if table.named else ""
    lines = [rows + columns]
    if table.named:
        called = {
            "numbers": "numbers", "flag": "yes or no", "date": "dates", "words": "categories",
        }  # fmt: skip
        for kind, name in called.items():
            found = [_of_field(field) for field in fields if field.kind == kind]
            if found:
                lines.append(f"{name}: {_named(found)}")
        gaps = [field.name for field in fields if field.fill is not None]
        if gaps:
            lines.append(f"gaps, filled with the median and marked: {_named(gaps)}")
    else:
        lines.append(f"x: {table.columns[0].about().partition(' ')[2]}")
    if still.any():
        every: list[Field | Column] = [*fields, *table.targets]
        names = [f"{c.name}[{k}]" if c.width > 1 else c.name for c in every for k in range(c.width)]
        same = _named([*itertools.compress(names, still)])
        lines.append(f"nothing to learn from what is the same in every row, or nearly: {same}")
    lines += table.notes[:4]
    if len(table.notes) > 4:
        lines.append(f"{len(table.notes) - 4} more columns are left out")
    if table.weight is not None:
        lines.append(f"each row counts as {table.weight.name} says")
    target = _named([column.name for column in table.targets])
    return [*lines, f"target {target}: {answer.told}"]


def _of_field(field: Field) -> str:
    if field.kind == "words":
        learned = " learned" * field.coded
        return f"{field.name} ({len(field.words):,}{learned})"
    parts = ", ".join(field.parts).replace("hour", "hour, in UTC where there is a zone")
    return f"{field.name} ({parts})" if field.kind == "date" else field.name


def _named(names: list[str]) -> str:
    return listed([brief(shown(name)) or "the column without a name" for name in names])
