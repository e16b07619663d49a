"""Small transforms of the mean gradient that compose, each free of how the vector is cut."""

import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from dptrain.arrays import Floats, scalar
from dptrain.config import Rule, TrainConfig


class Step(NamedTuple):
    """What a transform may know of a step: its number from 1, the whole gradient's norm, and what
    the update of the array at hand is scaled by, where that is asked for."""

    number: int
    norm: float
    ratio: float = 1.0


class Transform(Protocol):
    """A piece of an optimizer: turns the mean gradient step by step into the update."""

    num_slots: ClassVar[int] = 0
    """The number of state vectors, each as long as the parameters."""

    hides: ClassVar[bool] = False
    """Whether the last of them can be infinite where the update is not; it is looked for there."""

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        """Change `update` [n] in place, given `params` [n] and `state` [num_slots, n].

        `work` [n] is memory to compute in. What is not finite in `update` must stay so, there or,
        where the transform `hides` it, in the last row of the state.
        """

    def without_decay(self) -> "Transform | None":
        """Return what takes its place for arrays that don't decay; None where nothing does."""
        return self


class ClipNorm(Transform):
    """Scale the whole gradient down to a norm: g * min(1, limit / |g|) (Pascanu et al., 2013)."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        if at.norm > self.limit:
            update *= self.limit / at.norm if at.norm < math.inf else math.nan


class ClipValue(Transform):
    """Cut each entry of the gradient to [-limit, limit]."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        np.multiply(update, 0, out=work)  # NaN for what is not finite, which stays so
        np.clip(update, -self.limit, self.limit, out=update)
        update += work


class WeightDecay(Transform):
    """Add decay * params: an L2 penalty before a rule, decoupled decay after it."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        np.multiply(params, self.decay, out=work)
        update += work

    def without_decay(self) -> None:
        return


class Momentum(Transform):
    """v = momentum * v + g; the update is v, or g + momentum * v for Nesterov's form.

    Sutskever and others (2013), in the form without dampening that today's libraries use. The state
    is momentum * v, which the next step adds.
    """

    num_slots = 1

    def __init__(self, momentum: float, nesterov: bool = False) -> None:
        self.momentum, self.nesterov = momentum, nesterov

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        velocity = np.add(update, state[0], out=work if self.nesterov else update)
        np.multiply(velocity, scalar(self.momentum, update.dtype), out=state[0])
        if self.nesterov:
            update += state[0]


class Adam(Transform):
    """m / (sqrt(v) + epsilon), both corrected for their start at 0 (Kingma and Ba, 2015)."""

    num_slots = 2
    hides = True

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        mean, square = state
        mean *= self.beta1
        np.multiply(update, 1 - self.beta1, out=work)
        mean += work
        square *= self.beta2
        np.multiply(update, update, out=work)
        work *= 1 - self.beta2
        square += work
        np.sqrt(square, out=update)
        update *= 1 / math.sqrt(1 - self.beta2**at.number)
        update += self.epsilon
        np.divide(mean, update, out=update)
        update *= 1 / (1 - self.beta1**at.number)


class RMSProp(Transform):
    """g / (sqrt(v) + epsilon), v the running mean of g * g (Hinton, lecture 6e, 2012)."""

    num_slots = 1
    hides = True

    def __init__(self, decay: float = 0.99, epsilon: float = 1e-8) -> None:
        self.decay, self.epsilon = decay, epsilon

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        square = state[0]
        square *= self.decay
        np.multiply(update, update, out=work)
        work *= 1 - self.decay
        square += work
        np.sqrt(square, out=work)
        work += self.epsilon
        update /= work


class Trust(Transform):
    """Scales the update of an array by its norm and the parameters'; see `Layerwise`."""

    @abstractmethod
    def ratio(self, of_params: float, of_update: float, /) -> float:
        """Return what an array's update is scaled by, given both norms before this transform."""

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        update *= at.ratio


class Lars(Trust):
    """Scale g + decay * w by coefficient * |w| / (|g| + decay * |w|), array by array.

    You, Gitman and Ginsburg (2017), "Large batch training of convolutional networks"; where a norm
    is 0 an array goes as far as without.
    """

    def __init__(self, decay: float, coefficient: float = 0.001) -> None:
        self.decay, self.coefficient = decay, coefficient

    def ratio(self, of_params: float, of_update: float) -> float:
        """See `Trust`; the update is the gradient."""
        if of_params == 0 or of_update == 0:
            return 1.0
        return self.coefficient * of_params / _finite(of_update + self.decay * of_params)

    def apply(self, update: Floats, params: Floats, state: Floats, work: Floats, at: Step) -> None:
        if self.decay:
            np.multiply(params, self.decay, out=work)
            update += work
        super().apply(update, params, state, work, at)

    def without_decay(self) -> "Lars":
        return Lars(0.0, self.coefficient)


class Lamb(Trust):
    """Scale the update u, decay included, by |w| / |u|, array by array.

    You and others (2020), "Large batch optimization for deep learning: training BERT in 76
    minutes", with no bound on |w|; where a norm is 0 an array goes as far as without.
    """

    def ratio(self, of_params: float, of_update: float) -> float:
        return of_params / _finite(of_update) if of_params > 0 and of_update != 0 else 1.0


def _finite(norm: float) -> float:
    """Return a norm; NaN where it overflows, as what is divided by infinity would be 0."""
    return norm if norm < math.inf else math.nan


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
        "lars": [Lars(config.weight_decay), Momentum(config.momentum)],
        "lamb": [Adam(epsilon=1e-6), *decay, Lamb()],
    }
    clip: list[Transform] = []
    if config.clip_norm is not None:
        clip.append(ClipNorm(config.clip_norm))
    if config.clip_value is not None:
        clip.append(ClipValue(config.clip_value))
    return [*clip, *rules[config.optimizer]]
