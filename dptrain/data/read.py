"""Files become tables: raw rows and targets, memory-mapped where the format allows."""

import csv
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array
from dptrain.config import InputError, file_name, nearest

NPZ_NAMES = ("x", "y", "x_train", "y_train", "x_test", "y_test")
"""Which arrays of a .npz file are read."""


@dataclass(frozen=True)
class Table:
    """Rows as a file holds them: x [rows, features], y [rows] or [rows, outputs] or None.

    `source` says where they are from; `features` are a CSV file's column names, else empty;
    `mapped` says that x is a memory-mapped file.
    """

    x: Array
    y: Array | None
    source: str
    features: tuple[str, ...] = ()
    mapped: bool = False

    def __post_init__(self) -> None:
        for name, array in (("x", self.x), ("y", self.y)):
            if array is None:
                continue
            if array.dtype.kind not in ("biuf" if name == "x" else "biufU") or array.ndim == 0:
                raise InputError(
                    f"{self.source}: {name} has dtype {array.dtype} and shape {array.shape}; "
                    f"needed are rows of numbers{' or names' if name == 'y' else ''}"
                )
        if self.x.size == 0:
            what = "no example" if len(self.x) == 0 else "no input beside the target"
            raise InputError(f"{self.source}: x has shape {self.x.shape}, so there is {what}")
        if self.y is not None and len(self.x) != len(self.y):
            raise InputError(
                f"{self.source}: x has {len(self.x)} rows and y has {len(self.y)}; "
                "they must have the same number, a target for each example"
            )
        object.__setattr__(self, "x", np.asarray(self.x).reshape(len(self.x), -1))
        if self.y is not None and self.y.ndim > 1:
            flat = self.y.reshape(len(self.y), -1)
            object.__setattr__(self, "y", flat[:, 0] if flat.shape[1] == 1 else flat)

    def __len__(self) -> int:
        return len(self.x)

    def shapes(self) -> str:
        """Return shapes and types, by which ranks see whether they have read the same."""
        y = "no y" if self.y is None else f"y {self.y.shape} {self.y.dtype}"
        return f"x {self.x.shape} {self.x.dtype}, {y}"


def read(
    paths: Sequence[str], target: Sequence[str] = (), features: Sequence[str] = ()
) -> tuple[Table, Table | None]:
    """Read training (or other) rows, and the test rows where the file holds some.

    Parameters
    ----------
    paths
        Nothing: the embedded digits. One .npz file (x, y and maybe x_test, y_test; or x_train,
        y_train, ...), one CSV file with a header, one .npy file with x alone, or two .npy files,
        x and y. Arrays of .npy files are memory-mapped: rows are read when they are asked for.
    target
        Names of the CSV columns to predict.
    features
        Names of the CSV columns that are the inputs; all but the target's unless given.

    Raises
    ------
    InputError
        A file is missing, unreadable, or not what is needed.
    """
    if not paths:
        with files("dptrain.data").joinpath("digits.npz").open("rb") as file:
            return _read_npz(file, "the embedded digits")
    if len(paths) > 2:
        raise InputError(f"{len(paths)} data files are given; needed are one, or x and y as .npy")
    paths = [file_name(path) for path in paths]
    kinds = [_kind(path) for path in paths]
    if target and kinds != ["csv"]:
        raise InputError(f"target {target[0]!r} is given, but {paths[0]} is no CSV file with names")
    if len(paths) == 2:
        for path, kind in zip(paths, kinds, strict=True):
            if kind != "npy":
                raise InputError(
                    f"{path} is no .npy file; two data files must both be .npy, x and y"
                )
        x, y = _read_npy(paths[0]), _read_npy(paths[1])
        return Table(x, y, f"{paths[0]} and {paths[1]}", mapped=True), None
    if kinds[0] == "npz":
        return _read_npz(paths[0], paths[0])
    if kinds[0] == "npy":
        return Table(_read_npy(paths[0]), None, paths[0], mapped=True), None
    return _read_csv(paths[0], target, features), None


def _kind(path: str) -> str:
    """Return npz, npy or csv from a file's first bytes, and complain where its name differs."""
    named = Path(path).suffix.lower().lstrip(".")
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116 (beside the other questions about it)
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # opened, it might wait for ever
            raise InputError(f"{path} is a pipe or a device; needed is a file, read more than once")
        with Path(path).open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", local=True) from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path!r} names no file: {error}") from None
    found = {b"PK": "npz", b"\x93N": "npy"}.get(start[:2], named if b"\0" in start else "csv")
    if not start:
        raise InputError(f"{path} is empty; needed is a .npz, .npy or .csv file")
    if found != named and (found != "csv" or named in ("npz", "npy")):
        raise InputError(
            f"{path} is named .{named} but begins with {start[:12]!r}, as a .{found} file does; "
            f"needed is a .npz, .npy or .csv file under its own name"
        )
    if b"\0" in start and found not in ("npz", "npy"):
        raise InputError(f"{path} is binary; needed is a .npz, .npy or .csv file")
    return found


@contextmanager
def _no_traceback(path: str) -> Iterator[None]:
    """Turn what NumPy and the file system say of a broken file into an InputError."""
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise InputError(f"{path} can't be read: {error}", local=True) from None
    except ValueError as error:
        why = str(error)
        if "pickle" in why.lower() or "object" in why.lower():
            why = "it holds Python objects (a pickle), which are never loaded; store plain numbers"
        raise InputError(f"{path} can't be read: {why}") from None


def _read_npy(path: str) -> Array:
    with _no_traceback(path):
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _read_npz(file: Any, source: str) -> tuple[Table, Table | None]:
    with _no_traceback(source), np.load(file, allow_pickle=False) as archive:
        names = set(archive.files)
        arrays = {name: archive[name] for name in names if name in NPZ_NAMES}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{source}: {name} is no array; needed is what numpy.savez writes")
    x, y = ("x_train", "y_train") if "x_train" in arrays else ("x", "y")
    if x not in arrays:
        raise InputError(
            f"{source} holds {', '.join(sorted(names)) or 'nothing'}; needed are x and y, "
            "or x_train and y_train (and for test data x_test and y_test)"
        )
    table = Table(arrays[x], arrays.get(y), source)
    if "x_test" not in arrays:
        return table, None
    return table, Table(arrays["x_test"], arrays.get("y_test"), f"the test rows of {source}")


def has_names(paths: Sequence[str]) -> bool:
    """Return whether the files are a CSV file, whose columns have names."""
    return len(paths) == 1 and _kind(file_name(paths[0])) == "csv"


def _read_csv(path: str, target: Sequence[str], features: Sequence[str]) -> Table:
    with _no_traceback(path), Path(path).open(newline="", encoding="utf-8-sig") as file:
        names = [name.strip() for name in next(csv.reader(file), [])]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} has two columns named {name!r}; each needs its own name")
    for name in (*target, *features):
        if name not in names:
            raise InputError(f"{path} has no column {name!r}; {nearest(name, names)}")
    features = features or [name for name in names if name not in target]
    columns = _read_columns(path, names, features)
    x = np.stack([columns[name] for name in features], axis=1) if features else np.empty((1, 0))
    y = _as_numbers(np.stack([columns[name] for name in target], axis=1)) if target else None
    return Table(x, y, path, tuple(features))


def _read_columns(path: str, names: list[str], numbers: Sequence[str]) -> dict[str, Array]:
    """Return the columns of a CSV file: those of numbers as float64, the others as text."""
    dtype = [(f"{column}", "f8" if name in numbers else "O") for column, name in enumerate(names)]
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            next(file, "")
            if not any(line.strip() for line in file):
                return {name: np.empty(0) for name in names}
        rows = np.loadtxt(
            path, dtype, comments=None, delimiter=",", skiprows=1, ndmin=1,
            quotechar='"', encoding="utf-8-sig",
        )  # fmt: skip
    except (ValueError, UnicodeDecodeError) as error:
        columns = [names.index(name) for name in numbers]
        raise _csv_error(path, names, columns, error) from None
    return {name: rows[f"{column}"] for column, name in enumerate(names)}


def _csv_error(path: str, names: list[str], columns: list[int], error: Exception) -> InputError:
    """Return which cell is at fault, found by reading row by row: slow, but only this once."""
    with Path(path).open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if number == 1 or not row:
                continue
            if len(row) != len(names):
                return InputError(
                    f"{path}: line {number} has {len(row)} cells; the header has {len(names)}"
                )
            for column in columns:
                try:
                    float(row[column])
                except ValueError:
                    return InputError(
                        f"{path}: line {number} has {row[column]!r} in column {names[column]!r}; "
                        "inputs must be numbers: fill it in, encode it, or leave the column out "
                        "(and name the column to predict with --target)"
                    )
    return InputError(f"{path} can't be read: {error}")


def _as_numbers(cells: Array) -> Array:
    """Return a target's texts as integers where all are, else as floats, else as names."""
    for dtype in (np.int64, np.float64):
        try:
            return cells.astype(dtype)
        except (ValueError, OverflowError):
            continue
    return np.char.strip(cells.astype(np.str_))
