"""Checkpoints: one safetensors file each, every byte of it checked before anything is used.

Perhaps a stranger's: nothing is read that its header can't mean.
"""

import errno
import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dptrain.arrays import Array, Form, Forms
from dptrain.checked import Plain
from dptrain.record import files
from dptrain.words import InputError

FOLDER = "checkpoints"

NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "bool": "BOOL", "uint8": "U8"}
NAMES |= {f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)}
"""How the types that runs have, and what models keep beside, are called in the file."""

BLANK = "0" * 64
"""Stands in the place of the file's own SHA-256 while that is computed."""

_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class DamagedError(ValueError):
    """A file is not what was written: says how that shows."""


def path_of(run: Path, step: int) -> Path:
    """Return the checkpoint's file after so many steps."""
    return run / FOLDER / f"step-{step:010}.safetensors"


def steps_of(run: Path) -> list[int]:
    """Return the steps after which the run has checkpoints, ascending.

    InputError where their folder is none of the run's own, or can't be read.
    """
    try:
        return _steps(run)
    except OSError as error:
        raise InputError(f"{run / FOLDER}: {error.strerror}") from None


def _steps(run: Path) -> list[int]:
    names = files.names_in(run / FOLDER)
    found = (re.fullmatch(r"step-(\d+)\.safetensors", name, re.ASCII) for name in names)
    steps = (int(match[1]) for match in found if match)
    return sorted(step for step in steps if path_of(run, step).name in names)


def remove_leftovers(run: Path) -> None:
    """Remove checkpoints that were begun and not ended; OSError where that fails."""
    for name in files.names_in(run / FOLDER):
        if re.fullmatch(r"\.step-\d{10,}\.safetensors\.tmp", name, re.ASCII):
            (run / FOLDER / name).unlink()


def encode(tensors: Mapping[str, Array], state: Mapping[str, Any]) -> list[bytes | memoryview]:
    """Return what a file of arrays (of a type in `NAMES`, contiguous) and plain values consists of.

    The metadata hold `state` as JSON and the SHA-256 of the whole file, computed with zeros in the
    digest's own place. So any changed, missing or added byte shows, and yet it is a safetensors
    file that anyone can read. Written here, not by the library, to be hashed on the way, to need
    no second copy of the arrays, and to have the same bytes with each of the library's versions.
    """
    header: Plain = {"__metadata__": {"dptrain": json.dumps(state), "sha256": BLANK}}
    stop = 0
    for name, array in tensors.items():
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous")
        start, stop = stop, stop + array.nbytes
        kind = NAMES[array.dtype.name]
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


def write(path: Path, tensors: Mapping[str, Array], state: Mapping[str, Any]) -> None:
    """Write arrays and plain values, see `encode`; OSError where that fails."""
    files.replace_file(path, encode(tensors, state))


def read(
    path: Path, fits: Callable[[Plain, Forms], object] = lambda *_: None
) -> tuple[dict[str, Array], Plain]:
    """Return the arrays and the values of a file from `encode`, once every byte has been checked.

    `fits` is called before there is memory for the arrays, with the values and the forms that are
    still to be checked; what it raises goes on. Raises DamagedError where it is not what was
    written; OSError where it can't be read now.
    """
    with files.open_plain(path) as file:
        text, state, forms = read_header(file)
        stored = _DIGEST.search(text)
        if stored is None:
            raise DamagedError("it names no SHA-256 of itself")
        fits(state, forms)
        digest = hashlib.sha256(text.replace(stored[1], BLANK.encode(), 1))
        arrays = read_arrays(file, forms, digest.update)
    if digest.hexdigest().encode() != stored[1]:
        raise DamagedError("its SHA-256 is not the one it was written with")
    return arrays, state


def read_model(
    path: Path, fits: Callable[[Plain, Forms], object] = lambda *_: None
) -> tuple[dict[str, Array], Plain]:
    """Return the named arrays and the plain values of a run's model: see `read`.

    Raises InputError where it is not what was written, or can't be read.
    """
    try:
        return read(path, fits)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path} does not exist; name the directory of a finished run", local=True
        ) from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}", local=True) from None
    except DamagedError as error:
        raise InputError(f"{path} is no stored model of dptrain, or damaged: {error}") from None


def read_header(file: BinaryIO) -> tuple[bytes, Plain, Forms]:
    """Return what stands before the arrays: its bytes, the values it holds, the arrays' forms.

    The arrays follow in this order, and the file ends with the last. DamagedError where they can't.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(files.TEXT, size - 8):
        raise DamagedError("its header is cut off, or too long")
    text = file.read(length)
    try:
        header = files.read_object(text)
        values = files.read_object(header.pop("__metadata__")["dptrain"])
        arrays = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    except (KeyError, TypeError):
        raise DamagedError("it lacks what dptrain adds, or where its arrays are") from None
    except ValueError as error:
        raise DamagedError(f"its header is no JSON: {error}") from None
    forms, stop = {}, 0
    for name, about in arrays:
        forms[name] = kind, shape = _form(name, about)
        place = [stop, stop + math.prod(shape) * np.dtype(kind).itemsize]
        if about["data_offsets"] != place:
            raise DamagedError(f"{name} is not where it should be")
        stop = place[1]
    if 8 + length + stop != size:
        raise DamagedError(f"it has {size:,} bytes, and should have {8 + length + stop:,}")
    return start + text, values, forms


def _form(name: str, about: Plain) -> Form:
    """Return the form that a header says an array has; DamagedError where it can't be one."""
    kind = next((kind for kind, code in NAMES.items() if code == about.get("dtype")), None)
    shape = about.get("shape")
    sides = shape if isinstance(shape, list) else [None]
    if kind is None or len(sides) > 8 or any(type(n) is not int or n < 0 for n in sides):
        raise DamagedError(f"{name} has type {about.get('dtype')!r} and shape {shape!r}")
    return kind, tuple(sides)


def read_arrays(
    file: BinaryIO, forms: Forms, see: Callable[[memoryview], object] = lambda _: None
) -> dict[str, Array]:
    """Return the arrays that follow a header; `see` is called with all bytes, one piece a time.

    DamagedError where the file ends before them; OSError where it can't be read, or memory lacks.
    """
    found = {}
    for name, (kind, shape) in forms.items():
        try:
            found[name] = np.empty(shape, kind)
        except MemoryError as error:
            raise OSError(errno.ENOMEM, str(error)) from None
        rest = found[name].reshape(-1).view(np.uint8).data
        while rest:
            num = file.readinto(rest[: files.PIECE])  # type: ignore[attr-defined]
            if not num:
                raise DamagedError("it ends early")
            see(rest[:num])
            rest = rest[num:]
    return found


def prune(run: Path, keep: int, values: Mapping[int, float]) -> None:
    """Remove checkpoints but the last `keep`, and the one of the lowest value.

    `values` are those known, by step. OSError where a file can't be removed.
    """
    steps = _steps(run)
    best = min(steps, key=lambda step: values.get(step, math.inf), default=0)
    for step in steps[:-keep]:
        if step != best or best not in values:
            path_of(run, step).unlink()


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither used nor taken for one."""
    path.rename(path.with_suffix(".damaged"))
    files.sync_directory(path.parent)
