"""What each chapter computes; loops and trainer find it under the same names, to be compared."""

from dataclasses import dataclass

Numbers = list[float]
Rows = list[Numbers]


@dataclass(frozen=True)
class Example:
    """One example's way forward and back; `back` comes to the hidden units, before their slope."""

    z: Numbers
    a: Numbers
    y: Numbers
    loss: float
    delta_out: Numbers
    back: Numbers
    slope: Numbers
    delta: Numbers
    gradient: Numbers


@dataclass(frozen=True)
class Batch:
    """Chapters 2, 4 and 8: examples, the one thing that is added, and its central differences."""

    examples: list[Example]
    sum: Numbers
    mean: Numbers
    differences: Numbers


@dataclass(frozen=True)
class Mistake:
    """The right gradient, that of the means of all activations, and degrees between the two."""

    right: Numbers
    averaged: Numbers
    angle: float | None


@dataclass(frozen=True)
class Averaging:
    """Chapter 3: the mistake in three networks, and means on both sides of the bend."""

    mean_z: Numbers
    tanh_of_mean_z: Numbers
    mean_a: Numbers
    tanh: Mistake
    linear_units: Mistake
    all_linear: Mistake


@dataclass(frozen=True)
class Workers:
    """Chapter 5: the sums of shards; who adds whose, as pairs (into, what); three means."""

    shard_sums: Rows
    messages: list[tuple[int, int]]
    sum: Numbers
    mean: Numbers
    one_by_one: Numbers
    mean_of_means: Numbers


@dataclass(frozen=True)
class Minibatch:
    """Chapter 6: the gradient of all digits, and how far minibatches of m are off, by m."""

    full_gradient: Numbers
    epoch_mean: Numbers
    spread: float
    variances: dict[int, float]
    slope: float


@dataclass(frozen=True)
class Noises:
    """Chapter 7: S and |G|^2 for each number of epochs of training, means over minibatches."""

    variances: Numbers
    square_norms: Numbers


Found = Example | Batch | Averaging | Workers | Minibatch | Noises
