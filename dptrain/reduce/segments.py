"""Square norms of a model's arrays, over fixed blocks cut at arrays' ends: free of the ranks."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Floats, Layout, distinct
from dptrain.reduce.layout import BLOCK
from dptrain.reduce.tree import tree_sum

CHUNK = 4 * BLOCK
"""Entries whose squares are held at a time: 32 KiB, as a step takes no more than it must."""


class Segments:
    """Blocks of the vector that end where arrays do: each is of one array, and in one slice.

    What is computed a segment, and added in the tree over an array's segments, is the same
    whichever slices ranks own.
    """

    def __init__(self, layout: Layout, frozen: Sequence[bool] | None = None) -> None:
        stops = np.cumsum([param.size for param in layout])
        starts = distinct(np.arange(0, stops[-1], BLOCK), stops[:-1])
        self._starts = starts[starts < stops[-1]]
        self._ends = np.searchsorted(self._starts, stops).tolist()
        pairs = zip(layout, frozen or [False] * len(layout), strict=True)
        self._counts = [not stays and param.kind != "statistic" for param, stays in pairs]

    def within(self, part: slice) -> range:
        """Return which segments lie in a slice of whole blocks."""
        first, stop = np.searchsorted(self._starts, (part.start, part.stop)).tolist()
        return range(first, stop)

    def square_sums(self, vector: Floats, part: slice) -> NDArray[np.float64]:
        """Return the sums of squares of the segments of a slice, whose entries are `vector`."""
        own = self.within(part)
        sums = np.empty(len(own))
        squares = np.empty(CHUNK)
        for start in range(part.start, part.stop, CHUNK):
            stop = min(start + CHUNK, part.stop)
            chunk = squares[: stop - start]
            np.square(vector[start - part.start : stop - part.start], out=chunk, dtype=np.float64)
            found = self.within(slice(start, stop))
            firsts = self._starts[found.start : found.stop] - start
            np.add.reduceat(
                chunk, firsts, out=sums[found.start - own.start : found.stop - own.start]
            )
        return sums

    def square_norms(self, sums: NDArray[np.float64]) -> list[float]:
        """Return each array's square norm, from the sums of squares of all segments."""
        values, places = sums.tolist(), itertools.pairwise([0, *self._ends])
        return [tree_sum(values[start:stop]) if stop > start else 0.0 for start, stop in places]

    def total(self, square_norms: Sequence[float]) -> float:
        """Return the gradient's square norm, from its arrays'; a statistic's is no gradient.

        What is `frozen` has none either.
        """
        counted = [*itertools.compress(square_norms, self._counts)]
        return tree_sum(counted) if counted else 0.0

    def square_norm(self, gradient: Floats) -> float:
        """Return the square norm of a gradient [n] that is here whole."""
        whole = slice(0, len(gradient))
        return self.total(self.square_norms(self.square_sums(gradient, whole)))
