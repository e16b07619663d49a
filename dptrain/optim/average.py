"""The exponential moving average of the parameters: what is evaluated in their place."""

import numpy as np

from dptrain.arrays import CACHED, Floats


class Average:
    """The moving average of one slice of the parameters, statistics included.

    average += (1 - d) * (params - average) after each step, with d = min(decay, (1 + n) / (10 + n))
    after n steps, so that what it started from is soon forgotten (as TensorFlow's
    ExponentialMovingAverage with num_updates). Polyak and Juditsky (1992) is why one averages.

    `decay`: what it keeps of itself, at least 0 and below 1. `params`: what it starts from, [size];
    copied.
    """

    def __init__(self, decay: float, params: Floats) -> None:
        self.decay = decay
        self.values = params.copy()
        self._work = np.empty(min(len(params), CACHED), params.dtype)

    def update(self, params: Floats, number: int) -> None:
        """Take the parameters after so many steps."""
        share = 1 - min(self.decay, (1 + number) / (10 + number))
        for start in range(0, len(params), CACHED):
            values = self.values[start : start + CACHED]
            work = self._work[: len(values)]
            np.subtract(params[start : start + CACHED], values, out=work)
            work *= share
            values += work

    def swap(self, params: Floats) -> None:
        """Exchange the average and the parameters [size]."""
        for start in range(0, len(params), CACHED):
            values, own = self.values[start : start + CACHED], params[start : start + CACHED]
            work = self._work[: len(values)]
            np.copyto(work, values)
            np.copyto(values, own)
            np.copyto(own, work)
