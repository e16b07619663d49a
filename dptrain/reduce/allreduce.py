"""The idea as code: an allreduce adds the shares, and every rank applies the same update."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dptrain.arrays import Floats, Sums
from dptrain.reduce.layout import Needs, stacks_of
from dptrain.reduce.reducer import Reducer
from dptrain.reduce.segments import Segments
from dptrain.reduce.sums import Columns, allgather_sums
from dptrain.reduce.wire import pieces
from dptrain.world import World, cut


class AllReduce(Reducer):
    """MPI's own Allreduce on the whole vector. Its bits depend on the ranks."""

    def __init__(
        self, world: World, num_params: int, num_shards: int, dtype: Any, together: int = 1
    ) -> None:
        super().__init__(world, num_params, num_shards, together)
        self.params = np.empty(num_params, dtype)
        self.slices = [slice(0, num_params)] * world.size
        self.copies = [range(rank, rank + 1) for rank in range(world.size)]
        self._sums = np.empty((len(self.stacks), num_params), dtype)
        into = map(contextlib.nullcontext[Floats], self._sums)
        self.writes = dict(zip(self.stacks, into, strict=True))
        self._total = np.empty(num_params, dtype)

    @staticmethod
    def needs(
        nodes: list[range], num_params: int, num_shards: int, together: int, itemsize: int
    ) -> Needs:
        """See `Reducer.needs`: parameters, their gradient, and a gradient for each stack."""
        size = nodes[-1].stop
        held = [stacks_of(cut(num_shards, size, r), num_shards, together) for r in range(size)]
        own = [(2 + len(stacks)) * num_params * itemsize for stacks in held]
        return Needs([slice(0, num_params)] * size, dict.fromkeys(nodes, 0), own)

    def least_moved(self) -> tuple[int, int]:
        """See `Reducer.least_moved`: each stack's is read, and their sum written and sent."""
        total = self._total.nbytes
        return self._sums.nbytes + total, total * (self.world.size > 1)

    def start(self, initial: Callable[[], Floats]) -> None:
        """See `Reducer.start`: every rank has its own copy."""
        self.params[:] = initial()

    def allgather_sums(self, sums: Sequence[Sums], asks: int) -> tuple[Columns, int]:
        return allgather_sums(self.world, sums, asks, self.num_shards)

    def reduce_scatter(self) -> Floats:
        """See `Reducer.reduce_scatter`: of the whole vector."""
        np.sum(self._sums, axis=0, out=self._total)
        if self.world.comm is not None:
            from mpi4py import MPI

            for piece in pieces(self._total):
                self.world.comm.Allreduce(MPI.IN_PLACE, piece)
        return self._total

    def allgather(self, finite: bool = True) -> bool:
        """See `Reducer.allgather`: every rank has updated the whole vector."""
        return finite

    def gather(self, part: Floats) -> Floats | None:
        """See `Reducer.gather`: every rank has it whole."""
        return part.copy() if self.world.rank == 0 else None

    def square_norms(self, part: Floats, segments: Segments) -> list[float]:
        """See `Reducer.square_norms`: every rank has the vector whole."""
        return segments.square_norms(segments.square_sums(part, self.own_slice))

    def close(self) -> Floats:
        return self.params
