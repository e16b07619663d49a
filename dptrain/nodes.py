"""Which ranks share a node, and what they share for life: made once for a communicator."""

import functools
import io
import os
import pickle
import time
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from dptrain.board import LENGTH, Board
from dptrain.guard import GUARD
from dptrain.neighbour import Neighbour

if TYPE_CHECKING:
    from mpi4py import MPI


class Nodes(NamedTuple):
    """The ranks of a communicator, numbered so that those of a node follow each other."""

    comm: Any
    """All of them; None for one process alone."""
    node_comm: Any
    """Those that share memory with this one."""
    nodes: list[range]
    """The ranks of each node."""
    board: Board
    """What those of this node are doing."""
    window: Any
    """The board's memory; its fences order what ranks write in any memory that they share."""

    @staticmethod
    def of(comm: "MPI.Comm", ranks_per_node: int | None) -> "Nodes":
        """Return the nodes of a communicator, the same as long as there is that. Collective."""
        made: dict[int | None, Nodes] | None = comm.Get_attr(_made())  # type: ignore[assignment]
        if made is None:
            made = {}
            comm.Set_attr(_made(), made)
        if ranks_per_node not in made:
            made[ranks_per_node] = _make(comm, ranks_per_node)
        return made[ranks_per_node]


ALONE = Nodes(None, None, [range(1)], Board(memoryview(bytearray(LENGTH)), range(1), 0), None)
"""One process, which waits for nobody."""


def _make(comm: "MPI.Comm", ranks_per_node: int | None) -> Nodes:
    """Find out who shares memory, and set up what they share. Collective."""
    from mpi4py import MPI

    sharing = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
    node_comm: Any = sharing.Split(sharing.rank // (ranks_per_node or sharing.size), sharing.rank)
    sharing.Free()
    first = comm.allgather(node_comm.bcast(comm.rank))
    order = sorted(range(comm.size), key=lambda rank: (first[rank], rank))
    ordered = comm.Split(0, order.index(comm.rank))
    starts = sorted(set(ordered.allgather(ordered.rank - node_comm.rank)))
    nodes = list(map(range, starts, [*starts[1:], ordered.size]))
    own = starts.index(ordered.rank - node_comm.rank)
    num_bytes = LENGTH * node_comm.size if node_comm.rank == 0 else 0
    window = MPI.Win.Allocate_shared(num_bytes, 1, comm=node_comm)
    window.Lock_all()  # without which there are no fences
    memory = memoryview(window.Shared_query(0)[0]).cast("B")  # type: ignore[arg-type]
    if node_comm.rank == 0:
        memory[:] = bytes(num_bytes)
    node_comm.Barrier()
    board = Board(memory, nodes[own], ordered.rank)
    neighbour = None
    if len(nodes) > 1:
        neighbour = Neighbour()
        cards = ordered.allgather((neighbour.card(board.line), os.urandom(8)))
        neighbour.meet([cards[ranks.start][0] for ranks in nodes], own, cards[0][1])
        for _ in range(3):  # ask, answer, and take the answer: who is heard now can be missed later
            neighbour.tick([])
            ordered.Barrier()
    GUARD.watch(board, neighbour)
    node_comm.Barrier()
    return Nodes(ordered, node_comm, nodes, board, window)


@functools.cache
def _made() -> int:
    """Return the key by which a communicator keeps its nodes, freed with it."""
    from mpi4py import MPI

    def free(_: MPI.Comm, __: int, made: dict[int | None, Nodes]) -> None:
        for nodes in made.values():
            GUARD.forget(nodes.board)
            nodes.window.Unlock_all()
            for shared in (nodes.window, nodes.node_comm, nodes.comm):
                shared.Free()

    return MPI.Comm.Create_keyval(delete_fn=free)


def sleep_until(arrival: Any) -> None:
    """Wait, soon asleep, until all ranks have come where they wait for each other.

    MPI would take a core to wait, which those that are waited for may need. At first the core is
    but offered to them: several messages follow each other, and who sleeps is late for each.
    """
    start, looks = time.perf_counter(), 0
    while not arrival.Test():
        looks += 1
        if looks < 200:
            os.sched_yield()
        else:
            time.sleep(min((time.perf_counter() - start) / 32, 0.01))


def allgathered(comm: Any, value: Any) -> list[Any]:
    """Return every rank's value, in rank order; soon asleep until all have come. Collective."""
    own = pickle.dumps(value)
    lengths = array("q", [0]) * comm.size
    sleep_until(comm.Iallgather(array("q", [len(own)]), lengths))
    whole = bytearray(sum(lengths))
    sleep_until(comm.Iallgatherv(own, (whole, lengths.tolist())))
    stream = io.BytesIO(whole)
    return [pickle.load(stream) for _ in lengths]  # noqa: S301 (what the ranks made themselves)
