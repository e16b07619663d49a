"""What people are told of a run before it trains, and doctor before there is one."""

from dptrain.config import SHARD, TrainConfig
from dptrain.order import Order
from dptrain.train.state import Training
from dptrain.words import counted
from dptrain.world import World


def goes_on(run: Training, config: TrainConfig) -> str:
    """Return where a run goes on, or that it has ended, and what would let it go on."""
    if run.stopped:
        return f"the run is finished, by --patience: {run.stopped}"
    if run.step == run.num_steps and not run.seen:
        above = f"steps above {config.steps}" if config.steps else f"epochs above {run.measured}"
        return f"the run is finished, after step {run.step}; to train longer give --{above}"
    return f"the run goes on {f'after step {run.step}' if run.step else 'from its beginning'}"


def whole(order: Order) -> str | None:
    """Return what to say where a minibatch is asked for that is larger than all rows."""
    if order.batch_size <= order.num_examples:
        return None
    found = f"--batch-size {order.batch_size:,} is above the {order.num_examples:,} rows"
    return f"{found} to train on: each step takes all of them"


def idle(order: Order, config: TrainConfig, world: World, *, resume: bool) -> str | None:
    """Return what to say where ranks have nothing to work on, and what would use them."""
    number, size, shards = order.idle(world.size), world.size, order.num_shards
    if not number:
        return None
    found = (
        f"{number} of {size} ranks {'are' if number > 1 else 'is'} idle: a minibatch has "
        f"{min(order.batch_size, order.num_examples)} examples in {counted(shards, 'shard')}"
    )
    if resume:
        return f"{found}, which a run keeps; start {size - number}"
    if order.batch_size < size:
        return f"{found}; use them by --batch-size {SHARD * size}"
    larger = f"--batch-size {SHARD * size}, or by " * (config.shards is None)
    return f"{found}; use them by {larger}--shards {size}, which is another result"
