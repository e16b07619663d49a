"""The update: small transforms of the mean gradient that compose, on any slice of the vector.

An optimizer never communicates. It updates the slice it is given, entry by entry, so that how the
vector is cut cannot change a bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dptrain.config import Rule, TrainConfig

Floats = NDArray[np.floating]

CACHED = 65536
"""Entries that are updated at a time: few enough for the work of a block to stay in cache, and so
many that reading ahead pays (measured: 1.6 times as fast as blocks of 16384)."""


class Step(NamedTuple):
    """What a transform may know of a step: its number from 1, and the whole gradient's norm."""

    number: int
    norm: float


class Transform(Protocol):
    """A piece of an optimizer: turns the mean gradient step by step into the update."""

    num_slots: int
    """The number of state vectors, each as long as the parameters."""

    def __call__(
        self, update: Floats, params: Floats, state: Floats, work: Floats, step: Step, /
    ) -> Floats:
        """Return the update [n], given the one so far, `params` [n] and `state` [num_slots, n].

        `update` is changed in place and returned, never a row of the state, as the next transform
        changes it; `work` [n] is memory to compute in. What is not finite in `update` must stay so,
        there or in the last row of the state: there it is looked for.
        """


@dataclass(frozen=True)
class ClipNorm:
    """Scale the whole gradient down to a norm: g * min(1, limit / |g|) (Pascanu et al., 2013)."""

    limit: float
    num_slots = 0

    def __call__(
        self, update: Floats, params: Floats, state: Floats, work: Floats, step: Step
    ) -> Floats:
        """See `Transform`."""
        if step.norm > self.limit:
            update *= self.limit / step.norm if step.norm < math.inf else math.nan
        return update


@dataclass(frozen=True)
class ClipValue:
    """Cut each entry of the gradient to [-limit, limit]."""

    limit: float
    num_slots = 0

    def __call__(
        self, update: Floats, params: Floats, state: Floats, work: Floats, step: Step
    ) -> Floats:
        """See `Transform`."""
        np.multiply(update, 0, out=work)  # NaN for what is not finite, which stays so
        np.clip(update, -self.limit, self.limit, out=update)
        update += work
        return update


@dataclass(frozen=True)
class WeightDecay:
    """Add decay * params: an L2 penalty before a rule, decoupled decay after it."""

    decay: float
    num_slots = 0

    def __call__(
        self, update: Floats, params: Floats, state: Floats, work: Floats, step: Step
    ) -> Floats:
        """See `Transform`."""
        np.multiply(params, self.decay, out=work)
        update += work
        return update


@dataclass(frozen=True)
class Momentum:
    """v = momentum * v + g; the update is v, or g + momentum * v for Nesterov's form.

    Sutskever and others (2013), in the form without dampening that today's libraries use.
    """

    momentum: float
    nesterov: bool = False
    num_slots = 1

    def __call__(
        self, update: Floats, params: Floats, state: Floats, work: Floats, step: Step
    ) -> Floats:
        """See `Transform`."""
        velocity: Floats = state[0]
        velocity *= self.momentum
        velocity += update
        if not self.nesterov:
            np.copyto(update, velocity)
            return update
        np.multiply(velocity, self.momentum, out=work)
        update += work
        return update


@dataclass(frozen=True)
class Adam:
    """m / (sqrt(v) + epsilon), both corrected for their start at 0 (Kingma and Ba, 2015)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    num_slots = 2

    def __call__(
        self, update: Floats, params: Floats, state: Floats, work: Floats, step: Step
    ) -> Floats:
        """See `Transform`."""
        mean, square = state
        mean *= self.beta1
        np.multiply(update, 1 - self.beta1, out=work)
        mean += work
        square *= self.beta2
        np.multiply(update, update, out=work)
        work *= 1 - self.beta2
        square += work
        np.sqrt(square, out=update)
        update *= 1 / math.sqrt(1 - self.beta2**step.number)
        update += self.epsilon
        np.divide(mean, update, out=update)
        update *= 1 / (1 - self.beta1**step.number)
        return update


@dataclass(frozen=True)
class RMSProp:
    """g / (sqrt(v) + epsilon), v the running mean of g * g (Hinton, lecture 6e, 2012)."""

    decay: float = 0.99
    epsilon: float = 1e-8
    num_slots = 1

    def __call__(
        self, update: Floats, params: Floats, state: Floats, work: Floats, step: Step
    ) -> Floats:
        """See `Transform`."""
        square = state[0]
        square *= self.decay
        np.multiply(update, update, out=work)
        work *= 1 - self.decay
        square += work
        np.sqrt(square, out=work)
        work += self.epsilon
        update /= work
        return update


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
        self._work = np.empty((2, min(size, CACHED)), dtype)
        self._params: Floats | None = None
        self._gradient: Floats | None = None
        self._blocks: list[Block] = []

    def update(
        self, params: Floats, gradient_sum: Floats, step: int, norm: float, num_examples: int = 1
    ) -> int | None:
        """Update `params` [size] in place by the mean gradient, gradient_sum / num_examples [size].

        This is the one division, done block by block where the block is in cache anyway. `norm` is
        the whole mean gradient's Euclidean norm; only clipping by norm looks at it.

        Returns the first entry at which the gradient is not finite, or else what parameters or
        state have become; None where all are. Parameters and state are of no use then.
        """
        info, rate, doubt = Step(step + 1, norm), self.rate(step), False
        for values, gradient, update, work, pieces, watched in self._in_blocks(
            params, gradient_sum
        ):
            np.divide(gradient, num_examples, out=update)
            found = update
            for transform, state in pieces:
                found = transform(found, values, state, work, info)
            np.multiply(found, rate, out=work)
            np.subtract(values, work, out=values)
            for row in watched:  # finite only where both are: one look at what is in cache
                doubt = doubt or not math.isfinite(np.dot(values, row))
        if not doubt:
            return None
        for arrays in ([gradient_sum], [params, *(row for state in self.state for row in state)]):
            faults = [int(np.argmin(fine)) for fine in map(np.isfinite, arrays) if not fine.all()]
            if faults:
                return min(faults)
        return None

    def _in_blocks(self, params: Floats, gradient: Floats) -> "list[Block]":
        """Return views of a block each; they are kept, as the vectors come back step after step."""
        if self._params is not params or self._gradient is not gradient:
            self._params, self._gradient = params, gradient
            self._blocks = [
                (
                    params[start : start + CACHED],
                    gradient[start : start + CACHED],
                    self._work[0, : len(params) - start],
                    self._work[1, : len(params) - start],
                    [
                        (transform, state[:, start : start + CACHED])
                        for transform, state in zip(self.transforms, self.state, strict=True)
                    ],
                    [state[-1, start : start + CACHED] for state in self.state if len(state)]
                    or [self._work[1, : len(params) - start]],
                )
                for start in range(0, len(params), CACHED)
            ]
        return self._blocks


Block = tuple[Floats, Floats, Floats, Floats, list[tuple[Transform, Floats]], list[Floats]]
"""A block of parameters and of the gradient, memory for its update and for work, the state, and
the rows in which what is not finite is seen, beside the parameters."""
