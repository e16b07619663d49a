"""The ranks that a command line was started on."""

import shlex
import sys

from dptrain import world as worlds


def connect() -> worlds.World:
    """Return all ranks, of which each is known by its command line. Collective."""
    world = worlds.connect()
    world.title = shlex.join(["dptrain", *sys.argv[1:]])
    return world
