"""The ranks that a command line was started on, and the level of CPU that they compute at."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from dptrain.cli.help import shared
from dptrain.config.names import CpuLevel
from dptrain.launch import announced
from dptrain.streams import tell
from dptrain.words import InputError

if TYPE_CHECKING:
    from dptrain.world import World

NATIVE = "native"

level_option = shared(
    "--cpu-level",
    type=click.Choice(get_args(CpuLevel)),
    help="Instructions to compute with.  [default: as the run]",
)


def connect(level: str = NATIVE) -> "World":
    """Return all ranks, of which each is known by its command line, at a level of CPU. Collective.

    To be called before NumPy is imported.
    """
    return _connect(lambda: level, level)


def connect_as(run: str, asked: str | None = None, step: int | None = None) -> "World":
    """Return all ranks at the level that a run was computed at, where none is asked for; says so.

    `step` says when, in a run that went on at another level; at its end, unless given. Only the
    first rank needs to see the run. Collective: see `connect`.
    """
    asked = asked or _asked()
    if asked is not None:
        return connect(asked)
    from dptrain.record.rundir import level_of

    here = NATIVE
    with contextlib.suppress(InputError):  # said below, by the rank that counts
        here = level_of(Path(run), step) or NATIVE
    return _connect(lambda: level_of(Path(run), step), here)


def _connect(find: Callable[[], str | None], expected: str) -> "World":
    """Return all ranks at the level that the first one finds; all that can is done before MPI."""
    from dptrain import level as levels
    from dptrain import world as worlds

    levels.begin_again(expected)
    world = worlds.connect()
    world.title = shlex.join(["dptrain", *sys.argv[1:]])
    level = world.first(find) or NATIVE
    with world.together():
        levels.use_cpu_level(level)
    _import_numpy()
    if world.rank == 0 and level not in (NATIVE, levels.highest(), _asked()):
        tell(f"computing at {level}, as the run did")
    return world


def _import_numpy() -> None:
    """Import NumPy without the BLAS threads of all cores, which spin and are rarely asked for.

    `blas_threads` starts those that are.
    """
    if "OPENBLAS_NUM_THREADS" in os.environ:
        return
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import numpy as np  # noqa: F401 (loads the BLAS)

    del os.environ["OPENBLAS_NUM_THREADS"]


def connected() -> "World | None":
    """Return the ranks where they are connected, which they are not where nobody has asked."""
    worlds = sys.modules.get("dptrain.world")
    if worlds is None or not worlds.joined.cache_info().currsize:
        return None
    found: World = worlds.connect()
    return found


def is_first() -> bool:
    """Return whether this process prints; before MPI has started, as far as can be told."""
    world, announcement = connected(), announced()
    if world is not None:
        return world.rank == 0
    return announcement is None or announcement.rank == 0


def _asked() -> str | None:
    """Return the level that the command line or the variable asks for, before it is parsed."""
    words = sys.argv[1:]
    for number, word in enumerate(words):
        if word == "--cpu-level":
            return next(iter(words[number + 1 :]), None)
        if word.startswith("--cpu-level="):
            return word.partition("=")[2]
    return os.environ.get("DPTRAIN_CPU_LEVEL") or None
