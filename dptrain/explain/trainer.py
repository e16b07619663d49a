"""The trainer's side of chapters 1 to 5 and 8: model, shards, tree and reducer, in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dptrain.arrays import Array, Floats, Sums
from dptrain.explain.found import Averaging, Batch, Example, Found, Workers
from dptrain.explain.plain import STEP, linear, mistake
from dptrain.explain.problem import Problem
from dptrain.model.activations import ACTIVATIONS
from dptrain.model.mlp import MLP
from dptrain.order import Batch as Minibatch
from dptrain.reduce import REDUCERS
from dptrain.reduce.tree import plan, tree_sum
from dptrain.world import World


def grad_sum(model: MLP, params: Floats, x: Floats, y: Array) -> tuple[float, Floats]:
    """Return the sums over examples of loss and gradient [n]; zeros for no example."""
    out = np.zeros(model.num_params)
    if len(x) == 0:
        return 0.0, out
    return model.loss_and_grad_sum(params, x, y, None, out, np.random.default_rng)[0], out


def shard_sums(model: MLP, params: Floats, x: Floats, y: Array, batch: Minibatch) -> list[Floats]:
    """Return the gradient sum of every shard of a minibatch."""
    rows = [batch.shard(shard) for shard in range(batch.num_shards)]
    return [grad_sum(model, params, x[shard], y[shard])[1] for shard in rows]


def reduced(
    model: MLP, params: Floats, x: Floats, y: Array, batch: Minibatch, world: World
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
        sums.append(Sums(loss, float(len(batch.shard(shard)))))
    reducer.allgather_sums(sums, 0)
    reducer.params[reducer.own_slice] = reducer.reduce_scatter()
    reducer.allgather()
    return reducer.close()


class Toy:
    """A problem as the trainer has it: a model, parameters [n], examples [m, inputs], targets."""

    def __init__(self, problem: Problem):
        kind: Any = {"activation": problem.activation, "loss": problem.loss, "dtype": "float64"}
        self.problem, self.model = problem, MLP(problem.sizes, **kind)
        self.x, self.t = np.array(problem.xs), np.array(problem.ts)
        self.given = self.model, np.array(problem.params), self.x, self.t

    def examples(self) -> list[Example]:
        """Return each example's way; its deltas stand in its gradient, which has those of biases.

        What comes back is computed anew, and so is all of the lower layer.
        """
        (inputs, hidden, outputs), (model, params, x, t) = self.problem.sizes, self.given
        lower = MLP([inputs, hidden], loss="mean-squared-error", dtype="float64")
        z = lower.outputs(params[: (inputs + 1) * hidden], x)
        a, slope, y = z.copy(), np.empty_like(z), model.outputs(params, x)
        ACTIVATIONS[self.problem.activation](a, slope)
        losses, rows = zip(
            *(grad_sum(model, params, x[i : i + 1], t[i : i + 1]) for i in range(len(x))),
            strict=True,
        )
        gradients = np.array(rows)
        out, delta = gradients[:, -outputs:], gradients[:, inputs * hidden : (inputs + 1) * hidden]
        back = out @ model.layers(params)[1][0].T
        found = (z, a, y, np.array(losses), out, back, slope, delta, gradients)
        return [Example(*row) for row in zip(*(each.tolist() for each in found), strict=True)]


def _list(row: Floats) -> list[float]:
    found: list[float] = row.tolist()
    return found


def _batch(problem: Problem) -> Batch:
    model, params, x, t = Toy(problem).given
    _, total = grad_sum(model, params, x, t)

    def mean_loss(moved: Floats) -> float:
        return model.loss_sum(model.outputs(moved, x), t, None)[0] / len(x)

    moves = STEP * np.eye(len(params))
    pairs = [(mean_loss(params + move), mean_loss(params - move)) for move in moves]
    differences = [(up - down) / (2 * STEP) for up, down in pairs]
    return Batch(Toy(problem).examples(), _list(total), _list(total / len(x)), differences)


def _averaging(problem: Problem) -> Averaging:
    found = Toy(problem).examples()
    z, a = np.array([one.z for one in found]), np.array([one.a for one in found])
    bent = z.mean(axis=0)
    ACTIVATIONS["tanh"](bent, None)
    toys = [Toy(each) for each in (problem, *linear(problem))]
    mistakes = [
        mistake(toy.problem, toy.examples(), _list(grad_sum(*toy.given)[1] / len(toy.x)))
        for toy in toys
    ]
    return Averaging(_list(z.mean(axis=0)), _list(bent), _list(a.mean(axis=0)), *mistakes)


def _workers(problem: Problem) -> Workers:
    toy = Toy(problem)
    sums, rows = shard_sums(*toy.given, problem.batch), [len(shard) for shard in problem.shards]
    total, size = tree_sum(sums), len(toy.x)
    leaves = [range(shard, shard + 1) for shard in range(len(sums))]
    pairs = [pair for found in plan(leaves, len(leaves)).adds for pair in found]
    messages = sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair))
    one_by_one = np.add.reduce([one.gradient for one in toy.examples()]) / size
    of_means = np.mean([s / n for s, n in zip(sums, rows, strict=True) if n], axis=0)
    means = map(_list, (total, total / size, one_by_one, of_means))
    return Workers([_list(shard) for shard in sums], messages, *means)


CHAPTERS: dict[int, Callable[[Problem], Found]] = {
    1: lambda problem: Toy(problem).examples()[0],
    2: _batch,
    3: _averaging,
    4: _batch,
    5: _workers,
    8: _batch,
}
