"""Trains JAX functions for some steps and prints what each came to; started with ranks."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

import dptrain
from dptrain import DataConfig, JaxModel, TrainConfig  # before JAX computes

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip


def initial(key: Any, dtype: Any) -> Any:
    """Return the layers of a perceptron."""
    keys = jax.random.split(key)
    first = {
        "weight": 0.1 * jax.random.normal(keys[0], (64, 32), dtype),
        "bias": jnp.zeros(32, dtype),
    }
    last = {
        "weight": 0.1 * jax.random.normal(keys[1], (32, 10), dtype),
        "bias": jnp.zeros(10, dtype),
    }
    return {"layers": [first, last]}


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
    """Yield a name and a model."""
    for dtype in ("float32", "float64"):

        def init(key: Any, dtype: str = dtype) -> Any:
            return initial(key, dtype)

        drops = dtype == "float64"
        yield (
            dtype,
            JaxModel(init, apply_dropping, weighed_loss) if drops else JaxModel(init, apply),
        )


def main() -> None:
    """Train every network with two numbers of shards, and print its digest on rank 0."""
    jax.config.update("jax_enable_x64", True)
    world, data = dptrain.connect(), dptrain.load(config=DataConfig(scale="standard"))
    for name, model in models():
        for shards, size in ((7, 61), (4, 3)):
            config = TrainConfig(shards=shards, batch_size=size, steps=4)
            trained = dptrain.fit(model, data, config)
            assert np.isfinite(trained.params).all()
            if world.rank == 0:
                found = [trained.summary[key] for key in ("params_sha256", "train_loss")]
                print(json.dumps([name, shards, size, *found]))


if __name__ == "__main__":
    main()
