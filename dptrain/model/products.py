"""Products of several shards' rows in one go, where that is known to have the bytes of each alone.

A product has BLAS arrange a matrix anew, which for a shard's few rows takes as long as to multiply,
and a gradient that is written whole leaves the cache before it is added. But a library may add in
another order where there are more rows or fewer columns, and then the bytes would tell how many
shards a rank has: so it is tried first, with random numbers, on which that order does not depend.
"""

import functools
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dptrain.arrays import Floats
from dptrain.model import Shards
from dptrain.model.spare import Memory
from dptrain.threads import threads_here

COMPARED = 20_000
"""Entries of the product that are compared at the least: in another order one in five differs."""

NEAR = 2**19
"""Bytes of a gradient that are computed at a time for all shards, so that the sums in progress stay
in cache: with half or twice as many it took as long, with an eighth longer (measured)."""

SMALL = 2**14
"""Entries of a product below which what NumPy does around it counts (measured)."""


def product(left: Floats, right: Floats, out: Floats) -> None:
    """Write rows [m, k] @ matrix [k, n] to `out` [m, n], or of a vector [k] to [n].

    BLAS is called alike by both: `dot` does half as much around it, but fills `out` with zeros
    before. And columns of an array, taken as they are by `matmul`, are copied by `dot`, and then
    others are the bytes: not for these.
    """
    if out.size < SMALL:
        left.dot(right, out)
    else:
        np.matmul(left, right, out=out)


def multiply(shards: Shards, rows: Floats, matrix: Floats, out: Floats) -> None:
    """Write rows [m, k] @ matrix [k, n] to `out` [m, n], with the bytes of each shard alone."""
    contiguous = matrix.flags.c_contiguous
    if same_in_one_go(shards.counts, matrix.shape, contiguous, matrix.dtype, threads_here()):
        product(rows, matrix, out)
        return
    for start, stop in shards.places:
        product(rows[start:stop], matrix, out[start:stop])


def gradient_sum(
    rows: Floats, delta: Floats, layer: tuple[Floats, Floats], memory: Memory, shards: Shards
) -> None:
    """Write the sum over examples of a layer's gradient: weights [k, n] and biases [n].

    The sum is inside the product rows.T @ delta: row i of `rows` [m, k] and of `delta` [m, n] is
    example i's. Each shard's is one product; these are added in the tree.
    """
    weights, biases = layer
    if len(shards.adds) == 1:
        product(rows.T, delta, weights)
        memory.ones.dot(delta, biases)
        return
    tree_of(shards, partial(_product, memory.ones, delta), biases, memory)
    counts = tuple(sorted({*shards.counts}))
    size = at_a_time(counts, weights.shape, weights.dtype, threads_here())
    for first in range(0, len(weights), size):
        some = slice(first, first + size)
        tree_of(shards, partial(_product, rows[:, some], delta), weights[some], memory)


def tree_of(
    shards: Shards, write: Callable[[slice, Floats], None], out: Floats, memory: Memory
) -> None:
    """Write to `out` the tree's sum of what `write(rows, into)` writes of each shard's rows."""
    there: list[Floats] = []
    for (start, stop), adds in zip(*shards, strict=True):
        into = memory.sum_like(out, len(there) - 1) if there else out
        write(slice(start, stop), into)
        there.append(into)
        for _ in range(adds):
            what = there.pop()
            np.add(there[-1], what, out=there[-1])


def _product(left: Floats, right: Floats, rows: slice, into: Floats) -> None:
    np.matmul(left[rows].T, right[rows], out=into)


def near_rows(width: int, dtype: Any) -> int:
    """Return how many rows [width] of a gradient are near enough to each other to be done at once.

    In sixteens, as kernels of products go.
    """
    return max(16, int(NEAR // (np.dtype(dtype).itemsize * width)) // 16 * 16)


@functools.lru_cache(1024)
def at_a_time(counts: tuple[int, ...], shape: tuple[int, int], dtype: Any, _threads: int) -> int:
    """Return how many rows of a gradient [k, n] to compute at a time, for shards of `counts` rows.

    All, where a product of fewer would have other bytes.
    """
    size: int = near_rows(shape[1], dtype)
    rng = np.random.default_rng(0)
    for count in counts if size < shape[0] else ():
        rows, delta = (rng.standard_normal((count, width)).astype(dtype) for width in shape)
        whole, cuts = np.matmul(rows.T, delta), range(0, shape[0], size)
        parts = [np.matmul(rows[:, at : at + size].T, delta) for at in cuts]
        if np.concatenate(parts).tobytes() != whole.tobytes():
            return shape[0]
    return size


@functools.lru_cache(1024)
def same_in_one_go(
    counts: tuple[int, ...], shape: tuple[int, int], contiguous: bool, dtype: Any, _threads: int
) -> bool:
    """Return whether the product of shards of so many rows, at least one each, with a matrix [k, n]
    has the bytes of each one's.
    """
    if len(counts) < 2:
        return True
    rng, stops = np.random.default_rng(0), [0, *itertools.accumulate(counts)]
    matrix = rng.standard_normal(shape if contiguous else shape[::-1]).astype(dtype)
    matrix = matrix if contiguous else matrix.T
    rows, whole, part = (np.empty((stops[-1], size), dtype) for size in (shape[0], *2 * shape[1:]))
    for _ in range(-(-COMPARED // whole.size)):
        rows[:] = rng.standard_normal(rows.shape)
        product(rows, matrix, whole)
        for start, stop in itertools.pairwise(stops):
            product(rows[start:stop], matrix, part[start:stop])
        if whole.tobytes() != part.tobytes():
            return False
    return True
