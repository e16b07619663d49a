"""Products of several shards' rows with one matrix, in one go where that is known to be the same.

A product has BLAS arrange the matrix anew, which for a shard's few rows takes as long as to
multiply. In one go it does so once; but a library may add in another order where there are more
rows, and then the bytes would tell how many shards a rank has.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from dptrain.arrays import Floats
from dptrain.model import Parts
from dptrain.model.spare import Memory
from dptrain.threads import threads_here

COMPARED = 20_000
"""Entries of the product that are compared at the least: in another order one in five differs."""


def multiply(rows: Floats, matrix: Floats, out: Floats, parts: Parts) -> None:
    """Write rows [m, k] @ matrix [k, n] to `out` [m, n], with the bytes of each part alone.

    Without parts it is one product.
    """
    if not parts or same_in_one_go(
        parts, matrix.shape, matrix.flags.c_contiguous, matrix.dtype, threads_here()
    ):
        np.matmul(rows, matrix, out=out)
        return
    for start, stop in parts:
        np.matmul(rows[start:stop], matrix, out=out[start:stop])


def go_back(memory: Memory, layers: Sequence[tuple[Floats, Floats]], parts: Parts = ()) -> None:
    """Compute the deltas of hidden layers from those of the outputs and the layers' weights."""
    deltas = memory.deltas
    for number in range(len(layers) - 1, 0, -1):
        back, below = memory.back[number - 1], deltas[number - 1]
        multiply(deltas[number], layers[number][0].T, back, parts)
        np.multiply(back, below, out=below)


@functools.lru_cache(1024)
def same_in_one_go(
    parts: Parts, shape: tuple[int, int], contiguous: bool, dtype: Any, _threads: int
) -> bool:
    """Return whether all parts' product with a matrix [k, n] has the bytes of each part's.

    Tried with random numbers, as the order in which a product is added does not depend on them.
    """
    rng, num_rows = np.random.default_rng(0), parts[-1][1]
    matrix = rng.standard_normal(shape if contiguous else shape[::-1]).astype(dtype)
    matrix = matrix if contiguous else matrix.T
    rows, whole, part = (np.empty((num_rows, size), dtype) for size in (shape[0], *2 * shape[1:]))
    for _ in range(-(-COMPARED // whole.size)):
        rows[:] = rng.standard_normal(rows.shape)
        np.matmul(rows, matrix, out=whole)
        for start, stop in parts:
            np.matmul(rows[start:stop], matrix, out=part[start:stop])
        if whole.tobytes() != part.tobytes():
            return False
    return True
