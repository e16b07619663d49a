"""All that dptrain writes goes through here: files whole or absent, and files that only grow.

So does all that is read of a run, which may be a stranger's: no links, no pipes, no endless lines.
"""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from dptrain.checked import Plain
from dptrain.words import InputError

NO_FILE = "it is no plain file; put a copy of the file there"
NO_FOLDER = "it is no plain folder; put a copy of the folder there"

PIECE = 2**20
"""Bytes that are written, or read and hashed, at a time."""

TEXT = 2**24
"""The most bytes of text that are read at once: a line, a header, a small file.

As JSON they can take 25 times as much memory.
"""

UNFLUSHED = "its file system flushes no folders: a power cut may take back the newest files"

NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
"""What file systems say that can't flush a folder at all."""


def open_plain(path: Path, limit: int | None = None) -> BufferedReader:
    """Open a file of a run to read it, of at most `limit` bytes; OSError as `descriptor`."""
    return os.fdopen(descriptor(path, os.O_RDONLY, limit), "rb")


def descriptor(path: Path, flags: int, limit: int | None = None) -> int:
    """Return an open file of a run; made where `flags` say so.

    OSError where it can't be opened, or is a link, a pipe or a device, which could be anything's
    or have no end, or has more bytes than `limit`.
    """
    try:
        file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise OSError(error.errno, NO_FILE, str(path)) from None
        raise
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and (limit is None or found.st_size <= limit):
        return file
    os.close(file)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, NO_FILE, str(path))
    why = f"it has {found.st_size:,} bytes, and can have no more than {limit:,}"
    raise OSError(errno.EFBIG, why, str(path))


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Yield an open file, and close it; OSError where it can't be opened, or not be closed."""
    file = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder of a run, none where there is none; OSError if it is a link."""
    try:
        with opened(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY) as file:
            return sorted(os.listdir(file))  # noqa: PTH208 (what is open, not what has its name now)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(errno.ENOTDIR, NO_FOLDER, str(folder)) from None
        raise


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a run's file, without their ends; a last half line is left out.

    Raises InputError where it can't be read, or a line is too long to be one.
    """
    try:
        yield from (line[:-1] for line in raw_lines_of(path) if line.endswith(b"\n"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def raw_lines_of(path: Path, limit: int | None = None) -> Iterator[bytes]:
    """Yield the lines of a run's file of at most `limit` bytes; the last may lack its end.

    OSError where it can't be read, or a line is too long to be one.
    """
    with open_plain(path, limit) as file:
        while line := file.readline(TEXT + 1):
            if len(line) > TEXT:
                raise OSError(errno.EFBIG, f"it has a line of more than {TEXT:,} bytes", str(path))
            yield line


def replace_file(path: Path, pieces: Iterable[bytes | memoryview], own: str = "") -> None:
    """Write a file so that at any instant, a power cut included, it is there in full or as before.

    Raises OSError where that fails, and leaves nothing behind. There can be one writer only, unless
    each gives a name of its `own` to what it writes first. What stands in the place of that,
    perhaps a stranger's link, is removed, not followed.
    """
    temporary = temporary_of(path.with_name(own + path.name))
    try:
        temporary.unlink(missing_ok=True)
        with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            for piece in pieces:
                write_all(file, piece)
            flush(file)
        os.replace(temporary, path)  # noqa: PTH105 (beside the other calls that tests make fail)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def temporary_of(path: Path) -> Path:
    """Return where a file is written before it takes its place: its name, cut where too long."""
    return path.with_name(f".{shortened(path.name, 250)}.tmp")


def shortened(name: str, limit: int) -> str:
    """Return the start of a name, of at most so many bytes; most file systems take 255."""
    while len(os.fsencode(name)) > limit:
        name = name[:-1]
    return name


def read_object(text: bytes | str) -> Plain:
    """Return the JSON object that a text is; ValueError where it is none."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it is {type(found).__name__}, and no object")
    return found


@contextlib.contextmanager
def writing(path: Path, advice: str = "") -> Iterator[None]:
    """Say what can't be written where the file system refuses it within the block: InputError.

    That is `path`, unless the file system names what is in it.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        where = getattr(error, "filename", None) or path
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{where} can't be written: {why}{advice}") from None


def check_writable(path: Path, option: str, *, force: bool = True) -> None:
    """Raise InputError where a file that a person asked for could not be written: before the work.

    `option` is what the person calls the file, such as --plot; without `force` it must be new.
    """
    if os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113 (which raises nothing)
        raise InputError(f"{option} is {path}, which is no plain file; name one that is, or new")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise InputError(f"{option} is {path}, but there is no directory {path.parent}")
    with writing(path), contextlib.suppress(FileNotFoundError):
        path.lstat()
    if not force and os.path.lexists(path):
        raise InputError(f"{option} is {path}, which exists; name another, or --force replaces it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} can't be written: no permission to write in {path.parent}")


def write_whole(
    path: Path, content: bytes | Iterable[bytes | memoryview], *, shared: bool = False
) -> None:
    """Write a file as `replace_file` does; `shared`: other processes may be at it, too.

    InputError where that fails.
    """
    pieces = [content] if isinstance(content, bytes) else content
    try:
        replace_file(path, pieces, own=f"{os.getpid()}." * shared)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None


def make_sized(path: Path, start: bytes, num_bytes: int) -> None:
    """Make a file that begins so, with room for so many bytes more; OSError where there is none."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        write_all(file, start)
        if num_bytes:
            os.posix_fallocate(file, len(start), num_bytes)


def write_at(path: Path, start: int, content: memoryview) -> None:
    """Write into a file that has the room, and make sure that it is on disk; OSError else."""
    with opened(path, os.O_WRONLY) as file:
        os.lseek(file, start, os.SEEK_SET)
        write_all(file, content)
        flush(file)


def flush(file: int) -> None:
    """Make sure that an open file is on disk; OSError where that fails.

    macOS leaves it in the disk's own memory, unless asked for more than `fsync`.
    """
    whole = getattr(fcntl, "F_FULLFSYNC", None)
    if whole is not None:
        with contextlib.suppress(OSError):  # a file system that does not know it
            fcntl.fcntl(file, whole)
            return
    os.fsync(file)


def sync_directory(path: Path) -> bool:
    """Make sure that the names in a directory are on disk; False where its file system never does.

    OSError where that fails otherwise.
    """
    with opened(path, os.O_RDONLY) as directory:
        try:
            flush(directory)
        except OSError as error:
            if error.errno not in NO_FLUSH:
                raise
            return False
    return True


def write_all(file: int, content: bytes | bytearray | memoryview) -> None:
    """Write all of it: a nearly full disk, or a signal, may take only some at a time."""
    with memoryview(content).cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(file, rest[done : done + PIECE])


def lock(path: Path) -> int | None:
    """Return an open file that holds this process's lock on a path; None where another's does.

    The lock goes with the process. On a file system that knows no locks this holds none.
    """
    file = descriptor(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        pass
    return file
