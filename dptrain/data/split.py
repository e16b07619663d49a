"""Which rows are held out, and which are left: functions of the number, in constant memory."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array
from dptrain.keys import Purpose, draw_below, generator


class Chosen(Protocol):
    """Some of a table's rows, in their order; an array of their numbers is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, examples: Any, /) -> Array:
        """Return the rows' numbers [m] for examples, given by number or as a slice."""


class HeldOut:
    """One row of each of `num_held_out` stretches of neighbours, drawn by the seed.

    Of rows in any order that is as good as a draw from all, of rows that are sorted it is better;
    and neither which are held out nor which are left needs a word a row. Stretches differ by at
    most one in length, the longer ones come first.
    """

    def __init__(self, num_rows: int, num_held_out: int, seed: int) -> None:
        self.num_rows, self.num_held_out = num_rows, num_held_out
        self.length, self.num_longer = divmod(num_rows, num_held_out)
        self._key = generator(seed, Purpose.VALIDATION).bit_generator.random_raw(1)[0]

    def __len__(self) -> int:
        return self.num_held_out

    def __getitem__(self, examples: Any, /) -> NDArray[np.intp]:
        """Return the held-out rows' numbers, rising; see `Chosen`."""
        stretches = _numbers(examples, len(self))
        return self.starts(stretches) + self.draws(stretches)

    def starts(self, stretches: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the first row of each stretch."""
        return stretches * self.length + np.minimum(stretches, self.num_longer)

    def draws(self, stretches: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return which row of each stretch is held out, counted from its first."""
        below = (self.length + (stretches < self.num_longer)).astype(np.uint64)
        return draw_below(below, self._key, stretches.astype(np.uint64)).astype(np.intp)


class Kept:
    """The rows that are not held out."""

    def __init__(self, held_out: HeldOut) -> None:
        self._held_out = held_out

    def __len__(self) -> int:
        return self._held_out.num_rows - self._held_out.num_held_out

    def __getitem__(self, examples: Any, /) -> NDArray[np.intp]:
        """Return the rows' numbers, rising; see `Chosen`. A stretch has one row less here."""
        number, out = _numbers(examples, len(self)), self._held_out
        in_longer = out.num_longer * out.length
        longer = number < in_longer
        length = np.where(longer, out.length, max(1, out.length - 1))
        stretch, place = np.divmod(np.where(longer, number, number - in_longer), length)
        stretch += np.where(longer, 0, out.num_longer)
        return out.starts(stretch) + place + (place >= out.draws(stretch))


def _numbers(examples: Any, num: int) -> NDArray[np.intp]:
    if isinstance(examples, slice):
        return np.arange(*examples.indices(num))
    return np.asarray(examples)
