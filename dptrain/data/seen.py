"""What is in a column: gaps, the least and the largest, the mean; counted part by part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.data.table import Column


@dataclass(frozen=True)
class Seen:
    """What was seen of some entries of a column. A sum, not a mean, so that parts add up."""

    entries: int
    gaps: int
    infinite: int
    sum: float
    low: float | None
    """The least of the finite ones; None where there is none."""
    high: float | None

    @property
    def mean(self) -> float | None:
        """The mean of the entries that are no gap."""
        known = self.entries - self.gaps - self.infinite
        return self.sum / known if known else None


def seen(column: Column, values: Array) -> Seen:
    """Return what is seen in some rows, as `column.read` returned them."""
    if values.dtype.kind == "f" and values.size:
        low, high = float(values.min()), float(values.max())
        if math.isfinite(low) and math.isfinite(high):  # as most are
            return Seen(values.size, 0, 0, float(values.sum(dtype=np.float64)), low, high)
    gaps = column.gaps(values)
    infinite = np.isinf(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    known = values[~(gaps | infinite)]
    return Seen(
        values.size, int(gaps.sum()), int(infinite.sum()), float(known.sum(dtype=np.float64)),
        float(known.min()) if known.size else None, float(known.max()) if known.size else None,
    )  # fmt: skip


def added(parts: Sequence[Seen]) -> Seen:
    """Return what was seen in all parts; the sum is exact, so in any order."""
    lows = [part.low for part in parts if part.low is not None]
    highs = [part.high for part in parts if part.high is not None]
    return Seen(
        sum(part.entries for part in parts), sum(part.gaps for part in parts),
        sum(part.infinite for part in parts), math.fsum(part.sum for part in parts),
        min(lows, default=None), max(highs, default=None),
    )  # fmt: skip


def in_words(column: Column, value: float | None) -> str:
    """Return a value of a column, for people."""
    if value is None:
        return ""
    if column.kind == "date":
        return str(np.datetime64(int(value), "us").astype("datetime64[s]"))
    if column.kind == "words":
        return column.words[int(value)]
    return f"{value:,.6g}" if column.kind == "numbers" else ("no", "yes")[int(value)]


def as_cell(column: Column, value: Any) -> str:
    """Return one cell of a column, for people; nothing for a gap."""
    array = np.asarray(value)
    if array.ndim:
        return f"{array.dtype} {list(array.shape)}"
    return "" if column.gaps(array.reshape(1))[0] else in_words(column, value)
