"""Memory that the ranks of a node share, so that within a node nothing is copied to be reduced."""

import contextlib
import errno
import math
import mmap
import os
import re
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dptrain.machine import SHM, free_bytes
from dptrain.nodes import allgathered, sleep_until
from dptrain.world import World, cut

if TYPE_CHECKING:
    from mpi4py import MPI

SHARED = re.compile(r"(mpich_shm_|dptrain-)\w+")
"""Names of what MPICH and dptrain make there; MPICH leaves it behind where ranks are killed."""

AGE = 2.0
"""Seconds for which such a file is not taken for left behind, whoever seems to use it."""


class NodeMemory:
    """Memory that the ranks of a node share, and the barrier by which they take turns in it.

    Taken in full where it is made: a file system in memory hands out pages only when they are
    touched, and who touches one that is not there any more dies of it (SIGBUS).

    Collective over the node: every rank of it must make one, and free it. Raises OSError where
    there is not as much, or some of the ranks can't share it; on every rank of the node.

    `world`: whose ranks of this node; None for a process alone, whose memory is its own.
    `num_bytes`: how much.
    """

    ALIGNMENT = 64
    """Bytes in a cache line: where arrays begin, and what a rank's counter takes to itself."""

    def __init__(self, world: World | None, num_bytes: int) -> None:
        self._comm: Any = world and world.node_comm
        self._window: Any = world and world.window
        self._rank: int = self._comm.rank if self._comm else 0
        self._size: int = self._comm.size if self._comm else 1
        flags = self.ALIGNMENT * self._size
        self._shared = _take(self._comm, flags + num_bytes) if self._comm else None
        own = np.empty(flags + num_bytes, np.uint8).data if self._shared is None else self._shared
        self._buffer = memoryview(own)
        self._flags = self._buffer[:flags].cast("q")  # of each rank a line: arrivals and bits
        self._mine = self._rank * self.ALIGNMENT // 8
        others = (rank for rank in range(self._size) if rank != self._rank)
        self._others = [rank * self.ALIGNMENT // 8 for rank in others]
        self._arrivals = 0
        self._used = flags

    def array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return the next array of this memory, the same one for every rank; contents undefined."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._used += -self._used % self.ALIGNMENT
        part = self._buffer[self._used : self._used + size]
        self._used += size
        return np.frombuffer(part, dtype).reshape(shape)

    def barrier(self, bits: int = 0) -> int:
        """Wait for every rank of the node; what they wrote before can be read after. Collective.

        Takes bits of this rank, below 2**63, and returns those of any.

        Counters in the shared memory. Who waits offers the core to others, and sleeps when it
        takes long: with more ranks than cores that is several times faster than MPI's barrier.
        """
        if self._window is None:
            return bits
        self._arrivals += 1
        place = 1 + self._arrivals % 2  # of two, as who is ahead writes while others still read
        self._flags[self._mine + place] = bits
        self._window.Sync()
        self._flags[self._mine] = self._arrivals
        for other in self._others:
            looks = 0
            while self._flags[other] < self._arrivals:
                os.sched_yield()
                looks += 1
                if looks > 100:
                    time.sleep(2e-5)
        self._window.Sync()
        found: int = self._flags[self._mine + place]
        for other in self._others:
            found |= self._flags[other + place]
        return found

    def sync(self) -> None:
        """Have this rank's writes leave it and the others' arrive: before and after they meet."""
        if self._window is not None:
            self._window.Sync()

    def free(self) -> None:
        """Give the memory back; its arrays must not be used any more. Collective."""
        if self._shared is not None:
            sleep_until(self._comm.Ibarrier())
            if self._rank == 0 and hasattr(mmap, "MADV_REMOVE"):  # whoever still has arrays in it
                self._shared.madvise(mmap.MADV_REMOVE)


def shared_rows(comm: "MPI.Intracomm | None", num_bytes: int) -> tuple[memoryview, bool]:
    """Return memory for rows of data, and whether the ranks of a node share it.

    As long as any of them has arrays in it. It is on disk where memory can't be shared, and each
    rank's own where that can't be either. Collective over the node.
    """
    if comm is None:
        return np.empty(num_bytes, np.uint8).data, True
    for folder in (None, Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):  # on every rank
            return memoryview(_take(comm, max(comm.size, num_bytes), folder)), True
    return np.empty(num_bytes, np.uint8).data, False


def _take(comm: "MPI.Intracomm", num_bytes: int, folder: Path | None = None) -> mmap.mmap:
    """Return memory, filled with zeros, that the ranks of a node share.

    It is a file that soon has no name any more, so that nothing stays behind of ranks that are
    killed. Each rank takes its part of the pages, which then are near to its cores. Collective;
    OSError on all ranks where one is refused.
    """
    if folder is None:
        folder = SHM if SHM.is_dir() else Path(tempfile.gettempdir())
    path = folder / f"dptrain-{uuid.uuid4().hex}"  # rank 0's is everybody's
    found: mmap.mmap | None = None
    fault: OSError | None = None
    faults: list[OSError] = []
    for makes in (True, False):
        if makes == (comm.rank == 0) and not faults:  # else the file may be shorter than its map
            try:
                found = _map(path, num_bytes, cut(num_bytes, comm.size, comm.rank), makes)
            except OSError as error:
                fault = error
        told = allgathered(comm, (path, fault))
        path, faults = told[0][0], [fault for _, fault in told if fault]
    if comm.rank == 0:
        with contextlib.suppress(OSError):
            path.unlink()
    if found is None or faults:
        raise faults[0]
    return found


def _map(path: Path, num_bytes: int, part: range, new: bool) -> mmap.mmap:
    """Return a file in memory, and take a part of its pages."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags | (os.O_CREAT | os.O_EXCL) * new, 0o600)
    try:
        # what others still need isn't taken for a moment
        if new and path.parent == SHM and free_bytes() < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if new:
            os.truncate(file, num_bytes)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, part.start, len(part))
        return mmap.mmap(file, num_bytes)
    finally:
        os.close(file)


def left_behind() -> list[Path]:
    """Return this user's files in shared memory, with such names, that no process uses.

    Whoever makes one has it open, then mapped: who looks in this order finds each that is used.
    """
    found: dict[tuple[int, int], Path] = {}
    for path in SHM.glob("*"):
        with contextlib.suppress(OSError):
            about = path.lstat()
            old = time.time() - about.st_ctime > AGE
            if SHARED.fullmatch(path.name) and about.st_uid == os.getuid() and old:
                found[about.st_dev, about.st_ino] = path
    if not found or not Path("/proc/self/maps").exists():
        return []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    about = file.stat()
                    found.pop((about.st_dev, about.st_ino), None)
        with contextlib.suppress(OSError):
            for line in (process / "maps").read_text(errors="replace").splitlines():
                _, _, _, device, inode, *_ = line.split()
                major, minor = (int(number, 16) for number in device.split(":"))
                found.pop((os.makedev(major, minor), int(inode)), None)
    return sorted(found.values())
