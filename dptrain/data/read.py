"""Files and what Python hands over become tables, whatever they hold, each read once a node."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from dptrain.data.converted import FORMAT, is_converted, read_converted
from dptrain.data.given import as_array, given, named, one_array, pair
from dptrain.data.keep import Pieces, Take, share
from dptrain.data.kinds import BY_NAME, expanded, keys_of, kind_of, tables_of
from dptrain.data.numpy_files import read_idx, read_npy, read_npz
from dptrain.data.roles import Roles
from dptrain.data.table import Stacked, Table
from dptrain.version import __version__
from dptrain.words import InputError, file_name
from dptrain.world import World

TABLES = ("parquet", "arrow", "text")
"""What pyarrow reads."""


class Files(NamedTuple):
    """Files of one kind, which are one data set."""

    paths: tuple[str, ...]
    kinds: tuple[str, ...]
    source: str
    """What people are told of where rows come from."""
    unpacked: bool
    """Whether rows have to be unpacked or parsed, so that one rank a node does it for all."""
    keys: tuple[dict[str, str | None], ...] = ()
    """What the names of directories say of each, as columns of its rows."""
    identity: tuple[Any, ...] = ()
    """By which ranks of a node see whether they mean the same files."""

    def key(self, roles: Roles) -> str:
        """Return what tells from others what is read of these files, as long as they stay so."""
        what = [__version__, FORMAT, self.paths, self.identity, asdict(roles)]
        return hashlib.sha256(json.dumps(what).encode(errors="surrogatepass")).hexdigest()[:16]


def read(
    data: Any, roles: Roles, world: World, take: Take, spool: Pieces | None = None
) -> tuple[Table, Table | None]:
    """Read training (or other) rows, and the test rows where the files hold some.

    `data` is nothing, for the embedded digits; names of files, directories or patterns, which are
    one data set; two files with one array each, x and y; or what Python has: see `given`. A table
    is kept in `spool` while it is read, in memory where there is none. Collective: every rank must
    call this. Raises InputError where a file is missing, unreadable, or not what is needed.
    """
    by_name = isinstance(data, (tuple, list)) and all(isinstance(name, str) for name in data)
    with world.together():
        if not by_name:
            return given(data, roles, "the data" if roles.new else "the test data"), None
        found = look(data, roles)
    everyone = world.allgather(found.identity)
    alike = all(len({everyone[rank] for rank in ranks}) == 1 for ranks in world.nodes)
    kept = spool or Pieces()
    if not (found.unpacked and alike and world.node_comm):
        with world.together():
            own = _read(found, roles, kept)
            return share(own) if found.kinds[0] in TABLES else own
    tables: tuple[Table, Table | None] | None = None
    with world.together():
        try:
            if world.rank == world.ranks_here.start:
                tables = _read(found, roles, kept)
        except InputError as error:  # of a node, not of one rank
            raise InputError(str(error), local=error.local and len(world.nodes) > 1) from None
    return share(tables, world.node_comm, take)


def look(names: Sequence[str], roles: Roles) -> Files:
    """Return what the named files are; no more of them is read than their first bytes."""
    if not names:
        return Files((), ("npz",), "the embedded digits", unpacked=True)
    if len(names) == 1 and is_converted(file_name(names[0])):
        roles.check_kind("converted", names[0])
        return Files((file_name(names[0]),), ("converted",), names[0], unpacked=False)
    paths = [path for name in names for path in expanded(file_name(name))]
    found = [kind_of(path) for path in paths]
    kinds = [kind for kind, _ in found]
    arrays = {*kinds} <= {"npy", "idx"}
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0] and not arrays:
            raise InputError(
                f"{path} is another kind of file than {paths[0]}; several files are one data set, "
                "or x and y as .npy"
            )
    if arrays and (len(paths) > 2 or len(paths) > len(names)):
        raise InputError(
            f"{len(paths)} data files are given; give one, or x and y as .npy, by their names"
        )
    roles.check_kind(kinds[0], " and ".join(names), by_name=kinds[0] in BY_NAME)
    identity = _identity(paths)
    same = [path for path, one in zip(paths, identity, strict=True) if identity.count(one) > 1]
    if same:
        raise InputError(f"{same[-1]} is a file that is given twice; give each once")
    shown = paths if len(paths) < 3 else [f"{len(paths)} files, the first of them {paths[0]}"]
    as_table = kinds[0] == "hdf5" and bool(roles.target or roles.kinds)
    mapped = kinds[0] in ("npy", "idx", "hdf5") and not any(packed for _, packed in found)
    keys = tuple(keys_of(path, [file_name(name) for name in names]) for path in paths)
    if any(keys) and kinds[0] not in ("parquet", "arrow"):
        raise InputError(
            f"{paths[0]} is in a directory named key=value, whose value no column has: give "
            "Parquet files, or a pattern that names the files"
        )
    return Files(
        tuple(paths), tuple(kinds), " and ".join(shown), as_table or not mapped, keys, identity,
    )  # fmt: skip


def _identity(paths: Sequence[str]) -> tuple[Any, ...]:
    stats = [os.stat(path) for path in paths]  # noqa: PTH116 (as by each rank of a node)
    return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in stats)


def _read(found: Files, roles: Roles, kept: Pieces) -> tuple[Table, Table | None]:
    """Return training rows and test rows of files."""
    kind, paths, source = found.kinds[0], found.paths, found.source
    if kind == "converted":
        return read_converted(paths[0], roles), None
    if kind in TABLES:
        arrow = tables_of(paths[0])
        table: Table = (
            arrow.read_text(paths, roles, source, kept) if kind == "text"
            else arrow.read_typed(paths, roles, source, found.keys, kept)
        )  # fmt: skip
        with contextlib.suppress(OSError):
            if _identity(paths) == found.identity:
                return table, None
        raise InputError(f"{source} has changed while it was read; start again once it is whole")
    if kind in ("npy", "idx"):
        readers = {"npy": read_npy, "idx": read_idx}
        arrays = [readers[kind](path) for kind, path in zip(found.kinds, paths, strict=True)]
        if len(arrays) == 1:
            return one_array(arrays[0], roles, source), None
        return pair(arrays[0], arrays[1], roles, source), None
    if not paths:
        with (Path(__file__).parent / "digits.npz").open("rb") as file:
            return named(read_npz(file), roles, source)
    _, reader = BY_NAME[kind]
    members = [{n: as_array(v, n) for n, v in reader(path).items()} for path in paths]
    return named(members[0] if len(members) == 1 else _stacked(paths, members), roles, source)


def _stacked(paths: Sequence[str], members: Sequence[Mapping[str, Any]]) -> dict[str, Stacked]:
    """Return the arrays of several files as one each; InputError where they don't fit together."""
    for path, other in zip(paths, members, strict=True):
        if {*other} != {*members[0]}:
            raise InputError(f"{path} holds other arrays than {paths[0]}")
    found: dict[str, Stacked] = {}
    for name in members[0]:
        parts = [member[name] for member in members]
        if all(part.shape for part in parts):
            found[name] = Stacked(parts, names=paths)
    for name, one in found.items():
        for second, two in found.items():
            if len(one) == len(two) and one.lengths != two.lengths:
                raise InputError(
                    f"{name} and {second} have {one.lengths} and {two.lengths} rows in {paths[0]} "
                    "and so on; in each file they must have as many"
                )
    return found
