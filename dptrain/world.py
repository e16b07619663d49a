"""The processes of a run: who they are, what each holds, and how they fail together.

MPI is imported when a world is connected, not before, so that `--help` needs none.
"""

import contextlib
import functools
import os
import re
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dptrain.config import InputError

if TYPE_CHECKING:
    from mpi4py import MPI


CPUS = os.cpu_count() or 1

ALONE = "each process would think that it is alone"
"""What becomes of ranks whose launcher and MPI library can't find each other."""

RIGHT_LAUNCHER = (
    "Start dptrain with the launcher of the MPI library that it uses "
    "(under Slurm: srun --mpi=pmi2 for MPICH, srun --mpi=pmix for Open MPI)"
)
"""What to do about it."""


def usable_cores() -> set[int]:
    """Return the numbers of the cores that this process may use; all where that isn't known."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {*range(CPUS)}


def cut(n: int, parts: int, part: int) -> range:
    """Return piece number `part` of 0 .. n-1 cut into contiguous parts, sizes at most one apart.

    The one rule by which minibatches are cut into shards, shards and blocks are dealt to ranks,
    and the parameter vector is cut into slices. A piece is empty where n < parts.
    """
    return range(part * n // parts, (part + 1) * n // parts)


@dataclass(frozen=True)
class Launch:
    """What a launcher's environment announces: its name, this process's rank, how many ranks."""

    launcher: str
    rank: int
    size: int


def announced(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return what the environment says of the launch; None where no launcher is known.

    Slurm's variables come last and only within a step: in a batch script they announce tasks that
    nobody has started, mpirun inside a job has its own processes started by Slurm, and a step with
    a terminal (srun --pty) is a person's shell.
    """
    for launcher, rank, size in (
        ("Open MPI's mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("MPICH's or Intel MPI's mpiexec", "PMI_RANK", "PMI_SIZE"),
        ("Slurm's srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ):
        if launcher == "Slurm's srun" and "SLURM_PTY_PORT" in environ:
            continue
        if environ.get(rank, "").isdigit() and environ.get(size, "").isdigit():
            return Launch(launcher, int(environ[rank]), int(environ[size]))
    return None


class World:
    """The ranks of a communicator, node by node, or one process alone where `comm` is None.

    Ranks are numbered so that those of a node follow each other: `nodes` are the ranks of each
    node, `node` is this rank's. Ranks of a node share memory; `ranks_per_node` makes the world
    pretend that fewer do, for tests. Collective: every rank of `comm` must make one.
    """

    def __init__(self, comm: "MPI.Comm | None" = None, ranks_per_node: int | None = None) -> None:
        self.comm: Any = None
        self.node_comm: Any = None
        self.rank, self.size = 0, 1
        self.nodes = [range(1)]
        if comm is None or comm.size == 1:
            return
        from mpi4py import MPI

        sharing = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
        part = sharing.rank // (ranks_per_node or sharing.size)
        self.node_comm = sharing.Split(part, comm.rank)
        leader = self.node_comm.bcast(comm.rank)
        self.comm = comm = comm.Split(0, leader * comm.size + comm.rank)
        self.rank, self.size = comm.rank, comm.size
        starts = sorted(set(comm.allgather(comm.rank - self.node_comm.rank)))
        self.nodes = [range(*ends) for ends in zip(starts, [*starts[1:], self.size], strict=True)]

    @property
    def ranks_here(self) -> range:
        """The ranks of this rank's node."""
        return next(ranks for ranks in self.nodes if self.rank in ranks)

    def mine(self, n: int) -> range:
        """Return the numbers among 0 .. n-1 (shards, blocks) that this rank holds."""
        return cut(n, self.size, self.rank)

    def allgather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order. Collective: every rank must call this."""
        return self.comm.allgather(value) if self.comm else [value]

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value; the other ranks' doesn't count. Collective: as `allgather`."""
        return self.comm.bcast(value) if self.comm else value

    def crowded(self, threads: int) -> str | None:
        """Return what to say where a node has fewer cores than its ranks have threads.

        Counts the cores that its ranks may use. Collective: every rank must call this.
        """
        found = self.allgather((socket.gethostname(), usable_cores()))
        for ranks in self.nodes:
            cores = len(set().union(*(found[rank][1] for rank in ranks)))
            if len(ranks) * threads > cores:
                needed = f"{len(ranks)} rank{'s' * (len(ranks) > 1)}"
                needed += f" of {threads} threads" * (threads > 1)
                return f"{found[ranks.start][0]} has {cores} cores for {needed}; expect waiting"
        return None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make one rank's InputError every rank's: who leaves this block, leaves with all others.

        Raises the error of the lowest rank that has one. Collective: every rank must enter this.
        """
        error: InputError | None = None
        try:
            yield
        except InputError as found:
            error = found
        verdicts = self.allgather(
            (socket.gethostname(), error and str(error), error and error.local)
        )
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
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        if self.comm and self.size > 1:
            self.comm.Abort(status)


def _import_mpi() -> Any:
    """Import MPI without starting it, so that the library is looked at before the launcher is.

    Raises ImportError or RuntimeError where there is no MPI library.
    """
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = True
    from mpi4py import MPI

    return MPI


def library() -> str | None:
    """Return the name and version of the MPI library in one line; None where there is none."""
    try:
        first = _import_mpi().Get_library_version().split("\n")[0].split(", package")[0]
    except (ImportError, RuntimeError):
        return None
    return " ".join(first.strip("\x00").split())


def misfit(launch: Launch, library: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return what would become of processes that can't be one world; None if none is known.

    MPICH's library ends where Open MPI's mpirun started it; Open MPI's, from version 5 on, finds
    the other ranks by PMIx only. Other misfits are seen once MPI has started: see `connect`.
    """
    if launch.launcher.startswith("Open MPI") and library.startswith("MPICH"):
        return "MPI could not start"
    if re.match(r"Open MPI v([5-9]|\d\d)", library) and "PMIX_RANK" not in environ:
        return ALONE
    return None


def _load_mpi(launch: Launch | None) -> Any:
    """Import and start MPI; None where this machine has no MPI library."""
    try:
        mpi = _import_mpi()
    except (ImportError, RuntimeError) as error:  # no libmpi: mpi4py raises RuntimeError
        if launch and launch.size > 1:
            raise _mismatch(
                launch, f"there is no MPI library here ({' '.join(str(error).split())})"
            ) from None
        return None
    if not mpi.Is_initialized():
        found = str(library())
        trouble = misfit(launch, found) if launch else None
        if launch and trouble and (launch.size > 1 or trouble != ALONE):  # one alone is no harm
            raise _mismatch(launch, f"the MPI library is {found}", trouble)
        with warnings.catch_warnings(category=RuntimeWarning, action="ignore"):
            mpi.Init_thread(mpi.THREAD_FUNNELED)  # its doubts of the launcher are `connect`'s too
    return mpi


def _mismatch(launch: Launch, found: str, trouble: str = ALONE) -> InputError:
    return InputError(
        f"{launch.launcher} announces {launch.size} rank{'s' * (launch.size > 1)}, but {found}, so "
        f"{trouble}. {RIGHT_LAUNCHER}"
    )


def let_the_first_speak() -> None:
    """Wait, in a process that ends without a world: a launcher may end all when one has failed."""
    time.sleep(0.5)


def open_streams() -> None:
    """Open the null device in the place of each standard stream that is closed.

    What is opened next would take its number, and be written to by everything that prints.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(null, True)
        if number > 0 and getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115


def say(text: str) -> None:
    """Print a line for people; that nobody can read it is no reason to end a run."""
    with contextlib.suppress(OSError):
        print(f"dptrain: {text}", file=sys.stderr, flush=True)


@functools.cache
def connect() -> World:
    """Start MPI where there is one and return the world of all ranks, the same at every call.

    With more than one rank, an exception that nobody catches ends the whole job: see
    `end_all_ranks`. Collective: every rank must call this.

    Raises
    ------
    InputError
        The launcher announces more ranks than MPI has.
    """
    open_streams()
    launch = announced()
    mpi = _load_mpi(launch)
    size = mpi.COMM_WORLD.size if mpi else 1
    if launch and launch.size > size:
        raise _mismatch(launch, f"the MPI library ({library() or 'none'}) sees {size}")
    if size == 1:
        return World()
    world = World(mpi.COMM_WORLD)
    sys.excepthook = functools.partial(end_all_ranks, world)
    return world


def end_all_ranks(
    world: World,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Print an exception with its rank and end the job, as `sys.excepthook` or by a call.

    Without it the other ranks would wait for ever in their next collective call.
    """
    if isinstance(error, InputError) and error.everywhere:
        if world.rank == 0:  # every rank is on its way out with the same message
            traceback.print_exception(kind, error, trace)
        return
    if not isinstance(error, KeyboardInterrupt):
        lines = "".join(traceback.format_exception(kind, error, trace))
        where = f"rank {world.rank} of {world.size} on {socket.gethostname()}"
        with contextlib.suppress(OSError):  # the launcher that would show it may be gone
            print(f"\ndptrain: {where} failed and ends the run:\n{lines}", end="", file=sys.stderr)
    world.abort(130 if isinstance(error, KeyboardInterrupt) else 1)
