"""The run directory: every file whole or absent, so that a run can be read at any instant."""

import json
import os
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from dptrain.config import InputError

CONFIG, METRICS, MODEL, SUMMARY = (
    "config.toml",
    "metrics.jsonl",
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
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path} exists and is not empty; give another --out, or remove it")


def create(path: Path) -> None:
    """Make a run directory, or raise InputError."""
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / METRICS).touch()
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at any instant it is there in full or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} can't be written: {error.strerror}") from None


def toml(values: Mapping[str, Any], comment: str) -> bytes:
    """Return values as a TOML file; those that are None are left out, as TOML has no word for it.

    Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
    """
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return "\n".join([f"# {comment}", *lines, ""]).encode()


def read_config(directory: Path) -> dict[str, Any]:
    """Return the settings of a run under their options' names."""
    path = directory / CONFIG
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        message = f"{path}: {error.strerror}; needed is the directory of a run"
        raise InputError(message, local=True) from None
    except ValueError as error:
        raise InputError(f"{path} is no TOML file: {error}") from None


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON object as a line, in one write."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(json.dumps(values).encode() + b"\n")
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None


def write_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> None:
    """Write named arrays and plain values as a safetensors file.

    Every array is made contiguous first: safetensors 0.8.0 scrambles others silently.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content = safetensors.numpy.save(contiguous, {"dptrain": json.dumps(metadata)})
    write_whole(path, content)


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the named arrays and the plain values of a file from `write_tensors`."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; needed is the directory of a finished run", local=True
        )
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("dptrain", "null"))
            if not isinstance(metadata, dict):
                raise InputError(
                    f"{path} is no model that dptrain stored: it lacks what dptrain adds"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except InputError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no stored model of dptrain, or damaged: {error}") from None
