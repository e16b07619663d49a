"""How a run shows itself while it goes on: a bar where people watch, plain lines elsewhere."""

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

from dptrain import streams
from dptrain.words import shown


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
    """No progress at all: ranks above 0, and --quiet; and what sinks begin from, see `Sink`."""

    def step(self, step: int, loss: float) -> None:
        """Say that a step, counted from 1, has been done, with its mean loss."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """Say what an epoch has come to; what is of a step alone, with `loss`, is left out."""

    def warn(self, text: str) -> None:
        """Say what went wrong though the run goes on; said always, and by the first rank only."""
        streams.warn(text)

    def close(self) -> None:
        """End the progress."""


MOST = 50
"""Epochs of a run that get a line each; of more, every second, third, ... does."""


def fitted(values: Mapping[str, float], step: str, left: str, width: int) -> str:
    """Return an epoch's line: the fullest that there is room for."""
    train, held_out = (measures(values, f"{k}_").split(", ") for k in ("train", "validation"))
    epoch, loss, two = f"epoch {values['epoch']}  ", train[:1], held_out[:2]

    def told(train: list[str], held_out: list[str], *, long: bool = False) -> str:
        kinds = ("train ", "validation ") if long else ("", "valid ")
        parts = zip(kinds, (train, held_out), strict=True)
        line = ", ".join(kind + ", ".join(part) for kind, part in parts if any(part))
        return epoch + line.replace("valid loss", "valid")

    lines = [
        f"{step}{told(train, held_out[:number], long=True)}  {left} left"
        for number in range(max(2, len(held_out)), 1, -1)
    ]
    lines += [f"{told(train, two, long=True)}  {left} left", f"{told(train, two)}  {left}"]
    lines += [told(train, two), told(loss, two), told(loss, two[:1])]
    return next((line for line in lines if len(line) <= width), lines[-1])


class Lines(Silence):
    """Plain lines: one an epoch, of hundreds of epochs fewer, or a step in ten seconds."""

    width = 80

    def __init__(self, num_steps: int, first: int) -> None:
        self.num_steps, self.first = num_steps, first
        self.start = self.last = time.monotonic()

    def _left(self, step: int) -> str:
        """Return how much time is left, by the pace of this start."""
        self.last = time.monotonic()
        pace = (self.last - self.start) / max(1, step - self.first)
        return duration(pace * (self.num_steps - step))

    def _step(self, step: int) -> str:
        return f"step {step:{len(str(self.num_steps))}}/{self.num_steps}  "

    def _print(self, line: str) -> None:
        streams.put(line)

    def step(self, step: int, loss: float) -> None:
        if time.monotonic() - self.last >= 10:
            left = self._left(step)
            self._print(f"{self._step(step)}loss {loss:.4g}  {left} left")

    def metrics(self, values: Mapping[str, float]) -> None:
        step, epoch = int(values["step"]), int(values["epoch"])
        every = math.ceil(self.num_steps * epoch / max(1, step) / MOST)
        late = time.monotonic() - self.last >= 10
        if "loss" not in values and (epoch % every == 0 or step == self.num_steps or late):
            self._print(fitted(values, self._step(step), self._left(step), self.width))


class Bar(Lines):
    """The same lines, for a terminal, and below them a bar with the time left."""

    def __init__(self, num_steps: int, first: int) -> None:
        super().__init__(num_steps, first)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("step", MofNCompleteColumn(), BarColumn(20), TimeRemainingColumn(compact=True))
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.width = self.bar.console.width
        self.task = self.bar.add_task("", total=num_steps, completed=first)
        self.bar.start()

    def step(self, step: int, loss: float) -> None:  # noqa: ARG002 (the epoch's loss is steadier)
        self.bar.update(self.task, completed=step)

    def _print(self, line: str) -> None:
        with contextlib.suppress(Exception):  # the terminal is gone: see `streams.put`
            self.bar.console.print(line, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Above the bar."""
        self._print(f"dptrain: warning: {shown(text)}")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.bar.stop()


def progress(num_steps: int, first: int, *, quiet: bool) -> Silence:
    """Return the progress that fits: none, a bar where standard error is a terminal, lines.

    `first` steps of all have been done before.
    """
    if quiet:
        return Silence()
    return Bar(num_steps, first) if streams.is_terminal() else Lines(num_steps, first)
