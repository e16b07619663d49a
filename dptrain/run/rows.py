"""Rows to predict, from Python: whatever holds them becomes what the model was trained on."""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.data.given import as_array, given
from dptrain.data.roles import Roles
from dptrain.data.table import Column, Table
from dptrain.words import InputError


def as_rows(x: Any, encoding: Encoding) -> Rows:
    """Return rows of a frame, of named arrays, or of what NumPy can make an array of.

    Raises InputError where they are none that fit.
    """
    source = "the rows to predict"
    x = _as_columns(x) if encoding.named else x
    if encoding.named and (hasattr(x, "__arrow_c_stream__") or isinstance(x, Mapping)):
        table = given(x, Roles(kinds=encoding.kinds), source)
        return Rows(encoding.adapt(table), encoding)
    found, names = np.asarray(as_array(x, "x")), tuple(getattr(x, "columns", ()))
    one = (len(encoding.fields),) if encoding.named else encoding.fields[0].shape
    if found.shape == one and one not in ((), (1,)):
        found = found[None]  # a single row
    texts = any(field.kind in ("words", "date") for field in encoding.fields)
    names = names if all(isinstance(name, str) for name in names) else ()
    names = names or encoding.features * texts
    if encoding.named and names and found.ndim == 2 and found.shape[1] == len(names):
        columns = dict(zip(names, found.T, strict=True))
        return Rows(encoding.adapt(given(columns, Roles(kinds=encoding.kinds), source)), encoding)
    if found.dtype.kind == "O" and found.ndim > 0:
        found = _as_numbers(found.reshape(len(found), -1), encoding)
    table = encoding.adapt(Table(source, (Column("x", "numbers", found),)))
    return Rows(table, encoding)


def _as_columns(x: Any) -> Any:
    """Return a row that is a mapping, or a list of such rows, as a mapping of columns."""
    if getattr(x, "ndim", 0) == 1 and hasattr(x, "to_dict"):  # a row of a frame
        x = x.to_dict()
    if parts := getattr(getattr(x, "dtype", None), "names", None):
        return {name: np.atleast_1d(x[name]) for name in parts}
    if isinstance(x, Mapping) and x and any(np.ndim(value) == 0 for value in x.values()):
        return {name: [value] for name, value in x.items()}
    if isinstance(x, (list, tuple)) and x and all(isinstance(row, Mapping) for row in x):
        if any(row.keys() != x[0].keys() for row in x):
            raise InputError("the rows to predict have not all the same columns")
        return {name: [row[name] for row in x] for name in x[0]}
    return x


def _as_numbers(x: Array, encoding: Encoding) -> NDArray[np.float64]:
    """Return objects [m, features] as numbers, which is what a table of several types may hold."""
    found, names = np.empty(x.shape), encoding.features
    for (row, column), value in np.ndenumerate(x):
        try:
            found[row, column] = value if isinstance(value, (numbers.Real, np.bool_)) else ()
        except (TypeError, ValueError, OverflowError):
            named = f", {names[column]!r}" if column < len(names) else ""
            raise InputError(
                f"x has {value!r} in row {row}, column {column} (both count from 0){named}; needed "
                "are finite numbers"
            ) from None
    return found
