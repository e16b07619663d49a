"""What a rank's shards of a minibatch sum to: one after the other, or several in one go."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from dptrain.arrays import Floats, Sums
from dptrain.keys import Purpose, generators
from dptrain.model import Write
from dptrain.order import Batch
from dptrain.train.state import Training
from dptrain.words import InputError


def shard_sums(run: Training, batch: Batch, stacks: Sequence[range]) -> Iterator[tuple[int, Write]]:
    """Yield shards, each with what returns its sums and writes its gradient sum, given `out` [n].

    A stack of them is computed in one go, unless one of them may have no example.
    """
    params = run.reducer.params
    for stack in stacks:
        if run.of_shards is None or len(stack) == 1 or batch.size < batch.num_shards:
            for shard in stack:
                yield shard, partial(shard_loss_and_grad_sum, run, params, batch, shard)
        else:
            examples, places = batch.shards(stack)
            rngs = [partial(batch.rng, shard) for shard in stack]
            found = run.of_shards(params, *run.feed[examples], places, rngs)
            yield from zip(stack, found, strict=True)


def shard_loss_and_grad_sum(
    run: Training, params: Floats, batch: Batch, shard: int, out: Floats
) -> Sums:
    """Return a shard's sums, and write its gradient sum to `out` [n].

    All are 0 for no example.
    """
    examples = batch.shard(shard)
    if len(examples) == 0:
        out[:] = 0
        return Sums(0.0, 0.0, 0.0)
    x, y, weights = run.feed[examples]
    transform = getattr(run.model, "transform", None)
    if transform is not None:
        keyed = generators(batch.seed, Purpose.TRANSFORM, batch.epoch)
        numbered = zip(x, examples.tolist(), strict=True)
        rows = [transform(row, keyed(number)) for row, number in numbered]
        shapes = sorted({np.shape(row) for row in rows})
        if len(shapes) > 1:
            raise InputError(
                f"transform returns rows of shape {shapes[0]} and of {shapes[1]}; return one shape"
            )
        x = np.stack(rows)
    return run.model.loss_and_grad_sum(params, x, y, weights, out, partial(batch.rng, shard))
