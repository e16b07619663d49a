"""Step 4 of 4, after mpi_minibatch.py: the same step by dptrain, on any number of processes.

dptrain has all that the steps before wrote out: a network with tanh and the squared loss, whose
arrays stand in one vector in the order of START; the minibatch cut into shards; the sums of the
shards' gradients, added in one fixed order; one division; the update. New is only where to start.

    python examples/dptrain_minibatch.py
    mpirun -n 3 python examples/dptrain_minibatch.py

Both print the same SHA-256: here the number of processes does not even change the last bit. The
examples come in a random order, which changes only how the four numbers of a sum are grouped. The
run is kept in runs/dptrain_minibatch; `dptrain verify runs/dptrain_minibatch` looks at its receipt.
"""

from pathlib import Path

import numpy as np
from numpy_minibatch import LEARNING_RATE, NAMES, START, TARGET, Array, X, loss_sum, show

import dptrain

RUN = Path("runs", "dptrain_minibatch")


class FromStart(dptrain.MLP):
    """dptrain's own network, but for the parameters that it starts from."""

    def initial_params(self, _: np.random.Generator) -> Array:
        """Start where the steps before did; no random number is needed."""
        return START.copy()


def main() -> None:
    world = dptrain.connect()
    model = FromStart([2, 2, 1], activation="tanh", loss="mean-squared-error", dtype="float64")
    data = dptrain.load((X, TARGET), dptrain.DataConfig(task="regression", scale="none"))
    config = dptrain.TrainConfig(
        shards=4, batch_size=4, steps=1, optimizer="sgd", learning_rate=LEARNING_RATE
    )
    trained = dptrain.fit(model, data, config, out=RUN, resume=RUN.exists())
    if world.rank == 0:
        print(" " * 7 + "".join(f"{name:>8}" for name in NAMES))
        show("start", START)
        show("mean", (START - trained.params) / LEARNING_RATE)
        show("new", trained.params)
        after = loss_sum(model.outputs(trained.params, X)[:, 0], TARGET) / len(X)
        print(f"mean loss before {trained.summary.metrics['train_loss']:.4f}, after {after:.4f}")
        print(f"sha256 {trained.summary.params_sha256}")


if __name__ == "__main__":
    main()
