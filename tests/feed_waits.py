"""How long training waits for rows that are mapped, beside the same rows in memory, in turns.

    mpirun -n 2 python tests/feed_waits.py CONVERTED [--rounds 9] [--steps 100]

CONVERTED is what `dptrain data convert` made of x and y that take more than 256 MB, such as those
of `examples/large_data.py`. The network is 784-512-512-10's, with 256 examples a step. Printed are,
of each rank, medians of the milliseconds a step takes, and of those that it waits for rows: by the
clock, and by the CPU's time, which other processes change less.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import dptrain
from dptrain.data.feed import Feed
from dptrain.threads import blas_threads
from dptrain.train.control import Control
from dptrain.train.loop import begin, train_epoch
from dptrain.train.state import Training

CLOCKS = time.perf_counter, time.thread_time


class Timed:
    """A feed of which it is noted how long it is waited for."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self.waited = feed, np.zeros(2)
        self.ahead = feed.ahead

    def __getitem__(self, examples: Any) -> Any:
        start = now()
        found = self._feed[examples]
        self.waited += now() - start
        return found


def now() -> Any:
    return np.array([clock() for clock in CLOCKS])


def run_on(data: Any, world: dptrain.World) -> Training:
    loaded = dptrain.load(data, world=world)
    config = dptrain.TrainConfig(batch_size=256, epochs=1000, optimizer="momentum", threads=1)
    model = dptrain.mlp_for(loaded, dptrain.ModelConfig(hidden=(512, 512)))
    run: Any = begin(model, loaded, config.settled(len(loaded.train)), world)
    assert (run.feed._all is None) == isinstance(data, str), "the set is too small, or too large"
    run.feed = Timed(run.feed)
    return run  # type: ignore[no-any-return]


def measured(run: Any, steps: int) -> list[float]:
    """Return milliseconds of a step, by each clock, and of what is waited of it."""
    run.num_steps, run.feed.waited, start = run.step + steps, np.zeros(2), now()
    while run.step < run.num_steps:
        train_epoch(run, Control())
        if run.step < run.num_steps:
            run.next_epoch()
    return [*(1000 / steps * np.concatenate([now() - start, run.feed.waited])).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("converted", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    world, folder = dptrain.connect(), options.converted
    arrays = tuple(np.array(np.load(folder / f"{n}.npy", mmap_mode="r")) for n in range(2))
    with blas_threads(1), np.errstate(all="ignore"):
        runs = {"mapped": run_on(str(folder), world), "in memory": run_on(arrays, world)}
        found: dict[str, list[list[float]]] = {name: [] for name in runs}
        for turn in range(options.rounds + 1):
            for name in [*runs][:: 1 if turn % 2 else -1]:
                found[name].append(measured(runs[name], options.steps))
    for name, rounds in found.items():
        own = [statistics.median(each) for each in zip(*rounds[1:], strict=True)]
        for rank, (step, cpu, waited, used) in enumerate(world.allgather(own)):
            if world.rank == 0:
                print(
                    f"{name}, rank {rank}: {step:.2f} ms a step, {waited:.3f} waited "
                    f"({waited / step:.1%}); of the CPU {cpu:.2f} and {used:.3f} ({used / cpu:.1%})"
                )


if __name__ == "__main__":
    main()
