"""What people are told on standard error, whatever that is, and where results go."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from dptrain.words import shown

KEPT: list[TextIO] = []
"""Standard output, while a command line has it for its results."""


@contextlib.contextmanager
def kept_output() -> Iterator[None]:
    """Keep standard output for a command's results, whatever a model's file does to it."""
    KEPT.append(sys.stdout)
    try:
        yield
    finally:
        sys.stdout = KEPT.pop()


def give_way() -> None:
    """Have what is printed from now on, as by a model's file, stand apart from kept results."""
    if KEPT:
        sys.stdout = sys.stderr


def output() -> TextIO:
    """Return where results go."""
    return KEPT[-1] if KEPT else sys.stdout


def is_terminal() -> bool:
    """Return whether somebody watches standard error; nobody does where it is closed, or None."""
    with contextlib.suppress(Exception):  # it may be anything that somebody put there
        return sys.stderr.isatty()
    return False


def put(line: str) -> None:
    """Print a line on standard error; that nobody can read it is no reason to end a run."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def tell(text: str) -> None:
    """Print a line for people."""
    line = f"dptrain: {text}"
    if is_terminal():  # elsewhere lines stay whole, to be searched
        import shutil
        import textwrap

        width = shutil.get_terminal_size().columns
        line = textwrap.fill(
            line, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
        )
    put(line)


def warn(text: str) -> None:
    """Print what went wrong though the run goes on, perhaps in a stranger's words."""
    tell(f"warning: {shown(text)}")


def last_words(message: str) -> None:
    """Write why this process ends, past Python's own streams: another thread may be at these."""
    text = f"dptrain: {message}\n" if message else ""
    with contextlib.suppress(Exception):
        if os.isatty(2):
            text += "\x1b[?25h"  # the cursor, which the progress bar hides
        os.write(2, text.encode(errors="backslashreplace"))


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
