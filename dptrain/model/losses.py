"""The losses, summed over examples, each with the delta that starts the way back.

An example's loss is a sum over classes for cross-entropy, and a mean over its outputs for the
others, so that the learning rate does not depend on the number of outputs. Over examples every
value here is a sum.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.config import Loss
from dptrain.model.activations import sigmoid

Floats = NDArray[np.floating]


class LossFunction(ABC):
    """The loss of outputs z [m, outputs] for targets y, in two ways: alone, and with its delta."""

    @abstractmethod
    def loss_sum(self, z: Floats, y: NDArray[Any]) -> float:
        """Return the loss summed over examples; z is left as it is."""

    @abstractmethod
    def loss_sum_and_delta(self, z: Floats, y: NDArray[Any]) -> float:
        """Return the loss summed over examples, and replace z by d loss_sum / dz [m, outputs]."""


def _mean_over_outputs(losses: Floats) -> float:
    """Return the sum over examples of each one's mean over its outputs, from [m, outputs]."""
    return float(np.sum(losses, dtype=np.float64)) / int(losses.shape[1])


class CrossEntropy(LossFunction):
    """-log softmax(z)[y], z [m, classes], y class numbers [m]."""

    def loss_sum(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum`."""
        return self.loss_sum_and_delta(z.copy(), y)

    def loss_sum_and_delta(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum_and_delta`: the delta is softmax(z) - onehot(y)."""
        rows = np.arange(len(y))
        z -= z.max(axis=1, keepdims=True)  # softmax stays the same, and exp can't overflow
        picked = z[rows, y]
        np.exp(z, out=z)
        sums = z.sum(axis=1, keepdims=True)
        z /= sums
        z[rows, y] -= 1
        return float(np.sum(np.log(sums[:, 0]) - picked, dtype=np.float64))


class BinaryCrossEntropy(LossFunction):
    """-(y log s + (1 - y) log(1 - s)), s = sigmoid(z), the mean over outputs; y 0 or 1."""

    def loss_sum(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum`: max(z, 0) - z y + log(1 + exp(-|z|))."""
        losses = np.maximum(z, 0) - z * y.reshape(z.shape) + np.log1p(np.exp(-np.abs(z)))
        return _mean_over_outputs(losses)

    def loss_sum_and_delta(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum_and_delta`: the delta is (sigmoid(z) - y) / outputs."""
        loss_sum = self.loss_sum(z, y)
        sigmoid(z, None)
        z -= y.reshape(z.shape)
        z /= z.shape[1]
        return loss_sum


class MeanSquaredError(LossFunction):
    """(z - y)^2, the mean over outputs, without a factor 1/2."""

    def loss_sum(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum`."""
        return self.loss_sum_and_delta(z.copy(), y)

    def loss_sum_and_delta(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum_and_delta`: the delta is 2 (z - y) / outputs."""
        z -= y.reshape(z.shape)
        loss_sum = _mean_over_outputs(np.square(z))
        z *= 2 / z.shape[1]
        return loss_sum


class Huber(LossFunction):
    """e^2 / 2 where |e| <= 1, else |e| - 1/2, for e = z - y (Huber, 1964); mean over outputs."""

    def loss_sum(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum`."""
        return self.loss_sum_and_delta(z.copy(), y)

    def loss_sum_and_delta(self, z: Floats, y: NDArray[Any]) -> float:
        """See `LossFunction.loss_sum_and_delta`: the delta is e cut to [-1, 1], over outputs."""
        z -= y.reshape(z.shape)
        size = np.abs(z)
        np.clip(z, -1, 1, out=z)
        losses = np.abs(z) * (size - 0.5 * np.abs(z))
        z /= z.shape[1]
        return _mean_over_outputs(losses)


LOSSES: dict[Loss, LossFunction] = {
    "cross-entropy": CrossEntropy(),
    "binary-cross-entropy": BinaryCrossEntropy(),
    "mean-squared-error": MeanSquaredError(),
    "huber": Huber(),
}
