"""So that scikit-learn is timed as dptrain is: one run of its MLP in one process, one JSON line.

It has no call that trains and does nothing else, so the time of one epoch, with all checks and
preparation in it, is taken off the time of all epochs. What is left is the steps.

    python run_sklearn.py JOB      (what a job holds is in compare.py)
"""

import json
import sys
import time
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor


def learner(job: Any, epochs: int) -> Any:
    """Return an untrained network that stops after so many epochs, and not before.

    scikit-learn's squared error has a factor 1/2 that the others have not: hence twice the rate.
    """
    regression = job["task"] == "regression"
    return (MLPRegressor if regression else MLPClassifier)(
        hidden_layer_sizes=tuple(job["hidden"]),
        activation="relu",
        solver="sgd",
        alpha=0,
        batch_size=job["batch_size"],
        learning_rate_init=job["learning_rate"] * (2 if regression else 1),
        momentum=job["momentum"],
        nesterovs_momentum=False,
        shuffle=True,
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=0,
    )


def main() -> None:
    job = json.loads(sys.argv[1])
    warnings.simplefilter("ignore", ConvergenceWarning)
    with np.load(job["data"]) as data:
        x, y = data["x"], data["y"]
    seconds = []
    for epochs in (1, 1, job["epochs"]):  # the first is the warm-up
        network = learner(job, epochs)
        start = time.perf_counter()
        network.fit(x, y)
        seconds.append(time.perf_counter() - start)
    steps = (job["epochs"] - 1) * len(x) // job["batch_size"]
    first, *_, last = (loss * (2 if y.dtype.kind == "f" else 1) for loss in network.loss_curve_)
    ms = 1000 * (seconds[2] - seconds[1]) / steps
    print(json.dumps({"ms": ms, "steps": steps, "first_loss": first, "loss": last}))


if __name__ == "__main__":
    main()
