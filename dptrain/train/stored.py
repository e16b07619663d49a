"""What a stored run can be asked: how good it is on some rows, and what it predicts for others."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from dptrain.config import DataConfig, InputError, TrainConfig, data_files, from_settings
from dptrain.data.prepare import Rows, check_rows
from dptrain.data.read import has_names, read
from dptrain.record import rundir
from dptrain.record.files import write_whole
from dptrain.train.evaluate import evaluate
from dptrain.train.identity import check_equal, check_programs, content
from dptrain.train.trained import Trained, load_trained
from dptrain.world import World, collective


@collective
def evaluate_run(
    run: str, paths: Sequence[str], target: Sequence[str], world: World
) -> dict[str, Any]:
    """Return the loss and the metrics of a stored model on the rows of some files.

    Without files: on the run's own test rows. Of a file that holds test rows these are taken.
    Classification adds `classes` and `confusion`, whose row i counts what class i was taken for.
    Collective: every rank must call this.

    Raises
    ------
    InputError
        The run or the files can't be read, have no targets, or don't fit each other.
    """
    with world.together():
        trained, settings = load_trained(run), rundir.read_config(Path(run), local=True)
        stored, threads = from_settings(DataConfig, settings), _threads(settings)
        files = paths or stored.test_data or data_files(settings)
        if not target and has_names(files):
            target = stored.target
        table, test = read(files, target, trained.encoding.features)
        if not paths and not test and not stored.test_data:
            raise InputError(f"the data of {run} has no test rows; name the DATA to evaluate on")
        rows = Rows(test or table, trained.encoding)
        rows.raw_y(slice(0, 0))  # there must be targets
    _check_same(trained, rows, world)
    check_rows(rows, world)
    classes = trained.encoding.classes
    counts = np.zeros((len(classes), len(classes)), np.int64)
    with threadpoolctl.threadpool_limits(threads, "blas"):
        found = evaluate(trained.model, trained.params, rows, world, confusion=counts)
    result = {"run": run, "data": rows.table.source, "examples": len(rows), **found}
    if trained.encoding.task != "classification":
        return result
    return {**result, "classes": classes.tolist(), "confusion": counts.tolist()}


@collective
def predict_run(
    run: str, paths: Sequence[str], *, probabilities: bool, world: World
) -> tuple[list[str], NDArray[Any]] | None:
    """Return names of columns and predictions [rows, columns] on rank 0, None on the others.

    Each rank predicts its own blocks of rows. Collective: every rank must call this.

    Raises
    ------
    InputError
        The run or the files can't be read or don't fit each other; regression has no
        probabilities.
    """
    with world.together():
        trained, threads = load_trained(run), _threads(rundir.read_config(Path(run), local=True))
        table, test = read(paths, (), trained.encoding.features)
        rows = Rows(test or table, trained.encoding)
    _check_same(trained, rows, world)
    check_rows(Rows(replace(rows.table, y=None), trained.encoding), world)
    with world.together():
        ask = trained.probabilities if probabilities else trained.predict
        ask(rows.raw_x(slice(0, 1)))  # what can't be asked is said before the work
    with threadpoolctl.threadpool_limits(threads, "blas"):
        own = [ask(rows.raw_x(block)) for block in rows.blocks(world)]
    found = [block for blocks in world.allgather(own) for block in blocks]
    if world.rank > 0:
        return None
    return _columns(trained, probabilities), np.concatenate(found)


def _check_same(trained: Trained, rows: Rows, world: World) -> None:
    """Raise InputError where ranks have read another model, or other rows. Collective."""
    check_programs(world)
    if world.size > 1:
        contents = {
            "the model's SHA-256": trained.sha256(),
            "the data's SHA-256": content(rows.table),
        }
        check_equal(world, contents)


def _threads(settings: Mapping[str, Any]) -> int:
    """Return the BLAS threads that a stored run computes with."""
    return from_settings(TrainConfig, settings).threads


def _columns(trained: Trained, probabilities: bool) -> list[str]:
    """Return the names of the columns that predictions have."""
    if probabilities and trained.encoding.task == "classification":
        return [f"probability_{name}" for name in trained.encoding.classes.tolist()]
    stem = "probability" if probabilities else "prediction"
    outputs = trained.encoding.outputs
    return [stem] if outputs == 1 else [f"{stem}_{number}" for number in range(outputs)]


def write_predictions(out: str | None, names: Sequence[str], found: NDArray[Any]) -> None:
    """Write predictions [rows] or [rows, columns] to a .csv or .npy file, or as CSV to stdout."""
    if out is not None and Path(out).suffix == ".npy":
        content = io.BytesIO()
        np.save(content, found)
        write_whole(Path(out), content.getvalue())
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(found.reshape(len(found), -1).tolist())
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        write_whole(Path(out), text.getvalue().encode())
