"""A table of stored runs: what sets them apart, how good they became, and how they stand."""

import contextlib
import os
from pathlib import Path
from typing import Any

from dptrain.checked import Plain
from dptrain.plot.runs import apart, read_lines, written
from dptrain.record import rundir
from dptrain.record.files import lock, names_in, open_plain, read_object
from dptrain.words import InputError, aligned, nearest, shown

BEST = {"train_loss": min, "train_accuracy": max, "validation_loss": min,
        "validation_accuracy": max, "validation_label_accuracy": max,
        "validation_rmse": min, "validation_r2": max}  # fmt: skip
"""The metrics that are told, and which of an epoch's is the best."""

SIGNALS = ("SIG", "Ctrl-C")
"""How what stopped a run begins, where it can go on; an early end by --patience is an end."""


def runs_in(directory: Path) -> list[Plain]:
    """Return a row for each run in a directory, by name: state, settings that differ, best metrics.

    Local: reads only. A run that can't be read has a row with its state alone. Raises InputError
    where the directory can't be read, or holds no run.
    """
    runs = []
    with contextlib.suppress(OSError):  # as of one that is not there
        found = (directory / name for name in names_in(directory))
        runs = [path for path in found if rundir.holds_run(path)]
    if not runs:
        what = "is a run" if rundir.holds_run(directory) else "holds no run"
        what = what if directory.is_dir() else "is no directory"
        raise InputError(f"{directory} {what}; name the directory that runs are in")
    return [
        {"run": path.name, "state": state(path), "epochs": 0} | own | best(path)
        for path, own in zip(runs, apart(runs, left_out=["epochs"]), strict=True)
    ]


def state(run: Path) -> str:
    """Return "going on", "done", "stopped" (saved, to go on later) or "died"."""
    receipt = run / rundir.RECEIPT
    if os.path.lexists(receipt):
        with contextlib.suppress(OSError):  # may not be written here: nobody can tell
            held = lock(receipt)
            if held is None:
                return "going on"
            os.close(held)
    try:
        with open_plain(run / rundir.SUMMARY, rundir.SETTINGS) as file:
            summary = read_object(file.read())
    except (OSError, ValueError):
        return "died"
    signal = str(summary.get("stopped")).startswith(SIGNALS)
    return "stopped" if signal else "done"


def best(run: Path) -> Plain:
    """Return how many epochs a run has done, and the best of each metric."""
    lines: list[dict[str, float]] = []
    with contextlib.suppress(InputError):
        lines = read_lines(run / rundir.METRICS)
    values = {key: [line[key] for line in lines if key in line] for key in BEST}
    epochs = int(max((line.get("epoch", 0) for line in lines if "train_loss" in line), default=0))
    return {"epochs": epochs} | {key: BEST[key](own) for key, own in values.items() if own}


def ordered(rows: list[Plain], column: str, *, reverse: bool) -> list[Plain]:
    """Return rows by a column, numbers before texts; those without a value come last."""
    names = dict.fromkeys(name for row in rows for name in row)
    if column not in names:
        raise InputError(f"no column {column!r} to sort by; {nearest(column, names)}")
    known = [row for row in rows if row.get(column) is not None]
    known.sort(key=lambda row: _rank(row[column]), reverse=reverse)
    return known + [row for row in rows if row.get(column) is None]


def _rank(value: Any) -> tuple[bool, float | str]:
    return (False, value) if isinstance(value, int | float) else (True, str(value))


def text(rows: list[Plain]) -> str:
    """Return rows as a table for people, columns as wide as their widest cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[name.replace("_", " ") for name in names]]
    for row in rows:
        values = [row.get(name) for name in names]
        cells.append(["" if value is None else shown(written(value)) for value in values])
    return "\n".join(aligned(cells))
