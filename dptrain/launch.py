"""What a launcher says of the ranks it has started, and whether the MPI library here fits it.

MPI is imported and started here, when a world is connected and not before: `--help` needs none.
"""

import contextlib
import errno
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dptrain.streams import last_words
from dptrain.words import InputError, counted

ALONE = "each process would think that it is alone"
"""What becomes of ranks whose launcher and MPI library can't find each other."""

RIGHT_LAUNCHER = (
    "Start dptrain with the launcher of the MPI library that it uses "
    "(under Slurm: srun --mpi=pmi2 for MPICH, srun --mpi=pmix for Open MPI)"
)
"""What to do about it."""

_STARTING = threading.Lock()

TAKEN = {signal.SIGHUP, signal.SIGUSR1}
"""Signals that end a process, but not one that has started MPICH."""

START = 600.0
"""Seconds that MPI may take to start, with every rank of the launch."""

LOOK = 1.0
"""Seconds between two looks at the other ranks while it does."""

LAUNCHERS = {"mpiexec", "mpiexec.hydra", "mpirun", "hydra_pmi_proxy", "prterun", "prted", "orterun",
             "orted", "slurmstepd"}  # fmt: skip
"""Names of processes that start and end ranks."""

LOCAL = (
    ("MPI_LOCALNRANKS", "PMI_RANK"),
    ("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("SLURM_STEP_TASKS_PER_NODE", "SLURM_PROCID"),
)
"""Variables: how many ranks a node has (Slurm's, of all nodes: 3(x2),1), and which one this is."""


class Launch(NamedTuple):
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
        if rank == "PMI_RANK" and is_inherited(environ):
            continue
        if environ.get(rank, "").isdecimal() and environ.get(size, "").isdecimal():
            return Launch(launcher, int(environ[rank]), int(environ[size]))
    return None


def is_inherited(environ: Mapping[str, str]) -> bool:
    """Return whether it is another process that these variables were meant for.

    Where a rank starts a program, that has the rank's variables, but not the socket they name.
    """
    try:
        return not stat.S_ISSOCK(os.fstat(int(environ.get("PMI_FD", ""))).st_mode)
    except ValueError:  # the launcher is reached otherwise
        return False
    except (OSError, OverflowError):
        return True


def _import_mpi() -> Any:
    """Import MPI without starting it, so that the library is looked at before the launcher is.

    Raises ImportError or RuntimeError where there is no MPI library.
    """
    import mpi4py

    mpi4py.rc(initialize=False, finalize=True)
    from mpi4py import MPI

    return MPI


def finalized() -> bool:
    """Return whether this process has ended MPI."""
    return bool(_import_mpi().Is_finalized())


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
    the other ranks by PMIx only. Other misfits are seen once MPI has started: see `load_mpi`.
    """
    if launch.launcher.startswith("Open MPI") and library.startswith("MPICH"):
        return "MPI could not start"
    if re.match(r"Open MPI v([5-9]|\d\d)", library) and "PMIX_RANK" not in environ:
        return ALONE
    return None


def load_mpi(launch: Launch | None) -> Any:
    """Import and start MPI; None where this machine has no MPI library.

    Raises InputError where the launcher announces more ranks than MPI has, or has it no more.
    """
    if is_inherited(os.environ):  # else MPI would look for the launcher's socket, and end
        for name in [name for name in os.environ if name.startswith("PMI_")]:
            del os.environ[name]
    with _STARTING, _signals_kept():
        try:
            mpi = _import_mpi()
        except (ImportError, RuntimeError) as error:  # no libmpi: mpi4py raises RuntimeError
            if launch and launch.size > 1:
                why = " ".join(str(error).split())
                raise _mismatch(launch, f"there is no MPI library here ({why})") from None
            return None
        found = str(library())
        if not mpi.Is_initialized():
            trouble = misfit(launch, found) if launch else None
            if launch and trouble and (launch.size > 1 or trouble != ALONE):  # one is no harm
                raise _mismatch(launch, f"the MPI library is {found}", trouble)
            _start(mpi)
    if mpi.Is_finalized():
        if launch and launch.size > 1:
            raise InputError("this program has ended MPI: call dptrain before MPI.Finalize()")
        return None
    if launch and launch.size > mpi.COMM_WORLD.size:
        raise _mismatch(launch, f"the MPI library ({found}) sees {mpi.COMM_WORLD.size}")
    return mpi


def _start(mpi: Any) -> None:
    """Start MPI, which waits for every rank of the launch, with other threads free to run.

    mpi4py would keep the interpreter's lock all the while, and nobody could watch.
    """
    import ctypes

    try:
        init = ctypes.CDLL(mpi.__file__).MPI_Init_thread
    except (OSError, AttributeError):
        mpi.Init_thread(mpi.THREAD_FUNNELED)
    else:
        init(None, None, mpi.THREAD_FUNNELED, ctypes.byref(ctypes.c_int()))


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what signals do from MPI, which is loaded and started in the block.

    MPICH and what it loads have handlers for TAKEN, which do nothing: signals that come meanwhile
    wait, and then do what they did before. Ctrl-C ends the process at once: Python could not hear
    it.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *TAKEN)}
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
    if main and before[signal.SIGINT] is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            if main and handler is not None:  # else it is a library's from the start
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)


def _mismatch(launch: Launch, found: str, trouble: str = ALONE) -> InputError:
    return InputError(
        f"{launch.launcher} announces {counted(launch.size, 'rank')}, but {found}, so {trouble}. "
        f"{RIGHT_LAUNCHER}"
    )


def let_the_first_speak() -> None:
    """Wait, in a process that ends without a world: a launcher may end all when one has failed."""
    time.sleep(0.5)


def launcher_processes() -> list[int]:
    """Return the processes between this one and the launcher that started it, the launcher last.

    Nothing where no process above this one is known to be a launcher.
    """
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        above = psutil.Process().parents()
        known = [number for number, process in enumerate(above, 1) if process.name() in LAUNCHERS]
        return [process.pid for process in above[: max(known, default=0)]]
    return []


@contextlib.contextmanager
def starting(launch: Launch | None) -> Iterator[None]:
    """Watch while MPI starts: it waits for every rank of the launch, also for one that has ended.

    A process that ends before MPI starts is no failure to the launcher, unless a signal kills it.
    """
    if launch is None or launch.size == 1:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_watch_start, args=(launch, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch_start(launch: Launch, over: threading.Event) -> None:
    """End this process, and so all, where MPI can't start any more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)  # as in the main thread: see `_signals_kept`
    begin, before = time.monotonic(), None
    while not over.wait(LOOK):
        missing, found = missing_ranks(launch), None
        if missing and missing == before:
            found = f"{missing} has ended before MPI started, and the others would wait for ever"
        elif time.monotonic() - begin > START:
            found = f"MPI has not started in {START:g} s: some of {launch.size} ranks are missing"
        before = missing
        if signal.sigpending():  # this process was asked to end
            os.kill(os.getpid(), signal.SIGKILL)
        if found:
            over.wait(launch.rank / 10)  # the first one speaks, and is then missing, too
            with socket.socket(socket.AF_UNIX) as claim:
                try:  # on Linux a name that is this process's until it ends
                    claim.bind(f"\0dptrain start {launcher_processes()[-1:]}")
                    spoken = False
                except OSError as error:
                    spoken = error.errno == errno.EADDRINUSE
                if not spoken and missing_ranks(launch) == missing:
                    last_words(f"{found}. Start every rank with the same command")
                # until others have found the name taken: srun does not end them with this one
                over.wait(LOOK if spoken else 2 * LOOK + launch.size / 10)
                os.kill(os.getpid(), signal.SIGKILL)


def missing_ranks(launch: Launch) -> str | None:
    """Return which ranks that the launcher has started on this node are there no more, in words.

    None where all are there, or that can't be known.
    """
    import psutil

    for size, rank in LOCAL:
        with contextlib.suppress(psutil.Error, OSError, LookupError, ValueError, StopIteration):
            each = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ[size])
            nums = [int(here) for here, times in each for _ in range(int(times or 1))]
            num = nums[int(os.environ["SLURM_NODEID"]) if len(nums) > 1 else 0]
            launcher = next(p for p in psutil.Process().parents() if p.name() in LAUNCHERS)
            there = {
                int(process.environ()[rank])
                for process in launcher.children()
                if process.status() != psutil.STATUS_ZOMBIE
            }
            if num == launch.size:
                missing = sorted({*range(launch.size)} - there)
                return f"rank {', '.join(map(str, missing))}" if missing else None
            left = num - len(there)
            beside = ", ".join(map(str, sorted(there)))
            return f"a rank on {os.uname().nodename}, beside {beside}," if left > 0 else None
    return None
