"""JAX networks that tests train: in float32, and in float64 with random numbers and weights."""

from collections.abc import Iterator
from typing import Any

from dptrain import JaxModel  # before JAX computes

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip


def initial(key: Any, dtype: Any) -> Any:
    """Return the layers of a perceptron."""
    numbers = (0.1 * jax.random.normal(key, (96, 32))).astype(dtype)
    first = {"weight": numbers[:64], "bias": jnp.zeros(32, dtype)}
    return {"layers": [first, {"weight": numbers[64:].T[:, :10], "bias": jnp.zeros(10, dtype)}]}


def apply(params: Any, x: Any) -> Any:
    """Return scores."""
    first, last = params["layers"]
    return jax.nn.relu(x @ first["weight"] + first["bias"]) @ last["weight"] + last["bias"]


def apply_dropping(params: Any, x: Any, key: Any) -> Any:
    """Return scores of inputs of which, in training, some are set to 0."""
    if key is not None:
        x = jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x, 0).astype(x.dtype)
    return apply(params, x)


def weighed_loss(outputs: Any, targets: Any) -> Any:
    """Return a loss for each example, and how much its class counts."""
    rows = jax.nn.log_softmax(outputs)
    return -jnp.take_along_axis(rows, targets[:, None], axis=1)[:, 0], 1.0 + targets


def models() -> Iterator[tuple[str, Any]]:
    """Yield models by name; the one in float64 needs jax_enable_x64."""
    yield "jax perceptron float32", JaxModel(lambda key: initial(key, "float32"), apply)
    init = lambda key: initial(key, "float64")  # noqa: E731
    yield "jax dropout float64", JaxModel(init, apply_dropping, weighed_loss)
