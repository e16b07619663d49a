"""Where a step's time goes on this machine, beside the least that it could take here.

The steps are those of `train_epoch`: a clock is put around what they call, and taken away again.
Everything is measured in turn, round by round, so that a busy moment of the machine hits all alike.
"""

import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dptrain.bench.clock import PARTS, Clock, Products, clocked
from dptrain.bench.floors import traffic
from dptrain.config import InputError, ModelConfig, Reduction, TrainConfig
from dptrain.data.prepare import Data, Encoding, Rows
from dptrain.data.read import Table
from dptrain.machine import CPUS, usable_cores
from dptrain.model.mlp import MLP
from dptrain.run.fit import mlp_for
from dptrain.threads import blas_threads
from dptrain.train.control import Control
from dptrain.train.loop import begin, train_epoch
from dptrain.train.needs import check_memory, needs
from dptrain.train.state import Training
from dptrain.version import software
from dptrain.world import World

EXCHANGE = ("waiting", "reducing", "optimizer")
"""What it takes to reduce and update."""

ROUND = 0.1
"""Seconds that the steps of one kind take in a round, if an epoch is not longer."""

STREAM = 2**20
"""Bytes that the arrays have at least by which bandwidth is measured."""

LEARNING_RATE = 1e-6
"""Small enough that no number of steps, nor what is written into buffers here, makes a NaN."""


def synthetic(
    inputs: int, outputs: int, task: Literal["classification", "regression"], config: TrainConfig
) -> Data:
    """Return random examples for some steps: about 8 MB of them, 2 to 64 minibatches."""
    if task == "classification" and outputs < 2:
        raise InputError(f"outputs is {outputs}; classification needs at least 2 classes")
    rng, size = np.random.default_rng(config.seed), num_examples(inputs, config)
    x = rng.standard_normal((size, inputs), np.float32)
    classes: NDArray[Any] = np.arange(outputs) if task == "classification" else np.empty(0)
    y: NDArray[Any] = rng.integers(0, outputs, size)
    if task == "regression":
        y = rng.standard_normal((size, outputs) if outputs > 1 else size, np.float32)
    width = 1 if y.ndim == 1 else outputs
    encoding = Encoding(task, (), np.zeros(inputs), np.ones(inputs), classes, width)
    return Data(Rows(Table(x, y, "random examples"), encoding), None, None)


def num_examples(inputs: int, config: TrainConfig) -> int:
    """Return how many examples are made up."""
    return min(max(2**23 // (4 * inputs * config.batch_size), 2), 64) * config.batch_size


class Nothing(MLP):
    """A model that only writes a gradient: with it a step is little but to reduce and update."""

    def loss_and_grad_sum(
        self,
        params: Any,  # noqa: ARG002
        x: Any,
        y: Any,  # noqa: ARG002
        weights: object,  # noqa: ARG002
        out: NDArray[np.floating],
        rng: object,  # noqa: ARG002
    ) -> tuple[float, float]:
        """Write the same gradient for any examples; their loss is 0."""
        out.fill(1e-3)
        return 0.0, float(len(x))


Key = tuple[Reduction, int]
"""How a run reduces, and its number of shards."""


def keys(shards: int, ranks: int) -> list[Key]:
    """Return the kinds of runs that are measured, the one asked for first."""
    found: list[Key] = [("tree", shards), ("allreduce", shards)]
    found += [("tree", ranks), ("tree", 4 * ranks)]
    return list(dict.fromkeys(found))


def bytes_here(model: MLP, config: TrainConfig, world: World) -> int:
    """Return the memory that all runs and their examples need on this rank's node."""
    inputs, itemsize, here = model.sizes[0], model.dtype.itemsize, world.ranks_here
    kinds, total = keys(config.num_shards, world.size), 2 * model.num_params * itemsize
    for reduce, shards in kinds:
        kind = replace(config, reduce=reduce, shards=shards)
        found = needs(model, kind, world.nodes, -(-config.batch_size // shards))
        total += found.shared[here] + found.own[here] - found.checkpoint * (here.start == 0)
    examples = num_examples(inputs, config) * inputs * (4 + len(kinds) * itemsize)
    return total + len(here) * examples


class Bench:
    """Runs on one set of data, to be measured in turn. Collective: every rank makes one."""

    def __init__(
        self, data: Data, model_config: ModelConfig, config: TrainConfig, world: World
    ) -> None:
        self.world, self.shards = world, config.num_shards
        self.config = replace(config, shards=self.shards)
        self.model = mlp_for(data, model_config)
        self.runs = {
            (reduce, shards): begin(
                mlp_for(data, model_config),
                data,
                replace(config, reduce=reduce, shards=shards, epochs=10**9),
                world,
            )
            for reduce, shards in keys(self.shards, world.size)
        }
        self.run = self.runs["tree", self.shards]
        self.products = Products()
        self.traffic = traffic(self.model, self.run.optimizer, self.config, world)
        entries = max(self.model.num_params, STREAM // self.model.dtype.itemsize)
        self.arrays = np.ones(entries, self.model.dtype), np.zeros(entries, self.model.dtype)
        self.epochs = 1

    @property
    def num_steps(self) -> int:
        """The number of steps of one kind in a round."""
        return self.epochs * self.run.order.steps_per_epoch

    def seconds(self, work: Callable[[], None]) -> float:
        """Return how long some work takes that every rank starts at the same time. Collective."""
        self.world.allgather(None)
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def warm_up(self) -> None:
        """Do everything once that is done in a round, and find how often a round does it."""
        self.round()
        with self.products.noted():
            self.steps(self.run)
        took = self.seconds(partial(self.steps, self.run))
        self.epochs = max(1, round(ROUND / max(self.world.allgather(took))))

    def steps(self, run: Training) -> None:
        """Train for a round."""
        for _ in range(self.epochs):
            train_epoch(run, self.config, self.world, Control())
            run.next_epoch()

    def round(self) -> dict[str, float]:
        """Measure everything once: milliseconds a step, by name. Collective."""
        found = self.parts(self.run)
        found["clocked"] = sum(found.values())
        for key, run in self.runs.items():
            found[f"step {key}"] = self.seconds(partial(self.steps, run))
            alone = self.parts(replace(run, model=Nothing(self.model.sizes)))
            found[f"exchange {key}"] = sum(alone[part] for part in EXCHANGE)
        found["floor products"] = self.seconds(partial(self.products.compute, self.epochs))
        found["floor waiting"] = self.seconds(self.meet)
        flop = self.products.flop * self.epochs / found["floor products"]
        found = {name: 1e3 * value / self.num_steps for name, value in found.items()}
        found["step"] = found[f"step {('tree', self.shards)}"]
        return found | {"flop": flop} | self.bandwidths()

    def parts(self, run: Training) -> dict[str, float]:
        """Return the seconds of each part of a round's steps. Collective."""
        self.world.allgather(None)
        clock = Clock()
        with clocked(run, clock, self.world):
            self.steps(run)
        clock.switch("loop")
        return clock.seconds

    def meet(self) -> None:
        """Wait for the others as often as the steps do, with nothing to wait for."""
        reducer, sums = self.run.reducer, [(0.0, 1.0)] * len(self.world.mine(self.shards))
        for _ in range(self.num_steps):
            reducer.allgather_sums(sums, 0)
            if len(self.world.nodes) == 1:
                reducer.allgather()

    def bandwidths(self) -> dict[str, float]:
        """Return bytes a second of memory and network, and the floors that follow. Collective."""
        array = self.arrays[0]
        times, network = max(1, 2**26 // array.nbytes), 0.0
        memory = 3 * array.nbytes * times / self.seconds(partial(self.add, times))
        floors = {part: size / memory for part, size in self.traffic.items() if part != "network"}
        if len(self.world.nodes) > 1:
            took = self.seconds(partial(self.pass_on, times))
            network = array.nbytes * times / took
            floors["network"] = self.traffic["network"] / network
            floors["reducing"] += floors["network"]
        found = {f"floor {part}": 1e3 * seconds for part, seconds in floors.items()}
        return found | {"memory": memory, "network": network}

    def add(self, times: int) -> None:
        """Add two arrays as long as the parameters: two are read, one is written."""
        a, b = self.arrays
        for _ in range(times):
            np.add(a, b, out=a)

    def pass_on(self, times: int) -> None:
        """Pass an array on from node to node, by all owners of slices at once. Collective."""
        world, (sent, received) = self.world, self.arrays
        owner = world.rank - world.ranks_here.start
        if owner < min(map(len, world.nodes)):
            ring = [ranks[owner] for ranks in world.nodes]
            place = ring.index(world.rank)
            after, before = ring[(place + 1) % len(ring)], ring[place - 1]
            for _ in range(times):
                world.comm.Sendrecv(sent, after, recvbuf=received, source=before)
        world.allgather(None)

    def close(self) -> None:
        """Give all memory back. Collective."""
        self.products.calls.clear()
        for run in self.runs.values():
            run.reducer.close()


def bench(
    model_config: ModelConfig,
    config: TrainConfig,
    *,
    inputs: int,
    outputs: int,
    task: Literal["classification", "regression"],
    rounds: int,
    world: World,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure a model's step, and return what `bench --json` prints.

    Times are means over ranks, then medians over rounds; a step is the sum of its parts. `say` is
    told of each round. Collective: every rank must call this.

    Raises
    ------
    InputError
        The settings don't fit each other.
    """
    config = replace(config, learning_rate=LEARNING_RATE)
    crowded = world.crowded(config.threads)
    if crowded:
        say(f"dptrain: {crowded}")
    with world.together():
        sizes = [inputs, *model_config.hidden, outputs]
        model = MLP(sizes, dropout=model_config.dropout, dtype=model_config.dtype)
        check_memory(bytes_here(model, config, world))
        data = synthetic(inputs, outputs, task, config)
    with blas_threads(config.threads), np.errstate(all="ignore"):
        trial = Bench(data, model_config, config, world)
        trial.warm_up()
        found = []
        for number in range(1, rounds + 1):
            found.append(trial.round())
            say(f"round {number}/{rounds}  {found[-1]['clocked']:.3f} ms a step")
        trial.close()
    means = [_mean(ranks) for ranks in zip(*world.allgather(found), strict=True)]
    return {
        **_about(trial, model_config),
        "rounds": rounds,
        **_parts(means, _mean(world.allgather(trial.traffic)), trial.arrays[0]),
        **_comparison(trial, means),
    }


def _mean(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over ranks of each value."""
    return {name: statistics.fmean(rank[name] for rank in ranks) for name in ranks[0]}


def _about(trial: Bench, model_config: ModelConfig) -> dict[str, Any]:
    """Return what was measured, and where. Collective."""
    world, config = trial.world, trial.config
    found = world.allgather((socket.gethostname(), usable_cores()))
    cores = {(host, core) for host, cores in found for core in cores}
    return {
        "sizes": list(trial.model.sizes),
        "num_params": trial.model.num_params,
        "dtype": model_config.dtype,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "ranks": world.size,
        "nodes": len(world.nodes),
        "shards": trial.shards,
        "threads": config.threads,
        "cores": len(cores),
        "cpus": CPUS,
        "steps_per_round": trial.num_steps,
        "software": software(),
    }


def _parts(
    means: Sequence[Mapping[str, float]], moved: Mapping[str, float], array: NDArray[Any]
) -> dict[str, Any]:
    """Return medians over rounds: a step's parts and floors, and what the floors are made of."""
    middle = {name: statistics.median(mean[name] for mean in means) for name in means[0]}
    rounds, step = [mean["clocked"] for mean in means], sum(middle[part] for part in PARTS)
    return {
        "step_ms": step,
        "unclocked_step_ms": middle["step"],
        "fastest_round_step_ms": min(rounds),
        "slowest_round_step_ms": max(rounds),
        "parts": {
            part: {
                "time_ms": middle[part],
                "share_ratio": middle[part] / step,
                "floor_ms": middle.get(f"floor {part}"),
            }
            for part in PARTS
        },
        "products_gflop_per_s": middle["flop"] / 1e9,
        "memory_array_mb": array.nbytes / 1e6,
        "memory_gb_per_s": middle["memory"] / 1e9,
        "network_gb_per_s": middle["network"] / 1e9 or None,
        "network_floor_ms": middle.get("floor network"),
        "reducing_memory_mb": moved["reducing"] / 1e6,
        "reducing_network_mb": moved["network"] / 1e6,
    }


def _comparison(trial: Bench, means: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return medians over rounds of each run's times, and of the ratios within a round."""

    def median(name: str, key: Key) -> float:
        return statistics.median(mean[f"{name} {key}"] for mean in means)

    def ratio(name: str, key: Key, to: Key) -> float:
        return statistics.median(mean[f"{name} {key}"] / mean[f"{name} {to}"] for mean in means)

    size = trial.world.size
    return {
        "runs": [
            {
                "reduce": reduce,
                "shards": shards,
                "step_ms": median("step", (reduce, shards)),
                "reduce_and_update_ms": median("exchange", (reduce, shards)),
            }
            for reduce, shards in trial.runs
        ],
        "allreduce_to_tree_ratio": ratio(
            "exchange", ("allreduce", trial.shards), ("tree", trial.shards)
        ),
        "fourfold_shards_step_ratio": ratio("step", ("tree", 4 * size), ("tree", size)),
    }
