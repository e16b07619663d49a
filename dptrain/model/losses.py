"""The losses, summed over examples, each with the delta that starts the way back.

An example's loss is a sum over classes for cross-entropy, and a mean over its outputs for the
others, so that the learning rate does not depend on the number of outputs. Over examples every
value here is a sum.
"""

import functools
import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats, Sums, Weights
from dptrain.config import Loss, LossChoice, Task
from dptrain.model import weight_sum
from dptrain.model.activations import sigmoid
from dptrain.words import InputError


class LossFunction(ABC):
    """The loss of outputs z [m, outputs] for targets y."""

    def sums_and_delta(self, z: Floats, y: Array, work: Floats, weights: Weights = None) -> Sums:
        """Return the examples' sums, and replace z by d loss_sum / dz [m, outputs].

        `work` [m, outputs] is memory to compute in; `weights` [m] are the examples', 1 unless
        given.
        """
        loss_sum, right_sum = self.of_each(z, y, work, weights)
        if weights is not None:
            np.multiply(z, weights[:, None], out=z, casting="same_kind")
        return Sums(loss_sum, weight_sum(weights, len(z)), right_sum)

    @abstractmethod
    def of_each(self, z: Floats, y: Array, work: Floats, weights: Weights) -> tuple[float, float]:
        """Do the same, but for the weights, which the delta does not have yet.

        Returns the sum of the losses, and that of what is right.
        """

    def sums(self, z: Floats, y: Array, weights: Weights = None) -> Sums:
        """Return the examples' sums; z is left as it is."""
        return self.sums_and_delta(z.copy(), y, np.empty_like(z), weights)

    def right_sum(self, z: Floats, y: Array, weights: Weights) -> float:
        """Return what examples weigh that z says rightly; NaN where values are no classes."""
        return math.nan

    def probabilities(self, z: Floats) -> Floats:
        """Return what outputs mean, as a new array [m, outputs]: values unless said otherwise."""
        return z.copy()


@functools.lru_cache(16)
def row_starts(shape: tuple[int, int]) -> NDArray[np.intp]:
    """Return where the rows [m] of an array begin among its entries; kept, as steps are alike."""
    starts = np.arange(0, math.prod(shape), shape[1])
    starts.flags.writeable = False
    return starts


class CrossEntropy(LossFunction):
    """-log softmax(z)[y], z [m, classes], y class numbers [m]."""

    def of_each(self, z: Floats, y: Array, work: Floats, weights: Weights) -> tuple[float, float]:
        """The delta is softmax(z) - onehot(y)."""
        flat, starts, best = z.reshape(-1), row_starts(z.shape), z.argmax(axis=1)
        peaks, picked = flat[starts + best], starts + y
        np.subtract(z, peaks[:, None], out=z)  # softmax stays the same, and exp can't overflow
        loss_sum = -_sum(flat[picked], weights)
        np.exp(z, out=z)
        sums = np.add.reduce(z, axis=1)
        np.divide(z, sums[:, None], out=z)
        flat[picked] -= 1
        return loss_sum + _sum(np.log(sums), weights), _weight_of(best == y, weights)

    def right_sum(self, z: Floats, y: Array, weights: Weights) -> float:
        """Of largest scores, of equal ones the first, as an evaluation has it."""
        return _weight_of(z.argmax(axis=1) == y, weights)

    def probabilities(self, z: Floats) -> Floats:
        """Softmax."""
        powers: Floats = np.exp(z - z.max(axis=1, keepdims=True))
        powers /= powers.sum(axis=1, keepdims=True)
        return powers


class SmoothedCrossEntropy(CrossEntropy):
    """Cross-entropy for (1 - smoothing) onehot(y) + smoothing / classes (Szegedy et al., 2016).

    What is more than without is smoothing * (z[y] - mean(z)).
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def of_each(self, z: Floats, y: Array, work: Floats, weights: Weights) -> tuple[float, float]:
        """The delta is softmax(z) less the smoothed targets."""
        flat, picked = z.reshape(-1), row_starts(z.shape) + y
        more = self.smoothing * _sum(flat[picked] - z.mean(axis=1), weights)
        loss_sum, right_sum = super().of_each(z, y, work, weights)
        flat[picked] += self.smoothing
        z -= self.smoothing / z.shape[1]
        return loss_sum + more, right_sum


class BinaryCrossEntropy(LossFunction):
    """-(y log s + (1 - y) log(1 - s)), s = sigmoid(z), the mean over outputs; y 0 or 1."""

    def of_each(self, z: Floats, y: Array, work: Floats, weights: Weights) -> tuple[float, float]:
        """The delta is (sigmoid(z) - y) / outputs.

        The loss is max(z, 0) - z y + log(1 + exp(-|z|)), which can't overflow.
        """
        targets, right_sum = y.reshape(z.shape), self.right_sum(z, y, weights)
        np.multiply(z, targets, out=work)
        loss_sum = -_sum(work, weights)
        np.maximum(z, 0, out=work)
        loss_sum += _sum(work, weights)
        np.copysign(z, -1, out=work)
        np.exp(work, out=work)
        np.log1p(work, out=work)
        loss_sum += _sum(work, weights)
        sigmoid(z, None)
        z -= targets
        z /= z.shape[1]
        return loss_sum / int(z.shape[1]), right_sum

    def right_sum(self, z: Floats, y: Array, weights: Weights) -> float:
        """Of examples all of whose labels are right."""
        return _weight_of(((z > 0) == y.reshape(z.shape)).all(axis=1), weights)

    def probabilities(self, z: Floats) -> Floats:
        """The sigmoid of each output."""
        result = z.copy()
        sigmoid(result, None)
        return result


class MeanSquaredError(LossFunction):
    """(z - y)^2, the mean over outputs, without a factor 1/2."""

    def of_each(self, z: Floats, y: Array, work: Floats, weights: Weights) -> tuple[float, float]:
        """The delta is 2 (z - y) / outputs."""
        z -= y.reshape(z.shape)
        np.multiply(z, z, out=work)
        z *= 2 / z.shape[1]
        return _sum(work, weights) / int(z.shape[1]), math.nan


class Huber(LossFunction):
    """e^2 / 2 where |e| <= 1, else |e| - 1/2, for e = z - y (Huber, 1964); mean over outputs."""

    def of_each(self, z: Floats, y: Array, work: Floats, weights: Weights) -> tuple[float, float]:
        """The delta is e cut to [-1, 1], over outputs.

        With c = e cut to [-1, 1], the loss is c e - c c / 2.
        """
        z -= y.reshape(z.shape)
        np.copyto(work, z)
        np.clip(z, -1, 1, out=z)
        work *= z
        loss_sum = _sum(work, weights)
        np.multiply(z, z, out=work)
        z /= z.shape[1]
        return (loss_sum - _sum(work, weights) / 2) / int(z.shape[1]), math.nan


def _sum(values: Floats, weights: Weights) -> float:
    """Return the sum of all entries, each times its row's weight, added in float64."""
    if weights is None:
        return float(np.add.reduce(values, None, np.float64))
    rows = values.reshape(len(values), math.prod(values.shape[1:]))  # of no row, too
    return float(np.add.reduce(np.add.reduce(rows, axis=1, dtype=np.float64) * weights))


def _weight_of(right: NDArray[np.bool], weights: Weights) -> float:
    """Return what those rows weigh."""
    if weights is None:
        return float(right.tobytes().count(1))  # a third less than NumPy's own takes
    return float(np.add.reduce(weights[right]))


LOSSES: dict[Loss, LossFunction] = {
    "cross-entropy": CrossEntropy(),
    "binary-cross-entropy": BinaryCrossEntropy(),
    "mean-squared-error": MeanSquaredError(),
    "huber": Huber(),
}


def loss_for(asked: LossChoice, task: Task, classes: int) -> Loss:
    """Return the loss for a task, or the one that is asked for; InputError where it doesn't fit."""
    both: tuple[Loss, ...] = ("cross-entropy", "binary-cross-entropy")
    fits: dict[Task, tuple[Loss, ...]] = {
        "classification": both if classes == 2 else both[:1],
        "multilabel": both[1:],
        "regression": ("mean-squared-error", "huber"),
    }
    loss = fits[task][0] if asked == "auto" else asked
    if loss not in fits[task]:
        about = f"{task} of {classes} classes" if classes else task
        raise InputError(f"loss is {loss!r}; for {about} it can be {' or '.join(fits[task])}")
    return loss
