"""What a target is: classes, labels or values, by rules that are said before training."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, distinct
from dptrain.config import DataConfig, Task
from dptrain.data.feed import Rows
from dptrain.data.table import Table
from dptrain.words import InputError, brief, is_text, shown
from dptrain.world import World

MOST_CLASSES = 100
"""Whole numbers that are 0 .. K-1 or 1 .. K are classes up to so many; words in any number that
is less than a tenth of the rows."""

FEW = 20
"""Other whole numbers are in doubt where there are no more different ones."""

MOST_VALUES = 10**5
"""Different values that are told apart."""


class Answer(NamedTuple):
    """What is to be learned."""

    task: Task
    classes: Array
    one_hot: bool = False
    told: str = ""
    """What a person is told of the target."""


def decide(rows: Rows, config: DataConfig, world: World) -> Answer:
    """Return what the target of all rows is, as it was set or as its values say. Collective.

    Raises InputError where its values don't allow what was set, or leave it in doubt.
    """
    table = rows.table
    with world.together():
        _check_setting(table, config)
    if len(table.targets) > 1 or table.targets[0].width > 1:
        return _of_several(rows, config, world)
    words = table.targets[0].kind == "words"
    values = None if words else _different(rows, world)
    with world.together():
        answer = _of_words(table, config) if words else _of_numbers(table, config, values)
        if len(answer.classes) == 1:
            raise InputError(
                f"{table.source}: all {len(table)} labels are {answer.classes[0]}; classification "
                "needs at least two classes"
            )
        return answer


def _check_setting(table: Table, config: DataConfig) -> None:
    words = [column.name for column in table.targets if column.kind == "words"]
    needed = "of several targets each must be numbers" if len(table.targets) > 1 else ""
    if config.task in ("regression", "multilabel"):
        needed = f"{config.task} needs numbers"
    if words and needed:
        raise InputError(f"{table.source}: {words[0]} holds names; {needed}")


def _of_words(table: Table, config: DataConfig) -> Answer:
    target = table.targets[0]
    num = len(target.ends)
    if config.task == "auto" and num > max(MOST_CLASSES, len(table) // 10):
        raise InputError(
            f"{table.source}: {target.name} holds {num} different names in {len(table)} rows; "
            "say what it is with --task classification or --task regression"
        )
    for name in target.words:
        if not is_text(name):
            raise InputError(
                f"{table.source}: label {name!r} is no text that can be written: it holds half "
                "of a character; give it another name"
            )
    told = f"{_some(target.words)}, so classification"
    return Answer("classification", np.array(target.words), told=told)


def _of_numbers(table: Table, config: DataConfig, values: Array | None) -> Answer:
    """Decide by the different values; None stands for more than `MOST_VALUES`."""
    known = values is not None and len(values) and bool(np.isfinite(values).all())
    if values is None or not known:
        if config.task == "classification":
            raise InputError(
                f"{table.source}: {table.targets[0].name} holds too many different values for "
                "classes; give --task regression"
            )
        task: Task = "regression" if config.task == "auto" else config.task
        return Answer(task, np.empty(0), told=f"numbers, so {task}")
    if config.task == "multilabel":
        return Answer("multilabel", np.empty(0), told="a label, 0 or 1, as asked for")
    span = f"numbers from {_number(values[0])} to {_number(values[-1])}"
    if config.task == "regression":
        return Answer("regression", np.empty(0), told=f"{span}, regression as asked for")
    whole = values.dtype.kind != "f" or bool(is_whole(values).all())
    if config.task == "classification" or values.dtype.kind == "b":
        if not whole:  # the first row that is none is named
            return Answer("classification", np.empty(0))
        classes = values.astype(np.int64) if values.dtype.kind == "f" else values
        told = f"{_some(classes.tolist())}, so classification"
        return Answer("classification", classes, told=told)
    if not whole:
        return Answer("regression", np.empty(0), told=f"{span}, so regression")
    values = values.astype(np.int64) if values.dtype.kind == "f" else values
    return _of_whole(table, values, span)


def _of_whole(table: Table, values: Array, span: str) -> Answer:
    """Decide by different whole numbers, or say how a person decides."""
    num = len(values)
    in_a_row = values[0] in (0, 1) and bool(values[-1] - values[0] == num - 1)
    if num == 1 or (in_a_row and num <= MOST_CLASSES):
        told = (
            f"the whole numbers {values[0]} to {values[-1]}, so classification of {num} classes "
            "(--task regression for values)"
        )
        return Answer("classification", values, told=told)
    if in_a_row or (num <= FEW and 2 * num <= len(table)):
        raise InputError(
            f"{table.source}: {table.targets[0].name} holds {num} different whole numbers in "
            f"{len(table)} rows ({_some(values.tolist())}); say what it is with --task "
            "classification or --task regression"
        )
    told = f"{span}, so regression (--task classification for {num:,} classes)"
    return Answer("regression", np.empty(0), told=told)


def _of_several(rows: Rows, config: DataConfig, world: World) -> Answer:
    """Decide for several numbers a row: labels, one class as 0s and a 1, or values. Collective."""
    own = [True, True]
    for block in rows.blocks(world):
        y = rows.raw_y(block)
        bits = bool(np.isin(y, (0, 1)).all())
        own = [own[0] and bits, own[1] and bits and bool(((y == 1).sum(axis=1) == 1).all())]
    labels, one_hot = (all(found) for found in zip(*world.allgather(own), strict=True))
    table = rows.table
    width = sum(column.width for column in table.targets)
    names = [column.name for column in table.targets]
    with world.together():
        if config.task == "classification" and not one_hot:
            shape = table.targets[0].values.shape if len(names) == 1 else (len(table), width)
            raise InputError(f"{table.source}: y has shape {shape}; classes need one label a row")
        if one_hot and config.task in ("auto", "classification"):
            classes = np.array(names) if len(names) == width else np.arange(width)
            return Answer(
                "classification", classes, one_hot=True,
                told=f"rows of 0 with a single 1, so classification of {width} classes (--task "
                "multilabel for labels)",
            )  # fmt: skip
    if config.task == "multilabel" or (config.task == "auto" and labels):
        return Answer("multilabel", np.empty(0), told=f"{width} times 0 or 1 a row, so labels")
    return Answer("regression", np.empty(0), told=f"{width} numbers a row, so regression")


def _different(rows: Rows, world: World) -> Array | None:
    """Return the target's different values, sorted; None where there are too many. Collective."""
    kept: Array | None = None
    many = False
    for block in rows.blocks(world):
        found = distinct(rows.raw_y(block).reshape(-1))
        kept = found if kept is None else distinct(kept, found)
        many = len(kept) > MOST_VALUES
        if many:
            break
    everyone = world.allgather((many, None if many else kept))
    if any(too_many for too_many, _ in everyone):
        return None
    found = distinct(*(one for _, one in everyone if one is not None))
    return None if len(found) > MOST_VALUES else found


def is_whole(values: Array) -> NDArray[np.bool_]:
    """Return which floats are whole numbers, none of which stands for its neighbours, too."""
    values = values.astype(np.float64)
    whole: NDArray[np.bool_] = (values == np.floor(values)) & (np.abs(values) < 2**53)
    return whole


def uneven(counts: NDArray[np.int64]) -> bool:
    """Return whether some class [classes] has less than a tenth of its even share of the rows."""
    return bool(10 * len(counts) * counts.min() < counts.sum())


def _some(names: Sequence[object]) -> str:
    """Return the first of some labels, as people can be told of them."""
    told = ", ".join(shown(brief(str(name))) for name in names[:5])
    return told if len(names) <= 5 else f"{told}, ... ({len(names):,} classes)"


def _number(value: float) -> str:
    value = float(value)
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.6g}"
