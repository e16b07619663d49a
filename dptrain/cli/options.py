"""How settings become options of the command line, with their types, files and variables."""

import contextlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from dptrain.checked import Checked, Plain, option_name
from dptrain.cli.help import Setting, Told, shared
from dptrain.cli.ranks import connect_as
from dptrain.config import DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.words import brief, nearest

Command = Callable[..., int | None]
Config = TypeVar("Config", bound=Checked)


# click before 8.4 has no ParamType[int], so these kinds leave out what they return
class Number(click.ParamType):  # type: ignore[type-arg]
    """A number; a file's true, or 3.9 for a whole one, is none, where click would round it."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind, self.name = kind, "integer" if kind is int else "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number from text, or from a file."""
        try:
            if isinstance(value, bool) or (self.kind is int and isinstance(value, float)):
                raise TypeError
            return self.kind(value)
        except (TypeError, ValueError):
            kind = "whole number" if self.kind is int else "number"
            self.fail(f"{brief(repr(value))} is not a {kind}", param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers with commas between them, such as 512,512; or the word none."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers from text, or from a number or list in a file or a default."""
        parts = [value] if isinstance(value, int) else value
        if isinstance(value, str):
            parts = value.split(",")
        if parts in (["none"], [""]):
            return ()
        try:
            if isinstance(parts, dict):
                raise TypeError
            return tuple(Number(int).convert(part, None, None) for part in parts)
        except (TypeError, click.BadParameter):
            self.fail(f"{brief(repr(value))} is not whole numbers with commas, or none", param, ctx)


class Name(click.types.StringParamType):
    """A name, blanks and all. A variable that is to hold several has them as a TOML file has."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the names in a variable: one, or those of a list, such as ["x.npy", "y.npy"]."""
        found: list[Any] = []
        if rv.startswith("["):
            import tomllib

            with contextlib.suppress(ValueError, RecursionError):
                found = tomllib.loads(f"names = {rv}")["names"]
        return found if found and all(isinstance(name, str) for name in found) else [rv]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a name as files have it, in UTF-8, whatever locale it was typed in."""
        text = super().convert(value, param, ctx)
        with contextlib.suppress(UnicodeEncodeError):
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        return text


class Joint(Told):
    """A command of all ranks, which has, beside its own, the options that each of them has."""

    alone = False

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        common: dict[str, Any] = {"is_eager": True, "expose_value": False}
        self.params += [
            click.Option(
                ["--config"], metavar="FILE", envvar="DPTRAIN_CONFIG", callback=_read_config,
                help="TOML file with any of these options.", **common,
            ),
            click.Option(
                ["--debug"], is_flag=True, envvar="DPTRAIN_DEBUG",
                callback=lambda ctx, _, debug: ctx.ensure_object(dict).update(debug=debug),
                help="Show the traceback of every error.", **common,
            ),
        ]  # fmt: skip


def setting(config: type, name: str, default: Any = ...) -> Callable[[Command], Command]:
    """Return the option of one setting of a configuration, perhaps with a default of its own.

    Its values are checked where the settings are built.
    """
    item = next(item for item in fields(config) if item.name == name)
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
    metavar = metavar or ("NAME" if kind is str or multiple else None)
    return shared(
        f"--{option_name(item)}",
        item.name,
        cls=Setting,
        config=config,
        type=Number(kind) if kind in (int, float) else kind,
        is_flag=kind is bool,
        metavar=metavar,
        multiple=multiple,
        default=default,
        show_default=default not in (None, ()) and kind is not bool,
        help=item.metadata["help"],
    )


def settings(config: type, *names: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of some settings of a configuration, or of all."""

    def add(command: Command) -> Command:
        for name in reversed(names or [item.name for item in fields(config)]):
            command = setting(config, name)(command)
        return command

    return add


def build(config: type[Config], values: Plain) -> Config:
    """Return a configuration of the options that a command has."""
    found = {item.name: values[item.name] for item in fields(config) if item.name in values}
    return config(**found)


def _read_config(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    """Take the options' defaults from a TOML file, and refuse keys that are no options."""
    if path is not None:
        _take_defaults(ctx, param, set_in(path), path)


def set_in(path: str) -> Plain:
    """Return what a TOML file sets, not yet looked at."""
    from dptrain.record.rundir import read_toml

    try:
        with Path(path).open("rb") as file:
            return read_toml(file, Path(path))
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None


def _take_defaults(ctx: click.Context, param: click.Parameter, values: Plain, path: str) -> None:
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
            raise click.BadParameter(f"{path} sets {key} to {value!r}; give {needed}")
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

    _take_defaults(ctx, param, world.first(lambda: settings_of(Path(run))), run)
    return run


out_option = shared("--out", metavar="DIR", help="Run directory.  [default: runs/<time>-<name>]")
resume_option = shared(
    "--resume",
    metavar="RUN",
    is_eager=True,
    callback=_read_run,
    help="Go on with the run in this directory, on any number of ranks.",
)
continue_option = shared(
    "--continue",
    "go_on",
    is_flag=True,
    help="Begin the run in --out, or go on with it where it has begun: with the same settings.",
)
model_option = shared(
    "--model",
    "file",
    metavar="FILE.py:FUNCTION",
    help="What made the run's model, where that was a file of one's own: the same file.",
)
json_option = shared("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
quiet_option = shared("--quiet", is_flag=True, help="Show no progress.")


def job_options(command: Command) -> Command:
    """Add what stands in a job's line: its data, its settings, and which run is gone on with."""
    data = click.argument("data", nargs=-1, type=Name(), metavar="[DATA]...", envvar="DPTRAIN_DATA")
    command = out_option(resume_option(continue_option(command)))
    for config in (DataConfig, ModelFile, ModelConfig, TrainConfig):
        command = settings(config)(command)
    return data(command)
