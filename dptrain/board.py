"""What the ranks of a node are doing, in memory that they share: each writes its line, all read.

A collective call has a number, the same on every rank as long as all make the same calls. So it can
be told who waits for whom, without asking anyone.
"""

import os
import socket
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class State(IntEnum):
    """Where a rank is."""

    OUTSIDE = 0
    """In no collective call; nobody knows when it comes to the next."""
    INSIDE = 1
    EXCUSED = 2
    """Inside, and may be late, such as for a slow disk."""
    ENDED = 3
    """On its way out: it makes no further call."""


class Line(NamedTuple):
    """What a rank does: the number of its collective call, and where that stands in the program."""

    rank: int
    process: int
    host: str
    number: int
    beats: int
    """Steps within the call."""
    site: int
    state: State
    alive: int
    """Changes at every tick of the rank's guard."""
    doing: str
    """The call in words."""

    @property
    def done(self) -> tuple[int, int]:
        """How far the rank is."""
        return self.number, self.beats

    @property
    def name(self) -> str:
        """Who it is."""
        return f"rank {self.rank} (process {self.process} on {self.host})"

    def __str__(self) -> str:
        if self.state == State.ENDED:
            return f"rank {self.rank} has ended"
        return f"rank {self.rank} is in {self.doing if self.state else 'no call of dptrain'}"


LENGTH = 256
"""Bytes of a rank's line: seven numbers and a text."""

NUMBER, BEATS, SITE, STATE, ALIVE, PROCESS, CLAIM = range(7)
TEXT = slice(56, LENGTH)


class Board:
    """The lines of the ranks of a node.

    `memory`: LENGTH bytes for each of them, zeros at first. `ranks`: their numbers in the world.
    `rank`: this one's.
    """

    def __init__(self, memory: memoryview, ranks: range, rank: int) -> None:
        self.ranks, self.rank = ranks, rank
        starts = range(0, LENGTH * len(ranks), LENGTH)
        self._lines = [memory[start : start + LENGTH] for start in starts]
        self._text = self._lines[rank - ranks.start][TEXT]
        self._mine = self._lines[rank - ranks.start].cast("q")
        self._mine[PROCESS] = os.getpid()
        self._host = socket.gethostname()

    def set(self, state: State, doing: str | None = None) -> None:
        """Note where this rank is, and perhaps in which call."""
        if doing is not None:
            self._text[:] = doing.encode(errors="replace")[: len(self._text)].ljust(len(self._text))
        self._mine[STATE] = state

    def arrive(self, site: int) -> int:
        """Note that this rank waits for all at a place of the program; return the call's number."""
        self._mine[SITE] = site
        self._mine[NUMBER] += 1
        return self._mine[NUMBER]

    def beat(self) -> None:
        """Note that this rank has done a step, and waits for all."""
        self._mine[BEATS] += 1

    def tick(self) -> None:
        """Note that this rank's guard is awake."""
        self._mine[ALIVE] += 1

    @property
    def line(self) -> Line:
        """What this rank is doing."""
        return self._line(self.rank)

    def lines(self) -> list[Line]:
        """Return what every rank of the node is doing."""
        return [self._line(rank) for rank in self.ranks]

    def _line(self, rank: int) -> Line:
        memory = self._lines[rank - self.ranks.start]
        number, beats, site, state, alive, process = memory.cast("q")[:CLAIM].tolist()
        doing = bytes(memory[TEXT]).rstrip(b" \0").decode(errors="replace")
        return Line(rank, process, self._host, number, beats, site, State(state), alive, doing)

    def claim(self, wait: float) -> bool:
        """Return whether it is this rank that says why all end; else another one does, in a moment.

        Of those of the node that have found a reason meanwhile it is the first.
        """
        self._mine[CLAIM] = 1
        time.sleep(wait)
        return self._claims.index(1) == self.rank - self.ranks.start

    @property
    def over(self) -> bool:
        """Whether a rank of the node ends the job."""
        return 1 in self._claims

    @property
    def _claims(self) -> list[int]:
        return [memory.cast("q")[CLAIM] for memory in self._lines]


def steady(before: Sequence[Line], now: Sequence[Line]) -> list[Line]:
    """Return the lines of ranks that wait in a call, and have not moved from one look to the next.

    One that is excused does not wait.
    """
    old = {line.rank: (line.state, line.done, line.site) for line in before}
    return [
        line
        for line in now
        if line.state == State.INSIDE and old.get(line.rank) == (line.state, line.done, line.site)
    ]


def never(before: Sequence[Line], now: Sequence[Line], rank: int) -> str | None:
    """Return why a rank would wait for ever, from two looks at the board; None if it may go on.

    So it is where another rank has ended, or waits in another call that has the same number.
    """
    waiting = steady(before, now)
    mine = next((line for line in waiting if line.rank == rank), None)
    if mine is None:
        return None
    gone = [line for line in now if line.state == State.ENDED and line.number < mine.number]
    if gone:
        return ", ".join(map(str, (mine, *gone)))
    others = [line for line in waiting if line.number == mine.number and line.site != mine.site]
    return f"{', '.join(map(str, (mine, *others)))}: {ALL_THE_SAME}" if others else None


ALL_THE_SAME = "every rank must make the same calls, in the same order"


def apart(calls: Sequence[str]) -> str:
    """Return which ranks make another call than most, given each one's, however long."""
    usual = max(calls, key=calls.count)
    told = [f"rank {rank} is in {call}" for rank, call in enumerate(calls) if call != usual]
    rest = f"rank {calls.index(usual)} and all others are in {usual}"
    return f"{', '.join([*some(told), rest])}: {ALL_THE_SAME}"


def some(told: list[str]) -> list[str]:
    """Return the first of what is told of ranks, and of how many more it could be."""
    return told[:8] + [f"{len(told) - 8} more ranks likewise"] * (len(told) > 8)


def late(before: Sequence[Line], now: Sequence[Line], rank: int) -> str | None:
    """Return which ranks a rank waits for, from two looks at the board some seconds apart.

    None where there are none, or where one that is awake is excused, or waits further on. One that
    gives no answer is at fault wherever it is: excused, or in the midst of a barrier.
    """
    mine = next(line for line in now if line.rank == rank)
    alive = {line.rank: line.alive for line in before}
    there = [line for line in now if line.state != State.ENDED]
    asleep = [line for line in there if alive.get(line.rank) == line.alive]
    awake = [line for line in now if line not in asleep]
    if any(line.state == State.EXCUSED or line.done > mine.done for line in awake):
        return None
    found = [f"{line.name}: no answer" for line in asleep]
    for line in (line for line in awake if line.done < mine.done):
        where = str(line).split(" ", 2)[2]
        found.append(f"{line.name}: {where}, not at the point where the others wait")
    return "; ".join(some(found)) or None
