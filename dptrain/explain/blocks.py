"""What a chapter is made of: words, numbers as they are shown, drawings; laid out elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Question:
    """A question that people ask, by its name, and the answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Formula:
    """What is computed: in letters, then with the numbers filled in, then what it comes to."""

    name: str
    letters: str
    filled: str
    value: str


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of a row its name."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Network:
    """A network with its numbers: what stands in each unit, and the weights between them."""

    caption: str
    units: Sequence[Sequence[Sequence[str]]]
    """The lines in each unit of each layer: inputs, hidden, output."""
    weights: Sequence[Sequence[Sequence[str]]]
    """Between two layers, from each unit of the lower to each of the upper."""


@dataclass(frozen=True)
class Tree:
    """Who adds whose sum: pairs (into, what) of leaves, in order, until one is left."""

    caption: str
    leaves: Sequence[str]
    messages: Sequence[tuple[int, int]]
    root: str


@dataclass(frozen=True)
class Series:
    """Points of a curve: drawn as marks, as a line, or as a broken line."""

    label: str
    points: Sequence[tuple[float, float]]
    kind: Literal["marks", "line", "broken"]


@dataclass(frozen=True)
class Curve:
    """Series over one pair of axes, both logarithmic where `log`."""

    caption: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: bool = True

    def ends(self, axis: int) -> tuple[float, float]:
        """Return the least and the largest value along axis 0 or 1."""
        values = [point[axis] for series in self.series for point in series.points]
        return min(values), max(values)

    def share(self, axis: int, value: float) -> float:
        """Return where a value stands between the ends of an axis, from 0 to 1."""
        low, high = self.ends(axis)
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


Block = Text | Question | Formula | Table | Network | Tree | Curve


@dataclass(frozen=True)
class Chapter:
    """A chapter; people ask for it by number or name."""

    number: int
    name: str
    title: str
    blocks: Sequence[Block]
