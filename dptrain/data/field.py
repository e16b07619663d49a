"""How one column of a table becomes inputs: numbers, yes and no, dates, categories, gaps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array
from dptrain.data.table import NO_DATE, Column, Kind

PARTS = ("year", "month", "weekday", "hour")
"""What a date becomes, as far as it varies; Monday is 0."""

HOUR = 3_600_000_000
DAY = 24 * HOUR
"""Microseconds."""


class Field(NamedTuple):
    """How one column becomes inputs.

    numbers as they are; yes and no as 1 and 0; dates as some of `PARTS`; a text as as many inputs
    as there are `words`, of which one is 1, and one more for whatever is none of them; or, `coded`,
    as one input, the number of that one.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...] = ()
    """Of the numbers of a row."""
    fill: tuple[float, ...] | None = None
    """What stands in a gap, the training rows' medians, with 1 in one more input; None where the
    training rows have no gap, so that none is taken."""
    parts: tuple[str, ...] = ()
    words: tuple[str | None, ...] = ()
    """The training rows' texts, sorted; None, the last, is a gap."""
    coded: bool = False

    @property
    def width(self) -> int:
        """How many inputs it becomes."""
        if self.kind == "words":
            return 1 if self.coded else len(self.words) + 1
        plain = {"numbers": int(np.prod(self.shape)), "flag": 1, "date": len(self.parts)}
        return plain[self.kind] + (self.fill is not None)

    @property
    def scaled(self) -> NDArray[np.bool_]:
        """Which of its inputs are numbers that have a scale, shape [width]."""
        found = np.full(self.width, self.kind in ("numbers", "date"))
        if self.fill is not None:
            found[-1] = False
        return found

    def places(self, column: Column) -> NDArray[np.intp]:
        """Return which input a text of a column stands for; the last entry is a gap's."""
        known = {word: place for place, word in enumerate(self.words)}
        other = len(self.words)
        return np.array([known.get(word, other) for word in (*column.words, None)], np.intp)

    def encode(self, values: Array, places: NDArray[np.intp] | None = None) -> Array:
        """Return inputs [m, width] of values [m, ...] as a column has them, not scaled yet."""
        if places is not None and self.coded:
            return places[values][:, None].astype(np.float64)
        if places is not None:
            out = np.zeros((len(values), self.width))
            out[np.arange(len(values)), places[values]] = 1
            return out
        plain = values.reshape(len(values), -1)
        if self.kind == "date":
            plain = date_parts(values, self.parts)
        if self.fill is None:
            return plain
        plain = plain.astype(np.float64)
        gaps = np.isnan(plain) if self.kind != "flag" else plain < 0
        filled = np.where(gaps, self.fill, plain)
        return np.concatenate([filled, gaps[:, :1]], axis=1)


def date_parts(values: NDArray[np.int64], parts: Sequence[str] = PARTS) -> NDArray[np.float64]:
    """Return parts [m, parts] of points in time, given in microseconds since 1970; NaN for none."""
    days = (values // DAY).view("datetime64[D]")
    out = np.empty((len(values), len(parts)))
    for place, part in enumerate(parts):
        if part == "hour":
            out[:, place] = values // HOUR % 24
        elif part == "weekday":
            out[:, place] = (days.view(np.int64) + 3) % 7
        elif part == "month":
            out[:, place] = days.astype("datetime64[M]").view(np.int64) % 12 + 1
        else:
            out[:, place] = days.astype("datetime64[Y]").view(np.int64) + 1970
    out[values == NO_DATE] = np.nan
    return out


def field_of(told: Mapping[str, Any]) -> Field:
    """Return a field that was stored; ValueError or TypeError where it is none."""
    fill = told.get("fill")
    found = Field(
        told["name"], told["kind"], tuple(told.get("shape", ())),
        None if fill is None else tuple(float(value) for value in fill),
        tuple(told.get("parts", ())), tuple(told.get("words", ())), told.get("coded", False),
    )  # fmt: skip
    sizes = {"numbers": 1, "flag": 1, "date": len(found.parts), "words": 0}
    sound = (
        isinstance(found.name, str)
        and found.kind in get_args(Kind)
        and all(type(length) is int and 0 <= length < 2**40 for length in found.shape)
        and (found.fill is None or (len(found.fill) == sizes[found.kind] and not found.shape))
        and {*found.parts} <= {*PARTS}
        and len({*found.parts}) == len(found.parts)
        and bool(found.parts) == (found.kind == "date")
        and all(word is None or isinstance(word, str) for word in found.words)
        and len({*found.words}) == len(found.words)
        and (not found.words or found.kind == "words")
        and (found.coded is False or (found.coded is True and found.kind == "words"))
    )
    if not sound:
        raise ValueError(f"{found.name!r} is no input")
    return found
