"""Who may save or end a run, and who is told of it."""

from typing import Protocol

from dptrain.guard import Ask
from dptrain.order import Batch
from dptrain.train.state import Metrics


class Control:
    """Saves a run and ends it, on all ranks alike; this one does neither. See `RunControl`."""

    def before_step(self, batch: Batch) -> None:
        """Look at what is about to be computed; `Training.known` is what has been computed then.

        Collective: every rank must call this.
        """

    def before_update(self) -> int:
        """Return what this rank asks of all, bits of `Ask`, where it is to wait for the others.

        The gradients are there and the update is not. Collective: every rank must call this.
        """
        return 0

    def asked(self) -> Ask:
        """Return what this rank has been asked to do so far."""
        return Ask(0)

    def after_step(self, batch: Batch, loss: float, asked: int) -> None:
        """Keep a step that is done, its mean loss, and do what was asked by any rank.

        Collective: every rank must call this.
        """

    def after_epoch(self) -> None:
        """Keep an epoch that is over and measured. Collective: every rank must call this."""

    def stop(self, asked: Ask) -> None:
        """Save the run and end it. Collective: every rank must call this."""


class Sink(Protocol):
    """Is told of a run, on the first rank alone: it decides nothing, and no rank waits for it."""

    def step(self, step: int, loss: float) -> None:
        """Take the number of steps done, counted from 1, and the last one's mean loss."""

    def metrics(self, values: Metrics) -> None:
        """Take an epoch's metrics, or with `log_every` a step's, which have `loss`."""
