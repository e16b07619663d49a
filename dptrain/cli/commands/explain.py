"""dptrain explain."""

import sys
from pathlib import Path
from typing import Any

import click

from dptrain.cli.help import shared
from dptrain.cli.options import Joint, build, settings
from dptrain.cli.ranks import connect
from dptrain.cli.results import force_option, say_written
from dptrain.config.tools import ExplainConfig
from dptrain.words import counted


@click.command(cls=Joint)
@click.argument("chapters", nargs=-1, metavar="[CHAPTER]...")
@settings(ExplainConfig)
@shared(
    "--check",
    is_flag=True,
    help="Compute every number twice, by loops and by the trainer on all ranks, and compare.",
)
@shared("--html", metavar="FILE", help="Write the chapters as one page that needs nothing else.")
@force_option
def explain(
    chapters: tuple[str, ...], check: bool, html: str | None, force: bool, **values: Any
) -> int:
    """What a minibatch averages, and what workers add, in numbers to check by hand.

    CHAPTER is a number, a name or words of a question, all unless given: 1 example, 2 batch,
    3 averaging, 4 recursion, 5 workers, 6 minibatch, 7 noise, 8 softmax. Exit status 1 where
    --check finds numbers that differ.
    """
    config = build(ExplainConfig, values)
    world = connect()
    from dptrain.explain import book
    from dptrain.explain.check import check as agree
    from dptrain.plot.page import page
    from dptrain.plot.terminal import text
    from dptrain.record.files import check_writable, write_whole
    from dptrain.threads import blas_threads

    def say(line: str) -> None:
        if world.rank == 0:
            click.echo(line)

    def show() -> None:
        written = (book.chapter(config, number) for number in numbers)
        if html is not None:
            content = page(book.TITLE, book.LEAD, list(written)).encode()
            write_whole(Path(html), content, shared=True)
            say_written(html, counted(len(numbers), "chapter"))
        elif not check:
            for chapter in written:
                say(text(chapter.words, colours=sys.stdout.isatty()))

    with world.together():
        numbers = book.chosen(chapters)
        if html is not None:
            check_writable(Path(html), "--html", force=force)
    with blas_threads(1):
        agreed = not check or agree(config, numbers, world, say)
        with world.together():
            if agreed and world.rank == 0:
                show()
    return 0 if agreed else 1
