"""The drawings of the page: SVG as text, 350 units wide, so that a phone shows them as they are."""

import html
import math
import re
from collections.abc import Sequence
from itertools import product

from dptrain.explain.blocks import Curve, Network, Series, Tree

WIDTH = 350
LETTER = 6.2
"""What a letter of the drawings' small print takes at most, on average over a label."""

BOXES = ((2, 66), (134, 222), (266, 348))
"""From where to where the boxes of inputs, hidden units and output stand."""

AREA = (46, 340, 24, 202)
"""A curve's left, right, top and bottom."""

DASHES = ("", "8 3", "14 4", "9 3 2 3")


def letters(text: str) -> str:
    """Return a name or number with its Greek letter, subscripts and minus signs, escaped."""
    text = text.replace("delta_out", "δ").replace("delta_", "δ")
    subscript = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    text = re.sub(r"\b([xzabv]|δ)(\d+)", lambda m: m[1] + m[2].translate(subscript), text)
    return html.escape(re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text))


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{html.escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{letters(words)}</text>'


def _line(points: Sequence[tuple[float, float]], kind: str = "line", dash: str = "") -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" class="{kind}" stroke-dasharray="{dash}"/>'


def network(drawing: Network) -> str:
    """Draw a network: a box with its numbers for each unit, weights on the lines."""
    height = max(len(drawing.units[1]) * 80, 116)
    heights = [
        [height / 2 + spacing * (j - (len(layer) - 1) / 2) for j in range(len(layer))]
        for layer, spacing in zip(drawing.units, (46, 80, 0), strict=True)
    ]
    lines, labels = [], []
    for layer, weights in enumerate(drawing.weights):
        start, stop = BOXES[layer][1], BOXES[layer + 1][0]
        for i, j in product(range(len(weights)), range(len(weights[0]))):
            low, high = heights[layer][i], heights[layer + 1][j]
            share = (0.26, 0.74)[i] if layer == 0 else 0.5
            lines.append(_line([(start, low), (stop, high)]))
            place = start + share * (stop - start), low + share * (high - low) + 4
            labels.append(_text(*place, weights[i][j], "mid halo"))
    boxes = [
        _box(BOXES[layer], middle, texts)
        for layer, units in enumerate(drawing.units)
        for middle, texts in zip(heights[layer], units, strict=True)
    ]
    return _svg(height, drawing.caption, [*lines, *boxes, *labels])


def _box(place: tuple[int, int], middle: float, texts: Sequence[str]) -> str:
    left, right = place
    top = middle - 7.5 * len(texts) - 3
    rows = [
        _text(left + 5, top + 14 + 15 * row, words, "back" * words.startswith("delta"))
        for row, words in enumerate(texts)
    ]
    return (
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{15 * len(texts) + 6}" rx="5"/>'
        + "".join(rows)
    )


def tree(drawing: Tree) -> str:
    """Draw who adds whose sum, the leaves at the left."""
    step, across = 30, 20
    start = LETTER * max(map(len, drawing.leaves)) + 6
    rows = {leaf: 18.0 + step * leaf for leaf in range(len(drawing.leaves))}
    ends = dict.fromkeys(rows, start)
    parts = [_text(2, rows[leaf] + 4, label) for leaf, label in enumerate(drawing.leaves)]
    for into, what in drawing.messages:
        at, top, bottom = max(ends[into], ends[what]) + across, rows[into], rows[what]
        parts.append(_line([(ends[into], top), (at, top), (at, bottom), (ends[what], bottom)]))
        rows[into], ends[into] = (top + bottom) / 2, at
        parts.append(f'<circle cx="{at:.1f}" cy="{rows[into]:.1f}" r="4"/>')
    words = drawing.root.split("; ")
    parts += [
        _text(ends[0] + 9, rows[0] + 4 + 13 * (row - (len(words) - 1) / 2), line)
        for row, line in enumerate(words)
    ]
    return _svg(step * len(drawing.leaves) + 6, drawing.caption, parts)


def curve(drawing: Curve) -> str:
    """Draw series over a pair of axes with a legend; each differs in colour and in shape."""
    left, right, top, bottom = AREA

    def x_at(value: float) -> float:
        return left + 10 + drawing.share(0, value) * (right - left - 20)

    def y_at(value: float) -> float:
        return bottom - 8 - drawing.share(1, value) * (bottom - top - 16)

    parts = [_line([(left, top), (left, bottom), (right, bottom)], "axis")]
    for tick in _ticks(*drawing.ends(0), drawing.log):
        parts.append(_line([(x_at(tick), top), (x_at(tick), bottom)], "grid"))
        parts.append(_text(x_at(tick), bottom + 14, f"{tick:g}", "mid"))
    for tick in _ticks(*drawing.ends(1), drawing.log):
        parts.append(_line([(left, y_at(tick)), (right, y_at(tick))], "grid"))
        parts.append(_text(left - 5, y_at(tick) + 4, f"{tick:g}", "end"))
    parts.append(_text((left + right) / 2, bottom + 30, drawing.x_label, "mid"))
    parts.append(_text(2, 12, drawing.y_label))
    order = sorted(range(len(drawing.series)), key=lambda k: drawing.series[k].kind == "marks")
    for k in order:
        series = drawing.series[k]
        parts += _series(series, k, [(x_at(x), y_at(y)) for x, y in series.points])
        row = bottom + 48 + 16 * k
        sample = [(left + 14, row)] if series.kind == "marks" else [(left, row), (left + 28, row)]
        parts += _series(series, k, sample)
        parts.append(_text(left + 36, row + 4, series.label))
    return _svg(bottom + 46 + 16 * len(drawing.series), drawing.caption, parts)


def _series(series: Series, number: int, places: Sequence[tuple[float, float]]) -> list[str]:
    kind = f"s{number % 5}"
    if series.kind != "marks":
        dash = "2 4" if series.kind == "broken" else DASHES[number % 4] * (number > 0)
        return [_line(places, f"curve {kind}", dash)]
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
