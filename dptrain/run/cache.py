"""Tables too large to be parsed at each start: converted once, and found again while they last."""

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from dptrain.config import DataConfig
from dptrain.data.converted import is_converted
from dptrain.data.kinds import tables_of
from dptrain.data.read import TABLES, Files, look, read
from dptrain.data.roles import Roles
from dptrain.data.table import Table
from dptrain.reduce.memory import shared_rows
from dptrain.streams import tell
from dptrain.words import InputError
from dptrain.world import World

LARGE = 2**30
"""Bytes of a table from which on it goes through the cache."""

DAYS = 30
"""After which what was converted, and not read since, makes room for what is new."""


def read_large(
    data: Any, roles: Roles, config: DataConfig, world: World
) -> tuple[Table, Table | None]:
    """Read rows as `read` does, those of large tables from what they have been converted to.

    Where they are kept is said, with the size, by the first rank. A file that has changed is
    another one; where nothing can be kept, by another process just now, say, or what is kept is
    damaged, that is said, and the files are read. Collective: every rank must call this.
    """
    take = partial(shared_rows, world.node_comm)
    with world.together():  # each rank looks: who lacks a file, is named
        files = _files(data, config)
    place = world.first(lambda: _place(files, config))
    if place is None:
        return read(data, roles, world, take)
    folder, size = place
    say = tell if world.rank == 0 else lambda _: None
    try:
        if not is_converted(str(folder)):
            from dptrain.run.convert import convert

            with world.together():
                if world.rank == 0:
                    _make_room(folder, size, say)
            words = f"{_gigabytes(size)} of tables are converted, once for all, to {folder}"
            begun = cache(lambda: say(words))  # once the folder can be written
            convert(data, folder, config, world, lambda *_: begun())
        found, _ = read((str(folder),), Roles(), world, take)
    except InputError as error:
        if str(folder) not in str(error):  # it is the tables' own
            raise
        why = str(error).split("; ")[0]  # what to do about it is done here
        say(f"{why}; so the tables are read without being kept")
        return read(data, roles, world, take)
    with world.together():
        if world.rank == 0 and _place(_files(data, config), config) != place:
            raise InputError("the data has changed while it was read; start again once it is whole")
    with suppress(OSError):  # where it can only be read
        os.utime(folder)
    say(f"read as it was converted: {_gigabytes(_size(folder))} in {folder}")
    return replace(found, source=look(data, roles).source), None


def _files(data: Any, config: DataConfig) -> Files | None:
    """Return the files that rows come from; None where they come from elsewhere."""
    by_name = isinstance(data, tuple) and all(isinstance(name, str) for name in data)
    return look(data, Roles.of(config)) if by_name else None


def _place(found: Files | None, config: DataConfig) -> tuple[Path, int] | None:
    """Return where a large table is kept, and its size, read or not; None for all else."""
    if found is None:
        return None
    size = sum(about[2] for about in found.identity)
    if found.kinds[0] == "parquet":
        size = max(size, tables_of(found.source).unpacked(found.paths))
    if found.kinds[0] not in TABLES or size < LARGE:
        return None
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    if root.startswith("~"):  # this user has no home
        return None
    return Path(root).absolute() / "dptrain" / found.key(Roles.of(config)), size


def _make_room(new: Path, size: int, say: Callable[[str], object]) -> None:
    """Remove what nobody has read for so many days, and say so.

    Raises InputError where there is no room all the same: a table is kept twice for a while.
    """
    for folder in new.parent.glob("*"):
        with suppress(OSError):
            days = (time.time() - folder.stat().st_mtime) / 86400
            if days > DAYS and re.fullmatch("[0-9a-f]{16}", folder.name):
                told = _gigabytes(_size(folder))
                shutil.rmtree(folder)
                say(f"removed, as it was not read for {days:.0f} days: {told} in {folder}")
    with suppress(OSError):  # said where it is written
        new.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(new.parent).free < 2 * size:
            raise InputError(f"the disk of {new} has no room for twice {_gigabytes(size)}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2g} GB"
