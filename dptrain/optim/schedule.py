"""The learning rate of each step."""

import math
from collections.abc import Callable

from dptrain.config import TrainConfig


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
