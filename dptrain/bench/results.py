"""What a step moves at least, and what a bench's times come to beside it: means over ranks,
medians over rounds, ratios within a round."""

import socket
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dptrain.arrays import Array, num_params
from dptrain.checked import Plain
from dptrain.config import Reduction, TrainConfig
from dptrain.machine import CPUS, usable_cores
from dptrain.model import Model
from dptrain.train.state import Training
from dptrain.version import software
from dptrain.world import World

PARTS = ("data", "model", "reducing", "optimizer")
"""What is measured alone; `rest` is what a whole step takes beyond their sum."""

Key = tuple[Reduction, int]
"""How a run reduces, and its number of shards."""


def least(run: Training, inputs: Sequence[Array], world: World) -> dict[str, int]:
    """Return the bytes that this rank must move in memory in a step at the least, by part; those
    that it sends to other nodes, as "network"; and the model's additions and multiplications, as
    "flop", which are 0 for one that does not say.

    Data reads and writes the rows, `inputs` of each shard. The optimizer reads the gradient, and
    reads and writes parameters and state. The reducer knows by itself.
    """
    ask: Callable[[int], int] | None = getattr(run.model, "flop", None)
    own = len(run.params) * np.dtype(run.model.dtype).itemsize
    reducing, network = run.reducer.least_moved()
    return {
        "data": 2 * sum(x.nbytes for x in inputs),
        "flop": sum(ask(len(x)) for x in inputs) if ask else 0,
        "reducing": reducing,
        "network": network if len(world.nodes) > 1 else 0,
        "optimizer": (3 + 2 * sum(len(state) for state in run.optimizer.state)) * own,
    }


def mean(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over ranks of each value."""
    return {name: statistics.fmean(rank[name] for rank in ranks) for name in ranks[0]}


def about(model: Model, config: TrainConfig, world: World) -> Plain:
    """Return what was measured, and where. Collective."""
    found = world.allgather((socket.gethostname(), usable_cores()))
    cores = {(host, core) for host, cores in found for core in cores}
    return {
        "model": type(model).__name__,
        "shapes": [list(param.shape) for param in model.layout],
        "num_params": num_params(model.layout),
        "dtype": str(np.dtype(model.dtype)),
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "ranks": world.size,
        "nodes": len(world.nodes),
        "shards": config.num_shards,
        "threads": config.threads,
        "cores": len(cores),
        "cpus": CPUS,
        "software": software(),
    }


def parts(
    means: Sequence[Mapping[str, float]], least: Mapping[str, float], array_bytes: int
) -> Plain:
    """Return medians over rounds: a step's parts and floors, and what the floors are made of."""
    middle = {name: statistics.median(mean[name] for mean in means) for name in means[0]}
    rounds, step = [mean["step"] for mean in means], middle["step"]
    alone = sum(middle[part] for part in PARTS)
    middle["rest"] = step - alone
    return {
        "step_ms": step,
        "parts_sum_ms": alone,
        "fastest_round_step_ms": min(rounds),
        "slowest_round_step_ms": max(rounds),
        "parts": {
            part: {
                "time_ms": middle[part],
                "share_ratio": middle[part] / step,
                "floor_ms": middle.get(f"floor {part}") or None,
            }
            for part in (*PARTS, "rest")
        },
        "products_gflop_per_s": middle["flop"] / 1e9,
        "memory_array_mb": array_bytes / 1e6,
        "memory_gb_per_s": middle["memory"] / 1e9,
        "network_gb_per_s": middle["network"] / 1e9 or None,
        "network_floor_ms": middle.get("floor network"),
        "reducing_memory_mb": least["reducing"] / 1e6,
        "reducing_network_mb": least["network"] / 1e6,
    }


def comparison(keys: Sequence[Key], size: int, means: Sequence[Mapping[str, float]]) -> Plain:
    """Return medians over rounds of each run's times, and of the ratios within a round.

    The first of the runs is the one asked for, the second that with MPI's own Allreduce.
    """

    steps = {key: [mean[f"step {key}"] for mean in means] for key in keys}
    exchanges = {
        key: [mean[f"reducing {key}"] + mean[f"optimizer {key}"] for mean in means] for key in keys
    }

    def ratio(above: Sequence[float], below: Sequence[float]) -> float:
        return statistics.median(a / b for a, b in zip(above, below, strict=True))

    return {
        "runs": [
            {
                "reduce": key[0],
                "shards": key[1],
                "step_ms": statistics.median(steps[key]),
                "reduce_and_update_ms": statistics.median(exchanges[key]),
            }
            for key in keys
        ],
        "allreduce_to_tree_ratio": ratio(exchanges[keys[1]], exchanges[keys[0]]),
        "fourfold_shards_step_ratio": ratio(steps["tree", 4 * size], steps["tree", size]),
    }
