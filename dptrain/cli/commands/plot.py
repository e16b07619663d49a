"""dptrain plot."""

from pathlib import Path
from typing import Any

import click

from dptrain.cli.options import Joint, settings
from dptrain.cli.ranks import connect
from dptrain.cli.results import out_options, say_written
from dptrain.config.tools import PlotConfig


@click.command(cls=Joint)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@settings(PlotConfig)
@out_options("A .png, .svg or .pdf file.", default="curves.png", show_default=True)
def plot(runs: tuple[str, ...], out: str, force: bool, **values: Any) -> None:
    """Learning curves of one or several runs, each a directory that train has written.

    Losses, metrics, learning rate, gradient norm, noise scale: what the runs' metrics.jsonl hold.
    An epoch's training loss and gradient norm are means over its examples; seconds are those of
    all steps, of lost ones too.
    A run can be drawn while it trains. Needs matplotlib: pip install matplotlib.
    """
    world = connect()
    from dptrain import figure
    from dptrain.plot.curves import plot_runs

    with world.together():
        if world.rank == 0:
            figure.check(Path(out), force=force)
            say_written(out, ", ".join(plot_runs(runs, out, **values)))
