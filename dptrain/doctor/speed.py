"""How long it takes to add a vector over all ranks and to hand it back, in the tree."""

import statistics
import time
from typing import Any

import numpy as np

from dptrain.arrays import Sums
from dptrain.reduce.tree_reduce import TreeReduce
from dptrain.world import World

ROUND = 0.1
"""Seconds of a round, of which there are 5."""


def exchange_seconds(world: World, num_params: int, dtype: Any) -> float:
    """Return the seconds of one exchange: one shard a rank is reported, added and shared.

    The median of 5 rounds; of each the slowest rank's. Collective: every rank must call this.
    """
    reducer = TreeReduce(world, num_params, world.size, dtype)
    reducer.start(lambda: np.zeros(num_params, dtype))
    with reducer.write(world.rank) as gradient:
        gradient[:] = 0

    def took(times: int) -> float:
        world.allgather(None)
        start = time.perf_counter()
        for _ in range(times):
            reducer.allgather_sums([Sums(0.0, 1.0)], 0)
            reducer.reduce_scatter()
            reducer.allgather()
        slowest: float = max(world.allgather((time.perf_counter() - start) / times))
        return slowest

    took(1)
    times = max(1, min(10000, int(ROUND / took(3))))
    found = statistics.median(took(times) for _ in range(5))
    reducer.close()
    return found
