"""A run's state, all that its future depends on, to and from arrays and plain values."""

from typing import Any

from dptrain.arrays import Array, Forms
from dptrain.train.loop import Training

WHOLE = ("step", "seen", "measured", "kept")
REAL = ("loss_sum", "weight_sum", "noise_sum", "square_norm_sum", "norm_sum", "best_loss")
"""The plain values of a run's state: whole numbers, and those stored in hexadecimal, exactly."""


def snapshot(run: Training) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return copies of a run's arrays, on rank 0, and its plain values, free of the ranks.

    `params` [n]; `optimizer.I` [slots, n] for each transform that has a state; `best` [n] with
    patience. Collective: every rank must call this.
    """
    arrays = {name: run.reducer.gather(part) for name, part in _parts(run).items()}
    state: dict[str, Any] = {name: getattr(run, name) for name in WHOLE}
    state |= {name: float(getattr(run, name)).hex() for name in REAL}
    state["kept_metrics"] = run.kept_metrics
    return {name: array for name, array in arrays.items() if array is not None}, state


def restore(
    run: Training, arrays: dict[str, Array], state: dict[str, Any], history: list[dict[str, Any]]
) -> None:
    """Set a run to a snapshot; `arrays` are looked at on rank 0 only, and have the right shapes.

    Collective: every rank must call this.
    """
    for name, part in _parts(run).items():
        run.reducer.scatter(arrays.get(name), part)
    run.reducer.allgather()
    for name in WHOLE:
        setattr(run, name, state[name])
    for name in REAL:
        setattr(run, name, float.fromhex(state[name]))
    run.kept_metrics, run.history = state["kept_metrics"], history


def forms(run: Training) -> Forms:
    """Return the types and shapes that a snapshot's arrays have."""
    num_params = len(run.reducer.params)
    return {
        name: (part.dtype.name, (*part.shape[:-1], num_params))
        for name, part in _parts(run).items()
    }


def check(arrays: dict[str, Array], state: dict[str, Any], wanted: Forms) -> None:
    """Raise ValueError where arrays and values can't be a snapshot, whoever wrote them."""
    found = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    if found != wanted:
        raise ValueError(f"it holds {found}; needed are {wanted}")
    for name in WHOLE:
        if type(state.get(name)) is not int or state[name] < 0:
            raise ValueError(f"its {name} is {state.get(name)!r}")
    for name in REAL:
        if not isinstance(state.get(name), str):
            raise ValueError(f"its {name} is {state.get(name)!r}")
        float.fromhex(state[name])
    metrics = state.get("kept_metrics")
    if not isinstance(metrics, dict) or not all(type(m) is float for m in metrics.values()):
        raise ValueError(f"its kept_metrics are {metrics!r}")
    if state["kept"] > max(0, state["measured"] - 1):
        raise ValueError(f"it keeps epoch {state['kept']} of {state['measured']}")


def _parts(run: Training) -> dict[str, Array]:
    """Return this rank's slice [..., m] of each array of the state."""
    parts: dict[str, Array] = {"params": run.params}
    for number, state in enumerate(run.optimizer.state):
        if len(state):
            parts[f"optimizer.{number}"] = state
    if run.keeps_best:
        parts["best"] = run.best
    return parts
