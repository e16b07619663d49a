"""What a run came to, and how: its summary."""

import hashlib
import math
from typing import Any

from dptrain.arrays import Floats
from dptrain.config import TrainConfig
from dptrain.run.control import RunControl
from dptrain.train.state import Metrics, Training
from dptrain.world import World


def outcome(
    run: Training, params: Floats, test: Metrics, config: TrainConfig, world: World
) -> dict[str, Any]:
    """Return what a run came to, free of times and ranks: what its receipt says of its end.

    `params` [n] are those of the model, `test` the metrics of the test rows. Collective: every
    rank must call this.
    """
    kept = {"train_loss": run.train_loss} if run.seen else run.kept_metrics
    first = world.rank == 0
    return {
        "params_sha256": world.broadcast(first and hashlib.sha256(params.data).hexdigest()),
        "num_params": len(params),
        "shards": run.order.num_shards,
        "threads": config.threads,
        "reduce": config.reduce,
        "steps": run.step,
        "epochs": math.ceil(run.step / run.order.steps_per_epoch),
        "stopped": run.stopped,
        **kept,
        **{f"test_{name}": value for name, value in test.items()},
    }


def circumstances(run: Training, world: World, control: RunControl) -> dict[str, Any]:
    """Return how a run came to it: times, ranks and files. Collective."""
    writer = control.writer
    files = writer and {
        "receipt_sha256": writer.head,
        "trouble": writer.trouble,
        "saved": writer.saved,
        "run": str(writer.run),
    }
    return {
        "ranks": world.size,
        "seconds": run.seconds,
        "samples_per_second": control.examples_per_second,
        **(world.broadcast(files) or {"run": None}),
    }
