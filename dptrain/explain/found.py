"""What each chapter computes; loops and trainer find it under the same names, to be compared."""

from dataclasses import dataclass

Numbers = list[float]
Rows = list[Numbers]


@dataclass(frozen=True)
class Example:
    """One example's way forward and back."""

    z: Numbers
    a: Numbers
    y: Numbers
    loss: float
    delta_out: Numbers
    back: Numbers
    """What comes back to each hidden unit, before its slope."""
    slope: Numbers
    delta: Numbers
    gradient: Numbers
    """Of the loss, in the order of the parameters."""


@dataclass(frozen=True)
class Batch:
    """Chapter 2: the examples, and the one thing that is added."""

    examples: list[Example]
    sum: Numbers
    mean: Numbers
    differences: Numbers
    """Central differences of the mean loss."""


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
class Recursion:
    """Chapter 4: each example's way back, and the products that add them up."""

    examples: list[Example]
    x_delta: Rows
    a_delta: Rows


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


@dataclass(frozen=True)
class Softmax:
    """Chapter 8: the examples with one output a class, and the mean of their gradients."""

    examples: list[Example]
    probabilities: Rows
    mean: Numbers


Found = Example | Batch | Averaging | Recursion | Workers | Minibatch | Noises | Softmax
