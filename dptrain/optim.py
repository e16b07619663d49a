"""The update: small transforms of the mean gradient that compose, on any slice of the vector.

An optimizer never communicates. It updates the slice it is given, entry by entry, so that how the
vector is cut cannot change a bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dptrain.config import Rule, TrainConfig

Floats = NDArray[np.floating]

CACHED = 16384
"""Entries that are updated at a time: few enough for every array involved to stay in cache."""


@dataclass(frozen=True)
class Step:
    """What a transform may know of a step: its number from 1, and the whole gradient's norm."""

    number: int
    norm: float


class Transform(Protocol):
    """A piece of an optimizer: turns the mean gradient step by step into the update."""

    num_slots: int
    """The number of state vectors, each as long as the parameters."""

    def __call__(self, update: Floats, params: Floats, state: Floats, step: Step) -> None:
        """Change `update` [n] in place, given `params` [n] and `state` [num_slots, n]."""


@dataclass(frozen=True)
class ClipNorm:
    """Scale the whole gradient down to a norm: g * min(1, limit / |g|) (Pascanu et al., 2013)."""

    limit: float
    num_slots = 0

    def __call__(self, update: Floats, params: Floats, state: Floats, step: Step) -> None:  # noqa: ARG002
        """Scale in place; see `Transform`."""
        if step.norm > self.limit:
            update *= self.limit / step.norm


@dataclass(frozen=True)
class ClipValue:
    """Cut each entry of the gradient to [-limit, limit]."""

    limit: float
    num_slots = 0

    def __call__(self, update: Floats, params: Floats, state: Floats, step: Step) -> None:  # noqa: ARG002
        """Cut in place; see `Transform`."""
        np.clip(update, -self.limit, self.limit, out=update)


@dataclass(frozen=True)
class WeightDecay:
    """Add decay * params: an L2 penalty before a rule, decoupled decay after it."""

    decay: float
    num_slots = 0

    def __call__(self, update: Floats, params: Floats, state: Floats, step: Step) -> None:  # noqa: ARG002
        """Add in place; see `Transform`."""
        update += self.decay * params


@dataclass(frozen=True)
class Momentum:
    """v = momentum * v + g; the update is v, or g + momentum * v for Nesterov's form.

    Sutskever and others (2013), in the form without dampening that today's libraries use.
    """

    momentum: float
    nesterov: bool = False
    num_slots = 1

    def __call__(self, update: Floats, params: Floats, state: Floats, step: Step) -> None:  # noqa: ARG002
        """Replace the gradient by the velocity in place; see `Transform`."""
        velocity = state[0]
        velocity *= self.momentum
        velocity += update
        if self.nesterov:
            update += self.momentum * velocity
        else:
            update[:] = velocity


@dataclass(frozen=True)
class Adam:
    """m / (sqrt(v) + epsilon), both corrected for their start at 0 (Kingma and Ba, 2015)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    num_slots = 2

    def __call__(self, update: Floats, params: Floats, state: Floats, step: Step) -> None:  # noqa: ARG002
        """Replace the gradient by the corrected ratio in place; see `Transform`."""
        mean, square = state
        mean *= self.beta1
        mean += (1 - self.beta1) * update
        square *= self.beta2
        square += (1 - self.beta2) * np.square(update)
        np.sqrt(square, out=update)
        update *= 1 / math.sqrt(1 - self.beta2**step.number)
        update += self.epsilon
        np.divide(mean, update, out=update)
        update *= 1 / (1 - self.beta1**step.number)


@dataclass(frozen=True)
class RMSProp:
    """g / (sqrt(v) + epsilon), v the running mean of g * g (Hinton, lecture 6e, 2012)."""

    decay: float = 0.99
    epsilon: float = 1e-8
    num_slots = 1

    def __call__(self, update: Floats, params: Floats, state: Floats, step: Step) -> None:  # noqa: ARG002
        """Divide by the running root mean square in place; see `Transform`."""
        square = state[0]
        square *= self.decay
        square += (1 - self.decay) * np.square(update)
        update /= np.sqrt(square) + self.epsilon


def transforms(config: TrainConfig) -> list[Transform]:
    """Return the pieces of the optimizer that a configuration names, in the order they apply."""
    decay: list[Transform] = [WeightDecay(config.weight_decay)] if config.weight_decay else []
    rules: dict[Rule, list[Transform]] = {
        "sgd": [*decay],
        "momentum": [*decay, Momentum(config.momentum)],
        "nesterov": [*decay, Momentum(config.momentum, nesterov=True)],
        "adam": [*decay, Adam()],
        "adamw": [Adam(), *decay],
        "rmsprop": [*decay, RMSProp()],
    }
    clip: list[Transform] = []
    if config.clip_norm is not None:
        clip.append(ClipNorm(config.clip_norm))
    if config.clip_value is not None:
        clip.append(ClipValue(config.clip_value))
    return [*clip, *rules[config.optimizer]]


def learning_rate(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the step, which counts from 0.

    Warm-up rises linearly to the full rate at its last step; the schedule then runs over the
    steps that are left. Cosine: Loshchilov and Hutter (2017), without restarts.
    """
    num_steps = max(1, config.num_steps(steps_per_epoch) - config.warmup)

    def rate(step: int) -> float:
        if step < config.warmup:
            return config.learning_rate * (step + 1) / config.warmup
        step -= config.warmup
        if config.schedule == "cosine":
            return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        if config.schedule == "step":
            decays = step // (config.decay_epochs * steps_per_epoch)
            return float(config.learning_rate * config.decay_factor**decays)
        return config.learning_rate

    return rate


class Optimizer:
    """Transforms in a row and their state, for one slice of the parameter vector.

    Parameters
    ----------
    transforms
        Applied in this order to the mean gradient; the result times the learning rate is
        subtracted from the parameters.
    rate
        The learning rate of each step, which counts from 0.
    size
        The length of the slice.
    dtype
        The parameters' type, also of the state.
    """

    def __init__(
        self, transforms: list[Transform], rate: Callable[[int], float], size: int, dtype: Any
    ) -> None:
        self.transforms = transforms
        self.rate = rate
        self.state = [np.zeros((transform.num_slots, size), dtype) for transform in transforms]

    def update(self, params: Floats, gradient: Floats, step: int, norm: float) -> None:
        """Update `params` [size] in place by the mean `gradient` [size], which is used up.

        `norm` is the whole gradient's Euclidean norm; only clipping by norm looks at it.
        """
        info = Step(step + 1, norm)
        for start in range(0, len(params), CACHED):
            block = slice(start, start + CACHED)
            update, values = gradient[block], params[block]
            for transform, state in zip(self.transforms, self.state, strict=True):
                transform(update, values, state[:, block], info)
            update *= self.rate(step)
            values -= update
