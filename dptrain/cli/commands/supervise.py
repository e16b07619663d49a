"""dptrain supervise."""

import contextlib
import math
import os
import shlex
import time
from pathlib import Path
from typing import Any

import click

from dptrain.cli.help import Told, shared
from dptrain.cli.options import Numbers, set_in
from dptrain.launch import announced
from dptrain.words import InputError

MOST = 10**6
"""Ranks: launchers have been seen to take all memory for more, deaf to signals."""


def _ranks(ctx: click.Context, param: click.Parameter, ranks: tuple[int, ...]) -> tuple[int, ...]:
    if not 0 < min(ranks, default=0) <= max(ranks) < MOST:
        raise click.BadParameter("give numbers of ranks, as 4 or 4,3,2", ctx, param)
    return ranks


def _pause(ctx: click.Context, param: click.Parameter, seconds: float) -> float:
    if math.isnan(seconds):
        raise click.BadParameter("nan is no number of seconds", ctx, param)
    return seconds


def _launcher(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    with contextlib.suppress(ValueError):
        if words := shlex.split(text):
            return words
    raise click.BadParameter(f"{text!r}; give a command, such as mpirun", ctx, param)


@click.command(cls=Told, context_settings={"ignore_unknown_options": True})
@click.argument("train", nargs=-1, type=click.UNPROCESSED, metavar="[OF train]...")
@click.option(
    "-n",
    "ranks",
    type=Numbers(),
    callback=_ranks,
    default=(1,),
    metavar="N,...",
    help="Ranks; 4,3,2: of the first, the second and all further starts.  [default: 1]",
)
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Give up after so many in a row that saved no new checkpoint.",
)
@click.option(
    "--pause",
    type=click.FloatRange(min=0),
    callback=_pause,
    default=5.0,
    show_default=True,
    help="Seconds before a restart; doubled from one to the next, up to 300, until a start has "
    "saved a new checkpoint.",
)
@click.option(
    "--launcher",
    callback=_launcher,
    default="mpirun",
    show_default=True,
    metavar="COMMAND",
    help="What starts the ranks, such as 'srun --mpi=pmi2 -K'.",
)
@shared("--out", metavar="DIR", help="As of train.")
@shared("--resume", metavar="RUN", help="As of train.")
@shared("--config", metavar="FILE", help="As of train.")
def supervise(
    train: tuple[str, ...], out: str | None, resume: str | None, config: str | None, **how: Any
) -> int:
    """Start `mpirun -n N dptrain train ...`, and start it again where it dies.

    Besides its own options it takes all of train's, such as DATA. A run directory (--out) that
    holds a run is gone on with, so the same line can be used again and again.

    Exit status: dptrain's own. Not started again: 0 done, 2 a person's mistake, 74 something could
    not be written, 75 saved to go on later, 130 Ctrl-C. SIGTERM, SIGUSR1 and Ctrl-C have the run
    saved and end it (75 or 130, or the signal's where nothing has been saved); a second one ends it
    at once.
    """
    from dptrain.supervise import Supervision
    from dptrain.supervise import supervise as start

    launch = announced()
    if launch and launch.size > 1:
        raise InputError("supervise starts the ranks itself: start it once, without a launcher")
    for word in train:
        if (name := word.partition("=")[0]) in ("--out", "--resume", "--config"):
            raise InputError(f"{name} stands behind --, where supervise looks no more: move it up")
    if out and resume:
        raise InputError(f"out is {out}, but {resume} goes on where it is: leave --out out")
    new = f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    named = None
    with contextlib.suppress(click.BadParameter, InputError):  # train says what is wrong
        named = set_in(config).get("out") if config else None
    out = out or (named if isinstance(named, str) else None) or new
    where = ["--resume", resume] if resume else ["--out", out, "--continue"]
    where = ["--config", config, *where] if config else where
    return start(Supervision(Path(resume or out), [*where, *train], **how))
