"""What a model needs on each node and on disk: the trainer's own arithmetic, nothing allocated."""

from dataclasses import dataclass

from dptrain.bench.floors import held_by, num_sums
from dptrain.config import TrainConfig
from dptrain.data.prepare import BLOCK
from dptrain.model.mlp import MLP
from dptrain.optim import CACHED, transforms
from dptrain.reduce.layout import rank_slices, shared_bytes


@dataclass(frozen=True)
class Needs:
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


def needs(model: MLP, config: TrainConfig, nodes: list[range]) -> Needs:
    """Return what a run of the tree needs; `nodes` are the ranks of each node."""
    size, n, itemsize = nodes[-1].stop, model.num_params, model.dtype.itemsize
    shards = config.num_shards
    slots = sum(transform.num_slots for transform in transforms(config))
    slices = [part.stop - part.start for part in rank_slices(n, nodes)]
    sums = {ranks: num_sums(held_by(ranks, shards, size), shards) for ranks in nodes}
    own = {}
    for ranks in nodes:
        received = sum(sums.values()) - sums[ranks]
        entries = sum(
            slices[rank] * (slots + received) + 2 * min(slices[rank], CACHED) for rank in ranks
        )
        own[ranks] = entries * itemsize + len(ranks) * activation_bytes(model, config, shards)
    vectors = (1 + slots) * n * itemsize
    own[nodes[0]] += vectors
    return Needs(
        shared={ranks: sum(shared_bytes(ranks, size, shards, n, itemsize)) for ranks in nodes},
        own=own,
        checkpoint=vectors,
        disk=(config.keep_checkpoints + 2) * vectors + n * itemsize,
    )


def activation_bytes(model: MLP, config: TrainConfig, num_shards: int) -> int:
    """Return the memory that a rank computes in: units and slopes of a shard, or of a block of rows
    in evaluation, whichever is larger, and what dropout keeps."""
    rows = max(-(-config.batch_size // num_shards), BLOCK)
    entries = rows * (2 * sum(model.sizes[1:]) + 1)
    keep = 4 * rows * sum(model.sizes[1:-1]) if model.config.dropout else 0
    return entries * model.dtype.itemsize + keep
