"""Arrays in .npy, .npz and IDX files: mapped where they are stored plainly, else unpacked."""

import gzip
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from dptrain.arrays import Array
from dptrain.machine import too_little_memory
from dptrain.words import SEVERAL, InputError

CHECKED = 2**26
"""Bytes of a plain member of a .npz file up to which its checksum is compared: 0.1 s."""

IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""By the third byte of an IDX file, as the MNIST database has them."""


@contextmanager
def no_traceback(path: str) -> Iterator[None]:
    """Turn what NumPy and the file system say of a broken file into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(f"{path} can't be read: {error}", local=True) from None
    except MemoryError:
        raise InputError(f"{path} can't be read: it needs more memory than there is") from None
    except (ValueError, TypeError, SyntaxError, RuntimeError, KeyError, struct.error) as error:
        why = str(error)
        if "pickle" in why.lower() or "object" in why.lower():
            why = (
                "it holds Python objects (a pickle), which are never loaded; store plain numbers, "
                "or names by y.astype(str)"
            )
        raise InputError(f"{path} can't be read: {why}") from None


def read_npy(path: str) -> Array:
    """Return a .npy file, mapped."""
    with no_traceback(path), Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        shape, fortran, dtype = _header(file, size)
        return _mapped(path, file.tell(), shape, fortran, dtype)


def read_npz(path: str | IO[bytes], checked: int = CHECKED) -> dict[str, Array]:
    """Return the arrays of a .npz file by name; those that are not compressed are mapped.

    Of these the checksum is compared up to so many bytes.
    """
    source = path if isinstance(path, str) else "the embedded digits"
    with no_traceback(source), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if not members:
            raise ValueError("it holds no array: if it is a zip file of something else, unpack it")
        if len({info.filename for info in members}) < len(members):
            raise ValueError("it holds two arrays of one name")
        if min(info.header_offset for info in archive.infolist()):
            raise ValueError(SEVERAL)
        return {
            one.filename.removesuffix(".npy"): _member(archive, one, path, checked)
            for one in members
        }


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str | IO[bytes], checked: int
) -> Array:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file, info.file_size)
        start = file.tell()
        if not isinstance(path, str) or info.compress_type != zipfile.ZIP_STORED:
            _check_memory(info.file_size)
            data: Array = np.empty(math.prod(shape), dtype)
            _fill(file, data.view(np.uint8).data)
            return data.reshape(shape, order="F" if fortran else "C")
        if info.file_size <= checked:
            while file.read(2**20):
                pass
    with Path(path).open("rb") as raw:
        raw.seek(info.header_offset)
        local = raw.read(30)
        if local[:4] != b"PK\3\4":
            raise ValueError(f"{info.filename} is not where the archive says")
        name, extra = struct.unpack("<HH", local[26:30])
    return _mapped(path, info.header_offset + 30 + name + extra + start, shape, fortran, dtype)


def _header(file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type that an array's header says, if so much is in `size`."""
    try:
        version = np.lib.format.read_magic(file)
    except ValueError as error:
        if "got b'\\x80" in str(error):
            raise ValueError("it holds Python objects (a pickle), which are never loaded") from None
        raise
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    try:
        shape, fortran, dtype = read(file)
    except (RecursionError, MemoryError, SyntaxError, tokenize.TokenError, UserWarning):
        raise ValueError("its header is none that NumPy writes") from None
    if version == (3, 0) and dtype.names:  # which is UTF-8, and was read as Latin-1
        dtype.names = tuple(name.encode("latin-1").decode() for name in dtype.names)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    needed = math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or needed != size - file.tell():
        raise ValueError(
            f"it says that it holds {shape} {dtype.name}, {needed:,} bytes, and has "
            f"{max(0, size - file.tell()):,}: it was cut short, is several in one, or is damaged"
        )
    return shape, fortran, dtype


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return how a .npy file begins whose entries follow in C order."""
    start = io.BytesIO()
    about = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(start, about)
    return start.getvalue()


def _mapped(
    path: str, offset: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
) -> Array:
    if math.prod(shape) == 0 or dtype.itemsize == 0:
        return np.empty(shape, dtype)
    order: Any = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", offset, shape, order)


def _fill(file: Any, out: memoryview) -> None:
    """Read so many bytes, and that the file ends there: then its checksum has been compared."""
    done = 0
    while found := file.readinto(out[done : done + 2**24]):
        done += found
    if done < len(out):
        raise EOFError(f"it ends after {done:,} of {len(out):,} bytes")
    if file.read(1):
        raise ValueError(SEVERAL)


def _check_memory(needed: int) -> None:
    """Raise MemoryError where so much can't be unpacked here."""
    if too_little_memory(needed) is not None:
        raise MemoryError


def is_idx(start: bytes) -> bool:
    """Return whether a file begins as an IDX file does."""
    return start[:2] == b"\0\0" and len(start) > 3 and start[2] in IDX_TYPES and start[3] > 0


def read_idx(path: str) -> Array:
    """Return an IDX file, mapped unless it is packed by gzip."""
    with no_traceback(path), Path(path).open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        file: Any = gzip.GzipFile(fileobj=plain) if packed else plain
        start = file.read(4)
        if not is_idx(start):
            raise ValueError("it does not begin as an IDX file does")
        shape = struct.unpack(f">{start[3]}I", file.read(4 * start[3]))
        dtype, offset = np.dtype(IDX_TYPES[start[2]]), 4 + 4 * start[3]
        needed = math.prod(shape) * dtype.itemsize
        if not packed:
            size = os.fstat(plain.fileno()).st_size
            if size - offset != needed:
                raise ValueError(f"it needs {needed:,} bytes after its head, not {size - offset:,}")
            return _mapped(path, offset, shape, False, dtype)
        if needed > 1100 * os.fstat(plain.fileno()).st_size:  # no more can be packed
            raise ValueError(f"it says that it holds {needed:,} bytes: it is damaged")
        _check_memory(needed)
        array = np.empty(shape, dtype)
        _fill(file, array.reshape(-1).view(np.uint8).data)
        return array
