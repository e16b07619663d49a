"""The plain side of every number: loops over numbers, no NumPy, none of the trainer's code."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import mul
from typing import Any

from dptrain.explain.numbers import (
    Numbers,
    add_up,
    angle,
    bracketed,
    mean,
    passed_on,
    sized,
    tanh,
)
from dptrain.explain.problem import Problem

Found = dict[str, Any]
"""Numbers by name, in lists of lists as deep as it takes."""

STEP = 1 / 8192
"""How far each parameter is moved for central differences."""

FAR = 100
"""How far targets are moved down for a loss whose slope is 1 for every example."""

TANH = ("tanh", "mean-squared-error")


def squared(y: Numbers, target: float) -> tuple[float, Numbers]:
    """Return the loss (y - t)^2 and its slope."""
    error = y[0] - target
    return error * error, [2 * error]


def straight(y: Numbers, target: float) -> tuple[float, Numbers]:
    """Return the loss y - t - 1/2 and its slope: Huber's, for errors over 1."""
    return y[0] - target - 0.5, [1.0]


def softmax(y: Numbers, target: int) -> tuple[float, Numbers]:
    """Return the loss -log softmax(y)[target] and its slopes."""
    powers = [math.exp(value - max(y)) for value in y]
    total = add_up(powers)
    slopes = [power / total - (k == target) for k, power in enumerate(powers)]
    return math.log(total) + max(y) - y[target], slopes


LOSSES: dict[str, Callable[[Numbers, Any], tuple[float, Numbers]]] = {
    "mean-squared-error": squared,
    "huber": straight,
    "cross-entropy": softmax,
}


@dataclass(frozen=True)
class Pass:
    """One example's way forward and back."""

    x: Numbers
    z: Numbers
    a: Numbers
    y: Numbers
    loss: float
    delta_out: Numbers
    back: Numbers
    """What comes back to each hidden unit, before its slope."""
    slope: Numbers
    delta: Numbers

    @property
    def gradient(self) -> Numbers:
        """The gradient of the loss, in the order of the parameters."""
        first = [x * d for x in self.x for d in self.delta] + self.delta
        return first + [a * d for a in self.a for d in self.delta_out] + self.delta_out


class Net:
    """A network with one hidden layer, and its parameters in the trainer's order."""

    def __init__(self, sizes: Sequence[int], params: Iterable[float], activation: str, loss: str):
        inputs, hidden, outputs = sizes
        rest = iter(params)
        first = [[next(rest) for _ in range(hidden)] for _ in range(inputs)]
        self.biases = [next(rest) for _ in range(hidden)]
        self.second = [[next(rest) for _ in range(outputs)] for _ in range(hidden)]
        self.out_biases = [next(rest) for _ in range(outputs)]
        self.columns = [*zip(*first, strict=True)], [*zip(*self.second, strict=True)]
        self.linear, self.loss = activation == "identity", LOSSES[loss]

    def run(self, x: Numbers, target: float) -> Pass:
        """Take one example forward and back."""
        z = _layer(x, self.columns[0], self.biases)
        a = z if self.linear else [tanh(value) for value in z]
        return self.back(x, z, a, _layer(a, self.columns[1], self.out_biases), target)

    def back(self, x: Numbers, z: Numbers, a: Numbers, y: Numbers, target: float) -> Pass:
        """Go back from outputs y and activations a, wherever they come from."""
        loss, delta_out = self.loss(y, target)
        slope = [1.0 if self.linear else 1 - value * value for value in a]
        back = [add_up(map(mul, row, delta_out)) for row in self.second]
        delta = [b * s for b, s in zip(back, slope, strict=True)]
        return Pass(x, z, a, y, loss, delta_out, back, slope, delta)


def _layer(below: Numbers, columns: list[tuple[float, ...]], biases: Numbers) -> Numbers:
    """Return what comes into each unit: a column holds the weights that lead to it."""
    return [
        add_up(map(mul, below, column)) + bias for column, bias in zip(columns, biases, strict=True)
    ]


def averaged(net: Net, passes: Sequence[Pass], ts: Numbers) -> Numbers:
    """Return the gradient of the mistake: one way back, from the means of all activations."""
    x, z, a, y = (mean([getattr(one, name) for one in passes]) for name in "xzay")
    return net.back(x, z, a, y, add_up(ts) / len(ts)).gradient


@cache
def toy(problem: Problem) -> dict[int, Found]:
    """Return every number of chapters 1 to 5."""
    params, ts, xs = sized(problem.params), sized(problem.ts), [*map(sized, problem.xs)]
    size, sizes = len(xs), (2, problem.hidden, 1)

    def run(params: Numbers, ts: Numbers, *kind: str) -> tuple[Net, list[Pass]]:
        net = Net(sizes, params, *kind)
        return net, [net.run(x, t) for x, t in zip(xs, ts, strict=True)]

    def mean_loss(number: int, step: float) -> float:
        moved = [p + step * (k == number) for k, p in enumerate(params)]
        return add_up(one.loss for one in run(moved, ts, *TANH)[1]) / size

    def mistake(ts: Numbers, *kind: str) -> Found:
        net, passes = run(params, ts, *kind)
        right, wrong = mean([one.gradient for one in passes]), averaged(net, passes, ts)
        return {"right": right, "averaged": wrong, "angle": angle(right, wrong)}

    def product(left: Iterable[Any], right: Iterable[Any]) -> list[Numbers]:
        rows, columns = list(zip(*left, strict=True)), list(zip(*right, strict=True))
        return [[add_up(map(mul, row, column)) for column in columns] for row in rows]

    passes = run(params, ts, *TANH)[1]
    gradients = [one.gradient for one in passes]
    shards = [[gradients[i] for i in shard] for shard in problem.shards]
    nothing = [[0.0] * len(params)]
    sums = [[add_up(g) for g in zip(*(shard or nothing), strict=True)] for shard in shards]
    total, messages = passed_on(sums)
    names = ("z", "a", "y", "loss", "delta_out", "delta", "gradient")
    columns = {name: [getattr(one, name) for one in passes] for name in names}
    return {
        1: {name: column[0] for name, column in columns.items()},
        2: columns
        | {
            "sum": bracketed(sums),
            "mean": [g / size for g in bracketed(sums)],
            "differences": [
                (mean_loss(k, STEP) - mean_loss(k, -STEP)) / (2 * STEP) for k in range(len(params))
            ],
        },
        3: {
            "mean z": mean(columns["z"]),
            "tanh of mean z": [tanh(z) for z in mean(columns["z"])],
            "mean a": mean(columns["a"]),
            "tanh": mistake(ts, *TANH),
            "linear units": mistake(ts, "identity", "mean-squared-error"),
            "all linear": mistake([t - FAR for t in ts], "identity", "huber"),
        },
        4: {
            "back": [one.back for one in passes],
            "slope": [one.slope for one in passes],
            "delta": columns["delta"],
            "x^T delta": product(xs, columns["delta"]),
            "a^T delta": product(columns["a"], columns["delta_out"]),
        },
        5: {
            "shard sums": sums,
            "messages": messages,
            "sum": total,
            "mean": [g / size for g in total],
            "one by one": mean(gradients),
            "mean of means": mean([mean(shard) for shard in shards if shard]),
        },
    }
