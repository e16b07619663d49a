"""How settings become options of the command line, with their types, files and variables."""

import contextlib
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from dptrain.checked import option_name
from dptrain.cli.help import Setting, Told
from dptrain.cli.ranks import connect_as
from dptrain.config import (
    BenchConfig,
    DataConfig,
    ExplainConfig,
    ModelConfig,
    ModelFile,
    PlotConfig,
    TrainConfig,
)
from dptrain.words import InputError, nearest

Command = Callable[..., int]

Config = TypeVar(
    "Config",
    DataConfig,
    ModelConfig,
    ModelFile,
    TrainConfig,
    BenchConfig,
    ExplainConfig,
    PlotConfig,
)


class Alone(Told):
    """A command of one process: nothing is asked of other ranks, and so no MPI is started."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line; a mistake in it is nobody else's."""
        with _nobody_else():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _nobody_else():
            return super().invoke(ctx)


@contextlib.contextmanager
def _nobody_else() -> Iterator[None]:
    """Let a mistake be known everywhere, as there is one process only."""
    try:
        yield
    except (click.ClickException, InputError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise InputError(text, everywhere=True) from None


# click before 8.4 has no ParamType[int], so the kinds below leave out what they return
class Whole(click.ParamType):  # type: ignore[type-arg]
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


class Real(click.ParamType):  # type: ignore[type-arg]
    """A number; a file's list or true is none, where click would fail or round."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number from text, or from a file."""
        try:
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a number", param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg]
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
            if isinstance(parts, dict):
                raise TypeError
            return tuple(Whole().convert(part, None, None) for part in parts)
        except (TypeError, click.BadParameter):
            self.fail(f"{value!r} is not whole numbers with commas between, or none", param, ctx)


class Name(click.types.StringParamType):
    """A name, blanks and all. A variable that is to hold several has them as a TOML file has."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the names in a variable: one, or those of a list, such as ["x.npy", "y.npy"]."""
        found: list[Any] = []
        if rv.startswith("["):
            with contextlib.suppress(ValueError, RecursionError):
                found = tomllib.loads(f"names = {rv}")["names"]
        return found if found and all(isinstance(name, str) for name in found) else [rv]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a name as files have it, in UTF-8, whatever locale it was typed in."""
        text = super().convert(value, param, ctx)
        with contextlib.suppress(UnicodeEncodeError):
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        return text


def _variable(name: str) -> str:
    return f"DPTRAIN_{name.upper()}"


def _option(config: type, item: "Field[Any]", default: Any = ...) -> Callable[[Command], Command]:
    """Return the option of a setting; its values are checked where the settings are built."""
    default = item.default if default is ... else default
    kind, metavar, multiple = item.type, item.metadata.get("metavar"), False
    if get_origin(kind) is Literal:
        kind, metavar = str, f"[{'|'.join(get_args(kind))}]"
    elif kind == tuple[int, ...]:
        kind = Numbers()
    elif kind == tuple[str, ...]:
        kind, multiple = Name(), True
    elif get_args(kind):  # X | None
        kind = get_args(kind)[0]
    return click.option(
        f"--{option_name(item)}",
        item.name,
        cls=Setting,
        config=config,
        type=Whole() if kind is int else Real() if kind is float else kind,
        is_flag=kind is bool,
        metavar=metavar,
        multiple=multiple,
        default=default,
        envvar=_variable(item.name),
        show_default=default not in (None, ()) and kind is not bool,
        help=item.metadata["help"],
    )


def settings(*configs: type) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for each setting of some configurations."""

    def add(command: Command) -> Command:
        for config in reversed(configs):
            for item in reversed(fields(config)):
                command = _option(config, item)(command)
        return command

    return add


def setting(config: type, name: str, default: Any = ...) -> Callable[[Command], Command]:
    """Return the option of one setting of a configuration, perhaps with a default of its own."""
    item = next(item for item in fields(config) if item.name == name)
    return _option(config, item, default)


def build(config: type[Config], values: dict[str, Any]) -> Config:
    """Return a configuration of the options that a command has."""
    found = {item.name: values[item.name] for item in fields(config) if item.name in values}
    return config(**found)


def _read_config(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Take the options' defaults from a TOML file, and refuse keys that are no options."""
    if path is None:
        return None
    from dptrain.record.rundir import read_toml

    try:
        with Path(path).open("rb") as file:
            values = read_toml(file, Path(path))
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None
    _take_defaults(ctx, param, values, path)
    return path


def _take_defaults(
    ctx: click.Context, param: click.Parameter, values: dict[str, Any], path: str
) -> None:
    """Make a file's values the options' defaults."""
    if ctx.default_map:
        raise click.BadParameter("a run goes on with its own settings: give it without --config")
    valid = {p.opts[-1].lstrip("-"): p for p in ctx.command.params if p is not param}
    ctx.default_map = {}
    for key, value in values.items():
        if key not in valid:
            raise click.BadParameter(f"{path} sets {key!r}; {nearest(key, valid)}")
        if key == "model":
            raise click.BadParameter(
                f"{path} sets model; a file of settings, which may be a stranger's, never says "
                "what is run: give --model on the line"
            )
        several = valid[key].multiple or valid[key].nargs == -1
        needed = _needed(valid[key], [value] if several and not isinstance(value, list) else value)
        if needed:
            raise click.BadParameter(f"{path} sets {key} to {value!r}; needed is {needed}")
        ctx.default_map[valid[key].name] = [value] if several and isinstance(value, str) else value


def _needed(option: click.Parameter, value: Any) -> str | None:
    """Return what an option needs in a file where the value is none such; None where it may be.

    Numbers and whole numbers are looked at by their own types.
    """
    if getattr(option, "is_flag", False):
        return None if isinstance(value, bool) else "true or false"
    if option.multiple or option.nargs == -1:
        return None if all(isinstance(name, str) for name in value) else "a text, or a list of them"
    if isinstance(option.type, click.types.StringParamType):
        plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        return None if plain else "a text"
    return None


def _read_run(ctx: click.Context, param: click.Parameter, run: str | None) -> str | None:
    """Take the options' defaults from a run, whose directory only the first rank needs to see."""
    if run is None:
        return None
    world = connect_as(run)
    from dptrain.run.resume import settings_of
    from dptrain.streams import warn

    with world.together():
        values = settings_of(Path(run), warn) if world.rank == 0 else {}
    _take_defaults(ctx, param, world.broadcast(values), run)
    return run


def _set_debug(ctx: click.Context, param: click.Parameter, debug: bool) -> None:  # noqa: ARG001
    """Note for who ends the process that tracebacks are wanted."""
    ctx.ensure_object(dict)["debug"] = debug


config_option = click.option(
    "--config",
    metavar="FILE",
    envvar="DPTRAIN_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with any of these options.",
)
resume_option = click.option(
    "--resume",
    metavar="RUN",
    envvar="DPTRAIN_RESUME",
    is_eager=True,
    callback=_read_run,
    help="Go on with the run in this directory, on any number of ranks.",
)
model_option = click.option(
    "--model",
    metavar="FILE.py:FUNCTION",
    envvar=_variable("model"),
    help="What made the run's model, where that was a file of one's own: the same file.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, envvar="DPTRAIN_JSON", help="Print one JSON object instead."
)
quiet_option = click.option(
    "--quiet", is_flag=True, envvar="DPTRAIN_QUIET", help="Show no progress."
)
debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    envvar="DPTRAIN_DEBUG",
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of every error.",
)
