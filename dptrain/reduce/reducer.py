"""The gradient's way: from the shards' sums, over all ranks, to the slice that a rank updates."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from dptrain.arrays import Floats, Sums
from dptrain.reduce.layout import Needs, stacks_of
from dptrain.reduce.segments import Segments
from dptrain.reduce.sums import Columns
from dptrain.reduce.wire import receive, send
from dptrain.world import World


class Reducer(ABC):
    """Holds parameters and gradients, adds the shards' sums, says which slice a rank updates.

    In each step: `writes` of each of the rank's stacks, `allgather_sums`, `reduce_scatter`, perhaps
    `norm`, and once the slice is updated `allgather`.
    """

    stacks: list[range]
    """This rank's shards, those together whose gradient sum comes as one: whole subtrees."""

    writes: dict[range, AbstractContextManager[Floats]]
    """For each of `stacks` a block in which to write its gradient sum, once a step, in their order.
    It gives where to, shape [num_params], contents undefined, which is not this stack's any more
    once the block is left."""

    params: Floats
    """The parameters [num_params], of which ranks that share memory have one copy."""

    slices: list[slice]
    """The part of the vector that each rank updates; `own_slice` is this rank's."""

    copies: list[range]
    """The ranks that read one and the same copy of the parameters, for each copy."""

    def __init__(self, world: World, num_params: int, num_shards: int, together: int) -> None:
        self.world = world
        self.num_params = num_params
        self.num_shards = num_shards
        self.stacks = stacks_of(world.mine(num_shards), num_shards, together)

    @staticmethod
    @abstractmethod
    def needs(
        nodes: list[range], num_params: int, num_shards: int, together: int, itemsize: int
    ) -> Needs:
        """Return what a reducer takes, nothing allocated; `nodes` are the ranks of each node."""

    @abstractmethod
    def least_moved(self) -> tuple[int, int]:
        """Return the bytes that this rank must move in a step: in memory, and to other ranks by
        messages. Sums are read where they were written, and written where they are needed.
        """

    @property
    def own_slice(self) -> slice:
        """The part of the vector that this rank updates."""
        return self.slices[self.world.rank]

    @abstractmethod
    def start(self, initial: Callable[[], Floats]) -> None:
        """Set the parameters to start from, computed once for each copy.

        Collective: every rank must call this.
        """

    @abstractmethod
    def allgather_sums(self, sums: Sequence[Sums], asks: int) -> tuple[Columns, int]:
        """Say that this rank's shards are done, and wait for the others: also a barrier.

        Takes the small sums of this rank's shards; returns those of all shards, and what
        any rank asks for: the bits of all, below 2**32. Collective: every rank must call this.
        """

    @abstractmethod
    def reduce_scatter(self) -> Floats:
        """Return the sum over all shards of this rank's slice, valid until `allgather`.

        Collective: every rank must call this, after `allgather_sums`.
        """

    @abstractmethod
    def allgather(self, finite: bool = True) -> bool:
        """Let every rank have the slices of the parameters that the others have updated.

        Takes whether this rank's slice came out finite, and returns whether all did; else the
        parameters are of no use any more. Collective: every rank must call this.
        """

    @abstractmethod
    def square_norms(self, part: Floats, segments: Segments) -> list[float]:
        """Return the square norm of each array of a vector of which `part` is this rank's slice.

        Collective: every rank must call this.
        """

    def norm(self, gradient: Floats, segments: Segments) -> float:
        """Return the Euclidean norm of the whole gradient of which this is the rank's slice.

        Collective: every rank must call this.
        """
        return math.sqrt(segments.total(self.square_norms(gradient, segments)))

    def gather(self, part: Floats) -> Floats | None:
        """Return, on rank 0, a vector [..., num_params] of which each rank has its slice [..., n].

        A copy, which further steps don't change; None on the other ranks. Collective: every rank
        must call this.
        """
        world = self.world
        if world.rank > 0:
            for row in np.atleast_2d(part):
                send(world, row, 0)
            return None
        whole = np.empty((*part.shape[:-1], self.num_params), part.dtype)
        whole[..., self.own_slice] = part
        for rank in range(1, world.size):
            for row in np.atleast_2d(whole):
                receive(world, row[self.slices[rank]], rank)
        return whole

    def scatter(self, whole: Floats | None, part: Floats) -> None:
        """Set each rank's slice [..., n] from rank 0's vector [..., num_params]; see `gather`.

        Collective: every rank must call this.
        """
        world = self.world
        if whole is None:
            for row in np.atleast_2d(part):
                receive(world, row, 0)
            return
        for rank in range(1, world.size):
            for row in np.atleast_2d(whole):
                send(world, row[self.slices[rank]], rank)
        part[:] = whole[..., self.own_slice]

    @abstractmethod
    def close(self) -> Floats:
        """Give shared memory back, and return the parameters as an array of this rank's own.

        Nothing else of the reducer may be used after. Collective: every rank must call this.
        """
