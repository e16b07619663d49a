"""Rows are looked at before anything learns from them: the first at fault is named."""

import numpy as np

from dptrain.data.feed import Rows
from dptrain.data.table import Column
from dptrain.data.task import is_whole
from dptrain.words import InputError, nearest
from dptrain.world import World

LARGEST = 1e30
"""Weights up to which a gradient has room for the sum."""


def check_rows(rows: Rows, world: World, *, labels_alone: bool = False) -> None:
    """Check that every row is finite and fits the encoding, each rank its own blocks.

    Collective: every rank must call this. Raises InputError naming the first row at fault.
    """
    check = check_labels if labels_alone else check_block
    with world.together():
        for block in rows.blocks(world):
            check(rows, block)


def check_block(rows: Rows, block: slice) -> None:
    """Raise InputError for the first of some rows that is not finite or whose label is none."""
    known = rows.table.facts is not None and rows.table.facts.finite
    fields = () if known else zip(rows.table.columns, rows.encoding.fields, strict=True)
    for column, one in fields:
        _check_column(rows, block, column, may_miss=one.fill is not None or one.kind == "words")
    for column in rows.table.targets:
        _check_column(rows, block, column, may_miss=False)
    if rows.table.weight is not None:
        _check_weights(rows, block, rows.table.weight)
    if rows.table.targets:
        check_labels(rows, block)


def _check_weights(rows: Rows, block: slice, column: Column) -> None:
    """Raise InputError for the first row whose weight is none."""
    values = column.read(rows.rows(block))
    if column.kind != "numbers" or values.size != len(values):
        raise InputError(f"{rows.table.source}: weights {column.name!r} must be one number a row")
    wrong = ~((values >= 0) & (values <= LARGEST)).reshape(-1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{rows.table.source}: {rows.line(block.start + row)} has weight {values[row]} in "
            f"{column.name!r}; give a finite number of at least 0, at most {LARGEST:g}"
        )


def _check_column(rows: Rows, block: slice, column: Column, *, may_miss: bool) -> None:
    values = column.read(rows.rows(block))
    if values.dtype.kind == "f":
        wrong = np.isinf(values) if may_miss else ~np.isfinite(values)
    else:
        wrong = np.zeros(values.shape, bool) if may_miss else column.gaps(values)
    if not wrong.any():
        return
    row, *entry = np.argwhere(wrong)[0].tolist()
    found, gap = values[(row, *entry)], column.gaps(values)[(row, *entry)]
    found, why = "a gap" if column.kind != "numbers" else found, ""
    of_x = any(column is one for one in rows.table.columns)
    entry = [int(np.ravel_multi_index(entry, values.shape[1:]))] if entry else []
    if rows.table.named and of_x:
        entry = [[one.name for one in rows.table.columns].index(column.name)]
        why = ", as the rows that were trained on have no gap there" * bool(gap)
    where = rows.place(block.start + row, entry, of_x=of_x)
    if rows.table.named and of_x and rows.table.line is not None:
        where += f" of column {column.name!r}"
    raise InputError(
        f"{rows.table.source}: {'x' if of_x else column.name} has {found} in {where}; give "
        f"finite numbers: fill it in or leave the row out{why}"
    )


def check_labels(rows: Rows, block: slice) -> None:
    """Raise InputError for the first label that can't be one."""
    task, classes, y = rows.encoding.task, rows.encoding.classes, rows.raw_y(block)
    if task == "multilabel":
        wrong, needed = ~np.isin(y, (0, 1)), "0 or 1; or is it --task regression?"
    elif task == "classification" and len(classes):
        wrong, needed = rows.labels(block) < 0, "one of the training rows' labels"
    elif task == "classification" and y.dtype.kind == "f":
        wrong, needed = ~is_whole(y), "a whole number below 2**53; or is it --task regression?"
    else:
        return
    if wrong.any():
        if len(classes):
            needed += f" ({nearest('', map(str, classes))})"
        row, *entry = np.argwhere(wrong)[0].tolist()
        target = rows.table.targets[0]
        label = target.words[y[row]] if target.kind == "words" else y[(row, *entry)]
        raise InputError(
            f"{rows.table.source}: {target.name} has label {label} in "
            f"{rows.line(block.start + row)}; give {needed}"
        )
