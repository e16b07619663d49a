"""Where a step's time goes on this machine, beside the least that it could take here.

Each part of a step is done alone, as often as an epoch does it, and then the whole step. Everything
is measured in turn, round by round, so that a busy moment of the machine hits all alike.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Sums, num_params
from dptrain.bench.results import Key, about, comparison, least, mean, parts
from dptrain.checked import Plain
from dptrain.config import TrainConfig
from dptrain.config.tools import BenchConfig
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.data.field import Field
from dptrain.data.prepare import Data
from dptrain.data.table import Column, Table
from dptrain.model import Shards
from dptrain.model.mlp import MLP
from dptrain.reduce.tree import times_added
from dptrain.run.ready import crowding
from dptrain.threads import blas_threads
from dptrain.train.control import Control
from dptrain.train.loop import begin, train_epoch
from dptrain.train.needs import check_memory, needs
from dptrain.train.state import Training
from dptrain.words import InputError
from dptrain.world import World

Say = Callable[[str], None]

ROUND = 0.1
"""Seconds that the steps of one kind take in a round, if an epoch is not longer."""

MADE_UP = 2**23
"""Bytes of examples that are made up, if that is 2 to 64 minibatches."""

STREAM = 2**20
"""Bytes that the arrays have at least by which bandwidth is measured."""

SQUARE = 512
"""Rows and columns of the matrices by whose product the speed of products is measured."""

LEARNING_RATE = 1e-6
"""Small enough that no number of steps, nor what is written into buffers here, makes a NaN."""


def synthetic(settings: BenchConfig, seed: int, num_examples: int) -> Data:
    """Return random examples."""
    inputs, outputs, task = settings.inputs, settings.outputs, settings.task
    if task == "classification" and outputs < 2:
        raise InputError(f"outputs is {outputs}; classification needs at least 2 classes")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_examples, inputs), np.float32)
    classes: NDArray[Any] = np.arange(outputs) if task == "classification" else np.empty(0)
    y: NDArray[Any] = rng.integers(0, outputs, num_examples)
    if task == "regression":
        y = rng.standard_normal((num_examples, outputs)[: 1 + (outputs > 1)], np.float32)
    width = 1 if y.ndim == 1 else outputs
    fields = (Field("x", "numbers", (inputs,)),)
    encoding = Encoding(task, fields, np.zeros(inputs), np.ones(inputs), classes, width)
    columns = Column("x", "numbers", x), Column("y", "numbers", y)
    table = Table("random examples", columns[:1], columns[1:])
    return Data(Rows(table, encoding), None, None)


def num_examples(inputs: int, config: TrainConfig) -> int:
    """Return how many examples are made up."""
    return min(max(MADE_UP // (4 * inputs * config.batch_size), 2), 64) * config.batch_size


def keys(shards: int, ranks: int) -> list[Key]:
    """Return the kinds of runs that are measured, the one asked for first."""
    found: list[Key] = [("tree", shards), ("allreduce", shards)]
    found += [("tree", ranks), ("tree", 4 * ranks)]
    return list(dict.fromkeys(found))


def bytes_here(model: MLP, inputs: int, config: TrainConfig, world: World) -> int:
    """Return the memory that all runs and their examples need on this rank's node."""
    itemsize: int = np.dtype(model.dtype).itemsize
    here, kinds = world.ranks_here, keys(config.num_shards, world.size)
    total = 3 * num_params(model.layout) * itemsize
    for reduce, shards in kinds:
        kind = replace(config, reduce=reduce, shards=shards)
        found = needs(model, kind, world.nodes, -(-config.batch_size // shards))
        total += found.shared[here] + found.own[here] - found.checkpoint * (here.start == 0)
    examples = num_examples(inputs, config) * inputs * (4 + len(kinds) * itemsize)
    return total + len(here) * examples


class Bench:
    """Runs on one set of data, to be measured in turn. Collective: every rank makes one."""

    def __init__(self, model: MLP, data: Data, config: TrainConfig, world: World) -> None:
        self.world, self.shards, self.model = world, config.num_shards, model
        self.runs: dict[Key, Training] = {}
        for reduce, number in keys(self.shards, world.size):
            own = replace(config, reduce=reduce, shards=number, epochs=10**9)
            self.runs[reduce, number] = begin(model, data, own, world)
        self.run = self.runs["tree", self.shards]
        n, dtype = num_params(model.layout), np.dtype(model.dtype)
        entries = max(n, STREAM // dtype.itemsize)
        self.arrays = np.ones(entries, dtype), np.zeros(entries, dtype)
        self.out = np.empty(n, dtype)
        self.square = np.ones((SQUARE, SQUARE), dtype)
        self.batches = list(self.run.order.steps(0))
        self.stacks: list[tuple[Any, ...]] = []  # what each of this rank's is computed of
        for stack in self.run.reducer.stacks:
            (examples, places), batch = self.batches[0].shards(stack), self.batches[0]
            if len(examples):
                x, y, weights = self.run.feed[examples]
                shards = Shards(places, times_added(stack, self.shards))
                rngs = [partial(batch.rng, shard) for shard in stack]
                self.stacks.append((x.copy(), y, weights, self.out, shards, rngs))
        self.least = least(self.run, [x for x, *_ in self.stacks], world)
        self.epochs = 1
        self.round()  # so that all of it has been done once
        took = self.seconds(partial(self.steps, self.run))
        self.epochs = max(1, round(ROUND / max(world.allgather(took))))

    @property
    def num_steps(self) -> int:
        """The number of steps of one kind in a round."""
        return self.epochs * len(self.batches)

    def seconds(self, work: Callable[[], object], times: int = 1) -> float:
        """Return how long some work takes that every rank starts at the same time. Collective."""
        self.world.allgather(None)
        start = time.perf_counter()
        for _ in range(times):
            work()
        return time.perf_counter() - start

    def round(self) -> dict[str, float]:
        """Measure everything once: milliseconds a step, by name. Collective."""
        found = {
            "data": self.seconds(self.gather, self.epochs),
            "model": self.seconds(self.compute, self.num_steps),
        }
        for key, run in self.runs.items():
            for stack in run.reducer.stacks:
                with run.reducer.writes[stack] as gradient:
                    gradient.fill(1e-3)
            found[f"step {key}"] = self.seconds(partial(self.steps, run))
            found[f"reducing {key}"] = self.seconds(partial(self.reduce, run), self.num_steps)
            found[f"optimizer {key}"] = self.seconds(partial(self.update, run), self.num_steps)
        main = ("tree", self.shards)
        found |= {name: found[f"{name} {main}"] for name in ("step", "reducing", "optimizer")}
        return {name: 1e3 * value / self.num_steps for name, value in found.items()} | self.floors()

    def steps(self, run: Training) -> None:
        """Train for a round."""
        for _ in range(self.epochs):
            train_epoch(run, Control())
            run.next_epoch()

    def gather(self) -> None:
        """Gather the rows of this rank's shards of each minibatch, nothing else."""
        for batch in self.batches:
            for stack in self.run.reducer.stacks:
                self.run.feed[batch.shards(stack)[0]]

    def compute(self) -> None:
        """Compute the loss and the gradient of this rank's shards, nothing else."""
        for stack in self.stacks:
            self.model.of_shards(self.run.reducer.params, *stack)

    def reduce(self, run: Training) -> None:
        """Add the shards' gradients, as if they had just been written, and share parameters."""
        reducer, own = run.reducer, self.world.mine(run.order.num_shards)
        for stack in reducer.stacks:
            with reducer.writes[stack]:
                pass
        reducer.allgather_sums([Sums(0.0, 1.0)] * len(own), 0)
        reducer.reduce_scatter()
        reducer.allgather()

    def update(self, run: Training) -> None:
        """Update this rank's slice, by a gradient of ones."""
        own = run.params
        run.optimizer.update(own, self.arrays[0][: len(own)], 0, 1.0, 1.0)

    def floors(self) -> dict[str, float]:
        """Return bytes and operations a second, and the floors that follow. Collective."""
        (array, other), moved = self.arrays, self.least
        times, network = max(1, 2**26 // array.nbytes), 0.0
        add = partial(np.add, array, other, out=array)  # two are read, one is written
        memory = 3 * array.nbytes * times / self.seconds(add, times)
        flop = 2 * SQUARE**3 * 4 / self.seconds(partial(np.matmul, self.square, self.square), 4)
        floors = {part: moved[part] / memory for part in ("data", "reducing", "optimizer")}
        if moved["flop"]:
            floors["model"] = moved["flop"] / flop
        if len(self.world.nodes) > 1:
            network = array.nbytes * times / self.seconds(self.pass_on, times)
            floors["network"] = moved["network"] / network
            floors["reducing"] += floors["network"]
        found = {f"floor {part}": 1e3 * seconds for part, seconds in floors.items()}
        return found | {"memory": memory, "network": network, "flop": flop}

    def pass_on(self) -> None:
        """Pass an array on from node to node, by all owners of slices at once. Collective."""
        world, (sent, received) = self.world, self.arrays
        owner = world.rank - world.ranks_here.start
        if owner < min(map(len, world.nodes)):
            ring = [ranks[owner] for ranks in world.nodes]
            place = ring.index(world.rank)
            after, before = ring[(place + 1) % len(ring)], ring[place - 1]
            world.comm.Sendrecv(sent, after, recvbuf=received, source=before)
            received.fill(0)


def bench(
    model: MLP, settings: BenchConfig, config: TrainConfig, *, world: World, say: Say
) -> Plain:
    """Measure a model's step, and return what `bench --json` prints.

    Times are means over ranks, then medians over rounds. `say` is told of each round. Collective:
    every rank must call this. Raises InputError where the settings don't fit each other.
    """
    config = replace(config, learning_rate=LEARNING_RATE)
    crowded = crowding(config.threads, world)
    if crowded:
        say(f"dptrain: {crowded}")
    with world.together():
        inputs, count = settings.inputs, num_examples(settings.inputs, config)
        check_memory(bytes_here(model, inputs, config, world))
        data = synthetic(settings, config.seed, count)
    with blas_threads(config.threads), np.errstate(all="ignore"):
        trial = Bench(model, data, config, world)
        found = []
        for number in range(1, settings.rounds + 1):
            found.append(trial.round())
            say(f"round {number}/{settings.rounds}  {found[-1]['step']:.3f} ms a step")
        for run in trial.runs.values():
            run.reducer.close()
    means = [mean(ranks) for ranks in zip(*world.allgather(found), strict=True)]
    return {
        **about(model, config, world),
        "steps_per_round": trial.num_steps,
        "rounds": settings.rounds,
        **parts(means, mean(world.allgather(trial.least)), trial.arrays[0].nbytes),
        **comparison(list(trial.runs), world.size, means),
    }
