"""Who holds what: shards in buffers, the vector in slices. Pure arithmetic, known to every rank."""

from collections.abc import Sequence
from typing import NamedTuple

from dptrain.reduce.memory import NodeMemory
from dptrain.reduce.sums import NUM_SUMS
from dptrain.reduce.tree import plan
from dptrain.world import cut

BLOCK = 1024
"""Entries in a block of the vector. Slices are whole blocks and norms are added block by block, so
neither depends on the number of ranks; the number is part of what decides the bytes."""

KEPT = 4
"""A rank with so many stacks keeps each one's sum; with more it adds as it goes, to save memory."""


def stacks_of(shards: range, num_shards: int, most: int) -> list[range]:
    """Return a rank's shards in stacks: whole subtrees, of at most so many shards each."""
    leaves = [range(shard, shard + 1) for shard in shards]
    return [stack for _, stack in plan(leaves, num_shards, most).rest]


class Holding(NamedTuple):
    """The stacks of a rank's shards, and the buffers that their gradient sums are written to.

    `slots[i]` is the buffer of stack i of the rank's. `adds[i]` are the pairs of buffers (into,
    what) to be added once it is written. `left` are the buffers that then remain, and their leaves.
    """

    stacks: list[range]
    slots: list[int]
    adds: list[list[tuple[int, int]]]
    left: list[tuple[int, range]]

    @property
    def num_buffers(self) -> int:
        """How many buffers are needed: as many as stacks, or about log2 of that."""
        return max(self.slots, default=-1) + 1


def holding(shards: range, num_shards: int, together: int) -> Holding:
    """Return where a rank writes the gradient sums of its stacks, and what it adds as it goes.

    A stack has at most `together` shards.
    """
    stacks = stacks_of(shards, num_shards, together)
    if len(stacks) <= KEPT:
        slots = list(range(len(stacks)))
        return Holding(stacks, slots, [[] for _ in stacks], list(zip(slots, stacks, strict=True)))
    own = plan(stacks, num_shards)
    free: list[int] = []
    slots = []
    for pairs in own.adds:
        slots.append(free.pop() if free else len(set(slots)))
        free += [slots[what] for _, what in pairs]
    adds = [[(slots[into], slots[what]) for into, what in pairs] for pairs in own.adds]
    return Holding(stacks, slots, adds, [(slots[node], shards) for node, shards in own.rest])


def sums_left(ranks: range, num_shards: int, num_ranks: int) -> list[range]:
    """Return the sums that a node of these ranks is left with: the shards under each."""
    first, last = (cut(num_shards, num_ranks, rank) for rank in (ranks[0], ranks[-1]))
    return stacks_of(range(first.start, last.stop), num_shards, num_shards)


def shared_bytes(
    ranks: range, num_ranks: int, num_shards: int, together: int, num_params: int, itemsize: int
) -> tuple[int, int]:
    """Return the bytes that ranks of a node share: for gradients and small sums, for parameters.

    That is a vector for each gradient sum that a rank keeps, and one for the parameters.
    """
    vector = num_params * itemsize + NodeMemory.ALIGNMENT
    small = 8 * NUM_SUMS * num_shards + NodeMemory.ALIGNMENT
    held = [cut(num_shards, num_ranks, rank) for rank in ranks]
    return small + vector * sum(holding(h, num_shards, together).num_buffers for h in held), vector


class Needs(NamedTuple):
    """What a reducer takes, in bytes, and what it leaves to update."""

    slices: list[slice]
    """The part of the vector that each rank updates."""

    shared: dict[range, int]
    """Memory that the ranks of each node share."""

    own: list[int]
    """What each rank takes beside it."""


def block_slices(start: int, stop: int, parts: int) -> list[slice]:
    """Return start .. stop cut into slices of whole blocks, some perhaps empty.

    `start` is a multiple of the block, and so is the start of every slice.
    """
    num_blocks = -(-(stop - start) // BLOCK)
    pieces = [cut(num_blocks, parts, part) for part in range(parts)]
    return [slice(start + p.start * BLOCK, min(start + p.stop * BLOCK, stop)) for p in pieces]


def areas(num_params: int, nodes: Sequence[range]) -> list[slice]:
    """Return the areas that a node adds up, one for each of its first ranks.

    All nodes have the same areas: as many as the smallest node has ranks.
    """
    return block_slices(0, num_params, min(map(len, nodes)))


def rank_slices(num_params: int, nodes: Sequence[range]) -> list[slice]:
    """Return the slice of the vector that each rank updates: its node's part of its area.

    Ranks beyond those of the smallest node update nothing.
    """
    slices = [slice(0, 0)] * nodes[-1].stop
    for owner, area in enumerate(areas(num_params, nodes)):
        for ranks, part in zip(nodes, block_slices(area.start, area.stop, len(nodes)), strict=True):
            slices[ranks[owner]] = part
    return slices
