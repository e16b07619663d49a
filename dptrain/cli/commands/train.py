"""dptrain train."""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dptrain import status
from dptrain.checked import Plain
from dptrain.cli.options import Joint, build, job_options, json_option, quiet_option
from dptrain.cli.ranks import connect
from dptrain.cli.results import print_result
from dptrain.config import DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.words import InputError, counted, file_name, quoted

if TYPE_CHECKING:
    from dptrain.run.outcome import Summary


def one_length(ctx: click.Context, values: Plain) -> None:
    """Of --epochs and --steps leave only the one from the nearer source: line, variable, file."""
    source = ParameterSource  # whose own order is another before click 8.4
    order = [source.COMMANDLINE, source.ENVIRONMENT, source.DEFAULT_MAP, source.DEFAULT]
    sources = {key: ctx.get_parameter_source(key) for key in ("epochs", "steps")}
    nearness = {key: order.index(source) for key, source in sources.items() if source}
    for key, other in (("epochs", "steps"), ("steps", "epochs")):
        if values[other] is not None and nearness[other] < nearness[key]:
            values[key] = None


def given_dtype(ctx: click.Context, values: Plain) -> str | None:
    """Return the type that is asked for; with --model refuse what is the perceptron's alone."""
    names = [item.name for item in fields(ModelConfig)]
    given = {n for n in names if ctx.get_parameter_source(n) is not ParameterSource.DEFAULT}
    other = sorted(given - {"dtype", "label_smoothing"})
    if other and (values["model"] or values["model_sha256"]):
        raise InputError(f"{other[0]} is the perceptron's; one's own model takes --model-arg")
    return values["dtype"] if "dtype" in given else None


def _begun(out: str | None, resume: str | None, go_on: bool, force: bool) -> bool:
    """Return whether there is a run to go on with.

    InputError where the options don't fit each other, or a new run's directory is not free.
    """
    from dptrain.record import rundir

    if force and not (resume or go_on):
        raise InputError("force is given without resume: there is nothing to go on with")
    if go_on and not out:
        raise InputError("continue needs the run's directory: give it by --out DIR")
    if out and resume:
        raise InputError(f"out is {out}, but {resume} goes on where it is: leave --out out")
    if go_on and rundir.holds_run(Path(str(out))):
        return True
    if out:
        rundir.check_free(Path(out))
    return resume is not None


@click.command(cls=Joint)
@job_options
@click.option(
    "--force",
    is_flag=True,
    help="Resume although data, shards, CPU or software changed; the receipt notes it.",
)
@json_option
@quiet_option
def train(
    data: tuple[str, ...],
    out: str | None,
    resume: str | None,
    go_on: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> int:
    """Train on DATA, or on the embedded handwritten digits.

    SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU save the run and end it with status 75, Ctrl-C
    with 130: go on with --resume RUN, which takes the run's own settings, but for --epochs or
    --steps, which may grow. Before the run has begun a signal just ends all.

    DATA is a table with --target: CSV, TSV, Parquet or Arrow files, a directory or a pattern of
    them; or arrays: a .npz or HDF5 file with x and y (and x_test, y_test if there are any; x_train
    and y_train do as well; --x and --y name others), or two files x and y, .npy or IDX. What was
    understood of it is said before training.

    Every option can also be set by a TOML file (--config, such as a run's config.toml) and by a
    variable, DPTRAIN_BATCH_SIZE for --batch-size; the line goes before the variable, the variable
    before the file. A variable's text is one name, blanks and all; several stand as in the file:
    DPTRAIN_DATA='["x.npy", "y.npy"]'.
    """
    out = out and file_name(out)
    one_length(click.get_current_context(), values)
    config = build(TrainConfig, values)
    model_config, data_config = build(ModelConfig, values), build(DataConfig, values)
    file, dtype = build(ModelFile, values), given_dtype(click.get_current_context(), values)
    world = connect(config.cpu_level)
    from dptrain.record import rundir
    from dptrain.run.config import check_there
    from dptrain.run.fit import fit
    from dptrain.run.ready import load, model_for

    begun = world.first(lambda: _begun(out, resume, go_on, force))
    name = Path(data[0]).stem if data else "digits"
    if resume:
        with world.together():
            check_there(data)
    loaded = load(data, data_config, seed=config.seed, world=world)
    with world.together():
        model = model_for(loaded, file, model_config, config.seed, dtype)
    where = resume or out or partial(rundir.default_path, name)
    trained = fit(
        model, loaded, config, out=where, resume=begun, force=force, quiet=quiet, world=world
    )
    print_result(trained.summary.plain(), as_json, _training_text)
    return _status(trained.summary)


def _status(summary: "Summary") -> int:
    from dptrain.guard import CTRL_C, STOPS

    if summary.stopped in STOPS.values():
        later = status.CTRL_C if summary.stopped == CTRL_C else status.SAVED
        return later if summary.saved == summary.steps else status.UNWRITTEN
    return status.UNWRITTEN if summary.trouble else status.DONE


def _training_text(summary: Plain) -> str:
    """Return what a run came to, for people."""
    from dptrain.guard import STOPS
    from dptrain.record.progress import measures

    later = summary["stopped"] in STOPS.values()
    go_on = f"dptrain train --resume {quoted(summary['run'])}" if later else ""
    rows = [(name, measures(summary, f"{name}_")) for name in ("train", "validation", "test")]
    work = f"{counted(summary['steps'], 'step')}, {counted(summary['epochs'], 'epoch')}"
    fast = summary["examples_per_second"]  # 0 where all had been done before
    pace = f"; {fast:,.0f} examples a second" if fast else ""
    rows += [
        ("work", f"{work} in {summary['seconds']:.2f} s{pace}"),
        ("stopped", summary["stopped"] or ""),
        ("go on", go_on),
        ("trouble", summary["trouble"] or ""),
        ("ranks", f"{counted(summary['ranks'], 'rank')}, {counted(summary['shards'], 'shard')}"),
        ("model", f"{summary['num_params']:,} parameters"),
        ("sha256", summary["params_sha256"]),
        ("run", summary["run"]),
    ]
    return "\n".join(f"{name:<12}{value}" for name, value in rows if value)
