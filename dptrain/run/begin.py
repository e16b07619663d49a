"""How a run gets its directory: a new one, or that of a run which goes on from its checkpoint."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from dptrain.config import InputError, TrainConfig, counted
from dptrain.data.prepare import Data
from dptrain.record import checkpoint, receipt, rundir
from dptrain.record.files import UNFLUSHED, is_there, sync_directory, write_whole
from dptrain.record.store import Store
from dptrain.run import resume
from dptrain.run.identity import changes, identity
from dptrain.streams import warn
from dptrain.train.loop import Training
from dptrain.train.state import forms, restore
from dptrain.version import software
from dptrain.world import World

Opened = tuple[Store | None, dict[str, Any] | None]
"""The files, on rank 0, and what decides the run's bytes; both None for a run without files."""


def open_run(
    run: Training,
    data: Data,
    config: TrainConfig,
    settings: dict[str, Any],
    out: str | Path | Callable[[], Path] | None,
    go_on: bool,
    force: bool,
    world: World,
) -> Opened:
    """Make a run's directory, or set the run to where the one in it stood, and open its files.

    `out` is the directory, or makes a new one; None for a run without files. Collective: every
    rank must call this.

    Raises
    ------
    InputError
        The directory can't be made, or the run in it can't go on like this.
    """
    if out is None:
        return None, None
    now, wanted = identity(settings, data, run, config, world), forms(run)
    ranks = counted(world.size, "rank")
    comment = f"{software()}; {ranks}; dptrain train --config config.toml repeats the run"
    start, arrays, changed, store = resume.Start(), {}, {}, None
    with world.together():
        if world.rank == 0:
            content = rundir.toml(settings, comment)
            directory = out() if callable(out) else Path(out)
            with _refused(directory), contextlib.ExitStack() as undo:
                if not go_on:
                    rundir.create(directory)
                lock = resume.lock(directory)
                undo.callback(os.close, lock)
                if not go_on:
                    rundir.check_free(directory)  # nobody else was quicker
                checkpoint.remove_leftovers(directory)
                agree = partial(changes, now=now, force=force)
                start = resume.find(directory, wanted, agree, warn, force=force)
                changed = agree(start.run) if start.run else {}
                _check_length(start, run, settings)
                over = start.state.get("step", 0) >= run.num_steps
                if not (over and changed):  # else it stays as it is
                    write_whole(directory / rundir.CONFIG, content)
                changed = {} if over else changed
                if start.metrics is not None:
                    _replace_metrics(directory / rundir.METRICS, start.metrics)
                if not sync_directory(directory):
                    warn(f"{directory}: {UNFLUSHED}")
                store = _open_store(directory, start, changed, now, config, lock)
                undo.pop_all()  # the lock is the store's to give back
                arrays, start.arrays, start.seconds = start.arrays, {}, store.seconds
    start, changed = world.broadcast((start, changed))
    run.seconds = start.seconds
    if start.state:
        restore(run, arrays, start.state, start.history)
        run.stop_without_gain(config.patience)
    return store, receipt.merged(start.run, changed) if start.run else now


@contextlib.contextmanager
def _refused(directory: Path) -> Iterator[None]:
    """Say that a directory can't be written where the file system refuses."""
    try:
        yield
    except OSError as error:
        where = error.filename or directory
        message = f"{where} can't be written: {error.strerror or error}"
        raise InputError(message) from None


def _check_length(start: resume.Start, run: Training, settings: dict[str, Any]) -> None:
    """Raise InputError where a run has gone on for longer than is asked for."""
    done = start.state.get("step", 0)
    if done > run.num_steps:
        asked = " and ".join(f"{n} {settings[n]}" for n in ("epochs", "steps") if settings[n])
        raise InputError(
            f"the run has done {done} steps, and {asked} would be {run.num_steps}; ask for more, "
            "or evaluate it as it is"
        )


def _replace_metrics(path: Path, lines: list[bytes]) -> None:
    """Write the lines of metrics that can be read in the place of damaged ones, which are kept."""
    if is_there(path):
        path.rename(path.with_suffix(".damaged"))
    write_whole(path, (line + b"\n" for line in lines))


def _open_store(
    directory: Path,
    start: resume.Start,
    changed: dict[str, Any],
    now: dict[str, Any],
    config: TrainConfig,
    lock: int,
) -> Store:
    """Open a run's files at its start, and note in the receipt what it is, or what has changed."""
    store = Store(
        directory,
        config.keep_checkpoints,
        warn,
        start.lines["metrics_lines"],
        start.lines["receipt_lines"],
        start.lines["receipt_sha256"],
        lock,
    )
    store.seconds = max([store.seconds, *(line["seconds"] for line in start.history)])
    store.saved = start.state.get("step")
    store.last_step = step = start.state.get("step", 0)
    if start.run is None:
        store.say(now)
    elif start.metrics is not None:
        store.say(receipt.lost_metrics(step) | {"changed": changed})
    elif changed:
        store.say({"step": step, "changed": changed})
    return store
