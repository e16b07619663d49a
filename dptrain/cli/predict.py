"""dptrain evaluate and dptrain predict: what a stored run can be asked."""

from pathlib import Path
from typing import Any

import click

from dptrain.cli.options import Name, config_option, debug_option, json_option
from dptrain.cli.ranks import connect
from dptrain.cli.results import print_result
from dptrain.config import InputError


@click.command()
@click.argument("run")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option(
    "--target",
    type=Name(),
    multiple=True,
    envvar="DPTRAIN_EVALUATE_TARGET",
    metavar="NAME",
    help="CSV column to compare with; repeat it for several.",
)
@config_option
@json_option
@debug_option
def evaluate(run: str, data: tuple[str, ...], target: tuple[str, ...], as_json: bool) -> int:
    """Loss and metrics of the model in RUN on DATA, or on the run's own test data.

    Of a file with x_test and y_test these are taken, else x and y.
    """
    world = connect()
    from dptrain.run.predict import evaluate_run

    found = evaluate_run(run, data, target, world)
    if world.rank == 0:
        print_result(found, as_json, _evaluation_text)
    return 0


@click.command()
@click.argument("run")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    "--out",
    metavar="FILE",
    envvar="DPTRAIN_PREDICT_OUT",
    help="A .csv or .npy file; standard output, as CSV, unless given.",
)
@click.option(
    "--probabilities",
    is_flag=True,
    envvar="DPTRAIN_PREDICT_PROBABILITIES",
    help="Probabilities of the classes or labels.",
)
@config_option
@debug_option
def predict(run: str, data: tuple[str, ...], out: str | None, probabilities: bool) -> int:
    """Predictions of the model in RUN for the rows of DATA: classes, labels or values.

    DATA needs no targets. Of a CSV file the columns that the model was trained on are taken.
    """
    world = connect()
    from dptrain.record.files import check_writable
    from dptrain.run.predict import predict_run

    with world.together():
        if out is not None and Path(out).suffix not in (".csv", ".npy"):
            raise InputError(f"out is {out}; predictions are written to a .csv or .npy file")
        if out is not None and world.rank == 0:
            check_writable(Path(out), "--out")
    predict_run(run, data, out, probabilities=probabilities, world=world)
    return 0


def _evaluation_text(found: dict[str, Any]) -> str:
    """Return an evaluation for people, with the confusion matrix where there is one."""
    from dptrain.record.progress import measures

    lines = [f"{found['data']}: {found['examples']} examples", measures(found)]
    if "confusion" not in found:
        if "classes" in found:
            lines.append(f"no confusion matrix of so many classes: {len(found['classes']):,}")
        return "\n".join(lines)
    classes = [str(name) for name in found["classes"]]
    largest = max(max(row) for row in found["confusion"])
    width = 2 + max(len(str(largest)), *map(len, classes))
    lines += ["", "confusion (row: true class, column: predicted class)"]
    lines.append(" " * width + "".join(f"{name:>{width}}" for name in classes))
    for name, row in zip(classes, found["confusion"], strict=True):
        lines.append(f"{name:>{width}}" + "".join(f"{count or '.':>{width}}" for count in row))
    return "\n".join(lines)
