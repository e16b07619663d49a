"""What a rank's shards of a minibatch sum to: one after the other, or several in one go."""

from functools import partial

import numpy as np

from dptrain.arrays import Floats, Sums
from dptrain.keys import Purpose, generators
from dptrain.model import Shards
from dptrain.order import Batch
from dptrain.reduce.tree import times_added
from dptrain.train.state import Training
from dptrain.words import InputError


def shard_sums(run: Training, batch: Batch, stack: range, out: Floats) -> list[Sums]:
    """Return the sums of a stack of shards, and write the sum of their gradients to `out` [n].

    What has no example is 0.
    """
    if stack.start in run.known:
        sums, out[:] = run.known[stack.start]
        return [sums]
    if len(stack) == 1 or run.of_shards is None:
        return [shard_loss_and_grad_sum(run, batch, stack.start, out)]
    examples, places = batch.shards(stack)
    if len(examples) == 0:
        out[:] = 0
        return [Sums(0.0, 0.0, 0.0) for _ in stack]
    shards = Shards(places, times_added(stack, batch.num_shards))
    rngs = [partial(batch.rng, shard) for shard in stack]
    return run.of_shards(run.reducer.params, *run.feed[examples], out, shards, rngs)


def shard_loss_and_grad_sum(run: Training, batch: Batch, shard: int, out: Floats) -> Sums:
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
    params, rng = run.reducer.params, partial(batch.rng, shard)
    return run.model.loss_and_grad_sum(params, x, y, weights, out, rng)
