"""What the letters of a chapter stand for, and numbers in tables: all as it is printed."""

import math
import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from dptrain.explain.found import Example
from dptrain.explain.plain import run, softmax
from dptrain.explain.problem import Problem
from dptrain.plot.words import exact, rounded, table

LETTERS = r"\b((?:delta|back)_\w+|[wbvxzaypc]\d+|[cyts])\b"
"""What is a letter in a formula."""


class Letters:
    """A problem, its examples, and the text of every number that belongs to one of them."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.units, self.outputs = range(1, problem.hidden + 1), range(1, problem.outputs + 1)
        self.head = [f"ex. {number}" for number, _ in enumerate(problem.xs, 1)]

    @cached_property
    def values(self) -> list[dict[str, str]]:
        """What each letter stands for, as printed, for each example."""
        return [dict(self._printed(i, one)) for i, one in enumerate(run(self.problem))]

    def _printed(self, number: int, one: Example) -> Iterator[tuple[str, str]]:
        problem = self.problem
        yield from zip(problem.names, map(exact, problem.params), strict=True)
        yield from ((f"x{i}", exact(x)) for i, x in enumerate(problem.xs[number], 1))
        target = problem.ts[number]
        yield "s", rounded(sum(map(math.exp, one.y)))
        yield from (("t", exact(target)), ("class", exact(target + 1)), ("L", rounded(one.loss)))
        gradient = zip(problem.names, map(rounded, one.gradient), strict=True)
        yield from ((f"dL/d{name}", value) for name, value in gradient)
        yield from (("y", rounded(one.y[0])), ("delta_out", rounded(one.delta_out[0])))
        for label, found in (
            ("z{}", one.z), ("a{}", one.a), ("back_{}", one.back), ("delta_{}", one.delta),
            ("y{}", one.y), ("p{}", softmax(one.y)), ("delta_out_{}", one.delta_out),
            ("v{}*delta_out", one.back), ("1 - a{}^2", one.slope),
        ):  # fmt: skip
            yield from ((label.format(j), rounded(value)) for j, value in enumerate(found, 1))

    def each(self, *labels: str) -> list[str]:
        """Return labels such as z{j} for each hidden unit, such as y{k} for each output."""
        spans = ((label, self.outputs if "{k}" in label else self.units) for label in labels)
        return [label.format(j=n, k=n) for label, span in spans for n in span]

    def gradients(self, names: Iterable[str]) -> list[list[str]]:
        """Return table rows: a parameter's name, and its gradient in each example."""
        return [[name, *(values[f"dL/d{name}"] for values in self.values)] for name in names]

    def table(self, *names: str) -> str:
        """Return a table of values by name, a column an example."""
        rows = [[name, *(values[name] for values in self.values)] for name in names]
        return table(["", *self.head], rows)

    def formulas(self, *formulas: str) -> str:
        """Return formulas with what they come to: the first example's numbers, and their value."""
        values, lines = self.values[0], []
        for formula in formulas:
            name, letters = formula.split(" = ")
            numbers, value = filled(letters, values), values[name]
            more = [value] if numbers.strip("()") == value else [numbers, value]
            lines.append(" = ".join([formula, *more]))
        return "\n".join(lines)


def filled(letters: str, values: dict[str, str]) -> str:
    """Return an expression with numbers in place of letters, those below 0 in brackets."""

    def number(letter: re.Match[str]) -> str:
        text = values[letter[0]]
        return f"({text})" if text.startswith("-") else text

    text = re.sub(LETTERS, number, letters)
    return re.sub(r"\(\((-[\d.]+)\)", r"(\1", text)  # not two brackets where one is
