"""Memory that a network computes in, kept from call to call, never shared by two at one time."""

import functools
from typing import Any

import numpy as np

from dptrain.arrays import Floats


class Spare(list["dict[int, Memory]"]):
    """Memory that calls have left for the next ones: by number of rows, as much as there were calls
    at one time. A copy of it, pickled or not, is empty.
    """

    def __reduce__(self) -> tuple[type["Spare"], tuple[()]]:
        return Spare, ()


class Memory:
    """What a network computes in for a number of rows: each layer's units and slopes [rows, units].

    `sizes` begin with the inputs that are looked up. With fewer rows it is the first rows of a
    larger one's arrays. Slopes are for training only.
    """

    def __init__(
        self, rows: int, sizes: tuple[int, ...], dtype: Any, larger: "Memory | None"
    ) -> None:
        self.rows = rows
        self._larger = larger
        self._keep: dict[int, Floats] = {}
        if larger is None:
            self.inputs = np.empty((rows, sizes[0]), dtype)
            self.units = [np.empty((rows, units), dtype) for units in sizes[1:]]
            self.ones = np.ones(rows, dtype)
        else:
            self.inputs = larger.inputs[:rows]
            self.units = [array[:rows] for array in larger.units]
            self.ones = larger.ones[:rows]

    @functools.cached_property
    def slopes(self) -> list[Floats]:
        """The slopes of each layer's units; those of the outputs are memory for the loss."""
        if self._larger is None:
            return [np.empty_like(array) for array in self.units]
        return [array[: self.rows] for array in self._larger.slopes]

    def drop(self, number: int, random: np.random.Generator, dropout: float) -> None:
        """Set units of a hidden layer to 0 at random, their slopes too, and scale the others."""
        units, slopes = self.units[number], self.slopes[number]
        if number not in self._keep:
            self._keep[number] = np.empty(units.shape, np.float32)
        keep = self._keep[number]
        random.random(dtype=np.float32, out=keep)
        np.greater_equal(keep, dropout, out=keep, casting="unsafe")
        keep *= 1 / (1 - dropout)
        units *= keep
        slopes *= keep
