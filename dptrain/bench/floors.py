"""What a step moves at least, in bytes and operations: the floors beside which times are shown."""

from collections.abc import Callable, Sequence

import numpy as np

from dptrain.arrays import Array
from dptrain.train.state import Training
from dptrain.world import World


def least(run: Training, inputs: Sequence[Array], world: World) -> dict[str, int]:
    """Return the bytes that this rank must move in memory in a step at the least, by part; those
    that it sends to other nodes, as "network"; and the model's additions and multiplications, as
    "flop", which are 0 for one that does not say.

    Data reads and writes the rows, `inputs` of each shard. The optimizer reads the gradient, and
    reads and writes parameters and state. The reducer knows by itself.
    """
    ask: Callable[[int], int] | None = getattr(run.model, "flop", None)
    own = len(run.params) * np.dtype(run.model.dtype).itemsize
    reducing, network = run.reducer.least_moved()
    return {
        "data": 2 * sum(x.nbytes for x in inputs),
        "flop": sum(ask(len(x)) for x in inputs) if ask else 0,
        "reducing": reducing,
        "network": network if len(world.nodes) > 1 else 0,
        "optimizer": (3 + 2 * sum(len(state) for state in run.optimizer.state)) * own,
    }
