"""Lets one rank of three compute wrong by one bit, and shows that the others find out.

    mpirun -n 3 python tests/faulty.py 100

From a random step on, a bit of what a rank computes is another one each time: of its gradient, of
the parameters as it reads them, or of an activation, so often each. Prints a line of JSON: how
often that was found and the right host named, after how many steps in the mean and as computed, and
how often the same fault went without a word and with other bytes where nothing was checked.
"""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, get_args
from unittest import mock

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

import dptrain
from dptrain import MLP, TrainConfig, World
from dptrain.order import Batch, Order
from dptrain.run import control
from dptrain.train import recheck
from dptrain.train.recheck import WrongError

Kind = Literal["gradient", "parameter", "activation"]
EVERY = 4
CONFIG = TrainConfig(steps=60, batch_size=60, shards=3, recheck_every=EVERY, learning_rate=0.01)
SIZES = [6, 5, 3]


class Faulty(MLP):
    """A perceptron whose numbers have another bit on one rank, while `wrong` says so."""

    def __init__(self, kind: Kind, wrong: Callable[[Batch], bool], place: int, bit: int) -> None:
        super().__init__(SIZES, activation="tanh")
        self._kind, self._wrong, self._place, self._bit = kind, wrong, place, bit
        self._here = False

    def _flip(self, values: NDArray[Any]) -> None:
        flat = values.reshape(-1).view(np.uint32)
        flat[self._place % len(flat)] ^= np.uint32(1 << self._bit)

    def loss_and_grad_sum(
        self, params: Any, x: Any, y: Any, weights: Any, out: Any, rng: Any
    ) -> Any:
        """Return what it should, but for the bit."""
        batch = getattr(getattr(rng, "func", None), "__self__", None)  # none where it is tried
        self._here = isinstance(batch, Batch) and self._wrong(batch)
        if self._here and self._kind == "parameter":
            params = params.copy()
            self._flip(params)
        sums = super().loss_and_grad_sum(params, x, y, weights, out, rng)
        if self._here and self._kind == "gradient":
            self._flip(out)
        self._here = False
        return sums

    def _forward(self, layers: Any, below: Any, memory: Any, *others: Any) -> None:
        super()._forward(layers, below, memory, *others)
        if self._here and self._kind == "activation":
            self._flip(memory.units[0])


@contextlib.contextmanager
def listening(world: World) -> Iterator[list[str]]:
    """Give every rank a host of its own, and collect what is said of them."""
    said: list[str] = []
    with (
        mock.patch("socket.gethostname", return_value=f"host{world.rank}"),
        mock.patch.object(control, "warn", said.append),
    ):
        yield said


def run(model: MLP, data: Any, config: TrainConfig, world: World) -> tuple[str, list[str]]:
    """Return the parameters' hash, or nothing, and what was said on its way or at its end."""
    with listening(world) as said:
        try:
            found = dptrain.fit(model, data, config, world=world).summary.params_sha256
        except WrongError as error:
            found, said = "", [*said, str(error)]
    return found, world.broadcast(said)


def data_for(world: World) -> Any:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, SIZES[0])).astype(np.float32)
    if world.rank == 0:
        np.savez("data.npz", x=x, y=(x[:, 0] > 0).astype(int) + (x[:, 1] > 0))
    world.allgather("it is written")
    return dptrain.load("data.npz", world=world)


def stuck(times: int, world: World) -> dict[str, Any]:
    """Return how faults that stay are found; see above."""
    data, found = data_for(world), {}
    plain = replace(CONFIG, recheck_every=None, steps=20)  # enough to differ by
    right, _ = run(MLP(SIZES, activation="tanh"), data, plain, world)
    share = 2 / world.size  # of the checks in which a given rank takes part
    for kind in get_args(Kind):
        rng = np.random.default_rng(len(kind))
        counts: dict[str, Any] = {"times": times, "named": 0, "silent": 0}
        delays = []
        for _ in range(times):
            odd, start, place, bit = (int(n) for n in rng.integers(0, [world.size, 12, 1000, 23]))

            def wrong(batch: Batch, odd: int = odd, start: int = start) -> bool:
                return world.rank == odd and batch.step >= start

            model = Faulty(kind, wrong, place, bit)
            _, said = run(model, data, CONFIG, world)
            if said:
                steps = [int(n) for n in re.findall(r"of step (\d+),", said[0])]
                delays.append(steps[0] - (start + 1))
                counts["named"] += all(f"rank {odd} on host{odd} (" in line for line in said)
                counts["named"] -= len(said) != 2 or "was wrong before" not in said[1]
            other, said = run(model, data, plain, world)
            counts["silent"] += other != right and not said
        counts["mean_steps"] = float(np.mean(delays))
        counts["found"] = len(delays)
        found[kind] = counts | {"expected": (EVERY - 1) / 2 + EVERY * (1 / share - 1)}
    return found


def once(world: World) -> dict[str, Any]:
    """Return what becomes of a fault that passes, of the owner and of who checks it."""
    data, found = data_for(world), {}
    order = Order(120, CONFIG.batch_size, 3, CONFIG.seed)
    batch = next(order.steps(EVERY // order.steps_per_epoch - 1, first=EVERY - 1))
    chosen = recheck.choose(batch, world)
    config = replace(CONFIG, steps=3 * EVERY)
    right, _ = run(MLP(SIZES, activation="tanh"), data, config, world)
    for name in ("owner", "checker"):
        left = [world.rank == getattr(chosen, name)]

        def wrong(batch: Batch, left: list[bool] = left) -> bool:
            return batch.step == EVERY - 1 and left.pop() if left else False

        other, said = run(Faulty("gradient", wrong, 7, 3), data, config, world)
        found[name] = {"same": other == right, "said": said}
    return found


def disagreeing(world: World) -> list[str]:
    """Return what is said where there is nobody to judge: two ranks, each sure of itself."""
    model = Faulty("gradient", lambda _: world.rank == 1, 7, 3)
    return run(model, data_for(world), CONFIG, world)[1]


def main() -> None:
    """Print what comes of it."""
    world = dptrain.connect()
    found: dict[str, Any] = {"stuck": stuck(int(sys.argv[1]), world), "once": once(world)}
    pair = MPI.COMM_WORLD.Split(world.rank < 2, world.rank)
    if world.rank < 2:
        found["two"] = disagreeing(World(pair))
    if world.rank == 0:
        found["alone"] = once(World())
        print(json.dumps(found))


if __name__ == "__main__":
    main()
