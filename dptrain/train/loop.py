"""The training loop: the step stands in `train_epoch`, to be read in one screen."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from dptrain.arrays import Array, Floats, Sums, name_of, not_finite, num_params
from dptrain.config import TrainConfig
from dptrain.data.feed import Feed
from dptrain.data.prepare import Data
from dptrain.keys import Purpose, generator, generators
from dptrain.model import Model, Shards, described, is_own
from dptrain.optim.make import make_optimizer
from dptrain.optim.named import treatments
from dptrain.optim.optimizer import Average
from dptrain.optim.schedule import learning_rate
from dptrain.order import Batch, Order
from dptrain.reduce import REDUCERS
from dptrain.reduce.memory import shared_rows
from dptrain.reduce.segments import Segments
from dptrain.reduce.sums import gather_leaves
from dptrain.reduce.tree import times_added, tree_sum
from dptrain.train.control import Control, Sink
from dptrain.train.evaluate import Interrupted, evaluate
from dptrain.train.needs import bytes_here, check_memory, together
from dptrain.train.state import Training, averaged, take_result
from dptrain.words import InputError
from dptrain.world import World


def begin(
    model: Model,
    data: Data,
    config: TrainConfig,
    world: World,
    start: Callable[[Model, Floats], Floats] | None = None,
) -> Training:
    """Return a run before its first step; `start` makes others of the model's initial parameters.

    Collective: every rank must call this. Raises InputError where a node has too little memory.
    """
    with world.together():
        check_memory(bytes_here(model, data, config, world))
        treated = treatments(model.layout, config)
    shards = config.num_shards
    order = Order(len(data.train), config.batch_size, shards, config.seed, config.shuffle)
    size, stacked = num_params(model.layout), together(model, config)
    reducer = REDUCERS[config.reduce](world, size, shards, model.dtype, stacked)
    segments = Segments(model.layout, [treatment.frozen for treatment in treated])
    own, rate = reducer.own_slice, learning_rate(config, order.steps_per_epoch)
    norms = partial(reducer.square_norms, segments=segments)
    optimizer = make_optimizer(config, model.layout, own, rate, model.dtype, norms)
    first, rng = start or (lambda _, own: own), partial(generator, config.seed, Purpose.PARAMS)
    reducer.start(lambda: first(model, model.initial_params(rng())))
    if config.ema is not None:
        optimizer.average = Average(config.ema, reducer.params[own])
    return Training(
        model,
        data,
        config,
        world,
        Feed(data.train, model, world, partial(shared_rows, world.node_comm)),
        order,
        reducer,
        segments,
        optimizer,
        config.num_steps(order.steps_per_epoch),
        best=np.zeros((own.stop - own.start) * (config.patience is not None), model.dtype),
        keeps_best=config.patience is not None,
        doubts=is_own(described(model)),
        of_shards=getattr(model, "of_shards", None),
    )


@contextmanager
def given_back(run: Training) -> Iterator[None]:
    """Give a run's shared memory back where a mistake that all ranks see leaves the block."""
    try:
        yield
    except InputError as error:
        if error.everywhere:  # of one rank's mistake all ranks end
            run.reducer.close()
        raise


def train(run: Training, control: Control, sinks: Sequence[Sink] = ()) -> None:
    """Train epoch by epoch until the last step, early stopping or a signal.

    With `patience` the parameters end as the best epoch's, with `ema` as their average. Collective:
    every rank must call this.

    Raises InputError where a loss, a gradient or an update is not finite. Nothing of that step has
    been recorded, and the parameters are of no use any more.
    """
    with np.errstate(all="ignore"):  # what is not finite ends the run by name
        while (run.step < run.num_steps or run.seen) and not run.stopped:
            train_epoch(run, control, sinks)
            if run.interrupted:
                break
            try:
                close_epoch(run, control, sinks)
            except Interrupted as stop:
                control.stop(stop.asked)
    take_result(run)


def train_epoch(run: Training, control: Control, sinks: Sequence[Sink] = ()) -> None:
    """Do the steps that are left of an epoch.

    A step: each rank computes the loss and gradient sums of its shards, the sums of all shards are
    added in the fixed tree and divided once by the weight of the minibatch, which is its size where
    each example counts 1, and the update is applied, each slice of the vector by its owner. Nothing
    but the gradient is averaged.
    """
    config, reducer, optimizer = run.config, run.reducer, run.optimizer
    own_params, start = run.params, time.perf_counter() - run.seconds
    steps = run.order.steps(run.epoch, first=run.step)
    for batch in run.feed.ahead(steps, reducer.stacks):
        control.before_step(batch)
        sums, squares, size = [], [], batch.size
        for stack, write in reducer.writes.items():
            with write as gradient:
                found = shard_sums(run, batch, stack, gradient)
                sums += run.doubted(stack, found, gradient) if run.doubts else found
                if config.noise_scale:
                    squares.append(run.segments.square_norm(gradient))
        (losses, weights, rights), asked = reducer.allgather_sums(sums, control.before_update())
        batch_loss_sum, weight_sum = finite_sum(losses, batch, run), tree_sum(weights)
        divisor = weight_sum or 1.0  # where nothing weighs anything, the gradient is 0
        gradient_sum = reducer.reduce_scatter()
        if config.clip_norm is not None or config.noise_scale:
            run.norm = reducer.norm(gradient_sum, run.segments) / divisor
        if config.noise_scale:
            run.add_noise(gather_leaves(run.world, np.array(squares), batch.num_shards), weights)
        fault = optimizer.update(own_params, gradient_sum, batch.step, run.norm, weight_sum)
        if not reducer.allgather(fault is None):
            raise ended_by(gradient_sum, fault, batch, run)

        run.step, run.seen = run.step + 1, run.seen + size
        run.loss_sum += batch_loss_sum
        run.weight_sum += weight_sum
        run.right_sum += tree_sum(rights)
        run.norm_sum += run.norm * size
        run.seconds = time.perf_counter() - start
        tell_of_step(run, batch_loss_sum / divisor, sinks)
        control.after_step(batch, batch_loss_sum / divisor, asked)
        if run.stopped or run.step == run.num_steps:
            break


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
        x = stacked([transform(row, keyed(number)) for row, number in numbered])
    params, rng = run.reducer.params, partial(batch.rng, shard)
    return run.model.loss_and_grad_sum(params, x, y, weights, out, rng)


def stacked(rows: Sequence[Array]) -> Array:
    """Return inputs that were transformed as one array; InputError where their shapes differ."""
    shapes = sorted({np.shape(row) for row in rows})
    if len(shapes) > 1:
        raise InputError(
            f"transform returns rows of shape {shapes[0]} and of {shapes[1]}; return one shape"
        )
    return np.stack(rows)


def tell_of_step(run: Training, loss: float, sinks: Sequence[Sink]) -> None:
    """Tell the sinks of the last step, and with `log_every` of its metrics."""
    every = run.config.log_every
    due = every is not None and run.step % every == 0
    for sink in sinks:
        sink.step(run.step, loss)
        if due:
            sink.metrics(run.line(run.norm) | {"loss": loss})


def finite_sum(losses: Sequence[float], batch: Batch, run: Training) -> float:
    """Return the sum of the shards' losses; raise InputError, on every rank, if it isn't finite.

    Says what of that shard is not: what `Training.doubted` has found, else it is computed once
    more. Collective: every rank must call this.
    """
    loss_sum = tree_sum(losses)
    if math.isfinite(loss_sum):
        return loss_sum
    shard, told = not_finite(np.array(losses)) or 0, None
    if shard in run.world.mine(batch.num_shards):
        told = run.faults.get(shard)
        if told is None:
            gradient = np.empty_like(run.reducer.params)
            found = shard_loss_and_grad_sum(run, batch, shard, gradient)
            told = found.loss, run.faulty(gradient)
    loss, name = next(each for each in run.world.allgather(told) if each)
    step = f"of step {batch.step + 1} (epoch {batch.epoch + 1}), shard {shard} is"
    if name and math.isfinite(loss):
        raise ended_before(f"the gradient {step} not finite, first in {name}", batch, run)
    also = f", as is its gradient, first in {name}" if name else ""
    raise ended_before(f"the loss {step} {loss}{also}", batch, run)


def ended_by(gradient_sum: Floats, fault: int | None, batch: Batch, run: Training) -> InputError:
    """Return the error that a step ends in whose gradient or update is not finite on some rank.

    `fault` is the first such entry of this rank's slice. Collective: every rank must call this.
    """
    found = None
    if fault is not None:
        found = bool(np.isfinite(gradient_sum[fault])), run.reducer.own_slice.start + fault
    by_update, entry = min(each for each in run.world.allgather(found) if each is not None)
    step = f"step {batch.step + 1} (epoch {batch.epoch + 1})"
    name = f"parameter {entry}, in {name_of(run.model.layout, entry)}"
    if by_update:
        return ended_before(f"the update of {step} is not finite at {name}", batch, run)
    return ended_before(f"the gradient of {step} is not finite at {name}", batch, run)


def ended_before(found: str, batch: Batch, run: Training) -> InputError:
    """Return the error of a step that is not done, on every rank, with what to try."""
    return InputError(
        f"{found}: stopped before the update. Try a learning rate below "
        f"{run.optimizer.rate(batch.step):g}, --clip-norm 1, or targets on a smaller scale",
        everywhere=True,
    )


def close_epoch(run: Training, control: Control, sinks: Sequence[Sink] = ()) -> None:
    """Measure the epoch that is over, and decide whether the run goes on.

    Raises Interrupted, with nothing changed, where a rank is asked to stop meanwhile.
    """
    metrics = run.line(run.norm_sum / run.seen) | run.train_metrics
    rows = run.data.validation
    if rows is not None:
        with averaged(run):
            found = evaluate(run.model, run.reducer.params, rows, run.world, control.asked)
        metrics |= {f"validation_{name}": value for name, value in found.items()}
    run.history.append(metrics)
    run.measured += 1
    run.next_epoch()
    name, sign = run.config.watched
    value = sign * metrics.get(f"validation_{name}", math.nan)
    if not run.keeps_best or value < run.best_value:
        run.kept = run.measured - 1
        run.kept_metrics = {k: v for k, v in metrics.items() if k.startswith(("train_", "valid"))}
        if run.keeps_best:
            run.best_value = value
            run.best[:] = run.params if run.averaged is None else run.averaged
    run.stop_without_gain()
    for sink in sinks:
        sink.metrics(metrics)
    control.after_epoch()
