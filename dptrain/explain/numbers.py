"""Numbers for the plain side: each knows how large what made it was, to judge its rounding."""

import math
from collections.abc import Iterable, Sequence

Numbers = list[float]


class Sized(float):
    """A number that knows the size of what was added to make it, by which to judge its rounding.

    1.5 - 1.25 is 0.25, of size 2.75: rounding errors are shares of the size, not of what is left.
    """

    size: float

    def __new__(cls, value: float, size: float) -> "Sized":
        """Make a number of a size."""
        number = super().__new__(cls, value)
        number.size = size
        return number

    def __add__(self, other: float) -> "Sized":
        return Sized(float(self) + float(other), self.size + size(other))

    def __sub__(self, other: float) -> "Sized":
        return Sized(float(self) - float(other), self.size + size(other))

    def __rsub__(self, other: float) -> "Sized":
        return Sized(float(other) - float(self), self.size + size(other))

    def __mul__(self, other: float) -> "Sized":
        return Sized(float(self) * float(other), self.size * size(other))

    def __truediv__(self, other: float) -> "Sized":
        return Sized(float(self) / float(other), self.size / abs(other))

    __radd__, __rmul__ = __add__, __mul__


def size(number: float) -> float:
    """Return the size of what was added to make a number; its own where nothing was."""
    return number.size if isinstance(number, Sized) else abs(number)


def sized(numbers: Iterable[float]) -> Numbers:
    """Return numbers that nothing was added to."""
    return [Sized(number, abs(number)) for number in numbers]


def add_up(numbers: Iterable[float]) -> float:
    """Return the sum, added from left to right."""
    total = 0.0
    for number in numbers:
        total = total + number
    return total


def add(left: Numbers, right: Numbers) -> Numbers:
    """Return the sums of two lists, entry by entry."""
    return [a + b for a, b in zip(left, right, strict=True)]


def mean(lists: Sequence[Numbers]) -> Numbers:
    """Return the mean of lists, entry by entry."""
    return [add_up(entries) / len(lists) for entries in zip(*lists, strict=True)]


def tanh(z: float) -> float:
    """Return tanh(z), of a size that errors of z pass through its slope."""
    a = math.tanh(z)
    return Sized(a, abs(a) + (1 - a * a) * z.size) if isinstance(z, Sized) else a


def angle(left: Numbers, right: Numbers) -> float | None:
    """Return the angle between two vectors in degrees, None where one of them is zero.

    From the lengths of sum and difference of the unit vectors, which is exact for small angles too
    (Kahan, 2006). Its size is a half turn.
    """
    norms = math.hypot(*left), math.hypot(*right)
    if min(norms) < 1e-12:
        return None
    units = [(a / norms[0], b / norms[1]) for a, b in zip(left, right, strict=True)]
    apart, along = math.hypot(*(a - b for a, b in units)), math.hypot(*(a + b for a, b in units))
    return Sized(math.degrees(2 * math.atan2(apart, along)), 180)


def bracketed(sums: Sequence[Numbers]) -> Numbers:
    """Return the sum of lists: the first half, as large as a power of two can be, and the rest."""
    if len(sums) == 1:
        return sums[0]
    half = 1 << (len(sums) - 1).bit_length() - 1
    return add(bracketed(sums[:half]), bracketed(sums[half:]))


def passed_on(sums: Sequence[Numbers]) -> tuple[Numbers, list[tuple[int, int]]]:
    """Return what worker 0 holds once all have passed on their sums, and who added whose.

    First neighbours, then those two apart, then four: each message goes to the lower worker.
    """
    held, messages, apart = list(sums), [], 1
    while apart < len(held):
        for worker in range(0, len(held) - apart, 2 * apart):
            held[worker] = add(held[worker], held[worker + apart])
            messages.append((worker, worker + apart))
        apart *= 2
    return held[0], messages
