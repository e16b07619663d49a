"""What each chapter computes; loops and trainer find it under the same names, to be compared."""

from typing import NamedTuple

Numbers = list[float]
Rows = list[Numbers]


class Example(NamedTuple):
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


class Batch(NamedTuple):
    """Chapters 2, 4 and 8: examples, the one thing that is added, and the mean loss with each
    parameter a step up and down."""

    examples: list[Example]
    sum: Numbers
    mean: Numbers
    moved: Rows


class Mistake(NamedTuple):
    """The right gradient, that of the means of all activations, and degrees between the two."""

    right: Numbers
    averaged: Numbers
    angle: float | None


class Averaging(NamedTuple):
    """Chapter 3: the mistake in three networks, and means on both sides of the bend."""

    mean_z: Numbers
    tanh_of_mean_z: Numbers
    mean_a: Numbers
    tanh: Mistake
    linear_units: Mistake
    all_linear: Mistake


class Workers(NamedTuple):
    """Chapter 5: the sums of shards; who adds whose, as pairs (into, what); three means."""

    shard_sums: Rows
    messages: list[tuple[int, int]]
    sum: Numbers
    mean: Numbers
    one_by_one: Numbers
    mean_of_means: Numbers


class Minibatch(NamedTuple):
    """Chapter 6: the gradient of all digits, and how far minibatches of m are off, by m."""

    full_gradient: Numbers
    epoch_mean: Numbers
    spread: float
    variances: dict[int, float]
    slope: float


Found = Example | Batch | Averaging | Workers | Minibatch | Rows
"""Rows are chapter 7's: S and |G|^2 after each number of epochs, means over minibatches."""
