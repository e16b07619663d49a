"""A data set as a directory of arrays that are mapped, and a manifest that says what they hold."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dptrain.arrays import Array
from dptrain.data.numpy_files import read_npy
from dptrain.data.roles import Roles
from dptrain.data.table import Column, Facts, Table
from dptrain.words import InputError

MANIFEST = "manifest.json"
FORMAT = 3

ROLES = ("input", "target", "weight", "id")
FORMS = {"flag": "int8", "date": "int64", "words": "int32"}


def is_converted(path: str) -> bool:
    """Return whether a directory is one that `dptrain data convert` made."""
    return os.path.isfile(os.path.join(path, MANIFEST))  # noqa: PTH113, PTH118 (raises nothing)


class Place(NamedTuple):
    """Where a column's values are: all of an array, or one of the numbers in each of its rows."""

    column: Column
    role: str
    array: int
    number: int | None


def places(table: Table) -> Iterator[Place]:
    """Yield where each column of a table is kept.

    Columns of one number a row are kept side by side with those of the same type, so that a row is
    read from few places.
    """
    arrays: dict[Any, int] = {}
    used: dict[int, int] = {}
    for role, column in table.by_role():
        alone = len(column.values.shape) > 1 or not table.named
        key = len(arrays) if alone else np.dtype(column.values.dtype).newbyteorder("=")
        array = arrays.setdefault(key, len(arrays))
        number = None if alone else used.setdefault(array, 0)
        if number is not None:
            used[array] += 1
        yield Place(column, role, array, number)


def read_converted(path: str, roles: Roles) -> Table:
    """Return the rows of a converted data set.

    Of each array the first and the last part are compared with their hashes; no more is read.
    Raises InputError where the manifest is not what it should be, or a file is missing or damaged.
    """
    file = Path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        if manifest["format"] != FORMAT:
            raise InputError(
                f"{file} is of format {manifest['format']}, and {FORMAT} is read: convert it anew"
            )
        arrays = [_array(Path(path), one, manifest["part"]) for one in manifest["arrays"]]
        found = [
            (str(one["role"]), _column(Path(path), one, arrays)) for one in manifest["columns"]
        ]
        if manifest["named"] is not True and [r for r, _ in found].count("input") != 1:
            raise ValueError("an array's columns have no names")
        parts = {role: tuple(c for r, c in found if r == role) for role in ROLES}
        table = Table(
            path, parts["input"], parts["target"], next(iter(parts["weight"]), None), parts["id"],
            manifest["named"] is True, tuple(map(str, manifest["notes"])), facts=_facts(manifest),
        )  # fmt: skip
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}", local=True) from None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError) as error:
        raise InputError(f"{file} does not hold what it should ({error!r})") from None
    return _chosen(table, roles)


def _array(folder: Path, about: Mapping[str, Any], rows: int) -> Array:
    """Return one of the arrays, mapped; `rows` are those of a part."""
    path = folder / _name(about["file"])
    found = read_npy(str(path))
    if [*found.shape] != about["shape"] or found.dtype.str != about["dtype"]:
        raise InputError(
            f"{path} holds {found.dtype.str} {found.shape}; the manifest says {about['dtype']} "
            f"{about['shape']}"
        )
    for number in {0, len(about["sha256"]) - 1}:
        part = np.ascontiguousarray(found[number * rows : (number + 1) * rows])
        digest = hashlib.sha256(part.reshape(-1).view(np.uint8).data)
        if digest.hexdigest() != about["sha256"][number]:
            raise InputError(f"{path} is damaged: part {number} is not what was converted")
    return found


def _name(name: Any) -> str:
    """Return the name of a file in the directory; ValueError for one that leads out of it."""
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{name!r} names no file of the directory")
    return name


def _column(folder: Path, about: Mapping[str, Any], arrays: list[Array]) -> Column:
    place, number, name, kind = (about[key] for key in ("array", "number", "name", "kind"))
    if type(place) is not int or place < 0 or about["role"] not in ROLES:
        raise ValueError(f"{name!r} is {about['role']!r} in array {place!r}")
    values: Any = arrays[place]
    if number is not None:
        if type(number) is not int or number < 0:
            raise ValueError(f"{name!r} is number {number!r} of a row")
        values = values[:, number]
    plain = kind == "numbers" and values.dtype.kind in "biuf"
    if not plain and (values.dtype.name, values.ndim) != (FORMS[kind], 1):
        raise ValueError(f"{kind} of type {values.dtype}")
    if kind != "words":
        return Column(str(name), kind, values)
    text, ends = (read_npy(str(folder / _name(one))) for one in about["words"])
    if text.dtype.kind != "u" or ends.dtype.kind != "i" or text.ndim != 1 or ends.ndim != 1:
        raise ValueError(f"the words of {name!r} are {text.dtype}, {ends.dtype}")
    return Column(str(name), kind, values, text, ends)


def _facts(manifest: Mapping[str, Any]) -> Facts:
    about = manifest["facts"]
    shift, spread = (np.array(values, np.float64) for values in about["standard"] or ((), ()))
    known = None if about["standard"] is None else (shift, spread)
    return Facts(str(about["sha256"]), about["finite"] is True, known)


def _chosen(table: Table, roles: Roles) -> Table:
    """Return the table with the columns that are asked for, each for what it is asked for."""
    asked = roles.target, roles.features, roles.drop, roles.ids, roles.weight, roles.kinds
    if not table.named or not any(asked):
        return table
    columns = {column.name: column for column in table.every()}
    targets = tuple(column.name for column in table.targets)
    ids = tuple(column.name for column in table.ids)
    weight = roles.weight or (table.weight.name if table.weight else None)
    roles = replace(roles, target=roles.target or targets, ids=roles.ids or ids, weight=weight)
    picked = roles.pick([*columns], table.source)
    for name, kind in roles.kinds.items():
        if columns[name].kind != kind:
            raise InputError(
                f"{table.source}: column {name!r} holds {columns[name].kind}; the rows that were "
                f"trained on had {kind}"
            )
    for name in picked.targets:
        if name not in targets and columns[name].kind in ("flag", "date"):
            raise InputError(
                f"{table.source}: column {name!r} was converted as an input; convert it with "
                f"--target {name!r}, and labels are kept as they are written"
            )
    every = [column.name for column in table.every()]
    same = [*picked.features, *picked.targets, *picked.weights, *picked.ids] == every
    return replace(
        table,
        facts=table.facts if same else None,
        columns=tuple(columns[name] for name in picked.features),
        targets=tuple(columns[name] for name in picked.targets),
        weight=next((columns[name] for name in picked.weights), None),
        ids=tuple(columns[name] for name in picked.ids),
    )
