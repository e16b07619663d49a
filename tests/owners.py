"""Owners of slices of a vector that update it together, as ranks do, in one process."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Layout
from dptrain.config import TrainConfig
from dptrain.optim.make import Measure, make_optimizer
from dptrain.reduce.segments import Segments


class Owners:
    """Optimizers of slices, each a thread, so that they can wait for each other's norms."""

    def __init__(
        self,
        config: TrainConfig,
        layout: Layout,
        slices: Sequence[slice],
        dtype: Any,
        rate: Callable[[int], float] = lambda _: 0.25,
    ) -> None:
        self._slices, self._segments = slices, Segments(layout)
        size = sum(param.size for param in layout)
        self._sums = np.full(len(self._segments.within(slice(0, size))), np.nan)
        self._barrier, self._threads = Barrier(len(slices)), ThreadPoolExecutor(len(slices))
        self.optimizers = [
            make_optimizer(config, layout, part, rate, dtype, self._measure(part))
            for part in slices
        ]

    def _measure(self, part: slice) -> Measure:
        def measure(vector: Any) -> list[float]:
            own = self._segments.within(part)
            self._sums[own.start : own.stop] = self._segments.square_sums(vector, part)
            self._barrier.wait(30)
            norms = self._segments.square_norms(self._sums)
            self._barrier.wait(30)
            return norms

        return measure

    def update(
        self, params: Any, gradient: Any, step: int, norm: float, weight_sum: float = 1.0
    ) -> list[int | None]:
        """Update the vector, and return what each owner's `update` does."""

        def of_one(optimizer: Any, part: slice) -> int | None:
            with np.errstate(all="ignore"):
                found: int | None = optimizer.update(
                    params[part], gradient[part], step, norm, weight_sum
                )
            return found

        each = map if len(self._slices) == 1 else self._threads.map  # who is alone waits for none
        return list(each(of_one, self.optimizers, self._slices))

    def state(self) -> list[NDArray[Any]]:
        """Return the whole state of each transform."""
        states = zip(*(owner.state for owner in self.optimizers), strict=True)
        return [np.hstack(state) for state in states]

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
