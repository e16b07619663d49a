"""What a run leaves behind while it goes on: metrics, receipt, checkpoints, and the ends of it."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from dptrain.arrays import name_of
from dptrain.config import InputError, TrainConfig, interval
from dptrain.guard import GUARD, Ask
from dptrain.order import Batch
from dptrain.record.progress import Silence
from dptrain.record.store import Store
from dptrain.reduce.digest import digest, first_difference
from dptrain.train.loop import Recorder, Training
from dptrain.train.state import snapshot
from dptrain.world import World


class DriftError(InputError):
    """Copies of the parameters that should be equal are not."""

    status = 70


class RunRecorder(Recorder):
    """Every rank has one, and the first one's writes.

    Parameters
    ----------
    run, config, world
        The run, its settings and its ranks.
    progress
        What people see.
    store
        The files, on rank 0.
    identity
        What decides the run's bytes, for the checkpoints; None for a run that leaves no files.
    """

    def __init__(
        self,
        run: Training,
        config: TrainConfig,
        world: World,
        progress: Silence,
        store: Store | None,
        identity: dict[str, Any] | None,
    ) -> None:
        self.run, self.config, self.world = run, config, world
        self.progress, self.store = progress, store
        self._identity = identity
        self._every, self._unit = interval(config.checkpoint_every)
        self._hash_every = config.steps_between_hashes
        self._due = False
        self._start = time.monotonic()
        self._next = self._start + min(self._every, 1)
        self._began = run.examples, run.seconds
        if store is not None:
            store.warn = progress.warn

    @property
    def examples_per_second(self) -> float:
        """How fast these ranks have trained; what was done before the run went on is not theirs."""
        examples, seconds = self._began
        took = self.run.seconds - seconds
        return (self.run.examples - examples) / took if took else 0.0

    def asks(self) -> int:
        """See `Recorder.asks`: on rank 0 also to save, by the clock, one checkpoint at a time.

        Here, where the gradients are there and the update is not, copies are compared: after it
        each slice comes from its owner, and a slip in another's copy would be gone.
        """
        if len(self.run.reducer.copies) > 1 and (self.run.step + 1) % self.config.audit_every == 0:
            self.audit()
        self.world.beat()
        asked = GUARD.asked
        if (
            self._unit == "seconds"
            and self.store is not None
            and time.monotonic() >= self._next
            and not self.store.busy
        ):
            asked |= Ask.SAVE
        return asked

    def asked(self) -> Ask:
        """See `Recorder.asked`."""
        return GUARD.asked

    def step(self, batch: Batch, loss: float, asked: int) -> None:
        """See `Recorder.step`."""
        run, number = self.run, self.run.step
        if self._identity is not None:
            params = self._digest_if_due()
            if self.store is not None:
                self.store.seconds = run.seconds
                self.store.step(number, batch.rows, loss, params)
        if self.config.log_every is not None and number % self.config.log_every == 0:
            self._write(run.line(run.norm) | {"loss": loss})
        if (asked and Ask.SAVE in Ask(asked)) or (
            self._unit == "steps" and number % self._every == 0
        ):
            self._due = True
        if asked and Ask(asked).stop:
            self.stop(Ask(asked))
        elif self._due and not run.epoch_is_over:  # else once its metrics are there
            self.save()
        self.progress.step(number, loss)

    def _digest_if_due(self) -> str | None:
        """Return the parameters' hash every k steps and where an epoch ends; None else."""
        if self.run.step % self._hash_every and not self.run.epoch_is_over:
            return None
        return digest(self.world, self.run.reducer.params)

    def epoch(self, metrics: dict[str, Any]) -> None:
        """See `Recorder.epoch`."""
        run = self.run
        self._write(metrics)
        self.progress.epoch(metrics)
        by_epochs = self._unit == "epochs" and run.measured % self._every == 0
        if self._due or by_epochs or run.stopped or run.step == run.num_steps:
            self.save()

    def stop(self, asked: Ask) -> None:
        """See `Recorder.stop`."""
        self.run.stopped, self.run.interrupted = asked.stop, True
        self.save()
        if self.store is not None:
            self.store.wait()

    def save(self) -> None:
        """Start to write a checkpoint of the run as it is. Collective."""
        run = self.run
        now = time.monotonic()
        self._due, self._next = False, now + min(self._every, now - self._start)  # sooner at first
        if len(run.reducer.copies) > 1:
            self.audit()
        if self._identity is None:
            return
        if self.store is not None:
            with self.world.excused():
                self.store.wait()  # so that there is one copy of the state at a time
        tensors, state = snapshot(run)
        if self.store is not None:
            state |= self.store.lines() | {"run": self._identity}
            losses = {line["step"]: line.get("validation_loss") for line in run.history}
            known = {step: loss for step, loss in losses.items() if loss is not None}
            with self.world.excused():
                self.store.save(run.step, tensors, state, known)

    def audit(self) -> None:
        """Compare the copies of the parameters. Collective.

        Raises
        ------
        DriftError
            One differs from the first.
        """
        run = self.run
        found = first_difference(self.world, run.reducer.params, run.reducer.copies)
        if found is None:
            return
        ranks, entry = found
        name = name_of(run.model.layout, entry)
        raise DriftError(
            f"after step {run.step} the parameters of rank{'s' * (len(ranks) > 1)} "
            f"{', '.join(map(str, ranks))} are not those of rank 0 (first at parameter {entry}, in "
            f"{name}): memory or network at fault, or a model whose result depends on the rank. "
            "The run ends here; checkpoints are only written where copies agree: go on from the "
            "last with --resume",
            everywhere=True,
        )

    def _write(self, metrics: dict[str, Any]) -> None:
        if self.store is not None:
            self.store.metrics(metrics)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Write and close the files when the block is left, however it is."""
        try:
            yield
        finally:
            if self.store is not None:
                self.store.close()
            self.progress.close()
