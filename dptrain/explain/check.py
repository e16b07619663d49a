"""Every number twice, by loops and by the trainer, whose sums are also made on all ranks."""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from dptrain.arrays import Array, Floats
from dptrain.config.tools import ExplainConfig
from dptrain.explain import plain, plain_digits, trainer, trainer_digits
from dptrain.explain.found import Averaging, Batch, Found, Workers
from dptrain.explain.problem import Problem, digits, problems, trained
from dptrain.explain.trainer_digits import CHECKED, ENOUGH, EPOCHS, SHARDS
from dptrain.keys import Purpose, generator
from dptrain.model.mlp import MLP
from dptrain.order import Batch as Minibatch
from dptrain.reduce.tree import tree_sum
from dptrain.words import counted
from dptrain.world import World

LIMIT = 1e-13
"""How far two numbers may be apart, as a share of the sum of the absolute terms of each sum."""

WIDTH = 80

Say = Callable[[str], None]
Given = tuple[MLP, Floats, Floats, Array]


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
    shares = []
    by_loops, by_trainer, sizes = sides(config, number)
    for where, left, right, size in numbered("", by_loops, by_trainer, sizes):
        shares.append(apart(left, right, size))
        if not shares[-1] <= LIMIT:
            return "", (
                f"chapter {number}: {where} is {left!r} by loops and {right!r} by the trainer; "
                f"that is {shares[-1]:.1e} of what was added, more than {LIMIT:g}"
            )
    one_process = plain.batch(problems(config)[0]).mean
    if isinstance(by_loops, Workers) and by_loops.mean != one_process:
        return "", "chapter 5: the mean is not chapter 2's to the last bit"
    line = f"chapter {number}: {len(shares)} numbers by loops and by the trainer agree"
    return f"{line}, {max(shares):.1e} apart", None


def sides(config: ExplainConfig, number: int) -> tuple[Found, Found, Found]:
    """Return a chapter's numbers by loops and by the trainer, and the size of what was added."""
    if number not in (6, 7):
        toy = problems(config)[number == 8]
        return plain.CHAPTERS[number](toy), trainer.CHAPTERS[number](toy), _sizes(toy, number)
    seed, (x, y) = config.seed, digits(CHECKED.num_digits)
    xs, ys = tuple(map(tuple, x.tolist())), tuple(y.tolist())
    found = [
        plain.gradients(Problem(4, params, xs, ys, outputs=10, loss="cross-entropy"))
        for params in (tuple(trained(seed, epochs).tolist()) for epochs in EPOCHS)
    ]
    if number == 6:
        how = CHECKED.orders(seed), ENOUGH, CHECKED.epoch_batch
        by_loops, sizes = plain_digits.minibatch(found[0], *how)
        return by_loops, trainer_digits.minibatch(seed, CHECKED), sizes
    batches = CHECKED.batches(seed)
    shards = [[batch.shard(k).tolist() for k in range(SHARDS)] for batch in batches]
    pair = plain_digits.noises(found, shards)
    return pair[0], trainer_digits.noises(seed, CHECKED), pair[1]


def _sizes(problem: Problem, number: int) -> Found:
    """Return the sum of the absolute terms of each number.

    Loops find it where every term is positive: parameters and inputs are, units are linear with
    slope 1, and targets are below 0, so that y - t is |y| + |t|. A squared loss of this kind is
    larger than what cross-entropy adds up, and so is its slope.
    """
    below, params = int(problem.loss == "cross-entropy"), tuple(map(abs, problem.params))
    xs = tuple(tuple(map(abs, x)) for x in problem.xs)
    ts = tuple(-abs(t) - below for t in problem.ts)
    kind: Any = {"activation": "identity", "loss": "mean-squared-error"}
    positive = replace(problem, params=params, xs=xs, ts=ts, **kind)
    found = plain.CHAPTERS[number](positive)
    match found:
        case Batch():  # losses are subtracted, then divided by the step
            whole = plain.mean_loss(positive) / plain.STEP
            return replace(found, differences=[whole] * len(problem.params))
        case Averaging():
            mistakes = (found.tanh, found.linear_units, found.all_linear)
            means = found.mean_z, found.tanh_of_mean_z, found.mean_a
            return Averaging(*means, *(replace(one, angle=180.0) for one in mistakes))
    return found


def numbered(where: str, *sides: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield each number with those that stand there on the other sides, and where that is."""
    first = sides[0]
    if is_dataclass(first):
        for field in fields(first):
            name = f"{where} {field.name}".strip()
            yield from numbered(name, *(getattr(side, field.name) for side in sides))
    elif isinstance(first, dict):
        for key in first:
            yield from numbered(f"{where}[{key}]", *(side[key] for side in sides))
    elif isinstance(first, (list, tuple)):
        for index, each in enumerate(zip(*sides, strict=True)):
            yield from numbered(f"{where}[{index}]", *each)
    else:
        yield where, *sides


def apart(left: float | None, right: float | None, size: float | None) -> float:
    """Return how far apart two numbers are, as a share of the size of what was added."""
    if left is None or right is None:
        return 0.0 if left is right else math.inf
    difference = abs(left - right)
    return difference / size if size else math.inf * difference if difference else 0.0


def _ranks(config: ExplainConfig, world: World, say: Say) -> str | None:
    """Compare the sums over all ranks with one process's, bit by bit. Collective."""
    toy = problems(config)[0]
    fault = _bits("chapter 5's minibatch", trainer.Toy(toy).given, toy.batch, world, say)
    wide = MLP([64, 128, 10], dtype="float64")
    params = wide.initial_params(generator(config.seed, Purpose.PARAMS))
    batch = Minibatch(config.seed, 0, 0, np.arange(250), 8)
    return fault or _bits("250 digits", (wide, params, *digits()), batch, world, say)


def _bits(name: str, given: Given, batch: Minibatch, world: World, say: Say) -> str | None:
    """Compare a minibatch's gradient sum over all ranks with one process's. Collective."""
    alone = tree_sum(trainer.shard_sums(*given, batch))
    together = trainer.reduced(*given, batch, world)
    wrong = world.allgather(
        np.flatnonzero(alone.view(np.uint64) != together.view(np.uint64)).tolist()
    )
    for rank, entries in enumerate(wrong):
        if entries:
            return (
                f"the gradient of {name}: its entry {entries[0]} on rank {rank} of {world.size} "
                "is not one process's to the last bit"
            )
    ranks = counted(world.size, "rank")
    say(f"{name}: {batch.num_shards} shards on {ranks} and one process: the same bits")
    return None
