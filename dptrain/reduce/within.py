"""The tree within a node: models write where owners of areas add, so that nothing is copied."""

import socket
from array import array
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import numpy as np

from dptrain.arrays import CACHED, Floats, Sums
from dptrain.machine import MORE_SHARED, SHM, free_bytes
from dptrain.reduce.layout import areas, holding, shared_bytes
from dptrain.reduce.memory import NodeMemory
from dptrain.reduce.sums import NUM_SUMS, Columns, columns
from dptrain.reduce.tree import plan
from dptrain.streams import tell
from dptrain.world import World, cut

Adds = list[tuple[Floats, Floats]]
"""Pairs of arrays: what the second holds is added to the first, pair by pair."""


def add(pairs: Adds) -> None:
    """Add, pair by pair."""
    for into, what in pairs:
        np.add(into, what, out=into)


class Write:
    """Where a stack's gradient sum is written; what can be added then, is added on the way out."""

    def __init__(self, buffer: Floats, adds: Adds) -> None:
        self._buffer, self._adds = buffer, adds

    def __enter__(self) -> Floats:
        return self._buffer

    def __exit__(self, fault: type[BaseException] | None, *_: object) -> None:
        if fault is None:
            add(self._adds)


class WithinNode:
    """The memory that a node's ranks share: the parameters once, and a buffer for each gradient sum
    that is kept. The vector is cut into one area a rank, whose owner adds it for all shards of the
    node. Where a node has too little memory to share, each rank is a node of its own.

    Collective: every rank must make one.
    """

    nodes: list[range]
    """The ranks that share memory, for each of these memories."""

    ranks: range
    """Those that this rank is among."""

    params: Floats
    """The parameters [num_params]."""

    memory: NodeMemory
    """Of gradients and small sums."""

    params_memory: NodeMemory
    """Of the parameters; its barrier lets the node's ranks see what others have written there."""

    sums: list[tuple[Floats, range]]
    """The gradient sums [num_params] that a node is left with, and the shards under each."""

    adds: Adds
    """What this rank adds of its area, of the sums that the node's ranks have left."""

    def __init__(
        self, world: World, num_params: int, num_shards: int, dtype: Any, together: int
    ) -> None:
        self.world = world
        self.nodes, (self.memory, self.params_memory) = take_memory(
            world, num_params, num_shards, together, np.dtype(dtype).itemsize
        )
        self.ranks = next(ranks for ranks in self.nodes if world.rank in ranks)
        own = world.mine(num_shards)
        self._held = slice(NUM_SUMS * own.start, NUM_SUMS * own.stop)
        self.params = self.params_memory.array((num_params,), dtype)
        self._shard_sums = self.memory.array((num_shards * NUM_SUMS,), np.float64).data
        holdings = {
            rank: holding(cut(num_shards, world.size, rank), num_shards, together)
            for rank in self.ranks
        }
        buffers = {
            rank: [self.memory.array((num_params,), dtype) for _ in range(each.num_buffers)]
            for rank, each in holdings.items()
        }
        held, into = holdings[world.rank], buffers[world.rank]
        self.writes: dict[range, AbstractContextManager[Floats]] = {
            stack: Write(into[slot], [(into[i], into[j]) for i, j in pairs])
            for stack, slot, pairs in zip(held.stacks, held.slots, held.adds, strict=True)
        }
        own_areas = dict(zip(self.ranks, areas(num_params, self.nodes), strict=False))
        self.area = own_areas.get(world.rank, slice(0, 0))
        self.left = [
            (buffers[rank][slot], shards)
            for rank, each in holdings.items()
            for slot, shards in each.left
        ]
        self._plan_adds(num_shards)

    def _plan_adds(self, num_shards: int) -> None:
        """Find what this rank adds of the sums that the node's ranks leave, and what remains."""
        of_node = plan([shards for _, shards in self.left], num_shards)
        self.sums = [(self.left[node][0], shards) for node, shards in of_node.rest]
        pairs = [pair for adds in of_node.adds for pair in adds]
        self.adds: Adds = []
        for start in range(self.area.start, self.area.stop, CACHED):
            part = slice(start, min(start + CACHED, self.area.stop))
            for into, what in pairs:
                self.adds.append((self.left[into][0][part], self.left[what][0][part]))

    def entries_moved(self) -> int:
        """Return the entries that adding reads and writes at the least."""
        size = self.area.stop - self.area.start
        return size * (len(self.left) + len(self.sums)) if self.adds else 0

    def allgather_sums(self, sums: Sequence[Sums], asks: int) -> tuple[Columns, int]:
        """See `Reducer.allgather_sums`, where all ranks are of one node."""
        self._shard_sums[self._held] = array("d", chain.from_iterable(sums))
        asked = self.memory.barrier(asks)
        return columns(self._shard_sums.tolist()), asked

    def close(self) -> Floats:
        """Give the memory back, and return the parameters as an array of this rank's own."""
        self.left, self.sums, self.adds = [], [], []
        self.writes.clear()
        self.memory.free()
        params = self.params = self.params.copy()
        self.params_memory.free()
        return params


def take_memory(
    world: World, num_params: int, num_shards: int, together: int, itemsize: int
) -> tuple[list[range], list[NodeMemory]]:
    """Take each node's memory, for gradients and for parameters; where one has too little of it,
    each rank's own.

    Returns the ranks that share memory, and this rank's two. Collective: every rank must call this.
    """

    def bytes_of(ranks: range) -> tuple[int, int]:
        return shared_bytes(ranks, world.size, num_shards, together, num_params, itemsize)

    here = world.ranks_here
    needed, free, fault = bytes_of(here), free_bytes(), ""
    taken: list[NodeMemory] = []
    try:
        for num_bytes in needed:
            memory = NodeMemory(world if len(here) > 1 else None, num_bytes)
            taken.append(memory)
    except OSError as error:
        why = "" if free < sum(needed) else f" but refuses ({error.strerror})"
        fault = (
            f"{SHM} of {socket.gethostname()} has {free / 1e6:,.1f} MB free{why}, and "
            f"{sum(needed) / 1e6:,.1f} MB are needed"
        )
    faults = [fault for fault in world.allgather(fault) if fault]
    if not faults:
        return world.nodes, taken
    for memory in taken:
        memory.free()
    if world.rank == 0:
        tell(f"gradients go by messages, which is slower: {faults[0]}. More: {MORE_SHARED}")
    alone = [range(rank, rank + 1) for rank in range(world.size)]
    return alone, [NodeMemory(None, num_bytes) for num_bytes in bytes_of(alone[world.rank])]
