"""The chapters in a terminal: 80 columns of plain characters."""

import textwrap
from collections.abc import Sequence
from itertools import groupby, pairwise

from dptrain.explain import blocks

WIDTH = 80
PLOT = (60, 16)
"""Columns and lines of a plot."""


def text(chapter: blocks.Chapter) -> str:
    """Return a chapter as text that ends with an empty line."""
    title = f"{chapter.number}. {chapter.title}"
    parts = [f"{title}\n{'=' * len(title)}\n"]
    for formulas, group in groupby(chapter.blocks, lambda block: isinstance(block, blocks.Formula)):
        texts = ["\n".join(_lines(block)) + "\n" for block in group]
        parts += ["".join(texts)] if formulas else texts
    return "\n".join(part for part in parts if part.strip())


def _wrap(words: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(words, WIDTH, initial_indent=first, subsequent_indent=rest)


def _lines(block: blocks.Block) -> list[str]:
    """Return a block's lines."""
    match block:
        case blocks.Text():
            return _wrap(block.text)
        case blocks.Question():
            return [*_wrap(block.question), *_wrap(block.answer, "  ", "  ")]
        case blocks.Formula():
            return _formula(block)
        case blocks.Table():
            return _table(block)
        case blocks.Network():
            return []  # its numbers stand in the formulas
        case blocks.Tree():
            return _tree(block)
        case blocks.Curve():
            return _curve(block)


def _formula(formula: blocks.Formula) -> list[str]:
    """Return it in one line where that fits, else a line for each of its equal signs."""
    sides = [side for side in (formula.letters, formula.filled) if side]
    line = " = ".join([formula.name, *sides, formula.value])
    if len(line) <= WIDTH:
        return [line]
    indent = " " * min(len(formula.name), 9)
    sides[-1] += f" = {formula.value}"
    first, *rest = sides
    return [
        *_wrap(f"{formula.name} = {first}", "", f"{indent}   "),
        *(line for side in rest for line in _wrap(side, f"{indent} = ", f"{indent}   ")),
    ]


def _table(table: blocks.Table) -> list[str]:
    columns = list(zip(table.head, *table.rows, strict=True))
    first, *rest = [max(map(len, column)) for column in columns]
    wide = 2 + max(rest)
    if first + wide * len(rest) > WIDTH:
        wide -= 1
    return [
        *_wrap(table.caption),
        *(
            (row[0].ljust(first) + "".join(cell.rjust(wide) for cell in row[1:])).rstrip()
            for row in (table.head, *table.rows)
        ),
    ]


def _tree(tree: blocks.Tree) -> list[str]:
    """Draw a tree with its leaves at the left: a line for each leaf, and one between two."""
    left = max(map(len, tree.leaves)) + 1
    rows = {leaf: 2 * leaf for leaf in range(len(tree.leaves))}
    ends = {2 * leaf: left for leaf in rows}
    lines = [list(" " * WIDTH) for _ in range(2 * len(rows) - 1)]
    for leaf, label in enumerate(tree.leaves):
        lines[2 * leaf][: len(label)] = label
    for into, what in tree.messages:
        top, bottom = rows[into], rows[what]
        at = max(ends[top], ends[bottom]) + 3
        for row in (top, bottom):
            lines[row][ends[row] : at] = "-" * (at - ends[row])
        for row in range(top, bottom + 1):
            lines[row][at] = "+" if row in (top, bottom) else "|"
        middle = (top + bottom) // 2
        lines[middle][at] = "+"
        rows[into], ends[middle] = middle, at + 1
    root = rows[0]
    label = f"-- {tree.root}"
    lines[root][ends[root] : ends[root] + len(label)] = label
    return [*_wrap(tree.caption), *("".join(line).rstrip() for line in lines)]


def _curve(curve: blocks.Curve) -> list[str]:
    """Draw marks over lines over broken lines, each series with a letter of its own."""
    columns, rows = PLOT
    canvas = [[" "] * columns for _ in range(rows)]
    spare = {"broken": iter(":;"), "line": iter(".,'\"`~"), "marks": iter("ox#")}
    letters = {series.label: next(spare[series.kind]) for series in curve.series}
    for series in sorted(curve.series, key=lambda one: list(spare).index(one.kind)):
        places = [(curve.share(0, x), curve.share(1, y)) for x, y in series.points]
        for x, y in places if series.kind == "marks" else _dense(places):
            canvas[round((1 - y) * (rows - 1))][round(x * (columns - 1))] = letters[series.label]
    (left, right), (low, high) = ([f"{end:.4g}" for end in curve.ends(axis)] for axis in (0, 1))
    names = [high, *[""] * (rows - 2), low]
    return [
        *_wrap(curve.caption),
        *_wrap(f"up: {curve.y_label}; across: {curve.x_label}" + "; both logarithmic" * curve.log),
        *_wrap("; ".join(f"{letter} {label}" for label, letter in letters.items())),
        *(f"{name:>9} |{''.join(line)}".rstrip() for name, line in zip(names, canvas, strict=True)),
        f"{'':>9} +{'-' * columns}",
        f"{'':>11}{left}{right.rjust(columns - len(left))}",
    ]


def _dense(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points along the lines between points, close enough to fill every column."""
    return [
        (x + (to_x - x) * k / PLOT[0], y + (to_y - y) * k / PLOT[0])
        for (x, y), (to_x, to_y) in pairwise(places)
        for k in range(PLOT[0] + 1)
    ]
