"""The plain side of chapters 6 and 7: the digits' gradients, example by example, in loops."""

import math
from collections.abc import Sequence

from dptrain.explain.found import Minibatch, Noises, Numbers, Rows
from dptrain.explain.plain import add_up, mean


def distance(row: Numbers, center: Numbers) -> float:
    """Return the square distance of two vectors."""
    return math.fsum((a - b) ** 2 for a, b in zip(row, center, strict=True))


def minibatch(
    found: Rows, orders: Sequence[Sequence[int]], enough: int, epoch_batch: int
) -> tuple[Minibatch, Minibatch]:
    """Return what chapter 6 measures, from the order of the examples in some epochs, and sizes.

    A number's size is that of the gradients that went into it: the mean of their norms, or of their
    square norms twice, where squares of differences are added.
    """
    count, full = len(found), mean(found)
    sizes = [2**k for k in range((count - 1).bit_length())]
    variances = {size: _variance(found, full, orders, enough, size) for size in sizes}
    parts = [orders[0][start : start + epoch_batch] for start in range(0, count, epoch_batch)]
    means = [(len(part) / count, mean([found[i] for i in part])) for part in parts]
    epoch_mean = [
        add_up(entries) for entries in zip(*([w * g for g in m] for w, m in means), strict=True)
    ]
    spread = math.fsum(distance(row, full) for row in found) / count
    squares = [distance(row, [0.0] * len(full)) for row in found]
    added, norms = 2 * math.fsum(squares) / count, [math.fsum(map(math.sqrt, squares)) / count]
    sizes_of_slope = sum(1 + added / variance for variance in variances.values())
    return (
        Minibatch(full, epoch_mean, spread, variances, _slope(variances, count)),
        Minibatch(norms * len(full), norms * len(full), added,
                  dict.fromkeys(variances, added), sizes_of_slope),
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
    gradients: Sequence[Rows], batches: Sequence[Sequence[Sequence[int]]]
) -> tuple[Noises, Noises]:
    """Return what chapter 7 measures, and sizes, for the gradients after each number of epochs.

    The minibatches are given as the examples of their shards. S is the variance between shards, the
    sum of n_k |g_k - g|^2 over one less than their number, with g_k and g the means of shard and
    minibatch. Its size is the sum of the square norms, twice.
    """
    found, sizes = Noises([], []), Noises([], [])
    for rows in gradients:
        measured = []
        for shards in batches:
            parts = [[rows[i] for i in shard] for shard in shards]
            every = [row for part in parts for row in part]
            g, zero, count = mean(every), [0.0] * len(every[0]), len(every)
            between = math.fsum(len(part) * distance(mean(part), g) for part in parts)
            s, added = between / (len(parts) - 1), 2 * math.fsum(distance(r, zero) for r in every)
            measured.append([s, distance(g, zero) - s / count, added, added / count])
        for into, value in zip(
            (found.variances, found.square_norms, sizes.variances, sizes.square_norms),
            mean(measured),
            strict=True,
        ):
            into.append(value)
    return found, sizes
