"""dptrain doctor."""

from pathlib import Path
from typing import Any

import click

from dptrain import launch as launches
from dptrain.checked import Plain
from dptrain.cli.help import Told
from dptrain.cli.options import build, config_option, debug_option, json_option, setting
from dptrain.cli.ranks import connect, connected
from dptrain.cli.results import print_result
from dptrain.config import BenchConfig, ModelConfig, TrainConfig
from dptrain.words import InputError


@click.command(cls=Told)
@setting(BenchConfig, "inputs")
@setting(BenchConfig, "outputs")
@setting(ModelConfig, "hidden", (512, 512))
@setting(ModelConfig, "dropout")
@setting(ModelConfig, "dtype")
@setting(TrainConfig, "shards")
@setting(TrainConfig, "batch_size", 256)
@setting(TrainConfig, "optimizer")
@setting(TrainConfig, "threads")
@setting(TrainConfig, "cpu_level")
@setting(TrainConfig, "keep_checkpoints")
@click.option(
    "--out",
    metavar="DIR",
    envvar="DPTRAIN_OUT",
    default="runs",
    show_default=True,
    help="Where the run would be written.",
)
@config_option
@json_option
@debug_option
def doctor(out: str, as_json: bool, **values: Any) -> int:
    """What is wrong with this MPI, these nodes and these files, before a job is lost to it.

    Start it as the job will be started: mpirun -n 4 dptrain doctor. Each line is ok, a warning or
    an error, with what to do; the exit status is 1 where there is an error. The model's size
    decides how much memory and disk are needed. Nothing is left behind.
    """
    model_config, config = build(ModelConfig, values), build(TrainConfig, values)
    data = build(BenchConfig, values)
    try:
        world = connect(config.cpu_level)
    except InputError as error:
        if connected() is not None:
            raise
        return _misfits(error, as_json)
    from dptrain.doctor.examine import examine
    from dptrain.model.mlp import MLP

    sizes = [data.inputs, *model_config.hidden, data.outputs]
    model = MLP(sizes, dropout=model_config.dropout, dtype=model_config.dtype)
    found = examine(model, config, Path(out), world)
    if world.rank == 0:
        print_result(found, as_json, _text)
    return _status(found)


def _misfits(error: InputError, as_json: bool) -> int:
    """Report, once, that launcher and library don't fit; nothing else could be tried out."""
    launch, advice = launches.announced(), launches.RIGHT_LAUNCHER
    found = {"status": "error", "found": str(error).removesuffix(f". {advice}"), "advice": advice}
    if launch is not None and launch.rank > 0:
        launches.let_the_first_speak()
    else:
        print_result({"checks": [{"name": "launcher", **found}]}, as_json, _text)
    return 1


def _status(found: Plain) -> int:
    return int(any(check["status"] == "error" for check in found["checks"]))


def _text(found: Plain) -> str:
    """Return a line for each check, and below it what to do."""
    lines = []
    for check in found["checks"]:
        lines.append(f"{check['status']:<9}{check['name']:<15}{check['found']}")
        if check["advice"]:
            lines.append(f"{'':<9}{'':<15}-> {check['advice']}")
    return "\n".join(lines)
