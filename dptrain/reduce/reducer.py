"""The gradient's way: from the shards' sums, over all ranks, to the slice that a rank updates."""

import functools
import math
import operator
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dptrain.arrays import Floats
from dptrain.config import Reduction
from dptrain.reduce.layout import (
    BLOCK,
    areas,
    block_square_sums,
    holding,
    rank_slices,
    shared_bytes,
    square_norm,
)
from dptrain.reduce.memory import SHM, NodeMemory, free_bytes
from dptrain.reduce.sums import Sums, allgather_sums
from dptrain.reduce.tree import plan, tree_sum
from dptrain.streams import tell
from dptrain.world import World, cut

CACHED = 65536
"""Entries that are added at a time: few enough for the sums of a node's shards to stay in cache."""

LARGEST = 2**18
"""Entries in a message. Measured: over 1 Gbit/s such pieces take 1.06 times the link's time, whole
slices 1.2 to 1.6 times; and some MPI libraries can't count beyond 2**31 - 1."""


class Reducer(ABC):
    """Holds parameters and gradients, adds the shards' sums, says which slice a rank updates."""

    params: Floats
    """The parameters [num_params], of which ranks that share memory have one copy."""

    slices: list[slice]
    """The part of the vector that each rank updates; `own_slice` is this rank's."""

    copies: list[range]
    """The ranks that read one and the same copy of the parameters, for each copy."""

    def __init__(self, world: World, num_params: int, num_shards: int) -> None:
        self.world = world
        self.num_params = num_params
        self.num_shards = num_shards

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
    def buffer(self, shard: int) -> Floats:
        """Return where to write a shard's gradient sum, shape [num_params], contents undefined.

        To be asked for each of the rank's shards in ascending order, once a step.
        """

    @abstractmethod
    def report(self, sums: Sequence[Sums], asks: int) -> tuple[Sequence[Sums], int]:
        """Say that this rank's shards are done, and wait for the others.

        Takes the loss and weight sums of this rank's shards; returns those of all shards, and what
        any rank asks for: the bits of all, below 2**32. Collective: every rank must call this.
        """

    @abstractmethod
    def sum(self) -> Floats:
        """Return the sum over all shards of this rank's slice, valid until `share`.

        Collective: every rank must call this, after `report`.
        """

    @abstractmethod
    def share(self, finite: bool = True) -> bool:
        """Let every rank have the slices of the parameters that the others have updated.

        Takes whether this rank's slice came out finite, and returns whether all did; else the
        parameters are of no use any more. Collective: every rank must call this.
        """

    @abstractmethod
    def norm(self, gradient: Floats) -> float:
        """Return the Euclidean norm of the whole vector of which `gradient` is this rank's slice.

        Collective: every rank must call this.
        """

    def collect(self, part: Floats) -> Floats | None:
        """Return, on rank 0, a vector [..., num_params] of which each rank has its slice [..., n].

        A copy, which further steps don't change; None on the other ranks. Collective: every rank
        must call this.
        """
        world = self.world
        if world.rank > 0:
            for row in np.atleast_2d(part):
                _send(world, row, 0)
            return None
        whole = np.empty((*part.shape[:-1], self.num_params), part.dtype)
        whole[..., self.own_slice] = part
        for rank in range(1, world.size):
            for row in np.atleast_2d(whole):
                _receive(world, row[self.slices[rank]], rank)
        return whole

    def deal(self, whole: Floats | None, part: Floats) -> None:
        """Set each rank's slice [..., n] from rank 0's vector [..., num_params]; see `collect`.

        Collective: every rank must call this.
        """
        world = self.world
        if whole is None:
            for row in np.atleast_2d(part):
                _receive(world, row, 0)
            return
        for rank in range(1, world.size):
            for row in np.atleast_2d(whole):
                _send(world, row[self.slices[rank]], rank)
        part[:] = whole[..., self.own_slice]

    @abstractmethod
    def close(self) -> Floats:
        """Give shared memory back, and return the parameters as an array of this rank's own.

        Nothing else of the reducer may be used after. Collective: every rank must call this.
        """


def _send(world: World, vector: Floats, rank: int) -> None:
    """Send a vector in messages of a size that MPI can count; `_receive` takes them."""
    for first in range(0, len(vector), LARGEST):
        world.comm.Send(vector[first : first + LARGEST], rank)


def _receive(world: World, vector: Floats, rank: int) -> None:
    """Receive a vector, contiguous, into its place."""
    for first in range(0, len(vector), LARGEST):
        world.comm.Recv(vector[first : first + LARGEST], rank)


class AllReduce(Reducer):
    """The reference: MPI's own Allreduce on the whole vector. Its bits depend on the ranks."""

    def __init__(self, world: World, num_params: int, num_shards: int, dtype: Any) -> None:
        super().__init__(world, num_params, num_shards)
        self.params = np.empty(num_params, dtype)
        self.slices = [slice(0, num_params)] * world.size
        self.copies = [range(rank, rank + 1) for rank in range(world.size)]
        self._shards = np.empty((len(world.mine(num_shards)), num_params), dtype)
        self._total = np.empty(num_params, dtype)

    def start(self, initial: Callable[[], Floats]) -> None:
        """See `Reducer.start`: every rank has its own copy."""
        self.params[:] = initial()

    def buffer(self, shard: int) -> Floats:
        """See `Reducer.buffer`."""
        out: Floats = self._shards[shard - self.world.mine(self.num_shards).start]
        return out

    def report(self, sums: Sequence[Sums], asks: int) -> tuple[Sequence[Sums], int]:
        """See `Reducer.report`."""
        return allgather_sums(self.world, sums, asks, self.num_shards)

    def sum(self) -> Floats:
        """See `Reducer.sum`: of the whole vector."""
        np.sum(self._shards, axis=0, out=self._total)
        if self.world.comm is not None:
            from mpi4py import MPI

            for first in range(0, self.num_params, LARGEST):
                self.world.comm.Allreduce(MPI.IN_PLACE, self._total[first : first + LARGEST])
        return self._total

    def share(self, finite: bool = True) -> bool:
        """See `Reducer.share`: every rank has updated the whole vector."""
        return finite

    def collect(self, part: Floats) -> Floats | None:
        """See `Reducer.collect`: every rank has it whole."""
        return part.copy() if self.world.rank == 0 else None

    def norm(self, gradient: Floats) -> float:
        """See `Reducer.norm`: every rank has the gradient whole."""
        return math.sqrt(square_norm(gradient))

    def close(self) -> Floats:
        """See `Reducer.close`."""
        return self.params


class Tree(Reducer):
    """The fixed tree: one SHA-256 of the parameters, whoever holds the shards.

    Within a node nothing is copied: models write into memory that the node's ranks share, the
    vector is cut into one area a rank, and its owner adds the area of all shards of the node,
    straight from where the models wrote them. Between nodes the owners of one area exchange these
    sums, each for its slice of the area, add them in tree order, and update the slice; the updated
    slices go back the same way. That is a reduce-scatter, an optimizer divided among all ranks
    (ZeRO, stage 1) and an allgather. Where no memory is shared, each rank is a node of its own.
    """

    def __init__(self, world: World, num_params: int, num_shards: int, dtype: Any) -> None:
        super().__init__(world, num_params, num_shards)
        held = [cut(num_shards, world.size, rank) for rank in range(world.size)]
        self._holdings = [holding(shards, num_shards) for shards in held]
        self._held = held[world.rank]
        self._take_memory(np.dtype(dtype).itemsize)
        self._node = next(ranks for ranks in self._nodes if world.rank in ranks)
        self.copies = self._nodes
        self.slices = rank_slices(num_params, self._nodes)
        self._lay_out(dtype)
        self._firsts = np.array([part.start for part in self.slices if part.stop > part.start])
        self._zeros = np.zeros(len(self._firsts), dtype)
        self._plan_within_the_node()
        self._plan_between_nodes(dtype)

    def _take_memory(self, itemsize: int) -> None:
        """Take each node's memory; where one has too little of it, each rank's own."""
        world, here = self.world, self.world.ranks_here
        needed, free, fault = self._bytes(here, itemsize), free_bytes(), ""
        taken: list[NodeMemory] = []
        try:
            for num_bytes in needed:
                memory = NodeMemory(world.node_comm if len(here) > 1 else None, num_bytes)
                taken.append(memory)
        except OSError as error:
            why = "" if free < sum(needed) else f" but refuses ({error.strerror})"
            fault = (
                f"{SHM} of {socket.gethostname()} has {free / 1e6:,.1f} MB free{why}, and "
                f"{sum(needed) / 1e6:,.1f} MB are needed"
            )
        faults = [fault for fault in world.allgather(fault) if fault]
        self._nodes = world.nodes
        if faults:
            for memory in taken:
                memory.free()
            self._nodes = [range(rank, rank + 1) for rank in range(world.size)]
            own = self._bytes(self._nodes[world.rank], itemsize)
            taken = [NodeMemory(None, num_bytes) for num_bytes in own]
        if faults and world.rank == 0:
            tell(
                f"gradients go by messages, which is slower: {faults[0]}. More: "
                "mount -o remount,size=... /dev/shm, or docker run --shm-size=..."
            )
        self._memory, self._params_memory = taken

    def _bytes(self, ranks: range, itemsize: int) -> tuple[int, int]:
        return shared_bytes(ranks, self.world.size, self.num_shards, self.num_params, itemsize)

    def _lay_out(self, dtype: Any) -> None:
        """Divide the memory: parameters once, a buffer for each gradient sum that is kept."""
        counts = {rank: self._holdings[rank].num_buffers for rank in self._node}
        self.params = self._params_memory.array((self.num_params,), dtype)
        self._sums = self._memory.array((self.num_shards, 2), np.float64)
        self._asks = self._memory.array((len(self._node),), np.int64)
        self._gradients = {
            rank: [self._memory.array((self.num_params,), dtype) for _ in range(count)]
            for rank, count in counts.items()
        }

    def _plan_within_the_node(self) -> None:
        """Find the sums that the node's ranks leave, and what of them this rank adds."""
        self._left = [
            (self._gradients[rank][slot], leaves)
            for rank in self._node
            for slot, leaves in self._holdings[rank].left
        ]
        of_node = plan([leaves for _, leaves in self._left], self.num_shards)
        self._node_sums = [(self._left[index][0], leaves) for index, leaves in of_node.rest]
        own_areas = dict(zip(self._node, areas(self.num_params, self._nodes), strict=False))
        self._area = area = own_areas.get(self.world.rank, slice(0, 0))
        self._node_adds = [
            (self._left[into][0][start:stop], self._left[what][0][start:stop])
            for start in range(area.start, area.stop, CACHED)
            for stop in [min(start + CACHED, area.stop)]
            for pairs in of_node.adds
            for into, what in pairs
        ]

    def _plan_between_nodes(self, dtype: Any) -> None:
        """Find what goes to and comes from the owners of this rank's area on the other nodes."""
        owner = self.world.rank - self._node.start
        owners = min(map(len, self._nodes))
        peers = [(ranks[owner], ranks) for ranks in self._nodes if owner < owners]
        sums: list[tuple[Floats, range]] = []
        self._sends: list[tuple[Floats, int]] = []
        self._receives: list[tuple[Floats, int]] = []
        for peer, ranks in peers:
            if peer == self.world.rank:
                sums += [(array[self.own_slice], leaves) for array, leaves in self._node_sums]
                continue
            self._sends += [(array[self.slices[peer]], peer) for array, _ in self._node_sums]
            left = [leaves for rank in ranks for _, leaves in self._holdings[rank].left]
            for _, leaves in plan(left, self.num_shards).rest:
                array = np.empty(self.own_slice.stop - self.own_slice.start, dtype)
                self._receives.append((array, peer))
                sums.append((array, leaves))
        across = plan([leaves for _, leaves in sums], self.num_shards)
        self._last_adds = [(sums[i][0], sums[j][0]) for pairs in across.adds for i, j in pairs]
        self._sum = sums[0][0] if sums else np.empty(0, dtype)
        others = [peer for peer, _ in peers if peer != self.world.rank]
        self._updated = [(self.params[self.own_slice], peer) for peer in others]
        self._updates = [(self.params[self.slices[peer]], peer) for peer in others]

    def start(self, initial: Callable[[], Floats]) -> None:
        """See `Reducer.start`: a node's first rank does it for all of them.

        Before that each rank writes to its area, so that the memory is near the core that updates
        it: a page lies where it is first written to.
        """
        self.params[self._area] = 0
        self._share_within_the_node()
        if self.world.rank == self._node.start:
            self.params[:] = initial()
        self._share_within_the_node()

    def buffer(self, shard: int) -> Floats:
        """See `Reducer.buffer`."""
        number = shard - self._held.start
        if number > 0:
            self._add_own(number - 1)
        return self._gradients[self.world.rank][self._holdings[self.world.rank].slots[number]]

    def _add_own(self, number: int) -> None:
        """Add what can be added once the rank's shard of this number is there."""
        buffers = self._gradients[self.world.rank]
        for into, what in self._holdings[self.world.rank].adds[number]:
            buffers[into] += buffers[what]

    def report(self, sums: Sequence[Sums], asks: int) -> tuple[Sequence[Sums], int]:
        """See `Reducer.report`."""
        if self._held:
            self._add_own(len(self._held) - 1)
        if self.world.size == 1:
            return sums, asks
        if len(self._nodes) > 1:
            self._memory.sync()
            found = allgather_sums(self.world, sums, asks, self.num_shards)  # waits for every rank
            self._memory.sync()
            return found
        if sums:
            self._sums[self._held.start : self._held.stop] = sums
        self._asks[self.world.rank] = asks
        self._memory.barrier()
        return self._sums.tolist(), functools.reduce(operator.or_, self._asks.tolist())

    def sum(self) -> Floats:
        """See `Reducer.sum`."""
        for into, what in self._node_adds:
            np.add(into, what, out=into)
        self._exchange(self._sends, self._receives)
        for into, what in self._last_adds:
            np.add(into, what, out=into)
        return self._sum

    def share(self, finite: bool = True) -> bool:
        """See `Reducer.share`: a slice that is not finite says so by its first entry."""
        if self.world.size == 1:
            return finite
        if not finite:
            self.params[self.own_slice][:1] = math.nan
        self._exchange(self._updated, self._updates)
        self._share_within_the_node()
        return math.isfinite(np.dot(self.params[self._firsts], self._zeros))

    def _share_within_the_node(self) -> None:
        """Let the node's ranks see what others have written to the parameters."""
        self._params_memory.sync()
        self._memory.barrier()
        self._params_memory.sync()

    def _exchange(
        self, sends: list[tuple[Floats, int]], receives: list[tuple[Floats, int]]
    ) -> None:
        """Send arrays to ranks and receive arrays from ranks, in messages of a size MPI can count.

        Between two ranks messages keep their order, which both know.
        """
        if not sends and not receives:
            return
        pending = [
            start(array[first : first + LARGEST], peer)
            for start, messages in (
                (self.world.comm.Irecv, receives),
                (self.world.comm.Isend, sends),
            )
            for array, peer in messages
            for first in range(0, len(array), LARGEST)
        ]
        for message in pending:
            message.Wait()

    def norm(self, gradient: Floats) -> float:
        """See `Reducer.norm`: from the blocks of all slices, added in the tree over blocks."""
        own = block_square_sums(gradient)
        if self.world.comm is not None:
            counts = [-(-(part.stop - part.start) // BLOCK) for part in self.slices]
            starts = [part.start // BLOCK for part in self.slices]
            blocks = np.empty(sum(counts))
            self.world.comm.Allgatherv(own, (blocks, (counts, starts)))
            own = blocks
        return math.sqrt(tree_sum(own.tolist()))

    def close(self) -> Floats:
        """See `Reducer.close`."""
        self._left, self._node_sums, self._node_adds, self._last_adds = [], [], [], []
        self._gradients, self._sends, self._updated, self._updates = {}, [], [], []
        self._memory.free()
        params = self.params.copy()
        self._params_memory.free()
        self.params = params
        return params


REDUCERS: dict[Reduction, type[AllReduce] | type[Tree]] = {"tree": Tree, "allreduce": AllReduce}
