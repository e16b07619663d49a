"""How a run shows itself while it goes on: a bar where people watch, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from dptrain import streams
from dptrain.config import shown


def duration(seconds: float) -> str:
    """Return a time for people: 0.8 s, 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def measures(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return metrics in one line, such as "train loss 0.123, validation accuracy 0.97"."""
    kinds = ("loss", "accuracy", "rmse", "mae", "r2")
    found = [(k.removeprefix(prefix), v) for k, v in values.items() if k.startswith(prefix)]
    named = [(k.replace("_", " "), v) for k, v in found if k.endswith(kinds)]
    return ", ".join(f"{name} {value:.4g}" for name, value in named)


class Silence:
    """No progress at all: ranks above 0, and --quiet."""

    def step(self, step: int, loss: float) -> None:
        """Say that a step, counted from 1, has been done, with its mean loss."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Say what an epoch has come to; what is of a step alone, with `loss`, is left out."""

    def warn(self, text: str) -> None:
        """Say what went wrong though the run goes on; said always, and by the first rank only."""
        streams.warn(text)

    def close(self) -> None:
        """End the progress."""


class Lines(Silence):
    """Plain lines: the first and last epoch and one in half a second, or a step in ten seconds."""

    def __init__(self, num_steps: int, first: int, stream: TextIO | None = None) -> None:
        self.num_steps, self.first = num_steps, first
        self.stream = stream or sys.stderr
        self.start = self.last = time.monotonic()

    def _say(self, step: int, text: str) -> None:
        self.last = time.monotonic()
        pace = (self.last - self.start) / max(1, step - self.first)
        left = duration(pace * (self.num_steps - step))
        width = len(str(self.num_steps))
        line = f"step {step:{width}}/{self.num_steps}  {text}  {left} left"
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to end a run
            print(line, file=self.stream, flush=True)

    def step(self, step: int, loss: float) -> None:
        if time.monotonic() - self.last >= 10:
            self._say(step, f"loss {loss:.4g}")

    def metrics(self, values: Mapping[str, float]) -> None:
        step, epoch = int(values["step"]), values["epoch"]
        due = epoch == 1 or step == self.num_steps or time.monotonic() - self.last >= 0.5
        if due and "loss" not in values:
            self._say(step, f"epoch {epoch}  {measures(values)}")


class Bar(Silence):
    """A bar with the time left, for a terminal."""

    def __init__(self, num_steps: int, first: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("step", MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(compact=True))
        self.bar = Progress(*columns, "{task.description}", console=Console(stderr=True))
        self.task = self.bar.add_task("", total=num_steps, completed=first)
        self.bar.start()

    def step(self, step: int, loss: float) -> None:  # noqa: ARG002 (the epoch's loss is steadier)
        self.bar.update(self.task, completed=step)

    def metrics(self, values: Mapping[str, float]) -> None:
        if "loss" not in values:
            self.bar.update(self.task, description=f"epoch {values['epoch']}  {measures(values)}")

    def warn(self, text: str) -> None:
        """Above the bar."""
        self.bar.console.print(f"dptrain: warning: {shown(text)}", markup=False, highlight=False)

    def close(self) -> None:
        self.bar.stop()


def progress(num_steps: int, first: int, *, quiet: bool) -> Silence:
    """Return the progress that fits: none, a bar where standard error is a terminal, lines.

    `first` steps of all have been done before.
    """
    if quiet:
        return Silence()
    return Bar(num_steps, first) if sys.stderr.isatty() else Lines(num_steps, first)
