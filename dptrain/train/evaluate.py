"""Loss and metrics of all examples, each counted once, shared among the ranks."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats
from dptrain.config import Task
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.guard import Ask
from dptrain.model import Model
from dptrain.reduce.sums import total
from dptrain.words import InputError, nearest
from dptrain.world import World

MetricSums = Callable[[Floats, Array], dict[str, tuple[float, float]]]
"""Of outputs and targets: a sum over examples and its divisor, by a metric's name."""


class Interrupted(Exception):  # noqa: N818 (no error: a signal has come)
    """Raised by every rank where one of them has been asked to stop; says what was asked."""

    def __init__(self, asked: Ask) -> None:
        super().__init__(asked)
        self.asked = asked


def evaluate(
    model: Model,
    params: Floats,
    rows: Rows,
    world: World,
    asked: Callable[[], Ask] = lambda: Ask(0),
    seen: Callable[[Floats, Array], None] = lambda *_: None,
    each: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Return the mean loss and the metrics of the task over all rows, the same on every rank.

    The model's own metrics, if it has some. classification: accuracy. multilabel: accuracy (all
    labels of an example right) and label_accuracy. regression: rmse, mae, and r2, the mean over
    outputs; neither where outputs are not as many as targets. Sums go over blocks of rows in the
    tree, so that they are free of the number of ranks. `seen` is told the outputs [m,
    outputs] and the targets of each block; `asked` is looked at before it; `each` is given those
    of regression for each output. Collective: every rank must call this. Raises Interrupted where
    a rank has been asked to stop; InputError where the loss is not finite.
    """
    task = rows.encoding.task
    ask: MetricSums | None = getattr(model, "metric_sums", None)
    center = _target_mean(rows, model, world) if task == "regression" and not ask else np.zeros(0)
    own, names = list[list[Any]](), set[tuple[str, ...]]()
    with world.together():
        for block in rows.blocks(world):
            if asked().stop:
                break
            x, y = rows.gather(block, model)
            outputs = model.outputs(params, x)
            values = outputs.reshape(len(x), -1)
            pairs = ask(outputs, y) if ask else {}
            names.add(tuple(pairs))
            found = [] if ask else _sums(rows.encoding, values, y, center)
            found += [number for pair in pairs.values() for number in pair]
            seen(values, y)
            own.append([*model.loss_sum(outputs, y, None)[:2], *found])
    answers = world.allgather((asked(), len(own[0]) if own else 2, names))
    asks, lengths, everyones = zip(*answers, strict=True)
    together = functools.reduce(operator.or_, asks)
    if together.stop:
        raise Interrupted(together)
    named, columns = _agreed(set[tuple[str, ...]]().union(*everyones)), max(lengths)
    sums = total(world, np.array(own, np.float64).reshape(-1, columns), rows.num_blocks)
    _check_finite(sums[0], rows)
    loss = {"loss": float(sums[0] / (sums[1] or 1))}
    if ask:
        means = sums[2::2] / np.where(sums[3::2] == 0, 1.0, sums[3::2])
        return loss | dict(zip(named, means.tolist(), strict=True))
    return loss | (_metrics(sums[2:], rows, each) if columns > 2 else {})


def _agreed(found: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names of a model's own metrics; InputError where they depend on the rows."""
    if len(found) > 1:
        told = " and ".join(", ".join(each) or "none" for each in sorted(found)[:2])
        raise InputError(
            f"the model's metrics are not the same for all rows: {told}; return all of them, in "
            "one order, for whatever rows",
            everywhere=True,
        )
    return next(iter(found), ())


def _check_finite(loss: float, rows: Rows) -> None:
    if not np.isfinite(loss):
        raise InputError(
            f"the loss of {rows.table.source} is {loss}: its numbers are far beyond those of "
            "training, or the parameters are not finite or far too large; look at the rows with "
            "dptrain data show, or train with a smaller --learning-rate, or with --clip-norm 1",
            everywhere=True,
        )


def check_measured(model: Model, params: Floats, rows: Rows, name: str) -> None:
    """Raise InputError where a metric of this name is none that `evaluate` returns. Local."""
    x, y = rows.gather(slice(0, 1), model)
    outputs = model.outputs(params, x)
    ask: MetricSums | None = getattr(model, "metric_sums", None)
    if ask is None:
        center = np.zeros(rows.encoding.outputs)
        sums = _sums(rows.encoding, outputs.reshape(1, -1), y, center)
        names = [*_metrics(np.ones(len(sums)), rows)] if sums else []
    else:
        names = [*ask(outputs, y)]
    if name not in ["loss", *names]:
        raise InputError(f"patience-metric is {name!r}; {nearest(name, ['loss', *names])}")


def _sums(encoding: Encoding, values: Floats, y: Array, center: Array) -> list[Any]:
    """Return the sums over examples that the metrics of a task are made of; see `fits`."""
    if not fits(values.shape[1], encoding.scores, encoding.task):
        return []
    if encoding.task == "classification":
        return [np.sum(predicted_classes(values) == y)]
    if encoding.task == "multilabel":
        right = (values > 0) == y.reshape(values.shape)
        return [np.sum(right.all(axis=1)), np.sum(right)]
    target = y.reshape(values.shape).astype(np.float64)
    error, spread = values - target, np.square(target - center).sum(axis=0)
    return [*np.abs(error).sum(axis=0), *np.square(error).sum(axis=0), *spread]


def _metrics(sums: Array, rows: Rows, each: dict[str, Any] | None = None) -> dict[str, float]:
    """Return the metrics from the sums over all examples; see `evaluate`."""
    task, outputs, num = rows.encoding.task, rows.encoding.outputs, len(rows)
    if task == "classification":
        return {"accuracy": float(sums[0] / num)}
    if task == "multilabel":
        return {"accuracy": float(sums[0] / num), "label_accuracy": float(sums[1] / num / outputs)}
    unit = 1 / rows.encoding.target_factor
    absolute, square, spread = sums.reshape(3, outputs) * [unit, unit**2, unit**2]
    explained = 1 - square / np.where(spread > 0, spread, np.nan)  # undefined where y never changes
    if each is not None:
        each |= {"rmse_each": np.sqrt(square / num).tolist(), "mae_each": (absolute / num).tolist()}
        each["r2_each"] = [value if np.isfinite(value) else None for value in explained.tolist()]
    metrics = {
        "rmse": math.sqrt(square.sum() / num / outputs),
        "mae": float(absolute.sum() / num / outputs),
    }
    return metrics | ({"r2": float(explained.mean())} if np.isfinite(explained).all() else {})


def _target_mean(rows: Rows, model: Model, world: World) -> Array:
    """Return the mean target [outputs] as a model takes it, exact where one stays. Collective."""
    first = rows.targets(slice(0, 1), model.dtype).astype(np.float64)
    own = [(rows.targets(block, model.dtype) - first).sum(axis=0) for block in rows.blocks(world)]
    sums = np.array(own, np.float64).reshape(-1, rows.encoding.outputs)
    mean: Array = first[0] + total(world, sums, rows.num_blocks) / len(rows)
    return mean


def predicted_classes(values: Floats) -> NDArray[np.intp]:
    """Return class numbers [m] from outputs [m, classes], or [m, 1] for two classes."""
    if values.shape[1] == 1:
        return (values[:, 0] > 0).astype(np.intp)
    best: NDArray[np.intp] = values.argmax(axis=1)
    return best


def fits(outputs: int, scores: int, task: Task) -> bool:
    """Return whether so many outputs are what a task has so many of: classes, labels or values.

    Of two classes it can be one output. With a loss of one's own there may be others, which only
    that understands.
    """
    return outputs == scores or (outputs == 1 and scores == 2 and task == "classification")
