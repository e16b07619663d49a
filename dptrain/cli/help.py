"""Help pages: options in groups, and below them the Markdown file of the command, with examples."""

from pathlib import Path
from typing import Any

import click

from dptrain.config import (
    BenchConfig,
    DataConfig,
    ExplainConfig,
    ModelConfig,
    ModelFile,
    PlotConfig,
    TrainConfig,
)
from dptrain.words import likely

TITLES = {
    DataConfig: "Data",
    ModelConfig: "Model",
    ModelFile: "A model of your own",
    TrainConfig: "Training",
    BenchConfig: "Network and data",
    ExplainConfig: "Numbers",
    PlotConfig: "Picture",
}
SAFETY = "Checkpoints and checks"
SAFE = ("hash_every", "checkpoint_every", "keep_checkpoints", "audit_every", "stall_timeout")
REST = "Run, files and messages"


class Setting(click.Option):
    """The option of a setting, which knows the configuration that it belongs to."""

    def __init__(self, *args: Any, config: type, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = SAFETY if self.name in SAFE else TITLES[config]


LAUNCHERS = {"-n", "-np", "--np", "--n", "--workers", "--num-workers", "--ranks", "--processes",
             "--nproc", "-j", "--jobs"}  # fmt: skip
"""What other programs call the number of processes."""


class Told(click.Command):
    """A command whose help says its options by group, and ends with a Markdown file of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line; say of an option that is none which one is meant."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(self._misspelt(error.option_name), ctx) from None

    def _misspelt(self, found: str) -> str:
        """Return what is said of an option that is none."""
        if found in LAUNCHERS:
            line = f"mpirun -n 4 dptrain {self.name}"
            return f"no option {found}; the launcher starts the processes: {line} ..."
        names = [name.lstrip("-") for option in self.params for name in option.opts]
        meant = likely(found.lstrip("-"), [name for name in names if name != "force"])
        hint = f"did you mean --{meant}?" if meant else f"see dptrain {self.name} --help"
        return f"no option {found}; {hint}"

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002 (lines are wrapped)
        """Return the first sentence, whole."""
        return " ".join((self.help or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")

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
        """Write what the command's file says, as it stands there."""
        path = Path(__file__).parent / "words" / f"{self.name}.md"
        formatter.write(f"\n{path.read_text(encoding='utf-8')}")
