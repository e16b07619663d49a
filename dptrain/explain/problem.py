"""What the chapters compute with: a network and a minibatch to read, and some of the digits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Floats
from dptrain.config import Activation, Loss, TrainConfig
from dptrain.config.tools import ExplainConfig
from dptrain.data.encode import Flat
from dptrain.keys import Purpose, generator
from dptrain.model.mlp import MLP
from dptrain.order import Batch
from dptrain.run.fit import fit
from dptrain.run.ready import load
from dptrain.world import World

WEIGHTS = [sign * size / 4 for size in range(1, 6) for sign in (1, -1)]
INPUTS = [sign * size / 2 for size in range(1, 5) for sign in (1, -1)]
TARGETS = [-1.0, -0.5, 0.0, 0.5, 1.0]

CLASSES = 3
"""The classes of chapter 8."""


@dataclass(frozen=True)
class Problem:
    """A network with one hidden layer, and a minibatch.

    `params` are in the trainer's order: weights w_ij from input i to hidden unit j, their biases,
    weights v_jk to the outputs, their biases. `xs` is [m][inputs], `ts` are the targets [m].
    """

    hidden: int
    params: tuple[float, ...]
    xs: tuple[tuple[float, ...], ...]
    ts: tuple[float, ...]
    num_workers: int = 1
    outputs: int = 1
    activation: Activation = "tanh"
    loss: Loss = "mean-squared-error"

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The units of each layer."""
        return len(self.xs[0]), self.hidden, self.outputs

    @property
    def names(self) -> list[str]:
        """The parameters' names, in their order."""
        units, outputs = range(1, self.hidden + 1), range(1, self.outputs + 1)
        to = [""] if self.outputs == 1 else [*map(str, outputs)]
        names = [f"w{i}{j}" for i in range(1, self.sizes[0] + 1) for j in units]
        names += [f"b{j}" for j in units] + [f"v{j}{k}" for j in units for k in to]
        return names + [f"c{k}" for k in to]

    @property
    def batch(self) -> Batch:
        """The minibatch as the trainer cuts it, in the order of the examples' numbers."""
        return Batch(0, 0, 0, np.arange(len(self.xs)), self.num_workers)

    @property
    def shards(self) -> list[list[int]]:
        """The examples of each worker's shard, by their place in the minibatch."""
        return [self.batch.shard(worker).tolist() for worker in range(self.num_workers)]


def problems(config: ExplainConfig) -> tuple[Problem, Problem]:
    """Return the network and the minibatch that belong to a seed, with one output and with classes.

    All are quarters and halves, so that they print exactly.
    """
    hidden, size = config.hidden, config.examples
    random = generator(config.seed, Purpose.PARAMS).bit_generator

    def draw(choices: Sequence[float], count: int) -> tuple[float, ...]:
        return tuple(choices[random.random_raw() % len(choices)] for _ in range(count))

    first, last = draw(WEIGHTS, 3 * hidden), draw(WEIGHTS, hidden + 1)
    xs = tuple(draw(INPUTS, 2) for _ in range(size))
    one = Problem(hidden, first + last, xs, draw(TARGETS, size), config.workers)
    params, classes = first + draw(WEIGHTS, CLASSES * (hidden + 1)), draw(range(CLASSES), size)
    several = replace(one, params=params, ts=classes, outputs=CLASSES, loss="cross-entropy")
    return one, several


DIGITS = MLP([64, 4, 10], activation="tanh", dtype="float64")
"""The network that chapters 6 and 7 look at."""


@cache
def digits(count: int = 2000) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the first of the embedded training digits, x [m, 64] and classes y [m]."""
    x, y = load((), world=World()).train.gather(slice(0, count), Flat(np.float64))
    return x, y


@cache
def trained(seed: int, epochs: int) -> Floats:
    """Return the network's parameters after training on all digits, by this process alone."""
    if epochs == 0:
        return DIGITS.initial_params(generator(seed, Purpose.PARAMS))
    config = TrainConfig(
        epochs=epochs, batch_size=64, optimizer="sgd", learning_rate=0.1, shards=1, seed=seed
    )
    world = World()
    return fit(DIGITS, load((), world=world), config, world=world).params
