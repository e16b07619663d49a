"""dptrain explain."""

from pathlib import Path
from typing import Any

import click

from dptrain.cli.options import build, config_option, debug_option, settings
from dptrain.cli.ranks import connect
from dptrain.config import ExplainConfig, shown


@click.command()
@click.argument("chapters", nargs=-1, metavar="[CHAPTER]...")
@settings(ExplainConfig)
@click.option(
    "--check",
    is_flag=True,
    envvar="DPTRAIN_CHECK",
    help="Compute every number twice, by loops and by the trainer on all ranks, and compare.",
)
@click.option(
    "--html",
    metavar="FILE",
    envvar="DPTRAIN_HTML",
    help="Write the chapters as one page that needs nothing else.",
)
@click.option(
    "--plot",
    metavar="FILE",
    envvar="DPTRAIN_PLOT",
    help="Draw chapter 6's curve: a .png, .svg or .pdf file.",
)
@config_option
@debug_option
def explain(
    chapters: tuple[str, ...], check: bool, html: str | None, plot: str | None, **values: Any
) -> int:
    """What a minibatch averages, and what workers add, in numbers to check by hand.

    CHAPTER is a number or a name, all unless given: 1 example, 2 batch, 3 averaging, 4 recursion,
    5 workers, 6 minibatch, 7 noise. Exit status 1 where --check finds numbers that differ.
    """
    config = build(ExplainConfig, values)
    world = connect()
    from dptrain.explain import chapters as book
    from dptrain.explain.check import check as agree
    from dptrain.explain.figure import draw
    from dptrain.explain.page import page
    from dptrain.explain.text import text
    from dptrain.record.files import write_whole
    from dptrain.threads import blas_threads

    def say(line: str) -> None:
        if world.rank == 0:
            click.echo(line)

    def show() -> None:
        written = (book.chapter(config, number) for number in numbers)
        if html is not None:
            write_whole(Path(html), page(list(written)).encode())
            say(f"written: {shown(html)}")
        if plot is not None:
            draw(book.variance_curve(config), Path(plot))
            say(f"written: {shown(plot)}")
        if html is None and plot is None and not check:
            for chapter in written:
                say(text(chapter))

    with world.together():
        numbers = book.chosen(chapters)
        _check_files(html, plot)
    with blas_threads(1):
        agreed = not check or agree(config, numbers, world, say)
        with world.together():
            if agreed and world.rank == 0:
                show()
    return 0 if agreed else 1


def _check_files(html: str | None, plot: str | None) -> None:
    """Raise InputError where a file could not be written, before the work."""
    from dptrain import figure
    from dptrain.record.files import check_writable

    if plot is not None:
        figure.check(Path(plot), "--plot")
    if html is not None:
        check_writable(Path(html), "--html")
