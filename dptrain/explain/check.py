"""Every number twice, by loops and by the trainer, whose sums are also made on all ranks."""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats
from dptrain.config.tools import ExplainConfig
from dptrain.explain import plain, trainer
from dptrain.explain.found import Found
from dptrain.explain.problem import Problem, digits, problems, trained
from dptrain.explain.trainer import CHECKED, EPOCHS, SHARDS
from dptrain.keys import Purpose, generator
from dptrain.model.mlp import MLP
from dptrain.order import Batch as Minibatch
from dptrain.reduce.tree import tree_sum
from dptrain.words import counted
from dptrain.world import World

LIMIT = 1e-14
"""How far two numbers may be apart, as a share of the chapter's largest: 45 times its last bit."""

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
    say(textwrap.fill(found, 80, break_on_hyphens=False))
    return fault is None


def _chapter(config: ExplainConfig, number: int) -> tuple[str, str | None]:
    """Compare a chapter's numbers; return what to say, and where they differ first."""
    found = [*numbered("", *sides(config, number))]
    largest = max(abs(left) for _, left, _ in found if left is not None)
    shares = []
    for where, left, right in found:
        same_kind = (left is None) == (right is None)  # an angle with nothing is none
        shares.append(abs((left or 0) - (right or 0)) / largest if same_kind else math.inf)
        if not shares[-1] <= LIMIT:
            return "", (
                f"chapter {number}: {where} is {left!r} by loops and {right!r} by the trainer; "
                f"that is {shares[-1]:.1e} of the chapter's largest number, more than {LIMIT:g}"
            )
    line = f"chapter {number}: {len(shares)} numbers by loops and by the trainer agree"
    return f"{line}, {max(shares):.1e} apart", None


def sides(config: ExplainConfig, number: int) -> tuple[Found, Found]:
    """Return a chapter's numbers by loops and by the trainer."""
    if number not in (6, 7):
        toy = problems(config)[number == 8]
        alike = 2 if number in (4, 8) else number  # products of 4 are sums of 2, in another order
        return plain.CHAPTERS[alike](toy), trainer.CHAPTERS[alike](toy)
    seed, every = config.seed, np.arange(CHECKED.num_digits)
    if number == 6:
        rows = [one.gradient for one in plain.run(_digits(seed, 0, every))]
        by_loops = trainer.measured(np.array(rows), np.array(plain.mean(rows)), seed, CHECKED)
        return by_loops, trainer.minibatch(seed, CHECKED)
    batches = CHECKED.batches(seed)
    sums = [
        [
            [*map(np.array, plain.shard_sums(_digits(seed, epochs, one.rows, SHARDS)))]
            for one in batches
        ]
        for epochs in EPOCHS
    ]
    return trainer.mean_noises(sums, batches), trainer.noises(seed, CHECKED)


def _digits(seed: int, epochs: int, rows: NDArray[np.intp], workers: int = 1) -> Problem:
    """Return some digits for the loops, with the network after so many epochs."""
    x, y = digits(CHECKED.num_digits)
    xs, params = tuple(map(tuple, x[rows].tolist())), tuple(trained(seed, epochs).tolist())
    return Problem(4, params, xs, tuple(y[rows].tolist()), workers, 10, loss="cross-entropy")


def numbered(where: str, left: Any, right: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each number with the one that stands there on the other side, and where that is."""
    if isinstance(left, (tuple, list, dict)):
        names = getattr(left, "_fields", None)
        for place, key in enumerate(left if isinstance(left, dict) else names or left):
            at = key if isinstance(left, dict) else place
            name = f"{where} {key}".strip() if names else f"{where}[{at}]"
            yield from numbered(name, left[at], right[at])
    else:
        yield where, left, right


def _ranks(config: ExplainConfig, world: World, say: Say) -> str | None:
    """Compare the sums over all ranks with one process's, bit by bit. Collective."""
    toy = problems(config)[0]
    fault = _bits("chapter 5's minibatch", trainer.given(toy), toy.batch, world, say)
    wide = MLP([64, 128, 10], dtype="float64")
    params = wide.initial_params(generator(config.seed, Purpose.PARAMS))
    batch = Minibatch(config.seed, 0, 0, np.arange(250), 8)
    return fault or _bits("250 digits", (wide, params, *digits()), batch, world, say)


def _bits(name: str, given: Given, batch: Minibatch, world: World, say: Say) -> str | None:
    """Compare a minibatch's gradient sum over all ranks with one process's. Collective."""
    alone = tree_sum(trainer.shard_sums(*given, batch))
    together = trainer.reduced(*given, batch, world)
    differ = np.flatnonzero(alone.view(np.uint64) != together.view(np.uint64))
    for rank, entries in enumerate(world.allgather(differ.tolist())):
        if entries:
            return (
                f"the gradient of {name}: its entry {entries[0]} on rank {rank} of {world.size} "
                "is not one process's to the last bit"
            )
    ranks = counted(world.size, "rank")
    say(f"{name}: {batch.num_shards} shards on {ranks} and one process: the same bits")
    return None
