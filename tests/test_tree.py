"""Shows that the tree over shards is one and the same, whoever holds the shards."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dptrain.reduce import BLOCK, Fold, block_slices, block_square_sums, subtrees, tree_sum
from dptrain.world import cut

LEAVES = st.integers(1, 100)


def leaves(v: int, width: int = 3) -> np.ndarray:
    """Return numbers of very different sizes, whose float32 sum shows every change of order."""
    rng = np.random.default_rng(v)
    return (rng.standard_normal((v, width)) * 10.0 ** rng.integers(-4, 5, (v, width))).astype("f")


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


def folded(v: int, p: int) -> np.ndarray:
    """Add v leaves held by p ranks: each its own, then all ranks' subtrees in order."""
    x = leaves(v)
    everyone = Fold(v)
    for rank in range(p):
        own = Fold(v)
        for leaf in cut(v, p, rank):
            own.push(range(leaf, leaf + 1), x[leaf].copy())
        assert own.nodes == subtrees(cut(v, p, rank), v)
        for node, value in zip(own.nodes, own.sums, strict=True):
            everyone.push(node, value)
    assert everyone.nodes == [range(v)]
    return everyone.sums[0]


@given(v=LEAVES, p=st.integers(1, 20))
def test_the_sum_is_the_same_whoever_holds_the_leaves(v: int, p: int) -> None:
    assert folded(v, p).tobytes() == tree_sum(leaves(v)).tobytes()


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
        own = Fold(v)
        held = cut(v, p, rank)
        for leaf in held:
            own.push(range(leaf, leaf + 1), np.zeros(1))
            assert len(own.sums) <= 1 + 2 * math.log2(len(held) + 1)


@given(n=st.integers(1, 20 * BLOCK), p=st.integers(1, 30))
def test_slices_partition_the_vector_in_whole_blocks(n: int, p: int) -> None:
    slices = block_slices(n, p)
    assert [part.start for part in slices] == [0, *(part.stop for part in slices[:-1])]
    assert slices[-1].stop == n
    assert all(part.start % BLOCK == 0 for part in slices)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, 5 * BLOCK + 7, 200 * BLOCK + 1])
def test_square_sums_of_blocks_do_not_depend_on_the_slices(n: int, dtype: str) -> None:
    vector = np.random.default_rng(n).standard_normal(n).astype(dtype)
    whole = block_square_sums(vector)
    for p in (1, 2, 3, 7):
        parts = [block_square_sums(vector[part]) for part in block_slices(n, p)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert float(tree_sum(whole)) == pytest.approx(float(np.dot(vector, vector)), rel=1e-4)
