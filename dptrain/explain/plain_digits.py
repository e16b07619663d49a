"""The plain side of chapters 6 and 7: the digits' gradients, example by example, in loops."""

import math
from collections.abc import Sequence

from dptrain.explain.found import Minibatch, Noises, Numbers, Rows
from dptrain.explain.plain import add, add_up, gradients, mean
from dptrain.explain.problem import Problem


def distance(row: Numbers, center: Numbers) -> float:
    """Return the square distance of two vectors."""
    return math.fsum((a - b) ** 2 for a, b in zip(row, center, strict=True))


def minibatch(
    problem: Problem, orders: Sequence[Sequence[int]], enough: int, epoch_batch: int
) -> tuple[Minibatch, Minibatch]:
    """Return what chapter 6 measures, from the order of the examples in some epochs, and sizes.

    A number's size is that of the gradients that went into it: the mean of their norms, or of their
    square norms twice, where squares of differences are added.
    """
    found, count = gradients(problem), len(problem.xs)
    full, sizes = mean(found), [2**k for k in range((count - 1).bit_length())]
    variances = {size: _variance(found, full, orders, enough, size) for size in sizes}
    epoch_mean = [0.0] * len(full)
    for start in range(0, count, epoch_batch):
        rows = [found[i] for i in orders[0][start : start + epoch_batch]]
        epoch_mean = add(epoch_mean, [g * (len(rows) / count) for g in mean(rows)])
    spread = math.fsum(distance(row, full) for row in found) / count
    squares = [distance(row, [0.0] * len(full)) for row in found]
    added, norm = 2 * math.fsum(squares) / count, math.fsum(map(math.sqrt, squares)) / count
    slope_size = sum(1 + added / variance for variance in variances.values())
    return (
        Minibatch(full, epoch_mean, spread, variances, _slope(variances, count)),
        Minibatch([norm] * len(full), [norm] * len(full), added,
                  dict.fromkeys(variances, added), slope_size),
    )  # fmt: skip


def _variance(
    found: Rows, full: Numbers, orders: Sequence[Sequence[int]], enough: int, size: int
) -> float:
    """Return how far means of minibatches are off; of whole epochs, until there are enough."""
    distances: Numbers = []
    for order in orders:
        if len(distances) < enough:
            distances += [
                distance(mean([found[i] for i in order[start : start + size]]), full)
                for start in range(0, len(order) - size + 1, size)
            ]
    return math.fsum(distances) / len(distances)


def _slope(variances: dict[int, float], count: int) -> float:
    """Return the slope of log variance on log m, freed of drawing without replacement."""
    xs = [math.log(size) for size in variances]
    ys = [math.log(v * (count - 1) / (count - size)) for size, v in variances.items()]
    middle = add_up(xs) / len(xs)
    spread = add_up((x - middle) * (x - middle) for x in xs)
    return add_up((x - middle) / spread * y for x, y in zip(xs, ys, strict=True))


def noises(
    problems: Sequence[Problem], batches: Sequence[Sequence[Sequence[int]]]
) -> tuple[Noises, Noises]:
    """Return what chapter 7 measures, of a problem for each number of epochs, and sizes.

    The minibatches are given as the examples of their shards.
    """
    measured = [_noise(gradients(problem), batches) for problem in problems]
    variances, square_norms, added = ([*column] for column in zip(*measured, strict=True))
    smallest = min(sum(map(len, shards)) for shards in batches)
    return Noises(variances, square_norms), Noises(added, [size / smallest for size in added])


def _noise(found: Rows, batches: Sequence[Sequence[Sequence[int]]]) -> tuple[float, float, float]:
    """Return S and |G|^2, means over minibatches, and the mean of the square norms in one, twice.

    Here S is the variance between shards, the sum of n_k |g_k - g|^2 over one less than their
    number, with g_k and g the means of shard and minibatch.
    """
    variances, square_norms, added = [], [], []
    for shards in batches:
        rows = [[found[i] for i in shard] for shard in shards]
        every = [row for shard in rows for row in shard]
        g, zero = mean(every), [0.0] * len(every[0])
        between = math.fsum(len(shard) * distance(mean(shard), g) for shard in rows)
        variances.append(between / (len(rows) - 1))
        square_norms.append(distance(g, zero) - variances[-1] / len(every))
        added.append(2 * math.fsum(distance(row, zero) for row in every))
    first, second, third = (
        math.fsum(each) / len(batches) for each in (variances, square_norms, added)
    )
    return first, second, third
