"""The run directory: every file whole or absent, so that a run can be read at any instant.

Its settings, and the level of CPU that it was computed at, are read before NumPy is loaded, as they
say what that may use.
"""

import codecs
import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import tomli_w

from dptrain.checked import Plain
from dptrain.record import files
from dptrain.words import InputError, quoted, shown

CONFIG, METRICS, RECEIPT = "config.toml", "metrics.jsonl", "receipt.jsonl"
MODEL, SUMMARY, SECONDS = "model.safetensors", "summary.json", "seconds.json"

FREE: tuple[str, ...] = ("data", "test-data", "checkpoint-every", "keep-checkpoints")
FREE += ("audit-every", "recheck-every", "stall-timeout", "init-from")
"""Settings that change no byte of the result: where files are, and what guards the run."""

LONGEST_NAME = 120
"""Bytes of the name that a run gets by itself; some file systems take no more than 143."""

SETTINGS = 2**20
"""The most bytes of a file of settings: some seconds of reading."""

NESTED = re.compile(r"^[ \t]*\[(?:[^\n.]*\.){3}|^(?:[^\n.]*\.){300}", re.MULTILINE)
"""A section's name of four parts; a line with 300 dots."""


def default_path(name: str) -> Path:
    """Make runs/<time>-<name>, with a number behind it where that exists, and return it.

    A name is taken, not looked at: of processes that want the same, each gets one of its own.
    """
    stem = files.shortened(f"{time.strftime('%Y%m%d-%H%M%S')}-{name}", LONGEST_NAME)
    for number in itertools.count(1):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if not os.path.lexists(path):
                raise InputError(f"{path} can't be written: {error.strerror}") from None
        else:
            break
    return path


def check_free(path: Path) -> None:
    """Raise InputError where a run directory can't be, or is not empty: nothing is overwritten."""
    if os.path.isfile(path):  # noqa: PTH113 (which raises nothing)
        raise InputError(f"{path} is a file; --out needs a new or an empty directory")
    with files.writing(path), contextlib.suppress(FileNotFoundError):
        names = os.listdir(path)  # noqa: PTH208 (a name alone is wanted)
        own = files.temporary_of(path / CONFIG).name  # all that a start that failed has left
        taken = [name for name in names if name not in (own, RECEIPT)]
        if taken or (RECEIPT in names and (path / RECEIPT).lstat().st_size > 0):
            found = f"{path} exists and is not empty; give another --out, or remove it"
            again = f"; to go on with the run in it: --resume {quoted(path)}"
            raise InputError(found + again * (CONFIG in names))


def holds_run(path: Path) -> bool:
    """Return whether a run has begun in a directory, so that it can be gone on with."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a NUL in its name
        return os.path.lexists(path / CONFIG) or (path / RECEIPT).lstat().st_size > 0
    return False


def toml(values: Mapping[str, Any], comment: str) -> bytes:
    """Return settings as a TOML file; those that are None are left out, as TOML has no word for it.

    Raises InputError where they could not be read again as they are.
    """
    found = {key: _each(value, str) for key, value in values.items() if value is not None}
    try:
        written = {key: _each(value, _write_name) for key, value in found.items()}
        content = f"# {shown(comment)}\n{tomli_w.dumps(written)}".encode()
        again = from_toml(content)
    except ValueError as error:
        raise InputError(f"the settings can't be stored: {error}; give others") from None
    for key, value in found.items():
        if again[key] != value:
            raise InputError(f"{key} is {value!r}, which can't be stored; give another name")
    return content


def from_toml(content: bytes) -> Plain:
    """Return the settings in a TOML file, perhaps a stranger's; ValueError where it is none.

    TOML as far as settings need it: numbers of 64 bits, no NUL in names, no keys within keys, as
    Python takes very long to read these.
    """
    import tomllib

    if len(content) > SETTINGS:
        raise ValueError(f"it has more than {SETTINGS:,} bytes")
    text = content.decode()
    if NESTED.search(text):
        raise ValueError("a key is of too many parts")
    try:
        return {key: _each(value, _read_name) for key, value in tomllib.loads(text).items()}
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _each(value: Any, text: Callable[[str], str]) -> Any:
    """Return a setting with each of its texts as another; ValueError for what none can be."""
    if isinstance(value, list | tuple):
        return [_each(part, text) for part in value]
    if isinstance(value, dict):
        return {key: _each(part, text) for key, part in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number has more than 64 bits")
    return text(value) if isinstance(value, str) else value


def _write_name(name: str) -> str:
    """Return a name as TOML can hold it: bytes that are no text as a NUL and two digits.

    No file's name has a NUL. Python stands these bytes for by U+DC80 to U+DCFF.
    """
    return re.sub("[\udc80-\udcff]", lambda found: f"\0{ord(found[0]) - 0xDC00:x}", name)


def _read_name(name: str) -> str:
    """Return a name as `_write_name` was given it; ValueError where there is another NUL in it."""
    found = re.sub("\0([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), name)
    if "\0" in found:
        raise ValueError("a text has a NUL in it")
    return found


def read_toml(file: BinaryIO, path: Path) -> Plain:
    """Return the settings in an open file; InputError where it is no TOML file."""
    try:
        return from_toml(file.read(SETTINGS + 1).removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise InputError(f"{path} is no TOML file: {str(error).split(';')[0]}") from None


def read_config(directory: Path, *, local: bool = False) -> Plain:
    """Return the settings of a run under their options' names.

    `local`: every rank reads for itself, so that what is missing may be missing on some only.
    """
    path = directory / CONFIG
    try:
        with files.open_plain(path) as file:
            return read_toml(file, path)
    except OSError as error:
        message = f"{path}: {error.strerror}; name the directory of a run"
        raise InputError(message, local=local) from None


def level_of(run: Path, step: int | None = None) -> str | None:
    """Return the level that a run's receipt names, for a step or else for its last one.

    None where there is no receipt, or it names no single one: as damaged as it may be, what is
    wrong with it is said by who reads all of it. Raises InputError where the receipt can't be read.
    """
    found = None
    if not os.path.lexists(run / RECEIPT):
        return None
    for number, line in enumerate(files.lines_of(run / RECEIPT)):
        if number and b'"changed"' not in line:
            continue
        try:
            values = files.read_object(line)
            if number and step is not None and values["step"] >= step:
                break
            settings = values["changed"].get("settings", {}) if number else values["settings"]
            found = settings.get("cpu-level", found)
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
    return found if isinstance(found, str) else None


def as_json(values: Plain) -> bytes:
    """Return a run's summary as its file has it."""
    return f"{json.dumps(values, indent=2)}\n".encode()


def numbers_of(line: bytes) -> Plain:
    """Return a line of metrics; ValueError where it is none, which has numbers only."""
    values = files.read_object(line)
    for name, value in values.items():
        if type(value) is not float and (type(value) is not int or abs(value) >= 2**63):
            raise ValueError(f"{name} is {value!r}, and no number")
    return values
