"""Arrays of safetensors files, perhaps a stranger's: nothing is read that its header can't mean."""

import errno
import math
import os
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from dptrain.arrays import Array, Form, Forms
from dptrain.checked import Plain
from dptrain.record.files import PIECE, TEXT, read_object

NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "bool": "BOOL", "uint8": "U8"}
NAMES |= {f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)}
"""How the types that runs have, and what models keep beside, are called in the file."""


class DamagedError(Exception):
    """A file is not what was written: says how that shows."""


def read_header(file: BinaryIO) -> tuple[bytes, Plain, Forms]:
    """Return what stands before the arrays: its bytes, the values it holds, the arrays' forms.

    The arrays follow in this order, and the file ends with the last. DamagedError where they can't.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(TEXT, size - 8):
        raise DamagedError("its header is cut off, or too long")
    text = file.read(length)
    try:
        header = read_object(text)
        values = read_object(header.pop("__metadata__")["dptrain"])
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
            num = file.readinto(rest[:PIECE])  # type: ignore[attr-defined]
            if not num:
                raise DamagedError("it ends early")
            see(rest[:num])
            rest = rest[num:]
    return found
