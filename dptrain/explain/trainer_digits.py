"""The trainer's side of chapters 6 and 7: the digits' gradients, example by example and shards."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Floats
from dptrain.explain.plain import Found
from dptrain.explain.problem import Digits, trained
from dptrain.explain.trainer import grad_sum, shard_sums
from dptrain.order import Batch, Order
from dptrain.reduce.tree import tree_sum
from dptrain.train.noise import Noise, noise

SAMPLES, ENOUGH = 8, 100
"""The most epochs whose minibatches chapter 6 measures, and how many minibatches are enough."""

EPOCH_BATCH = 256
"""The minibatches whose mean over an epoch chapter 6 compares with the full gradient."""

EPOCHS = (0, 1, 2, 5)
"""After how many epochs of training chapter 7 looks at the noise."""

BATCH_SIZE, SHARDS = 250, 8
"""Chapter 7's minibatches, and the shards of each: 31 or 32 examples."""


def orders(digits: Digits) -> list[NDArray[np.intp]]:
    """Return the order of the examples in some epochs; it is the same for every batch size."""
    whole = Order(len(digits.x), len(digits.x), 1, digits.seed)
    return [next(whole.steps(epoch)).rows for epoch in range(SAMPLES)]


def batches(digits: Digits) -> list[Batch]:
    """Return the minibatches of an epoch, for chapter 7."""
    return list(Order(len(digits.x), BATCH_SIZE, SHARDS, digits.seed).steps(0))


def _doubled(rows: Floats) -> Iterator[tuple[int, Floats]]:
    """Yield m and the sums of each m rows, for m = 1, 2, 4, ...: the levels of the tree."""
    size = 1
    while True:
        yield size, rows
        if len(rows) == 1:
            return
        even = len(rows) // 2 * 2
        rows = np.concatenate([rows[:even:2] + rows[1:even:2], rows[even:]])
        size *= 2


def chapter6(digits: Digits) -> Found:
    """Return the variance of a minibatch's gradient for each m, and how the mean fits.

    Each m is measured on all minibatches of one epoch, and of as many more, up to `SAMPLES`, as it
    takes for `ENOUGH` of them. A last, smaller minibatch of an epoch is not of this size.
    """
    model, params, count = digits.model, trained(digits.seed, 0), len(digits.x)
    alone = [
        grad_sum(model, params, digits.x[i : i + 1], digits.y[i : i + 1])[1] for i in range(count)
    ]
    examples = np.array(alone)
    full = tree_sum(alone) / count
    squares: dict[int, list[float]] = {}
    for order in orders(digits):
        for size, sums in _doubled(examples[order]):
            found = squares.setdefault(size, [])
            if len(found) < ENOUGH:
                found += np.square(sums[: count // size] / size - full).sum(axis=1).tolist()
    variances = {size: float(np.mean(found)) for size, found in squares.items() if found}
    sizes = np.array(list(variances))
    corrected = np.array(list(variances.values())) * (count - 1) / (count - sizes)
    return {
        "full gradient": full,
        "epoch mean": _epoch_mean(examples, digits),
        "spread": float(np.square(examples - full).sum() / count),
        "variances": variances,
        "slope": np.polyfit(np.log(sizes), np.log(corrected), 1)[0],
    }


def _epoch_mean(examples: Floats, digits: Digits) -> Floats:
    """Return the mean over an epoch's minibatches of their gradients, each by its size."""
    total = np.zeros(examples.shape[1])
    for batch in Order(len(examples), EPOCH_BATCH, 1, digits.seed).steps(0):
        gradient = tree_sum(list(examples[batch.rows])) / batch.size
        total += gradient * (batch.size / len(examples))
    return total


def chapter7(digits: Digits) -> dict[int, Noise]:
    """Return the noise after each number of epochs: S and |G|^2, each a mean over minibatches."""
    return {epochs: _noise(digits, trained(digits.seed, epochs)) for epochs in EPOCHS}


def _noise(digits: Digits, params: Floats) -> Noise:
    found = []
    for batch in batches(digits):
        sums = shard_sums(digits.model, params, digits.x, digits.y, batch)
        sizes = [len(batch.shard(shard)) for shard in range(SHARDS)]
        total = tree_sum(sums)
        found.append(noise([float(s @ s) for s in sums], sizes, float(total @ total)))
    return Noise(
        float(np.mean([one.variance for one in found if one])),
        float(np.mean([one.square_norm for one in found if one])),
    )
