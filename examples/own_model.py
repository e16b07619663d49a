"""A model of one's own: softmax regression in a screenful, trained on any number of processes.

The training loop knows a model by what stands in this class, and nothing else. It hands out a
shard's examples and a buffer, and takes back sums: over examples, not their means. It divides once,
by the weight of the whole minibatch: its size, where each example counts 1. So the result is free
of the number of processes:

    python examples/own_model.py
    mpirun -n 3 python examples/own_model.py

The run is kept in runs/own_model, and goes on from there where it was stopped.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dptrain

Floats = NDArray[np.floating]
Weights = NDArray[np.float64] | None


class SoftmaxRegression:
    """Scores x @ weight, weight [features, classes], with cross-entropy; keeps dptrain.Model."""

    dtype = np.float64

    def __init__(self, num_features: int, num_classes: int) -> None:
        self.shape = (num_features, num_classes)
        self.layout = [dptrain.Param("weight", self.shape)]

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return the parameters to start from, one flat vector."""
        return 0.01 * rng.standard_normal(np.prod(self.shape))

    def loss_and_grad_sum(
        self, params: Floats, x: Floats, y: NDArray[Any], weights: Weights, out: Floats, _: object
    ) -> dptrain.Sums:
        """Return the sums of losses and of weights, and write that of the gradients to out.

        The last argument makes random numbers for the shard, for a model that wants some.
        """
        scores = self.outputs(params, x)
        delta = np.exp(scores - scores.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)  # one column of deltas per class, a row each
        delta[np.arange(len(y)), y] -= 1
        if weights is not None:
            delta *= weights[:, None]
        np.matmul(x.T, delta, out=out.reshape(self.shape))  # this product adds up the examples
        return self.loss_sum(scores, y, weights)

    def outputs(self, params: Floats, x: Floats) -> Floats:
        """Return the scores [examples, classes]."""
        scores: Floats = x @ params.reshape(self.shape)
        return scores

    def loss_sum(self, outputs: Floats, y: NDArray[Any], weights: Weights) -> dptrain.Sums:
        """Return the sums of -log softmax(outputs)[y], of weights, and of what is said rightly."""
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=1))
        losses = log_sums - shifted[np.arange(len(y)), y]
        each = np.ones(len(y)) if weights is None else weights
        right = outputs.argmax(axis=1) == y
        return dptrain.Sums(float(losses @ each), float(each.sum()), float(right @ each))


def main() -> None:
    """Train on the embedded digits with one result, whoever computes what."""
    world = dptrain.connect()
    data = dptrain.load(config=dptrain.DataConfig(scale="standard"))  # else whole numbers stay so
    model = SoftmaxRegression(num_features=64, num_classes=10)
    config, run = dptrain.TrainConfig(learning_rate=0.005), Path("runs", "own_model")
    trained = dptrain.fit(model, data, config, out=run, resume=run.exists())
    if world.rank == 0:
        accuracy, digest = trained.summary.metrics["test_accuracy"], trained.summary.params_sha256
        print(f"test accuracy {accuracy:.4f}  sha256 {digest}")


if __name__ == "__main__":
    main()
