"""Where a run goes on from: its newest checkpoint that is whole, or its beginning."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dptrain.config import InputError
from dptrain.record import checkpoint, files, receipt, rundir
from dptrain.record.tensors import Forms
from dptrain.train.state import check

PATIENCE = 30
"""Seconds to wait for a process that still writes to the run, such as one about to end."""


@dataclass
class Start:
    """What a run goes on from; without arrays, from before its first step."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    run: dict[str, Any] | None = None
    """What the run was; None where it has not said so yet."""
    lines: dict[str, Any] = field(default_factory=dict)
    """Where its files stand."""
    seconds: float = 0.0
    """How long it has trained, what is to be done again included."""


def lock(run: Path) -> int:
    """Make sure that no other process writes to a run, for as long as this one lives.

    Returns the file descriptor that holds the lock. InputError where another process has it.
    """
    deadline = time.monotonic() + PATIENCE
    while (held := files.lock(run / rundir.RECEIPT)) is None:
        if time.monotonic() > deadline:
            raise InputError(
                f"{run} is being written by another process; let it finish, or end it, first"
            )
        time.sleep(0.2)
    return held


def find(
    run: Path,
    wanted: Forms,
    agree: Callable[[dict[str, Any]], object],
    warn: Callable[[str], None],
    before: int | None = None,
) -> Start:
    """Return the newest state of a run that is whole: of its checkpoints, or else its beginning.

    Parameters
    ----------
    run
        The run directory.
    wanted
        The types and shapes that the state's arrays must have.
    agree
        Called with what the run was; raises InputError where it can't go on as it is now.
    warn
        Called with what is wrong with a checkpoint that is passed over.
    before
        Only checkpoints after at most so many steps, to look at; None to go on with the run:
        then damaged ones are renamed.

    Raises
    ------
    InputError
        The run can't go on as it is now, or its metrics or receipt lack lines that the checkpoint
        counts on.
    """
    steps = [step for step in checkpoint.steps_of(run) if before is None or step <= before]
    for step in reversed(steps):
        path = checkpoint.path_of(run, step)
        try:
            arrays, state = _read(path, wanted, agree)
            lines = check_lines(state, step)
        except InputError:
            raise
        except (checkpoint.DamagedError, ValueError) as error:
            others = "the one before it is used"
            if step == steps[0]:
                others = "there is none before it, so the run starts from its beginning"
            warn(f"{path} is damaged ({error}); {others}")
            if before is None:
                checkpoint.set_aside(path)
            continue
        if before is not None:
            return Start(arrays, state)
        if receipt.read(run, lines["receipt_lines"]).head != lines["receipt_sha256"]:
            raise InputError(
                f"{run / rundir.RECEIPT} is not the receipt of {path.name}: its line "
                f"{lines['receipt_lines']} is another"
            )
        history = _history(run, lines["metrics_lines"])
        if state["kept"] > max(0, len(history) - 1):
            raise InputError(f"{run / rundir.METRICS} lacks epoch {state['kept'] + 1}, the best")
        return Start(arrays, state, history, state["run"], lines)
    if before is None and next(files.lines_of(run / rundir.RECEIPT), None) is not None:
        first = receipt.read(run, 1)
        agree(first.first)
        start = {"metrics_lines": 0, "receipt_lines": 1, "receipt_sha256": first.head}
        return Start(run=first.first, lines=start)
    return Start(lines={"metrics_lines": 0, "receipt_lines": 0, "receipt_sha256": ""})


def _read(
    path: Path, wanted: Forms, agree: Callable[[dict[str, Any]], object]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return a checkpoint's arrays and values, checked; see `find`. ValueError where they can't be.

    That the run can't go on as it is now is found before its arrays are taken for damaged.
    """

    def fits(state: dict[str, Any], forms: Forms) -> None:
        if forms != wanted:
            agree(_run_of(state))
            raise ValueError(f"it holds {forms}; needed are {wanted}")

    try:
        arrays, state = checkpoint.read(path, fits)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    agree(_run_of(state))
    check(arrays, state, wanted)
    return arrays, state


def _run_of(state: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says the run is; ValueError where it doesn't."""
    run = state.get("run")
    if not isinstance(run, dict) or not isinstance(run.get("settings"), dict):
        raise ValueError("it does not say what the run is")
    return run


def check_lines(state: dict[str, Any], step: int) -> dict[str, Any]:
    """Return where a run's files stood at the checkpoint of a step; ValueError if that can't be."""
    if state.get("step") != step:
        raise ValueError(f"it is of step {state.get('step')!r}")
    found = {name: state.get(name) for name in ("metrics_lines", "receipt_lines")}
    for name, number in found.items():
        if type(number) is not int or number < 0:
            raise ValueError(f"its {name} are {number!r}")
    return {**found, "receipt_sha256": state.get("receipt_sha256")}


def _history(run: Path, num_lines: int) -> list[dict[str, Any]]:
    """Return the epochs' metrics among a run's first lines of metrics."""
    found = [line for line in rundir.read_metrics(run, num_lines) if "train_loss" in line]
    for line in found:
        if type(line.get("step")) is not int or type(line.get("seconds")) is not float:
            raise InputError(f"{run / rundir.METRICS} is damaged: an epoch lacks step or seconds")
    return found
