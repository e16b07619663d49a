"""The BLAS threads of the process: the library knows one number, and it decides the last bits."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from dptrain.version import libraries
from dptrain.words import InputError


class Holders:
    """The calls of this process that compute with one number of threads at the moment."""

    def __init__(self) -> None:
        self.door = threading.Lock()
        """Held by who waits for another number: nobody else comes in, so the wait ends."""
        self.left = threading.Condition()
        self.calls: list[tuple[int, bool]] = []
        """Their thread's identity, and whether they are brief."""
        self.number = 0
        self.libraries: list[Any] = []
        self.before: list[int] = []
        """The libraries' numbers before the first of these calls."""

    def enter(self, number: int, call: tuple[int, bool]) -> list[int]:
        """Set the number for one more call, once the calls with another one have left.

        Returns what the libraries had.
        """
        with self.left:
            while self.calls and self.number != number:
                if any(thread == call[0] or not brief for thread, brief in self.calls):
                    raise InputError(
                        f"threads is {number}, and another call of this process, which is not "
                        f"over, computes with {self.number} BLAS threads: a process has one number "
                        "at a time. Give both the same, or make one call after the other"
                    )
                self.left.wait()
            if not self.calls:
                self.libraries = libraries()
            found = [library.get_num_threads() for library in self.libraries]
            if not self.calls:
                self.number, self.before = number, found
            _set(self.libraries, [number] * len(found))
            self.calls.append(call)
            return found

    def leave(self, call: tuple[int, bool], found: list[int]) -> None:
        """Let a call go; after the last one the number is what it was before the first."""
        with self.left:
            self.calls.remove(call)
            if not self.calls:
                _set(self.libraries, self.before)
            for library, number in zip(self.libraries, found, strict=True):
                if getattr(library, "threading_layer", None) == "openmp":  # of each thread alone
                    _set([library], [number])
            self.left.notify_all()


def _set(libraries: Sequence[Any], numbers: Sequence[int]) -> None:
    for library, number in zip(libraries, numbers, strict=True):
        # threadpoolctl may let one thread set it, and silently do nothing for the others
        free = getattr(library, "clear_controlling_thread", lambda **_: None)
        free(force=True)
        library.set_num_threads(number)
        free(force=True)


HOLDERS = Holders()
os.register_at_fork(after_in_child=HOLDERS.__init__)  # type: ignore[misc]


@contextlib.contextmanager
def blas_threads(number: int, *, brief: bool = False) -> Iterator[None]:
    """Compute with so many BLAS threads while the block runs.

    Calls from several threads that want the same number run at once. One that wants another number
    waits for `brief` ones, such as predictions. Raises InputError where a call that is not brief,
    or one of this very thread, computes with another number.
    """
    call = threading.get_ident(), brief
    inside = any(thread == call[0] for thread, _ in HOLDERS.calls)
    with contextlib.nullcontext() if inside else HOLDERS.door:
        found = HOLDERS.enter(number, call)
    try:
        yield
    finally:
        HOLDERS.leave(call, found)


def threads_here() -> int:
    """Return the number that calls of this process compute with; 1 where there are none."""
    return HOLDERS.number if HOLDERS.calls else 1
