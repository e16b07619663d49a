"""Starts a run's ranks by a launcher, and where they die starts them again, until the run is done.

Every further start goes on from the run's last checkpoint, on any number of ranks, with the bytes
of the run that never died. No MPI is started here: what a fault of it could end is the job only.
"""

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from dptrain import status as ends
from dptrain.record import checkpoint, rundir
from dptrain.reduce.memory import left_behind
from dptrain.words import InputError, counted

FINAL = {
    ends.DONE: "done",
    ends.MISTAKE: "a mistake to mend, said above",
    ends.UNWRITTEN: "something could not be written: make room, then start again",
    ends.SAVED: "saved, to go on later",
    ends.CTRL_C: "Ctrl-C",
}
"""Statuses of dptrain after which nothing is started again, and what they mean."""

FAULTS = {
    ends.FAILED: "an error in a rank, or silent ranks",
    ends.DRIFTED: "copies of the parameters differ",
}
"""Statuses of dptrain after which it is started again; others are of signals."""

LONGEST_PAUSE = 300.0
GRACE = 10.0
"""Seconds for ranks whose launcher is gone to save and end by themselves."""

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Supervision:
    """What is started, how often, and on how many ranks.

    `run`: the run's directory, which tells how far the run is. `train`: what `dptrain train` is
    given. `launcher`: what starts ranks, given `-n` and how many. `ranks`: of the first, the second
    and so on start; of all further ones the last. `restarts`: give up after so many in a row that
    saved no new checkpoint. `pause`: seconds before a restart; doubled from one to the next until a
    start has saved more.
    """

    run: Path
    train: Sequence[str]
    launcher: Sequence[str]
    ranks: Sequence[int]
    restarts: int
    pause: float

    @property
    def saved(self) -> int:
        """Steps that the last checkpoint has; 0 where there is none."""
        with contextlib.suppress(InputError):  # dptrain train says what is wrong with them
            return max(checkpoint.steps_of(self.run), default=0)
        return 0

    @property
    def ended(self) -> int:
        """When the run came to its end for the last time, in nanoseconds; 0 for never."""
        with contextlib.suppress(OSError):
            return (self.run / rundir.SUMMARY).stat().st_ctime_ns
        return 0

    def command(self, ranks: int) -> list[str]:
        """Return the command line that starts the run, or has it go on, on so many ranks."""
        return [*self.launcher, "-n", str(ranks), "dptrain", "train", *self.train]


class Job:
    """The launcher and all that it starts. One at a time, each ended in full before the next."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        """The first signal that asked for the end."""
        self._at = self._begun = 0.0
        self._child: subprocess.Popen[bytes] | None = None
        if sys.platform == "linux":  # who loses its parent becomes a child of this process
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _: FrameType | None) -> None:
        """Have the job save and end; at a second signal, a second later or more, end it at once."""
        if self.asked is None:
            self.asked, self._at = signal.Signals(number), time.monotonic()
            say(f"{self.asked.name}: the run is to save and end")
            self._ask()
        elif time.monotonic() - self._at >= 1 and self._child:
            self._child.kill()

    def _ask(self) -> None:
        """Hand the signal on as SIGUSR1: the one that every launcher passes on to its ranks."""
        if self._child:
            time.sleep(max(0.0, self._begun + DEAF - time.monotonic()))
            self._child.send_signal(signal.SIGUSR1)

    def run(self, command: Sequence[str]) -> int:
        """Run a command to its end and return its status; nothing of it is left then."""
        # A session of its own: a terminal's Ctrl-C reaches this process only.
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
            self._begun = time.monotonic()
        except OSError as error:
            raise InputError(f"{command[0]} can't be started: {error.strerror}") from None
        if self.asked:  # while it was being started
            self._ask()
        status = self._child.wait()
        self._child = None
        _end_descendants(GRACE)
        return status if status >= 0 else 128 - status

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until a signal comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.asked:
            time.sleep(0.1)


DEAF = 0.5
"""Seconds in which a launcher may lose a signal, as it has yet to start what it would pass it to.
Measured: MPICH's mpirun lost 119 of 150 that came in its first 0.02 s."""


def supervise(what: Supervision) -> int:
    """Start, and start again where that helps; return the exit status.

    Raises InputError where the launcher or dptrain is not there to be started.
    """
    for program in (what.launcher[0], "dptrain"):
        if shutil.which(program) is None:
            raise InputError(f"{program} is not in PATH: load its module or its environment")
    job, first = Job(), what.saved
    deaths = tries = 0
    while True:
        tidy_up()
        ranks = what.ranks[min(deaths, len(what.ranks) - 1)]
        say(shlex.join(what.command(ranks)))
        before, ended, start = what.saved, what.ended, time.monotonic()
        status = job.run(what.command(ranks))
        took = time.monotonic() - start
        # as where a rank leaves, for some launchers
        if status == ends.DONE and what.ended == ended:
            say("status 0, but the run has not come to its end")
            status = ends.FAILED
        end = f"{meaning(status)} on {counted(ranks, 'rank')} after {took:.1f} s"
        end = f"{end}, {what.saved} steps saved"
        if job.asked or status in FINAL:
            say(f"ended: {end}")
            break
        deaths += rundir.holds_run(what.run)  # else it begins on the ranks it was meant for
        tries = 0 if what.saved > before else tries
        if tries >= what.restarts:
            say(f"gave up: {end}; {tries} restarts in a row saved no more")
            break
        pause = min(what.pause * 2 ** min(tries, 20), LONGEST_PAUSE)
        tries += 1
        say(f"died: {end}; restart {tries} of {what.restarts} in {pause:g} s")
        job.pause(pause)
        if job.asked:
            break
    return exit_status(status, job.asked, saved=what.saved > first)


def exit_status(status: int, asked: signal.Signals | None, *, saved: bool) -> int:
    """Return what to exit with: once asked to end, what says so, however the ranks took it.

    75 has a job queued again, so it is for a run that has saved something.
    """
    if asked is None or status in (ends.DONE, ends.MISTAKE, ends.UNWRITTEN):
        return status
    if asked == signal.SIGINT:
        return ends.CTRL_C
    return ends.SAVED if saved or status == ends.SAVED else 128 + asked


def meaning(status: int) -> str:
    """Return a status in words; launchers report a signal as its number or as 128 more."""
    known = FINAL.get(status) or FAULTS.get(status)
    if known is None:
        with contextlib.suppress(ValueError):
            known = signal.Signals(status - 128 * (status > 128)).name
    return f"status {status}" + (f" ({known})" if known else "")


def _end_with_parent() -> None:
    """Have this process, about to become the launcher, asked to save where supervise is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)


def _end_descendants(grace: float) -> None:
    """Wait for what the launcher left behind, and end what takes too long.

    Ranks are in sessions of their own, so that no process group holds them all.
    """
    deadline = time.monotonic() + grace
    while left := psutil.Process().children(recursive=True):
        if time.monotonic() > deadline:
            names = ", ".join(f"process {process.pid}" for process in left)
            say(f"ending what was left behind: {names}")
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def tidy_up() -> None:
    """Remove what killed ranks have left in the memory that all share."""
    left = left_behind()
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()
    if left:
        names = ", ".join(path.name for path in left)
        say(f"removed what ranks that were killed had left in {left[0].parent}: {names}")


def say(text: str) -> None:
    """Print one line about an event; that nobody reads any more is no reason to lose a run."""
    with contextlib.suppress(OSError):
        print(f"supervise: {text}", file=sys.stderr, flush=True)
