"""Sums over all shards and all ranks, in an order that does not know the number of ranks.

The tree over leaves 0 .. V-1 adds neighbours, then neighbours of those, until one is left. Who
holds a leaf does not matter: a rank adds the whole subtrees among its own leaves, and what is left
of every rank is added by the owner of each slice of the vector.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.config import Reduction
from dptrain.world import World, cut

BLOCK = 1024
"""Entries in a block of the vector. Slices are whole blocks and norms are added block by block, so
neither depends on the number of ranks; the number is part of what decides the bytes."""

Floats = NDArray[np.floating]


def tree_sum(leaves: Floats) -> Floats:
    """Return the sum over axis 0, shape [...] of [V, ...], added in the fixed tree.

    This is the definition of the tree; `Fold` adds in the same order without having all leaves.
    """
    nodes = leaves
    while len(nodes) > 1:
        parents = nodes[0::2].copy()
        parents[: len(nodes) // 2] += nodes[1::2]
        nodes = parents
    root: Floats = nodes[0]
    return root


def siblings(left: range, right: range, num_leaves: int) -> bool:
    """Return whether two nodes, given as the leaves under them, have one parent in the tree."""
    width = len(left)
    return (
        width.bit_count() == 1
        and left.start % (2 * width) == 0
        and left.stop == right.start
        and right.stop == min(left.stop + width, num_leaves)
    )


class Fold:
    """A stack of partial sums, whole subtrees each: siblings are added as soon as both are there.

    Nodes are pushed from left to right. L leaves in a row need about log2(L) sums at a time, and
    up to twice that where they don't begin at a multiple of a power of two.
    """

    def __init__(self, num_leaves: int) -> None:
        self.num_leaves = num_leaves
        self.nodes: list[range] = []
        self.sums: list[Floats] = []

    def push(self, node: range, value: Floats) -> None:
        """Add the sum of a node's leaves; the left sibling's array takes what is added to it."""
        self.nodes.append(node)
        self.sums.append(value)
        while len(self.nodes) > 1 and siblings(self.nodes[-2], self.nodes[-1], self.num_leaves):
            right, value = self.nodes.pop(), self.sums.pop()
            self.nodes[-1] = range(self.nodes[-1].start, right.stop)
            self.sums[-1] += value


def subtrees(leaves: range, num_leaves: int) -> list[range]:
    """Return the largest whole subtrees that make up a row of leaves, from left to right."""
    fold = Fold(num_leaves)
    for leaf in leaves:
        fold.push(range(leaf, leaf + 1), np.zeros(0))
    return fold.nodes


def block_slices(num_params: int, size: int) -> list[slice]:
    """Return the slice of the vector that each of `size` ranks owns: whole blocks, maybe none."""
    num_blocks = -(-num_params // BLOCK)
    pieces = [cut(num_blocks, size, rank) for rank in range(size)]
    return [slice(p.start * BLOCK, min(p.stop * BLOCK, num_params)) for p in pieces]


def block_square_sums(vector: Floats) -> NDArray[np.float64]:
    """Return the sum of squares of each block of a vector, float64, shape [blocks]."""
    sums = [np.empty(0)]
    for start in range(0, len(vector), 64 * BLOCK):
        chunk = vector[start : start + 64 * BLOCK]
        squares = np.zeros((-(-len(chunk) // BLOCK), BLOCK))
        np.square(chunk, out=squares.reshape(-1)[: len(chunk)], dtype=np.float64)
        sums.append(squares.sum(axis=1))
    return np.concatenate(sums)


def gather_leaves(world: World, own: Floats, num_leaves: int) -> Floats:
    """Return all leaves [num_leaves, ...] on every rank, from each rank's own [held, ...].

    Rank r holds the leaves `world.mine(num_leaves)`. Collective: every rank must call this.
    """
    if world.comm is None or world.size == 1:
        return own
    width = math.prod(own.shape[1:])
    counts = [width * len(cut(num_leaves, world.size, rank)) for rank in range(world.size)]
    leaves = np.empty((num_leaves, *own.shape[1:]), own.dtype)
    world.comm.Allgatherv(np.ascontiguousarray(own), (leaves, counts))
    return leaves


def total(world: World, own: Floats, num_leaves: int) -> Floats:
    """Return the sum [...] of all leaves in the tree, on every rank; see `gather_leaves`.

    For what is small, such as losses, counts and statistics of the data; gradients go through a
    `Reducer`. Collective: every rank must call this.
    """
    return tree_sum(gather_leaves(world, own, num_leaves))


def total_count(world: World, own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum [...] of every rank's integers, which are exact in any order. Collective."""
    if world.comm is None:
        return own
    everyone = np.empty_like(own)
    world.comm.Allreduce(own, everyone)
    return everyone


class Reducer(ABC):
    """Adds the gradient sums of all shards and decides which slice of the vector a rank updates."""

    def __init__(self, world: World, num_params: int, num_shards: int, dtype: Any) -> None:
        self.world = world
        self.num_params = num_params
        self.num_shards = num_shards
        self.dtype = np.dtype(dtype)
        self.slice = slice(0, num_params)

    @abstractmethod
    def buffer(self, shard: int) -> Floats:
        """Return where to write a shard's gradient sum, shape [num_params], contents undefined.

        To be asked for each of the rank's shards in ascending order, once a step.
        """

    @abstractmethod
    def sum(self) -> Floats:
        """Return the sum over all shards of this rank's slice: the caller's until the next step.

        Collective: every rank must call this.
        """

    @abstractmethod
    def share(self, params: Floats) -> None:
        """Give every rank the slices [num_params] that the others updated, in place.

        Collective: every rank must call this.
        """

    @abstractmethod
    def norm(self, gradient: Floats) -> float:
        """Return the Euclidean norm of the whole vector of which `gradient` is this rank's slice.

        Collective: every rank must call this.
        """

    def report(self, losses: list[float], stop: bool) -> tuple[NDArray[np.float64], bool]:
        """Return every shard's loss sum [num_shards], and whether any rank asks to stop.

        Takes the losses of this rank's shards. Collective: every rank must call this.
        """
        own = np.array([*losses, stop], np.float64)
        if self.world.comm is None or self.world.size == 1:
            return own[:-1], stop
        size = self.world.size
        counts = [len(cut(self.num_shards, size, rank)) + 1 for rank in range(size)]
        everyone = np.empty(sum(counts))
        self.world.comm.Allgatherv(own, (everyone, counts))
        stops = np.cumsum(counts) - 1
        return np.delete(everyone, stops), bool(everyone[stops].any())


class AllReduce(Reducer):
    """The reference: MPI's own Allreduce on the whole vector. Its bits depend on the ranks."""

    def __init__(self, world: World, num_params: int, num_shards: int, dtype: Any) -> None:
        super().__init__(world, num_params, num_shards, dtype)
        self._shards = np.empty((len(world.mine(num_shards)), num_params), dtype)

    def buffer(self, shard: int) -> Floats:
        """Return where to write a shard's gradient sum; see `Reducer.buffer`."""
        out: Floats = self._shards[shard - self.world.mine(self.num_shards).start]
        return out

    def sum(self) -> Floats:
        """Return the sum over all shards of the whole vector; see `Reducer.sum`."""
        total: Floats = self._shards.sum(axis=0)
        if self.world.comm is not None:
            from mpi4py import MPI

            self.world.comm.Allreduce(MPI.IN_PLACE, total)
        return total

    def share(self, params: Floats) -> None:
        """Do nothing: every rank has updated the whole vector; see `Reducer.share`."""

    def norm(self, gradient: Floats) -> float:
        """Return the Euclidean norm of the gradient, which every rank has whole."""
        return math.sqrt(float(tree_sum(block_square_sums(gradient))))


class Tree(Reducer):
    """The fixed tree by messages: one SHA-256 of the parameters for any number of ranks.

    Every rank sends, for each slice of the vector, the sums of its whole subtrees to the slice's
    owner, who adds them in tree order; `share` gathers the updated slices. That is a
    reduce-scatter, an optimizer divided among the ranks, and an allgather.
    """

    def __init__(self, world: World, num_params: int, num_shards: int, dtype: Any) -> None:
        super().__init__(world, num_params, num_shards, dtype)
        self._slices = block_slices(num_params, world.size)
        self.slice = self._slices[world.rank]
        self._subtrees = [  # of every rank, in the order in which an owner adds them
            (rank, node)
            for rank in range(world.size)
            for node in subtrees(cut(num_shards, world.size, rank), num_shards)
        ]
        self._fold = Fold(num_shards)
        self._pending: range | None = None
        self._buffers: list[Floats] = []  # the sum at depth d of the stack is in buffer d
        self._received: dict[int, Floats] = {}  # likewise for this rank's slice

    def buffer(self, shard: int) -> Floats:
        """Return where to write a shard's gradient sum; see `Reducer.buffer`."""
        self._settle()
        self._pending = range(shard, shard + 1)
        depth = len(self._fold.sums)
        if depth == len(self._buffers):
            self._buffers.append(np.empty(self.num_params, self.dtype))
        return self._buffers[depth]

    def _settle(self) -> None:
        """Add the shard whose gradient sum has been written since it asked for its buffer."""
        if self._pending is not None:
            self._fold.push(self._pending, self._buffers[len(self._fold.sums)])
            self._pending = None

    def sum(self) -> Floats:
        """Return the sum over all shards of this rank's slice; see `Reducer.sum`."""
        self._settle()
        own, self._fold = self._fold, Fold(self.num_shards)
        sends = [
            self.world.comm.Isend(value[part], dest=rank)
            for rank, part in enumerate(self._slices)
            if self.world.comm is not None and rank != self.world.rank and part.start < part.stop
            for value in own.sums
        ]
        mine = self._add_slice(iter(own.sums))
        for send in sends:
            send.Wait()
        return mine

    def _add_slice(self, own: Iterator[Floats]) -> Floats:
        """Add every rank's subtrees of this rank's slice, in tree order, as they arrive."""
        if self.slice.start == self.slice.stop:
            return np.empty(0, self.dtype)
        fold = Fold(self.num_shards)
        for rank, node in self._subtrees:
            if self.world.comm is None or rank == self.world.rank:
                fold.push(node, next(own)[self.slice])
                continue
            depth = len(fold.sums)
            if depth not in self._received:
                self._received[depth] = np.empty(self.slice.stop - self.slice.start, self.dtype)
            self.world.comm.Recv(self._received[depth], source=rank)
            fold.push(node, self._received[depth])
        return fold.sums[0]

    def share(self, params: Floats) -> None:
        """Gather the slices that the ranks have updated; see `Reducer.share`."""
        if self.world.comm is not None and self.world.size > 1:
            from mpi4py import MPI

            counts = [part.stop - part.start for part in self._slices]
            self.world.comm.Allgatherv(MPI.IN_PLACE, (params, counts))

    def norm(self, gradient: Floats) -> float:
        """Return the norm from the blocks of all slices, added in the tree over blocks."""
        num_blocks = -(-self.num_params // BLOCK)
        return math.sqrt(float(total(self.world, block_square_sums(gradient), num_blocks)))


REDUCERS: dict[Reduction, type[Reducer]] = {"tree": Tree, "allreduce": AllReduce}
