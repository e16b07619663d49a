"""The chapters' words and numbers: the one description that terminal and page lay out."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from dptrain.config import ExplainConfig, InputError, nearest
from dptrain.explain import chapters_digits, plain
from dptrain.explain.blocks import (
    Block,
    Chapter,
    Curve,
    Formula,
    Network,
    Question,
    Series,
    Table,
    Text,
    Tree,
)
from dptrain.explain.numbers import add_up
from dptrain.explain.problem import Problem, problem

TITLES = {
    "example": "One example",
    "batch": "A batch",
    "averaging": "What if I average the activations?",
    "recursion": "The recursion",
    "workers": "Workers",
    "minibatch": "Why a minibatch at all",
    "noise": "How many workers are worth it?",
}
NAMES = list(TITLES)


def chosen(names: Sequence[str]) -> list[int]:
    """Return the numbers of chapters given by number or name, all where none is given."""
    known = {str(number): number for number, _ in enumerate(NAMES, 1)}
    known |= {name: number for number, name in enumerate(NAMES, 1)}
    for name in names:
        if name not in known:
            raise InputError(f"there is no chapter {name!r}; {nearest(name, known)}")
    return sorted({known[name] for name in names or NAMES})


def chapter(config: ExplainConfig, number: int) -> Chapter:
    """Return a chapter by its number; only what it needs is computed."""
    name = NAMES[number - 1]
    write: Callable[[], list[Block]] = getattr(_Book(config), f"_{name}")
    return Chapter(number, name, TITLES[name], write())


def variance_curve(config: ExplainConfig) -> Curve:
    """Return chapter 6's curve."""
    blocks = chapter(config, 1 + NAMES.index("minibatch")).blocks
    return next(block for block in blocks if isinstance(block, Curve))


def _exact(value: float) -> str:
    return f"{value:zg}"


def _round(value: float) -> str:
    return f"{value:z.4f}"


def _rows(
    names: Iterable[str], *columns: Sequence[float], show: Callable[[float], str] = _round
) -> list[list[str]]:
    """Return table rows: a name, and its number in each column."""
    return [[name, *map(show, row)] for name, *row in zip(names, *columns, strict=True)]


def _filled(letters: str, values: dict[str, str]) -> str:
    """Return an expression with numbers in place of letters, those below 0 in brackets."""

    def number(letter: re.Match[str]) -> str:
        text = values[letter[0]]
        return f"({text})" if text.startswith("-") else text

    text = re.sub(r"\b(delta_\w+|[wbvxza]\d+|[cyt])\b", number, letters)
    return re.sub(r"\(\((-[\d.]+)\)", r"(\1", text)  # not two brackets where one is


@dataclass(frozen=True)
class _Book:
    """A network, a minibatch and what the plain side finds; the methods in `NAMES` write."""

    config: ExplainConfig

    @cached_property
    def problem(self) -> Problem:
        return problem(self.config)

    @cached_property
    def found(self) -> dict[int, plain.Found]:
        return plain.toy(self.problem)

    @cached_property
    def values(self) -> list[dict[str, str]]:
        """What each letter stands for, as printed, for each example."""
        return [self._printed(number) for number in range(len(self.problem.xs))]

    def _printed(self, number: int) -> dict[str, str]:
        problem, columns = self.problem, self.found[2] | self.found[4]
        values = dict(zip(problem.names, map(_exact, problem.params), strict=True))
        values |= {f"x{i}": _exact(x) for i, x in enumerate(problem.xs[number], 1)}
        values |= {"t": _exact(problem.ts[number]), "L": _round(columns["loss"][number])}
        values |= {name: _round(columns[name][number][0]) for name in ("y", "delta_out")}
        for name, label in (
            ("z", "z{}"),
            ("a", "a{}"),
            ("delta", "delta_{}"),
            ("back", "v{}*delta_out"),
            ("slope", "1 - a{}^2"),
        ):
            units = zip(self.units, columns[name][number], strict=True)
            values |= {label.format(j): _round(value) for j, value in units}
        gradient = zip(problem.names, columns["gradient"][number], strict=True)
        return values | {f"dL/d{name}": _round(value) for name, value in gradient}

    @property
    def units(self) -> range:
        return range(1, self.problem.hidden + 1)

    def _by_unit(self, *labels: str) -> list[str]:
        """Return labels such as z{} for each unit, all units of one label together."""
        return [label.format(j) for label in labels for j in self.units]

    def _columns(self, caption: str, *names: str) -> Table:
        """Return a table of values by name, a column an example."""
        head = [f"ex. {number}" for number, _ in enumerate(self.values, 1)]
        rows = [[name, *(values[name] for values in self.values)] for name in names]
        return Table(caption, ["", *head], rows)

    def _formula(self, name: str, letters: str) -> Formula:
        """Return a formula filled in with the first example's numbers."""
        filled, value = _filled(letters, self.values[0]), self.values[0][name]
        return Formula(name, letters, "" if filled.strip("()") == value else filled, value)

    def _example(self) -> list[Block]:
        v, units = self.values[0], self.units
        letters = {
            "w1{}": "w1j: from x1", "w2{}": "w2j: from x2", "b{}": "bj: bias", "v{}": "vj: to y"
        }  # fmt: skip
        forward = [
            self._formula(*each)
            for j in units
            for each in ((f"z{j}", f"w1{j}*x1 + w2{j}*x2 + b{j}"), (f"a{j}", f"tanh(z{j})"))
        ]
        back = [(f"delta_{j}", f"delta_out*v{j}*(1 - a{j}^2)") for j in units]
        back += [(f"dL/dw{i}{j}", f"delta_{j}*x{i}") for i, j in product((1, 2), units)]
        back += [(f"dL/db{j}", f"delta_{j}") for j in units]
        back += [(f"dL/dv{j}", f"delta_out*a{j}") for j in units] + [("dL/dc", "delta_out")]
        return [
            Question(
                "Is there a simple example without tensors?",
                f"Yes, this one: 2 inputs, {len(units)} hidden, 1 output, {len(self.values)} "
                "examples, in numbers that paper and pencil can follow. This chapter takes the "
                "first example forward and back.",
            ),
            Text(
                "The weight w12 leads from input 1 to hidden unit 2, where the bias b2 is added; "
                "v2 leads from hidden unit 2 to the output, where c is added. A hidden unit's "
                "activation is a = tanh(z), whose slope is 1 - a^2. The loss of an example with "
                "output y and target t is L = (y - t)^2. A delta is the slope of L along a z: the "
                "error signal. Inputs, targets and parameters are printed whole; what is computed "
                "is printed to 4 decimals and used with all its digits, so on paper a last digit "
                "may come out a little different."
            ),
            Table(
                f"The parameters; the output's bias is c = {v['c']}",
                ["", *(f"unit {j}" for j in units)],
                [[what, *(v[name.format(j)] for j in units)] for name, what in letters.items()],
            ),
            self._network(),
            Text("Forward:"),
            *forward,
            self._formula("y", " + ".join(f"v{j}*a{j}" for j in units) + " + c"),
            self._formula("L", "(y - t)^2"),
            Text("Back, and the gradient of this one example:"),
            self._formula("delta_out", "2*(y - t)"),
            *(self._formula(*each) for each in back),
        ]

    def _network(self) -> Network:
        v = self.values[0]

        def lines(*names: str) -> list[str]:
            return [f"{name} = {v[name]}" for name in names]

        return Network(
            "Example 1 in the network: weights on the lines; z, a and y on the way forward, "
            "deltas on the way back",
            [
                [lines("x1"), lines("x2")],
                [lines(f"b{j}", f"z{j}", f"a{j}", f"delta_{j}") for j in self.units],
                [lines("c", "y", "t", "L", "delta_out")],
            ],
            [
                [[v[f"w{i}{j}"] for j in self.units] for i in (1, 2)],
                [[v[f"v{j}"]] for j in self.units],
            ],
        )

    def _batch(self) -> list[Block]:
        found, names, size = self.found[2], self.problem.names, len(self.values)
        units = self._by_unit("z{}", "a{}")
        gradients = self._columns(
            f"The gradients, and only they, are added, and divided once by {size}",
            *(f"dL/d{name}" for name in names),
        )
        sums = _rows(names, found["sum"], found["mean"])
        largest = max(abs(a - b) for a, b in zip(found["mean"], found["differences"], strict=True))
        return [
            Question(
                "Is the mathematics different?",
                "No. Forward and back are chapter 1's, once for each example. One thing is added, "
                "at the very end: the examples' gradients are averaged, "
                f"g = (1/{size}) * (sum of the {size} gradients). Activations and deltas stay one "
                "an example: a column each.",
            ),
            self._columns(
                "Forward and back, a column an example",
                *("x1", "x2", "t", *units, "y", "L", "delta_out", *self._by_unit("delta_{}")),
            ),
            Table(
                gradients.caption,
                ["dL/d", *gradients.head[1:], "sum", "mean"],
                [
                    [name, *row, *more]
                    for (_, *row), (name, *more) in zip(gradients.rows, sums, strict=True)
                ],
            ),
            Text(
                "The mean is the gradient of the mean loss, "
                f"{_round(add_up(found['loss']) / size)}. To see it, move each parameter p by h = "
                "1/8192 up and down and look at the mean loss again: (L(p + h) - L(p - h)) / "
                "(2*h), a central difference, which has an error of about h^2. The largest of the "
                f"differences below is {largest:.1e}."
            ),
            Table(
                "The mean gradient beside central differences",
                ["dL/d", "mean", "central diff."],
                _rows(names, found["mean"], found["differences"], show="{:z.8f}".format),
            ),
        ]

    def _averaging(self) -> list[Block]:
        found = self.found[3]
        angle, units = found["tanh"]["angle"], [f"unit {j}" for j in self.units]
        return [
            Question(
                "Do I average the activations?",
                "No. Each example keeps its own. Done all the same, one way back from the means "
                "of all activations gives another gradient"
                + ("." if angle is None else f", here {angle:.1f} degrees from the right one."),
            ),
            self._mistake("With tanh and the squared loss", "tanh"),
            Text(
                "There are two reasons. The first: tanh bends, and where f bends, f of a mean is "
                "not the mean of f."
            ),
            Table(
                "f(mean) is not mean(f)",
                ["", "mean z", "tanh(mean z)", "mean of tanh(z)"],
                _rows(units, found["mean z"], found["tanh of mean z"], found["mean a"]),
            ),
            self._bend(),
            Text(
                "The second: a gradient is a product of a delta and an activation, and the mean of "
                "products is not the product of the means, unless one of the two is the same in "
                "every example. So linear units alone don't help: the squared loss still gives "
                "each example its own delta. Their biases come out right, since no activation "
                "stands in dL/db = delta and dL/dc = delta_out."
            ),
            self._mistake("With linear units, a = z, and the squared loss", "linear units"),
            Text(
                "Where all is linear, the loss too (L = y - t - 1/2, so that delta_out = 1 for "
                "each example), averaging would have been right. Such a network learns nothing: "
                "its gradient is the same whatever the targets are."
            ),
            self._mistake("With linear units and a linear loss", "all linear"),
        ]

    def _mistake(self, caption: str, name: str) -> Table:
        right, wrong, angle = (self.found[3][name][key] for key in ("right", "averaged", "angle"))
        said = "one of them is zero" if angle is None else f"{angle:.1f} degrees apart"
        if max(abs(a - b) for a, b in zip(right, wrong, strict=True)) < 1e-12:
            said = "the same"
        rows = _rows(self.problem.names, right, wrong)
        return Table(f"{caption}: {said}", ["dL/d", "right", "averaged"], rows)

    def _bend(self) -> Curve:
        zs, activations = ([row[0] for row in self.found[2][name]] for name in ("z", "a"))
        low, high = min(zs) - 0.25, max(zs) + 0.25
        line = [low + (high - low) * k / 60 for k in range(61)]
        middle = self.found[3]["mean z"][0], self.found[3]["mean a"][0]
        return Curve(
            "Hidden unit 1: the examples lie on the curve, their mean does not",
            "z1",
            "a1",
            [
                Series("tanh(z1)", [(z, math.tanh(z)) for z in line], "line"),
                Series("examples", list(zip(zs, activations, strict=True)), "marks"),
                Series("their mean", [middle], "marks"),
            ],
            log=False,
        )

    def _recursion(self) -> list[Block]:
        found, units = self.found[4], self.units
        steps = [
            label.format(j) for j in units for label in ("v{}*delta_out", "1 - a{}^2", "delta_{}")
        ]
        return [
            Question(
                "Does the recursion for the error signal still hold?",
                "Yes, for each example as before: delta(l) = (W(l+1) delta(l+1)) * f'(z(l)), here "
                "delta_j = v_j*delta_out*(1 - a_j^2). No example's delta enters another's.",
            ),
            self._columns("The recursion, a column an example", "delta_out", *steps),
            Text(
                "Books write the same as matrices with a row an example: Delta(l) = (Delta(l+1) "
                "W(l+1)^T) * f'(Z(l)), entry by entry, and the gradient's sum as A^T Delta, where "
                "A is what comes in from below: X for the hidden layer, A for the output. Here are "
                "all its entries. Each is a sum over the examples: the sum over the batch is "
                f"inside the matrix product. Divided once by {len(self.values)} they are chapter "
                "2's means."
            ),
            *(
                self._entry(
                    f"(X^T Delta)_{i}{j}", f"x{i}*delta_{j}", found["x^T delta"][i - 1][j - 1]
                )
                for i, j in product((1, 2), units)
            ),
            *(
                self._entry(
                    f"(A^T Delta_out)_{j}1", f"a{j}*delta_out", found["a^T delta"][j - 1][0]
                )
                for j in units
            ),
        ]

    def _entry(self, name: str, term: str, value: float) -> Formula:
        """Return an entry of a product of matrices, written out as a sum over the examples."""
        filled = " + ".join(_filled(term, values) for values in self.values)
        return Formula(name, f"sum over examples of {term}", filled, _round(value))

    def _workers(self) -> list[Block]:
        found, shards, names = self.found[5], self.problem.shards, self.problem.names
        workers, mean, size = len(shards), found["mean"], len(self.values)
        one_process, other = self.found[2]["mean"], found["one by one"]
        same = sum(a == b for a, b in zip(mean, one_process, strict=True))
        differ = sum(a != b for a, b in zip(mean, other, strict=True))
        return [
            Text(
                f"The same minibatch on {workers} workers. Each takes its shard, of sizes that "
                "differ by at most one, and returns the sum of its gradients, never their mean. "
                "The sums are added in a tree: neighbours first, the lower worker holds what comes "
                f"out. The total is divided once, by {size}."
            ),
            Tree(
                "Who adds whose sum",
                [f"worker {worker}: {_numbers(shard)}" for worker, shard in enumerate(shards)],
                found["messages"],
                f"the sum; divided by {size}, the mean",
            ),
            Table(
                "The sum of each worker's shard",
                ["dL/d", *(f"worker {worker}" for worker in range(workers))],
                _rows(names, *found["shard sums"]),
            ),
            Text(
                "Chapter 2 grouped its sum as these shards and this tree do, in one process. So "
                f"the workers' mean is chapter 2's to the last bit, in {same} of {len(mean)} "
                "entries. The grouping matters: added one example after the other, which on paper "
                f"is the same, {differ} of {len(mean)} entries end in other digits."
            ),
            Table(
                "The mean with all its digits",
                ["dL/d", "tree over workers", "one by one"],
                _rows(names, mean, other, show=lambda value: repr(float(value))),
            ),
            Text(_mean_of_means({len(shard) for shard in shards if shard})),
            Table(
                "The mistake: the mean of the means",
                ["dL/d", "right", "mean of means"],
                _rows(names, mean, found["mean of means"]),
            ),
        ]

    def _minibatch(self) -> list[Block]:
        return chapters_digits.minibatch(self.found[2]["gradient"], self.config.seed)

    def _noise(self) -> list[Block]:
        return chapters_digits.noise(self.config.seed)


def _numbers(shard: Sequence[int]) -> str:
    """Return "examples 3, 4" for places 2, 3."""
    noun = "example" if len(shard) == 1 else "examples"
    return f"{noun} {', '.join(str(row + 1) for row in shard)}" if shard else "none"


def _mean_of_means(sizes: set[int]) -> str:
    common = "A common mistake is the mean of the workers' means. "
    if len(sizes) == 1:
        return (
            f"{common}Here it happens to be right, since all shards that have examples have as "
            "many. Ask for another number of workers or examples to see it fail."
        )
    return (
        f"{common}Shards of {' and '.join(map(str, sorted(sizes)))} examples then count the same, "
        "so an example in the larger one counts less; what comes out is wrong."
    )
