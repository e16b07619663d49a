"""dptrain runs."""

from pathlib import Path

import click

from dptrain.cli.options import Joint, json_option
from dptrain.cli.ranks import connect
from dptrain.cli.results import print_result


@click.command(cls=Joint)
@click.argument("directory", default="runs", metavar="[DIR]")
@click.option(
    "--sort",
    metavar="COLUMN",
    default="run",
    show_default=True,
    help="The column to sort by, such as validation_loss.",
)
@click.option("--reverse", is_flag=True, help="Largest first, or last name.")
@json_option
def runs(directory: str, sort: str, reverse: bool, as_json: bool) -> None:
    """A table of the runs in DIR: state, settings that differ, best metrics.

    State is done; stopped, which is saved to go on later; going on; or died. Metrics are the best
    of any epoch.
    """
    world = connect()
    from dptrain.plot import table

    rows = world.first(lambda: table.ordered(table.runs_in(Path(directory)), sort, reverse=reverse))
    print_result({"runs": rows}, as_json, lambda found: table.text(found["runs"]))
