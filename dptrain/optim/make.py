"""The optimizer that a configuration names, for a slice of a model's vector.

LARS and LAMB have one of their own: how far an array goes is decided by its norm and by that of its
update.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dptrain.arrays import Floats, Layout
from dptrain.config import TrainConfig
from dptrain.optim.named import Part, parts, treatments
from dptrain.optim.optimizer import Block, Optimizer
from dptrain.optim.rules import Step, Transform, Trust, transforms

Measure = Callable[[Floats], Sequence[float]]
"""Takes the slice of a vector, returns the square norm of each array of the whole. Collective."""


@dataclass(eq=False, kw_only=True)
class Layerwise(Optimizer):
    """An optimizer one of whose transforms trusts each array's update by its norm.

    An array may span slices, so the update is made in two passes: what stands before that transform
    first, then all slices are measured, then the rest. Norms are added in the tree, over blocks
    that are cut where arrays end, and so `update` is a collective call. Each part is of one array.
    """

    adapts: Sequence[bool]
    """Of each array whether its update is scaled."""
    measure: Measure
    """What measures the arrays of a vector of which this is a slice."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._trust = next(piece for piece in self.transforms if isinstance(piece, Trust))
        self._found = np.zeros(self.size, self.dtype)

    def update(
        self, params: Floats, gradient_sum: Floats, step: int, norm: float, weight_sum: float
    ) -> int | None:
        """See `Optimizer.update`. Collective: every owner of a slice must call this."""
        blocks, info = self._in_blocks(params, gradient_sum), Step(step + 1, norm)
        rate, divisor, doubt = self.rate(step), weight_sum or 1.0, False
        for block in blocks:
            np.divide(block.gradient, divisor, out=block.update)
            for transform, state in block.pieces[: _split(block.pieces)]:
                transform.apply(block.update, block.params, state, block.work, info)
        ratios = self._ratios(params)
        for block in blocks:
            own = info._replace(ratio=ratios[block.part.array])
            doubt = block.step(block.pieces[_split(block.pieces) :], own, rate) or doubt
        return self._end(params, gradient_sum, step, weight_sum, doubt)

    def _ratios(self, params: Floats) -> list[float]:
        """Return what each array's update is scaled by. Collective."""
        squares = zip(self.measure(params), self.measure(self._found), strict=True)
        return [
            self._trust.ratio(math.sqrt(of_params), math.sqrt(of_update)) if adapts else 1.0
            for adapts, (of_params, of_update) in zip(self.adapts, squares, strict=True)
        ]

    def _block(self, place: slice, part: Part) -> Block:
        """See `Optimizer`; its update stays until all slices have been measured."""
        return super()._block(place, part)._replace(update=self._found[place])


def _split(pieces: list[tuple[Transform, Floats]]) -> int:
    """Return how many transforms stand before the one that asks for norms."""
    return next(n for n, (transform, _) in enumerate(pieces) if isinstance(transform, Trust))


def make_optimizer(
    config: TrainConfig,
    layout: Layout,
    own: slice,
    rate: Callable[[int], float],
    dtype: Any,
    measure: Measure,
) -> Optimizer:
    """Return the optimizer of a slice; only LARS's and LAMB's `measure`.

    Raises InputError where a pattern of names fits no array.
    """
    pieces, size = transforms(config), own.stop - own.start
    apart = any(isinstance(piece, Trust) for piece in pieces)
    places = parts(layout, treatments(layout, config), own, apart=apart)
    if not apart:
        return Optimizer(pieces, rate, size, dtype, *places)
    adapts = [param.kind == "weight" for param in layout]
    return Layerwise(pieces, rate, size, dtype, *places, adapts=adapts, measure=measure)
