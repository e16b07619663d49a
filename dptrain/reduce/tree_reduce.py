"""The fixed tree over all ranks: one SHA-256 of the parameters, whoever holds the shards."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dptrain.arrays import Floats, Sums
from dptrain.reduce.between import BetweenNodes
from dptrain.reduce.layout import Needs, rank_slices, shared_bytes, sums_left
from dptrain.reduce.reducer import Reducer
from dptrain.reduce.segments import Segments
from dptrain.reduce.sums import Columns, allgather_sums
from dptrain.reduce.within import WithinNode, add
from dptrain.world import World


class TreeReduce(Reducer):
    """The fixed tree, straight from where the models wrote, by whoever owns a part of the vector.

    Within a node nothing is copied: models write into memory that the node's ranks share, and the
    owner of an area adds it for all shards of the node. Between nodes the owners of one area
    exchange these sums, each for its slice of the area, add them in tree order, and update the
    slice; the updated slices go back the same way. That is a reduce-scatter, an optimizer divided
    among all ranks (ZeRO, stage 1) and an allgather.
    """

    def __init__(
        self, world: World, num_params: int, num_shards: int, dtype: Any, together: int = 1
    ) -> None:
        super().__init__(world, num_params, num_shards, together)
        self._within = WithinNode(world, num_params, num_shards, dtype, together)
        self.params, self.writes = self._within.params, self._within.writes
        self.copies = self._within.nodes
        self.slices = rank_slices(num_params, self.copies)
        self._between = BetweenNodes(self._within, self.slices, num_shards, dtype)
        self._firsts = np.array([part.start for part in self.slices if part.stop > part.start])
        self._zeros = np.zeros(len(self._firsts), dtype)

    @staticmethod
    def needs(
        nodes: list[range], num_params: int, num_shards: int, together: int, itemsize: int
    ) -> Needs:
        """See `Reducer.needs`: of each other node what it is left with, and the shared memory."""
        size, slices = nodes[-1].stop, rank_slices(num_params, nodes)
        left = [len(sums_left(ranks, num_shards, size)) for ranks in nodes]
        own = []
        for ranks, of_node in zip(nodes, left, strict=True):
            received = (sum(left) - of_node) * itemsize  # bytes for each entry of a slice
            own += [received * (slices[rank].stop - slices[rank].start) for rank in ranks]
        shared = {
            ranks: sum(shared_bytes(ranks, size, num_shards, together, num_params, itemsize))
            for ranks in nodes
        }
        return Needs(slices, shared, own)

    def least_moved(self) -> tuple[int, int]:
        within, (between, sent) = self._within.entries_moved(), self._between.entries_moved()
        return (within + between) * self.params.itemsize, sent * self.params.itemsize

    def start(self, initial: Callable[[], Floats]) -> None:
        """See `Reducer.start`: a node's first rank does it for all of them.

        Before that each rank writes to its area, so that the memory is near the core that updates
        it: a page lies where it is first written to.
        """
        self.params[self._within.area] = 0
        self._within.params_memory.barrier()
        if self.world.rank == self._within.ranks.start:
            self.params[:] = initial()
        self._within.params_memory.barrier()

    def allgather_sums(self, sums: Sequence[Sums], asks: int) -> tuple[Columns, int]:
        if self.world.size == 1:
            return allgather_sums(self.world, sums, asks, self.num_shards)
        if len(self.copies) == 1:
            return self._within.allgather_sums(sums, asks)
        self._within.memory.sync()
        found = allgather_sums(self.world, sums, asks, self.num_shards)  # waits for every rank
        self._within.memory.sync()
        return found

    def reduce_scatter(self) -> Floats:
        add(self._within.adds)
        return self._between.reduce_scatter()

    def allgather(self, finite: bool = True) -> bool:
        """See `Reducer.allgather`: between nodes the first entry says of a slice what it is."""
        if not finite:
            self.params[self.own_slice][:1] = math.nan
        self._between.allgather()
        fault = self._within.params_memory.barrier(not finite)
        several = len(self.copies) > 1
        return math.isfinite(self.params[self._firsts].dot(self._zeros)) if several else not fault

    def square_norms(self, part: Floats, segments: Segments) -> list[float]:
        """See `Reducer.square_norms`: from the segments of all slices."""
        own = segments.square_sums(part, self.own_slice)
        if self.world.comm is None:
            return segments.square_norms(own)
        found = [segments.within(part) for part in self.slices]
        counts, starts = [len(part) for part in found], [part.start for part in found]
        everyone = np.empty(sum(counts))
        self.world.comm.Allgatherv(own, (everyone, (counts, starts)))
        return segments.square_norms(everyone)

    def close(self) -> Floats:
        self._between.close()
        self.params = self._within.close()
        return self.params
