"""Runs dptrain and marks what it does in a file, for torture.py to choose its moments by."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from dptrain import launch as launches
from dptrain.cli.main import main as dptrain
from dptrain.record import checkpoint
from dptrain.run import fit
from dptrain.train import loop
from dptrain.train.evaluate import evaluate

P = ParamSpec("P")
R = TypeVar("R")

PHASES = ("starting", "training", "evaluation", "writing")
"""What the first rank does; writing is beside the others, in a thread, and goes before them."""

MAX_RANKS = 6


class Marks:
    """Numbers in a file that processes share: phase of the first rank, whether it writes, pids."""

    def __init__(self, path: Path) -> None:
        self.numbers: NDArray[np.int64] = np.memmap(
            path, np.int64, "r+" if path.exists() else "w+", shape=(2 + MAX_RANKS,)
        )

    @property
    def phase(self) -> str:
        """What the first rank does now."""
        return PHASES[3 if self.numbers[1] else int(self.numbers[0])]

    @property
    def ranks(self) -> list[int]:
        """The processes of all ranks, by rank; 0 for one that has not begun."""
        return [int(number) for number in self.numbers[2:]]

    def during(self, place: int, value: int, function: Callable[P, R]) -> Callable[P, R]:
        """Return a function that marks a value at a place while it runs."""

        def marked(*args: P.args, **options: P.kwargs) -> R:
            before, self.numbers[place] = int(self.numbers[place]), value
            try:
                return function(*args, **options)
            finally:
                self.numbers[place] = before

        return marked


def main() -> None:
    """Run the dptrain command that stands behind the name of the file for marks."""
    marks = Marks(Path(sys.argv.pop(1)))
    launch = launches.announced()
    rank = launch.rank if launch else 0
    marks.numbers[2 + rank] = os.getpid()
    if rank > 0:
        dptrain()
    with (
        mock.patch.object(fit, "train", marks.during(0, 1, loop.train)),
        mock.patch.object(loop, "evaluate", marks.during(0, 2, evaluate)),
        mock.patch.object(checkpoint, "write", marks.during(1, 1, checkpoint.write)),
    ):
        dptrain()


if __name__ == "__main__":
    main()
