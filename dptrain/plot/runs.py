"""What stored runs have: settings that set them apart, and metrics, read as curves.

A run that is being written can be read as well.
"""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from dptrain.checked import Plain
from dptrain.config import TrainConfig
from dptrain.record import receipt, rundir
from dptrain.record.files import raw_lines_of, read_object
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


def read_runs(paths: str | Path | Sequence[str | Path]) -> list[Run]:
    """Return the runs in some directories, each once: the shortest names that differ, and labels.

    Raises InputError for what is no run's directory, and metrics that are damaged or have no line.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    if not paths:
        raise InputError("there is no run to be drawn: name its directory")
    whole = (os.path.abspath(path) for path in paths)  # noqa: PTH100 (links keep their names)
    found = dict.fromkeys(map(Path, whole))
    lines = [read_lines(path / rundir.METRICS) for path in found]
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


def apart(runs: Sequence[Path], left_out: Sequence[str] = ()) -> list[Plain]:
    """Return of each run the settings that differ, in the order of the file, but for some.

    What decides no byte, such as where data lies, does not count; other data does. Of a run that
    can't be read there are none. Local: reads only.
    """
    found = [_settings(run) for run in runs]
    known = [own for own in found if own]
    _name_data(known)
    if all(own.get("shards") == _usual_shards(own) for own in known):
        left_out = (*left_out, "shards")  # which follow from the batch size
    keys = dict.fromkeys(key for own in known for key in own if key not in left_out)
    differ = [key for key in keys if any(own.get(key) != known[0].get(key) for own in known)]
    return [{key: own.get(key) for key in differ if own} for own in found]


def labels(runs: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return what each run is called beside the others: what differs, and its name where needed."""
    told = ["; ".join(f"{key} {written(own[key])}" for key in own) for own in apart(runs)]
    return [
        label if label and told.count(label) == 1 else f"{name}: {label}" if label else name
        for name, label in zip(names, told, strict=True)
    ]


def written(value: Any) -> str:
    """Return a setting or a metric as people see it in a table or a legend."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _settings(run: Path) -> Plain:
    """Return the settings that decide a run's bytes; of data, its files' names and its hashes."""
    try:
        found = rundir.read_config(run)
    except InputError:
        return {}
    begun = None
    with contextlib.suppress(InputError):
        begun = receipt.first_line(run)
    files = found.get("data") or ["digits"]
    names = ", ".join(Path(str(file)).name for file in files) if isinstance(files, list) else ""
    content = str(begun.first.get("data")) if begun else names
    free = rundir.FREE
    return {"data": (names, content)} | {k: v for k, v in found.items() if k not in free}


def _name_data(settings: Sequence[Plain]) -> None:
    """Put in the place of names and contents of data: a name where contents differ, else nothing.

    Where contents that differ have one name, they are numbered.
    """
    every = [own["data"] for own in settings]
    contents = [*dict.fromkeys(content for _, content in every)]
    numbered = len({name for name, _ in every}) < len(contents)
    for own, (name, content) in zip(settings, every, strict=True):
        number = f" ({contents.index(content) + 1})" * numbered
        own["data"] = name + number if len(contents) > 1 else None


def _usual_shards(own: Mapping[str, Any]) -> int | None:
    with contextlib.suppress(InputError):
        return TrainConfig(batch_size=own.get("batch-size", 0)).num_shards
    return None
