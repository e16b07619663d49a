"""The tree between nodes: what the owners of one area exchange, and in which order they add it."""

from typing import Any

import numpy as np

from dptrain.arrays import Floats
from dptrain.reduce.layout import sums_left
from dptrain.reduce.tree import plan
from dptrain.reduce.wire import Message, Wire
from dptrain.reduce.within import Adds, WithinNode, add

SUMS, PARAMS = range(2)
"""What is sent in a step: gradient sums, and the parameters updated by them."""


class BetweenNodes:
    """This rank's part in it, as the owner of an area on its node: of that area its slice.

    It sends the others' slices of its node's sums and receives its own of theirs, adds these in the
    order of the tree, and once the slice is updated sends it to all and receives the others'.
    """

    total: Floats
    """This rank's slice of the sum over all shards, once `reduce_scatter` is done."""

    def __init__(
        self, within: WithinNode, slices: list[slice], num_shards: int, dtype: Any
    ) -> None:
        world, own = within.world, slices[within.world.rank]
        owner, owners = world.rank - within.ranks.start, min(map(len, within.nodes))
        sums: list[tuple[Floats, range]] = []
        sums_out, sums_in, params_out, params_in = (list[Message]() for _ in range(4))
        for ranks in within.nodes if owner < owners else []:
            peer = ranks[owner]
            if peer == world.rank:
                sums += [(array[own], shards) for array, shards in within.sums]
                continue
            sums_out += [(array[slices[peer]], peer) for array, _ in within.sums]
            for shards in sums_left(ranks, num_shards, world.size):
                array = np.empty(own.stop - own.start, dtype)
                sums_in.append((array, peer))
                sums.append((array, shards))
            params_out.append((within.params[own], peer))
            params_in.append((within.params[slices[peer]], peer))
        self._several, self._num_sums = len(within.nodes) > 1, len(sums)
        across = plan([shards for _, shards in sums], num_shards)
        self._adds: Adds = []
        for pairs in across.adds:
            self._adds += [(sums[into][0], sums[what][0]) for into, what in pairs]
        self.total = sums[0][0] if sums else np.empty(0, dtype)
        self._num_sent = sum(len(vector) for vector, _ in (*sums_out, *params_out))
        self.sums_in = sums_in
        self._wire = Wire(world, [(sums_out, sums_in), (params_out, params_in)])

    def reduce_scatter(self) -> Floats:
        """Return this rank's slice of the sum over all nodes. Collective."""
        if self._several:
            self._wire.start(SUMS)
            self._wire.wait(SUMS)
            add(self._adds)
        return self.total

    def allgather(self) -> None:
        """Send this rank's slice of the parameters and receive the others'. Collective."""
        if self._several:
            self._wire.start(PARAMS)
            self._wire.wait(PARAMS)

    def entries_moved(self) -> tuple[int, int]:
        """Return the entries that adding reads and writes at the least, and those that are sent."""
        added = (self._num_sums + 1) * len(self.total) * (self._num_sent > 0)
        return added, self._num_sent

    def close(self) -> None:
        """Let go of all arrays."""
        self._wire.close()
        self._adds, self.total = [], np.empty(0)
