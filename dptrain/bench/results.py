"""What a step moves at least, and what a bench's times come to beside it: means over ranks,
medians over rounds, ratios within a round; as numbers, and in words for people."""

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
from dptrain.words import counted
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


def text(found: Plain) -> str:
    """Return the tables, between what was measured and how."""
    places = [counted(found[f"{noun}s"], noun) for noun in ("rank", "node", "shard", "core")]
    return "\n".join(
        [
            f"{found['model']}, {counted(len(found['shapes']), 'array')}: "
            f"{found['num_params']:,} parameters ({found['dtype']}), batch {found['batch_size']}, "
            f"{found['optimizer']}",
            ", ".join([*places, f"{counted(found['threads'], 'thread')} a rank"]),
            "",
            *_part_lines(found),
            "",
            *_run_lines(found),
            "",
            f"medians of {found['rounds']} rounds of {found['steps_per_round']} steps, means over "
            f"ranks\nmemory: {found['memory_gb_per_s']:.1f} GB/s a rank, all ranks at once, adding "
            f"arrays of {found['memory_array_mb']:.1f} MB\n{found['software']}",
        ]
    )


def _part_lines(found: Plain) -> list[str]:
    """Return the table of a step's parts."""
    network, speed = "", found["network_gb_per_s"]
    if speed:
        network = f"\n{'':<47} and {found['reducing_network_mb']:.3g} MB a rank between nodes at "
        network += f"{speed:.3g} GB/s"
    floors = {
        "data": "rows read and written once",
        "model": f"its products at {found['products_gflop_per_s']:.3g} GFLOP/s a rank",
        "reducing": f"{found['reducing_memory_mb']:.3g} MB a rank in memory{network}",
        "optimizer": "parameters and state read and written once",
        "rest": "",
    }
    lines = [f"{'a step':<18}{'ms':>9}{'share':>8}{'floor ms':>10}   floor", "-" * 98]
    for name, why in floors.items():
        part = found["parts"][name]
        floor, why = (f"{part['floor_ms']:.3f}", why) if part["floor_ms"] else ("", "")
        lines.append(
            f"{name:<18}{part['time_ms']:>9.3f}{part['share_ratio']:>8.1%}"
            f"{floor:>10}   {why}".rstrip()
        )
    spread = f"{found['fastest_round_step_ms']:.4g} to {found['slowest_round_step_ms']:.4g}"
    floor_ms = sum(part["floor_ms"] or 0 for part in found["parts"].values())
    lines.append(
        f"{'whole step':<18}{found['step_ms']:>9.3f}{1:>8.1%}{floor_ms:>10.3f}   rounds {spread}; "
        f"its parts alone {found['parts_sum_ms']:.4g}"
    )
    return lines


def _run_lines(found: Plain) -> list[str]:
    """Return the table of the tree beside Allreduce, and of numbers of shards."""
    head = f"{'':<22}{'reduce and update, ms':>22}{'whole step, ms':>18}"
    lines = [
        f"{run['reduce'] + ', ' + counted(run['shards'], 'shard'):<22}"
        f"{run['reduce_and_update_ms']:>22.3f}{run['step_ms']:>18.3f}"
        for run in found["runs"]
    ]
    few, many = found["ranks"], 4 * found["ranks"]
    ratios = [
        f"MPI's Allreduce, with every rank updating all, takes "
        f"{found['allreduce_to_tree_ratio']:.2f} times as long as the tree",
        f"a step with {many} shards takes {found['fourfold_shards_step_ratio']:.2f} times as long "
        f"as one with {counted(few, 'shard')}",
    ]
    return [head, "-" * 62, *lines, *ratios]
