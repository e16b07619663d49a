"""Files that only grow, by whole lines, whatever the disk or another process does meanwhile."""

import contextlib
import errno
import os
import stat
from pathlib import Path

from dptrain.record.files import PIECE, TEXT, descriptor, flush, lock, replace_file, write_all


class Journal:
    """A file that grows by whole lines, written by one rank.

    What the disk refuses is kept in memory and tried again at the next `flush`, so that a disk that
    was full for a while leaves no gap. Raises OSError where the file can't be opened or cut.

    `path`: made if it does not exist. `lines`: how many lines to keep of those that are there; what
    follows them is cut off.
    """

    def __init__(self, path: Path, lines: int = 0) -> None:
        self.path = path
        self.num_lines = lines
        self._file = descriptor(path, os.O_RDWR | os.O_CREAT)
        self._written = 0  # bytes of whole lines that are in the file
        self.waiting = bytearray()
        """What is not in the file yet."""
        with open(self._file, "rb", closefd=False) as file:
            for _ in range(lines):
                self._written += len(file.readline(TEXT + 1))
        os.ftruncate(self._file, self._written)
        self._size: int | None = self._written  # of the file, as this left it

    def append(self, line: bytes) -> None:
        """Add a line, given without its end; `flush` writes it."""
        self.waiting += line + b"\n"
        self.num_lines += 1

    def start(self) -> bytes:
        """Return the first hundred bytes, or as many as there are."""
        return os.pread(self._file, 100, 0)

    def replace(self, line: bytes) -> None:
        """Put a line, given without its end, in the place of the only one; it can't be shorter."""
        self._written, self.waiting = 0, bytearray(line + b"\n")
        self._size = None  # whoever cut it: this line is all of it

    def flush(self) -> None:
        """Write what is waiting; OSError where that fails, with all of it still waiting.

        So it is where another process has cut the file or added to it: no line stands in a hole.
        """
        if not self.waiting:
            return
        self.check_size()
        try:
            end = self._written + len(self.waiting)
            if end < os.fstat(self._file).st_size:  # in the place of a longer line
                os.ftruncate(self._file, end)
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

    def adopt(self) -> None:
        """Go on behind the whole lines that another process has left of the file."""
        self.num_lines, self._written = self.waiting.count(b"\n"), 0
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            while line := file.readline(TEXT + 1):
                if line.endswith(b"\n"):
                    self.num_lines, self._written = self.num_lines + 1, self._written + len(line)
        os.ftruncate(self._file, self._written)
        self._size = self._written

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
