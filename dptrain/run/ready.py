"""What a run is given, made ready: files and arrays as data, settings or a file as a model.

And what people are told of a run before it trains, and by doctor before there is one.
"""

import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from dptrain.checked import check_type
from dptrain.config import FROM_PYTHON, SHARD, DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.data.prepare import Data, prepare
from dptrain.data.read import read
from dptrain.data.roles import Roles
from dptrain.machine import crowded, usable_cores
from dptrain.model import Model, check_data, check_is_one, check_layout
from dptrain.model.load import forms
from dptrain.model.mlp import MLP, mlp
from dptrain.order import Order
from dptrain.record.checkpoint import NAMES
from dptrain.reduce.memory import shared_rows
from dptrain.reduce.sums import total
from dptrain.run.cache import read_large
from dptrain.run.identity import check_equal, check_programs, content
from dptrain.threads import blas_threads
from dptrain.train.state import Training
from dptrain.train.trial import Trial, try_model
from dptrain.words import InputError, counted, listed
from dptrain.world import World, collective, connect

LOADED = "what dptrain.load returns"


@collective
def load(
    data: Any = (),
    config: DataConfig | None = None,
    *,
    test: Any = None,
    seed: int = 0,
    world: World | None = None,
) -> Data:
    """Read rows and make them ready for training: checked, split and encoded.

    Parameters
    ----------
    data
        Names of files, directories or patterns (CSV, TSV, Parquet, Arrow, .npz, HDF5; several are
        one data set); two files x and y (.npy or IDX); or nothing, for the embedded digits. From
        Python: arrays (x, y), shapes [m, ...] and [m] or [m, outputs], x may be a frame of pandas,
        polars or pyarrow; a frame alone, with `config.target`; a mapping of named arrays; or an
        object with `__len__` whose items are pairs x, y.
    config
        Which columns are what, which task, what is held out, how inputs are scaled.
    test
        Test rows, as `data`, where that holds none; files may be named in `config.test_data` too.
    seed
        Chooses the rows held out; give `fit` the same.
    world
        The ranks; all that MPI started unless given.

    Collective: every rank must call this; each checks and adds up its own share of the rows. Files
    that must be parsed are read by one rank a node, into memory that its ranks share.

    Raises
    ------
    InputError
        What was given is not what is needed, on any rank; every rank raises the same.
    """
    check_type("config", config, DataConfig | None, "a dptrain.DataConfig")
    config, seed, world = config or DataConfig(), TrainConfig(seed=seed).seed, world or connect()
    check_programs(world)
    take, roles = partial(shared_rows, world.node_comm), Roles.of(config)
    rows, paths = _named(data)
    table, test_table = read_large(rows, roles, config, world)
    found = asdict(config) | {"seed": seed}
    check_equal(world, found)
    if test is not None or config.test_data:
        other = config.test_data if test is None else _named(test)[0]
        first, preferred = read(other, roles.like(table), world, take)
        test_table = preferred or first
    found |= {"data": table.shapes(), "test": test_table and test_table.shapes()}
    if world.size > 1:
        with world.together():  # items are looked at here, and may be no rows
            found |= {"the data's SHA-256": content(table)}
            found |= {"the test data's SHA-256": content(test_table)}
        check_equal(world, found)
    made = prepare(table, test_table, config, seed, world, partial(total, world))
    return replace(made, paths=paths, config=config, seed=seed)


def _named(data: Any) -> tuple[Any, tuple[str, ...]]:
    """Return data with absolute names of files, and these names; one that says so for none."""
    listed = [data] if isinstance(data, (str, Path)) else () if data is None else data
    if not isinstance(listed, (list, tuple)) or not all(isinstance(p, (str, Path)) for p in listed):
        return data, (FROM_PYTHON,)
    files = tuple(str(Path(path).absolute()) if str(path) else "" for path in listed)
    return files, files


def mlp_for(data: Data, config: ModelConfig | None = None) -> MLP:
    """Return the multilayer perceptron for some data: as wide as its inputs, a loss for its task.

    Raises InputError where the loss that is asked for does not fit the task.
    """
    check_type("data", data, Data, LOADED)
    check_type("config", config, ModelConfig | None, "a dptrain.ModelConfig")
    config, found = config or ModelConfig(), data.encoding
    sizes = found.shift.size, found.outputs, len(found.classes)
    return mlp(config, found.task, *sizes, found.categories)


def model_for(
    data: Data, file: ModelFile, config: ModelConfig, seed: int, dtype: str | None = None
) -> Model:
    """Return the model that a file makes for some data, or the perceptron where none is named.

    Raises InputError where the file or what it makes is not what is needed; see `build`.
    """
    if file.model is None and file.model_sha256 is None:
        if file.model_arg:
            raise InputError(f"model-arg is {file.model_arg[0]}, and there is no --model")
        return mlp_for(data, config)
    from dptrain.model.file import build

    shape, scores, smoothing = data.encoding.shape, data.encoding.scores, config.label_smoothing
    return build(file, shape, scores, seed=seed, dtype=dtype, label_smoothing=smoothing)


def check_model(model: Model, data: Data, *, seed: int = 0) -> None:
    """Check that a model keeps what training needs of it, on the first examples of some data.

    That its sums over two shards, one of a single example, are those over all, and where the data
    has weights, that these count; that it returns the same bits when called twice; that it writes
    each entry of the gradient, and nothing to the parameters; and that along each array's gradient
    the loss changes as fast as that says, to a tenth; where that is 0, a change gets a warning. Not
    asked, of a model with statistics or with random numbers, is the sum of the gradients. `fit`
    begins with less: it takes the four arrays with the largest gradients, and a third for a tenth;
    but it asks that all ranks make the same of a shard. Local: any rank may call it.

    Raises InputError, which says which array, where it does not. `seed`: of the initial parameters
    and of the random numbers.
    """
    check_given(model, data)
    check_fits(model, data)
    with blas_threads(1):
        try_model(Trial(model, data.train, SHARD, seed), thoroughly=True)


def check_given(
    model: object, data: object, config: object = None, on_epoch: object = None
) -> None:
    """Raise InputError where a caller in Python has given something else."""
    check_type("data", data, Data, LOADED)
    check_type("config", config, TrainConfig | None, "a dptrain.TrainConfig")
    check_type("on_epoch", on_epoch, Callable | None, "a function")
    check_is_one(model)


def check_fits(model: Model, data: Data) -> None:
    """Raise InputError where a model does not fit some data."""
    check_is_one(model)
    check_layout(model)
    for name, (kind, _) in forms(model).items():
        if kind not in NAMES:
            raise InputError(f"{name} is {kind}, which can't be stored; give {listed([*NAMES])}")
    found = data.encoding
    sizes = found.shift.size, found.outputs, len(found.classes)
    check_data(model, found.task, *sizes, found.categories)


def goes_on(run: Training) -> str:
    """Return where a run goes on, or that it has ended, and what would let it go on."""
    if run.stopped:
        return f"the run is finished, by --patience: {run.stopped}"
    if run.step == run.num_steps and not run.seen:
        steps = run.config.steps
        above = f"steps above {steps}" if steps else f"epochs above {run.measured}"
        return f"the run is finished, after step {run.step}; to train longer give --{above}"
    return f"the run goes on {f'after step {run.step}' if run.step else 'from its beginning'}"


def crowding(threads: int, world: World) -> str | None:
    """Return what to say where a node has fewer cores than its ranks have threads.

    Collective: every rank must call this.
    """
    everyone = world.allgather((socket.gethostname(), usable_cores()))
    for ranks in world.nodes:
        own = [cores for _, cores in everyone[ranks.start : ranks.stop]]
        if crowded(own, threads):
            cores = counted(len(set().union(*own)), "core")
            needed = counted(len(ranks), "rank") + f" of {threads} threads" * (threads > 1)
            return f"{everyone[ranks.start][0]} has {cores} for {needed}; expect waiting"
    return None


def whole(order: Order) -> str | None:
    """Return what to say where a minibatch is asked for that is larger than all rows."""
    if order.batch_size <= order.num_examples:
        return None
    found = f"--batch-size {order.batch_size:,} is above the {order.num_examples:,} rows"
    return f"{found} to train on: each step takes all of them"


def idle(order: Order, config: TrainConfig, world: World, *, resume: bool) -> str | None:
    """Return what to say where ranks have nothing to work on, and what would use them."""
    number, size, shards = order.idle(world.size), world.size, order.num_shards
    if not number:
        return None
    found = (
        f"{number} of {size} ranks {'are' if number > 1 else 'is'} idle: a minibatch has "
        f"{min(order.batch_size, order.num_examples)} examples in {counted(shards, 'shard')}"
    )
    if resume:
        return f"{found}, which a run keeps; start {size - number}"
    if order.batch_size < size:
        return f"{found}; use them by --batch-size {SHARD * size}"
    larger = f"--batch-size {SHARD * size}, or by " * (config.shards is None)
    return f"{found}; use them by {larger}--shards {size}, which is another result"
