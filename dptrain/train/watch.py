"""What watches over a run beside it: signals, a launcher that is gone, ranks that fall silent.

Python hears of a signal only between its own instructions, and a rank that waits in MPI has none.
So a thread listens: for signals by the file descriptor that they are noted in, for the questions
of other ranks by UDP.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from enum import IntFlag
from pathlib import Path
from typing import NoReturn

from dptrain.world import World


class Ask(IntFlag):
    """What a rank can ask of all, as bits, so that many can ask at once."""

    SAVE = 1
    INTERRUPT = 2
    TERMINATE = 4
    LATER = 8

    @property
    def stop(self) -> str | None:
        """Why the run is to end, in a word; None where it isn't."""
        names = {Ask.INTERRUPT: "Ctrl-C", Ask.TERMINATE: "SIGTERM", Ask.LATER: "SIGUSR1"}
        return next((name for ask, name in names.items() if ask in self), None)


SIGNALS = {
    signal.SIGINT: Ask.INTERRUPT,
    signal.SIGTERM: Ask.TERMINATE,
    signal.SIGUSR1: Ask.LATER,
}

TICK = 1.0
"""Seconds between two looks at the launcher and at how long this rank has waited."""

GRACE = 5.0
"""Seconds for a run whose launcher is gone to save and end, and for ranks to answer."""

LAUNCHERS = {"mpiexec", "mpiexec.hydra", "mpirun", "hydra_pmi_proxy", "prterun", "prted", "orterun"}
LAUNCHERS |= {"orted", "slurmstepd"}
"""Names of processes that start and end ranks, as Linux knows them."""

LOOPBACK = "127.0.0.1"

SIOCGIFADDR = 0x8915
"""Asks Linux for the address of a network interface (netdevice(7))."""

EXCUSED = 2**62
"""What a rank answers that may be late."""

END = 0
"""What wakes the thread for the last time; no signal has this number."""


class Watch:
    """Notes what this rank is asked to do, and ends it where it would wait for ever.

    Collective: every rank must make one; `on_guard` starts its thread.

    Parameters
    ----------
    world
        The ranks.
    stall_timeout
        Seconds without progress on this rank until the ranks that it waits for are named, and
        the job is ended. Seconds in which the machine had this process suspended don't count.
    """

    def __init__(self, world: World, stall_timeout: float) -> None:
        self.asked = Ask(0)
        self._beats = 0
        self._excused = False
        self._heard: set[int] = set()
        self._rank = world.rank
        self._timeout = stall_timeout
        self._first_signal: float | None = None
        self._launcher = launcher_processes()
        self._launcher_gone: float | None = None
        self._one_node = len(world.nodes) == 1
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK if self._one_node else "", 0))
        where = [LOOPBACK] if self._one_node else addresses()
        port, host = self._socket.getsockname()[1], socket.gethostname()
        found = world.allgather((where, port, f"process {os.getpid()} on {host}", os.urandom(8)))
        self._key = found[0][3]  # of this run: no other run's question is answered
        self._peers = [[(address, port) for address in where] for where, port, *_ in found]
        self._names = [f"rank {rank} ({process})" for rank, (_, _, process, _) in enumerate(found)]

    def beat(self) -> Ask:
        """Say that this rank has done its part and waits for all; return what it is asked to do.

        Every rank calls it as often as every other, so that who is behind can be told.
        """
        self._beats += 1
        return self.asked

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """Let the others wait for this rank as long as it takes, such as for a slow disk."""
        self._excused = True
        yield
        self._excused = False

    @contextlib.contextmanager
    def on_guard(self) -> Iterator[None]:
        """Listen while the block runs. Python lets only its main thread take signals."""
        main = threading.current_thread() is threading.main_thread()
        noted, note = os.pipe()
        os.set_blocking(note, False)
        # first the place where signals are noted: one that comes between must not be lost
        wakeup = signal.set_wakeup_fd(note, warn_on_full_buffer=False) if main else -1
        before = {number: signal.signal(number, _note) for number in SIGNALS} if main else {}
        thread = threading.Thread(target=self._watch, args=(noted,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if main:
                signal.set_wakeup_fd(wakeup)
            os.write(note, bytes([END]))
            thread.join()
            for end in (noted, note):
                os.close(end)
            self._socket.close()

    def _watch(self, noted: int) -> None:
        """Answer signals and questions as they come, and look around at every tick."""
        tick, last, waited = time.monotonic(), -1, 0
        sources: list[int | socket.socket] = [noted, self._socket]
        self._ask()  # now all can answer: who does, can be missed later
        while True:
            ready, _, _ = select.select(sources, [], [], TICK)
            if noted in ready:
                numbers = os.read(noted, 64)
                if END in numbers:
                    return
                for number in numbers:
                    self._hear(number)
            if self._socket in ready:
                self._answer()
            if time.monotonic() - tick < TICK:
                continue
            tick = time.monotonic()
            waited = waited + 1 if self._beats == last else 0
            last = self._beats
            self._look_for_launcher()
            if waited * TICK >= self._timeout and len(self._peers) > 1:
                self._find_the_silent()
                waited = 0

    def _hear(self, number: int) -> None:
        """Note a signal; a second one, a second later or more, ends this process.

        Launchers pass one signal on to every rank, sometimes twice.
        """
        if number not in SIGNALS:
            return
        now = time.monotonic()
        if self._first_signal is not None and now - self._first_signal >= 1:
            self._end(128 + number, None)
        self._first_signal = self._first_signal or now
        self.asked |= SIGNALS[signal.Signals(number)]

    def _look_for_launcher(self) -> None:
        """End the run where the launcher has been killed: nobody else would end it."""
        if self._launcher_gone is None:
            if launcher_processes() != self._launcher:
                self._launcher_gone = time.monotonic()
                self.asked |= Ask.TERMINATE
        elif time.monotonic() - self._launcher_gone > GRACE:
            self._end(75, None)

    def _answer(self) -> dict[int, int]:
        """Answer a question of another rank, or take the answer to one of this rank's."""
        message, sender = self._socket.recvfrom(64)
        if message == self._key:
            with contextlib.suppress(OSError):
                answer = struct.pack("!qq", self._rank, EXCUSED if self._excused else self._beats)
                self._socket.sendto(self._key + answer, sender)
        elif message.startswith(self._key) and len(message) == 24:
            rank, beats = struct.unpack("!qq", message[8:])
            self._heard.add(rank)
            return {rank: beats}
        return {}

    def _ask(self) -> None:
        """Ask every rank how far it is."""
        for addresses_of_rank in self._peers:
            for address in addresses_of_rank:
                with contextlib.suppress(OSError):
                    self._socket.sendto(self._key, address)

    def _find_the_silent(self) -> None:
        """End the job where a rank that once answered does not, or is behind the others."""
        self._ask()
        answers = {self._rank: self._beats}
        deadline = time.monotonic() + GRACE
        while len(answers) < len(self._peers) and time.monotonic() < deadline:
            if select.select([self._socket], [], [], TICK)[0]:
                answers |= self._answer()
        missing = self._heard - answers.keys()  # one never heard may sit behind a firewall
        silent = [self._names[rank] for rank in sorted(missing)]
        ahead = max(beats for beats in answers.values() if beats < EXCUSED)
        behind = [self._names[rank] for rank, beats in sorted(answers.items()) if beats < ahead]
        if not (silent or behind) or self._beats < ahead or EXCUSED in answers.values():
            return
        if self._rank > min(rank for rank, beats in answers.items() if beats == ahead):
            time.sleep(3 * GRACE)  # another rank says it, which ends this one too
        found = [f"{', '.join(silent)}: no answer"] if silent else []
        found += [f"{', '.join(behind)}: not at the point where the others wait"] if behind else []
        self._end(
            1,
            f"no progress for {self._timeout:g} s. {'; '.join(found)}. The run ends here; "
            "dptrain train --resume goes on from the last checkpoint",
        )

    def _end(self, status: int, message: str | None) -> NoReturn:
        """End this process, and so the job, without waiting for the main thread."""
        if sys.stderr.isatty():
            message = (message or "") + "\x1b[?25h"  # the cursor, which the progress bar hides
        if message:
            with contextlib.suppress(OSError):  # the launcher that would show it may be gone
                print(f"dptrain: {message}", file=sys.stderr, flush=True)
        os._exit(status)


def _note(*_: object) -> None:
    """Do nothing: that there is a handler makes Python note the signal for the thread."""


def launcher_processes() -> list[int]:
    """Return the processes between this one and the launcher that started it, the launcher last.

    Nothing where no process above this one is known to be a launcher.
    """
    found: list[int] = []
    known, process = 0, os.getpid()
    with contextlib.suppress(OSError, ValueError):
        while True:
            text = Path(f"/proc/{process}/stat").read_text()
            name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 1 :]
            if name in LAUNCHERS:
                known = len(found)
            found.append(process)
            process = int(rest.split()[1])
    return found[1 : known + 1]


def addresses() -> list[str]:
    """Return this host's IPv4 addresses, but for its own loopback."""
    import fcntl

    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(any_socket, SIOCGIFADDR, request)
                found.append(socket.inet_ntoa(answer[20:24]))
    return [address for address in found if not address.startswith("127.")] or [LOOPBACK]
