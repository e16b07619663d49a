"""All that dptrain writes goes through here: files whole or absent, and files that only grow."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dptrain.config import InputError

OWN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
"""How a run's own files are opened to be written: a link to another file is refused."""

PIECE = 2**20
"""Bytes that are written, or read and hashed, at a time."""


def replace_file(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file so that at any instant, a power cut included, it is there in full or as before.

    Raises OSError where that fails, and leaves nothing behind. There can be one writer only. What
    stands in the place of the temporary file, perhaps a stranger's link, is removed, not followed.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for piece in pieces:
                _write(file, piece)
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, path)  # noqa: PTH105 (beside the other calls that tests make fail)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_object(text: bytes | str) -> dict[str, Any]:
    """Return the JSON object that a text is; ValueError where it is none."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it is {type(found).__name__}, and no object")
    return found


def write_whole(path: Path, *pieces: bytes | memoryview) -> None:
    """Write a file that a person asked for: see `replace_file`; InputError where that fails."""
    try:
        replace_file(path, pieces)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None


def sync_directory(path: Path) -> None:
    """Make sure that the names in a directory are on disk."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(file: int, content: bytes | memoryview) -> None:
    """Write all of it: a nearly full disk, or a signal, may take only some at a time."""
    with memoryview(content).cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(file, rest[done : done + PIECE])


def lock(path: Path) -> int | None:
    """Return an open file that holds this process's lock on a path; None where another's does.

    The lock goes with the process. On a file system that knows no locks this holds none.
    """
    import fcntl

    file = os.open(path, OWN, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        pass
    return file


class Journal:
    """A file that grows by whole lines, written by one rank.

    What the disk refuses is kept in memory and tried again at the next `flush`, so that a disk
    that was full for a while leaves no gap.

    Parameters
    ----------
    path
        Made if it does not exist.
    lines
        How many lines to keep of those that are there; what follows them is cut off.

    Raises
    ------
    OSError
        The file can't be opened or cut.
    """

    def __init__(self, path: Path, lines: int = 0) -> None:
        self.path = path
        self.num_lines = lines
        self._file = os.open(path, OWN, 0o666)
        self._written = 0  # bytes of whole lines that are in the file
        self._pending = bytearray()
        with path.open("rb") as file:
            for _ in range(lines):
                self._written += len(file.readline())
        os.ftruncate(self._file, self._written)
        self._size: int | None = self._written  # of the file, as this left it

    def append(self, line: bytes) -> None:
        """Add a line, given without its end; `flush` writes it."""
        self._pending += line + b"\n"
        self.num_lines += 1

    @property
    def waiting(self) -> int:
        """Bytes that are not in the file yet."""
        return len(self._pending)

    def flush(self) -> None:
        """Write what is waiting; OSError where that fails, with all of it still waiting.

        So it is where another process has cut the file or added to it: no line stands in a hole.
        """
        if not self._pending:
            return
        self.check_size()
        try:
            os.lseek(self._file, self._written, os.SEEK_SET)
            with memoryview(self._pending) as waiting:
                _write(self._file, waiting)
        except OSError:
            self._size = None  # who knows
            with contextlib.suppress(OSError):  # no half line where that can be helped
                os.ftruncate(self._file, self._written)
                self._size = self._written
            raise
        self._written += len(self._pending)
        self._size = self._written
        self._pending.clear()

    def check_size(self) -> None:
        """Raise OSError where another process has cut the file, or added to it."""
        size = os.fstat(self._file).st_size
        if self._size not in (None, size):
            why = f"another process has changed it, to {size} bytes from {self._size}"
            raise OSError(errno.EIO, why)

    def adopt(self) -> None:
        """Go on behind the whole lines that another process has left of the file."""
        self.num_lines, self._written = self._pending.count(b"\n"), 0
        with open(os.dup(self._file), "rb") as file:  # noqa: PTH123 (a file that is open)
            file.seek(0)
            for line in file:
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
        file = os.open(self.path, OWN)
        os.close(self._file)
        self._file = file
        self.check_size()
        return False

    def sync(self) -> None:
        """Make sure that what has been written is on disk; OSError where that fails."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; what is still waiting is lost."""
        os.close(self._file)
