"""What is in a data set, before anything is learned from it."""

from collections import Counter
from typing import Any

import numpy as np

from dptrain.checked import Plain
from dptrain.data.feed import blocks
from dptrain.data.seen import Seen, added, as_cell, in_words, seen
from dptrain.data.table import Column, Table
from dptrain.data.task import uneven
from dptrain.world import World

ROWS = 5
"""Rows that are shown."""

MOST_LABELS = 100
"""Different targets up to which each is counted."""


def look(table: Table, world: World) -> Plain:
    """Return what is in a table, as plain values, the same on every rank.

    `rows`; `columns`, each with name, role, kind, and its gaps, least, mean, largest and how many
    different; `first`, some rows; `balance`, how often each target is there; `notes`, what was left
    out and what looks wrong. Each rank reads its own blocks. Collective: every rank must call this.
    """
    columns = [*table.every()]
    roles = ["input"] * len(table.columns) + ["target"] * len(table.targets)
    roles += ["weight"] * (table.weight is not None) + ["id"] * len(table.ids)
    own: list[list[Seen]] = [[] for _ in columns]
    labels: Counter[Any] | None = Counter()
    for rows in blocks(len(table), world):
        for column, parts in zip(columns, own, strict=True):
            parts.append(seen(column, column.read(rows)))
        labels = _counted(labels, table.targets[0].read(rows)) if table.targets else None
    everyone = world.allgather((own, labels))
    whole = [added([s for held, _ in everyone for s in held[k]]) for k in range(len(columns))]
    found = [
        _about(column, role, one) for column, role, one in zip(columns, roles, whole, strict=True)
    ]
    balance = _balance(table, [counts for _, counts in everyone])
    return {
        "data": table.source, "rows": len(table), "columns": found,
        "first": [_row(columns, row) for row in range(min(ROWS, len(table)))],
        "balance": balance, "notes": [*table.notes, *_odd(columns, whole, balance)],
    }  # fmt: skip


def _counted(labels: Counter[Any] | None, values: Any) -> Counter[Any] | None:
    """Return the counts with some more targets; None once they are too many to be classes."""
    if labels is None or values.ndim > 1:
        return None
    labels.update(values.tolist())
    return labels if len(labels) <= MOST_LABELS else None


def _balance(table: Table, parts: list[Counter[Any] | None]) -> dict[str, int]:
    """Return how often each target is there, the most frequent first; nothing for values."""
    whole: Counter[Any] | None = Counter()
    for part in parts:
        whole = None if whole is None or part is None else whole + part
    if not whole or len(whole) > MOST_LABELS or not table.targets:
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


def _row(columns: list[Column], row: int) -> list[str]:
    return [as_cell(column, column.read(slice(row, row + 1))[0]) for column in columns]


def _odd(columns: list[Column], whole: list[Seen], balance: dict[str, int]) -> list[str]:
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
