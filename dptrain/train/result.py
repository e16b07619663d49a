"""What a run comes to: its parameters, the best epoch's, or their moving average."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from dptrain.train.evaluate import Interrupted
from dptrain.train.state import Training


def take_result(run: Training) -> None:
    """Set the parameters to the best epoch's, with `patience`, or to their average. Collective."""
    result = run.best if run.keeps_best and run.best_value < math.inf else run.averaged
    if result is not None:
        run.params[:] = result
        run.reducer.allgather()


@contextmanager
def averaged(run: Training) -> Iterator[None]:
    """Let the parameters be their average within the block, with `ema`. Collective."""
    average = run.optimizer.average

    def swap() -> None:
        if average is not None:
            average.swap(run.params)
            run.reducer.allgather()

    swap()
    try:
        yield
    except Interrupted:  # which all ranks raise
        swap()
        raise
    swap()
