"""Everything random is keyed by (seed, purpose, numbers), so that no rank's past can change it."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a random stream is for; a stored run depends on the numbers, so they never change."""

    ORDER = 0
    PARAMS = 1
    DROPOUT = 2
    VALIDATION = 3


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the random generator that belongs to a key, the same on every rank.

    Parameters
    ----------
    seed
        The run's seed, 0 or more.
    purpose
        What the numbers drawn are for.
    numbers
        The rest of the key, such as (epoch, step, shard); never a rank.
    """
    key = np.random.SeedSequence(seed, spawn_key=(purpose, *numbers))
    return np.random.Generator(np.random.Philox(key))


def permutation(
    n: int, seed: int, purpose: Purpose, *numbers: int
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return a random order of 0 .. n-1, shape [n].

    Sorts raw 64-bit words of the counter-based generator, whose values NumPy promises to keep,
    where `Generator.permutation` may change from one release to the next.
    """
    words = generator(seed, purpose, *numbers).bit_generator.random_raw(n)
    return np.argsort(words, kind="stable")
