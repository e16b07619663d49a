"""Checks what a run says it did: its receipt and its files, and steps by doing them once more."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import num_params
from dptrain.config import ModelFile, TrainConfig
from dptrain.data.prepare import Data
from dptrain.model import Model, is_own
from dptrain.model.file import of_run
from dptrain.record.progress import progress
from dptrain.record.receipt import Receipt, differences, places
from dptrain.record.rundir import FREE
from dptrain.run.check import Found, Verdict, check_files
from dptrain.run.config import Identity, RunConfig, told
from dptrain.run.identity import NOTED, check_programs, contents, identity
from dptrain.run.ready import check_fits, load, model_for
from dptrain.run.replay import Replay, check_unchanged, go_to
from dptrain.run.statement import compare
from dptrain.run.weights import with_weights
from dptrain.threads import blas_threads
from dptrain.train.loop import begin, given_back
from dptrain.words import InputError
from dptrain.world import World, collective, connect

MACHINE = ("dptrain", "numpy", "blas", "libraries", "cpu_level", "libm", "ranks")
"""What of a run's identity says where it was computed: elsewhere bits may differ, or not."""


@collective
def verify(
    run: str | Path,
    replay: str | None = None,
    data: Any = (),
    *,
    statement: str | Path | None = None,
    model: Model | None = None,
    file: str | None = None,
    init_from: str | None = None,
    quiet: bool = True,
    world: World | None = None,
) -> Verdict:
    """Check a run: the receipt's chain, checkpoints and model against it, and steps replayed.

    Parameters
    ----------
    run
        The run directory, which only rank 0 needs to see.
    replay
        Steps to do once more, such as "100:200", counted from 1, of which either may be left out;
        or "all". They start from the newest checkpoint before them.
    data
        Where the run's data is now, or what it was made of, as for `load`; where it was, unless
        given.
    statement
        A file with what `dptrain receipt` has stated, to be compared, on rank 0. Then of the run
        only receipt and model need to be there: what could not be checked is noted.
    model
        For a run with a model of one's own; else it is made from the run's settings.
    file
        For a run that was started with --model: its FILE.py:FUNCTION.
    init_from
        Where the weights that the run started from are now; where they were, unless given.
    quiet
        Show no progress.
    world
        The ranks, as many as one likes; all that MPI started unless given.

    Collective: every rank must call this.

    Raises
    ------
    InputError
        There is no run, the steps are not in it, or the data can't be read.
    """
    world, path = world or connect(), Path(run)
    found = Found(Receipt())
    verdict = Verdict(str(run), world.size)
    rows = None if isinstance(data, (tuple, list)) and not data else data
    with world.together():
        asked = {"DATA": rows, "--model": file or model, "--init-from": init_from}
        given = [name for name, what in asked.items() if what is not None]
        if given and replay is None:
            raise InputError(f"{given[0]} is given, which only --replay looks at: --replay all")
        if world.rank == 0:
            found = check_files(path, verdict, handed=statement is not None)
            if statement is not None and found.receipt.num_lines:
                compare(Path(statement), found.receipt, verdict)
                if replay is None:
                    verdict.notes.append("neither data nor steps are looked at without --replay")
            if replay is not None and found.receipt.num_lines:
                verdict.replayed = _range(replay, verdict.steps)
    shared: tuple[Verdict, Found] = world.broadcast((verdict, found))
    verdict, found = shared
    if verdict.replayed is not None:
        _replay(path, found, verdict, rows, (model, file, init_from), quiet, world)
    return verdict


def _range(text: str, last: int) -> tuple[int, int]:
    """Return the first and last step of "A:B", each of which may be left out, or of "all"."""
    parts = ["", ""] if text == "all" else str(text).split(":")
    if len(parts) != 2 or not all(p == "" or (p.isdecimal() and len(p) < 17) for p in parts):
        raise InputError(f"replay is {text!r}; give two steps, such as 1:{last}, or all")
    ends = int(parts[0] or 1), int(parts[1] or last)
    if not 1 <= ends[0] <= ends[1] <= last:
        held = f"the steps 1 to {last}, and the first comes first" if last else "no step yet"
        raise InputError(f"replay is {text!r}; the receipt has {held}")
    return ends


def _replay(
    path: Path,
    found: Found,
    verdict: Verdict,
    rows: Any,
    given: tuple[Model | None, str | None, str | None],
    quiet: bool,
    world: World,
) -> None:
    """Do steps of a run once more and compare. Collective."""
    assert verdict.replayed is not None  # noqa: S101 (for the type checker)
    first, last = verdict.replayed
    with world.together():
        before = told(found.receipt, first)
    model, data, config = _made(before, path, rows, given[:2], world)
    check_programs(world, model)
    with world.together():
        if (own := num_params(model.layout)) != before.num_params:  # which there may be no room for
            raise InputError(f"the model has {own} parameters; the run's had {before.num_params}")
        moved = replace(config, init_from=given[2] or config.init_from)
        config, weights = with_weights(moved, model)
    with blas_threads(config.threads), np.errstate(all="ignore"):
        run = begin(model, data, config, world, weights.initial if weights else None)
        with given_back(run):
            if _comparable(before, identity(run, before.data), verdict):  # as `_made` saw
                go_to(run, path, first, world)
                verdict.replayed_from = run.step
                check_unchanged(found.receipt, run.step, last)
                replay = Replay(run, path, found)
                with closing(progress(last, run.step, quiet=quiet or world.rank > 0)) as bar:
                    replay.go(last, [bar])
                verdict.first_difference = replay.first_difference
        run.reducer.close()


def _made(
    before: Identity, path: Path, rows: Any, given: tuple[Model | None, str | None], world: World
) -> tuple[Model, Data, TrainConfig]:
    """Return a run's model, data and settings, made once more. Collective."""
    model, file = given
    with world.together():
        if model is None and "file" not in before.model and is_own(before.model):
            raise InputError(f"{path} has one's own model: give it to dptrain.verify, in Python")
        own = model is None and "file" in before.model
        origin = of_run(file, before.model, str(path)) if own else ModelFile()
        was = RunConfig.read(before.settings)
        files = was.named_files() if rows is None else rows
    data = load(files, was.data, seed=was.train.seed, world=world)
    found = contents(data, world)
    with world.together():
        for place, there, here in places(before.data, found, "data"):
            raise InputError(
                f"{data.train.table.source}: {place} is {here}, was {there}; a replay needs the "
                "run's rows and columns, in their order: give the DATA that it had"
            )
        kind = before.settings.get("dtype")
        model = model or model_for(data, origin, was.model, was.train.seed, kind)
        check_fits(model, data)  # by which it learns what its usual loss is
    return model, data, was.train


def _comparable(before: Identity, now: Identity, verdict: Verdict) -> bool:
    """Return whether steps can be compared; note what differs that may change their bits."""
    old, new = before.plain(), now.plain()
    found = differences(old, new)
    settings = [name for name in found.pop("settings", {}) if name not in (*FREE, "cpu-level")]
    both_own = is_own(before.model) and is_own(now.model)
    machine = {*MACHINE, *(["model"] if both_own else [])}
    for name in (name for name in found if name not in NOTED):
        for place, there, here in places(old.get(name), new.get(name), name):
            text = f"{place}: {here} here, {there} in the run"
            if name in machine:
                verdict.notes.append(f"{text}: bits may differ by it")
            else:
                verdict.wrong.append(text)
    if settings:
        verdict.wrong.append(f"settings that no run has: {', '.join(settings)}")
    if settings or found.keys() - {*machine, *NOTED}:
        verdict.replayed = None
    return verdict.replayed is not None
