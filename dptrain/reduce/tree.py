"""The fixed tree over leaves: pure arithmetic, the same on every rank.

The tree over leaves 0 .. V-1 adds neighbours, then neighbours of those, until one is left. Who
holds a leaf does not matter: whole subtrees among neighbouring leaves can be added by anyone.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from operator import add
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", float, NDArray[np.floating])


def tree_sum(leaves: Iterable[T]) -> T:
    """Return the sum of numbers, or of arrays of one shape, added in the fixed tree.

    This is the definition of the tree; `plan` leads to the same additions for parts of the leaves.
    """
    nodes: list[T] = list(leaves)
    while len(nodes) > 2:
        parents: list[T] = [*map(add, nodes[::2], nodes[1::2])]
        nodes = parents + nodes[2 * len(parents) :]
    return reduce(add, nodes)


def siblings(left: range, right: range, num_leaves: int) -> bool:
    """Return whether two nodes, given as the leaves under them, have one parent in the tree."""
    width = len(left)
    return (
        width.bit_count() == 1
        and left.start % (2 * width) == 0
        and left.stop == right.start
        and right.stop == min(left.stop + width, num_leaves)
    )


class Plan(NamedTuple):
    """The additions that a row of neighbouring nodes allows, in the order in which to do them.

    `adds[i]` are the pairs (into, what), as indices of nodes, to be added once node i is there.
    `rest` are the largest subtrees that remain: the node whose array holds the sum, and its leaves.
    """

    adds: list[list[tuple[int, int]]]
    rest: list[tuple[int, range]]


def plan(nodes: Sequence[range], num_leaves: int, most: int | None = None) -> Plan:
    """Return how nodes of the tree, neighbours from left to right, are added up.

    Siblings are added as soon as both are there, so that few sums are kept: about log2(L) for L
    leaves in a row, and up to twice that where they don't begin at a multiple of a power of two.
    With `most` only as long as no sum is of more leaves.
    """
    most = most or num_leaves
    adds: list[list[tuple[int, int]]] = []
    rest: list[tuple[int, range]] = []
    for index, node in enumerate(nodes):
        adds.append([])
        rest.append((index, node))
        while len(rest) > 1 and siblings(rest[-2][1], rest[-1][1], num_leaves):
            (into, left), (what, right) = rest[-2:]
            if len(left) + len(right) > most:
                break
            del rest[-2:]
            adds[-1].append((into, what))
            rest.append((into, range(left.start, right.stop)))
    return Plan(adds, rest)


@lru_cache
def times_added(leaves: range, num_leaves: int) -> tuple[int, ...]:
    """Return how often, once each of a subtree's leaves is there, the last two sums are added.

    For sums that are kept on a stack: what is added is the upper one, to the one below.
    """
    nodes = [range(leaf, leaf + 1) for leaf in leaves]
    return tuple(map(len, plan(nodes, num_leaves).adds))
