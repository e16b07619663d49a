"""Standard output and error, whatever they are connected to: printing never ends any work."""

import io
import select
import sys
from typing import Any, cast

from dptrain.status import UNWRITTEN
from dptrain.streams import open_streams


class Stream(io.FileIO):
    """A standard stream that takes all it is given: what can't be written is noted and dropped."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes; return how many."""
        done: int | None = len(data)
        try:
            while self.fault is None and (done := cast(int | None, super().write(data))) is None:
                select.select([], [self], [])  # somebody has set it not to wait
        except OSError as error:
            self.fault, done = error, len(data)
        return done or 0


def take_over() -> Stream:
    """Put such streams in the places of `sys.stdout` and `sys.stderr`; return the first."""
    open_streams()
    output, error = Stream(1, "w", closefd=False), Stream(2, "w", closefd=False)
    for name, stream in (("stdout", output), ("stderr", error)):
        old = getattr(sys, name)
        # a name that the encoding has not is still to be seen
        errors = "backslashreplace" if old.errors == "strict" else old.errors
        buffer = io.BufferedWriter(stream)
        setattr(sys, name, io.TextIOWrapper(buffer, old.encoding, errors, line_buffering=True))
    return output


def final_status(status: int, output: Stream) -> int:
    """Return what to exit with, and say where what was asked for could not be written.

    Who reads only the beginning, such as `head`, has got what it wanted.
    """
    sys.stdout.flush()
    if output.fault is None or isinstance(output.fault, BrokenPipeError):
        return status
    print(f"dptrain: standard output can't be written: {output.fault.strerror}", file=sys.stderr)
    return status or UNWRITTEN
