"""What the chapters compute with: a network and a minibatch to read, and some of the digits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dptrain.config import ExplainConfig, TrainConfig
from dptrain.data.encode import Flat
from dptrain.keys import Purpose, generator
from dptrain.model.mlp import MLP
from dptrain.order import Batch
from dptrain.run.fit import fit, load
from dptrain.world import World

WEIGHTS = [sign * size / 4 for size in range(1, 6) for sign in (1, -1)]
INPUTS = [sign * size / 2 for size in range(1, 5) for sign in (1, -1)]
TARGETS = [-1.0, -0.5, 0.0, 0.5, 1.0]

NUM_DIGITS = 2000


@dataclass(frozen=True)
class Problem:
    """A 2-h-1 network and a minibatch, in quarters and halves, so that they print exactly.

    `params` are in the trainer's order: weights w_ij from input i to hidden unit j, their biases,
    weights to the output, its bias. `xs` is [m][2], `ts` are the targets [m].
    """

    hidden: int
    params: tuple[float, ...]
    xs: tuple[tuple[float, ...], ...]
    ts: tuple[float, ...]
    num_workers: int

    @property
    def names(self) -> list[str]:
        """The parameters' names, in their order."""
        units = range(1, self.hidden + 1)
        weights = [f"w{i}{j}" for i in (1, 2) for j in units]
        return weights + [f"b{j}" for j in units] + [f"v{j}" for j in units] + ["c"]

    @property
    def batch(self) -> Batch:
        """The minibatch as the trainer cuts it, in the order of the examples' numbers."""
        return Batch(0, 0, 0, np.arange(len(self.xs)), self.num_workers)

    @property
    def shards(self) -> list[list[int]]:
        """The examples of each worker's shard, by their place in the minibatch."""
        return [self.batch.shard(worker).tolist() for worker in range(self.num_workers)]


def problem(config: ExplainConfig) -> Problem:
    """Return the network and the minibatch that belong to a seed."""
    num_params = 4 * config.hidden + 1
    random = generator(config.seed, Purpose.PARAMS).bit_generator
    words = iter(random.random_raw(num_params + 3 * config.examples).tolist())

    def draw(choices: Sequence[float], count: int) -> tuple[float, ...]:
        return tuple(choices[next(words) % len(choices)] for _ in range(count))

    params = draw(WEIGHTS, num_params)
    xs = tuple(draw(INPUTS, 2) for _ in range(config.examples))
    return Problem(config.hidden, params, xs, draw(TARGETS, config.examples), config.workers)


@dataclass(frozen=True)
class Digits:
    """The first of the embedded training digits, x [m, 64] and classes y [m], and a network."""

    seed: int
    model: MLP
    x: NDArray[np.float64]
    y: NDArray[np.intp]


@cache
def digits(seed: int) -> Digits:
    """Return digits and the network that chapters 6 and 7 look at."""
    x, y = load((), world=World()).train.gather(slice(0, NUM_DIGITS), Flat(np.float64))
    return Digits(seed, MLP([64, 4, 10], activation="tanh", dtype="float64"), x, y)


@cache
def trained(seed: int, epochs: int) -> NDArray[np.floating]:
    """Return the network's parameters after training on all digits, by this process alone."""
    model, world = digits(seed).model, World()
    if epochs == 0:
        return model.initial_params(generator(seed, Purpose.PARAMS))
    config = TrainConfig(
        epochs=epochs, batch_size=64, optimizer="sgd", learning_rate=0.1, shards=1, seed=seed
    )
    return fit(model, load((), world=world), config, world=world).params
