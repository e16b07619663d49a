"""The activations, in place, each with the slope that sends the deltas back through it.

A function takes the preactivations z [m, units], replaces them by the activations a = f(z), and
writes f'(z) to `slope`, unless that is None. One per example: nothing here is averaged.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dptrain.config import Activation

Floats = NDArray[np.floating]


def relu(z: Floats, slope: Floats | None) -> None:
    """max(z, 0); the slope at 0 is taken as 0."""
    if slope is None:
        np.maximum(z, 0, out=z)
    else:  # a product is faster than a maximum
        np.greater(z, 0, out=slope, casting="unsafe")
        np.multiply(z, slope, out=z)


def tanh(z: Floats, slope: Floats | None) -> None:
    """The hyperbolic tangent; the slope is 1 - a * a."""
    np.tanh(z, out=z)
    if slope is not None:
        np.multiply(z, z, out=slope)
        np.subtract(1, slope, out=slope)


def sigmoid(z: Floats, slope: Floats | None) -> None:
    """1 / (1 + exp(-z)), as (1 + tanh(z / 2)) / 2, which can't overflow; the slope is a (1 - a)."""
    z *= 0.5
    np.tanh(z, out=z)
    z *= 0.5
    z += 0.5
    if slope is not None:
        np.subtract(1, z, out=slope)
        slope *= z


def gelu(z: Floats, slope: Floats | None) -> None:
    """z / 2 * (1 + tanh(c (z + 0.044715 z^3))), c = sqrt(2 / pi) (Hendrycks and Gimpel, 2016).

    The form by tanh: NumPy has no erf.
    """
    c = math.sqrt(2 / math.pi)
    t = np.multiply(z, z)
    t *= 0.044715 * c
    t += c
    t *= z
    np.tanh(t, out=t)
    if slope is not None:
        np.multiply(z, z, out=slope)
        slope *= 3 * 0.044715 * c
        slope += c
        slope *= z * (1 - t * t)  # 0 where z is large: before z * z * z would overflow
        slope += 1
        slope += t
        slope *= 0.5
    t += 1
    z *= t
    z *= 0.5


def identity(z: Floats, slope: Floats | None) -> None:  # noqa: ARG001 (z stays as it is)
    """z itself; the slope is 1."""
    if slope is not None:
        slope[:] = 1


ACTIVATIONS: dict[Activation, Callable[[Floats, Floats | None], None]] = {
    "relu": relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "gelu": gelu,
    "identity": identity,
}
