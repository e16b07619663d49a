"""The `dptrain` command: its group of commands, and how every rank ends."""

import contextlib
import os
import resource
import sys
from importlib import import_module
from pathlib import Path

import click

from dptrain.cli import commands
from dptrain.cli.help import Commands
from dptrain.cli.output import final_status, take_over
from dptrain.cli.ranks import connect, connected, is_first
from dptrain.launch import let_the_first_speak
from dptrain.status import CTRL_C
from dptrain.streams import kept_output
from dptrain.version import __version__
from dptrain.words import InputError, likely, shown

LIMITS = (
    (resource.RLIMIT_NOFILE, 64, "open {} files", "ulimit -n 64"),
    (resource.RLIMIT_FSIZE, 2**24, "write files of {} bytes", "ulimit -f 16384"),
    (resource.RLIMIT_AS, 400_000 * 2**10, "take {} bytes of memory", "ulimit -v 400000"),
)
"""What MPI needs to start, with up to 15 ranks on a node: below it, ranks could not even agree that
it is too little."""

COMMANDS = sorted(path.stem for path in Path(commands.__file__).parent.glob("[!_]*.py"))
"""The module of each is imported where the command is asked for, or all are told."""


class TrainByDefault(Commands):
    """A group whose command is train where the line begins with an option, or is empty."""

    def list_commands(self, ctx: click.Context | None) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return COMMANDS

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command:  # noqa: ARG002
        """Return a command by its name."""
        module = import_module(f"{commands.__name__}.{cmd_name}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put train in front of the arguments where no command stands there."""
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["train", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=TrainByDefault,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a command: dptrain train. See dptrain COMMAND --help.",
)
@click.version_option(__version__)
def command() -> None:
    """Train with minibatches spread over MPI processes: mpirun -n 4 dptrain

    The result never depends on the number of processes, byte for byte.
    """
    try:
        os.getcwd()  # noqa: PTH109 (only asked whether it is there: names stand in it)
    except OSError as error:
        message = f"the working directory can't be used ({error.strerror}): change to another"
        raise InputError(message, local=True) from None


def main() -> None:
    """Run the command line, and end every rank the same way; only the first one prints."""
    output = take_over()
    if is_first():
        _warn_of_variables()
        with kept_output():
            status = _run()
        sys.exit(final_status(status, output))
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        sys.exit(_run())


def _warn_of_variables() -> None:
    """Name each variable that looks like a setting and is none."""
    found = sorted(name for name in os.environ if name.startswith("DPTRAIN_"))
    every = [command.get_command(None, name) for name in COMMANDS] if found else []
    options = [param for each in every for param in each.params]
    valid = {str(param.envvar) for param in options if param.envvar}
    for name in found:
        if name not in valid:
            known = {one.removeprefix("DPTRAIN_").lower().replace("_", "-"): one for one in valid}
            meant = likely(name.removeprefix("DPTRAIN_").lower().replace("_", "-"), known, 0.7)
            hint = f"; did you mean {known[meant]}?" if meant else ""
            print(f"dptrain: warning: {shown(name)} is no setting{hint}", file=sys.stderr)


def _run() -> int:
    """Run the command line and return the exit status: 0, 2 for a mistake, 130 for Ctrl-C."""
    for kind, needed, what, way in LIMITS:
        allowed, _ = resource.getrlimit(kind)
        if 0 <= allowed < needed:
            told = f"a process may {what.format(f'{allowed:,}')} here, and {needed:,} are needed"
            return _leave(InputError(f"{told}: {way}"), is_first())
    options: dict[str, bool] = {}
    try:
        status: int = command.main(prog_name="dptrain", standalone_mode=False, obj=options) or 0
        return status
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _fail(InputError(error.format_message()), options)
    except InputError as error:
        return _fail(error, options)
    except (click.Abort, KeyboardInterrupt):
        status = CTRL_C
    except MemoryError as error:  # what has been foreseen is refused before
        status = _leave(InputError(f"too little memory: {str(error) or 'out of it'}"), True)
    world = connected()  # where the others would wait for this rank
    if world is not None:
        world.abort(status)
    return status


def _fail(error: InputError, options: dict[str, bool]) -> int:
    """Print a person's mistake once, by the first rank; return the exit status."""
    error.everywhere = error.everywhere or options.get("alone", False)
    if not error.everywhere:
        try:
            world = connect()
            world.title, world.status = f"{world.title}, which ends with: {error}", error.status
            with world.together():
                raise error
        except InputError as agreed:  # by all ranks, or that they don't make one world
            error = agreed
    if options.get("debug", "--debug" in sys.argv or os.environ.get("DPTRAIN_DEBUG")):
        import traceback

        traceback.print_exception(error)
    return _leave(error, is_first())


def _leave(error: InputError, first: bool) -> int:
    """Print a mistake, where this is the first rank; return the exit status."""
    if first:
        print(f"dptrain: {error}", file=sys.stderr)
    elif not error.everywhere:
        let_the_first_speak()
    return error.status
