"""Drawings for pages: SVG as text, 350 units wide, so that a phone shows them as they are.

Curves; the network, whose lines end at their weights; and who adds whose sum.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from dptrain.plot.formulas import small

WIDTH = 350

LETTER = 6.2
"""What a letter of the small print takes at most, on average over a label."""

AREA = (46, 340, 24, 202)
"""A curve's left, right, top and bottom."""

DASHES = ("", "8 3", "14 4", "9 3 2 3")

BOXES = ((2, 70), (124, 220), (266, 348))
"""From where to where the boxes of inputs, hidden units and output stand."""

ROW = 15


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


def svg(height: float, label: str, parts: Sequence[str]) -> str:
    """Return a drawing; `label` is what is read out to those who can't see it."""
    head = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{html.escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Return words that begin at a point, or are centered on it (mid), or end there (end)."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(words)}</text>'


def line(points: Sequence[tuple[float, float]], kind: str = "line", dash: str = "") -> str:
    """Return a line through points."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" class="{kind}" stroke-dasharray="{dash}"/>'


def curve(drawing: Curve) -> str:
    """Draw series over a pair of axes with a legend; each differs in colour and in shape."""
    left, right, top, bottom = AREA

    def x_at(value: float) -> float:
        return left + 10 + drawing.share(0, value) * (right - left - 20)

    def y_at(value: float) -> float:
        return bottom - 8 - drawing.share(1, value) * (bottom - top - 16)

    parts = [line([(left, top), (left, bottom), (right, bottom)], "axis")]
    for tick in _ticks(*drawing.ends(0), drawing.log):
        parts.append(line([(x_at(tick), top), (x_at(tick), bottom)], "grid"))
        parts.append(text(x_at(tick), bottom + 14, _number(tick), "mid"))
    for tick in _ticks(*drawing.ends(1), drawing.log):
        parts.append(line([(left, y_at(tick)), (right, y_at(tick))], "grid"))
        parts.append(text(left - 5, y_at(tick) + 4, _number(tick), "end"))
    parts.append(text((left + right) / 2, bottom + 30, drawing.x_label, "mid"))
    parts.append(text(2, 12, drawing.y_label))
    order = sorted(range(len(drawing.series)), key=lambda k: drawing.series[k].kind == "marks")
    for k in order:
        series = drawing.series[k]
        parts += _series(series, k, [(x_at(x), y_at(y)) for x, y in series.points])
        row = bottom + 48 + 16 * k
        sample = [(left + 14, row)] if series.kind == "marks" else [(left, row), (left + 28, row)]
        parts += _series(series, k, sample)
        parts.append(text(left + 36, row + 4, series.label))
    return svg(bottom + 46 + 16 * len(drawing.series), drawing.caption, parts)


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _series(series: Series, number: int, places: Sequence[tuple[float, float]]) -> list[str]:
    kind = f"s{number % 5}"
    if series.kind != "marks":
        dash = "2 4" if series.kind == "broken" else DASHES[number % 4] * (number > 0)
        return [line(places, f"curve {kind}", dash)]
    if number % 2:
        return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="mark {kind}"/>' for x, y in places]
    return [
        f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" class="mark {kind}"/>' for x, y in places
    ]


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Return round numbers between two: powers of ten, or four to eight steps."""
    if log:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        return [10.0**k for k in range(first, last + 1)]
    rough = (high - low) / 8
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def network(hidden: int, values: Mapping[str, str]) -> str:
    """Draw a network: a box a unit, with its numbers and the weights that lead to it.

    Each line ends at the row of its own weight, so that no number stands on a line.
    """
    up = range(1, hidden + 1)
    units = [
        [["x1"], ["x2"]],
        [[f"{name}{j}" for name in ("w1", "w2", "b", "z", "a", "delta_")] for j in up],
        [[*(f"v{j}" for j in up), "c", "y", "t", "L", "delta_out"]],
    ]
    height = max(hidden * 106, 156)
    tops = [
        [height / 2 + spacing * (j - (len(layer) - 1) / 2) - _high(names) / 2
         for j, names in enumerate(layer)]
        for layer, spacing in zip(units, (46, 106, 0), strict=True)
    ]  # fmt: skip
    parts = []
    for layer in (0, 1):
        for i, j in product(range(len(units[layer])), range(len(units[layer + 1]))):
            start = BOXES[layer][1], tops[layer][i] + _high(units[layer][i]) / 2
            stop = BOXES[layer + 1][0], tops[layer + 1][j] + ROW * i + 10.5
            parts.append(line([start, stop]))
    for place, layer_tops, layer_names in zip(BOXES, tops, units, strict=True):
        for top, names in zip(layer_tops, layer_names, strict=True):
            parts.append(_box(place, top, [f"{name} = {values[name]}" for name in names]))
    return svg(height, "The network with the numbers of example 1", parts)


def _high(rows: Sequence[str]) -> int:
    return ROW * len(rows) + 6


def _box(place: tuple[int, int], top: float, rows: Sequence[str]) -> str:
    left, right = place
    size = f'width="{right - left}" height="{_high(rows)}"'
    return f'<rect x="{left}" y="{top}" {size} rx="5"/>' + "".join(
        text(left + 5, top + 14 + ROW * row, small(words), "back" * words.startswith("delta"))
        for row, words in enumerate(rows)
    )


def tree(leaves: Sequence[str], messages: Sequence[tuple[int, int]], root: Sequence[str]) -> str:
    """Draw who adds whose sum, the leaves at the left; messages are pairs (into, what)."""
    step, across = 30, 20
    start = LETTER * max(map(len, leaves)) + 6
    rows = {leaf: 18.0 + step * leaf for leaf in range(len(leaves))}
    ends = dict.fromkeys(rows, start)
    parts = [text(2, rows[leaf] + 4, label) for leaf, label in enumerate(leaves)]
    for into, what in messages:
        at, top, bottom = max(ends[into], ends[what]) + across, rows[into], rows[what]
        parts.append(line([(ends[into], top), (at, top), (at, bottom), (ends[what], bottom)]))
        rows[into], ends[into] = (top + bottom) / 2, at
        parts.append(f'<circle cx="{at:.1f}" cy="{rows[into]:.1f}" r="4"/>')
    first = rows[0] + 4 - 13 * (len(root) - 1) / 2
    parts += [text(ends[0] + 9, first + 13 * row, words) for row, words in enumerate(root)]
    return svg(step * len(leaves) + 6, "Who adds whose sum", parts)
