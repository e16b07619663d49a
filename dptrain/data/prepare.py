"""Tables become examples: checked, split, encoded by the training rows alone."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, not_finite
from dptrain.config import DataConfig, Scale
from dptrain.data.check import LARGEST, check_rows
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.data.field import PARTS, Field, date_parts
from dptrain.data.show import rare, understood
from dptrain.data.split import Chosen, HeldOut, Kept
from dptrain.data.table import Column, Table
from dptrain.data.task import decide, uneven
from dptrain.words import InputError
from dptrain.world import World

TINIEST = np.finfo(np.float64).tiny
"""Of which the inverse is a number."""

Total = Callable[[Array, int], Array]
"""Adds blocks: takes a rank's own [held, ...] of so many, returns the sum [...] on every rank."""


@dataclass(frozen=True, repr=False, eq=False)
class Data:
    """Everything a run learns from: training rows, and perhaps held-out and test rows."""

    train: Rows
    validation: Rows | None
    test: Rows | None
    paths: tuple[str, ...] = ()
    config: DataConfig = DataConfig()
    seed: int = 0
    told: tuple[str, ...] = ()
    """What was understood of it, for people: a line each."""

    def __repr__(self) -> str:
        return f"Data({'; '.join(self.told)})"

    @property
    def encoding(self) -> Encoding:
        """How raw rows become inputs, and targets numbers."""
        return self.train.encoding


def prepare(
    table: Table, test: Table | None, config: DataConfig, seed: int, world: World, total: Total
) -> Data:
    """Check the rows, decide the task, hold out validation rows, and fit the encoding.

    Each rank looks at its own blocks of rows only. Collective: every rank must call this. Raises
    InputError for whatever would make the training meaningless, naming the first row at fault.
    """
    with world.together():
        _check_targets(table, test)
        train, validation = _split(len(table), config.validation, seed)
    fields = _fields(table, train, config, world)
    width = sum(field.width for field in fields)
    outputs = sum(column.width for column in table.targets)
    plain = Encoding(
        "regression", fields, np.zeros(width), np.ones(width), np.empty(0), outputs, table.named,
        config.scale, tuple(column.name for column in table.targets) if table.named else (),
    )  # fmt: skip
    check_rows(Rows(table, plain), world)
    answer = decide(Rows(table, plain), config, world)
    outputs = 1 if answer.one_hot else outputs
    plain = replace(
        plain, task=answer.task, classes=answer.classes, one_hot=answer.one_hot, outputs=outputs
    )
    check_rows(Rows(table, plain), world, labels_alone=True)
    shift, spread = _scale(Rows(table, plain, train), config.scale, world, total)
    encoding = replace(plain, shift=shift, factor=_factor(shift, spread))
    still = never_changes(shift, spread)
    if answer.task == "regression" and config.scale != "none":
        rows = Rows(table, encoding, train)
        mean, deviation = statistics("y", rows.all_y, rows, "standard", world, total)
        factor, still = _factor(mean, deviation), np.append(still, never_changes(mean, deviation))
        encoding = replace(encoding, target_shift=mean, target_factor=factor)
    if test is not None:
        with world.together():
            test = encoding.adapt(test)
        check_rows(Rows(test, encoding), world)
    training, told = _weighted(Rows(table, encoding, train), config, world)
    return Data(
        training,
        None if validation is None else Rows(table, encoding, validation),
        None if test is None else Rows(test, encoding),
        told=(*understood(table, fields, answer, still), *told),
    )


def _weighted(rows: Rows, config: DataConfig, world: World) -> tuple[Rows, list[str]]:
    """Return rows with the weights of classes asked for, and what is to be said. Collective."""
    own = [float(w.sum()) for w in map(rows.weights, rows.blocks(world)) if w is not None]
    whole = sum(world.allgather(sum(own)))
    with world.together():
        if rows.table.weight is not None and whole < 1 / LARGEST:
            raise InputError(
                f"{rows.table.source}: the weights in {rows.table.weight.name!r} of the rows to "
                f"train on add up to {whole:g}, so that none counts; give some that are larger"
            )
        if config.class_weight == "balanced" and rows.encoding.task != "classification":
            raise InputError(
                f"class-weight is balanced, but {rows.table.source} has no classes: the task is "
                f"{rows.encoding.task}"
            )
    if rows.encoding.task != "classification":
        return rows, []
    counts = _counts(rows, world)
    if config.class_weight == "balanced":
        weights = len(rows) / (len(counts) * np.maximum(counts, 1))
        return replace(rows, class_weights=weights), []
    return rows, [rare(counts, rows.encoding.classes)] if uneven(counts) else []


def _check_targets(table: Table, test: Table | None) -> None:
    if not table.targets:
        names = [column.name for column in table.columns]
        what = "give --target NAME" if table.named else "store y beside x"
        told = f"; its columns are {', '.join(names)}" if table.named else ""
        raise InputError(f"{table.source} has no target: {what}{told}")
    if test is not None and not test.targets:
        raise InputError(f"{test.source} have x and no y; store y_test beside x_test")


def _split(num_rows: int, share: float, seed: int) -> tuple[Chosen | None, Chosen | None]:
    """Return the rows to train on and those held out; None for all and for none."""
    if share == 0:
        return None, None
    held_out = round(num_rows * share)
    if not 0 < held_out < num_rows:
        raise InputError(
            f"validation is {share}: of {num_rows} rows that holds out {held_out}; "
            "hold out at least one, and leave at least one to train on"
        )
    chosen = HeldOut(num_rows, held_out, seed)
    return Kept(chosen), chosen


def _fields(
    table: Table, train: Chosen | None, config: DataConfig, world: World
) -> tuple[Field, ...]:
    """Return how each column becomes inputs; each is looked at by one rank. Collective."""
    if not table.named:
        x = table.columns[0]
        return (Field(x.name, "numbers", x.values.shape[1:]),)
    rows = slice(None) if train is None else train[:]
    mine = [table.columns[n] for n in world.mine(len(table.columns))]
    own = [_field(column, rows, config.one_hot) for column in mine]
    return tuple(field for part in world.allgather(own) for field in part)


def _field(column: Column, train: slice | NDArray[np.intp], one_hot: int) -> Field:
    """Return how a column becomes inputs, by its training rows.

    Whether there are gaps is asked of all rows, as those held out are of the same table.
    """
    every = column.read(slice(None))
    gaps = bool(column.gaps(every).any())
    values = every[train]
    if column.kind == "words":
        used = np.zeros(len(column.ends) + 1, bool)
        used[values] = True  # of a gap, -1, the last
        words: list[str | None] = list(itertools.compress(column.words, used))
        gap = [None] * int(used[-1])
        return Field(column.name, "words", words=(*words, *gap), coded=len(words) > one_hot)
    if column.kind == "date":
        known = values[~column.gaps(values)]
        found = {}
        for part in PARTS:  # one by one, as each is as large as the column
            numbers = date_parts(known, (part,))
            if len(numbers) and numbers.min() < numbers.max():
                found[part] = _median(numbers) if gaps else 0.0
        found = found or {PARTS[0]: _median(date_parts(known, PARTS[:1]))}
        return Field(
            column.name, "date", fill=tuple(found.values()) if gaps else None, parts=tuple(found)
        )
    fill = (_median(values[~column.gaps(values)]),) if gaps and values.ndim == 1 else None
    return Field(column.name, column.kind, column.values.shape[1:], fill=fill)


def _median(values: Array) -> float:
    return float(np.median(values.astype(np.float64))) if len(values) else 0.0


def _scale(
    rows: Rows, scale: Scale, world: World, total: Total
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shift and spread [width] from the training rows, 0 and 1 of what has no scale.

    Collective.
    """
    scaled = np.concatenate([field.scaled for field in rows.encoding.fields])
    shift, spread = np.zeros(len(scaled)), np.ones(len(scaled))
    if scale == "none" or not scaled.any():
        return shift, spread
    facts = rows.table.facts
    if facts and facts.standard and rows.chosen is None and scale != "minmax":
        return facts.standard
    read = rows.raw_x if scaled.all() else lambda block: rows.raw_x(block)[:, scaled]
    shift[scaled], spread[scaled] = statistics("x", read, rows, scale, world, total)
    return shift, spread


def never_changes(shift: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which numbers [width] are the same in every row, rounding aside."""
    still: NDArray[np.bool_] = spread <= np.maximum(1e-12 * np.abs(shift), TINIEST)
    return still


def _factor(shift: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what numbers [width] are multiplied by; one that never changes is only shifted."""
    factor: NDArray[np.float64] = 1 / np.where(never_changes(shift, spread), 1, spread)
    return factor


def statistics(
    name: str, read: Callable[[slice], Array], rows: Rows, scale: Scale, world: World, total: Total
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shift and the spread of numbers [m, width], read block by block. Collective."""

    def over_blocks(statistic: Callable[[Array], Array]) -> Array:
        own = [statistic(read(block).astype(np.float64)) for block in rows.blocks(world)]
        return np.array(own, np.float64).reshape(len(own), -1 if own else width)

    width = read(slice(0, 1)).shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        if scale == "minmax":
            lows = world.allgather(over_blocks(lambda x: x.min(axis=0)))
            highs = world.allgather(over_blocks(lambda x: x.max(axis=0)))
            shift = np.concatenate(lows).min(axis=0)
            spread = np.concatenate(highs).max(axis=0) - shift
        else:
            shift = total(over_blocks(lambda x: x.sum(axis=0)), rows.num_blocks) / len(rows)
            squares = over_blocks(lambda x: np.square(x - shift).sum(axis=0))
            spread = np.sqrt(total(squares, rows.num_blocks) / len(rows))
    with world.together():
        column = not_finite(spread)
        if column is not None:
            raise InputError(
                f"{rows.table.source}: the numbers of {name} in column {column} are too large to "
                "scale; give them in another unit"
            )
    return shift, spread


def _counts(rows: Rows, world: World) -> NDArray[np.int64]:
    """Return how many examples each class has, [classes]. Collective."""
    num = len(rows.encoding.classes)
    own = [np.bincount(rows.labels(block), minlength=num) for block in rows.blocks(world)]
    counts: NDArray[np.int64] = sum(itertools.chain(*world.allgather(own)), np.zeros(num, np.int64))
    return counts
