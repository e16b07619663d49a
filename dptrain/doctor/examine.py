"""The whole examination: the job is tried, every rank looks, and all judge alike."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Sums, num_params
from dptrain.checked import Plain
from dptrain.config import DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.config.tools import BenchConfig
from dptrain.data.prepare import Data
from dptrain.data.show import look as look_at
from dptrain.doctor.judge import MEASURED, Case, Finding, judge
from dptrain.doctor.look import look
from dptrain.doctor.place import try_out
from dptrain.launch import announced
from dptrain.model import Model
from dptrain.model.mlp import MLP
from dptrain.order import Order
from dptrain.record import rundir
from dptrain.reduce.tree_reduce import TreeReduce
from dptrain.run.fit import compared
from dptrain.run.ready import idle, load, model_for, whole
from dptrain.train.needs import needs
from dptrain.words import InputError
from dptrain.world import World

LONGEST = 2**22
"""Entries of the longest vector that is exchanged: enough to know longer ones by."""

ROUND = 0.1
"""Seconds of a round of exchanges, of which there are 5."""


@dataclass(frozen=True)
class Job:
    """What stands in a job's own line; without files a network of some size is judged alone."""

    files: Sequence[str]
    data: DataConfig
    model: ModelConfig
    file: ModelFile
    dtype: str | None
    """The type that a model of one's own is made with, where that is asked for."""
    config: TrainConfig
    sizes: BenchConfig
    out: Path | None
    """The run directory, where it is named."""
    go_on: bool
    """Whether a run in it is gone on with."""


def tried(job: Job, world: World) -> tuple[Model, dict[str, Finding]]:
    """Return the model that the job would train, and what is found of its data. Collective.

    Where it would not train, the model is a perceptron of the sizes that are given.
    """
    found, model, doing = dict[str, Finding](), None, "run"
    try:
        with world.together():
            if job.out is not None and not job.go_on and world.rank == 0:
                rundir.check_free(job.out)
        if job.files:
            doing = "data"
            data = load(job.files, job.data, seed=job.config.seed, world=world)
            found["data"] = _judged(data, job, world)
            doing = "settings"
            with world.together():
                model = model_for(data, job.file, job.model, job.config.seed, job.dtype)
            compared(model, data, job.config.settled(len(data.train)), world)
    except InputError as error:  # on every rank
        what, _, advice = str(error).partition("; ")
        found[doing] = Finding("error", what, advice or "mend that first: train refuses it")
    if model is None:
        sizes = [job.sizes.inputs, *job.model.hidden, job.sizes.outputs]
        model = MLP(sizes, dropout=job.model.dropout, dtype=job.model.dtype)
    return model, found


def _judged(data: Data, job: Job, world: World) -> Finding:
    """Return what was understood of data that can be trained on, and what looks wrong."""
    config, shards = job.config, job.config.num_shards
    order = Order(len(data.train), config.batch_size, shards, config.seed, config.shuffle)
    odd = [whole(order), idle(order, config, world, resume=False)]
    notes = [*filter(None, odd), *look_at(data.train.table, world)["notes"]]
    text = "; ".join((data.told[0], data.told[-1]))
    return Finding("warning" if notes else "ok", text, "; ".join(notes))


def examine(job: Job, world: World) -> Plain:
    """Return what `doctor --json` prints, equal on every rank. Collective."""
    model, findings = tried(job, world)
    everyone = world.allgather(look())
    needed = needs(model, job.config, world.nodes)
    place = try_out(world, job.out or Path("runs"))
    measured = measure(world, model)
    case = Case(everyone, world.nodes, announced(), job.config.threads, needed, place, measured)
    findings |= judge(case)
    return {
        "ranks": world.size,
        "nodes": len(world.nodes),
        "checks": [{"name": name, **verdict._asdict()} for name, verdict in findings.items()],
        "measured": dict.fromkeys(MEASURED) | measured,
        "needed": {
            "shared_mb": max(needed.shared.values()) / 1e6,
            "memory_mb": max(needed.shared[node] + needed.own[node] for node in world.nodes) / 1e6,
            "disk_mb": needed.disk / 1e6,
        },
    }


def measure(world: World, model: Model) -> dict[str, float]:
    """Return the times of the tree's exchanges by name; nothing for one rank. Collective."""
    if world.size == 1:
        return {}
    n, kind = num_params(model.layout), np.dtype(model.dtype)
    length = min(n, LONGEST)
    took = exchange_seconds(world, length, kind) * n / length
    rate = n * kind.itemsize / took / 1e9
    found = (1e6 * exchange_seconds(world, 1, kind), 1e3 * took, rate)
    return dict(zip(MEASURED, found, strict=True))


def exchange_seconds(world: World, num_params: int, dtype: Any) -> float:
    """Return the seconds of one exchange: one shard a rank is reported, added and shared.

    The median of 5 rounds; of each the slowest rank's. Collective: every rank must call this.
    """
    reducer = TreeReduce(world, num_params, world.size, dtype)
    reducer.start(lambda: np.zeros(num_params, dtype))
    with reducer.writes[reducer.stacks[0]] as gradient:
        gradient[:] = 0

    def took(times: int) -> float:
        world.allgather(None)
        start = time.perf_counter()
        for _ in range(times):
            reducer.allgather_sums([Sums(0.0, 1.0)], 0)
            reducer.reduce_scatter()
            reducer.allgather()
        slowest: float = max(world.allgather((time.perf_counter() - start) / times))
        return slowest

    took(1)
    times = max(1, min(10000, int(ROUND / took(3))))
    found = statistics.median(took(times) for _ in range(5))
    reducer.close()
    return found
