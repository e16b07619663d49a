"""What kind a file is, told by its first bytes; its name must not say another."""

import glob
import gzip
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dptrain.data.form import open_text
from dptrain.data.hdf5 import read_hdf5
from dptrain.data.numpy_files import is_idx, read_npz
from dptrain.words import InputError, install, quoted

NEEDED = "give a CSV, Parquet, Arrow, .npz, .npy, IDX or HDF5 file"

BY_NAME: dict[str, tuple[bytes, Callable[[str], Mapping[str, Any]]]] = {
    "npz": (b"PK", read_npz),
    "hdf5": (b"\x89HDF", read_hdf5),
}
"""How files of named arrays begin, and what reads one; what `as_array` takes is an array."""

MAGIC = {"npy": b"\x93N", "parquet": b"PAR1", "arrow": b"ARROW1"}
MAGIC |= {kind: begins for kind, (begins, _) in BY_NAME.items()}
"""How files of each kind begin; text begins in any way, and an Arrow stream has no such bytes."""

NAMES = {"pq": "parquet", "feather": "arrow", "ipc": "arrow", "h5": "hdf5"} | {k: k for k in MAGIC}
NAMES |= {kind: kind for kind in ("xlsx", "json", "jsonl")}  # nothing reads these

UNFINISHED = "unfinished.jsonl"
"""What is done so far, a line a part, while `dptrain data convert` makes a directory."""

PACKED = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", ".bz2": b"BZh"}


def expanded(name: str) -> list[str]:
    """Return the files that a name, a directory's name or a pattern stands for, sorted."""
    if not name or re.search("[\0\ud800-\udc7f\udd00-\udfff]", name):
        raise InputError(f"{name!r} names no file; {NEEDED}")
    try:
        _check_no_other(name)
        files, why = [name], ""
        if Path(name).is_dir():
            files, why = [str(path) for path in _inside(Path(name))], "is a directory without files"
        elif any(letter in name for letter in "*?[") and not Path(name).exists():
            files, why = sorted(glob.glob(name)), "is a pattern that no file fits"  # noqa: PTH207
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}", local=True) from None
    if not files:
        raise InputError(f"{name} {why}; {NEEDED}", local=True)
    return files


def _check_no_other(name: str) -> None:
    """Raise InputError for a directory of dptrain's own that is no data."""
    if (Path(name) / "receipt.jsonl").exists():
        hint = f"to go on with it: --resume {quoted(name)}"
        raise InputError(f"{name} is a run, and no data; {hint}", local=True)
    if (Path(name) / UNFINISHED).exists():
        hint = "to go on with it, give dptrain data convert the same line once more"
        raise InputError(f"{name} is not converted yet, as that was ended; {hint}", local=True)


def _inside(folder: Path) -> Iterator[Path]:
    """Yield the files of a directory, and those of the parts of it that are named key=value."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")) or path.name.endswith("~"):
            continue
        if path.is_dir() and "=" in path.name:
            yield from _inside(path)
        elif path.is_dir():
            raise InputError(
                f"{path} is a directory among the files of {folder}; name what is meant by a "
                f"pattern: {quoted(f'{folder}/*.*')}",
                local=True,
            )
        else:
            yield path


def keys_of(path: str, names: Sequence[str]) -> dict[str, str | None]:
    """Return what the parts of a directory say of a file in it, that are named key=value.

    `names` are what was asked for: only what is within one of them counts.
    """
    found: dict[str, str | None] = {}
    for folder in filter(Path(path).is_relative_to, names):
        for part in Path(path).relative_to(folder).parts[:-1]:
            key, _, value = map(unquote, part.partition("="))
            found[key] = None if value in ("", "__HIVE_DEFAULT_PARTITION__") else value
    return found


def kind_of(path: str) -> tuple[str, bool]:
    """Return a file's kind by its first bytes, and whether it is packed.

    Raises InputError where there is no such file, or its name says another kind.
    """
    start = _start(path)
    if not start:
        raise InputError(f"{path} is empty; {NEEDED}")
    name, packed = path.lower(), ""
    for ending, magic in PACKED.items():
        if start.startswith(magic):
            packed, name = ending, name.removesuffix(ending)
            start = _unpacked_start(path, ending)
        elif name.endswith(ending):
            raise InputError(
                f"{path} is named {ending} but begins with {start[:12]!r}, as no such file does; "
                "give each file its own ending"
            )
    found = "idx" if is_idx(start) else "text"
    found = next((kind for kind, magic in MAGIC.items() if start.startswith(magic)), found)
    suffix = Path(name).suffix
    named = NAMES.get(suffix.lstrip("."), "")
    if named and found == "text" and b"\0" in start:  # an Arrow stream, or what is damaged
        found = named
    if named and named not in (*MAGIC, "idx"):
        raise InputError(f"{path} is named {suffix}, which nothing here reads; {NEEDED}")
    if named and found != named:
        like = ".csv" if found == "text" else f".{found}"
        raise InputError(
            f"{path} is named {suffix} but begins with {start[:12]!r}, as a {like} file does; "
            f"{NEEDED} under its own name"
        )
    if found == "text" and b"\0" in start and start[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} is binary; {NEEDED}")
    if packed and found != "text" and (packed, found) != (".gz", "idx"):
        raise InputError(f"{path} is a packed .{found} file, and only text may be: unpack it")
    return found, bool(packed)


def _start(path: str) -> bytes:
    """Return the first bytes of a file."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (beside the other questions about it)
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opened, it might wait for ever
            raise InputError(f"{path} is a pipe or a device; give a file, which is read twice")
        with Path(path).open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", local=True) from None


def _unpacked_start(path: str, ending: str) -> bytes:
    """Return the first bytes of what a packed file holds."""
    try:
        if ending != ".gz":
            tables_of(path)  # says what is missing where it can't be unpacked
        with gzip.open(path) if ending == ".gz" else open_text(path) as file:
            return bytes(file.read(64))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} can't be read: {error}", local=True) from None


def tables_of(source: str) -> Any:
    """Return the module that reads tables; InputError where pyarrow is not there."""
    try:
        from dptrain.data import arrow
    except ImportError as error:
        found = f"{source} is a table, which pyarrow reads ({error})"
        raise InputError(f"{found}: {install('tables')}") from None
    return arrow
