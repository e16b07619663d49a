"""How good a stored run is: on rows that it was trained on, held out or tested on, or others."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from dptrain.checked import Plain
from dptrain.config.names import Part
from dptrain.data.check import check_rows
from dptrain.data.feed import Rows
from dptrain.data.read import read
from dptrain.data.roles import Roles
from dptrain.data.table import Table
from dptrain.record import receipt, rundir
from dptrain.reduce.memory import shared_rows
from dptrain.run.config import RunConfig
from dptrain.run.identity import fingerprint
from dptrain.run.predict import check_same, roles_of
from dptrain.run.ready import load
from dptrain.run.trained import load_trained
from dptrain.threads import blas_threads
from dptrain.train.evaluate import evaluate
from dptrain.train.scores import Scores
from dptrain.words import InputError
from dptrain.world import World, collective


@collective
def evaluate_run(
    run: str,
    paths: Sequence[str],
    target: Sequence[str],
    world: World,
    model: str | None = None,
    on: Part | None = None,
) -> Plain:
    """Return the loss and the metrics of a stored model on the rows of some files.

    Without files: on the run's own. `on` says which rows: those trained on, those held out by the
    seed, or test rows, as where there are no files; unless given, test rows where a file has them.
    With classes, which are named, and with labels, also what `Scores.result` finds. Collective:
    every rank must call this. Raises InputError where the run or the files can't be read, have no
    targets, or don't fit each other.
    """
    with world.together():
        trained = load_trained(run, file=model)
        settings = RunConfig.read(rundir.read_config(Path(run), local=True))
    encoding = trained.encoding
    if on in ("train", "validation"):
        rows = replace(_own_rows(run, settings, paths, on, world), encoding=encoding)
    else:
        roles = roles_of(encoding, settings.data, tuple(target) or encoding.targets)
        found = _other_rows(run, settings, paths, roles, on, world)
        with world.together():
            rows = Rows(encoding.adapt(found), encoding)
            rows.raw_y(slice(0, 0))  # there must be targets
    check_same(trained, rows, world)
    check_rows(rows, world)
    scores = None
    if encoding.task != "regression":
        scores = Scores(encoding.task, encoding.scores, len(rows), trained.chances)
    with blas_threads(trained.threads, brief=True), np.errstate(all="ignore"):
        seen = None if scores is None else scores.add
        metrics = evaluate(trained.model, trained.params, rows, world, seen=seen)
    about = {"run": run, "data": rows.table.source} | ({"on": on} if on else {})
    result = {**about, "examples": len(rows), **metrics}
    if len(encoding.classes):
        result["classes"] = encoding.classes.tolist()
    return result if scores is None else result | scores.result(world, len(rows), rows.num_blocks)


def _own_rows(run: str, settings: RunConfig, paths: Sequence[str], on: Part, world: World) -> Rows:
    """Return the rows that a run was trained on, or held out. Collective.

    `paths` are where its data lies now. InputError where it is other data, or held out none.
    """
    with world.together():
        files = tuple(paths) or settings.named_files()
        begun = receipt.first_line(Path(run))
    data = load(files, settings.data, seed=settings.train.seed, world=world)
    found = f"{data.train.table.shapes()}: {fingerprint(data.train, world)}"
    with world.together():
        if begun and found != begun.first["data"]["train"]:
            raise InputError(f"{data.train.table.source} is not what {run} was trained on")
        rows = data.train if on == "train" else data.validation
        if rows is None:
            raise InputError(f"{run} held no rows out: train with --validation, such as 0.1")
    return rows


def _other_rows(
    run: str, settings: RunConfig, paths: Sequence[str], roles: Roles, on: Part | None, world: World
) -> Table:
    """Return test rows, of the run or of other files. Collective."""
    with world.together():
        files = tuple(paths) or settings.data.test_data or settings.named_files()
    table, test = read(files, roles, world, partial(shared_rows, world.node_comm))
    with world.together():
        if test is None and (on or not paths) and (paths or not settings.data.test_data):
            what = " ".join(paths) or f"the data of {run}"
            raise InputError(f"{what} has no test rows; name the DATA to evaluate on")
    return test or table
