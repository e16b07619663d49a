"""So that dptrain is timed as its peers are: one run on every rank of MPI, one JSON line.

The first epoch is the warm-up; the time is that of the steps of all later epochs, with all that
belongs to a step: gathering the rows, the sum over the ranks, the update.

    mpirun -n 2 python run_dptrain.py [--default] JOB      (what a job holds is in compare.py)

There is a shard for each rank, as DDP has it; with --default as many as dptrain has by default.
"""

import json
import sys

import dptrain


def main() -> None:
    *default, text = sys.argv[1:]
    job = json.loads(text)
    world = dptrain.connect()
    data = dptrain.load(job["data"], dptrain.DataConfig(task=job["task"], scale="none"))
    model = dptrain.mlp_for(data, dptrain.ModelConfig(hidden=tuple(job["hidden"])))
    config = dptrain.TrainConfig(
        shards=None if default else world.size,
        batch_size=job["batch_size"],
        epochs=job["epochs"],
        optimizer="momentum",
        momentum=job["momentum"],
        learning_rate=job["learning_rate"],
        threads=1,
    )
    first, *_, last = dptrain.fit(model, data, config).history
    if world.rank == 0:
        steps = last["step"] - first["step"]
        found = {
            "ms": 1000 * (last["seconds"] - first["seconds"]) / steps,
            "steps": steps,
            "first_loss": first["train_loss"],
            "loss": last["train_loss"],
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
