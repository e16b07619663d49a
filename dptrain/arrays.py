"""What arrays are called in every room, and how one vector holds those that have names."""

import bisect
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""Real numbers of either precision: parameters, gradients, inputs."""

Array = NDArray[Any]
"""Whatever a file or a checkpoint holds."""

Weights = NDArray[np.float64] | None
"""How much each example counts, [m]; None where each counts 1."""

Categories = tuple[tuple[str, int, int], ...]
"""Inputs that are codes of categories, 0 to rows - 1: a name, which input, and how many rows."""

CACHED = 65536
"""Entries that are worked on at a time: few enough for the work of a block to stay in cache, and so
many that reading ahead pays (measured, updates: 1.6 times as fast as blocks of 16384)."""

Form = tuple[str, tuple[int, ...]]
"""The type of an array's entries, and its shape."""

Forms = dict[str, Form]
"""Those of named arrays."""


class Sums(NamedTuple):
    """What a shard's examples come to, each counted as much as it weighs: sums, never means."""

    loss: float
    weight: float
    """What they weigh together: 1 each unless said."""
    right: float = math.nan
    """What those weigh together whose class, or all of whose labels, were said rightly; NaN where
    nobody counts them."""


Kind = Literal["weight", "bias", "norm", "statistic"]
"""What an array of a model is for: optimizers may treat biases and the scales of normalisations
otherwise than weights; a statistic, such as a running mean, is averaged and no parameter."""


def kind_by_name(name: str, layer: str = "") -> Kind:
    """Return what an array is for, as far as its name says it, or that of its layer's class."""
    last = name.rpartition(".")[2]
    if last == "b" or "bias" in last:
        return "bias"
    return "norm" if "Norm" in layer or last in ("scale", "gamma") else "weight"


@dataclass(frozen=True)
class Param:
    """A named array of a model, which lies in the flat vector in C order, after those before it."""

    name: str
    shape: tuple[int, ...]
    kind: Kind = "weight"
    fixed: bool = False
    """Whether it stays as it is, as if --freeze named it."""

    @property
    def size(self) -> int:
        """The number of its entries."""
        return math.prod(self.shape)


Layout = Sequence[Param]
"""A model's arrays, in the order in which the flat vector holds them."""


def num_params(layout: Layout) -> int:
    """Return the length n of the flat vector."""
    return sum(param.size for param in layout)


def views(layout: Layout, vector: Floats) -> dict[str, Floats]:
    """Return the named arrays that a flat vector [n] holds, as views of it."""
    stops = itertools.accumulate(param.size for param in layout)
    return {
        param.name: vector[stop - param.size : stop].reshape(param.shape)
        for param, stop in zip(layout, stops, strict=True)
    }


def name_of(layout: Layout, entry: int) -> str:
    """Return the name of the array that an entry of the flat vector belongs to."""
    stops = list(itertools.accumulate(param.size for param in layout))
    return layout[bisect.bisect_right(stops, entry)].name


@functools.lru_cache(1024)
def scalar(value: float, dtype: Any) -> Array:
    """Return a number as an array without axes, kept: NumPy converts a plain one in every call."""
    kept = np.array(value or 0.0, dtype)  # of -0.0, which is found as 0.0, too
    kept.flags.writeable = False
    return kept


def not_finite(values: Array) -> int | None:
    """Return the first entry of a vector [n] that is not finite; None where all are."""
    fine = np.isfinite(values)
    return None if fine.all() else int(np.argmin(fine))


def distinct(*parts: Array) -> Array:
    """Return the different values of some vectors, sorted; np.unique would load numpy.ma for it."""
    found = np.sort(np.concatenate(parts))
    different: Array = found[np.append(True, found[1:] != found[:-1])[: len(found)]]
    return different
