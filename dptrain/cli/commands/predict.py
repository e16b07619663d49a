"""dptrain predict."""

from pathlib import Path
from typing import Any

import click

from dptrain.cli.options import Joint, Name, model_option
from dptrain.cli.ranks import connect_as, level_option
from dptrain.cli.results import out_options, say_written
from dptrain.words import counted


@click.command(cls=Joint)
@click.argument("run")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@out_options("A .csv, .parquet or .npy file; standard output, as CSV, unless given.")
@click.option("--probabilities", is_flag=True, help="Probabilities of the classes or labels.")
@click.option(
    "--id",
    "ids",
    type=Name(),
    multiple=True,
    envvar="DPTRAIN_PREDICT_ID",
    metavar="NAME",
    help="Column to write beside predictions; unless given, those of the run.",
)
@model_option
@level_option
def predict(run: str, out: str | None, force: bool, cpu_level: str | None, **asked: Any) -> None:
    """Predictions of the model in RUN for the rows of DATA: classes, labels or values.

    DATA needs no targets. Of a table the columns that the model was trained on are taken, in any
    order. Labels are written as they were given.
    """
    world = connect_as(run, cpu_level)
    from dptrain.record.files import check_writable
    from dptrain.run.apply import predict_run
    from dptrain.run.predictions import check_name

    with world.together():
        if out is not None:
            check_name(out)
            if world.rank == 0:
                check_writable(Path(out), "--out", force=force)
    num_rows = predict_run(run, out=out, world=world, **asked)
    if out is not None and world.rank == 0:
        say_written(out, counted(num_rows, "row"))
