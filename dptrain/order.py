"""Which examples each step sees, and in which shard: a pure function of (seed, epoch)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dptrain.keys import Purpose, generator, permutation
from dptrain.world import cut


@dataclass(frozen=True)
class Batch:
    """A minibatch of the whole, before anyone asks who computes what of it.

    `step` counts from 0 over the whole run; `rows` are example numbers, shape [size].
    """

    seed: int
    epoch: int
    step: int
    rows: NDArray[np.intp]
    num_shards: int

    @property
    def size(self) -> int:
        """The number of examples m that the gradient's sum is divided by."""
        return len(self.rows)

    def shard(self, number: int) -> NDArray[np.intp]:
        """Return the example numbers of a shard: contiguous in `rows`, possibly none."""
        piece = cut(self.size, self.num_shards, number)
        return self.rows[piece.start : piece.stop]

    def rng(self, shard: int) -> np.random.Generator:
        """Return the random generator of a shard of this step, whichever rank computes it."""
        return generator(self.seed, Purpose.DROPOUT, self.epoch, self.step, shard)


@dataclass(frozen=True)
class Order:
    """The minibatches of every epoch; the last of an epoch may be smaller."""

    num_examples: int
    batch_size: int
    num_shards: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of minibatches that an epoch has."""
        return -(-self.num_examples // self.batch_size)

    def idle(self, num_ranks: int) -> int:
        """Return how many of so many ranks have no example of a minibatch to work on."""
        size = min(self.batch_size, self.num_examples)
        shards = [cut(self.num_shards, num_ranks, rank) for rank in range(num_ranks)]
        busy = [any(cut(size, self.num_shards, shard) for shard in held) for held in shards]
        return busy.count(False)

    def steps(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the minibatches of an epoch: each example is in one of them, once.

        Steps before `first`, counted from 0 over the whole run, are left out: they are done.
        """
        rows = permutation(self.num_examples, self.seed, Purpose.ORDER, epoch)
        start = epoch * self.steps_per_epoch
        for step in range(max(start, first), start + self.steps_per_epoch):
            batch = rows[(step - start) * self.batch_size :][: self.batch_size]
            yield Batch(self.seed, epoch, step, batch, self.num_shards)
