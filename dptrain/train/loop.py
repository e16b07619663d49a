"""The training loop: the step stands in `train_epoch`, to be read in one screen."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.config import InputError, TrainConfig
from dptrain.data.prepare import Data, Feed
from dptrain.keys import Purpose, generator
from dptrain.model import Model
from dptrain.optim import Optimizer, learning_rate, transforms
from dptrain.order import Batch, Order
from dptrain.record.progress import Silence
from dptrain.reduce.reducer import REDUCERS, Reducer
from dptrain.reduce.tree import tree_sum
from dptrain.train.evaluate import evaluate
from dptrain.world import World

Floats = NDArray[np.floating]


@dataclass
class Stop:
    """Whether a person has asked, by Ctrl-C, for the run to end after the step at hand."""

    asked_at: float | None = None

    @contextlib.contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Note SIGINT in place of raising; a second one, a second later or more, raises.

        Launchers pass one Ctrl-C on to every rank, sometimes twice. Python only lets the main
        thread change what a signal does; elsewhere this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(*_: object) -> None:
            if self.asked_at is not None and time.monotonic() - self.asked_at >= 1:
                raise KeyboardInterrupt
            self.asked_at = self.asked_at or time.monotonic()

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@dataclass
class Training:
    """A run in progress: what its steps read, and what they have come to so far."""

    model: Model
    feed: Feed
    order: Order
    reducer: Reducer
    optimizer: Optimizer
    num_steps: int
    step: int = 0
    seconds: float = 0.0
    examples: int = 0
    stopped: str | None = None
    """Why the run ended before its last step, if it did."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The metrics of every epoch."""
    kept: int = 0
    """Which epoch, counted from 0, the parameters are of: the last, or with patience the best."""

    def line(self, seen: int, norm: float) -> dict[str, Any]:
        """Return where the run is and how it steps, with `seen` examples in this epoch so far."""
        step = {"step": self.step, "examples": self.examples + seen}
        rate = {"learning_rate": self.optimizer.rate(self.step - 1)}
        epoch = {"epoch": 1 + (self.step - 1) // self.order.steps_per_epoch}
        return epoch | step | rate | ({} if math.isnan(norm) else {"gradient_norm": norm})


def begin(model: Model, data: Data, config: TrainConfig, world: World) -> Training:
    """Return a run before its first step; the number of shards is decided here."""
    shards = config.shards or world.size
    order = Order(len(data.train), config.batch_size, shards, config.seed)
    reducer = REDUCERS[config.reduce](world, model.num_params, shards, model.dtype)
    optimizer = Optimizer(
        transforms(config),
        learning_rate(config, order.steps_per_epoch),
        reducer.slice.stop - reducer.slice.start,
        model.dtype,
    )
    reducer.start(lambda: model.initial_params(generator(config.seed, Purpose.PARAMS)))
    feed = Feed(data.train, model.dtype)
    return Training(model, feed, order, reducer, optimizer, config.num_steps(order.steps_per_epoch))


def train(
    run: Training,
    data: Data,
    config: TrainConfig,
    world: World,
    progress: Silence,
    write: Callable[[dict[str, Any]], None],
) -> None:
    """Train epoch by epoch until the last step, early stopping or Ctrl-C.

    With `patience` the parameters end as the best epoch's. `write` gets each line of metrics, on
    every rank. Collective: every rank must call this.

    Raises
    ------
    InputError
        A loss is not finite. The parameters are then those before the step at fault.
    """
    best_loss, mine = math.inf, run.reducer.params[run.reducer.slice]
    best = mine[:0] if config.patience is None else mine.copy()
    stop = Stop()
    with stop.on_interrupt(), np.errstate(all="ignore"):  # what is not finite ends the run by name
        while run.step < run.num_steps and not run.stopped:
            metrics = train_epoch(run, config, world, progress, write, stop)
            if data.validation is not None:
                found = evaluate(run.model, run.reducer.params, data.validation, world)
                metrics |= {f"validation_{name}": value for name, value in found.items()}
            run.history.append(metrics)
            write(metrics)
            progress.epoch(metrics)
            if config.patience is None:
                run.kept = len(run.history) - 1
            elif metrics["validation_loss"] < best_loss:
                run.kept = len(run.history) - 1
                best_loss, best = metrics["validation_loss"], mine.copy()
            elif len(run.history) - 1 - run.kept >= config.patience:
                run.stopped = f"no better validation loss since epoch {run.kept + 1}"
    if config.patience is not None:
        mine[:] = best
        run.reducer.share()


def train_epoch(
    run: Training,
    config: TrainConfig,
    world: World,
    progress: Silence,
    write: Callable[[dict[str, Any]], None],
    stop: Stop,
) -> dict[str, Any]:
    """Do the steps of one epoch, or those that are left, and return the epoch's metrics.

    A step: each rank computes the loss and gradient sums of its shards, the sums of all shards are
    added in the fixed tree and divided once by the size of the minibatch, and the update is
    applied, each slice of the vector by its owner. Nothing but the gradient is averaged.
    """
    reducer, optimizer, norm = run.reducer, run.optimizer, math.nan
    params, own_params = reducer.params, reducer.params[reducer.slice]
    loss_sum, seen, start = 0.0, 0, time.perf_counter()
    for batch in run.order.steps(run.step // run.order.steps_per_epoch):
        losses = [
            shard_loss_and_grad_sum(run, params, batch, shard, out=reducer.buffer(shard))
            for shard in world.mine(batch.num_shards)
        ]
        all_losses, stopping = reducer.report(losses, stop.asked_at is not None)
        batch_loss_sum = finite_sum(all_losses, batch, run)
        gradient_sum = reducer.sum()
        if config.clip_norm is not None:
            norm = reducer.norm(gradient_sum) / batch.size
        optimizer.update(own_params, gradient_sum, batch.step, norm, num_examples=batch.size)
        reducer.share()

        run.step, seen, loss_sum = run.step + 1, seen + batch.size, loss_sum + batch_loss_sum
        progress.step(run.step, batch_loss_sum / batch.size)
        if config.log_every is not None and run.step % config.log_every == 0:
            write(run.line(seen, norm) | {"loss": batch_loss_sum / batch.size})
        if stopping:
            run.stopped = "Ctrl-C"
        if stopping or run.step == run.num_steps:
            break
    run.seconds += time.perf_counter() - start
    metrics = run.line(seen, norm) | {"train_loss": loss_sum / seen, "seconds": run.seconds}
    run.examples += seen
    return metrics


def shard_loss_and_grad_sum(
    run: Training, params: Floats, batch: Batch, shard: int, out: Floats
) -> float:
    """Return a shard's loss sum and write its gradient sum to `out` [n]; zeros for no example."""
    examples = batch.shard(shard)
    if len(examples) == 0:
        out[:] = 0
        return 0.0
    x, y = run.feed[examples]
    return run.model.loss_and_grad_sum(params, x, y, out, partial(batch.rng, shard))


def finite_sum(losses: list[float], batch: Batch, run: Training) -> float:
    """Return the sum of the shards' losses; raise InputError, on every rank, if it isn't finite."""
    loss_sum = tree_sum(losses)
    if math.isfinite(loss_sum):
        return loss_sum
    shard = int(np.argmin(np.isfinite(losses)))
    raise InputError(
        f"the loss of step {batch.step + 1} (epoch {batch.epoch + 1}), shard {shard} is "
        f"{losses[shard]}: stopped before the update. Try a learning rate below "
        f"{run.optimizer.rate(batch.step):g}, --clip-norm 1, or targets on a smaller scale",
        everywhere=True,
    )
