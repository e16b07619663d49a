"""The trainer's side of chapters 6 and 7: the digits' gradients, example by example and shards."""

from dataclasses import dataclass

import numpy as np

from dptrain.arrays import Floats
from dptrain.explain.found import Minibatch, Noises
from dptrain.explain.problem import DIGITS, digits, trained
from dptrain.explain.trainer import grad_sum, shard_sums
from dptrain.order import Batch, Order
from dptrain.reduce.tree import tree_sum
from dptrain.train.noise import noise

SAMPLES, ENOUGH = 8, 100
"""The most epochs whose minibatches chapter 6 measures, and how many minibatches are enough."""

EPOCHS = (0, 1, 2, 5)
"""After how many epochs of training chapter 7 looks at the noise."""

SHARDS = 8
"""The shards of each of chapter 7's minibatches, of uneven size."""


@dataclass(frozen=True)
class Amount:
    """How much is measured: digits, chapter 6's minibatches of an epoch, chapter 7's."""

    num_digits: int
    epoch_batch: int
    batch_size: int

    def orders(self, seed: int) -> list[list[int]]:
        """Return the order of the examples in some epochs; it is the same for every batch size."""
        whole = Order(self.num_digits, self.num_digits, 1, seed)
        return [next(whole.steps(epoch)).rows.tolist() for epoch in range(SAMPLES)]

    def batches(self, seed: int) -> list[Batch]:
        """Return the minibatches of an epoch, for chapter 7."""
        return list(Order(self.num_digits, self.batch_size, SHARDS, seed).steps(0))


SHOWN = Amount(2000, 256, 250)

CHECKED = Amount(60, 16, 25)
"""What the check measures twice: that two codes agree shows on few digits as well as on many."""


def minibatch(seed: int, amount: Amount = SHOWN) -> Minibatch:
    """Return the variance of a minibatch's gradient for each m, and how the mean fits.

    Each m is measured on all minibatches of one epoch, and of as many more, up to `SAMPLES`, as it
    takes for `ENOUGH` of them. A last, smaller minibatch of an epoch is not of this size.
    """
    count, params = amount.num_digits, trained(seed, 0)
    x, y = digits(count)
    alone = [grad_sum(DIGITS, params, x[i : i + 1], y[i : i + 1])[1] for i in range(count)]
    examples, full, variances = np.array(alone), tree_sum(alone) / count, {}
    for size in (2**k for k in range((count - 1).bit_length())):
        found: list[float] = []
        for order in amount.orders(seed):
            if len(found) < ENOUGH:
                rows = examples[order[: count // size * size]].reshape(-1, size, len(full))
                found += np.square(rows.mean(axis=1) - full).sum(axis=1).tolist()
        variances[size] = float(np.mean(found))
    sizes, measured = np.array(list(variances)), np.array(list(variances.values()))
    slope, _ = np.polyfit(np.log(sizes), np.log(measured * (count - 1) / (count - sizes)), 1)
    epoch_mean = _epoch_mean(examples, seed, amount.epoch_batch)
    spread = np.square(examples - full).sum() / count
    return Minibatch(full.tolist(), epoch_mean.tolist(), float(spread), variances, float(slope))


def _epoch_mean(examples: Floats, seed: int, batch_size: int) -> Floats:
    """Return the mean over an epoch's minibatches of their gradients, each by its size."""
    total = np.zeros(examples.shape[1])
    for batch in Order(len(examples), batch_size, 1, seed).steps(0):
        gradient = tree_sum(list(examples[batch.rows])) / batch.size
        total += gradient * (batch.size / len(examples))
    return total


def noises(seed: int, amount: Amount = SHOWN) -> Noises:
    """Return the noise after each number of epochs: S and |G|^2, each a mean over minibatches."""
    found = [_noise(seed, amount, trained(seed, epochs)) for epochs in EPOCHS]
    return Noises([one[0] for one in found], [one[1] for one in found])


def _noise(seed: int, amount: Amount, params: Floats) -> tuple[float, float]:
    found = []
    for batch in amount.batches(seed):
        sums = shard_sums(DIGITS, params, *digits(amount.num_digits), batch)
        sizes = [len(batch.shard(shard)) for shard in range(SHARDS)]
        total = tree_sum(sums)
        found.append(noise([float(s @ s) for s in sums], sizes, float(total @ total)))
    pairs = np.array([(one.variance, one.square_norm) for one in found if one])
    variance, square_norm = pairs.mean(axis=0).tolist()
    return variance, square_norm
