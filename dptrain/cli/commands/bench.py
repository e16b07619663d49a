"""dptrain bench."""

import sys
from typing import Any

import click

from dptrain.cli.options import Joint, build, json_option, quiet_option, setting, settings
from dptrain.cli.ranks import connect
from dptrain.cli.results import print_result
from dptrain.config import ModelConfig, TrainConfig
from dptrain.config.tools import BenchConfig


@click.command(cls=Joint)
@settings(BenchConfig)
@setting(ModelConfig, "hidden", (512, 512))
@settings(ModelConfig, "activation", "dropout", "dtype")
@settings(TrainConfig, "shards", "batch_size", "optimizer", "threads", "cpu_level", "seed")
@json_option
@quiet_option
def bench(as_json: bool, quiet: bool, **values: Any) -> None:
    """Where a step's time goes on this machine, beside the least that it could take.

    Each part of the step is done alone, and beside it stands a floor, measured in the same run: the
    model's products at the speed of one large product, or the bytes that must be moved over the
    bandwidth of memory and, between nodes, of the network. Then the tree beside MPI's own
    Allreduce, and four shards a rank beside one. The data is made up.
    """
    settings, config = build(BenchConfig, values), build(TrainConfig, values)
    model_config = build(ModelConfig, values)
    world = connect(config.cpu_level)
    from dptrain.bench import measure, results
    from dptrain.model.mlp import mlp

    with world.together():
        outputs = settings.outputs
        model = mlp(model_config, settings.task, settings.inputs, outputs, classes=outputs)

    def say(text: str) -> None:
        if world.rank == 0 and not quiet:
            print(text, file=sys.stderr, flush=True)

    found = measure.bench(model, settings, config, world=world, say=say)
    print_result(found, as_json, results.text)
