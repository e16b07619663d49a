"""The trainer's side of chapters 1 to 5 and 8: model, shards, tree and reducer, in NumPy."""

from collections.abc import Callable

import numpy as np

from dptrain.arrays import Array, Floats
from dptrain.explain.found import (
    Averaging,
    Batch,
    Example,
    Found,
    Recursion,
    Softmax,
    Workers,
)
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
        sums.append((loss, float(len(batch.shard(shard)))))
    reducer.allgather_sums(sums, 0)
    reducer.params[reducer.own_slice] = reducer.reduce_scatter()
    reducer.allgather()
    return reducer.close()


class Toy:
    """A problem as the trainer has it: a model, parameters [n], examples [m, inputs], targets."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.model = MLP(
            problem.sizes, activation=problem.activation, loss=problem.loss, dtype="float64"
        )
        self.params, self.x = np.array(problem.params), np.array(problem.xs)
        self.t = np.array(problem.ts)

    @property
    def given(self) -> tuple[MLP, Floats, Floats, Array]:
        """What gradients are computed from."""
        return self.model, self.params, self.x, self.t

    @property
    def mean(self) -> Floats:
        """The mean gradient [n], all examples at once."""
        return grad_sum(*self.given)[1] / len(self.x)

    def examples(self) -> list[Example]:
        """Return each example's way; its deltas stand in its gradient, which has those of biases.

        What comes back is computed anew, and so is all of the lower layer.
        """
        inputs, hidden, outputs = self.problem.sizes
        lower = MLP([inputs, hidden], loss="mean-squared-error", dtype="float64")
        z = lower.outputs(self.params[: (inputs + 1) * hidden], self.x)
        a, slope, y = z.copy(), np.empty_like(z), self.model.outputs(self.params, self.x)
        ACTIVATIONS[self.problem.activation](a, slope)
        alone = [
            grad_sum(*self.given[:2], self.x[i : i + 1], self.t[i : i + 1]) for i in range(len(z))
        ]
        gradients = np.array([gradient for _, gradient in alone])
        out, delta = gradients[:, -outputs:], gradients[:, inputs * hidden : (inputs + 1) * hidden]
        back = out @ self.model.layers(self.params)[1][0].T
        return [
            Example(
                *(_list(z[i]), _list(a[i]), _list(y[i]), alone[i][0], _list(out[i])),
                *(_list(back[i]), _list(slope[i]), _list(delta[i]), _list(gradients[i])),
            )
            for i in range(len(z))
        ]


def _list(row: Floats) -> list[float]:
    found: list[float] = row.tolist()
    return found


def _batch(problem: Problem) -> Batch:
    toy = Toy(problem)
    _, total = grad_sum(*toy.given)
    differences = []
    for direction in STEP * np.eye(len(toy.params)):
        up, down = (
            toy.model.loss_sum(toy.model.outputs(toy.params + move, toy.x), toy.t, None)[0]
            for move in (direction, -direction)
        )
        differences.append((up / len(toy.x) - down / len(toy.x)) / (2 * STEP))
    return Batch(toy.examples(), _list(total), _list(total / len(toy.x)), differences)


def _averaging(problem: Problem) -> Averaging:
    found = Toy(problem).examples()
    z, a = np.array([one.z for one in found]), np.array([one.a for one in found])
    bent = z.mean(axis=0)
    ACTIVATIONS["tanh"](bent, None)
    toys = [Toy(each) for each in (problem, *linear(problem))]
    mistakes = [mistake(toy.problem, toy.examples(), _list(toy.mean)) for toy in toys]
    return Averaging(_list(z.mean(axis=0)), _list(bent), _list(a.mean(axis=0)), *mistakes)


def _recursion(problem: Problem) -> Recursion:
    toy = Toy(problem)
    (weights, _), (upper, _) = toy.model.layers(grad_sum(*toy.given)[1])
    return Recursion(toy.examples(), weights.tolist(), upper.tolist())


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


def _softmax(problem: Problem) -> Softmax:
    toy = Toy(problem)
    probabilities = toy.model.probabilities(toy.model.outputs(toy.params, toy.x))
    return Softmax(toy.examples(), probabilities.tolist(), _list(toy.mean))


CHAPTERS: dict[int, Callable[[Problem], Found]] = {
    1: lambda problem: Toy(problem).examples()[0],
    2: _batch,
    3: _averaging,
    4: _recursion,
    5: _workers,
    8: _softmax,
}
