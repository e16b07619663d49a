"""What a run keeps while it goes on: receipt and checkpoints; and how it is ended."""

import time
from collections.abc import Callable

from dptrain.arrays import name_of
from dptrain.config import interval
from dptrain.guard import GUARD, Ask
from dptrain.order import Batch
from dptrain.record.writer import Writer
from dptrain.reduce.digest import digest, first_difference
from dptrain.run.config import Identity, Saved
from dptrain.streams import warn
from dptrain.train.control import Control
from dptrain.train.recheck import Recheck, WrongError
from dptrain.train.state import Metrics, Training, snapshot

OnEpoch = Callable[[Metrics], object]
"""Is given an epoch's metrics; returns whether the run is to end."""

BY_FUNCTION = "on_epoch ended it"
"""Why a run has stopped that such a function has ended."""


class RunControl(Control):
    """Keeps receipt and checkpoints, and ends a run where a rank is asked to.

    Every rank has one, and the first one's writes.

    `writer`: the files, on rank 0. `identity`: what decides the run's bytes, for the checkpoints;
    None for a run that leaves no files. `on_epoch`: see `fit`.
    """

    def __init__(
        self,
        run: Training,
        writer: Writer | None,
        identity: Identity | None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.run, self.config, self.world, self.writer = run, run.config, run.world, writer
        self._identity, self._on_epoch = identity, on_epoch
        self._every, self._unit = interval(run.config.checkpoint_every)
        self._due = False
        self._start = time.monotonic()
        self._next = self._start + min(self._every, 1)
        self._began = run.examples, run.seconds
        every = run.config.recheck_every
        # which must not hold this: a run's memory goes with it at once
        self._recheck = every and Recheck(
            run, every, lambda text: (warn if writer is None else writer.warn)(text)
        )

    @property
    def examples_per_second(self) -> float:
        """How fast these ranks have trained; what was done before the run went on is not theirs."""
        examples, seconds = self._began
        took = self.run.seconds - seconds
        return (self.run.examples - examples) / took if took else 0.0

    def before_step(self, batch: Batch) -> None:
        """Have a shard computed twice where that is due; see `Control` and `Recheck`."""
        if self._recheck:
            self._recheck.before_step(batch)

    def before_update(self) -> int:
        """Ask what was asked of this rank; on rank 0 also to save, by the clock, one at a time.

        Copies are compared: after the update each slice comes from its owner, and a slip in
        another's copy would be gone. Collective: every rank must call this.
        """
        if len(self.run.reducer.copies) > 1 and (self.run.step + 1) % self.config.audit_every == 0:
            self.audit()
        self.world.beat()
        timed = self._unit == "seconds" and time.monotonic() >= self._next
        if timed and self.writer is not None and not self.writer.busy:
            return GUARD.asked | Ask.SAVE
        return GUARD.asked

    def asked(self) -> Ask:
        """Return what this rank has been asked to do so far."""
        return GUARD.asked

    def after_step(self, batch: Batch, loss: float, asked: int) -> None:
        """Add to the receipt, save or end the run where that is due; see `Control`."""
        run, asks = self.run, Ask(asked) if asked else None
        if self._identity is not None:
            due = run.epoch_is_over or run.step % self.config.steps_between_hashes == 0
            params = digest(self.world, run.reducer.params) if due else None
            if self.writer is not None:
                self.writer.seconds = run.seconds
                self.writer.step(run.step, batch.rows, loss, params)
        if (asks and Ask.SAVE in asks) or (self._unit == "steps" and run.step % self._every == 0):
            self._due = True
        if asks and asks.stop:
            self.stop(asks)
        elif self._due and not run.epoch_is_over:  # else once its metrics are there
            self.save()

    def after_epoch(self) -> None:
        """Save where that is due, and where the run ends; see `Control`."""
        run = self.run
        if self._on_epoch is not None:
            ends = any(self.world.allgather(bool(self._on_epoch(dict(run.history[-1])))))
            if ends and not run.stopped and run.step < run.num_steps:
                run.stopped = BY_FUNCTION
        by_epochs = self._unit == "epochs" and run.measured % self._every == 0
        if self._due or by_epochs or run.stopped or run.step == run.num_steps:
            self.save()

    def stop(self, asked: Ask) -> None:
        """Save the run and end it; see `Control`."""
        self.run.stopped, self.run.interrupted = asked.stop, True
        self.save()
        if self.writer is not None:
            self.writer.wait()

    def save(self) -> None:
        """Start to write a checkpoint of the run as it is. Collective."""
        run = self.run
        now = time.monotonic()
        self._due, self._next = False, now + min(self._every, now - self._start)  # sooner at first
        if len(run.reducer.copies) > 1:
            self.audit()
        if self._identity is None:
            return
        if self.writer is not None:
            with self.world.excused():
                self.writer.wait()  # so that there is one copy of the state at a time
        tensors, state = snapshot(run)
        if self.writer is not None:
            saved = Saved(state, self.writer.files(), self._identity)
            name, sign = f"validation_{self.config.watched[0]}", self.config.watched[1]
            known = {int(e["step"]): sign * e[name] for e in run.history if name in e}
            with self.world.excused():
                self.writer.save(run.step, tensors, saved.plain(), known)

    def audit(self) -> None:
        """Compare the copies of the parameters. Collective.

        Raises WrongError where one differs from the first.
        """
        run = self.run
        found = first_difference(self.world, run.reducer.params, run.reducer.copies)
        if found is None:
            return
        ranks, entry = found
        name = name_of(run.model.layout, entry)
        raise WrongError(
            f"after step {run.step} the parameters of rank{'s' * (len(ranks) > 1)} "
            f"{', '.join(map(str, ranks))} are not those of rank 0 (first at parameter {entry}, in "
            f"{name}): memory or network at fault, or a model whose result depends on the rank. "
            "The run ends here; checkpoints are only written where copies agree: go on from the "
            "last with --resume",
            everywhere=True,
        )

    def close(self) -> None:
        """Write and close the files."""
        if self.writer is not None:
            self.writer.close()
