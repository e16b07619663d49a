"""The whole way from files to a trained model, for Python and for the command line alike."""

import hashlib
import math
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Floats, num_params
from dptrain.config import FROM_PYTHON, SHARD, DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.data.prepare import Data, prepare
from dptrain.data.read import read
from dptrain.data.roles import Roles
from dptrain.guard import GUARD
from dptrain.keys import Purpose, generator
from dptrain.level import check
from dptrain.model import Model, check_data, check_layout, described, is_own
from dptrain.model import load as models
from dptrain.model.file import build
from dptrain.model.mlp import MLP, mlp
from dptrain.order import Order
from dptrain.record.progress import progress
from dptrain.reduce.memory import shared_rows
from dptrain.reduce.sums import total
from dptrain.run.begin import open_run
from dptrain.run.config import RunConfig
from dptrain.run.control import MetricsFile, RunControl
from dptrain.run.identity import check_equal, check_programs, content, warn_of_machines
from dptrain.run.trained import Trained, end_line
from dptrain.streams import tell, warn
from dptrain.threads import blas_threads
from dptrain.train.control import Control, Sink
from dptrain.train.evaluate import Interrupted, evaluate
from dptrain.train.loop import begin, train
from dptrain.train.state import Metrics, Training
from dptrain.train.trial import try_model
from dptrain.words import InputError, counted, shown
from dptrain.world import World, collective, connect


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
        Python: arrays (x, y), shapes [m, ...] and [m] or [m, outputs]; a mapping of named arrays; a
        frame of pandas, polars or pyarrow, with `config.target`; or an object with `__len__` whose
        items are pairs x, y.
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
    config = config or DataConfig()
    world = world or connect()
    check_programs(world)
    take, roles = partial(shared_rows, world.node_comm), Roles.of(config)
    rows, paths = _named(data)
    table, test_table = read(rows, roles, world, take)
    found = asdict(config) | {"seed": seed}
    check_equal(world, found)
    if test is not None or config.test_data:
        other = config.test_data if test is None else _named(test)[0]
        first, preferred = read(other, roles.like(table), world, take)
        test_table = preferred or first
    found |= {"data": table.shapes(), "test": test_table and test_table.shapes()}
    if world.size > 1:
        contents = {
            "the data's SHA-256": content(table),
            "the test data's SHA-256": content(test_table),
        }
        check_equal(world, found | contents)
    made = prepare(table, test_table, config, seed, world, partial(total, world))
    return replace(made, paths=paths, config=config, seed=seed)


def _named(data: Any) -> tuple[Any, tuple[str, ...]]:
    """Return data with absolute names of files, and these names; one that says so for none."""
    listed = [data] if isinstance(data, (str, Path)) else () if data is None else data
    if not isinstance(listed, (list, tuple)) or not all(isinstance(p, (str, Path)) for p in listed):
        return data, (FROM_PYTHON,)
    files = tuple(str(Path(path).absolute()) for path in listed)
    return files, files


def mlp_for(data: Data, config: ModelConfig | None = None) -> MLP:
    """Return the multilayer perceptron for some data: as wide as its inputs, a loss for its task.

    Raises
    ------
    InputError
        The loss that is asked for does not fit the task.
    """
    config, encoding = config or ModelConfig(), data.encoding
    inputs, outputs = encoding.shift.size, encoding.outputs
    return mlp(config, encoding.task, inputs, outputs, len(encoding.classes))


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
    return build(file, data.encoding.shape, data.encoding.scores, seed=seed, dtype=dtype)


@collective
def fit(
    model: Model,
    data: Data,
    config: TrainConfig | None = None,
    *,
    out: str | Path | Callable[[], Path] | None = None,
    resume: bool = False,
    force: bool = False,
    quiet: bool = True,
    world: World | None = None,
) -> Trained:
    """Train a model and return it, with the same bytes on any number of ranks.

    SIGINT, SIGTERM and SIGUSR1 end the run after the step at hand, saved where there is `out`;
    `summary["stopped"]` says so.

    Parameters
    ----------
    model
        An `MLP`, or anything that keeps the `Model` protocol.
    data
        From `load`.
    config
        Shards, batch size, optimizer and so on.
    out
        The run directory to write; must not exist or be empty. Or what makes one and returns it,
        called on rank 0 where the run can begin. None: nothing is written.
    resume
        Go on with the run in `out`, from its newest checkpoint.
    force
        Go on although data, shards, CPU or software have changed; the receipt notes it.
    quiet
        Show no progress.
    world
        The ranks; all that MPI started unless given.

    Collective: every rank must call this, with equal arguments.

    Raises
    ------
    InputError
        Settings, model and data don't fit each other or the run to go on with; the run directory
        can't be written; a loss is not finite. Every rank raises the same.
    """
    config = config or TrainConfig()
    world = world or connect()
    check_programs(world)
    settings = RunConfig(data.paths, data.config, config, models.settings(model)).settings()
    places = ("data", "test-data")  # which may differ from node to node; `load` has compared
    same = {key: value for key, value in settings.items() if key not in places}
    known = described(model)
    known.pop("attributes", None)  # a rank may note there which it is
    same |= {"number of parameters": num_params(model.layout), "the model": known}
    check_equal(world, same)
    with world.together():
        check(config.cpu_level)
        _check(model, data, config)
    _say(() if quiet else [world.crowded(config.threads)], world)
    warn_of_machines(world, warn)
    with blas_threads(config.threads), GUARD.hearing(config.stall_timeout):
        if is_own(known) and not resume:
            _try(model, data, config, world)
        run = begin(model, data, config, world)
        try:
            writer, now = open_run(run, data, config, settings, out, resume, force, world)
            idle = _idle(run.order, config, world, resume=resume)
            _say(() if quiet else (*data.told, idle), world)
            bar = progress(run.num_steps, run.step, quiet=quiet or world.rank > 0)
            control = RunControl(run, config, world, writer, now)
            if writer is not None:
                writer.warn = bar.warn
            where = f"after step {run.step}" if run.step else "from its beginning"
            _say([f"the run goes on {where}"] if resume and now and not quiet else (), world)
            with closing(bar), control.closing():
                sinks: list[Sink] = [bar, *([] if writer is None else [MetricsFile(writer)])]
                train(run, data, config, world, control, sinks)
                test = _test(run, data, world, control)
                # from here on nobody looks at the shared memory
                params = run.reducer.close()
                trained = Trained(model, params, data.encoding, {}, run.history, config.threads)
                trained.summary.update(outcome(run, trained.params, test, config, world))
                if writer is not None:
                    writer.flush()  # lost metrics are noted before the run's end, not after
                    writer.say(end_line(trained))
        except InputError as error:
            if error.everywhere:  # all give their memory back; of one rank's, all end
                run.reducer.close()
            raise
    trained.summary.update(_circumstances(run, world, control))
    if writer is not None:
        try:
            trained.save(writer.run)
        except InputError as error:  # the last checkpoint has it all the same
            writer.note_trouble(str(error))
            trained.summary["trouble"] = writer.trouble
    return trained


def _try(model: Model, data: Data, config: TrainConfig, world: World) -> None:
    """Try a model of one's own, and whether it starts alike on every rank. Collective."""
    with world.together():
        if world.rank == 0:
            shard = config.batch_size // config.num_shards
            try_model(model, data.train, shard, config.seed, thoroughly=False)
        first = model.initial_params(generator(config.seed, Purpose.PARAMS))
    found = hashlib.sha256(np.ascontiguousarray(first).tobytes()).hexdigest()
    check_equal(world, {"the SHA-256 of the model's initial parameters": found})


def check_model(model: Model, data: Data, *, seed: int = 0) -> None:
    """Check that a model keeps what training needs of it, on the first examples of some data.

    That its sums over two shards are those over all of their examples; that it returns the same
    bits when called twice; that it writes each entry of the gradient, and nothing to the
    parameters; and that along each array's gradient the loss changes as fast as that says, to a
    tenth. Not asked are arrays whose gradient is 0, and, of a model with statistics or with random
    numbers, the sum of the gradients. `fit` begins with less: it takes the four arrays with the
    largest gradients, and half for a tenth. Local: any rank may call it.

    Parameters
    ----------
    model
        Anything that keeps the `Model` protocol.
    data
        From `load`.
    seed
        Of the initial parameters and of the random numbers.

    Raises
    ------
    InputError
        It does not; says which array.
    """
    _fit_to(model, data)
    with blas_threads(1):
        try_model(model, data.train, SHARD, seed, thoroughly=True)


def _say(lines: Iterable[str | None], world: World) -> None:
    """Tell people of what there is to say, once."""
    for line in lines if world.rank == 0 else ():
        if line:
            tell(shown(line))


def _test(run: Training, data: Data, world: World, control: Control) -> Metrics:
    """Return loss and metrics of the test rows; nothing where there are none, or a signal came."""
    if data.test is None or run.interrupted:
        return {}
    try:
        return evaluate(run.model, run.reducer.params, data.test, world, control.asked)
    except Interrupted as stop:
        run.stopped = stop.asked.stop  # the run itself is over, and saved
        return {}


def _idle(order: Order, config: TrainConfig, world: World, *, resume: bool) -> str | None:
    """Return what to say where ranks have nothing to work on, and what would use them."""
    idle, size, shards = order.idle(world.size), world.size, order.num_shards
    if not idle:
        return None
    found = (
        f"{idle} of {size} ranks {'are' if idle > 1 else 'is'} idle: a minibatch has "
        f"{min(order.batch_size, order.num_examples)} examples in {counted(shards, 'shard')}"
    )
    if resume:
        return f"{found}, which a run keeps; start {size - idle}"
    if order.batch_size < size:
        return f"{found}; use them by --batch-size {SHARD * size}"
    larger = f"--batch-size {SHARD * size}, or by " * (config.shards is None)
    return f"{found}; use them by {larger}--shards {size}, which is another result"


def _check(model: Model, data: Data, config: TrainConfig) -> None:
    """Raise InputError where model, data and settings don't fit."""
    if config.patience is not None and data.validation is None:
        raise InputError(
            f"patience is {config.patience}, but no rows are held out to watch; "
            "give --validation, such as 0.1"
        )
    if data.validation is not None and data.seed != config.seed:
        raise InputError(f"the data was split with seed {data.seed}; training has {config.seed}")
    if config.noise_scale and min(config.num_shards, config.batch_size) < 2:
        raise InputError(
            "noise-scale compares the gradients of shards: it needs --shards 2 or more, and a "
            f"--batch-size of 2 or more; they are {config.num_shards} and {config.batch_size}"
        )
    _fit_to(model, data)


def _fit_to(model: Model, data: Data) -> None:
    """Raise InputError where a model does not fit some data."""
    check_layout(model)
    found = data.encoding
    check_data(model, found.task, found.shift.size, found.outputs, len(found.classes))


def outcome(
    run: Training, params: Floats, test: Metrics, config: TrainConfig, world: World
) -> dict[str, Any]:
    """Return what a run came to, free of times and ranks: what its receipt says of its end.

    `params` [n] are those of the model, `test` the metrics of the test rows. Collective: every
    rank must call this.
    """
    kept = {"train_loss": run.train_loss} if run.seen else run.kept_metrics
    first = world.rank == 0
    return {
        "params_sha256": world.broadcast(first and hashlib.sha256(params.data).hexdigest()),
        "num_params": len(params),
        "shards": run.order.num_shards,
        "threads": config.threads,
        "reduce": config.reduce,
        "steps": run.step,
        "epochs": math.ceil(run.step / run.order.steps_per_epoch),
        "stopped": run.stopped,
        **kept,
        **{f"test_{name}": value for name, value in test.items()},
    }


def _circumstances(run: Training, world: World, control: RunControl) -> dict[str, Any]:
    """Return how a run came to it: times, ranks and files. Collective."""
    writer = control.writer
    files = writer and {
        "receipt_sha256": writer.head,
        "trouble": writer.trouble,
        "saved": writer.saved,
        "run": str(writer.run),
    }
    return {
        "ranks": world.size,
        "seconds": run.seconds,
        "samples_per_second": control.examples_per_second,
        **(world.broadcast(files) or {"run": None}),
    }
