"""The run directory: every file whole or absent, so that a run can be read at any instant."""

import itertools
import json
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from numpy.typing import NDArray

from dptrain.config import InputError
from dptrain.record.files import read_object

CONFIG, METRICS, RECEIPT, MODEL, SUMMARY = (
    "config.toml",
    "metrics.jsonl",
    "receipt.jsonl",
    "model.safetensors",
    "summary.json",
)


def default_path(name: str) -> Path:
    """Return runs/<time>-<name>, with a number behind it where that exists."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    taken = (Path("runs") / (stem + suffix) for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(path for path in taken if not path.exists())


def check_free(path: Path) -> None:
    """Raise InputError where a run directory exists and is not empty: nothing is overwritten."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; --out needs a new or an empty directory")
    if path.exists() and not all(map(_leftover, path.iterdir())):
        begun = (path / CONFIG).is_file()
        again = f"; to go on with the run in it: --resume {path}" if begun else ""
        raise InputError(f"{path} exists and is not empty; give another --out, or remove it{again}")


def _leftover(path: Path) -> bool:
    """Return whether a file is only what a start that failed at once has left."""
    return path.name.endswith(".tmp") or (path.name == RECEIPT and path.stat().st_size == 0)


def create(path: Path) -> None:
    """Make a run directory, or raise InputError."""
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None


def toml(values: Mapping[str, Any], comment: str) -> bytes:
    """Return values as a TOML file; those that are None are left out, as TOML has no word for it.

    Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
    """
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return "\n".join([f"# {comment}", *lines, ""]).encode()


def check_plain(directory: Path) -> None:
    """Raise InputError where a run's file is a link, a pipe or the like: it could be anything's."""
    for name in (CONFIG, METRICS, RECEIPT, MODEL, SUMMARY):
        path = directory / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} is no plain file; put a copy of the file in its place")


def read_config(directory: Path, *, local: bool = False) -> dict[str, Any]:
    """Return the settings of a run under their options' names.

    `local`: every rank reads for itself, so that what is missing may be missing on some only.
    """
    check_plain(directory)
    path = directory / CONFIG
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        message = f"{path}: {error.strerror}; needed is the directory of a run"
        raise InputError(message, local=local) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from None


def encode_line(values: Mapping[str, Any]) -> bytes:
    """Return a line of metrics, without its end."""
    return json.dumps(values).encode()


def metrics_lines(directory: Path, num_lines: int) -> list[bytes]:
    """Return the first whole lines of a run's metrics, without their ends, perhaps fewer.

    InputError where the file is there and can't be read.
    """
    path = directory / METRICS
    try:
        with path.open("rb") as file:
            lines = list(itertools.islice(file, num_lines))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return [line[:-1] for line in lines if line.endswith(b"\n")]


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the named arrays and the plain values of a file from `checkpoint.encode`."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; needed is the directory of a finished run", local=True
        )
    try:
        with safetensors.safe_open(path, "numpy") as file:
            stored = (file.metadata() or {}).get("dptrain")
            if stored is None:
                raise InputError(
                    f"{path} is no model that dptrain stored: it lacks what dptrain adds"
                )
            metadata = read_object(stored)
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except InputError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no stored model of dptrain, or damaged: {error}") from None
