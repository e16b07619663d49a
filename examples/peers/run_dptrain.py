"""So that dptrain is timed as its peers are: one run on every rank of MPI, one JSON line.

The first epoch is the warm-up; the time is that of the steps of all later epochs, with all that
belongs to a step: gathering the rows, the sum over the ranks, the update.

    mpirun -n 2 python run_dptrain.py [--default] JOB      (what a job holds is in compare.py)

There is a shard for each rank, as DDP has it; with --default as many as dptrain has by default.
"""

import json
import runpy
import sys
from typing import Any

import dptrain


def model_for(data: dptrain.Data, job: Any) -> dptrain.Model:
    """Return a perceptron, or what a file makes."""
    if not job["file"]:
        return dptrain.mlp_for(data, dptrain.ModelConfig(hidden=tuple(job["hidden"])))
    import torch

    torch.manual_seed(0)  # all ranks start alike
    made = runpy.run_path(job["file"])
    return dptrain.TorchModel(
        made["build"](data.encoding.shape, data.encoding.scores), made["loss"]
    )


def train(job: Any, shards: int | None) -> dict[str, float]:
    """Train from start to end, in so many shards, and return what it came to."""
    data = dptrain.load(job["data"], dptrain.DataConfig(task=job["task"], scale="none"))
    config = dptrain.TrainConfig(
        shards=shards,
        batch_size=job["batch_size"],
        epochs=job["epochs"],
        optimizer="momentum",
        momentum=job["momentum"],
        learning_rate=job["learning_rate"],
        threads=1,
    )
    first, *_, last = dptrain.fit(model_for(data, job), data, config).history
    steps = last["step"] - first["step"]
    return {
        "ms": 1000 * (last["seconds"] - first["seconds"]) / steps,
        "steps": steps,
        "first_loss": first["train_loss"],
        "loss": last["train_loss"],
    }


def main() -> None:
    *default, text = sys.argv[1:]
    world = dptrain.connect()
    found = train(json.loads(text), None if default else world.size)
    if world.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
