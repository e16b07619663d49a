"""Which examples each step sees, and in which shard: a pure function of (seed, epoch)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dptrain.config.names import Shuffle
from dptrain.keys import Permutation, Purpose, generator
from dptrain.world import cut

TOGETHER = 8192
"""Positions whose examples are found at once: with fewer, NumPy's calls take longer than its work,
with more, the words leave the nearest memory. Measured, on a busy machine: 48 ns an example, with
256 at once 684, with 65,536 at once 254."""

STRETCH, STRETCHES = 1024, 64
"""Neighbouring examples that `Blocks` keeps together, and how many such stretches it mixes."""


class Batch(NamedTuple):
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
        piece = cut(len(self.rows), self.num_shards, number)
        return self.rows[piece.start : piece.stop]

    def shards(self, numbers: range) -> tuple[NDArray[np.intp], tuple[tuple[int, int], ...]]:
        """Return the example numbers of neighbouring shards, and from where to where each is."""
        pieces = [cut(self.size, self.num_shards, number) for number in numbers]
        first = pieces[0].start
        places = tuple((piece.start - first, piece.stop - first) for piece in pieces)
        return self.rows[first : pieces[-1].stop], places

    def rng(self, shard: int) -> np.random.Generator:
        """Return the random generator of a shard of this step, whichever rank computes it."""
        return generator(self.seed, Purpose.DROPOUT, self.epoch, self.step, shard)


class Order(NamedTuple):
    """The minibatches of every epoch; the last of an epoch may be smaller."""

    num_examples: int
    batch_size: int
    num_shards: int
    seed: int
    shuffle: Shuffle = "rows"

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

        Steps before `first`, counted from 0 over the whole run, are left out: they are done, and
        cost nothing.
        """
        examples = self.examples(epoch)
        start, size = epoch * self.steps_per_epoch, self.batch_size
        num_together = max(1, TOGETHER // size)
        for step in range(max(start, first), start + self.steps_per_epoch, num_together):
            found = examples[(step - start) * size : (step - start + num_together) * size]
            for number in range(-(-len(found) // size)):
                rows = found[number * size : (number + 1) * size]
                yield Batch(self.seed, epoch, step + number, rows, self.num_shards)

    def examples(self, epoch: int) -> "Permutation | Blocks":
        """Return the order of an epoch's examples, to be asked for any positions."""
        if self.shuffle == "blocks":
            return Blocks(self.num_examples, self.seed, epoch)
        return Permutation(self.num_examples, self.seed, Purpose.ORDER, epoch)


class Blocks:
    """An order for storage that reads neighbours together: stretches of examples, mixed in windows.

    The examples stand in a circle that begins at a random one, cut into stretches in random order;
    what is left of the circle comes last. All examples of a window, which is `STRETCHES` of them or
    at the end up to twice as many, are in random order. So a minibatch comes from so many places of
    the data, and a window's examples are all that is read until it ends.
    """

    def __init__(self, num_examples: int, seed: int, epoch: int) -> None:
        self._num = num_examples
        self._key = seed, epoch
        self._stretches = Permutation(num_examples // STRETCH, seed, Purpose.ORDER, epoch)
        circle = Permutation(num_examples, seed, Purpose.WINDOW, epoch)
        self._begin = int(circle[:1][0])

    def __getitem__(self, positions: slice) -> NDArray[np.intp]:
        """Return the examples at some neighbouring positions [m], at least one."""
        start, stop, _ = positions.indices(self._num)
        first, last = self._window(start), self._window(stop - 1)
        found = [self._mixed(window, start, stop) for window in range(first, last + 1)]
        number, within = np.divmod(np.concatenate(found), STRETCH)
        whole = number < len(self._stretches)
        number[whole] = self._stretches[number[whole]]
        rows: NDArray[np.intp] = (number * STRETCH + within + self._begin) % self._num
        return rows

    def _window(self, position: int) -> int:
        """Return the window that a position is in; the last one has what would be a short one."""
        size = STRETCH * STRETCHES
        return min(position // size, max(self._num // size, 1) - 1)

    def _mixed(self, window: int, start: int, stop: int) -> NDArray[np.intp]:
        """Return what stands from `start` to `stop` of the unmixed order, as far as in a window."""
        first = window * STRETCH * STRETCHES
        end = first + STRETCH * STRETCHES
        if self._window(end) == window:
            end = self._num
        order = Permutation(end - first, self._key[0], Purpose.WINDOW, self._key[1], window)
        return first + order[max(start - first, 0) : stop - first]
