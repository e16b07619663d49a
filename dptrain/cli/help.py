"""Help pages: options in groups, and below them the Markdown file of the command, with examples."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dptrain.words import likely, nearest, quoted

TITLES = {
    "DataConfig": "Data",
    "ModelConfig": "Model",
    "ModelFile": "A model of your own",
    "TrainConfig": "Training",
    "BenchConfig": "Network and data",
    "ExplainConfig": "Numbers",
    "PlotConfig": "Picture",
}
"""What the options of each configuration stand under; by name, as a start loads few of them."""

SAFETY = "Checkpoints and checks"
SAFE = {"hash_every", "checkpoint_every", "keep_checkpoints", "audit_every", "recheck_every",
        "stall_timeout"}  # fmt: skip
REST = "Run, files and messages"


def shared(name: str, *names: str, **attributes: Any) -> Callable[[Any], Any]:
    """Return an option that several commands have: its variable is DPTRAIN_ and its own name."""
    variable = f"DPTRAIN_{name.lstrip('-').replace('-', '_').upper()}"
    return click.option(name, *names, envvar=variable, **attributes)


class Setting(click.Option):
    """The option of a setting, which knows the configuration that it belongs to."""

    def __init__(self, *args: Any, config: type, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = SAFETY if self.name in SAFE else TITLES[config.__name__]


class Brief(click.Command):
    """A command of which a list says the first sentence of its help, whole."""

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002 (lines are wrapped)
        """Return the first sentence."""
        return " ".join((self.help or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")


class Commands(Brief, click.Group):
    """A group of commands, which says of a word that is none which comes near."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Ask for a command where there is none."""
        if not args:
            raise click.UsageError(f"a command is missing: {', '.join(self.list_commands(ctx))}")
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none, say which come near, or how to name a file."""
        names = self.list_commands(ctx)
        if args[0] not in names:
            there = os.path.exists(args[0])  # noqa: PTH110 (which raises nothing)
            hint = f"; to train on a file: dptrain train {quoted(args[0])}" if there else ""
            raise click.UsageError(f"no command {args[0]!r}; {nearest(args[0], names)}{hint}")
        return super().resolve_command(ctx, args)


LAUNCHERS = {"-n", "-np", "--np", "--n", "--workers", "--num-workers", "--ranks", "--processes",
             "--nproc", "-j", "--jobs"}  # fmt: skip
"""What other programs call the number of processes."""

DEVICES = {"--gpu", "--gpus", "--device", "--devices", "--cuda", "--accelerator"}
"""What other programs call the processor that computes."""


PLACES = {"config", "directory", "html", "init_from", "inputs", "out", "resume", "run", "runs",
          "statement"}  # fmt: skip
"""What names a file or a directory: an empty name would mean the one that this process is in."""


class Told(Brief):
    """A command whose help says its options by group, and ends with a Markdown file of its own.

    An option that names no variable has DPTRAIN_, the command's name and its own.
    """

    alone = True
    """Whether it is one process's: a mistake is nobody else's, and no MPI is started for it."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        for option in self.params:
            if isinstance(option, click.Option) and option.envvar is None:
                option.envvar = f"DPTRAIN_{self.name}_{option.name}".upper()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line; say of an option that is none which one is meant."""
        ctx.ensure_object(dict)["alone"] = self.alone
        try:
            for name, value in self.make_parser(ctx).parse_args([*args])[0].items():
                several = value if isinstance(value, list | tuple) else [value]
                if name in PLACES and "" in several:
                    option = name.replace("_", "-")
                    raise click.UsageError(f"{option} is ''; name one, or leave it out")
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(self._misspelt(error.option_name, ctx), ctx) from None
        except click.MissingParameter as error:
            what = error.param.human_readable_name if error.param else "an argument"
            raise click.UsageError(f"{what} is missing; see {ctx.command_path} --help") from None

    def _misspelt(self, found: str, ctx: click.Context) -> str:
        """Return what is said of an option that is none."""
        if found in LAUNCHERS:
            line = f"mpirun -n 4 {ctx.command_path}"
            return f"no option {found}; the launcher starts the processes: {line} ..."
        if found in DEVICES:
            return f"no option {found}; dptrain computes on CPUs only"
        options = [one for one in self.params if isinstance(one, click.Option)]
        names = [name.lstrip("-") for option in options for name in option.opts]
        meant = likely(found.lstrip("-"), [name for name in names if name != "force"])
        hint = f"did you mean --{meant}?" if meant else f"see {ctx.command_path} --help"
        return f"no option {found}; {hint}"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a group after the other."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "group", REST), []).append(record)
        for title in (*TITLES.values(), SAFETY, REST):
            if title in groups:
                with formatter.section(title):
                    formatter.write_dl(groups[title])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write what the command's file says, as it stands there; nothing where it has none."""
        path = Path(__file__).parent / "words" / f"{self.name}.md"
        formatter.write(f"\n{path.read_text(encoding='utf-8')}" if path.exists() else "")
