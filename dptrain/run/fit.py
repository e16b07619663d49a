"""From data, model and settings to a trained model, for Python and the command line alike."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from hashlib import sha256

import numpy as np

from dptrain.arrays import Array, num_params
from dptrain.config import TrainConfig
from dptrain.data.prepare import Data
from dptrain.guard import GUARD
from dptrain.level import check, in_use
from dptrain.model import Model, described, is_own
from dptrain.optim import named
from dptrain.record.progress import progress
from dptrain.run.begin import Out, open_run
from dptrain.run.config import settings
from dptrain.run.control import OnEpoch, RunControl
from dptrain.run.identity import check_equal, check_programs, warn_of_machines
from dptrain.run.outcome import circumstances, outcome
from dptrain.run.ready import check_fits, check_given, crowding, goes_on, idle, whole
from dptrain.run.sinks import sinks
from dptrain.run.trained import Trained, end_of
from dptrain.run.weights import Weights, with_weights
from dptrain.streams import tell, warn
from dptrain.threads import blas_threads
from dptrain.train.evaluate import Interrupted, check_measured, evaluate
from dptrain.train.loop import begin, given_back, train
from dptrain.train.needs import bytes_here, check_memory
from dptrain.train.state import Metrics, Training
from dptrain.train.trial import Trial, try_model
from dptrain.version import cpu
from dptrain.words import InputError, shown
from dptrain.world import World, collective, connect


@collective
def fit(
    model: Model,
    data: Data,
    config: TrainConfig | None = None,
    *,
    out: Out | None = None,
    resume: bool = False,
    force: bool = False,
    quiet: bool = True,
    on_epoch: OnEpoch | None = None,
    world: World | None = None,
) -> Trained:
    """Train a model and return it, with the same bytes on any number of ranks.

    SIGINT, SIGTERM and SIGUSR1 end the run after the step at hand, saved where there is `out`;
    `summary.stopped` says so.

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
    on_epoch
        Called at the end of each epoch with its metrics by name, as in `Trained.history`, on every
        rank with the same; where it returns what is true, on any rank, the run ends there.
    world
        The ranks; all that MPI started unless given.

    Collective: every rank must call this, with equal arguments.

    Raises
    ------
    InputError
        Settings, model and data don't fit each other or the run to go on with; the run directory
        can't be written; a loss is not finite. Every rank raises the same.
    """
    check_given(model, data, config, on_epoch)
    config = (config or TrainConfig()).settled(len(data.train))
    world = world or connect()
    check_programs(world, model)
    with world.together():
        config, weights = with_weights(config, model)
    own = compared(model, data, config, world, "a function" * callable(out) or str(out))
    _say(() if quiet else [crowding(config.threads, world)], world)
    warn_of_machines(world, model)
    with blas_threads(config.threads), GUARD.hearing(config.stall_timeout):
        if own and not resume:
            _try(model, data, config, world)
        run = begin(model, data, config, world, weights.initial if weights else None)
        with given_back(run):
            if config.patience_metric != "loss" and data.validation is not None:
                with world.together():
                    params, name = run.reducer.params, config.watched[0]
                    check_measured(run.model, params, data.validation, name)
            writer, now = open_run(run, out, go_on=resume, force=force)
            _say(() if quiet else _beginning(run, weights, resume), world)
            bar = progress(run.num_steps, run.step, quiet=quiet or world.rank > 0)
            control = RunControl(run, writer, now, on_epoch)
            if writer is not None:
                writer.warn = bar.warn
            with closing(bar), closing(control):
                train(run, control, sinks(bar, writer))
                trained = _ended(control)
        return _saved(trained, control)  # in full, whatever signal comes


def _saved(trained: Trained, control: RunControl) -> Trained:
    """Return what a run came to, and how; written where it has a directory. Collective."""
    writer, found = control.writer, circumstances(trained.summary, control)
    trained = replace(trained, summary=found)
    if writer is None:
        return trained
    try:
        trained.save(writer.run)
    except InputError as error:  # the last checkpoint has it all the same
        writer.note_trouble(str(error))
    return replace(trained, summary=replace(found, trouble=writer.trouble))


def compared(
    model: Model, data: Data, config: TrainConfig, world: World, out: str | None = None
) -> bool:
    """Return whether a run's model is one's own, where ranks have all settings the same.

    Raises InputError where they have not, or these don't fit each other. Collective.
    """
    places = ("data", "test-data")  # which may differ from node to node; `load` has compared
    found = settings(data, config, model).items()
    same = {"out": out} | {key: value for key, value in found if key not in places}
    with world.together():
        known = described(model)
    known.pop("attributes", None)  # a rank may note there which it is
    same |= {"number of parameters": num_params(model.layout), "the model": known}
    same |= {f"model array {n}": (p.name, p.shape, p.kind) for n, p in enumerate(model.layout)}
    check_equal(world, same)
    with world.together():
        check(config.cpu_level)
        _check(model, data, config)
    return is_own(known)


def _ended(control: RunControl) -> Trained:
    """Return what a run came to, said in its receipt; untested where a signal came. Collective."""
    run, data, test = control.run, control.run.data, Metrics()
    if data.test is not None and not run.interrupted:
        try:
            test = evaluate(run.model, run.reducer.params, data.test, run.world, control.asked)
        except Interrupted as stop:
            run.stopped = stop.asked.stop  # the run itself is over, and saved
    params = run.reducer.close()  # from here on nobody looks at the shared memory
    found = outcome(run, params, test)
    trained = Trained(run.model, params, data.encoding, found, run.history, run.config.threads)
    if control.writer is not None:
        control.writer.flush()  # lost metrics are noted before the run's end, not after
        control.writer.say(end_of(trained)._asdict())
    return trained


@np.errstate(all="ignore")
def _try(model: Model, data: Data, config: TrainConfig, world: World) -> None:
    """Try a model of one's own, and whether all ranks make the same of a shard. Collective.

    On CPUs of several kinds what differs is only said.
    """
    with world.together():
        check_memory(bytes_here(model, data, config, world))
        trial = Trial(model, data.train, config.batch_size // config.num_shards, config.seed)
        try:
            made = trial.shard(*trial.halves[0], trial.params) if world.rank else try_model(trial)
        except InputError as error:
            error.local = world.rank > 0  # on rank 0 it is tried for all
            raise
        if world.size == 1:
            return
        found = {"what transform returns": trial.transformed(), **trial.named(made)}
    seeded = "seed on every rank what draws them, as by torch.manual_seed(0)"
    check_equal(world, _hashes({"the model's initial parameters": trial.params}), seeded)
    needed = "let it follow from what the model is given, not from a rank, process or host"
    try:
        check_equal(world, _hashes(found), needed)
    except InputError as error:
        if len({*world.allgather((cpu(), in_use()))}) == 1:
            raise
        if world.rank == 0:
            warn(f"{error}; of CPUs of several kinds --cpu-level may make the bytes one")


def _hashes(arrays: Mapping[str, Array]) -> dict[str, str]:
    return {f"the SHA-256 of {k}": sha256(v.tobytes()).hexdigest() for k, v in arrays.items()}


def _say(lines: Iterable[str | None], world: World) -> None:
    for line in filter(None, lines if world.rank == 0 else ()):
        tell(shown(line))


def _beginning(run: Training, weights: Weights | None, resume: bool) -> list[str | None]:
    """Return what is to be said of a run that begins or goes on."""
    return [
        *(weights.told if weights and not resume else ()),
        *run.data.told, *named.told(run.model.layout, run.config), whole(run.order),
        idle(run.order, run.config, run.world, resume=resume), goes_on(run) if resume else None,
    ]  # fmt: skip


def _check(model: Model, data: Data, config: TrainConfig) -> None:
    if config.patience is not None and data.validation is None:
        raise InputError(
            f"patience is {config.patience}, but no rows are held out to watch; "
            "give --validation, such as 0.1"
        )
    if data.validation is not None and data.seed != config.seed:
        raise InputError(
            f"the data was split with seed {data.seed}; training has {config.seed}: load the data "
            f"with seed={config.seed}"
        )
    if config.noise_scale and min(config.num_shards, config.batch_size) < 2:
        raise InputError(
            "noise-scale compares the gradients of shards: it needs --shards 2 or more, and a "
            f"--batch-size of 2 or more; they are {config.num_shards} and {config.batch_size}"
        )
    check_fits(model, data)
    named.treatments(model.layout, config)
