"""How a run gets its directory: a new one, or that of a run which goes on from its checkpoint."""

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dptrain.checked import Plain
from dptrain.record import checkpoint, receipt, rundir
from dptrain.record.files import UNFLUSHED, sync_directory, write_whole, writing
from dptrain.record.writer import Writer
from dptrain.run import resume
from dptrain.run.config import Identity
from dptrain.run.identity import changes, identity
from dptrain.streams import warn
from dptrain.train.state import Training, forms, restore
from dptrain.version import software
from dptrain.words import InputError, counted

Out = str | Path | Callable[[], Path]
"""A run's directory, or what makes a new one."""


def open_run(
    run: Training, out: Out | None, *, go_on: bool, force: bool
) -> tuple[Writer | None, Identity | None]:
    """Make a run's directory, or set the run to where the one in it stood, and open its files.

    Returns the files, on rank 0, and what decides the run's bytes; neither where `out` is None.
    Collective: every rank must call this. Raises InputError where the directory can't be made, or
    the run in it can't go on like this.
    """
    if out is None:
        return None, None
    wanted, start, arrays, changed, writer = forms(run), resume.Start(), {}, {}, None
    now, world, keep = identity(run), run.world, run.config.keep_checkpoints
    with world.together():
        if world.rank == 0:
            origin, ranks = now.model.get("file"), counted(world.size, "rank")
            named = f" --model FILE.py:{origin['model']}" if origin else ""
            again = f"dptrain train --config config.toml{named} repeats the run"
            content = rundir.toml(now.settings, f"{software()}; {ranks}; {again}")
            directory = out() if callable(out) else Path(out)
            with writing(directory), contextlib.ExitStack() as undo:
                lock = _taken(directory, not go_on, undo)
                agree = partial(changes, now=now, force=force)
                start = resume.find(directory, wanted, agree)
                changed = agree(start.run) if start.run else {}
                _check_length(start, run, now.settings)
                over = start.step >= run.num_steps
                if not (over and changed):  # else it stays as it is
                    write_whole(directory / rundir.CONFIG, content)
                changed = {} if over else changed
                if start.metrics and not os.path.lexists(directory / rundir.METRICS):
                    lines = (line + b"\n" for line in start.metrics)  # of one that was damaged
                    write_whole(directory / rundir.METRICS, lines)
                if not sync_directory(directory):
                    warn(f"{directory}: {UNFLUSHED}")
                writer = _open_files(directory, start, changed, now, keep, lock)
                undo.pop_all()  # the lock is the writer's to give back
                arrays, start.arrays, start.seconds = start.arrays, {}, writer.seconds
    start, changed = world.broadcast((start, changed))
    run.seconds = start.seconds
    if start.state:
        restore(run, arrays, start.state, start.history)
        run.stop_without_gain()
    return writer, Identity.read(receipt.merged(start.run.plain(), changed)) if start.run else now


def _taken(directory: Path, new: bool, undo: contextlib.ExitStack) -> int:
    """Lock a run's directory, which is made if it is to be new; see `resume.lock`."""
    if new:
        rundir.check_free(directory)
        directory.mkdir(parents=True, exist_ok=True)
    lock = resume.lock(directory)
    undo.callback(os.close, lock)
    if new:
        rundir.check_free(directory)  # nobody else was quicker
    checkpoint.remove_leftovers(directory)
    return lock


def _check_length(start: resume.Start, run: Training, settings: Plain) -> None:
    """Raise InputError where a run has gone on for longer than is asked for."""
    if start.step > run.num_steps:
        asked = " and ".join(f"{n} {settings[n]}" for n in ("epochs", "steps") if settings[n])
        raise InputError(
            f"the run has done {start.step} steps, and {asked} would be {run.num_steps}; ask for "
            "more, or evaluate it as it is"
        )


def _open_files(
    directory: Path, start: resume.Start, changed: Plain, now: Identity, keep: int, lock: int
) -> Writer:
    """Open a run's files at its start, and note in the receipt what it is, or what has changed."""
    writer = Writer(directory, keep, start.files, len(start.metrics), lock)
    writer.seconds = max([writer.seconds, *(line["seconds"] for line in start.history)])
    writer.saved = start.state.step if start.state else None
    if start.run is None:
        writer.say(now.plain())
    elif changed:
        writer.say({"step": start.step, "changed": changed})
    return writer
