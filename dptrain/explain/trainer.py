"""The trainer's side of chapters 1 to 5: its own model, shards, tree and reducer, in NumPy."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Floats
from dptrain.explain.plain import FAR, STEP, TANH, Found
from dptrain.explain.problem import Problem
from dptrain.model.activations import ACTIVATIONS
from dptrain.model.mlp import MLP
from dptrain.order import Batch
from dptrain.reduce import REDUCERS
from dptrain.reduce.tree import plan, tree_sum
from dptrain.world import World


def grad_sum(model: MLP, params: Floats, x: Floats, y: NDArray[Any]) -> tuple[float, Floats]:
    """Return the sums over examples of loss and gradient [n]; zeros for no example."""
    out = np.zeros(model.num_params)
    if len(x) == 0:
        return 0.0, out
    return model.loss_and_grad_sum(params, x, y, None, out, np.random.default_rng)[0], out


def shard_sums(
    model: MLP, params: Floats, x: Floats, y: NDArray[Any], batch: Batch
) -> list[Floats]:
    """Return the gradient sum of every shard of a minibatch."""
    rows = [batch.shard(shard) for shard in range(batch.num_shards)]
    return [grad_sum(model, params, x[shard], y[shard])[1] for shard in rows]


def reduced(
    model: MLP, params: Floats, x: Floats, y: NDArray[Any], batch: Batch, world: World
) -> Floats:
    """Return the gradient sum [n] of a minibatch, its shards spread over ranks. Collective.

    Each rank's slice of the sum goes the way of updated parameters, so that every rank has it all.
    """
    reducer = REDUCERS["tree"](world, model.num_params, batch.num_shards, model.dtype)
    reducer.start(lambda: params)
    sums = []
    for shard in world.mine(batch.num_shards):
        loss, gradient = grad_sum(model, params, x[batch.shard(shard)], y[batch.shard(shard)])
        with reducer.write(shard) as out:
            out[:] = gradient
        sums.append((loss, float(len(batch.shard(shard)))))
    reducer.allgather_sums(sums, 0)
    reducer.params[reducer.own_slice] = reducer.reduce_scatter()
    reducer.allgather()
    return reducer.close()


def _mlp(hidden: int, activation: Any, loss: Any) -> MLP:
    return MLP([2, hidden, 1], activation=activation, loss=loss, dtype="float64")


def _mistake(problem: Problem, ts: Floats, activation: Any, loss: Any) -> Found:
    """Return the right gradient, and that of the means of all activations."""
    x, params, hidden = np.array(problem.xs), np.array(problem.params), problem.hidden
    _, right = grad_sum(_mlp(hidden, activation, loss), params, x, ts)
    right /= len(x)
    mean_a = _activations(problem, activation)[1].mean(axis=0, keepdims=True)
    upper = MLP([hidden, 1], loss=loss, dtype="float64")
    _, out = grad_sum(upper, params[3 * hidden :], mean_a, ts.mean(keepdims=True))
    slope = 1 - np.square(mean_a) if activation == "tanh" else np.ones_like(mean_a)
    delta = out[-1] * params[3 * hidden : -1] * slope
    weights = x.mean(axis=0, keepdims=True).T @ delta
    wrong = np.concatenate([weights.ravel(), delta.ravel(), out])
    return {"right": right, "averaged": wrong, "angle": _angle(right, wrong)}


def _activations(problem: Problem, activation: Any) -> tuple[Floats, Floats, Floats]:
    """Return z, a and slope of the hidden units [m, hidden], by the trainer's first layer."""
    lower = MLP([2, problem.hidden], loss="mean-squared-error", dtype="float64")
    z = lower.outputs(np.array(problem.params[: 3 * problem.hidden]), np.array(problem.xs))
    a, slope = z.copy(), np.empty_like(z)
    ACTIVATIONS[activation](a, slope)
    return z, a, slope


def _angle(left: Floats, right: Floats) -> float | None:
    norms = np.linalg.norm(left), np.linalg.norm(right)
    if min(norms) < 1e-12:
        return None
    left, right = left / norms[0], right / norms[1]
    half = math.atan2(float(np.linalg.norm(left - right)), float(np.linalg.norm(left + right)))
    return math.degrees(2 * half)


def toy(problem: Problem) -> dict[int, Found]:
    """Return every number of chapters 1 to 5, under the names of the plain side."""
    model = _mlp(problem.hidden, *TANH)
    params, x, t = np.array(problem.params), np.array(problem.xs), np.array(problem.ts)
    size, hidden = len(x), problem.hidden
    z, a, slope = _activations(problem, "tanh")
    alone = [grad_sum(model, params, x[i : i + 1], t[i : i + 1]) for i in range(size)]
    gradients = np.array([gradient for _, gradient in alone])
    # the gradient along a bias is the delta: of one example they stand in its gradient
    delta, delta_out = gradients[:, 2 * hidden : 3 * hidden], gradients[:, -1:]
    columns = {
        "z": z,
        "a": a,
        "y": model.outputs(params, x),
        "loss": np.array([loss for loss, _ in alone]),
        "delta_out": delta_out,
        "delta": delta,
        "gradient": gradients,
    }
    _, gradient_sum = grad_sum(model, params, x, t)
    moved = [params + step * np.eye(len(params)) for step in (STEP, -STEP)]
    mean_losses = np.array(
        [
            [model.loss_sum(model.outputs(row, x), t, None)[0] / size for row in rows]
            for rows in moved
        ]
    )
    mean_tanh = z.mean(axis=0)
    ACTIVATIONS["tanh"](mean_tanh, None)
    sums = shard_sums(model, params, x, t, problem.batch)
    total = tree_sum(sums)
    rows = [len(shard) for shard in problem.shards]
    leaves = [range(shard, shard + 1) for shard in range(len(sums))]
    pairs = [pair for found in plan(leaves, len(leaves)).adds for pair in found]
    return {
        1: {name: column[0] for name, column in columns.items()},
        2: columns
        | {
            "sum": gradient_sum,
            "mean": gradient_sum / size,
            "differences": (mean_losses[0] - mean_losses[1]) / (2 * STEP),
        },
        3: {
            "mean z": z.mean(axis=0),
            "tanh of mean z": mean_tanh,
            "mean a": a.mean(axis=0),
            "tanh": _mistake(problem, t, *TANH),
            "linear units": _mistake(problem, t, "identity", "mean-squared-error"),
            "all linear": _mistake(problem, t - FAR, "identity", "huber"),
        },
        4: {
            "back": delta_out @ params[np.newaxis, 3 * hidden : -1],
            "slope": slope,
            "delta": delta,
            "x^T delta": gradient_sum[: 2 * hidden].reshape(2, hidden),
            "a^T delta": gradient_sum[3 * hidden : -1, np.newaxis],
        },
        5: {
            "shard sums": sums,
            "messages": sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair)),
            "sum": total,
            "mean": total / size,
            "one by one": np.add.reduce(gradients) / size,
            "mean of means": np.mean([s / n for s, n in zip(sums, rows, strict=True) if n], axis=0),
        },
    }
