"""The metrics of stored runs, read as curves; a run that is being written can be read as well."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from dptrain.plot.apart import labels
from dptrain.record.files import raw_lines_of, read_object
from dptrain.record.rundir import METRICS
from dptrain.words import InputError

Points = list[tuple[float, float]]
Curves = dict[str, Points]
"""A run's curves, by column."""

HIGHEST = 1e100
"""What is larger, as of a run that diverges, is left out like NaN: axes would overflow."""

MOST_BYTES = 2**28
"""Bytes of metrics that are read: of a million lines and more."""


@dataclass(frozen=True)
class Run:
    """A run's name, what sets it apart from others, and the numbers in its lines of metrics."""

    name: str
    label: str
    lines: list[dict[str, float]]

    def curves(self, x: str, columns: Sequence[str]) -> Curves:
        """Return the curves of some columns over another one; only those that have a point.

        Lines of epochs have a train_loss, lines of steps have none. Of a column that both have,
        such as the learning rate, the lines are taken that have more: a curve is never of both.
        """
        found = {}
        for column in columns:
            kinds: tuple[Points, Points] = ([], [])
            for line in self.lines:
                if x in line and column in line:
                    kinds["train_loss" in line].append((line[x], line[column]))
            if any(kinds):
                found[column] = max(kinds, key=len)
        return found


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Return the runs in some directories, each once: the shortest names that differ, and labels.

    Raises InputError for what is no run's directory, and metrics that are damaged or have no line.
    """
    whole = (os.path.abspath(path) for path in paths)  # noqa: PTH100 (links keep their names)
    found = dict.fromkeys(map(Path, whole))
    lines = [read_lines(path / METRICS) for path in found]
    for depth in count(1):
        names = ["/".join(path.parts[-depth:]) for path in found]
        if len(set(names)) == len(found):
            break
    return [Run(*run) for run in zip(names, labels([*found], names), lines, strict=True)]


def read_lines(path: Path) -> list[dict[str, float]]:
    """Return what `metrics.jsonl` holds; a last line that is only half there is left out."""
    lines: list[dict[str, float]] = []
    try:
        for number, text in enumerate(raw_lines_of(path, MOST_BYTES), 1):
            try:
                lines.append(_numbers(text))
            except (ValueError, OverflowError):
                if text.endswith(b"\n"):
                    raise InputError(
                        f"{path}, line {number} is no line of metrics: {text[:40]!r}; restore the "
                        "file, or take that line out"
                    ) from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name the directory of a run") from None
    if not lines:
        raise InputError(f"{path} has no line yet; wait until its first epoch is done")
    return lines


def _numbers(text: bytes) -> dict[str, float]:
    """Return the numbers of a JSON object that an axis can hold; ValueError where it is none."""
    values = read_object(text).items()
    numbers = {key: float(value) for key, value in values if isinstance(value, int | float)}
    return {sys.intern(key): value for key, value in numbers.items() if abs(value) < HIGHEST}
