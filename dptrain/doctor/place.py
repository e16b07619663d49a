"""The run directory, tried out: written, flushed, renamed and locked in, and left as it was."""

import contextlib
import fcntl
import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from dptrain.doctor.look import Unknown, attempt
from dptrain.record.files import flush, sync_directory
from dptrain.world import World

SHARED = {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gpfs", "lustre"}
SHARED |= {"nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "virtiofs", "wekafs"}
"""File systems that other machines usually have too."""


@dataclass(frozen=True)
class Place:
    """What was found of a directory; `fault` is what can't be done in it."""

    directory: str
    type: str | None
    """The file system's."""
    shared: bool
    free: int
    """Bytes."""
    fault: str | None
    locks: bool
    unseen: tuple[int, ...] = ()
    """The ranks that don't see what rank 0 has written."""


def try_out(world: World, directory: Path) -> Place | Unknown:
    """Return what rank 0 found of a directory, or of the nearest one above it that exists.

    Nothing is left behind. Collective: every rank must call this.
    """
    own = attempt(lambda: _try_out(directory.absolute())) if world.rank == 0 else None
    try:
        found: tuple[Place, Path] | Unknown = world.broadcast(own)
        if isinstance(found, Unknown):
            return found
        place, probe = found
        unseen = tuple(rank for rank, seen in enumerate(world.allgather(_sees(probe))) if not seen)
        return replace(place, unseen=unseen)
    finally:
        if isinstance(own, tuple):
            for path in (own[1], own[1].with_suffix(".tmp")):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)


def _sees(path: Path) -> bool:
    with contextlib.suppress(OSError):
        os.listdir(path.parent)  # noqa: PTH208 (has a network file system look again)
    return attempt(path.exists) is True


def _try_out(directory: Path) -> tuple[Place, Path]:
    """Return what is found, and the file that is still there, for others to see."""
    folder = next(path for path in (directory, *directory.parents) if path.exists())
    probe = folder / f".dptrain-doctor-{uuid.uuid4().hex}"
    space = os.statvfs(folder)
    kind = attempt(lambda: file_system(folder))
    fault, locks = _use(probe)
    named = None if isinstance(kind, Unknown) else kind
    free = space.f_bavail * space.f_frsize
    return Place(str(folder), named, kind in SHARED, free, fault, locks), probe


def _use(probe: Path) -> tuple[str | None, bool]:
    """Do with a file what a run does; return what can't be done, and whether it can be locked."""
    locks, doing = True, "written in"
    first = probe.with_suffix(".tmp")
    try:
        with first.open("ab") as file:
            file.write(b"dptrain doctor\n")
            file.flush()
            doing = "flushed to disk"
            flush(file.fileno())
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                locks = False
        doing = "renamed in"
        first.replace(probe)
        doing = "flushed to disk"
        sync_directory(probe.parent)
    except OSError as error:
        return f"can't be {doing}: {error.strerror}", locks
    return None, locks


def file_system(folder: Path) -> str | None:
    """Return the type of the file system that a folder is on."""
    here, mounts = folder.resolve(), psutil.disk_partitions(all=True)
    above = [mount for mount in reversed(mounts) if here.is_relative_to(mount.mountpoint)]
    # the innermost; of those at one point the last, which hides the others
    return max(above, key=lambda mount: len(mount.mountpoint)).fstype if above else None
