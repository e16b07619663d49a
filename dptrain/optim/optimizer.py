"""Applies transforms to one slice of the vector, block by block.

An optimizer never communicates. It updates the slice it is given, entry by entry, so that how the
vector is cut cannot change a bit.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dptrain.arrays import Floats
from dptrain.optim.rules import Step, Transform

CACHED = 65536
"""Entries that are updated at a time: few enough for the work of a block to stay in cache, and so
many that reading ahead pays (measured: 1.6 times as fast as blocks of 16384)."""


class Optimizer:
    """Transforms in a row and their state, for one slice of the parameter vector.

    Parameters
    ----------
    transforms
        Applied in this order to the mean gradient; the result times the learning rate is
        subtracted from the parameters.
    rate
        The learning rate of each step, which counts from 0.
    size
        The length of the slice.
    dtype
        The parameters' type, also of the state.
    """

    def __init__(
        self, transforms: list[Transform], rate: Callable[[int], float], size: int, dtype: Any
    ) -> None:
        self.transforms = transforms
        self.rate = rate
        self.state = [np.zeros((transform.num_slots, size), dtype) for transform in transforms]
        self._work = np.empty((2, min(size, CACHED)), dtype)
        self._params: Floats | None = None
        self._gradient: Floats | None = None
        self._blocks: list[Block] = []

    def update(
        self, params: Floats, gradient_sum: Floats, step: int, norm: float, divisor: float
    ) -> int | None:
        """Update `params` [size] in place by the mean gradient, gradient_sum / divisor [size].

        This is the one division, done block by block where the block is in cache anyway. `norm` is
        the whole mean gradient's Euclidean norm; only clipping by norm looks at it.

        Returns the first entry at which the gradient is not finite, or else what parameters or
        state have become; None where all are. Parameters and state are of no use then.
        """
        info, rate, doubt = Step(step + 1, norm), self.rate(step), False
        for values, gradient, update, work, pieces, watched in self._in_blocks(
            params, gradient_sum
        ):
            np.divide(gradient, divisor, out=update)
            found = update
            for transform, state in pieces:
                found = transform(found, values, state, work, info)
            np.multiply(found, rate, out=found)
            np.subtract(values, found, out=values)
            for row in watched:  # finite only where both are: one look at what is in cache
                doubt = doubt or not math.isfinite(values.dot(row))
        if not doubt:
            return None
        for arrays in ([gradient_sum], [params, *(row for state in self.state for row in state)]):
            faults = [int(np.argmin(fine)) for fine in map(np.isfinite, arrays) if not fine.all()]
            if faults:
                return min(faults)
        return None

    def _in_blocks(self, params: Floats, gradient: Floats) -> "list[Block]":
        """Return views of a block each; they are kept, as the vectors come back step after step."""
        if self._params is not params or self._gradient is not gradient:
            self._params, self._gradient = params, gradient
            self._blocks = [
                (
                    params[start : start + CACHED],
                    gradient[start : start + CACHED],
                    self._work[0, : len(params) - start],
                    self._work[1, : len(params) - start],
                    [
                        (transform, state[:, start : start + CACHED])
                        for transform, state in zip(self.transforms, self.state, strict=True)
                    ],
                    [
                        state[-1, start : start + CACHED]
                        for transform, state in zip(self.transforms, self.state, strict=True)
                        if transform.hides
                    ]
                    or [params[start : start + CACHED]],
                )
                for start in range(0, len(params), CACHED)
            ]
        return self._blocks


Block = tuple[Floats, Floats, Floats, Floats, list[tuple[Transform, Floats]], list[Floats]]
"""A block of parameters and of the gradient, memory for its update and for work, the state, and
what is multiplied with the parameters to see whether both are finite: rows of the state that may
hide it, or else the parameters themselves."""
