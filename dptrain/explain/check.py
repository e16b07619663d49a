"""Every number twice, by loops and by the trainer, whose sums are also made on all ranks."""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dptrain.config import ExplainConfig
from dptrain.explain import plain, plain_digits, trainer, trainer_digits
from dptrain.explain.numbers import size
from dptrain.explain.plain import Found
from dptrain.explain.problem import digits, problem, trained
from dptrain.explain.text import WIDTH
from dptrain.keys import Purpose, generator
from dptrain.model.mlp import MLP
from dptrain.order import Batch
from dptrain.reduce.tree import tree_sum
from dptrain.world import World

LIMIT = 1e-15
"""How far two numbers may be apart, as a share of the sizes of what was added to make them."""

Say = Callable[[str], None]


def check(config: ExplainConfig, numbers: Sequence[int], world: World, say: Say) -> bool:
    """Compare chapters by number, then sums on all ranks with one process's; say what was found.

    Collective: every rank must call this, and every rank gets the same answer.
    """
    own = [(number, *_chapter(config, number)) for number in numbers[world.rank :: world.size]]
    fault = None
    for _, line, fault in sorted(line for lines in world.allgather(own) for line in lines):
        if fault:
            break
        say(line)
    fault = fault or _ranks(config, world, say)
    found = f"differs: {fault}" if fault else "all agree"
    say(textwrap.fill(found, WIDTH, break_on_hyphens=False))
    return fault is None


def _chapter(config: ExplainConfig, number: int) -> tuple[str, str | None]:
    """Compare a chapter's numbers; return what to say, and where they differ first."""
    by_loops, by_trainer = sides(config, number)
    shares = []
    for where, left, right in pairs("", by_loops, by_trainer):
        shares.append(apart(left, right))
        if not shares[-1] <= LIMIT:
            return "", (
                f"chapter {number}:{where} is {left!r} by loops and {right!r} by the trainer; "
                f"that is {shares[-1]:.1e} of what was added, more than {LIMIT:g}"
            )
    if number == 5 and by_loops["mean"] != plain.toy(problem(config))[2]["mean"]:
        return "", "chapter 5: the mean is not chapter 2's to the last bit"
    line = f"chapter {number}: {len(shares)} numbers by loops and by the trainer agree"
    return f"{line}, {max(shares):.1e} apart", None


def sides(config: ExplainConfig, number: int) -> tuple[Found, Found]:
    """Return a chapter's numbers by loops and by the trainer, under the same names."""
    if number < 6:
        return plain.toy(problem(config))[number], trainer.toy(problem(config))[number]
    seed, some = config.seed, digits(config.seed)
    xs, ys = some.x.tolist(), some.y.tolist()
    if number == 6:
        orders = [order.tolist() for order in trainer_digits.orders(some)]
        how = trainer_digits.ENOUGH, trainer_digits.EPOCH_BATCH
        by_loops = plain_digits.chapter6(trained(seed, 0).tolist(), xs, ys, orders, *how)
        return by_loops, trainer_digits.chapter6(some)
    shards = [
        [batch.shard(shard).tolist() for shard in range(batch.num_shards)]
        for batch in trainer_digits.batches(some)
    ]
    left, right = {}, {}
    for epochs, one in trainer_digits.chapter7(some).items():
        after, params = f"after {epochs} epochs", trained(seed, epochs).tolist()
        left[after] = plain_digits.chapter7(params, xs, ys, shards)
        right[after] = {"S": one.variance, "|G|^2": one.square_norm}
    return left, right


def pairs(where: str, left: Any, right: Any) -> Iterator[tuple[str, float | None, float | None]]:
    """Yield each number of one side with the other's, and where it stands."""
    if isinstance(left, Mapping):
        for name in left | right:
            yield from pairs(f"{where} {name}", left[name], right[name])
    elif isinstance(left, (Sequence, np.ndarray)):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from pairs(f"{where}[{index}]", one, other)
    else:
        yield where, left, None if right is None else float(right)


def apart(left: float | None, right: float | None) -> float:
    """Return how far apart two numbers are, as a share of the size of what was added."""
    if left is None or right is None:
        return 0.0 if left is right else math.inf
    difference, whole = abs(float(left) - right), size(left)
    return difference / whole if whole else math.inf * difference if difference else 0.0


def _ranks(config: ExplainConfig, world: World, say: Say) -> str | None:
    """Compare the sums over all ranks with one process's, bit by bit. Collective."""
    toy = problem(config)
    model = MLP([2, toy.hidden, 1], activation="tanh", loss="mean-squared-error", dtype="float64")
    exact = np.array(toy.params), np.array(toy.xs), np.array(toy.ts)
    fault = _bits("chapter 5's minibatch", model, exact, toy.batch, world, say)
    x, y = digits(config.seed).x, digits(config.seed).y
    wide = MLP([64, 128, 10], dtype="float64")
    params = wide.initial_params(generator(config.seed, Purpose.PARAMS))
    batch = Batch(config.seed, 0, 0, np.arange(250), 8)
    return fault or _bits("250 digits", wide, (params, x, y), batch, world, say)


def _bits(
    name: str, model: MLP, given: tuple[Any, Any, Any], batch: Batch, world: World, say: Say
) -> str | None:
    """Compare a minibatch's gradient sum over all ranks with one process's. Collective."""
    alone = tree_sum(trainer.shard_sums(model, *given, batch))
    together = trainer.reduced(model, *given, batch, world)
    wrong = world.allgather(
        np.flatnonzero(alone.view(np.uint64) != together.view(np.uint64)).tolist()
    )
    for rank, entries in enumerate(wrong):
        if entries:
            return (
                f"the gradient of {name}: its entry {entries[0]} on rank {rank} of {world.size} "
                "is not one process's to the last bit"
            )
    ranks = f"{world.size} rank" + "s" * (world.size > 1)
    say(f"{name}: {batch.num_shards} shards on {ranks} and one process: the same bits")
    return None
