"""A run in which one rank does something at one moment; started by tests, under mpirun or alone.

    python disturb.py OUT WHAT WHEN RANK [RANKS_PER_NODE] [KEY=VALUE...] [and OUT WHAT ...]

WHAT: TERM, HUP, INT, STOP and so on (a signal to itself), sleep, raise, exit, or flip (a bit of
its copy of the parameters). WHEN: start, step, evaluation or test. RANK: who does it; -1 for all.
Or WHAT slow, WHEN disk: the first checkpoint takes some seconds.

    python disturb.py marked FILE train ...

The command line, which marks what it does in a file, for torture.py to choose its moments by.
"""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

import dptrain
from dptrain import guard
from dptrain import launch as launches
from dptrain.arrays import Sums
from dptrain.cli.main import main as command_line
from dptrain.record import checkpoint
from dptrain.run import fit
from dptrain.status import SAVED
from dptrain.train import loop
from dptrain.train.evaluate import evaluate

Floats = NDArray[np.floating]
P = ParamSpec("P")
R = TypeVar("R")

STEP = 70
"""When `step` is: in the second epoch."""

HELD_OUT = 382
"""Rows of validation, a block; the test rows' blocks are larger."""

FLIPPED = 9000
"""The entry of the parameters of which a bit is flipped."""


class Disturbance:
    """What happens during a network's computation, which is else as any other's."""

    def __init__(self, what: str, when: str, model: dptrain.MLP) -> None:
        self.what, self.when = what, when
        self.shards_seen = 0
        self.initial_params, self.of_shards = model.initial_params, model.of_shards
        self.outputs = model.outputs
        for name in ("initial_params", "of_shards", "outputs"):
            setattr(model, name, getattr(self, f"disturbed_{name}"))

    def disturbed_initial_params(self, rng: np.random.Generator) -> Floats:
        self.happen("start")
        return self.initial_params(rng)

    def disturbed_of_shards(self, params: Floats, *args: Any) -> list[Sums]:
        before = self.shards_seen
        self.shards_seen += len(args[4].adds)
        if before < STEP <= self.shards_seen:
            self.happen("step", params)
        return self.of_shards(params, *args)

    def disturbed_outputs(self, params: Floats, x: Floats) -> Floats:
        self.happen("evaluation" if len(x) == HELD_OUT else "test")
        return self.outputs(params, x)

    def happen(self, when: str, params: Floats | None = None) -> None:
        if when != self.when:
            return
        if self.what == "sleep":
            print("asleep", flush=True)
            time.sleep(60)
        elif self.what == "raise":
            raise RuntimeError("something unexpected")
        elif self.what == "exit":
            os._exit(3)
        elif self.what == "flip":
            assert params is not None
            params[FLIPPED : FLIPPED + 1].view(np.uint32)[:] ^= 1 << 10  # more than rounding heals
        else:
            os.kill(os.getpid(), signal.Signals[f"SIG{self.what}"])
            time.sleep(0.3)  # a signal is heard between two instructions of Python


def slow_down() -> None:
    """Let the first checkpoint take longer than ranks may be silent."""
    write, seconds = checkpoint.write, [3.5]

    def slow(path: Path, tensors: Any, state: Any) -> None:
        if seconds:
            time.sleep(seconds.pop())
        write(path, tensors, state)

    checkpoint.write = slow


def main() -> int:
    """Train for three epochs, once or more often; return the last run's status."""
    runs: list[list[str]] = [[]]
    for word in sys.argv[1:]:
        runs.append([]) if word == "and" else runs[-1].append(word)
    return [disturbed(*run) for run in runs][-1]


def disturbed(out: str, what: str, when: str, rank: str, *rest: str) -> int:
    """Train for three epochs; return the status that the command line would end with."""
    per_node = [int(word) for word in rest if "=" not in word]
    settings: dict[str, Any] = dict(word.split("=") for word in rest if "=" in word)
    if "stall_timeout" in settings:
        settings["stall_timeout"] = float(settings["stall_timeout"])
        guard.GRACE = 2.5
    if "audit_every" in settings:
        settings["audit_every"] = int(settings["audit_every"])
    comm = None
    if dptrain.connect().size > 1:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    world = dptrain.World(comm, *per_node)
    config = dataclasses.replace(
        dptrain.TrainConfig(batch_size=64, shards=4, epochs=3, checkpoint_every="1000 steps"),
        **settings,
    )
    data = dptrain.load(config=dptrain.DataConfig(validation=0.1), world=world)
    model = dptrain.mlp_for(data)
    if what == "slow":
        slow_down()
    if int(rank) in (-1, world.rank):
        Disturbance(what, when, model)
    try:
        trained = dptrain.fit(model, data, config, out=Path(out), world=world)
    except dptrain.InputError as error:
        if world.rank == 0:
            print(error.status, error, flush=True)
        return error.status
    if world.rank == 0:
        print(trained.summary.stopped, trained.summary.steps)
    stopped = trained.summary.stopped
    return 0 if stopped is None else 130 if stopped == "Ctrl-C" else SAVED


# ---- a run whose moments can be chosen

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


def marked() -> None:
    """Run the dptrain command that stands behind the name of the file for marks."""
    from unittest import mock  # which takes a while, and the other jobs do without

    marks = Marks(Path(sys.argv[2]))
    del sys.argv[1:3]
    launch = launches.announced()
    rank = launch.rank if launch else 0
    marks.numbers[2 + rank] = os.getpid()
    if rank > 0:
        command_line()
    with (
        mock.patch.object(fit, "train", marks.during(0, 1, loop.train)),
        mock.patch.object(loop, "evaluate", marks.during(0, 2, evaluate)),
        mock.patch.object(checkpoint, "write", marks.during(1, 1, checkpoint.write)),
    ):
        command_line()


if __name__ == "__main__":
    if sys.argv[1] == "marked":
        marked()
    else:
        sys.exit(main())
