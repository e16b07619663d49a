"""Applies transforms to one slice of the vector, block by block, and averages it over steps.

An optimizer never communicates. It updates the slice it is given, entry by entry, so that how the
vector is cut cannot change a bit.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dptrain.arrays import CACHED, Array, Floats, not_finite, scalar
from dptrain.optim.named import Part
from dptrain.optim.rules import Step, Transform


@functools.lru_cache(16)
def division(divisor: float, dtype: Any) -> tuple[np.ufunc, Array]:
    """Return what divides an array: by a power of two multiplying is the same, but faster."""
    whole = divisor >= 1 and math.frexp(divisor)[0] == 0.5
    return np.multiply if whole else np.divide, scalar(1 / divisor if whole else divisor, dtype)


class Block(NamedTuple):
    """Views of what is updated at a time, which are kept."""

    params: Floats
    gradient: Floats
    update: Floats
    """Memory for it."""
    work: Floats
    pieces: list[tuple[Transform, Floats]]
    """The transforms, each with its state."""
    watched: list[Floats]
    """What is multiplied with the parameters to see whether both are finite: rows of the state that
    may hide it, or else the parameters themselves."""
    part: Part

    def step(self, pieces: Sequence[tuple[Transform, Floats]], info: Step, rate: float) -> bool:
        """Make of `update` by these transforms what is subtracted from the parameters.

        Returns whether parameters or state may have become what is not finite.
        """
        values, update, doubt = self.params, self.update, False
        for transform, state in pieces:
            transform.apply(update, values, state, self.work, info)
        np.multiply(update, scalar(rate * self.part.treatment.factor, update.dtype), out=update)
        np.subtract(values, update, out=values)
        for row in self.watched:  # finite only where both are: one look at what is in cache
            doubt = doubt or not math.isfinite(values.dot(row))
        return doubt


class Average:
    """The moving average of one slice of the parameters, statistics included.

    average += (1 - d) * (params - average) after each step, with d = min(decay, (1 + n) / (10 + n))
    after n steps, so that what it started from is soon forgotten (as TensorFlow's
    ExponentialMovingAverage with num_updates). Polyak and Juditsky (1992) is why one averages.

    `decay`: what it keeps of itself, at least 0 and below 1. `params`: what it starts from, [size];
    copied.
    """

    def __init__(self, decay: float, params: Floats) -> None:
        self.decay = decay
        self.values = params.copy()
        self._work = np.empty(min(len(params), CACHED), params.dtype)

    def update(self, params: Floats, number: int) -> None:
        """Take the parameters after so many steps."""
        share = 1 - min(self.decay, (1 + number) / (10 + number))
        for start in range(0, len(params), CACHED):
            values = self.values[start : start + CACHED]
            work = self._work[: len(values)]
            np.subtract(params[start : start + CACHED], values, out=work)
            work *= share
            values += work

    def swap(self, params: Floats) -> None:
        """Exchange the average and the parameters [size]."""
        for start in range(0, len(params), CACHED):
            values, own = self.values[start : start + CACHED], params[start : start + CACHED]
            values[:], own[:] = own.copy(), values.copy()


@dataclass(eq=False)
class Optimizer:
    """Transforms in a row and their state, for one slice of the parameter vector."""

    transforms: list[Transform]
    """Applied in this order to the mean gradient; the result times the learning rate is subtracted
    from the parameters."""
    rate: Callable[[int], float]
    """The learning rate of each step, which counts from 0."""
    size: int
    """The length of the slice."""
    dtype: Any
    """The parameters' type, also of the state."""
    parts: Sequence[Part]
    """What of the slice is updated, and how."""
    statistics: Sequence[slice] = ()
    """Where in the slice statistics lie, in their order. The minibatch's mean takes their place,
    the weighted one of its shards' new values; no transform sees them."""
    average: Average | None = None

    def __post_init__(self) -> None:
        self.state = [np.zeros((each.num_slots, self.size), self.dtype) for each in self.transforms]
        self._work = np.empty((2, min(self.size, CACHED)), self.dtype)
        self._params = self._gradient = np.empty(0, self.dtype)  # those of the last step
        self._blocks: list[Block] = []

    def update(
        self, params: Floats, gradient_sum: Floats, step: int, norm: float, weight_sum: float
    ) -> int | None:
        """Update `params` [size] in place by the mean gradient, gradient_sum / weight_sum [size].

        This is the one division, done block by block where the block is in cache anyway. `norm` is
        the whole mean gradient's Euclidean norm; only clipping by norm looks at it. Where nothing
        weighs anything the gradient is 0, and statistics stay.

        Returns the first entry at which the gradient is not finite, or else what parameters or
        state have become; None where all are. Parameters and state are of no use then.
        """
        info, rate, doubt = Step(step + 1, norm), self.rate(step), False
        divide, by = division(weight_sum or 1.0, self.dtype)
        for block in self._in_blocks(params, gradient_sum):
            divide(block.gradient, by, out=block.update)
            doubt = block.step(block.pieces, info, rate) or doubt
        return self._end(params, gradient_sum, step, weight_sum, doubt)

    def _end(
        self, params: Floats, gradient_sum: Floats, step: int, weight_sum: float, doubt: bool
    ) -> int | None:
        """Set statistics and average, and return what `update` does; `doubt`: there is one."""
        for part in self.statistics if weight_sum else ():
            values = params[part]
            np.divide(gradient_sum[part], weight_sum, out=values)
            doubt = doubt or not math.isfinite(values.dot(values))
        if self.average is not None:
            self.average.update(params, step + 1)
        if not doubt:
            return None
        for arrays in ([gradient_sum], [params, *(row for state in self.state for row in state)]):
            faults = [entry for entry in map(not_finite, arrays) if entry is not None]
            if faults:
                return min(faults)
        return None

    def _in_blocks(self, params: Floats, gradient: Floats) -> list[Block]:
        """Return views of a block each; they are kept, as the vectors come back step after step."""
        if self._params is not params or self._gradient is not gradient:
            self._params, self._gradient = params, gradient
            self._blocks = [
                self._block(slice(first, min(first + CACHED, part.place.stop)), part)
                for part in self.parts
                for first in range(part.place.start, part.place.stop, CACHED)
            ]
        return self._blocks

    def _block(self, place: slice, part: Part) -> Block:
        """Return the views of a place in a part of the vectors at hand."""
        update, work = self._work[:, : place.stop - place.start]
        pieces = [
            (own, state[:, place])
            for piece, state in zip(self.transforms, self.state, strict=True)
            if (own := piece if part.treatment.decays else piece.without_decay()) is not None
        ]
        params, gradient = self._params[place], self._gradient[place]
        watched = [state[-1] for transform, state in pieces if transform.hides] or [params]
        return Block(params, gradient, update, work, pieces, watched, part)
