"""Everything random is keyed by (seed, purpose, numbers), so that no rank's past can change it."""

import itertools
import math
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a random stream is for; a stored run depends on the numbers, so they never change."""

    ORDER = 0
    PARAMS = 1
    DROPOUT = 2
    VALIDATION = 3
    WINDOW = 4
    TRANSFORM = 5
    RECHECK = 6


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the random generator that belongs to a key, the same on every rank.

    `seed`: the run's seed, 0 or more. `purpose`: what the numbers drawn are for. `numbers`: the
    rest of the key, such as (epoch, step, shard); never a rank.
    """
    key = np.random.SeedSequence(seed, spawn_key=(purpose, *numbers))
    return np.random.Generator(np.random.Philox(key))


def generators(seed: int, purpose: Purpose, *numbers: int) -> Callable[[int], np.random.Generator]:
    """Return what gives each of many numbers a generator: as `generator`, at a tenth of the cost.

    A stretch of 2**128 words of one stream belongs to each. One is over when the next is asked for.
    """
    rng = generator(seed, purpose, *numbers)
    begin: Any = rng.bit_generator.state

    def of(number: int) -> np.random.Generator:
        counter = np.array([0, 0, number, 0], np.uint64)
        rng.bit_generator.state = begin | {"state": begin["state"] | {"counter": counter}}
        return rng

    return of


Words = NDArray[np.uint64]

HALF = np.uint64(32)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""The factors of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
2014), two of whose multiplications, with a fold between them, mix a word."""

FEW, ROUNDS = 1000, (16, 8)
"""Rounds of a `Permutation` of fewer numbers than that, and of more. Measured: the distances of
pairs of positions, over two million keys, show it for 1,000 numbers or more with 4 rounds, by 100
standard deviations, and with 6 no longer; for 10 numbers with 8 rounds, and with 10 no longer; the
720 orders of 6 numbers are equally frequent from 16 on."""


LISTED = 4096
"""Numbers on a side of a `Permutation` up to which a round's draws are all made before, and looked
up: a number of an order then takes half as long (measured)."""


def draw_below(below: Any, key: np.uint64, words: Words) -> Words:
    """Return for each word a random number under `below`, up to 2**32, decided by the key."""
    mixed = words ^ key
    mixed *= FIRST
    mixed ^= mixed >> HALF
    mixed *= SECOND
    mixed >>= HALF
    mixed *= below
    mixed >>= HALF
    return mixed


def listed(draws: Words, words: Words) -> Words:
    """Return for each word what is drawn for it, given the draws for 0, 1 and so on."""
    return draws.take(words.view(np.intp), mode="clip")


class Permutation:
    """A random order of 0 .. num-1, computed where it is asked for, in constant memory.

    A Feistel network: a number below a * b is a pair (left, right) below (a, b); a round adds to
    the left what a keyed function makes of the right, modulo a, and they change sides. With a about
    b, a * b is hardly above `num`, and what is not below that goes through again (Black, Rogaway:
    Ciphers with arbitrary finite domains, 2002). The fewer numbers, the more rounds it takes until
    no trace is left (Mitchell, Stokes, Frank, Holmes: Bandwidth-optimal random shuffling for GPUs,
    2021, take 24, for any number).

    `num`: how many numbers there are, below 2**62. `seed`, `purpose`, `numbers`: the key; see
    `generator`.
    """

    def __init__(self, num: int, seed: int, purpose: Purpose, *numbers: int) -> None:
        self._num = num
        left = math.isqrt(max(num, 1) - 1) + 1
        self._sides = a, b = np.uint64(left), np.uint64(-(-max(num, 1) // left))
        keys = generator(seed, purpose, *numbers).bit_generator.random_raw(ROUNDS[num >= FEW])
        self._draws = [partial(draw_below, *each) for each in zip(itertools.cycle((a, b)), keys)]
        if left <= LISTED:
            words = np.arange(left, dtype=np.uint64)
            self._draws = [partial(listed, draw(words)) for draw in self._draws]

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, positions: Any) -> NDArray[np.intp]:
        """Return what stands at some positions [m], given as a slice or by number."""
        if isinstance(positions, slice):
            positions = np.arange(*positions.indices(self._num))
        found = self._once(np.asarray(positions).astype(np.uint64))
        while (beyond := found >= self._num).any():
            found[beyond] = self._once(found[beyond])
        return found.view(np.intp)

    def _once(self, values: Words) -> Words:
        """Return the network's value for each of some below a * b."""
        a, b = self._sides
        left = values // b
        right = values - left * b
        for draw in self._draws:
            left += draw(right)
            np.minimum(left, left - a, out=left)  # modulo a: below 0, words are the largest
            left, right, a, b = right, left, b, a
        return left * b + right
