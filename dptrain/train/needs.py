"""What a model needs on each node and on disk: the trainer's own arithmetic, nothing allocated."""

import socket
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dptrain.arrays import CACHED, num_params
from dptrain.config import TrainConfig
from dptrain.data.feed import BLOCK
from dptrain.data.prepare import Data
from dptrain.machine import free_bytes, too_little_memory
from dptrain.model import Model, described, is_own
from dptrain.optim.rules import Trust, transforms
from dptrain.reduce import REDUCERS
from dptrain.reduce.layout import stacks_of
from dptrain.words import InputError
from dptrain.world import World, cut


class Needs(NamedTuple):
    """Bytes beside the data and what Python takes to itself."""

    shared: dict[range, int]
    """Memory that the ranks of each node share: gradient sums and parameters."""

    own: dict[range, int]
    """What the ranks of each node need beside it: optimizer state, activations, messages; and on
    the first node the copy that a checkpoint is written from."""

    checkpoint: int
    """A checkpoint on disk."""

    disk: int
    """The run directory: checkpoints, with one more while it is written, and the model."""


def needs(model: Model, config: TrainConfig, nodes: list[range], rows: int | None = None) -> Needs:
    """Return what a run needs; `nodes` are the ranks of each node.

    `rows` are what a rank computes with at a time: a shard, or a block in evaluation, whichever is
    more, unless given.
    """
    n, itemsize = num_params(model.layout), np.dtype(model.dtype).itemsize
    stacked, shards = together(model, config), config.num_shards
    reducer = REDUCERS[config.reduce].needs(nodes, n, shards, stacked, itemsize)
    pieces = transforms(config)
    slots = sum(transform.num_slots for transform in pieces)
    updates = any(isinstance(piece, Trust) for piece in pieces)  # which are kept to be measured
    averages = config.ema is not None
    rows = rows or max(-(-config.batch_size // config.num_shards), BLOCK)
    own = {}
    for ranks in nodes:
        own[ranks] = 0
        for rank in ranks:
            stacks = stacks_of(cut(shards, nodes[-1].stop, rank), shards, stacked)
            own[ranks] += activation_bytes(model, rows, max(map(len, stacks), default=1))
            size = reducer.slices[rank].stop - reducer.slices[rank].start
            kept = slots + updates + averages + (config.patience is not None)
            own[ranks] += reducer.own[rank] + (kept * size + 2 * min(size, CACHED)) * itemsize
            own[ranks] += 2 * n * itemsize * (config.recheck_every is not None)
    vectors = (1 + slots + averages) * n * itemsize
    own[nodes[0]] += vectors
    return Needs(
        shared=reducer.shared,
        own=own,
        checkpoint=vectors,
        disk=(config.keep_checkpoints + 2) * vectors + n * itemsize,
    )


def together(model: Model, config: TrainConfig) -> int:
    """Return how many shards a rank computes in one go: of as many rows as in evaluation.

    One, where each one's gradient is asked for, or the model is not dptrain's own.
    """
    able = getattr(model, "of_shards", None) and not is_own(described(model))
    if not able or config.noise_scale or config.recheck_every is not None:
        return 1
    return max(1, BLOCK // -(-config.batch_size // config.num_shards))


def activation_bytes(model: Model, rows: int, shards: int = 1) -> int:
    """Return the memory that a rank computes rows in, so many shards in one go; 0 for a model that
    does not say.
    """
    ask: Callable[..., int] | None = getattr(model, "activation_bytes", None)
    return (ask(rows) if shards == 1 else ask(rows, shards)) if ask else 0


def bytes_here(model: Model, data: Data, config: TrainConfig, world: World) -> int:
    """Return what a run that leaves no files needs on this rank's node, beside the data."""
    shards = config.num_shards
    evaluated = [min(len(rows), BLOCK) for rows in (data.validation, data.test) if rows]
    of_a_shard = -(-min(config.batch_size, len(data.train)) // shards)
    stack = of_a_shard * min(together(model, config), -(-shards // world.size))
    rows, here, nodes = max(stack, *evaluated, 1), world.ranks_here, world.nodes
    found = needs(model, config, nodes, rows)
    if len(here) > 1 and found.shared[here] > free_bytes():  # then no ranks share any
        nodes = [range(rank, rank + 1) for rank in range(world.size)]
        found = needs(model, config, nodes, rows)
    total = sum(found.shared[ranks] + found.own[ranks] for ranks in nodes if ranks.start in here)
    return total - found.checkpoint * (here.start == 0)


def check_memory(needed: int) -> None:
    """Raise InputError where this machine has not as many bytes left, as far as it can tell."""
    free = too_little_memory(needed)
    if free is not None:
        raise InputError(
            f"{needed / 1e6:,.1f} MB are needed beside the data, and {free / 1e6:,.1f} MB are free "
            f"on {socket.gethostname()}: take more nodes, fewer --shards, a smaller model or batch",
            local=True,
        )
