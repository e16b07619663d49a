"""Learning curves: what does a larger minibatch change?

Trains the same network three times on the embedded digits, each time with the same number of
epochs and another batch size, and draws the three runs in one picture, as `dptrain plot` does.
Over examples seen, for an epoch costs each of them the same work. Larger batches have less noise
in each step, but take fewer steps: at the same learning rate they fall behind.

    python examples/learning_curve.py
    mpirun -n 2 python examples/learning_curve.py

Draws learning_curve.png in the current folder, and keeps the runs in runs/, from which `dptrain
plot` draws other pictures. Needs matplotlib: pip install matplotlib.
"""

from pathlib import Path

import dptrain

BATCH_SIZES = (32, 128, 512)


def main() -> None:
    world = dptrain.connect()
    try:
        import matplotlib  # noqa: F401 (found out now, not after the work)
    except ImportError:
        needed = "this example needs matplotlib: pip install matplotlib"
        raise SystemExit(needed if world.rank == 0 else 1) from None
    data = dptrain.load(config=dptrain.DataConfig(validation=0.2))
    runs = [Path("runs", f"batches of {size}") for size in BATCH_SIZES]
    for size, run in zip(BATCH_SIZES, runs, strict=True):
        model = dptrain.mlp_for(data, dptrain.ModelConfig(hidden=(32,)))
        config = dptrain.TrainConfig(shards=4, batch_size=size, epochs=8)
        trained = dptrain.fit(model, data, config, out=run, resume=run.exists())
        if world.rank == 0:
            accuracy = trained.summary.metrics["validation_accuracy"]
            print(f"{run.name:<15}  validation accuracy {accuracy:.4f}")
    if world.rank == 0:
        dptrain.plot_runs(runs, "learning_curve.png", x="examples")
        print("learning_curve.png")


if __name__ == "__main__":
    main()
