"""Loss and metrics of all examples, each counted once, shared among the ranks."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats
from dptrain.config import InputError
from dptrain.data.feed import Rows
from dptrain.guard import Ask
from dptrain.model import Model
from dptrain.reduce.sums import total
from dptrain.world import World


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
    asked: Callable[[], Ask] | None = None,
    seen: Callable[[Floats, Array], None] | None = None,
) -> dict[str, Any]:
    """Return the mean loss and the metrics of the task over all rows, the same on every rank.

    classification: accuracy. multilabel: accuracy (all labels of an example right) and
    label_accuracy. regression: rmse, mae, and r2, the mean over outputs. Sums go over blocks of
    rows in the tree, so that they are free of the number of ranks. `seen`, where given, is told the
    outputs [m, outputs] and the targets of each block; `asked` is looked at before it. Collective:
    every rank must call this.

    Raises
    ------
    Interrupted
        A rank has been asked to stop.
    InputError
        The loss is not finite.
    """
    task = rows.encoding.task
    center = _target_mean(rows, world) if task == "regression" else np.zeros(0)
    own = []
    for block in rows.blocks(world):
        if asked is not None and asked().stop:
            break
        x, y = rows.gather(block, model)
        outputs = model.outputs(params, x)
        values = outputs.reshape(len(x), -1)
        if task == "classification":
            found = [np.sum(predicted_classes(values) == y)]
        elif task == "multilabel":
            right = (values > 0) == y.reshape(values.shape)
            found = [np.sum(right.all(axis=1)), np.sum(right)]
        else:
            target = y.reshape(values.shape).astype(np.float64)
            error = values - target
            spread = np.square(target - center).sum(axis=0)
            found = [*np.abs(error).sum(axis=0), *np.square(error).sum(axis=0), *spread]
        if seen is not None:
            seen(values, y)
        own.append([*model.loss_sum(outputs, y, None), *found])
    if asked is not None:
        together = functools.reduce(operator.or_, world.allgather(asked()))
        if together.stop:
            raise Interrupted(together)
    width = {"classification": 3, "multilabel": 4, "regression": 2 + 3 * rows.encoding.outputs}
    sums = total(world, np.array(own, np.float64).reshape(-1, width[task]), rows.num_blocks)
    if not np.isfinite(sums[0]):
        raise InputError(
            f"the loss of {rows.table.source} is {sums[0]}: the parameters are not finite or far "
            "too large; train with a smaller --learning-rate, or with --clip-norm 1",
            everywhere=True,
        )
    return {"loss": float(sums[0] / (sums[1] or 1)), **_metrics(sums[2:], rows)}


def _metrics(sums: Array, rows: Rows) -> dict[str, float]:
    """Return the metrics from the sums over all examples."""
    task, outputs, num = rows.encoding.task, rows.encoding.outputs, len(rows)
    if task == "classification":
        return {"accuracy": float(sums[0] / num)}
    if task == "multilabel":
        return {"accuracy": float(sums[0] / num), "label_accuracy": float(sums[1] / num / outputs)}
    unit = 1 / rows.encoding.target_factor
    absolute, square, spread = sums.reshape(3, outputs) * [unit, unit**2, unit**2]
    explained = 1 - square / np.where(spread > 0, spread, np.nan)  # undefined where y never changes
    metrics = {
        "rmse": math.sqrt(square.sum() / num / outputs),
        "mae": float(absolute.sum() / num / outputs),
    }
    return metrics | ({"r2": float(explained.mean())} if np.isfinite(explained).all() else {})


def _target_mean(rows: Rows, world: World) -> Array:
    """Return the mean target [outputs] over all rows. Collective."""
    own = [rows.targets(block, np.float64).sum(axis=0) for block in rows.blocks(world)]
    sums = np.array(own, np.float64).reshape(-1, rows.encoding.outputs)
    return total(world, sums, rows.num_blocks) / len(rows)


def predicted_classes(values: Floats) -> NDArray[np.intp]:
    """Return class numbers [m] from outputs [m, classes], or [m, 1] for two classes."""
    if values.shape[1] == 1:
        return (values[:, 0] > 0).astype(np.intp)
    best: NDArray[np.intp] = values.argmax(axis=1)
    return best
