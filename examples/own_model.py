"""A model of one's own: softmax regression in a screenful, trained on any number of processes.

The training loop knows a model by what stands in this class, and nothing else. It hands out a
shard's examples and a buffer, and takes back two sums: over examples, not their means. It divides
once, by the size of the whole minibatch, so the result is free of the number of processes:

    python examples/own_model.py
    mpirun -n 3 python examples/own_model.py
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import dptrain

Floats = NDArray[np.floating]


class SoftmaxRegression:
    """Scores x @ weight, weight [features, classes], with cross-entropy; keeps dptrain.Model."""

    dtype = np.float64

    def __init__(self, num_features: int, num_classes: int) -> None:
        self.shape = (num_features, num_classes)
        self.num_params = num_features * num_classes

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return the parameters to start from, shape [num_params]."""
        return 0.01 * rng.standard_normal(self.num_params)

    def loss_and_grad_sum(
        self, params: Floats, x: Floats, y: NDArray[Any], out: Floats, _: object
    ) -> float:
        """Return the sum of the losses, and write the sum of their gradients to out.

        The last argument makes random numbers for the shard, for a model that wants some.
        """
        scores = self.outputs(params, x)
        delta = np.exp(scores - scores.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)  # one column of deltas per class, a row each
        delta[np.arange(len(y)), y] -= 1
        np.matmul(x.T, delta, out=out.reshape(self.shape))  # this product adds up the examples
        return self.loss_sum(scores, y)

    def outputs(self, params: Floats, x: Floats) -> Floats:
        """Return the scores [examples, classes]."""
        scores: Floats = x @ params.reshape(self.shape)
        return scores

    def loss_sum(self, outputs: Floats, y: NDArray[Any]) -> float:
        """Return the sum of -log softmax(outputs)[y] over the examples."""
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=1))
        return float(np.sum(log_sums - shifted[np.arange(len(y)), y]))


def main() -> None:
    """Train on the embedded digits with one result, whoever computes what."""
    world = dptrain.connect()
    data = dptrain.load()
    model = SoftmaxRegression(num_features=64, num_classes=10)
    trained = dptrain.fit(model, data, dptrain.TrainConfig(learning_rate=0.005))
    if world.rank == 0:
        found = trained.summary
        print(f"test accuracy {found['test_accuracy']:.4f}  sha256 {found['params_sha256']}")


if __name__ == "__main__":
    main()
