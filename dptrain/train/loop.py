"""The training loop: the step stands in `train_epoch`, to be read in one screen."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.config import InputError, TrainConfig
from dptrain.data.prepare import Data, Rows
from dptrain.keys import Purpose, generator
from dptrain.model import Model
from dptrain.optim import Optimizer, learning_rate, transforms
from dptrain.order import Batch, Order
from dptrain.record.progress import Silence
from dptrain.reduce import REDUCERS, Reducer, tree_sum
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
    """A run in progress: what its steps read, and what they have come to so far.

    `params` [n] is whole and the same on every rank between steps.
    """

    model: Model
    order: Order
    reducer: Reducer
    optimizer: Optimizer
    params: Floats
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
    params = model.initial_params(generator(config.seed, Purpose.PARAMS))
    num_steps = config.num_steps(order.steps_per_epoch)
    return Training(model, order, reducer, optimizer, params, num_steps)


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
    best_loss, best_params = math.inf, run.params
    stop = Stop()
    with stop.on_interrupt(), np.errstate(all="ignore"):  # what is not finite ends the run by name
        while run.step < run.num_steps and not run.stopped:
            metrics = train_epoch(run, data.train, config, world, progress, write, stop)
            if data.validation is not None:
                found = evaluate(run.model, run.params, data.validation, world)
                metrics |= {f"validation_{name}": value for name, value in found.items()}
            run.history.append(metrics)
            write(metrics)
            progress.epoch(metrics)
            if config.patience is None:
                run.kept = len(run.history) - 1
            elif metrics["validation_loss"] < best_loss:
                run.kept = len(run.history) - 1
                best_loss, best_params = metrics["validation_loss"], run.params.copy()
            elif len(run.history) - 1 - run.kept >= config.patience:
                run.stopped = f"no better validation loss since epoch {run.kept + 1}"
    if config.patience is not None:
        run.params[:] = best_params


def train_epoch(
    run: Training,
    rows: Rows,
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
    model, reducer, params = run.model, run.reducer, run.params
    loss_sum, examples, norm, start = 0.0, 0, math.nan, time.perf_counter()
    epoch = run.step // run.order.steps_per_epoch
    for batch in run.order.steps(epoch):
        losses = [
            shard_loss_and_grad_sum(model, params, rows, batch, shard, reducer.buffer(shard))
            for shard in world.mine(batch.num_shards)
        ]
        all_losses, stopping = reducer.report(losses, stop.asked_at is not None)
        check_finite(all_losses, batch, run)
        gradient = reducer.sum()
        gradient /= batch.size
        if config.clip_norm is not None:
            norm = reducer.norm(gradient)
        run.optimizer.update(params[reducer.slice], gradient, batch.step, norm)
        reducer.share(params)

        run.step += 1
        batch_loss_sum = float(tree_sum(all_losses))
        loss_sum, examples = loss_sum + batch_loss_sum, examples + batch.size
        line = {"epoch": epoch + 1, "step": run.step, "examples": run.examples + examples}
        rate = run.optimizer.rate(batch.step)
        more = {"learning_rate": rate} | ({} if math.isnan(norm) else {"gradient_norm": norm})
        if config.log_every is not None and run.step % config.log_every == 0:
            write({**line, "loss": batch_loss_sum / batch.size, **more})
        progress.step(run.step, batch_loss_sum / batch.size)
        if stopping:
            run.stopped = "Ctrl-C"
        if stopping or run.step == run.num_steps:
            break
    run.seconds += time.perf_counter() - start
    run.examples += examples
    return {**line, "train_loss": loss_sum / examples, **more, "seconds": run.seconds}


def shard_loss_and_grad_sum(
    model: Model, params: Floats, rows: Rows, batch: Batch, shard: int, out: Floats
) -> float:
    """Return a shard's loss sum and write its gradient sum to `out` [n]; zeros for no example."""
    examples = batch.shard(shard)
    if len(examples) == 0:
        out[:] = 0
        return 0.0
    x, y = rows.gather(examples, model.dtype)
    return model.loss_and_grad_sum(params, x, y, out, batch.rng(shard))


def check_finite(losses: Floats, batch: Batch, run: Training) -> None:
    """Raise InputError, on every rank alike, where a shard's loss is not finite."""
    if np.isfinite(losses).all():
        return
    shard = int(np.argmin(np.isfinite(losses)))
    error = InputError(
        f"the loss of step {batch.step + 1} (epoch {batch.epoch + 1}), shard {shard} is "
        f"{losses[shard]}: stopped before the update. Try a learning rate below "
        f"{run.optimizer.rate(batch.step):g}, --clip-norm 1, or targets on a smaller scale"
    )
    error.everywhere = True
    raise error
