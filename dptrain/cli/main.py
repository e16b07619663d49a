"""The `dptrain` command: its group of commands, and how every rank ends."""

import contextlib
import os
import sys
import traceback
from pathlib import Path

import click

from dptrain.cli.bench import bench
from dptrain.cli.doctor import doctor
from dptrain.cli.explain import explain
from dptrain.cli.plot import plot
from dptrain.cli.ranks import connect
from dptrain.cli.stored import evaluate, predict
from dptrain.cli.train import train
from dptrain.cli.verify import verify
from dptrain.config import InputError, nearest
from dptrain.launch import announced, let_the_first_speak
from dptrain.world import connected


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


for _command in (train, evaluate, predict, explain, plot, verify, bench, doctor):
    command.add_command(_command)


def main() -> None:
    """Run the command line, and end every rank the same way; only the first one prints."""
    launch = announced()
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
        world = connected()
        if world is not None:
            world.abort(130)
        status = 130
    return status


def _fail(error: InputError) -> int:
    """Print a person's mistake once, by the first rank; return the exit status."""
    launch = announced()
    first = launch is None or launch.rank == 0
    try:
        world = connect()
        first = world.rank == 0
        if not error.everywhere:
            world.title += f", which ends with: {error}"
            with world.together():
                raise error
    except InputError as agreed:  # what all ranks agree on, or that they don't make one world
        error = agreed
    if "--debug" in sys.argv or os.environ.get("DPTRAIN_DEBUG"):
        traceback.print_exception(error)
    if first:
        print(f"dptrain: {error}", file=sys.stderr)
    elif not error.everywhere:
        let_the_first_speak()
    return error.status
