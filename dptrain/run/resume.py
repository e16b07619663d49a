"""Where a run goes on from: its newest checkpoint that is whole, or its beginning."""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dptrain.arrays import Forms
from dptrain.config import InputError
from dptrain.model import is_own
from dptrain.record import checkpoint, files, receipt, rundir
from dptrain.run.identity import FREE, LENGTH
from dptrain.train.state import check

LOCK_WAIT = 30
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
    metrics: list[bytes] | None = None
    """The lines of metrics that can be read, where some that the checkpoint counts on can't."""


def lock(run: Path) -> int:
    """Make sure that no other process writes to a run, for as long as this one lives.

    Returns the file descriptor that holds the lock. InputError where another process has it.
    """
    deadline = time.monotonic() + LOCK_WAIT
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
    *,
    force: bool = False,
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
    force
        Go on without lines of metrics that are gone or damaged: nothing depends on them.

    Raises
    ------
    InputError
        The run can't go on as it is now, or its receipt lacks lines that the checkpoint counts on,
        or its metrics do.
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
        if receipt.head_at(run, lines["receipt_lines"]) != lines["receipt_sha256"]:
            raise InputError(
                f"{run / rundir.RECEIPT} is not the receipt of {path.name}: its line "
                f"{lines['receipt_lines']} is another"
            )
        history, left = _history(run, lines["metrics_lines"], force, warn)
        lines["metrics_lines"] = lines["metrics_lines"] if left is None else len(left)
        return Start(arrays, state, history, state["run"], lines, metrics=left)
    begun = receipt.first_line(run) if before is None else None
    if begun is not None:
        agree(begun.first)
        start = {"metrics_lines": 0, "receipt_lines": 1, "receipt_sha256": begun.head}
        return Start(run=begun.first, lines=start)
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
        if type(number) is not int or not (name == "receipt_lines") <= number < sys.maxsize:
            raise ValueError(f"its {name} are {number!r}")
    if not isinstance(state.get("receipt_sha256"), str):
        raise ValueError(f"its receipt_sha256 is {state.get('receipt_sha256')!r}")
    return {**found, "receipt_sha256": state["receipt_sha256"]}


def _history(
    run: Path, num_lines: int, force: bool, warn: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[bytes] | None]:
    """Return the epochs' metrics among a run's first lines of metrics.

    Where some of these lines are missing or damaged, the second are those that can be read.

    Raises
    ------
    InputError
        So it is, and `force` is not given.
    """
    lines = rundir.metrics_lines(run, num_lines)
    fault = "" if len(lines) == num_lines else f"lines {len(lines) + 1} to {num_lines} are missing"
    history, left = [], []
    for number, line in enumerate(lines, 1):
        try:
            found = rundir.numbers_of(line)
            if "train_loss" in found:
                if type(found["step"]) is not int or type(found["seconds"]) is not float:
                    raise ValueError("an epoch lacks step or seconds")
                history.append(found)
            left.append(line)
        except (ValueError, KeyError) as error:
            fault = fault or f"line {number} is damaged: {error}"
    if not fault:
        return history, None
    fault = f"{run / rundir.METRICS}: {fault}"
    if not force:
        raise InputError(f"{fault}. No result depends on them: --force goes on without, noted")
    warn(f"{fault}; the run goes on without")
    return history, left


def settings_of(run: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """Return the settings that a run goes on with, by their options' names.

    They are those of config.toml. Where that is lost or damaged, what decides the bytes is taken
    from the newest checkpoint that is whole, or else from the receipt, and `warn` says so.

    Raises
    ------
    InputError
        There is no run, or its model is one of one's own.
    """
    begun = None
    with contextlib.suppress(InputError):  # what is wrong with it is said where the run goes on
        begun = receipt.first_line(run)
    stored = {} if begun is None else begun.first
    if is_own(stored.get("model")):
        raise InputError(
            f"{run} has a model of one's own, {stored['model'].get('class')}, which no setting "
            "makes: go on with it from Python, by dptrain.fit(model, ..., out=..., resume=True)"
        )
    config: dict[str, Any] = {}
    try:
        config = rundir.read_config(run)
        own = stored.get("settings", config)
        names = {**own, **config}.keys() - {*FREE, *LENGTH, "shards", "threads"}
        other = sorted(name for name in names if own.get(name) != config.get(name))
        if not other:
            return config
        fault = f"{run / rundir.CONFIG} is not as the run was: {', '.join(other)}"
    except InputError as error:
        path = run / rundir.CONFIG
        if begun is None or (files.is_there(path) and (path.is_symlink() or not path.is_file())):
            raise
        fault = str(error)
    settings = stored["settings"]
    for step in reversed(checkpoint.steps_of(run)):
        with contextlib.suppress(checkpoint.DamagedError, OSError, KeyError, TypeError):
            settings = {**checkpoint.read(checkpoint.path_of(run, step))[1]["run"]["settings"]}
            break
    warn(f"{fault}; the run goes on with its own settings, and the file is written again")
    kept = LENGTH if any(name in config for name in LENGTH) else ()
    return {k: v for k, v in settings.items() if k not in kept} | {
        k: v for k, v in config.items() if k in (*FREE, *kept)
    }
