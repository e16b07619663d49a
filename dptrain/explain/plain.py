"""The plain side of the chapters: loops over numbers, no NumPy, no code of the trainer."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from operator import mul
from typing import Any

from dptrain.explain.found import Averaging, Batch, Example, Found, Mistake, Numbers, Rows, Workers
from dptrain.explain.problem import Problem

STEP = 1 / 8192
"""How far each parameter is moved for central differences."""

FAR = 100
"""How far targets are moved down for a loss whose slope is 1 for every example."""


def add_up(numbers: Iterable[float]) -> float:
    """Return the sum, added from left to right."""
    total = 0.0
    for number in numbers:
        total = total + number
    return total


def mean(lists: Sequence[Numbers]) -> Numbers:
    """Return the mean of lists, entry by entry."""
    return [add_up(entries) / len(lists) for entries in zip(*lists, strict=True)]


def passed_on(sums: Sequence[Numbers]) -> tuple[Numbers, list[tuple[int, int]]]:
    """Return what worker 0 holds once all have passed on their sums, and who added whose.

    First neighbours, then those two apart, then four: each message goes to the lower worker.
    """
    held, messages, apart = list(sums), [], 1
    while apart < len(held):
        for worker in range(0, len(held) - apart, 2 * apart):
            pairs = zip(held[worker], held[worker + apart], strict=True)
            held[worker] = [a + b for a, b in pairs]
            messages.append((worker, worker + apart))
        apart *= 2
    return held[0], messages


def angle(left: Numbers, right: Numbers) -> float | None:
    """Return the angle between two vectors in degrees, None where one of them is zero.

    From the lengths of sum and difference of the unit vectors, which is exact for small angles too
    (Kahan, 2006).
    """
    norms = math.hypot(*left), math.hypot(*right)
    if min(norms) < 1e-12:
        return None
    units = [(a / norms[0], b / norms[1]) for a, b in zip(left, right, strict=True)]
    apart, along = math.hypot(*(a - b for a, b in units)), math.hypot(*(a + b for a, b in units))
    return math.degrees(2 * math.atan2(apart, along))


def squared(y: Numbers, target: float) -> tuple[float, Numbers]:
    """Return the loss (y - t)^2 and its slope; summed over the outputs, of which there is one."""
    errors = [value - target for value in y]
    return add_up(error * error for error in errors), [2 * error for error in errors]


def straight(y: Numbers, target: float) -> tuple[float, Numbers]:
    """Return the loss y - t - 1/2 and its slope: Huber's, for errors over 1."""
    return y[0] - target - 0.5, [1.0]


def softmax(y: Numbers) -> Numbers:
    """Return the probabilities exp(y_k) / (sum of exp(y)), none of which can overflow."""
    powers = [math.exp(value - max(y)) for value in y]
    return [power / add_up(powers) for power in powers]


def surprise(y: Numbers, target: int) -> tuple[float, Numbers]:
    """Return the loss -log softmax(y)[target] and its slopes: probabilities less the truth."""
    log_sum = max(y) + math.log(add_up(math.exp(value - max(y)) for value in y))
    return log_sum - y[target], [p - (k == target) for k, p in enumerate(softmax(y))]


LOSSES: dict[str, Callable[[Numbers, Any], tuple[float, Numbers]]] = {
    "mean-squared-error": squared,
    "huber": straight,
    "cross-entropy": surprise,
}


class Net:
    """A problem's network, with its parameters as weights that lead to each unit."""

    def __init__(self, problem: Problem):
        (inputs, hidden, outputs), rest = problem.sizes, iter(problem.params)
        first = [[next(rest) for _ in range(hidden)] for _ in range(inputs)]
        biases = [next(rest) for _ in range(hidden)]
        self.second = [[next(rest) for _ in range(outputs)] for _ in range(hidden)]
        columns = ([*zip(*weights, strict=True)] for weights in (first, self.second))
        self.layers = [*zip(columns, (biases, [*rest]), strict=True)]
        self.linear, self.loss = problem.activation == "identity", LOSSES[problem.loss]

    def layer(self, below: Sequence[float], number: int) -> Numbers:
        """Return what comes into each unit: a column holds the weights that lead to it."""
        pairs = zip(*self.layers[number], strict=True)
        return [add_up(map(mul, below, column)) + bias for column, bias in pairs]

    def run(self, x: Sequence[float], target: float) -> Example:
        """Take one example forward and back."""
        z = self.layer(x, 0)
        a = z if self.linear else [math.tanh(value) for value in z]
        return self.back(x, z, a, self.layer(a, 1), target)

    def back(
        self, x: Sequence[float], z: Numbers, a: Numbers, y: Numbers, target: float
    ) -> Example:
        """Go back from outputs y and activations a, wherever they come from."""
        loss, delta_out = self.loss(y, target)
        slope = [1.0 if self.linear else 1 - value * value for value in a]
        back = [add_up(map(mul, row, delta_out)) for row in self.second]
        delta = [b * s for b, s in zip(back, slope, strict=True)]
        gradient = [value * d for value in x for d in delta] + delta
        gradient += [value * d for value in a for d in delta_out] + delta_out
        return Example(z, a, y, loss, delta_out, back, slope, delta, gradient)


def linear(problem: Problem) -> tuple[Problem, Problem]:
    """Return a problem with linear units, and with a linear loss as well."""
    units = replace(problem, activation="identity")
    return units, replace(units, ts=tuple(t - FAR for t in problem.ts), loss="huber")


@cache
def run(problem: Problem) -> list[Example]:
    """Take each example forward and back."""
    net = Net(problem)
    return [net.run(x, t) for x, t in zip(problem.xs, problem.ts, strict=True)]


def mean_loss(problem: Problem, number: int = 0, step: float = 0.0) -> float:
    """Return the mean of the examples' losses, once a parameter is moved by a step."""
    moved = tuple(p + step * (k == number) for k, p in enumerate(problem.params))
    return add_up(one.loss for one in run(replace(problem, params=moved))) / len(problem.xs)


def shard_sums(problem: Problem) -> Rows:
    """Return the sum of each shard's gradients; of no example it is zero."""
    found, nothing = run(problem), [[0.0] * len(problem.params)]
    shards = [[found[i].gradient for i in shard] or nothing for shard in problem.shards]
    return [[add_up(entries) for entries in zip(*shard, strict=True)] for shard in shards]


def batch(problem: Problem) -> Batch:
    """Return chapter 2's numbers."""
    total, _ = passed_on(shard_sums(problem))
    params = range(len(problem.params))
    moved = [[mean_loss(problem, k, step) for step in (STEP, -STEP)] for k in params]
    return Batch(run(problem), total, [g / len(problem.xs) for g in total], moved)


def averaging(problem: Problem, run: Callable[[Problem], list[Example]] = run) -> Averaging:
    """Return chapter 3's numbers from examples of either side: the rest is the same for both."""

    def mistake(problem: Problem) -> Mistake:
        """Go back once from the means of all activations, to be seen beside what is right."""
        z, a, y, right = means(problem, "z", "a", "y", "gradient")
        x, target = mean([list(x) for x in problem.xs]), add_up(problem.ts) / len(problem.ts)
        averaged = Net(problem).back(x, z, a, y, target).gradient
        return Mistake(right, averaged, angle(right, averaged))

    def means(problem: Problem, *names: str) -> list[Numbers]:
        return [mean([getattr(one, name) for one in run(problem)]) for name in names]

    z, a = means(problem, "z", "a")
    mistakes = map(mistake, (problem, *linear(problem)))
    return Averaging(z, [math.tanh(value) for value in z], a, *mistakes)


def workers(problem: Problem) -> Workers:
    """Return chapter 5's numbers."""
    found, sums = [one.gradient for one in run(problem)], shard_sums(problem)
    total, messages = passed_on(sums)
    shards = [[found[i] for i in shard] for shard in problem.shards if shard]
    average = [g / len(problem.xs) for g in total]
    return Workers(sums, messages, total, average, mean(found), mean([*map(mean, shards)]))


CHAPTERS: dict[int, Callable[[Problem], Found]] = {
    1: lambda problem: run(problem)[0],
    2: batch,
    3: averaging,
    5: workers,
}
"""What computes these chapters; 4 and 8 are as 2."""
