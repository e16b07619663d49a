"""dptrain doctor."""

from pathlib import Path
from typing import Any

import click

from dptrain import launch as launches
from dptrain.checked import Plain
from dptrain.cli.commands.train import given_dtype, one_length
from dptrain.cli.help import shared
from dptrain.cli.options import Joint, build, job_options, json_option, settings
from dptrain.cli.ranks import connect, connected, is_first
from dptrain.cli.results import print_result
from dptrain.config import DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.config.tools import BenchConfig
from dptrain.words import InputError


@click.command(cls=Joint)
@job_options
@settings(BenchConfig, "inputs", "outputs")
@json_option
@shared("--quiet", is_flag=True, help="Print what is not ok only.")
def doctor(
    data: tuple[str, ...],
    out: str | None,
    resume: str | None,
    go_on: bool,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> int:
    """What is wrong with this MPI, these nodes and this data, before a job is lost to it.

    Start it as the job will be started, with the job's own line but for the word doctor: mpirun -n
    4 dptrain doctor x.npy y.npy --batch-size 1024. Each line is ok, a warning or an error, with
    what to do; the exit status is 1 where there is an error. The data is read and judged as train
    does it; without DATA --inputs and --outputs say how large the network is. Nothing is left
    behind.
    """
    ctx = click.get_current_context()
    one_length(ctx, values)
    config = build(TrainConfig, values)
    sizes = BenchConfig(inputs=values["inputs"], outputs=values["outputs"])
    parts = build(DataConfig, values), build(ModelConfig, values), build(ModelFile, values)
    dtype = given_dtype(ctx, values)
    try:
        world = connect(config.cpu_level)
    except InputError as error:
        if connected() is not None:
            raise
        return _misfits(error, as_json)
    from dptrain.doctor.examine import Job, examine

    where = Path(named) if (named := resume or out) else None
    go_on = go_on or resume is not None
    found = examine(Job(data, *parts, dtype, config, sizes, where, go_on), world)
    if quiet:
        found["checks"] = [check for check in found["checks"] if check["status"] != "ok"]
    print_result(found, as_json, _text)
    return int(any(check["status"] == "error" for check in found["checks"]))


def _misfits(error: InputError, as_json: bool) -> int:
    """Report, once, that launcher and library don't fit; nothing else could be tried out."""
    advice = launches.RIGHT_LAUNCHER
    found = {"status": "error", "found": str(error).removesuffix(f". {advice}"), "advice": advice}
    print_result({"checks": [{"name": "launcher", **found}]}, as_json, _text)
    if not is_first():
        launches.let_the_first_speak()
    return 1


def _text(found: Plain) -> str:
    """Return a line for each check, and below it what to do."""
    lines = []
    for check in found["checks"]:
        lines.append(f"{check['status']:<9}{check['name']:<15}{check['found']}")
        if check["advice"]:
            lines.append(f"{'':<9}{'':<15}-> {check['advice']}")
    return "\n".join(lines)
