"""The activations, in place, each with the slope that sends the deltas back through it.

A function takes the preactivations z [m, units], replaces them by the activations a = f(z), and
writes f'(z) to `slope`, unless that is None. One per example: nothing here is averaged.
"""

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Floats, scalar
from dptrain.config import Activation, ModelConfig

PIECE = 4096
"""Entries that a function with several steps works on at a time."""


def relu(z: Floats, slope: Floats | None) -> None:
    """max(z, 0); the slope at 0 is 0."""
    zero = scalar(0, z.dtype)
    if slope is None:
        np.maximum(z, zero, out=z)
    else:
        slope.fill(0)
        np.maximum(z, slope, out=z)  # of two arrays NumPy takes several entries at a time
        np.greater(z, zero, out=slope, casting="unsafe")


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

    The form by tanh: NumPy has no erf. Goes in pieces that stay in cache.
    """
    for start in range(0, z.size, PIECE):
        piece = z.reshape(-1)[start : start + PIECE]
        _gelu(piece, None if slope is None else slope.reshape(-1)[start : start + PIECE])


def _gelu(z: Floats, slope: Floats | None) -> None:
    c = math.sqrt(2 / math.pi)
    # from 100 on tanh is 1 to the last bit: cut there, nothing overflows
    np.maximum(z, -100, out=z)
    near = np.minimum(z, 100)
    t = c * 0.044715 * near * near
    t += c
    t *= near
    np.tanh(t, out=t)
    twice = 1 + t
    if slope is not None:
        np.multiply(3 * 0.044715 * c * near, near, out=slope)
        slope += c
        slope *= near * (1 - t * t)
        slope += twice
        slope *= 0.5
    twice *= 0.5
    z *= twice


def identity(z: Floats, slope: Floats | None) -> None:  # noqa: ARG001 (z stays as it is)
    """z itself; the slope is 1."""
    if slope is not None:
        slope[:] = 1


ACTIVATIONS: dict[str, Callable[[Floats, Floats | None], None]] = {
    name: globals()[name] for name in get_args(Activation)
}
"""The functions above, by the names that people give."""


def initial_weights(
    shape: tuple[int, ...], config: ModelConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a layer's random weights [inputs, outputs]; see `MLP`."""
    inputs, outputs = shape
    he = config.activation in ("relu", "gelu") if config.init == "auto" else config.init == "he"
    if he:
        return rng.standard_normal(shape) * math.sqrt(2 / inputs)
    return rng.uniform(-1, 1, shape) * math.sqrt(6 / (inputs + outputs))
