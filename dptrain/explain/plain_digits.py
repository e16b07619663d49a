"""The plain side of chapters 6 and 7: the digits' gradients, example by example, in loops."""

import math
from collections.abc import Iterator, Sequence

from dptrain.explain.numbers import Numbers, Sized, add, add_up
from dptrain.explain.plain import Found, Net

SIZES = (64, 4, 10)


def gradients(params: Numbers, xs: Sequence[Numbers], ys: Sequence[int]) -> list[Numbers]:
    """Return each example's gradient [m][n]."""
    net = Net(SIZES, params, "tanh", "cross-entropy")
    return [net.run(x, y).gradient for x, y in zip(xs, ys, strict=True)]


def doubled(rows: list[Numbers]) -> Iterator[tuple[int, list[Numbers]]]:
    """Yield m and the sums of each m rows, for m = 1, 2, 4, ... until one sum is left."""
    size = 1
    while True:
        yield size, rows
        if len(rows) == 1:
            return
        pairs = [add(left, right) for left, right in zip(rows[::2], rows[1::2], strict=False)]
        rows = pairs + rows[2 * len(pairs) :]
        size *= 2


def distance(row: Numbers, size: int = 1, mean: Numbers | None = None) -> float:
    """Return the square norm of a row divided by a size, less a mean."""
    if mean is None:
        return math.fsum(value * value for value in row)
    return math.fsum((value / size - g) ** 2 for value, g in zip(row, mean, strict=True))


def chapter6(
    params: Numbers,
    xs: Sequence[Numbers],
    ys: Sequence[int],
    epochs: Sequence[Sequence[int]],
    enough: int,
    epoch_batch: int,
) -> Found:
    """Return what chapter 6 measures, from the order of the examples in some epochs.

    Numbers that are not tracked one by one have the size of the gradients that went into them:
    the mean of their norms, or of their square norms twice, where squares of differences are added.
    """
    examples = gradients(params, xs, ys)
    count = len(examples)
    *_, (_, (total,)) = doubled(examples)
    full = [value / count for value in total]
    distances: dict[int, Numbers] = {}
    for order in epochs:
        for size, sums in doubled([examples[i] for i in order]):
            found = distances.setdefault(size, [])
            if len(found) < enough:
                found += [distance(row, size, full) for row in sums[: count // size]]
    squares = [distance(row) for row in examples]
    added, norm = 2 * math.fsum(squares) / count, math.fsum(map(math.sqrt, squares)) / count
    variances = {
        size: Sized(math.fsum(found) / len(found), added)
        for size, found in distances.items()
        if found
    }
    mean = [0.0] * len(full)
    for start in range(0, count, epoch_batch):
        rows = epochs[0][start : start + epoch_batch]
        *_, (_, (total,)) = doubled([examples[i] for i in rows])
        mean = add(mean, [value / len(rows) * (len(rows) / count) for value in total])
    return {
        "full gradient": [Sized(value, norm) for value in full],
        "epoch mean": [Sized(value, norm) for value in mean],
        "spread": Sized(math.fsum(distance(row, 1, full) for row in examples) / count, added),
        "variances": variances,
        "slope": slope(variances, count),
    }


def slope(variances: dict[int, Sized], count: int) -> Sized:
    """Return the slope of log variance on log m, freed of drawing without replacement."""
    xs = [math.log(size) for size in variances]
    ys = [math.log(v * (count - 1) / (count - size)) for size, v in variances.items()]
    middle = add_up(xs) / len(xs)
    spread = add_up((x - middle) * (x - middle) for x in xs)
    weights = [(x - middle) / spread for x in xs]
    errors = [abs(y) + v.size / v for y, v in zip(ys, variances.values(), strict=True)]
    return Sized(
        add_up(w * y for w, y in zip(weights, ys, strict=True)),
        add_up(abs(w) * error for w, error in zip(weights, errors, strict=True)),
    )


def chapter7(
    params: Numbers,
    xs: Sequence[Numbers],
    ys: Sequence[int],
    batches: Sequence[Sequence[Sequence[int]]],
) -> Found:
    """Return S and |G|^2, means over minibatches that are given as the examples of their shards.

    Here S is the variance between shards, the sum of n_k |g_k - g|^2 over one less than their
    number, with g_k and g the means of shard and minibatch.
    """
    examples = gradients(params, xs, ys)
    found = []
    for shards in batches:
        sums = [
            [add_up(entries) for entries in zip(*(examples[i] for i in s), strict=True)]
            for s in shards
        ]
        size = sum(map(len, shards))
        g = [add_up(entries) / size for entries in zip(*sums, strict=True)]
        between = [
            len(shard) * distance(row, len(shard), g)
            for shard, row in zip(shards, sums, strict=True)
        ]
        variance = math.fsum(between) / (len(shards) - 1)
        found.append((variance, distance(g) - variance / size))
    rows = [i for shards in batches for shard in shards for i in shard]
    mean_size = len(rows) / len(batches)
    added = 2 * math.fsum(distance(examples[i]) for i in rows) / len(batches)
    variance, square_norm = (math.fsum(values) / len(found) for values in zip(*found, strict=True))
    return {
        "S": Sized(variance, added),
        "|G|^2": Sized(square_norm, added / mean_size),
    }
