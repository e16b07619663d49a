"""Files that only grow, by whole lines, whatever the disk or another process does meanwhile."""

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path

from dptrain.record.files import PIECE, TEXT, descriptor, flush, lock, replace_file, write_all


class Journal:
    """A file that grows by whole lines, written by one rank.

    What the disk refuses is kept in memory and tried again at the next `flush`, so that a disk that
    was full for a while leaves no gap. Raises OSError where the file can't be opened or cut.

    `path`: made if it does not exist. `lines`: how many whole lines to keep of those that are
    there; what follows them is cut off.
    """

    def __init__(self, path: Path, lines: int = 0) -> None:
        self.path = path
        self._file = descriptor(path, os.O_RDWR | os.O_CREAT)
        self.waiting = bytearray()
        """What is not in the file yet."""
        self._written = 0  # bytes of whole lines that are in the file
        self._size: int | None = 0  # of the file, as this left it
        self.num_lines = 0
        self.adopt(lines)

    def append(self, line: bytes) -> None:
        """Add a line, given without its end; `flush` writes it."""
        self.waiting += line + b"\n"
        self.num_lines += 1

    def flush(self) -> None:
        """Write what is waiting; OSError where that fails, with all of it still waiting.

        So it is where another process has cut the file or added to it: no line stands in a hole.
        """
        if not self.waiting:
            return
        self.check_size()
        try:
            os.lseek(self._file, self._written, os.SEEK_SET)
            write_all(self._file, self.waiting)
        except OSError:
            self._size = None  # who knows
            with contextlib.suppress(OSError):  # no half line where that can be helped
                os.ftruncate(self._file, self._written)
                self._size = self._written
            raise
        self._written += len(self.waiting)
        self._size = self._written
        self.waiting.clear()

    def check_size(self) -> None:
        """Raise OSError where another process has cut the file, or added to it."""
        size = os.fstat(self._file).st_size
        if self._size not in (None, size):
            why = f"another process has changed it, to {size} bytes from {self._size}"
            raise OSError(errno.EIO, why)

    def adopt(self, lines: int = sys.maxsize) -> None:
        """Go on behind the whole lines that are in the file, or the first of them."""
        number = written = 0
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            while number < lines and (line := file.readline(TEXT + 1)).endswith(b"\n"):
                number, written = number + 1, written + len(line)
        os.ftruncate(self._file, written)
        self._written = self._size = written
        self.num_lines = number + self.waiting.count(b"\n")

    def keep_name(self) -> bool:
        """Make sure that the name still leads to what has been written; return whether it did.

        A file that was removed is there for whom has it open: it is written once more under its
        name. OSError where that can't be, or another process has locked what is there.
        """
        self.check_size()
        with contextlib.suppress(FileNotFoundError):
            found = self.path.lstat()
            if os.path.samestat(found, os.fstat(self._file)):
                return True
            if stat.S_ISREG(found.st_mode):
                other = lock(self.path)
                if other is None:
                    raise OSError(errno.EBUSY, "another process writes to a file of this name")
                os.close(other)
        offsets = range(0, self._written, PIECE)
        replace_file(self.path, (os.pread(self._file, PIECE, offset) for offset in offsets))
        file = descriptor(self.path, os.O_RDWR)
        os.close(self._file)
        self._file = file
        self.check_size()
        return False

    def sync(self) -> None:
        """Make sure that what has been written is on disk; OSError where that fails."""
        flush(self._file)

    def close(self) -> None:
        """Close the file; what is still waiting is lost."""
        os.close(self._file)
