"""The processes of a run: who they are, what each holds, and how they fail together."""

import atexit
import contextlib
import functools
import os
import socket
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dptrain.board import State, apart
from dptrain.guard import GUARD
from dptrain.launch import announced, finalized, load_mpi, starting
from dptrain.machine import room_to_start
from dptrain.nodes import ALONE, Nodes, allgathered, sleep_until
from dptrain.streams import last_words, open_streams, warn
from dptrain.words import InputError, shown

if TYPE_CHECKING:
    from mpi4py import MPI

P = ParamSpec("P")
R = TypeVar("R")

_CONNECTING = threading.RLock()


def cut(n: int, parts: int, part: int) -> range:
    """Return piece number `part` of 0 .. n-1 cut into contiguous parts, sizes at most one apart.

    The one rule by which minibatches are cut into shards, shards and blocks are dealt to ranks,
    and the parameter vector is cut into slices. A piece is empty where n < parts.
    """
    return range(part * n // parts, (part + 1) * n // parts)


class World:
    """The ranks of a communicator, node by node, or one process alone where `comm` is None.

    Ranks are numbered so that those of a node follow each other: `nodes` are the ranks of each
    node, which share memory; `ranks_per_node` makes the world pretend that fewer do, for tests.
    Worlds of one communicator share what they are made of, which is given back with it. Collective:
    every rank of `comm` must make one, and call what is collective from the thread that has.
    """

    def __init__(self, comm: "MPI.Comm | None" = None, ranks_per_node: int | None = None) -> None:
        nodes = ALONE if comm is None or comm.size == 1 else Nodes.of(comm, ranks_per_node)
        self.comm, self.node_comm, self.nodes, self._board, self.window = nodes
        self.rank: int = self.comm.rank if self.comm else 0
        self.size: int = self.comm.size if self.comm else 1

        self._process, self._thread = os.getpid(), threading.get_ident()
        self._calls: list[str] = []
        self.title = ""
        """What this process is, where it is in a call: a command line."""
        self.status = 1
        """What the job ends with where others make other calls: a mistake's, on its way out."""

    @property
    def ranks_here(self) -> range:
        """The ranks of this rank's node."""
        return next(ranks for ranks in self.nodes if self.rank in ranks)

    def mine(self, n: int) -> range:
        """Return the numbers among 0 .. n-1 (shards, blocks) that this rank holds."""
        return cut(n, self.size, self.rank)

    @contextlib.contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Name what every rank does together: who waits for a rank elsewhere is told where it is.

        The job ends where one rank leaves this by an exception that not all are known to have: the
        others would wait for it. Collective: every rank must enter this.
        """
        if self.comm is None:
            yield
            return
        self._check_thread()
        self._calls.append(name)
        try:
            if len(self._calls) == 1:
                self._board.set(State.INSIDE, self.title or name)
                self._exchange(None)
            yield
        except BaseException as error:
            self.end_all_ranks(error)
            raise
        finally:
            self._calls.pop()
            if not self._calls:
                self._board.set(State.OUTSIDE)

    def allgather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order. Collective: every rank must call this."""
        if self.comm is None:
            return [value]
        self._check_thread()
        if self._calls:
            return self._exchange(value)
        with self.call("World.allgather"):
            return self._exchange(value)

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value; the other ranks' doesn't count. Collective: as `allgather`."""
        return self.allgather(value if self.rank == 0 else None)[0]

    def first(self, find: Callable[[], R]) -> R:
        """Return what rank 0 finds, on every rank; its InputError is every rank's. Collective."""
        with self.together():
            own = find() if self.rank == 0 else None
        found: R = self.broadcast(own)
        return found

    def _exchange(self, value: Any) -> list[Any]:
        """Return every rank's value, once it is clear that all are at the same place."""
        place = "/".join([*self._calls, _site()])
        number = self._board.arrive(zlib.crc32(place.encode()))
        sleep_until(self.comm.Ibarrier())  # who leaves comes to one too, and then sends nothing
        found = allgathered(self.comm, (number, place, value))
        if len({(number, place) for number, place, _ in found}) > 1:
            found = allgathered(self.comm, (self.title or self._calls[0], self.status))
            calls, statuses = zip(*found, strict=True)
            self._end(shown(apart(calls)), max(statuses))
        return [value for *_, value in found]

    def beat(self) -> None:
        """Say that this rank has done a step of a call, and waits for all."""
        self._board.beat()

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """Let the others wait for this rank as long as it takes, such as for a slow disk."""
        self._board.set(State.EXCUSED)
        yield
        self._board.set(State.INSIDE)

    @property
    def over(self) -> bool:
        """Whether MPI is finalized, or knows nothing of this process, a forked child of a rank."""
        return self.comm is not None and (os.getpid() != self._process or finalized())

    def _check_thread(self) -> None:
        """Raise InputError in another thread than that which has made this, where there are ranks.

        What two threads of a rank send to the others would mix. Also where the ranks are `over`.
        """
        if self.over or (self.comm and threading.get_ident() != self._thread):
            raise InputError(
                f"a call of all {self.size} ranks comes from another thread or process than the "
                "one that has made their World, or after MPI.Finalize(); make all such calls from "
                "that one, before it"
            )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make one rank's InputError every rank's: who leaves this block, leaves with all others.

        Raises the error of the lowest rank that has one. Collective: every rank must enter this.
        """
        with self.call("together"):
            error: InputError | None = None
            try:
                yield
            except InputError as found:
                error = found
            own = (socket.gethostname(), str(error or ""), error is not None and error.local)
            verdicts: list[tuple[str, str, bool]] = self._exchange(own) if self.comm else [own]
            wrong = [rank for rank, (_, message, _) in enumerate(verdicts) if message]
            if not wrong:
                return
            host, message, local = verdicts[wrong[0]]
            if local and len(wrong) < self.size:
                others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                message = f"on rank {wrong[0]} (host {host}){others}, not on all: {message}"
            raise InputError(message, everywhere=True) from error

    def abort(self, status: int) -> None:
        """End every rank at once with this exit status, where there are others to end."""
        if self.comm:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # closed, full, or gone
                    stream.flush()
            self.comm.Abort(status)

    def end_all_ranks(self, error: BaseException) -> None:
        """Say what has ended this rank, and end all: they would wait for it in their next call.

        Nothing is done where all are on their way out with the same message, or `over`.
        """
        if self.over or (isinstance(error, InputError) and error.everywhere):
            return
        if isinstance(error, KeyboardInterrupt):
            self.abort(130)
        mistake, cause = isinstance(error, InputError), error.__cause__
        status = error.code if isinstance(error, SystemExit) else 1
        status = error.status if isinstance(error, InputError) else status
        lines = [f"{error}\n"] if mistake else traceback.format_exception(error)
        lines += traceback.format_exception(cause) if mistake and cause else ()
        where = f"rank {self.rank} of {self.size} on {socket.gethostname()}"
        self._end(f"{where} failed and ends the run:\n{''.join(lines)}".rstrip(), status)

    def _end(self, message: str, status: object) -> None:
        """Say once, by one rank, why all end, and end them; the status, of 8 bits, is never 0."""
        if self._board.claim(0.1):
            last_words(message)
        else:
            time.sleep(1)
        self.abort(status % 256 or 1 if isinstance(status, int) else 1)


def _site() -> str:
    """Return which function of dptrain, beyond this file, makes a call; nothing for others."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"] in (__name__, "contextlib"):
        frame = frame.f_back
    name = str(frame.f_globals["__name__"])
    return f"{name}.{frame.f_code.co_qualname}" if name.startswith("dptrain.") else ""


def connect() -> World:
    """Start MPI where there is one and return the world of all ranks, the same at every call.

    With more than one rank, an exception that nobody catches ends the whole job, and so does a rank
    that has ended while others wait for it: see `dptrain/guard.py`. Collective: every rank must
    call this.

    Raises InputError where the launcher announces more ranks than MPI has.
    """
    with _CONNECTING:  # the world of two threads that ask at once is the first one's
        return joined()


@functools.cache
def joined() -> World:
    """Return the world of all ranks, made at the first call: see `connect`."""
    open_streams()
    launch, scarce = announced(), room_to_start()
    if scarce and launch is None and "mpi4py.MPI" not in sys.modules:
        return World()  # which needs no MPI
    if scarce and launch and launch.rank == 0:
        warn(scarce)
    with starting(launch):
        mpi = load_mpi(launch)
    if mpi is None or mpi.COMM_WORLD.size == 1 or _rank() != os.getpid():
        return World()
    world, show = World(mpi.COMM_WORLD), sys.excepthook

    def fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """End all ranks where nobody has caught an exception."""
        world.end_all_ranks(error)  # returns where all leave with this error
        if world.over or world.rank == 0:
            show(kind, error, trace)

    def leave() -> None:
        """End all where this rank ends by an exception that another hook has shown; else wait for
        the others, as MPI_Finalize would, but with this rank's guard awake."""
        if world.over:
            return
        error = getattr(sys, "last_value", None)
        if error is not None and not (isinstance(error, InputError) and error.everywhere):
            where = f"rank {world.rank} of {world.size} on {socket.gethostname()}"
            last_words(f"{where} failed and ends the run")
            world.abort(1)
        GUARD.leave()
        sleep_until(world.comm.Ibarrier())

    sys.excepthook = fail
    atexit.register(leave)
    return world


os.register_at_fork(after_in_child=joined.cache_clear)


@functools.cache
def _rank() -> int:
    """Return the process that MPI has started in: a child that it forks is a world of its own."""
    return os.getpid()


def collective(function: Callable[P, R]) -> Callable[P, R]:
    """Make of a function that takes a world a call of all its ranks: see `World.call`."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (value for value in (*args, *kwargs.values()) if isinstance(value, World))
        with (next(given, None) or connect()).call(function.__name__):
            return function(*args, **kwargs)

    return called
