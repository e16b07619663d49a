"""How settings become options of the command line, with their types, files and variables."""

import os
import tomllib
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from dptrain.cli.ranks import connect
from dptrain.config import (
    BenchConfig,
    DataConfig,
    ExplainConfig,
    ModelConfig,
    PlotConfig,
    TrainConfig,
    nearest,
    option_name,
)

Command = Callable[..., int]

LATER = 75
"""Exit status of a run that is saved and to go on later, EX_TEMPFAIL of sysexits.h."""

Config = TypeVar(
    "Config", DataConfig, ModelConfig, TrainConfig, BenchConfig, ExplainConfig, PlotConfig
)


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


class Real(click.ParamType[float]):
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
        for item in reversed([item for config in configs for item in fields(config)]):
            command = _option(item)(command)
        return command

    return add


def setting(config: type, name: str, default: Any = ...) -> Callable[[Command], Command]:
    """Return the option of one setting of a configuration, perhaps with a default of its own."""
    return _option(next(item for item in fields(config) if item.name == name), default)


def build(config: type[Config], values: dict[str, Any]) -> Config:
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
        several = valid[key].multiple or valid[key].nargs == -1
        ctx.default_map[valid[key].name] = [value] if several and isinstance(value, str) else value


def _read_run(ctx: click.Context, param: click.Parameter, run: str | None) -> str | None:
    """Take the options' defaults from a run, whose directory only the first rank needs to see."""
    if run is None:
        return None
    world = connect()
    from dptrain.record.progress import Silence
    from dptrain.train.resume import settings_of

    with world.together():
        values = settings_of(Path(run), Silence().warn) if world.rank == 0 else {}
    _take_defaults(ctx, param, world.broadcast(values), run)
    return run


def _set_debug(ctx: click.Context, param: click.Parameter, debug: bool) -> None:  # noqa: ARG001
    """Note for `_fail`, which stands outside of any command, that tracebacks are wanted."""
    os.environ["DPTRAIN_DEBUG"] = "1" if debug else ""


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
json_option = click.option(
    "--json", "as_json", is_flag=True, envvar="DPTRAIN_JSON", help="Print one JSON object instead."
)
debug_option = click.option(
    "--debug",
    is_flag=True,
    envvar="DPTRAIN_DEBUG",
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of every error.",
)
