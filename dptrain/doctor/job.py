"""What a job would train, and whether it would: its data is read, its settings tried on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dptrain.config import DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.config.tools import BenchConfig
from dptrain.data.prepare import Data
from dptrain.data.show import look
from dptrain.doctor.judge import Finding
from dptrain.model import Model
from dptrain.model.mlp import MLP
from dptrain.order import Order
from dptrain.record import rundir
from dptrain.run.fit import compared
from dptrain.run.ready import idle, load, model_for, whole
from dptrain.words import InputError
from dptrain.world import World


@dataclass(frozen=True)
class Job:
    """What stands in a job's own line; without files a network of some size is judged alone."""

    files: Sequence[str]
    data: DataConfig
    model: ModelConfig
    file: ModelFile
    dtype: str | None
    """The type that a model of one's own is made with, where that is asked for."""
    config: TrainConfig
    sizes: BenchConfig
    out: Path | None
    """The run directory, where it is named."""
    go_on: bool
    """Whether a run in it is gone on with."""


def tried(job: Job, world: World) -> tuple[Model, dict[str, Finding]]:
    """Return the model that the job would train, and what is found of its data. Collective.

    Where it would not train, the model is a perceptron of the sizes that are given.
    """
    found, model, doing = dict[str, Finding](), None, "run"
    try:
        with world.together():
            if job.out is not None and not job.go_on and world.rank == 0:
                rundir.check_free(job.out)
        if job.files:
            doing = "data"
            data = load(job.files, job.data, seed=job.config.seed, world=world)
            found["data"] = _judged(data, job, world)
            doing = "settings"
            with world.together():
                model = model_for(data, job.file, job.model, job.config.seed, job.dtype)
            compared(model, data, job.config.settled(len(data.train)), world)
    except InputError as error:  # on every rank
        what, _, advice = str(error).partition("; ")
        found[doing] = Finding("error", what, advice or "mend that first: train refuses it")
    if model is None:
        sizes = [job.sizes.inputs, *job.model.hidden, job.sizes.outputs]
        model = MLP(sizes, dropout=job.model.dropout, dtype=job.model.dtype)
    return model, found


def _judged(data: Data, job: Job, world: World) -> Finding:
    """Return what was understood of data that can be trained on, and what looks wrong."""
    config, shards = job.config, job.config.num_shards
    order = Order(len(data.train), config.batch_size, shards, config.seed, config.shuffle)
    odd = [whole(order), idle(order, config, world, resume=False)]
    notes = [*filter(None, odd), *look(data.train.table, world)["notes"]]
    text = "; ".join((data.told[0], data.told[-1]))
    if notes:
        return Finding("warning", text, "; ".join(notes))
    return Finding("ok", text)
