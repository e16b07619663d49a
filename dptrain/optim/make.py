"""The optimizer that a configuration names, for a slice of a model's vector."""

from collections.abc import Callable
from typing import Any

from dptrain.arrays import Layout
from dptrain.config import TrainConfig
from dptrain.optim.layerwise import Layerwise, Measure
from dptrain.optim.named import parts, treatments
from dptrain.optim.optimizer import Optimizer
from dptrain.optim.rules import Trust, transforms


def make_optimizer(
    config: TrainConfig,
    layout: Layout,
    own: slice,
    rate: Callable[[int], float],
    dtype: Any,
    measure: Measure,
) -> Optimizer:
    """Return the optimizer of a slice; only LARS's and LAMB's `measure`. See `Layerwise`.

    Raises InputError where a pattern of names fits no array.
    """
    pieces, size = transforms(config), own.stop - own.start
    apart = any(isinstance(piece, Trust) for piece in pieces)
    places = parts(layout, treatments(layout, config), own, apart=apart)
    if not apart:
        return Optimizer(pieces, rate, size, dtype, *places)
    adapts = [param.kind == "weight" for param in layout]
    return Layerwise(pieces, rate, size, dtype, *places, adapts, measure)
