"""The learning rate of each step."""

import math
from collections.abc import Callable

from dptrain.config import Schedule, TrainConfig

OF_LENGTH: tuple[Schedule, ...] = ("cosine", "polynomial", "one-cycle")
"""Schedules whose rates depend on how long the run is to be."""

RISE, START = 0.3, 1 / 25
"""Of one-cycle: the share of the steps in which the rate rises, and from which part of it."""


def learning_rate(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the step, which counts from 0.

    Warm-up rises linearly to the full rate at its last step; the schedule then runs over the
    steps that are left. Cosine: Loshchilov and Hutter (2017), without restarts. Polynomial: the
    full rate times (1 - share of the steps done)^power. One-cycle: Smith and Topin (2019), a
    cosine's half up to the full rate, and one down. The three end at `min_learning_rate`.
    """
    full, least = config.learning_rate, config.min_learning_rate
    num_steps = max(1, config.num_steps(steps_per_epoch) - config.warmup)
    if config.schedule == "constant" and config.warmup == 0:
        return lambda _: full

    def falling(height: float) -> float:
        return full * height if least == 0 else least + (full - least) * height

    def rate(step: int) -> float:
        if step < config.warmup:
            return full * (step + 1) / config.warmup
        step -= config.warmup
        share = step / num_steps
        if config.schedule == "cosine":
            return falling(0.5 * (1 + math.cos(math.pi * step / num_steps)))
        if config.schedule == "polynomial":
            return falling((1 - share) ** config.power)
        if config.schedule == "one-cycle":
            if share < RISE:
                return full * (1 - (1 - START) * 0.5 * (1 + math.cos(math.pi * share / RISE)))
            return falling(0.5 * (1 + math.cos(math.pi * (share - RISE) / (1 - RISE))))
        if config.schedule == "step":
            decays = step // (config.decay_epochs * steps_per_epoch)
            return float(full * config.decay_factor**decays)
        return full

    return rate
