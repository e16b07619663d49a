"""What a stored run predicts for other rows."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.config import DataConfig
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.data.read import read
from dptrain.data.roles import Roles
from dptrain.data.table import Column
from dptrain.record import rundir
from dptrain.reduce.memory import shared_rows
from dptrain.run.config import RunConfig
from dptrain.run.identity import check_equal, check_programs, content
from dptrain.run.predictions import write_predictions
from dptrain.run.trained import Trained, load_trained
from dptrain.words import InputError
from dptrain.world import World, collective


@collective
def predict_run(
    run: str,
    paths: Sequence[str],
    out: str | None,
    *,
    probabilities: bool,
    ids: Sequence[str] = (),
    world: World,
    model: str | None = None,
) -> int:
    """Write predictions for the rows of some files to a file, or as CSV to stdout; say how many.

    The columns `ids`, or those that the run names where the files have them, stand before the
    predictions. Each rank predicts and holds its own blocks of rows; rank 0 writes them block by
    block, in the order of the rows. `model` is for a run with --model: its FILE.py:FUNCTION.
    Collective: every rank must call this. Raises InputError where the run or the files can't be
    read or don't fit each other; regression has no probabilities; the file can't be written.
    """
    with world.together():
        trained = load_trained(run, file=model)
        roles = _roles(run, trained.encoding, ids, out)
    table, test = read(tuple(paths), roles, world, partial(shared_rows, world.node_comm))
    with world.together():
        found = replace(test or table, targets=())
        rows = Rows(trained.encoding.adapt(found), trained.encoding)
        names = [*(c.name for c in rows.table.ids), *_columns(trained, probabilities)]
    check_same(trained, rows, world)
    with world.together():
        meaning = trained.chances if probabilities else trained.predictions
        made = trained.in_blocks(rows, world, meaning)
        called = [[_cells(c, block) for c in rows.table.ids] for block in rows.blocks(world)]
    blocks = _one_by_one(world, [*zip(called, made, strict=True)])
    with world.together():
        try:
            if world.rank == 0:
                write_predictions(out, names, blocks, len(rows))
        finally:
            for _ in blocks:  # also where they can't be written: the other ranks wait to send them
                pass
    return len(rows)


def _roles(run: str, encoding: Encoding, ids: Sequence[str], out: str | None) -> Roles:
    """Return what the files' columns are for; InputError where `out` can't hold those named."""
    stored, alone = DataConfig(), Path(out or "").suffix == ".npy"
    with contextlib.suppress(InputError):  # the run's settings are lost
        stored = RunConfig.read(rundir.read_config(Path(run), local=True)).data
    if alone and ids:
        raise InputError(
            "a .npy file has predictions only: leave --id out, or write .csv or .parquet"
        )
    called = () if alone else tuple(ids) or stored.id
    return replace(roles_of(encoding, stored, ()), ids=called, ids_if_there=not ids)


def roles_of(encoding: Encoding, stored: DataConfig, target: tuple[str, ...]) -> Roles:
    """Return what the columns of other files are for, as in those that were trained on."""
    return replace(
        Roles.of(stored),
        target=target,
        features=(),
        drop=(),
        ids=(),
        weight=None,
        kinds=encoding.kinds,
        label_kind=encoding.label_kind,
        new=False,
    )


def check_same(trained: Trained, rows: Rows, world: World) -> None:
    """Raise InputError where ranks have read another model, or other rows. Collective."""
    check_programs(world)
    if world.size > 1:
        own = {"the model's SHA-256": trained.sha256(), "the data's SHA-256": content(rows.table)}
        check_equal(world, own)


def _columns(trained: Trained, probabilities: bool) -> list[str]:
    if probabilities and trained.encoding.task == "classification":
        return [f"probability_{name}" for name in trained.encoding.classes.tolist()]
    stem = "probability" if probabilities else "prediction"
    outputs = trained.encoding.outputs
    return [stem] if outputs == 1 else [f"{stem}_{number}" for number in range(outputs)]


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
