"""A stored run's model on rows: what it predicts, and how good that is."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.checked import Plain
from dptrain.config import DataConfig
from dptrain.config.names import Part
from dptrain.data.check import check_rows
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.data.read import read
from dptrain.data.roles import Roles
from dptrain.data.table import Column, Table
from dptrain.record import receipt, rundir
from dptrain.reduce.memory import shared_rows
from dptrain.run.config import RunConfig
from dptrain.run.identity import check_equal, check_programs, content, fingerprint
from dptrain.run.predictions import suffix, write_predictions
from dptrain.run.ready import load
from dptrain.run.trained import Trained, load_trained
from dptrain.streams import warn
from dptrain.threads import blas_threads
from dptrain.train.evaluate import evaluate
from dptrain.train.scores import Scores
from dptrain.words import InputError, brief
from dptrain.world import World, collective


@collective
def evaluate_run(
    run: str,
    data: Sequence[str],
    target: Sequence[str],
    world: World,
    file: str | None = None,
    on: Part | None = None,
) -> Plain:
    """Return the loss and the metrics of a stored model on the rows of some files.

    Without files: on the run's own. `on` says which rows: those trained on, those held out by the
    seed, or test rows, as where there are no files; unless given, test rows where a file has them.
    With classes, which are named, and with labels, also what `Scores.result` finds; of several
    targets the metrics of each. `file`: see `predict_run`. Collective: every rank must call this.
    Raises InputError where the run or the files can't be read, have no targets, or don't fit.
    """
    with world.together():
        trained = load_trained(run, file=file)
        settings = RunConfig.read(rundir.read_config(Path(run), local=True))
    encoding = trained.encoding
    if on in ("train", "validation"):
        rows = replace(_own_rows(run, settings, data, on, world), encoding=encoding)
    else:
        roles = roles_of(encoding, settings.data, tuple(target) or encoding.targets)
        found = _other_rows(run, settings, data, roles, on, world)
        with world.together():
            rows = Rows(encoding.adapt(found), encoding)
            rows.raw_y(slice(0, 0))  # there must be targets
    check_same(trained, rows, world)
    check_rows(rows, world)
    scores, each = None, Plain()
    if encoding.task != "regression":
        scores = Scores(encoding.task, encoding.scores, len(rows), trained.chances)
    with blas_threads(trained.threads, brief=True), np.errstate(all="ignore"):
        seen = (lambda *_: None) if scores is None else scores.add
        metrics = evaluate(trained.model, trained.params, rows, world, seen=seen, each=each)
    about = {"run": run, "data": rows.table.source} | ({"on": on} if on else {})
    result = {**about, "examples": len(rows), **metrics}
    if len(encoding.classes):
        result["classes"] = encoding.classes.tolist()
    elif encoding.outputs > 1:
        result |= {"targets": _names(encoding, encoding.outputs)} | each
    return result if scores is None else result | scores.result(world, len(rows), rows.num_blocks)


def _own_rows(run: str, settings: RunConfig, paths: Sequence[str], on: Part, world: World) -> Rows:
    """Return the rows that a run was trained on, or held out. Collective.

    `paths` are where its data lies now. InputError where it is other data, or held out none.
    """
    with world.together():
        files = tuple(paths) or settings.named_files()
        begun = receipt.first_line(Path(run))
    data = load(files, settings.data, seed=settings.train.seed, world=world)
    found = fingerprint(data.train, world)
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


@collective
def predict_run(
    run: str,
    data: Sequence[str],
    out: str | None,
    *,
    probabilities: bool,
    ids: Sequence[str] = (),
    world: World,
    file: str | None = None,
) -> int:
    """Write predictions for the rows of some files to a file, or as CSV to stdout; say how many.

    The columns `ids`, or those that the run names where the files have them, stand before the
    predictions. Each rank predicts and holds its own blocks of rows; rank 0 writes them block by
    block, in the order of the rows. `file` is for a run with --model: its FILE.py:FUNCTION.
    Collective: every rank must call this. Raises InputError where the run or the files can't be
    read or don't fit each other; regression has no probabilities; the file can't be written.
    """
    with world.together():
        trained = load_trained(run, file=file)
        roles = _roles(run, trained.encoding, ids, out)
    table, test = read(tuple(data), roles, world, partial(shared_rows, world.node_comm))
    with world.together():
        found = replace(test or table, targets=())
        rows = Rows(trained.encoding.adapt(found), trained.encoding)
    check_same(trained, rows, world)
    with world.together():
        meaning = trained.chances if probabilities else trained.predictions
        made = trained.in_blocks(rows, world, meaning)
        called = [[_cells(c, block) for c in rows.table.ids] for block in rows.blocks(world)]
    blocks = _one_by_one(world, [*zip(called, made, strict=True)])
    with world.together():
        try:
            if world.rank == 0:
                first = next(blocks)
                columns = _columns(trained, probabilities, first[1][0].size)
                names = [*(column.name for column in rows.table.ids), *columns]
                write_predictions(out, names, chain([first], blocks), len(rows))
        finally:
            for _ in blocks:  # also where they can't be written: the other ranks wait to send them
                pass
    return len(rows)


def _roles(run: str, encoding: Encoding, ids: Sequence[str], out: str | None) -> Roles:
    """Return what the files' columns are for; InputError where `out` can't hold those named."""
    stored, alone = DataConfig(), suffix(out or "") == ".npy"
    with contextlib.suppress(InputError):  # the run's settings are lost
        stored = RunConfig.read(rundir.read_config(Path(run), local=True)).data
    if alone and ids:
        raise InputError("a .npy has predictions only: leave --id out, or write .csv or .parquet")
    called = () if alone else tuple(ids) or stored.id
    return replace(roles_of(encoding, stored, ()), ids=called, ids_if_there=not ids)


def roles_of(encoding: Encoding, stored: DataConfig, target: tuple[str, ...]) -> Roles:
    """Return what the columns of other files are for, as in those that were trained on."""
    roles = replace(Roles.of(stored), features=(), drop=(), ids=(), weight=None, new=False)
    return replace(roles, target=target, kinds=encoding.kinds, label_kind=encoding.label_kind)


def check_same(trained: Trained, rows: Rows, world: World) -> None:
    """Raise InputError where ranks have read another model, or other rows. Collective.

    Warns of a column none of whose texts the model has seen, as it says nothing to it.
    """
    for field, column in zip(rows.encoding.fields, rows.table.columns, strict=True):
        texts = column.words if field.kind == "words" and world.rank == 0 else []
        if texts and {*texts}.isdisjoint(field.words):
            warn(
                f"{rows.table.source}: no text of column {field.name!r}, such as "
                f"{brief(texts[0])!r}, was in the training rows: is it the same column?"
            )
    check_programs(world, trained.model)
    if world.size > 1:
        own = {"the model's SHA-256": trained.sha256(), "the data's SHA-256": content(rows.table)}
        check_equal(world, own)


def _columns(trained: Trained, probabilities: bool, width: int) -> list[str]:
    if probabilities and trained.encoding.task == "classification":
        return [f"probability_{name}" for name in trained.encoding.classes.tolist()]
    stem = "probability" if probabilities else "prediction"
    names = _names(trained.encoding, width)
    return [stem] if len(names) == 1 else [f"{stem}_{name}" for name in names]


def _names(encoding: Encoding, width: int) -> list[str]:
    """Return what so many outputs are called: as a table's columns, or by their numbers."""
    numbers = [*map(str, range(width))]
    return [*encoding.targets] if len(encoding.targets) == len(numbers) else numbers


def _cells(column: Column, block: slice) -> Array:
    """Return the texts of a column that rows are called by [m]; of a gap an empty one."""
    found = np.empty(block.stop - block.start, object)
    found[:] = [column.words[code] if code >= 0 else "" for code in column.read(block).tolist()]
    return found


def _one_by_one(world: World, own: Sequence[Any]) -> Iterator[Any]:
    """Yield every rank's values on rank 0, in rank order; nothing on the others.

    Rank 0 holds one of another's at a time. Collective: every rank must exhaust this.
    """
    if world.rank > 0:
        world.comm.ssend(len(own), 0)  # synchronous: nothing waits in rank 0's memory
        for value in own:
            world.comm.ssend(value, 0)
        return
    yield from own
    for rank in range(1, world.size):
        for _ in range(world.comm.recv(source=rank)):
            yield world.comm.recv(source=rank)
