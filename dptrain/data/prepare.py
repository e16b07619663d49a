"""Tables become examples: checked, split, scaled by the training rows, encoded when asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array
from dptrain.config import DataConfig, InputError, Scale, Task, is_text, nearest
from dptrain.data.read import Table
from dptrain.data.split import Chosen, HeldOut, Kept
from dptrain.world import World

BLOCK = 1024
"""Rows in a block. Statistics are added block by block in the tree, so are free of the ranks."""

Total = Callable[[Array, int], Array]
"""Adds blocks: takes a rank's own [held, ...] of so many, returns the sum [...] on every rank."""


def _like(y: Array, classes: Array) -> Array:
    """Return labels in the classes' type: a file whose labels all look like numbers has names."""
    return y.astype(np.str_) if classes.dtype.kind == "U" else y


@dataclass(frozen=True)
class Encoding:
    """How raw rows become inputs and targets become numbers; it belongs to the stored model.

    `shift` and `factor` are float64 [features]: input = (raw - shift) * factor. `classes` are the
    sorted labels [classes], of classification only. `outputs` is how many values y has in a row.
    """

    task: Task
    features: tuple[str, ...]
    shift: NDArray[np.float64]
    factor: NDArray[np.float64]
    classes: Array
    outputs: int

    def inputs(self, x: Array, dtype: Any) -> Array:
        """Return scaled inputs [m, features] for raw rows, computed in float64, then rounded."""
        scaled: Array = np.subtract(x, self.shift, dtype=np.float64)
        scaled *= self.factor
        inputs: Array = scaled.astype(dtype, copy=False)
        return inputs

    def targets(self, y: Array, dtype: Any) -> Array:
        """Return class numbers [m], or values [m] or [m, outputs]."""
        if self.task == "classification":
            return np.searchsorted(self.classes, _like(y, self.classes))
        values: Array = y.astype(dtype)
        return values

    def check(self, table: Table) -> None:
        """Raise InputError where a table does not fit: another number of inputs or of targets."""
        width = table.x.shape[1]
        if width != len(self.shift):
            raise InputError(
                f"{table.source}: x has {width} columns; the training data has {len(self.shift)}, "
                "and every row must have the same columns"
                + "; an array of one row has shape [1, n]"
                * (width == 1)
            )
        if table.y is not None and table.y.shape[1:] != ((self.outputs,) * (self.outputs > 1)):
            raise InputError(
                f"{table.source}: y has shape {table.y.shape}; needed are {self.outputs} a row"
            )


@dataclass(frozen=True)
class Rows:
    """Examples of a table, encoded when they are asked for: only the rows asked for are read."""

    table: Table
    encoding: Encoding
    chosen: Chosen | None = None
    """The table's rows that belong, [examples]; None for all."""

    def __len__(self) -> int:
        return len(self.table) if self.chosen is None else len(self.chosen)

    def raw_x(self, examples: Any) -> Array:
        """Return the raw rows [m, features] of examples, given by number or as a slice."""
        rows: Array = self.table.x[examples if self.chosen is None else self.chosen[examples]]
        return rows

    def raw_y(self, examples: Any) -> Array:
        """Return the raw targets [m] or [m, outputs] of examples."""
        if self.table.y is None:
            raise InputError(f"{self.table.source} has no y; needed is a target for each example")
        rows: Array = self.table.y[examples if self.chosen is None else self.chosen[examples]]
        return rows

    def gather(self, examples: Any, dtype: Any) -> tuple[Array, Array]:
        """Return inputs [m, features] and targets of examples, as the model takes them."""
        x = self.encoding.inputs(self.raw_x(examples), dtype)
        return x, self.encoding.targets(self.raw_y(examples), dtype)

    def blocks(self, world: World) -> Iterator[slice]:
        """Yield the blocks of examples that are this rank's, to be read by no other."""
        for block in world.mine(self.num_blocks):
            yield slice(block * BLOCK, min((block + 1) * BLOCK, len(self)))

    @property
    def num_blocks(self) -> int:
        """The number of blocks over all ranks."""
        return -(-len(self) // BLOCK)


class Feed:
    """Examples as the model takes them, gathered into memory that is used again and again.

    Rows that are in memory are encoded once; those of a mapped file are read when asked for.
    """

    def __init__(self, rows: Rows, dtype: Any) -> None:
        self._rows = rows
        self._dtype = np.dtype(dtype)
        self._memory: dict[int, Array] = {}
        self._all: tuple[Array, Array] | None = None
        if not rows.table.mapped:
            blocks = [slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)]
            x = np.empty((len(rows), rows.table.x.shape[1]), dtype)
            for block in blocks:
                x[block] = rows.encoding.inputs(rows.raw_x(block), dtype)
            self._all = x, rows.encoding.targets(rows.raw_y(slice(None)), dtype)

    def __getitem__(self, examples: NDArray[np.intp]) -> tuple[Array, Array, None]:
        """Return inputs [m, features], valid until as many are asked for again, targets, weights.

        Every example weighs 1.
        """
        if self._all is None:
            return *self._rows.gather(examples, self._dtype), None
        x, y = self._all
        out = self._memory.get(len(examples))
        if out is None:
            out = self._memory[len(examples)] = np.empty((len(examples), x.shape[1]), self._dtype)
        x.take(examples, axis=0, out=out, mode="clip")
        return out, y.take(examples, axis=0), None


@dataclass(frozen=True)
class Data:
    """Everything a run learns from: training rows, and perhaps held-out and test rows."""

    train: Rows
    validation: Rows | None
    test: Rows | None
    paths: tuple[str, ...] = ()
    config: DataConfig = DataConfig()
    seed: int = 0

    @property
    def encoding(self) -> Encoding:
        """How raw rows become inputs, and targets numbers."""
        return self.train.encoding


def prepare(
    table: Table, test: Table | None, config: DataConfig, seed: int, world: World, total: Total
) -> Data:
    """Check the rows, decide the task, hold out validation rows, and find the scale.

    Each rank looks at its own blocks of rows only. Collective: every rank must call this.

    Raises
    ------
    InputError
        Anything that would make the training meaningless, naming the first row at fault.
    """
    with world.together():
        if table.y is None:
            what = "give --target NAME" if table.features else "store y beside x"
            names = f"; its columns are {', '.join(table.features)}" if table.features else ""
            raise InputError(f"{table.source} has no target: {what}{names}")
        if test is not None and test.y is None:
            raise InputError(f"{test.source} have x and no y; store y_test beside x_test")
        task = _task(table, config)
        train, validation = _split(len(table), config.validation, seed)
    width = table.x.shape[1]
    outputs = 1 if table.y.ndim == 1 else table.y.shape[1]
    unscaled = Encoding(task, table.features, np.zeros(width), np.ones(width), np.empty(0), outputs)
    check_rows(Rows(table, unscaled), world)
    classes = _classes(Rows(table, unscaled), config, world)
    unscaled = replace(unscaled, classes=classes)
    if test is not None:
        check_rows(Rows(test, unscaled), world)
    shift, factor = _scale(Rows(table, unscaled, train), config.scale, world, total)
    encoding = replace(unscaled, shift=shift, factor=factor)
    return Data(
        Rows(table, encoding, train),
        None if validation is None else Rows(table, encoding, validation),
        None if test is None else Rows(test, encoding),
    )


def _task(table: Table, config: DataConfig) -> Task:
    """Return what the target's type says, or what was set, where the target allows it."""
    y = table.y
    if y is None or config.task == "auto":
        kind, columns = ("f", 1) if y is None else (y.dtype.kind, y.ndim)
        if kind == "f":
            return "regression"
        return "classification" if columns == 1 else "multilabel"
    if config.task == "classification" and y.ndim > 1:
        raise InputError(
            f"{table.source}: y has shape {y.shape}; classification needs one label a row"
        )
    if config.task != "classification" and y.dtype.kind == "U":
        raise InputError(f"{table.source}: y holds names; {config.task} needs numbers")
    return config.task


def _split(num_rows: int, share: float, seed: int) -> tuple[Chosen | None, Chosen | None]:
    """Return the rows to train on and those held out; None for all and for none."""
    if share == 0:
        return None, None
    held_out = round(num_rows * share)
    if not 0 < held_out < num_rows:
        raise InputError(
            f"validation is {share}: of {num_rows} rows that holds out {held_out}; "
            "needed is at least one, and at least one to train on"
        )
    chosen = HeldOut(num_rows, held_out, seed)
    return Kept(chosen), chosen


def check_rows(rows: Rows, world: World) -> None:
    """Check that every row is finite and fits the encoding, each rank its own blocks.

    Collective: every rank must call this. Raises InputError naming the first row at fault.
    """
    with world.together():
        rows.encoding.check(rows.table)
        for block in rows.blocks(world):
            check_block(rows, block)


def check_block(rows: Rows, block: slice) -> None:
    """Raise InputError for the first of some rows that is not finite or whose label is none."""
    table = rows.table
    for name in ("x",) if table.y is None else ("x", "y"):
        values = rows.raw_x(block) if name == "x" else rows.raw_y(block)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row, *column = np.argwhere(~np.isfinite(values))[0]
            names = rows.encoding.features if name == "x" else ()
            raise InputError(
                f"{table.source}: {name} has {values[row, *column]} in "
                f"{place(block.start + row, column, names)}; needed are finite numbers: fill it in "
                "or leave the row out"
            )
    if table.y is not None:
        task, classes = rows.encoding.task, rows.encoding.classes
        _check_labels(rows.raw_y(block), block.start, table.source, task, classes)


def place(row: int, column: Sequence[int], names: Sequence[str]) -> str:
    """Return where an entry stands, for people; its column's name too, where columns have some."""
    where = f"row {row}" + "".join(f", column {c}" for c in column)
    named = "".join(f", {names[c]!r}" for c in column if names)
    return f"{where} ({'both count' if column else 'counts'} from 0){named}"


def _check_labels(y: Array, start: int, source: str, task: Task, classes: Array) -> None:
    """Raise InputError for the first label that can't be one."""
    if task == "multilabel":
        wrong, needed = ~np.isin(y, (0, 1)), "0 or 1; or is it --task regression?"
    elif task == "classification" and len(classes):
        known = y.dtype.kind != "U" or classes.dtype.kind == "U"
        wrong = ~np.isin(_like(y, classes), classes) if known else np.ones(len(y), bool)
        needed = f"one of the training rows' labels ({nearest('', map(str, classes))})"
    elif task == "classification" and y.dtype.kind == "f":
        wrong, needed = y != np.floor(y), "a whole number; or is it --task regression?"
    else:
        return
    if wrong.any():
        row, *column = np.argwhere(wrong)[0]
        raise InputError(
            f"{source}: y has label {y[row, *column]} in row {start + row}; needed is {needed}"
        )


def _classes(rows: Rows, config: DataConfig, world: World) -> Array:
    """Return the sorted labels of classification, else an empty array. Collective."""
    if rows.encoding.task != "classification":
        return np.empty(0)
    own = [np.unique(rows.raw_y(block)) for block in rows.blocks(world)]
    everyone = world.allgather(np.unique(np.concatenate(own)) if own else rows.raw_y(slice(0, 1)))
    classes = np.unique(np.concatenate(everyone))
    with world.together():
        if len(classes) == 1:
            raise InputError(
                f"{rows.table.source}: all {len(rows)} labels are {classes[0]}; "
                "classification needs at least two classes"
            )
        for name in classes if classes.dtype.kind == "U" else ():
            if not is_text(name):
                raise InputError(
                    f"{rows.table.source}: label {name!r} is no text that can be written: it holds "
                    "half of a character; give it another name"
                )
        if config.task == "auto" and len(classes) > max(100, len(rows) // 10):
            raise InputError(
                f"{rows.table.source}: y holds {len(classes)} different whole numbers or names in "
                f"{len(rows)} rows; say what it is with --task classification or --task regression"
            )
    return classes


def _scale(
    rows: Rows, scale: Scale, world: World, total: Total
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shift and factor [features] from the training rows. Collective.

    A column that never changes, rounding aside, is only shifted.
    """
    width = len(rows.encoding.shift)

    def over_blocks(statistic: Callable[[Array], Array]) -> Array:
        own = [statistic(rows.raw_x(block)) for block in rows.blocks(world)]
        return np.array(own, np.float64).reshape(len(own), width)

    if scale == "none":
        return np.zeros(width), np.ones(width)
    with np.errstate(over="ignore"):
        if scale == "minmax":
            lows = world.allgather(over_blocks(lambda x: x.min(axis=0)))
            highs = world.allgather(over_blocks(lambda x: x.max(axis=0)))
            shift = np.concatenate(lows).min(axis=0)
            spread = np.concatenate(highs).max(axis=0) - shift
        else:
            sums = over_blocks(lambda x: x.sum(axis=0, dtype=np.float64))
            shift = total(sums, rows.num_blocks) / len(rows)
            squares = over_blocks(lambda x: np.square(x - shift).sum(axis=0))
            spread = np.sqrt(total(squares, rows.num_blocks) / len(rows))
    with world.together():
        if not np.isfinite(spread).all():
            column = int(np.argmin(np.isfinite(spread)))
            raise InputError(
                f"{rows.table.source}: the numbers of x in column {column} are too large to scale; "
                "give them in another unit"
            )
    return shift, 1 / np.where(spread > 1e-12 * np.abs(shift), spread, 1)
