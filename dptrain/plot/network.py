"""The drawings of the network, whose lines end at their weights, and of who adds whose sum."""

from collections.abc import Mapping, Sequence
from itertools import product

from dptrain.plot.drawing import LETTER, line, svg, text
from dptrain.plot.formulas import small

BOXES = ((2, 70), (124, 220), (266, 348))
"""From where to where the boxes of inputs, hidden units and output stand."""

ROW = 15


def network(hidden: int, values: Mapping[str, str]) -> str:
    """Draw a network: a box a unit, with its numbers and the weights that lead to it.

    Each line ends at the row of its own weight, so that no number stands on a line.
    """
    units = [
        [["x1"], ["x2"]],
        [[f"{name}{j}" for name in ("w1", "w2", "b", "z", "a", "delta_")] for j in _up(hidden)],
        [[*(f"v{j}" for j in _up(hidden)), "c", "y", "t", "L", "delta_out"]],
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


def _up(count: int) -> range:
    return range(1, count + 1)


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
    parts += [
        text(ends[0] + 9, rows[0] + 4 + 13 * (row - (len(root) - 1) / 2), words)
        for row, words in enumerate(root)
    ]
    return svg(step * len(leaves) + 6, "Who adds whose sum", parts)
