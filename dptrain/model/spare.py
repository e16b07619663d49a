"""Memory that a network computes in, kept from call to call, never shared by two at one time."""

import functools
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy as np

from dptrain.arrays import Floats

Views = list[tuple[Floats, Floats]]
"""Of a flat vector: each layer's weights [inputs, outputs] and biases [outputs]."""


class Spare(list["Memory"]):
    """Memory that calls have left for the next ones, as much as there were calls at one time.

    A copy of it, pickled or not, is empty. `sizes`: the inputs that are looked up, then the units
    of each layer; `dtype`: their type.
    """

    def __init__(self, sizes: Sequence[int], dtype: Any) -> None:
        super().__init__()
        self._sizes, self._dtype = sizes, dtype

    def __reduce__(self) -> tuple[type["Spare"], tuple[Sequence[int], Any]]:
        return Spare, (self._sizes, self._dtype)

    def take(self, rows: int) -> "Memory":
        """Return memory for so many rows, to be given back once the call is done."""
        try:
            held = self.pop()
        except IndexError:
            held = None
        if held is None or len(held.ones) < rows:
            inputs, *units = (np.empty((rows, size), self._dtype) for size in self._sizes)
            held = Memory(inputs, units, np.ones(rows, self._dtype))
        return held if len(held.ones) == rows else held.part(0, rows)

    def give_back(self, memory: "Memory") -> None:
        """Keep what `take` returned for the next call."""
        self.append(memory.whole or memory)


class Memory:
    """What a network computes in for a number of rows: each layer's units [rows, units].

    `inputs` [rows, inputs] are those that are looked up. What only training needs is there once it
    is asked for. A part of one is views of its arrays, at some neighbouring rows.
    """

    def __init__(
        self,
        inputs: Floats,
        units: list[Floats],
        ones: Floats,
        whole: "Memory | None" = None,
        place: slice = slice(None),
    ) -> None:
        self.inputs, self.units, self.ones = inputs, units, ones
        self.whole, self._place = whole, place
        self._parts: dict[tuple[int, int], Memory] = {}
        self._sums: list[Floats] = [] if whole is None else whole._sums  # flat, of all its parts
        self._views: dict[str, tuple[ref[Floats], Views]] = {}

    def part(self, start: int, stop: int) -> "Memory":
        """Return the memory of some neighbouring rows."""
        found = self._parts.get((start, stop))
        if found is None:
            place = slice(start, stop)
            units = [array[place] for array in self.units]
            found = Memory(self.inputs[place], units, self.ones[place], self, place)
            self._parts[start, stop] = found
        return found

    def views(self, cut: Callable[[Floats], Views], vector: Floats, role: str) -> Views:
        """Return `cut(vector)`: what it was last time for the same array, kept while that lives.

        `role` is what it is in a call: parameters and gradient come back step after step. Views of
        what owns its entries would keep it alive, and are not kept.
        """
        held = self._views.get(role)
        if held is not None and held[0]() is vector:
            return held[1]
        found = cut(vector)
        if vector.base is not None:
            self._views[role] = ref(vector, lambda _: self._views.pop(role, None)), found
        return found

    def sum_like(self, array: Floats, number: int) -> Floats:
        """Return memory like an array, for one of several sums in progress."""
        while len(self._sums) <= number:
            self._sums.append(np.empty(0, array.dtype))
        if self._sums[number].size < array.size:
            self._sums[number] = np.empty(array.size, array.dtype)
        return self._sums[number][: array.size].reshape(array.shape)

    def _of_whole(self, name: str) -> list[Floats]:
        return [array[self._place] for array in getattr(self.whole, name, [])]

    @functools.cached_property
    def slopes(self) -> list[Floats]:
        """Each hidden layer's slopes; of the outputs memory for the loss."""
        return self._of_whole("slopes") or [np.empty_like(array) for array in self.units]

    @functools.cached_property
    def keep(self) -> list[Floats]:
        """What each hidden layer's units are multiplied by where some are dropped."""
        hidden = self.units[:-1]
        return self._of_whole("keep") or [np.empty(array.shape, np.float32) for array in hidden]

    def drop(self, number: int, random: np.random.Generator, dropout: float) -> None:
        """Set units of a hidden layer to 0 at random, their slopes too, and scale the others."""
        keep = self.keep[number]
        random.random(dtype=np.float32, out=keep)
        np.greater_equal(keep, dropout, out=keep, casting="unsafe")
        keep *= 1 / (1 - dropout)
        self.units[number] *= keep
        self.slopes[number] *= keep
