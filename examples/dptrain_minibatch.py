"""Step 4 of 4, after mpi_minibatch.py: the same step by dptrain, on any number of processes.

dptrain asks a model for sums over the examples of a shard, as steps 2 and 3 had them, and does
the rest: it cuts the minibatch into shards, adds the shards' sums in one fixed order, divides
once, updates. Softsign is not among the activations of dptrain's own networks, so this network is
a class of one's own; its mathematics is that of step 2, word for word.

    python examples/dptrain_minibatch.py
    mpirun -n 3 python examples/dptrain_minibatch.py

Both print the same SHA-256: here the number of processes does not even change the last bit. The
examples come in a random order, which changes only how the four numbers of a sum are grouped.
"""

import tempfile
from pathlib import Path

import numpy as np
from numpy_minibatch import (
    LEARNING_RATE,
    NAMES,
    START,
    TARGET,
    Array,
    X,
    forward,
    gradient_sum,
    loss_sum,
    show,
)

import dptrain


class Softsign221:
    """The network of the steps before; keeps dptrain.Model."""

    dtype = np.float64
    layout = (dptrain.Param("weights", START.shape),)

    def initial_params(self, _: object) -> Array:
        """Start where the steps before did; no random number is needed."""
        return START

    def loss_and_grad_sum(
        self, params: Array, x: Array, y: Array, weights: object, out: Array, _: object
    ) -> tuple[float, float]:
        """Write a shard's gradient sum to `out`; return its loss sum, and how much it weighs."""
        out[:] = gradient_sum(params, x, y)
        return self.loss_sum(self.outputs(params, x), y, weights)

    def outputs(self, params: Array, x: Array) -> Array:
        """Return y, one for each example."""
        return forward(params, x)[1]

    def loss_sum(self, outputs: Array, y: Array, _: object) -> tuple[float, float]:
        """Return the sum over the examples, and their weight: 1 each."""
        return loss_sum(outputs, y), float(len(y))


def main() -> None:
    world, model = dptrain.connect(), Softsign221()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "four.npz"), x=X, y=TARGET)
        data = dptrain.load(Path(folder, "four.npz"), dptrain.DataConfig(scale="none"))
    config = dptrain.TrainConfig(
        shards=4, batch_size=4, steps=1, optimizer="sgd", learning_rate=LEARNING_RATE
    )
    trained = dptrain.fit(model, data, config)
    if world.rank == 0:
        print(" " * 7 + "".join(f"{name:>8}" for name in NAMES))
        show("start", START)
        show("mean", (START - trained.params) / LEARNING_RATE)
        show("new", trained.params)
        after = loss_sum(model.outputs(trained.params, X), TARGET) / len(X)
        print(f"mean loss before {trained.summary['train_loss']:.4f}, after {after:.4f}")
        print(f"sha256 {trained.summary['params_sha256']}")


if __name__ == "__main__":
    main()
