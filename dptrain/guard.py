"""The thread that watches over a process beside its work: signals, the launcher, the other ranks.

Python hears of a signal only between its own instructions, and a rank that waits in MPI has none.
So a thread listens, by the file descriptor that signals are noted in, and looks around at every
tick: whether the launcher is there, and whether this rank waits for one that never comes. What it
finds ends the process, and so the job, with the reason once.
"""

import atexit
import contextlib
import math
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from enum import IntFlag
from typing import NoReturn

from dptrain.board import Board, Line, State, late, never, steady
from dptrain.launch import announced, launcher_processes
from dptrain.machine import exists
from dptrain.neighbour import Neighbour
from dptrain.streams import last_words


class Ask(IntFlag):
    """What a rank can ask of all, as bits, so that many can ask at once."""

    SAVE = 1
    SIGINT = 2
    SIGTERM = 4
    SIGHUP = 8
    SIGUSR1 = 16
    SIGUSR2 = 32
    SIGXCPU = 64

    @property
    def stop(self) -> str | None:
        """Why the run is to end, in a word; None where it isn't."""
        return next((STOPS[ask] for ask in STOPS if ask in self), None)


CTRL_C = "Ctrl-C"

STOPS = {ask: CTRL_C if ask == Ask.SIGINT else str(ask.name) for ask in Ask if ask != Ask.SAVE}
"""What a run is told to be stopped by."""

SIGNALS = {int(signal.Signals[str(ask.name)]): ask for ask in STOPS}
"""The signals that have a run saved and ended."""

URGENT = {signal.SIGINT, signal.SIGTERM}
"""Those of which one more, a second later or more, ends a run at once. The system itself repeats
SIGXCPU."""

TICK = 1.0
"""Seconds between two looks around."""

GRACE = 5.0
"""Seconds for a run whose launcher is gone to save and end, and for nodes to answer."""

STALL = 600.0
"""Seconds without progress until ranks are named and the job ends, where no run says otherwise."""


class Watched:
    """A board that is looked at, and what it was like at the last look."""

    def __init__(self, board: Board, neighbour: Neighbour | None) -> None:
        self.board = board
        self.neighbour = neighbour
        """The way to other nodes, where there are some; a node's first rank uses it."""
        self._before: list[Line] = []
        self._stalled: list[Line] = []
        self._waited = self._over = 0

    def look(self, stall_timeout: float) -> None:
        """End the job where this rank waits for one that never comes."""
        board, neighbour = self.board, self.neighbour
        board.tick()
        if board.over or (neighbour is not None and neighbour.over):
            self._over += 1
            if self._over > 2:  # the launcher has forgotten this rank
                end(1)
        now = board.lines()
        if neighbour is not None:
            neighbour.tick(now)
            now += neighbour.ended.values()
        found = never(self._before, now, board.rank)
        if found:
            self._end(found)
        waits = any(line.rank == board.rank for line in steady(self._before, now))
        self._before, self._waited = now, self._waited + 1 if waits else 0
        first, last = math.ceil(stall_timeout / TICK), math.ceil((stall_timeout + GRACE) / TICK)
        if self._waited == first:
            self._stalled = now
            if neighbour is not None:
                neighbour.ask()
        elif self._waited == last:
            self._waited = 0
            found = self._late(now)
            if found:
                self._end(f"no progress for {stall_timeout:g} s. {found}")

    def _late(self, now: list[Line]) -> str | None:
        """Return which ranks of this node, or of the next one, this rank waits for."""
        if self.neighbour is not None and self.board.rank == self.board.ranks.start:
            beyond = self.neighbour.answer
            if beyond is None:
                return f"{self.neighbour.name}: no answer"
            now = now + beyond
        return late(self._stalled, now, self.board.rank)

    def _end(self, message: str) -> NoReturn:
        if not self.board.claim(0.1 if self.board.ranks.start == 0 else 1.2 * TICK):
            time.sleep(3 * GRACE)  # another rank says it, which ends this one too
        if self.neighbour is not None:
            self.neighbour.tick([])
            if self.neighbour.over:  # another node has said it meanwhile
                end(1)
            self.neighbour.end_all()
        end(1, f"{message}. The job ends here; dptrain train --resume goes on with a saved run")


class Guard:
    """The thread, one a process, and what it looks at."""

    def __init__(self) -> None:
        self.asked = Ask(0)
        """What this rank has been asked to do since its run began."""
        self._stall_timeout = STALL
        self._watched: list[Watched] = []
        self._num_runs = 0
        self._first_urgent: float | None = None
        self._launchers: list[int] = []
        """The processes whose end is this one's: its parent, until those above are looked for."""
        self._traced = False
        self._launcher_gone: float | None = None
        self._lock = threading.Lock()
        self._note: int | None = None

    def begin_anew(self) -> None:
        """Be a forked child's, which has no thread of its parent's and hears signals for itself."""
        for number in SIGNALS:
            if signal.getsignal(number) is _heard:
                signal.set_wakeup_fd(-1)
                signal.signal(number, signal.SIG_DFL)
        self.__init__()  # type: ignore[misc]

    def watch(self, board: Board, neighbour: Neighbour | None) -> None:
        """Look at a board at every tick from now on, and note there when this process ends."""
        with self._lock:
            self._watched.append(Watched(board, neighbour))
        self._start()

    def leave(self) -> None:
        """Say that this rank makes no further call."""
        for watched in self._watched:
            watched.board.set(State.ENDED)
            if watched.neighbour is not None:
                watched.neighbour.say_ended(watched.board.line)

    def forget(self, board: Board) -> None:
        """Look at a board no more, as its memory is given back."""
        with self._lock:
            for watched in [watched for watched in self._watched if watched.board is board]:
                self._watched.remove(watched)
                if watched.neighbour is not None:
                    watched.neighbour.close()

    def _start(self) -> int:
        """Start the thread, unless it runs; return where signals are to be noted for it."""
        with self._lock:
            if self._note is None:
                self._launchers = [os.getppid()] if announced() else []
                noted, self._note = os.pipe()
                os.set_blocking(self._note, False)
                threading.Thread(target=self._guard, args=(noted,), daemon=True).start()
                atexit.register(self.leave)
            return self._note

    @contextlib.contextmanager
    def hearing(self, stall_timeout: float) -> Iterator[None]:
        """Take the signals that end a run, while the block runs; those that are ignored stay so.

        Python lets only its main thread take signals: a run in another one hears them where that
        has a run as well.

        `stall_timeout`: seconds without progress until the ranks at fault are named. Those in which
        the machine had this process suspended don't count.
        """
        note = self._start()
        with self._lock:
            if self._num_runs == 0:
                self.asked, self._first_urgent, self._stall_timeout = Ask(0), None, stall_timeout
            self._num_runs += 1
        before = {}
        if threading.current_thread() is threading.main_thread():
            # first the place where signals are noted: one that comes between must not be lost
            wakeup = signal.set_wakeup_fd(note, warn_on_full_buffer=False)
            taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            before = {number: signal.signal(number, _heard) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():  # None stands for one that is not Python's
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            if before:
                signal.set_wakeup_fd(wakeup)
            with self._lock:
                self._num_runs = max(0, self._num_runs - 1)  # 0 in a child that was forked within
                if self._num_runs == 0:
                    self._stall_timeout = STALL

    def _guard(self, noted: int) -> None:
        """Watch; where that fails end the process, as nobody would hear a signal any more."""
        try:
            self._look(noted)
        except BaseException:
            end(1, f"what watches over process {os.getpid()} failed:\n{traceback.format_exc()}")

    def _look(self, noted: int) -> None:
        tick = time.monotonic()
        selector = selectors.DefaultSelector()  # select() can't take descriptors above 1023
        selector.register(noted, selectors.EVENT_READ)
        while True:
            if selector.select(TICK):
                for number in os.read(noted, 64):
                    self._hear(number)
            if time.monotonic() - tick < TICK:
                continue
            tick = time.monotonic()
            self._look_for_launcher()
            with self._lock:
                for watched in self._watched:
                    watched.look(self._stall_timeout)

    def _hear(self, number: int) -> None:
        """Note a signal; one more urgent one ends this process.

        Launchers pass one signal on to every rank, sometimes twice.
        """
        if number not in SIGNALS:
            return
        if number in URGENT:
            if self.once_more() and not (number == signal.SIGINT and hasattr(sys, "ps1")):
                end(128 + number)
            self._first_urgent = self._first_urgent or time.monotonic()
        self.asked |= SIGNALS[number]

    def once_more(self) -> bool:
        """Return whether an urgent signal came to this run at least a second ago."""
        return self._first_urgent is not None and time.monotonic() - self._first_urgent >= 1

    def _look_for_launcher(self) -> None:
        """End the process where the launcher has been killed: nobody else would.

        A run may save first.
        """
        if self._launchers and not self._traced and os.getppid() == self._launchers[0]:
            self._launchers, self._traced = launcher_processes(), True  # here, as it takes a while
        if not self._launchers:
            return
        if self._launcher_gone is None:
            if os.getppid() == self._launchers[0] and all(map(exists, self._launchers)):
                return
            self._launcher_gone = time.monotonic()
            self.asked |= Ask.SIGTERM
        if not self._num_runs:
            end(128 + signal.SIGTERM, "the launcher is gone")
        if time.monotonic() - self._launcher_gone > GRACE:
            end(75)


GUARD = Guard()
"""Signals and launchers are a process's, and so is this."""
os.register_at_fork(after_in_child=GUARD.begin_anew)


def _heard(number: int, _: object) -> None:
    """Do nothing: that there is a handler makes Python note the signal for the thread.

    But at Python's prompt, whose session must not end, Ctrl-C once more interrupts what runs.
    """
    if number == signal.SIGINT and hasattr(sys, "ps1") and GUARD.once_more():
        raise KeyboardInterrupt


def end(status: int, message: str | None = None) -> NoReturn:
    """End this process, and so the job, without waiting for the main thread."""
    last_words(message or "")
    os._exit(status)
