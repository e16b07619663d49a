"""One shard of a step computed by two ranks: what a failing core or memory makes wrong is found.

Neither a loss nor a NaN would tell: one bit of a gradient changes the model, and no more.
"""

import socket
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dptrain.arrays import Floats, Sums, name_of
from dptrain.keys import Purpose, generator
from dptrain.order import Batch
from dptrain.reduce.wire import receive, send
from dptrain.train.loop import shard_loss_and_grad_sum
from dptrain.train.state import Training
from dptrain.version import cpu
from dptrain.words import InputError
from dptrain.world import World, cut


class WrongError(InputError):
    """A host computes wrong, or those that should agree don't: who is right may be unknown."""

    status = 70


class Result(NamedTuple):
    """What a rank made of a shard."""

    rank: int
    sums: Sums
    gradient: Floats

    def same(self, other: "Result") -> bool:
        """Return whether every bit is the same."""
        own, others = (np.array(found.sums).tobytes() for found in (self, other))
        return own == others and self.place(other) is None

    def place(self, other: "Result") -> int | None:
        """Return the first entry of the gradient that is another; None where all are the same."""
        width = np.dtype(f"u{self.gradient.itemsize}")
        differ = self.gradient.view(width) != other.gradient.view(width)
        return int(differ.argmax()) if differ.any() else None


class Chosen(NamedTuple):
    """Which shard of a step is computed more than once, and by whom."""

    shard: int
    owner: int
    """Whose it is."""
    checker: int
    """Another rank, on another node, where there are such."""
    judges: list[int]
    """Who computes it again where these two don't agree: one that is neither, or else they."""


def choose(batch: Batch, world: World) -> Chosen:
    """Return what is checked of a step: keyed by it, the same on every rank."""
    rng = generator(batch.seed, Purpose.RECHECK, batch.step)
    shards = [k for k in range(batch.num_shards) if cut(batch.size, batch.num_shards, k)]
    shard = shards[rng.integers(len(shards))]
    everyone = range(world.size)
    owner = next(rank for rank in everyone if shard in cut(batch.num_shards, world.size, rank))

    def other(*taken: int) -> int | None:
        """Return a rank that is none of these, if one can be on none of their nodes."""
        used = [ranks for ranks in world.nodes if any(rank in ranks for rank in taken)]
        far = [rank for rank in everyone if not any(rank in ranks for ranks in used)]
        found = far or [rank for rank in everyone if rank not in taken]
        return found[rng.integers(len(found))] if found else None

    checker = other(owner)
    if checker is None:
        return Chosen(shard, owner, owner, [owner])
    judge = other(owner, checker)
    return Chosen(shard, owner, checker, [owner, checker] if judge is None else [judge])


def verdict(found: list[Result]) -> tuple[Result | None, list[Result]]:
    """Return the result that most agree on, and those that don't; no result where none is so."""
    kinds: list[list[Result]] = []
    for one in found:
        alike = next((kind for kind in kinds if kind[0].same(one)), None)
        kinds.append([one]) if alike is None else alike.append(one)
    kinds.sort(key=len, reverse=True)
    if len(kinds[0]) == 1 or (len(kinds) > 1 and len(kinds[1]) == len(kinds[0])):
        return None, found
    return kinds[0][0], [one for kind in kinds[1:] for one in kind]


class Recheck:
    """Has one shard of every so many steps computed twice before any of the step's is added.

    `every`: how many steps. `warn`: called on rank 0 with who was wrong.

    Collective: every rank must make one.
    """

    def __init__(self, run: Training, every: int, warn: Callable[[str], None]) -> None:
        self._run, self._world, self._warn = run, run.world, warn
        self._every = every
        self._hosts = run.world.allgather((socket.gethostname(), cpu()))
        self._wrong: Counter[str] = Counter()

    def before_step(self, batch: Batch) -> None:
        """Compute and compare, where it is this step's turn. Collective.

        Raises WrongError where a host was wrong twice, or it can't be said who is.
        """
        self._run.known.clear()
        if (batch.step + 1) % self._every:
            return
        chosen = choose(batch, self._world)
        found = self._gather(batch, chosen, [chosen.owner, chosen.checker])
        agree = not found or found[0].same(found[1])
        if not self._world.allgather(agree)[chosen.owner]:
            found += self._gather(batch, chosen, chosen.judges)
            self._judge(batch, chosen, found)
        elif found:
            self._run.known[chosen.shard] = found[0][1:]

    def _gather(self, batch: Batch, chosen: Chosen, ranks: list[int]) -> list[Result]:
        """Return, on the shard's owner, what some ranks make of it; nothing on the others."""
        world, run, owner, found = self._world, self._run, chosen.owner, list[Result]()
        for rank in ranks if world.rank in (owner, *ranks) else ():
            gradient = np.empty_like(run.reducer.params)
            if world.rank == rank:  # the owner computes before it waits for another
                sums = shard_loss_and_grad_sum(run, batch, chosen.shard, gradient)
                if rank != owner:
                    world.comm.send(sums, owner)
                    send(world, gradient, owner)
            elif world.rank == owner:
                sums = world.comm.recv(source=rank)
                receive(world, gradient, rank)
            if world.rank == owner:
                found.append(Result(rank, sums, gradient))
        return found

    def _judge(self, batch: Batch, chosen: Chosen, found: list[Result]) -> None:
        """Say on every rank who was wrong, and keep what is right on the owner. Collective."""
        told: list[tuple[int, str]] = []
        right = None
        if found:
            right, wrong = verdict(found)
            if right is not None:
                self._run.known[chosen.shard] = right[1:]
            layout, other = self._run.model.layout, right or found[1]
            for one in wrong:
                entry = one.place(other)
                told.append((one.rank, "its loss" if entry is None else name_of(layout, entry)))
        known, told = self._world.allgather((right is not None, told))[chosen.owner]
        ranks = dict(told)
        names = [f"rank {rank} on {' ('.join(self._hosts[rank])})" for rank in ranks]
        where = f"shard {chosen.shard} of step {batch.step + 1}, first in {told[0][1]}"
        if not known:
            raise WrongError(
                f"{' and '.join(names)} don't agree on {where}, and nobody can say who is right: "
                "memory or CPU at fault, or a model whose result is not the same each time. Go on "
                "from the last checkpoint with --resume, on other hosts",
                everywhere=True,
            )
        self._wrong.update({self._hosts[rank][0] for rank in ranks})
        text = f"{' and '.join(names)} got {where}, wrong: memory or CPU at fault"
        twice = [host for host, times in self._wrong.items() if times > 1]
        if twice:
            raise WrongError(
                f"{text}, and {twice[0]} was wrong before. The run ends here, before the update: "
                "go on from the last checkpoint with --resume, without that host",
                everywhere=True,
            )
        if self._world.rank == 0:
            self._warn(f"{text}; others agree on it, and theirs is kept")
