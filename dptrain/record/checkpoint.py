"""Checkpoints: one safetensors file each, every byte of it checked before anything is used."""

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from dptrain.record.files import PIECE, read_object, replace_file, sync_directory

FOLDER = "checkpoints"

BLANK = "0" * 64
"""Stands in the place of the file's own SHA-256 while that is computed."""

_NAMES = {"float32": "F32", "float64": "F64"}
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class DamagedError(Exception):
    """A checkpoint is not what was written: says how that shows."""


def path_of(run: Path, step: int) -> Path:
    """Return the checkpoint's file after so many steps."""
    return run / FOLDER / f"step-{step:010}.safetensors"


def steps_of(run: Path) -> list[int]:
    """Return the steps after which the run has checkpoints, ascending."""
    names = {path.name for path in (run / FOLDER).glob("*") if path.is_file()}
    found = (re.fullmatch(r"step-(\d+)\.safetensors", name) for name in names)
    steps = (int(match[1]) for match in found if match)
    return sorted(step for step in steps if path_of(run, step).name in names)


def encode(
    tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]
) -> list[bytes | memoryview]:
    """Return what a file of arrays (float32 or float64, C-contiguous) and plain values consists of.

    The metadata hold `state` as JSON and the SHA-256 of the whole file, computed with zeros in the
    digest's own place. So any changed, missing or added byte shows, and yet it is a safetensors
    file that anyone can read. Written here, not by the library, to be hashed on the way, to need
    no second copy of the arrays, and to have the same bytes with each of the library's versions.
    """
    header: dict[str, Any] = {"__metadata__": {"dptrain": json.dumps(state), "sha256": BLANK}}
    stop = 0
    for name, array in tensors.items():
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous")
        start, stop = stop, stop + array.nbytes
        kind = _NAMES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, stop]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    size = struct.pack("<Q", len(text))
    data = [array.reshape(-1).view(np.uint8).data for array in tensors.values() if array.size]
    digest = hashlib.sha256(size + text)
    for piece in data:
        digest.update(piece)
    own, found = (f'"sha256":"{value}"'.encode() for value in (BLANK, digest.hexdigest()))
    return [size + text.replace(own, found), *data]  # quotes in `state` are escaped


def write(path: Path, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Write arrays and plain values, see `encode`; OSError where that fails."""
    replace_file(path, encode(tensors, state))


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the values of a checkpoint, once every byte has been checked.

    Raises
    ------
    DamagedError
        It is not what was written.
    OSError
        It can't be read now.
    """
    try:
        with path.open("rb") as file:
            size = file.read(8)
            text = file.read(min(struct.unpack("<Q", size)[0], path.stat().st_size))
            stored = _DIGEST.search(text)
            if stored is None:
                raise DamagedError("it names no SHA-256 of itself")
            digest = hashlib.sha256(size + text.replace(stored[1], BLANK.encode(), 1))
            while piece := file.read(PIECE):
                digest.update(piece)
        if digest.hexdigest().encode() != stored[1]:
            raise DamagedError("its SHA-256 is not the one it was written with")
        with safetensors.safe_open(path, "numpy") as opened:
            state = read_object((opened.metadata() or {})["dptrain"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, state  # noqa: SIM118
    except DamagedError:
        raise
    except (struct.error, safetensors.SafetensorError, ValueError) as error:
        raise DamagedError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:  # the library's, of types it can't do
        raise DamagedError(repr(error)) from None


def prune(run: Path, keep: int, validation_losses: Mapping[int, float]) -> None:
    """Remove checkpoints but the last `keep`, and the one of the lowest validation loss.

    `validation_losses` are those known, by step. OSError where a file can't be removed.
    """
    steps = steps_of(run)
    best = min(steps, key=lambda step: validation_losses.get(step, math.inf), default=0)
    for step in steps[:-keep]:
        if step != best or best not in validation_losses:
            path_of(run, step).unlink()


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither used nor taken for one."""
    path.rename(path.with_suffix(".damaged"))
    sync_directory(path.parent)
