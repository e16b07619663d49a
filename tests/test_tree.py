"""Shows that the tree over shards is one and the same, whoever holds the shards."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dptrain.reduce.layout import BLOCK, holding, rank_slices
from dptrain.reduce.tree import plan, times_added, tree_sum
from dptrain.world import cut

LEAVES = st.integers(1, 100)
Floats = NDArray[np.float32]


def leaves(v: int, width: int = 3) -> Floats:
    """Return numbers of very different sizes, whose float32 sum shows every change of order."""
    rng = np.random.default_rng(v)
    numbers = rng.standard_normal((v, width)) * 10.0 ** rng.integers(-4, 5, (v, width))
    return numbers.astype(np.float32)


def brackets(v: int) -> str:
    """Return the tree over v leaves in brackets."""
    texts = [f"{leaf}" for leaf in range(v)]
    while len(texts) > 1:
        pairs = [f"({a}+{b})" for a, b in zip(texts[0::2], texts[1::2], strict=False)]
        texts = pairs + texts[len(pairs) * 2 :]
    return texts[0]


def test_the_tree_adds_neighbours_then_neighbours_of_those() -> None:
    assert brackets(7) == "(((0+1)+(2+3))+((4+5)+6))"
    x = leaves(7)
    expected = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + x[6])
    assert tree_sum(x).tobytes() == expected.tobytes()


def added_by_ranks(v: int, p: int, together: int) -> Floats:
    """Add v leaves held by p ranks: each its stacks in its buffers, then what all ranks leave."""
    x = leaves(v)
    sums: list[Floats] = []
    nodes: list[range] = []
    for rank in range(p):
        shards = cut(v, p, rank)
        own = holding(shards, v, together)
        buffers = [np.full_like(x[0], np.nan) for _ in range(own.num_buffers)]
        assert max(map(len, own.stacks), default=1) <= together
        for stack, slot, adds in zip(own.stacks, own.slots, own.adds, strict=True):
            buffers[slot][:] = on_a_stack(x, stack)
            for into, what in adds:
                buffers[into] += buffers[what]
        sums += [buffers[slot] for slot, _ in own.left]
        nodes += [leaves_below for _, leaves_below in own.left]
    whole = plan(nodes, v)
    for pairs in whole.adds:
        for into, what in pairs:
            sums[into] += sums[what]
    assert whole.rest == [(0, range(v))]
    return sums[0]


def on_a_stack(x: Floats, leaves: range) -> Floats:
    """Add a subtree's leaves as a model does, which knows how often to add and no more."""
    there: list[Floats] = []
    for leaf, times in zip(leaves, times_added(leaves, len(x)), strict=True):
        there.append(x[leaf])
        for _ in range(times):
            what = there.pop()
            there[-1] = there[-1] + what
    assert len(there) == 1
    return there[0]


@given(v=LEAVES, p=st.integers(1, 20), together=st.integers(1, 40))
def test_the_sum_is_the_same_whoever_holds_the_leaves(v: int, p: int, together: int) -> None:
    assert added_by_ranks(v, p, together).tobytes() == tree_sum(leaves(v)).tobytes()


def test_another_grouping_gives_other_bits() -> None:
    """Without this, the tests above could not fail."""
    x = leaves(9)
    one_by_one = np.zeros_like(x[0])
    for leaf in x:
        one_by_one += leaf
    assert one_by_one.tobytes() != tree_sum(x).tobytes()


@given(v=st.integers(1, 300), p=st.integers(1, 9))
def test_a_rank_never_keeps_more_than_a_logarithm_of_sums(v: int, p: int) -> None:
    for rank in range(p):
        own = holding(cut(v, p, rank), v, 1)
        assert own.num_buffers <= 2 + 2 * math.log2(max(1, v / p))
        if v % p == 0 and (v // p).bit_count() == 1:
            assert own.num_buffers <= 2 + math.log2(v / p)


@given(n=st.integers(1, 20 * BLOCK), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_slices_partition_the_vector_in_whole_blocks(n: int, sizes: list[int]) -> None:
    stops = np.cumsum(sizes).tolist()
    nodes = [range(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]
    slices = rank_slices(n, nodes)
    assert len(slices) == sum(sizes)
    owned = sorted((part.start, part.stop) for part in slices if part.stop > part.start)
    assert [start for start, _ in owned] == [0, *(stop for _, stop in owned[:-1])]
    assert owned[-1][1] == n
    assert all(start % BLOCK == 0 for start, _ in owned)
