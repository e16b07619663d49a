"""Small sums over all ranks (losses, counts, statistics), through the tree like everything else."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Floats, Sums
from dptrain.reduce.tree import tree_sum
from dptrain.world import World, cut

T = TypeVar("T", bound=np.generic)

NUM_SUMS = len(Sums._fields)
"""The sums of a shard that are numbers."""

Columns = Sequence[Sequence[float]]
"""Those of all shards [num_shards], sum by sum, in the order of `Sums`."""


def gather_leaves(world: World, own: NDArray[T], num_leaves: int) -> NDArray[T]:
    """Return all leaves [num_leaves, ...] on every rank, from each rank's own [held, ...].

    Rank r holds the leaves `world.mine(num_leaves)`. Collective: every rank must call this.
    """
    if world.comm is None:
        return own
    width = math.prod(own.shape[1:])
    counts = [width * len(cut(num_leaves, world.size, rank)) for rank in range(world.size)]
    leaves = np.empty((num_leaves, *own.shape[1:]), own.dtype)
    world.comm.Allgatherv(np.ascontiguousarray(own), (leaves, counts))
    return leaves


def gather_at(world: World, own: NDArray[T], root: int) -> NDArray[T]:
    """Return every rank's own numbers [held], in rank order, on rank `root`; none on the others.

    Collective: every rank must call this.
    """
    if world.comm is None:
        return own
    counts = world.allgather(len(own))
    everyone = np.empty(sum(counts) if world.rank == root else 0, own.dtype)
    world.comm.Gatherv(np.ascontiguousarray(own), (everyone, counts), root)
    return everyone


def total(world: World, own: Floats, num_leaves: int) -> Floats:
    """Return the sum [...] of all leaves in the tree, on every rank; see `gather_leaves`.

    For what is small, such as losses, counts and statistics of the data; gradients go through a
    `Reducer`. Collective: every rank must call this.
    """
    world.allgather(None)  # who has less to do sleeps until all have come
    leaves: Floats = gather_leaves(world, own, num_leaves)
    found: Floats = tree_sum(leaves)
    return found


def total_count(world: World, own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum [...] of every rank's integers, which are exact in any order. Collective."""
    if world.comm is None:
        return own
    everyone = np.empty_like(own)
    world.comm.Allreduce(own, everyone)
    return everyone


def columns(flat: Sequence[float]) -> Columns:
    """Return the sums of shards that stand one after the other."""
    return flat[::NUM_SUMS], flat[1::NUM_SUMS], flat[2::NUM_SUMS]


def allgather_sums(
    world: World, sums: Sequence[Sums], asks: int, num_shards: int
) -> tuple[Columns, int]:
    """Return the small sums of all shards, and the bits of what any rank asks for, below 2**32.

    Takes those of this rank's shards. Collective: every rank must call this.
    """
    if world.comm is None:
        return [*zip(*sums, strict=True)], asks
    counts = [NUM_SUMS * len(cut(num_shards, world.size, rank)) + 1 for rank in range(world.size)]
    everyone = np.empty(sum(counts))
    own = [value for row in sums for value in row]
    world.comm.Allgatherv(np.array([*own, asks], np.float64), (everyone, counts))
    places = np.cumsum(counts) - 1
    found = np.bitwise_or.reduce(everyone[places].astype(np.int64))
    return columns(np.delete(everyone, places).tolist()), int(found)
