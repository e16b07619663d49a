"""Where a run goes on from: its newest checkpoint that is whole, or its beginning."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dptrain.arrays import Array, Forms
from dptrain.checked import Plain
from dptrain.model import is_own
from dptrain.record import checkpoint, receipt, rundir
from dptrain.record.files import lines_of
from dptrain.record.files import lock as taken
from dptrain.record.rundir import FREE
from dptrain.record.writer import Files
from dptrain.run.config import Identity, Saved, told
from dptrain.run.identity import LENGTH
from dptrain.streams import warn
from dptrain.train.state import Metrics, State
from dptrain.words import InputError, counted

LOCK_WAIT = 30
"""Seconds to wait for a process that still writes to the run, such as one about to end."""

MOST_DAMAGED = 1000
"""Lines of metrics that are left out until the rest is, too: a file may have millions of them."""


@dataclass
class Start:
    """What a run goes on from; without arrays, from before its first step."""

    arrays: dict[str, Array] = field(default_factory=dict)
    state: State | None = None
    history: list[Metrics] = field(default_factory=list)
    run: Identity | None = None
    """What the run was; None where it has not said so yet."""
    files: Files = field(default_factory=Files)
    """Where its receipt stands."""
    seconds: float = 0.0
    """How long it has trained, what is to be done again included."""
    metrics: list[bytes] = field(default_factory=list)
    """The lines of metrics that it goes on behind."""

    @property
    def step(self) -> int:
        """How many steps have been done."""
        return self.state.step if self.state else 0


def lock(run: Path) -> int:
    """Make sure that no other process writes to a run, for as long as this one lives.

    Returns the file descriptor that holds the lock. InputError where another process has it.
    """
    deadline = time.monotonic() + LOCK_WAIT
    while (held := taken(run / rundir.RECEIPT)) is None:
        if time.monotonic() > deadline:
            raise InputError(f"{run} is being written by another process; let it end, or end it")
        time.sleep(0.2)
    return held


def find(
    run: Path, wanted: Forms, agree: Callable[[Identity], object], before: int | None = None
) -> Start:
    """Return the newest state of a run that is whole: of its checkpoints, or else its beginning.

    Raises InputError where the run can't go on as it is now, or its receipt lacks lines that the
    checkpoint counts on.

    `run`: the run directory. `wanted`: the types and shapes that the state's arrays must have.
    `agree`: called with what the run was; raises InputError where it can't go on as it is now.
    `before`: only checkpoints after at most so many steps, to look at; None to go on with the run:
    then damaged ones are renamed.
    """
    steps = [step for step in checkpoint.steps_of(run) if before is None or step <= before]
    for step in reversed(steps):
        path = checkpoint.path_of(run, step)
        try:
            arrays, saved = _read(path, step, wanted, agree)
        except InputError:
            raise
        except ValueError as error:
            others = "the one before it is used"
            if step == steps[0]:
                others = "there is none before it, so the run starts from its beginning"
            warn(f"{path} is damaged ({error}); {others}")
            if before is None:
                checkpoint.set_aside(path)
            continue
        if before is not None:
            return Start(arrays, saved.state)
        files = saved.files
        if receipt.head_at(run, files.receipt_lines) != files.receipt_sha256:
            raise InputError(
                f"{run / rundir.RECEIPT} is not the receipt of {path.name}: its line "
                f"{files.receipt_lines} is another"
            )
        history, lines = _history(run, saved.state)
        return Start(arrays, saved.state, history, saved.run, files, metrics=lines)
    begun = receipt.first_line(run) if before is None else None
    if begun is None:
        return Start()
    was = told(begun, 0)
    agree(was)
    return Start(run=was, files=Files(1, begun.head))


def _read(
    path: Path, step: int, wanted: Forms, agree: Callable[[Identity], object]
) -> tuple[dict[str, Array], Saved]:
    """Return a checkpoint's arrays and values, checked; see `find`. ValueError where they can't be.

    That the run can't go on as it is now is found before its arrays are taken for damaged.
    """

    def fits(values: Plain, forms: Forms) -> None:
        if forms != wanted:
            agree(Identity.read(values.get("run")))
            name, here, needed = next(receipt.places(forms, wanted))
            raise ValueError(f"its {name} is {here}, and should be {needed}")

    try:
        arrays, values = checkpoint.read(path, fits)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    saved = Saved.read(values, step)
    agree(saved.run)
    return arrays, saved


def _history(run: Path, state: State) -> tuple[list[Metrics], list[bytes]]:
    """Return the epochs' metrics up to a state, and all lines of metrics up to it.

    What can't be read is left out, with a word, and kept in a file of another name: no result
    depends on it.
    """
    path, history, lines, fault = run / rundir.METRICS, list[Metrics](), list[bytes](), ""
    for number, line in enumerate(lines_of(path) if os.path.lexists(path) else (), 1):
        try:
            found = rundir.numbers_of(line)
            if type(found["step"]) is not int or type(found["seconds"]) is not float:
                raise ValueError("it lacks step or seconds")
        except (ValueError, KeyError) as error:
            fault = fault or f"line {number} is damaged: {error}"
            if number - len(lines) > MOST_DAMAGED:
                break
            continue
        of_epoch = "train_loss" in found
        if (found["step"], of_epoch) > (state.step, state.seen == 0):
            break
        lines.append(line)
        if of_epoch:
            history.append(found)
    if fault:
        path.rename(path.with_suffix(".damaged"))
    elif len(history) < state.measured:
        fault = f"it has {len(history)} of {counted(state.measured, 'epoch')}"
    if fault:
        warn(f"{path}: {fault}; the run goes on with what is left")
    return history, lines


def settings_of(run: Path) -> Plain:
    """Return the settings that a run goes on with, by their options' names.

    They are those of config.toml. Where that is lost or damaged, what decides the bytes is taken
    from the newest checkpoint that is whole, or else from the receipt, with a warning. Raises
    InputError where there is no run, or its model is one of one's own.
    """
    begun = None
    with contextlib.suppress(InputError):  # what is wrong with it is said where the run goes on
        begun = receipt.first_line(run)
    stored = {} if begun is None else begun.first
    if is_own(stored.get("model")) and "file" not in stored["model"]:
        raise InputError(
            f"{run} has a model of one's own, {stored['model'].get('class')}, which no setting "
            "makes: go on with it from Python, by dptrain.fit(model, ..., out=..., resume=True)"
        )
    config: Plain = {}
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
        if begun is None or (os.path.lexists(path) and (path.is_symlink() or not path.is_file())):
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
