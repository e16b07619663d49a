"""The command line: a thin shell over the Python functions, and the only place that knows click.

Nothing heavy is imported before a command runs: `dptrain --help` needs neither NumPy nor MPI.
"""

import contextlib
import json
import os
import sys
import tomllib
import traceback
from collections.abc import Callable
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource

from dptrain import world as worlds
from dptrain.config import (
    BenchConfig,
    DataConfig,
    InputError,
    ModelConfig,
    TrainConfig,
    nearest,
    option_name,
)

if TYPE_CHECKING:
    pass

Command = Callable[..., int]


Config = TypeVar("Config", DataConfig, ModelConfig, TrainConfig, BenchConfig)


class Whole(click.ParamType[int]):
    """A whole number; a file's 3.9 or true is none, where click would round it."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number from text, or from a file."""
        try:
            if isinstance(value, (bool, float)):
                raise TypeError
            return int(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a whole number", param, ctx)


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between them, such as 512,512; or the word none."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers from text, or from a list in a file or a default."""
        parts = value.split(",") if isinstance(value, str) else value
        if parts in (["none"], [""]):
            return ()
        try:
            return tuple(Whole().convert(part, None, None) for part in parts)
        except (TypeError, click.BadParameter):
            self.fail(f"{value!r} is not whole numbers with commas between, or none", param, ctx)


class TrainByDefault(click.Group):
    """A group whose command is train where the line begins with an option, or is empty."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put train in front of the arguments where no command stands there."""
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["train", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none, say which come near, or how to name a file."""
        if args[0] not in self.commands:
            hint = (
                f"; to train on a file: dptrain train {args[0]}" if Path(args[0]).exists() else ""
            )
            raise click.UsageError(
                f"no command {args[0]!r}; {nearest(args[0], self.commands)}{hint}"
            )
        return super().resolve_command(ctx, args)


def _variable(name: str) -> str:
    return f"DPTRAIN_{name.upper()}"


def _option(item: "Field[Any]", default: Any = ...) -> Callable[[Command], Command]:
    """Return the option of a setting; its values are checked where the settings are built."""
    default = item.default if default is ... else default
    kind, metavar, multiple = item.type, item.metadata.get("metavar"), False
    if get_origin(kind) is Literal:
        kind, metavar = str, f"[{'|'.join(get_args(kind))}]"
    elif kind == tuple[int, ...]:
        kind = Numbers()
    elif kind == tuple[str, ...]:
        kind, multiple = str, True
    elif get_args(kind):  # X | None
        kind = get_args(kind)[0]
    return click.option(
        f"--{option_name(item)}",
        item.name,
        type=Whole() if kind is int else kind,
        metavar=metavar,
        multiple=multiple,
        default=default,
        envvar=_variable(item.name),
        show_default=default not in (None, ()),
        help=item.metadata["help"],
    )


def _settings(*configs: type) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for each setting of some configurations."""

    def add(command: Command) -> Command:
        for item in reversed([item for config in configs for item in fields(config)]):
            command = _option(item)(command)
        return command

    return add


def _setting(config: type, name: str, default: Any = ...) -> Callable[[Command], Command]:
    """Return the option of one setting of a configuration, perhaps with a default of its own."""
    return _option(next(item for item in fields(config) if item.name == name), default)


def _build(config: type[Config], values: dict[str, Any]) -> Config:
    """Return a configuration of the options that a command has."""
    found = {item.name: values[item.name] for item in fields(config) if item.name in values}
    return config(**found)


def _read_config(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Take the options' defaults from a TOML file, and refuse keys that are no options."""
    if path is None:
        return None
    try:
        values = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is no TOML file: {error}") from None
    valid = {p.opts[-1].lstrip("-"): p for p in ctx.command.params if p is not param}
    ctx.default_map = {}
    for key, value in values.items():
        if key not in valid:
            raise click.BadParameter(f"{path} sets {key!r}; {nearest(key, valid)}")
        several = valid[key].multiple or valid[key].nargs == -1
        ctx.default_map[valid[key].name] = [value] if several and isinstance(value, str) else value
    return path


def _set_debug(ctx: click.Context, param: click.Parameter, debug: bool) -> None:  # noqa: ARG001
    """Note for `_fail`, which stands outside of any command, that tracebacks are wanted."""
    os.environ["DPTRAIN_DEBUG"] = "1" if debug else ""


def _one_length(ctx: click.Context, values: dict[str, Any]) -> None:
    """Of --epochs and --steps leave only the one from the nearer source: line, variable, file."""
    order = list(ParameterSource)  # from the nearest to the farthest
    sources = {key: ctx.get_parameter_source(key) for key in ("epochs", "steps")}
    nearness = {key: order.index(source) for key, source in sources.items() if source}
    for key, other in (("epochs", "steps"), ("steps", "epochs")):
        if values[other] is not None and nearness[other] < nearness[key]:
            values[key] = None


_config_option = click.option(
    "--config",
    metavar="FILE",
    envvar="DPTRAIN_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with any of these options, such as a run's config.toml.",
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, envvar="DPTRAIN_JSON", help="Print one JSON object instead."
)
_debug_option = click.option(
    "--debug",
    is_flag=True,
    envvar="DPTRAIN_DEBUG",
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of every error.",
)


@click.group(
    cls=TrainByDefault,
    no_args_is_help=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "DPTRAIN",  # DPTRAIN_PREDICT_OUT; train has short names
    },
    epilog="Without a command: dptrain train. See dptrain COMMAND --help.",
)
@click.version_option(package_name="dptrain")
def command() -> None:
    """Train with minibatches spread over MPI processes: mpirun -n 4 dptrain

    The result never depends on the number of processes, byte for byte.
    """


@command.command()
@click.argument("data", nargs=-1, metavar="[DATA]...", envvar="DPTRAIN_DATA")
@_settings(TrainConfig, ModelConfig, DataConfig)
@click.option(
    "--out",
    metavar="DIR",
    envvar="DPTRAIN_OUT",
    help="Run directory.  [default: runs/<time>-<name>]",
)
@_config_option
@_json_option
@click.option("--quiet", is_flag=True, envvar="DPTRAIN_QUIET", help="Show no progress.")
@_debug_option
def train(data: tuple[str, ...], out: str | None, as_json: bool, quiet: bool, **values: Any) -> int:
    """Train on DATA, or on the embedded handwritten digits.

    DATA is a .npz file with x and y (and x_test, y_test if there are any; x_train and y_train do
    as well), two .npy files x and y, or a CSV file with a header, with --target.

    Every option can also be set by a TOML file (--config) and by a variable, DPTRAIN_BATCH_SIZE for
    --batch-size; the line goes before the variable, the variable before the file.
    """
    _one_length(click.get_current_context(), values)
    config = _build(TrainConfig, values)
    model_config, data_config = _build(ModelConfig, values), _build(DataConfig, values)
    world = worlds.connect()
    from dptrain.record import rundir
    from dptrain.train.fit import fit, load, mlp_for

    with world.together():
        if world.rank == 0:
            path = (
                Path(out) if out else rundir.default_path(Path(data[0]).stem if data else "digits")
            )
            rundir.check_free(path)
    out = world.gather(str(path) if world.rank == 0 else None)[0]
    loaded = load(data, data_config, seed=config.seed, world=world)
    with world.together():
        model = mlp_for(loaded, model_config)
    trained = fit(model, loaded, config, out=out, quiet=quiet, world=world)
    if world.rank == 0:
        _show(trained.summary, as_json, _training_text)
    return 130 if trained.summary["stopped"] == "Ctrl-C" else 0


@command.command()
@click.argument("run")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option(
    "--target",
    multiple=True,
    metavar="NAME",
    help="CSV column to compare with; repeat it for several.",
)
@_config_option
@_json_option
@_debug_option
def evaluate(run: str, data: tuple[str, ...], target: tuple[str, ...], as_json: bool) -> int:
    """Loss and metrics of the model in RUN on DATA, or on the run's own test data.

    Of a file with x_test and y_test these are taken, else x and y.
    """
    world = worlds.connect()
    from dptrain.train.stored import evaluate_run

    found = evaluate_run(run, data, target, world)
    if world.rank == 0:
        _show(found, as_json, _evaluation_text)
    return 0


@command.command()
@click.argument("run")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    "--out", metavar="FILE", help="A .csv or .npy file; standard output, as CSV, unless given."
)
@click.option("--probabilities", is_flag=True, help="Probabilities of the classes or labels.")
@_config_option
@_debug_option
def predict(run: str, data: tuple[str, ...], out: str | None, probabilities: bool) -> int:
    """Predictions of the model in RUN for the rows of DATA: classes, labels or values.

    DATA needs no targets. Of a CSV file the columns that the model was trained on are taken.
    """
    world = worlds.connect()
    from dptrain.train.stored import predict_run, write_predictions

    with world.together():
        if out is not None and Path(out).suffix not in (".csv", ".npy"):
            raise InputError(f"out is {out}; predictions are written to a .csv or .npy file")
    found = predict_run(run, data, probabilities=probabilities, world=world)
    with world.together():
        if found is not None:
            write_predictions(out, *found)
    return 0


@command.command()
@_settings(BenchConfig)
@_setting(ModelConfig, "hidden", (512, 512))
@_setting(ModelConfig, "activation")
@_setting(ModelConfig, "dropout")
@_setting(ModelConfig, "dtype")
@_setting(TrainConfig, "shards")
@_setting(TrainConfig, "batch_size", 256)
@_setting(TrainConfig, "optimizer")
@_setting(TrainConfig, "threads")
@_setting(TrainConfig, "seed")
@click.option(
    "--plot", metavar="FILE", envvar="DPTRAIN_PLOT", help="Draw it: a .png, .svg or .pdf file."
)
@_config_option
@_json_option
@click.option("--quiet", is_flag=True, envvar="DPTRAIN_QUIET", help="Show no progress.")
@_debug_option
def bench(plot: str | None, as_json: bool, quiet: bool, **values: Any) -> int:
    """Where a step's time goes on this machine, beside the least that it could take.

    Each part of the step has a floor, measured in the same run: the same products alone, or the
    bytes that must be moved over the bandwidth of memory and, between nodes, of the network. Then
    the tree beside MPI's own Allreduce, and four shards a rank beside one. The data is made up.
    """
    settings, config = _build(BenchConfig, values), _build(TrainConfig, values)
    model_config = _build(ModelConfig, values)
    world = worlds.connect()
    from dptrain.bench import measure, show

    with world.together():
        if plot is not None and world.rank == 0:
            show.check(Path(plot))

    def say(text: str) -> None:
        if world.rank == 0 and not quiet:
            print(text, file=sys.stderr, flush=True)

    found = measure.bench(model_config, config, **asdict(settings), world=world, say=say)
    with world.together():
        if world.rank == 0:
            if plot is not None:
                show.draw(found, Path(plot))
            _show(found, as_json, show.text)
    return 0


def _show(values: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    click.echo(json.dumps(values) if as_json else text(values))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def _measures(values: dict[str, Any], prefix: str) -> str:
    """Return the metrics of one set of rows in a line; empty where there are none."""
    names = ("loss", "accuracy", "label_accuracy", "rmse", "mae", "r2")
    found = [(name, values[prefix + name]) for name in names if prefix + name in values]
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found)


def _training_text(summary: dict[str, Any]) -> str:
    """Return what a run came to, for people."""
    rows = [(name, _measures(summary, f"{name}_")) for name in ("train", "validation", "test")]
    rows += [
        (
            "work",
            f"{_count(summary['steps'], 'step')}, {_count(summary['epochs'], 'epoch')} in "
            f"{summary['seconds']:.2f} s; "
            f"{summary['samples_per_second']:,.0f} examples a second",
        ),
        ("stopped", summary["stopped"] or ""),
        ("ranks", f"{_count(summary['ranks'], 'rank')}, {_count(summary['shards'], 'shard')}"),
        ("model", f"{summary['num_params']:,} parameters"),
        ("sha256", summary["params_sha256"]),
        ("run", summary["run"]),
    ]
    return "\n".join(f"{name:<12}{value}" for name, value in rows if value)


def _evaluation_text(found: dict[str, Any]) -> str:
    """Return an evaluation for people, with the confusion matrix where there is one."""
    lines = [f"{found['data']}: {found['examples']} examples", _measures(found, "")]
    if "confusion" not in found:
        return "\n".join(lines)
    classes = [str(name) for name in found["classes"]]
    largest = max(max(row) for row in found["confusion"])
    width = 2 + max(len(str(largest)), *map(len, classes))
    lines += ["", "confusion (row: true class, column: predicted class)"]
    lines.append(" " * width + "".join(f"{name:>{width}}" for name in classes))
    for name, row in zip(classes, found["confusion"], strict=True):
        lines.append(f"{name:>{width}}" + "".join(f"{count or '.':>{width}}" for count in row))
    return "\n".join(lines)


def main() -> None:
    """Run the command line, and end every rank the same way; only the first one prints."""
    launch = worlds.announced()
    if launch is None or launch.rank == 0:
        sys.exit(_run())
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        sys.exit(_run())


def _run() -> int:
    """Run the command line and return the exit status: 0, 2 for a mistake, 130 for Ctrl-C."""
    try:
        status: int = command.main(prog_name="dptrain", standalone_mode=False) or 0
    except click.exceptions.Exit as done:
        status = done.exit_code
    except click.ClickException as error:
        status = _fail(InputError(error.format_message()))
    except InputError as error:
        status = _fail(error)
    except (click.Abort, KeyboardInterrupt):
        worlds.connect().abort(130)
        status = 130
    return status


def _fail(error: InputError) -> int:
    """Print a person's mistake once, by the first rank; return the exit status."""
    launch = worlds.announced()
    first = launch is None or launch.rank == 0
    try:
        world = worlds.connect()
        first = world.rank == 0
        if not error.everywhere:
            with world.together():
                raise error
    except InputError as agreed:  # what all ranks agree on, or that they don't make one world
        error = agreed
    if "--debug" in sys.argv or os.environ.get("DPTRAIN_DEBUG"):
        traceback.print_exception(error)
    if first:
        print(f"dptrain: {error}", file=sys.stderr)
    return 2
