"""A table that one rank of a node has read becomes one that all of its ranks map."""

import io
import pickle
from collections.abc import Callable
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from dptrain.world import World

T = TypeVar("T")

Take = Callable[[int], tuple[memoryview, bool]]
"""Returns so many bytes to write, and whether the ranks of the node share them; else each has its
own. Collective over the node."""

MESSAGE = 2**30
"""Bytes that MPI sends at once."""

ALIGNMENT = 64
"""Bytes in a cache line: where arrays begin."""


def share(found: T | None, world: World, take: Take) -> T:
    """Return what the first rank of the node has, with its arrays in memory that all share.

    The other ranks give None. Arrays that are mapped from files are mapped by each rank. Only what
    dptrain has made itself is pickled. Collective: every rank must call this.
    """
    leader = world.rank == world.ranks_here.start
    buffers: list[pickle.PickleBuffer] = []
    told: Any = None
    if leader:
        stream = io.BytesIO()
        _Pickler(stream, 5, buffer_callback=buffers.append).dump(found)
        told = stream.getvalue(), [buffer.raw().nbytes for buffer in buffers]
    pickled, sizes = world.node_comm.bcast(told)
    ends = list(accumulate((size + -size % ALIGNMENT for size in sizes), initial=0))
    memory, in_one = take(ends[-1])
    for start, buffer in zip(ends, buffers, strict=False):
        raw = buffer.raw()
        memory[start : start + raw.nbytes] = raw
    for start in range(0, 0 if in_one else ends[-1], MESSAGE):
        world.node_comm.Bcast(memory[start : min(start + MESSAGE, ends[-1])])
    world.node_comm.Barrier()
    parts = [
        memory[start : start + size].toreadonly() for start, size in zip(ends, sizes, strict=False)
    ]
    shared: T = pickle.loads(pickled, buffers=parts)  # noqa: S301 (this node's first rank made it)
    return shared


class _Pickler(pickle.Pickler):
    """Leaves arrays out, and of those mapped from files says where they are."""

    def reducer_override(self, value: Any) -> Any:
        """Return how a mapped array is opened again."""
        if isinstance(value, np.memmap) and value.base is not None and value.filename:
            order: Any = "C" if value.flags.c_contiguous else "F"
            about = (str(value.filename), value.dtype, "r", value.offset, value.shape, order)
            return np.memmap, about
        return NotImplemented
