"""Memory that the ranks of a node share, so that within a node nothing is copied to be reduced."""

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mpi4py import MPI


class NodeMemory:
    """Memory that the ranks of a node share, and the barrier by which they take turns in it.

    Collective over the node: every rank of it must make one, and free it.

    Parameters
    ----------
    comm
        The ranks of the node; None for a process alone, whose memory is its own.
    num_bytes
        How much; the caller has looked whether there is as much (`free_bytes`).
    """

    ALIGNMENT = 64
    """Bytes in a cache line: where arrays begin, and what a rank's counter takes to itself."""

    def __init__(self, comm: "MPI.Intracomm | None", num_bytes: int) -> None:
        self._rank, self._size = (comm.rank, comm.size) if comm else (0, 1)
        flags = self.ALIGNMENT * self._size
        self._window: Any = None
        if comm is None:
            self._buffer = np.empty(flags + num_bytes, np.uint8).data
        else:
            from mpi4py import MPI

            self._window = MPI.Win.Allocate_shared(
                flags + num_bytes if comm.rank == 0 else 0, 1, comm=comm
            )
            self._buffer = np.frombuffer(self._window.Shared_query(0)[0], np.uint8).data
            self._window.Lock_all()
        self._flags = self._buffer[:flags].cast("q")  # the arrivals of each rank, a cache line each
        self._mine = self._rank * self.ALIGNMENT // 8
        self._others = [
            rank * self.ALIGNMENT // 8 for rank in range(self._size) if rank != self._rank
        ]
        self._arrivals = 0
        self._used = flags
        self._flags[self._mine] = 0
        if comm is not None:
            comm.Barrier()

    def array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return the next array of this memory, the same one for every rank; contents undefined."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._used += -self._used % self.ALIGNMENT
        part = self._buffer[self._used : self._used + size]
        self._used += size
        return np.frombuffer(part, dtype).reshape(shape)

    def barrier(self) -> None:
        """Wait for every rank of the node; what they wrote before can be read after. Collective.

        Counters in the shared memory. Who waits offers the core to others, and sleeps when it
        takes long: with more ranks than cores that is several times faster than MPI's barrier.
        """
        if self._window is None:
            return
        self._arrivals += 1
        self.sync()
        self._flags[self._mine] = self._arrivals
        for other in self._others:
            looks = 0
            while self._flags[other] < self._arrivals:
                os.sched_yield()
                looks += 1
                if looks > 100:
                    time.sleep(2e-5)
        self.sync()

    def sync(self) -> None:
        """Have this rank's writes leave it and the others' arrive: before and after they meet."""
        if self._window is not None:
            self._window.Sync()

    def free(self) -> None:
        """Give the memory back; its arrays must not be used any more. Collective."""
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()


def free_bytes() -> int:
    """Return how much memory this machine can share between processes."""
    if not Path("/dev/shm").exists():  # noqa: S108 (only Linux has it, and a limit with it)
        return sys.maxsize
    found = os.statvfs("/dev/shm")  # noqa: S108 (where MPI libraries put shared windows)
    return found.f_bavail * found.f_frsize
