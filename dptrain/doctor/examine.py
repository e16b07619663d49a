"""The whole examination: every rank looks, all try things out together, and all judge alike."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Sums, num_params
from dptrain.checked import Plain
from dptrain.config import TrainConfig
from dptrain.doctor.judge import MEASURED, Case, Finding, judge
from dptrain.doctor.look import look
from dptrain.doctor.place import try_out
from dptrain.launch import announced
from dptrain.model import Model
from dptrain.reduce.tree_reduce import TreeReduce
from dptrain.train.needs import needs
from dptrain.world import World

LONGEST = 2**22
"""Entries of the longest vector that is exchanged: enough to know longer ones by."""

ROUND = 0.1
"""Seconds of a round of exchanges, of which there are 5."""


def examine(
    model: Model, config: TrainConfig, out: Path, world: World, before: Mapping[str, Finding]
) -> Plain:
    """Return what `doctor --json` prints, equal on every rank. Collective.

    `before` are findings that stand before its own; see `job.tried`.
    """
    everyone = world.allgather(look())
    needed = needs(model, config, world.nodes)
    directory = try_out(world, out)
    measured = measure(world, model)
    case = Case(everyone, world.nodes, announced(), config.threads, needed, directory, measured)
    findings = {**before, **judge(case)}
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
    with reducer.write(world.rank) as gradient:
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
