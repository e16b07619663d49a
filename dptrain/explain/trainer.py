"""The trainer's side of the chapters: model, shards, tree, reducer and noise, in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dptrain.arrays import Array, Floats, Sums
from dptrain.explain.found import Batch, Example, Found, Minibatch, Workers
from dptrain.explain.plain import STEP, averaging
from dptrain.explain.problem import DIGITS, Problem, digits, trained
from dptrain.model.activations import ACTIVATIONS
from dptrain.model.mlp import MLP
from dptrain.order import Batch as Rows
from dptrain.order import Order
from dptrain.reduce import REDUCERS
from dptrain.reduce.tree import plan, tree_sum
from dptrain.train.noise import noise
from dptrain.world import World

SAMPLES, ENOUGH = 8, 100
"""The most epochs whose minibatches chapter 6 measures, and how many minibatches are enough."""

EPOCHS = (0, 1, 2, 5)
"""After how many epochs of training chapter 7 looks at the noise."""

SHARDS = 8
"""The shards of each of chapter 7's minibatches, of uneven size."""


@dataclass(frozen=True)
class Amount:
    """How much is measured: digits, chapter 6's minibatches of an epoch, chapter 7's."""

    num_digits: int
    epoch_batch: int
    batch_size: int

    def orders(self, seed: int) -> list[list[int]]:
        """Return the order of the examples in some epochs; it is the same for every batch size."""
        whole = Order(self.num_digits, self.num_digits, 1, seed)
        return [next(whole.steps(epoch)).rows.tolist() for epoch in range(SAMPLES)]

    def batches(self, seed: int) -> list[Rows]:
        """Return the minibatches of an epoch, for chapter 7."""
        return list(Order(self.num_digits, self.batch_size, SHARDS, seed).steps(0))


SHOWN = Amount(2000, 256, 250)

CHECKED = Amount(60, 16, 25)
"""What the check measures twice: that two codes agree shows on few digits as well as on many."""


def grad_sum(model: MLP, params: Floats, x: Floats, y: Array) -> tuple[float, Floats]:
    """Return the sums over examples of loss and gradient [n]; zeros for no example."""
    out = np.zeros(model.num_params)
    if len(x) == 0:
        return 0.0, out
    return model.loss_and_grad_sum(params, x, y, None, out, np.random.default_rng)[0], out


def shard_sums(model: MLP, params: Floats, x: Floats, y: Array, batch: Rows) -> list[Floats]:
    """Return the gradient sum of every shard of a minibatch."""
    rows = [batch.shard(shard) for shard in range(batch.num_shards)]
    return [grad_sum(model, params, x[shard], y[shard])[1] for shard in rows]


def reduced(model: MLP, params: Floats, x: Floats, y: Array, batch: Rows, world: World) -> Floats:
    """Return the gradient sum [n] of a minibatch, its shards spread over ranks. Collective.

    Each rank's slice of the sum goes the way of updated parameters, so that every rank has it all.
    """
    reducer = REDUCERS["tree"](world, model.num_params, batch.num_shards, model.dtype)
    reducer.start(lambda: params)
    sums = []
    for stack in reducer.stacks:
        rows = batch.shard(stack.start)
        loss, gradient = grad_sum(model, params, x[rows], y[rows])
        with reducer.writes[stack] as out:
            out[:] = gradient
        sums.append(Sums(loss, float(len(rows))))
    reducer.allgather_sums(sums, 0)
    reducer.params[reducer.own_slice] = reducer.reduce_scatter()
    reducer.allgather()
    return reducer.close()


def given(problem: Problem) -> tuple[MLP, Floats, Floats, Array]:
    """Return a problem for the trainer: model, parameters [n], examples [m, inputs], targets."""
    kind: Any = {"activation": problem.activation, "loss": problem.loss, "dtype": "float64"}
    x, t = np.array(problem.xs), np.array(problem.ts)
    return MLP(problem.sizes, **kind), np.array(problem.params), x, t


def examples(problem: Problem) -> list[Example]:
    """Return each example's way; its deltas stand in its gradient, which has those of biases.

    What comes back is computed anew, and so is all of the lower layer.
    """
    (inputs, hidden, outputs), (model, params, x, t) = problem.sizes, given(problem)
    lower = MLP([inputs, hidden], loss="mean-squared-error", dtype="float64")
    z = lower.outputs(params[: (inputs + 1) * hidden], x)
    a, slope, y = z.copy(), np.empty_like(z), model.outputs(params, x)
    ACTIVATIONS[problem.activation](a, slope)
    alone = [grad_sum(model, params, x[i : i + 1], t[i : i + 1]) for i in range(len(x))]
    losses, gradients = map(np.array, zip(*alone, strict=True))
    out, delta = gradients[:, -outputs:], gradients[:, inputs * hidden : (inputs + 1) * hidden]
    back = out @ model.layers(params)[1][0].T
    found = (z, a, y, losses, out, back, slope, delta, gradients)
    return [Example(*row) for row in zip(*(each.tolist() for each in found), strict=True)]


def _batch(problem: Problem) -> Batch:
    model, params, x, t = given(problem)
    _, total = grad_sum(model, params, x, t)

    def mean_loss(moved: Floats) -> float:
        return model.loss_sum(model.outputs(moved, x), t, None)[0] / len(x)

    moves = STEP * np.eye(len(params))
    moved = [[mean_loss(params + move), mean_loss(params - move)] for move in moves]
    return Batch(examples(problem), total.tolist(), (total / len(x)).tolist(), moved)


def _workers(problem: Problem) -> Workers:
    sums = shard_sums(*given(problem), problem.batch)
    total, size, rows = tree_sum(sums), len(problem.xs), map(len, problem.shards)
    leaves = [range(shard, shard + 1) for shard in range(len(sums))]
    pairs = [pair for found in plan(leaves, len(leaves)).adds for pair in found]
    messages = sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair))
    one_by_one = np.add.reduce([one.gradient for one in examples(problem)]) / size
    of_means = np.mean([s / n for s, n in zip(sums, rows, strict=True) if n], axis=0)
    means = (each.tolist() for each in (total, total / size, one_by_one, of_means))
    return Workers([shard.tolist() for shard in sums], messages, *means)


def minibatch(seed: int, amount: Amount = SHOWN) -> Minibatch:
    """Return what chapter 6 measures of the digits' gradients."""
    count, params = amount.num_digits, trained(seed, 0)
    x, y = digits(count)
    alone = [grad_sum(DIGITS, params, x[i : i + 1], y[i : i + 1])[1] for i in range(count)]
    return measured(np.array(alone), tree_sum(alone) / count, seed, amount)


def measured(gradients: Floats, full: Floats, seed: int, amount: Amount) -> Minibatch:
    """Return the variance of a minibatch's gradient for each m, and how the mean fits.

    Of examples' gradients [m, n] and their mean [n], either side's: the rest is the same for both.
    Each m is measured on all minibatches of one epoch, and of as many more, up to `SAMPLES`, as it
    takes for `ENOUGH` of them. A last, smaller minibatch of an epoch is not of this size.
    """
    count, variances = len(gradients), {}
    for size in (2**k for k in range((count - 1).bit_length())):
        found: list[float] = []
        for order in amount.orders(seed):
            if len(found) < ENOUGH:
                rows = gradients[order[: count // size * size]].reshape(-1, size, len(full))
                found += np.square(rows.mean(axis=1) - full).sum(axis=1).tolist()
        variances[size] = float(np.mean(found))
    sizes, values = np.array(list(variances)), np.array(list(variances.values()))
    slope, _ = np.polyfit(np.log(sizes), np.log(values * (count - 1) / (count - sizes)), 1)
    epoch_mean = np.zeros(len(full))
    for batch in Order(count, amount.epoch_batch, 1, seed).steps(0):
        gradient = tree_sum(list(gradients[batch.rows])) / batch.size
        epoch_mean += gradient * (batch.size / count)
    spread = np.square(gradients - full).sum() / count
    return Minibatch(full.tolist(), epoch_mean.tolist(), float(spread), variances, float(slope))


def noises(seed: int, amount: Amount = SHOWN) -> list[list[float]]:
    """Return the noise after each number of epochs: S and |G|^2, each a mean over minibatches."""
    x, y = digits(amount.num_digits)
    batches, params = amount.batches(seed), [trained(seed, epochs) for epochs in EPOCHS]
    sums = [[shard_sums(DIGITS, p, x, y, one) for one in batches] for p in params]
    return mean_noises(sums, batches)


def mean_noises(sums: list[list[list[Floats]]], batches: list[Rows]) -> list[list[float]]:
    """Return the noise of minibatches from the sums of their shards [n], either side's."""
    found = []
    for epoch in sums:
        pairs = []
        for shards, batch in zip(epoch, batches, strict=True):
            sizes, total = [len(batch.shard(k)) for k in range(SHARDS)], tree_sum(shards)
            one = noise([float(s @ s) for s in shards], sizes, float(total @ total))
            pairs += [(one.variance, one.square_norm)] if one else []
        found.append(np.mean(pairs, axis=0).tolist())
    return found


CHAPTERS: dict[int, Callable[[Problem], Found]] = {
    1: lambda problem: examples(problem)[0],
    2: _batch,
    3: lambda problem: averaging(problem, examples),
    5: _workers,
}
