"""Arrays, frames and objects from Python become tables, as files do."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from dptrain.arrays import Array
from dptrain.data.kinds import tables_of
from dptrain.data.roles import Roles
from dptrain.data.table import GAPS, Column, Rowwise, Table
from dptrain.words import InputError


def given(data: Any, roles: Roles, source: str = "the data") -> Table:
    """Return what Python hands over as a table; see `dptrain.load`."""
    if hasattr(data, "__arrow_c_stream__"):
        return cast(Table, tables_of(source).from_frame(data, roles, source))
    if isinstance(data, Mapping):
        return named({str(k): as_array(v, str(k)) for k, v in data.items()}, roles, source)[0]
    if isinstance(data, np.ndarray) or hasattr(data, "toarray"):
        return one_array(as_array(data, "x"), roles, source)
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data[0], None if data[1] is None else as_array(data[1], "y")
        if hasattr(x, "__arrow_c_stream__") and hasattr(x, "columns"):
            called = getattr(data[1], "name", None) or next(iter(roles.target), "y")
            beside = {} if y is None else {str(called): y}
            return cast(Table, tables_of(source).from_frame(x, roles, source, beside))
        return pair(as_array(x, "x"), y, roles, source)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return pair(Items(data, 0), Items(data, 1), roles, source)
    raise InputError(
        f"data is of type {type(data).__name__}; give files, arrays (x, y), a frame, or an "
        "object with __len__ and __getitem__ that gives pairs x, y"
    )


def named(arrays: Mapping[str, Any], roles: Roles, source: str) -> tuple[Table, Table | None]:
    """Return the rows of named arrays: x and y, and those of a test; or a table's columns."""
    x, y = ("x_train", "y_train") if "x_train" in arrays else ("x", "y")
    columns = {*roles.kinds, *roles.target}
    apart = x not in arrays or (columns <= arrays.keys() and len(arrays[x].shape) == 1)
    if columns and apart and not roles.x:
        return tables_of(source).from_arrays(arrays, roles, source), None
    x, y = roles.x or x, roles.y or y
    if x not in arrays or (roles.y and y not in arrays):
        missing = x if x not in arrays else y
        wanted = f"{missing} is not among them" if roles.x or roles.y else NAMES
        raise InputError(f"{source} holds {', '.join(sorted(arrays)) or 'nothing'}; {wanted}")
    plain = replace(roles, weight=None)
    table = pair(arrays[x], arrays.get(y), plain, source)
    if roles.weight is not None and not roles.kinds:
        if roles.weight not in arrays:
            raise InputError(f"{source} has no array {roles.weight!r} for the weights of its rows")
        weight = _column(roles.weight, arrays[roles.weight], label=False)
        table = replace(table, weight=weight)
    if "x_test" not in arrays or roles.x:
        return table, None
    others = f"the test rows of {source}"
    return table, pair(arrays["x_test"], arrays.get("y_test"), plain, others)


NAMES = (
    "store x and y, or x_train and y_train (and for test data x_test and y_test); or name "
    "them with --x and --y, or columns with --target"
)


def one_array(values: Array, roles: Roles, source: str) -> Table:
    """Return the rows of an array: a table's, where its rows have named parts."""
    if not values.dtype.names:
        return pair(values, None, roles, source)
    columns = {name: values[name] for name in values.dtype.names}
    return cast(Table, tables_of(source).from_arrays(columns, roles, source))


def pair(x: Rowwise, y: Rowwise | None, roles: Roles, source: str) -> Table:
    """Return rows of two arrays, inputs and targets."""
    weight = (roles.weight,) if roles.weight else ()
    columns = {"target": roles.target, "id": roles.ids, "weight": weight}
    columns |= {"features": roles.features, "drop": roles.drop}
    for option, names in columns.items():
        if names and not roles.kinds:
            raise InputError(
                f"{option} {names[0]!r} is given, but {source} is no table with named columns"
            )
    inputs = _column("x", x, label=False)
    targets = () if y is None else (_column("y", y, label=True),)
    wider = [column.width for column in targets if column.width > inputs.width]
    told = f"y has {sum(wider):,} numbers a row, x {inputs.width:,}: should x be given first?"
    return Table(source, (inputs,), targets, notes=(told,) * len(wider))


def _column(name: str, values: Any, *, label: bool) -> Column:
    """Return an array as a column; the names of classes become words."""
    kind = np.dtype(values.dtype).kind
    one = values.shape and np.prod(values.shape[1:], dtype=int) == 1
    if not label or kind not in "SOU" or not one:
        return Column(name, "numbers", values)
    values = values[:]
    if kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{name} holds bytes that are no UTF-8; give names as text") from None
    if kind != "O" or all(isinstance(value, str) for value in np.ravel(values)):
        words, codes = np.unique(values.reshape(-1), return_inverse=True)
        gap = [word.lower() in GAPS for word in words.tolist()]
        if any(gap):
            row = int(np.argmax(codes == gap.index(True)))
            raise InputError(
                f"{name} has {str(words[gap.index(True)])!r} in row {row} (counts from 0); each "
                "row needs a target: give it a name, or leave the row out"
            )
        pieces = [word.encode("utf-8", "surrogatepass") for word in words.tolist()]
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        text = np.frombuffer(b"".join(pieces), np.uint8)
        return Column(name, "words", codes.astype(np.int32), text, ends)
    return Column(name, "numbers", values)


def as_array(values: Any, name: str) -> Any:
    """Return something array-like as an array; what can be read by rows stays as it is."""
    if hasattr(values, "mask") and np.ma.is_masked(values):
        raise InputError(f"{name} has masked entries; give numbers: fill them in")
    if hasattr(values, "toarray"):
        raise InputError(f"{name} is sparse; give numbers: {name}.toarray()")
    rowwise = all(hasattr(values, part) for part in ("shape", "dtype", "__getitem__"))
    if rowwise and (isinstance(values, np.ndarray) or not hasattr(values, "__array__")):
        return values
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} can't be made an array: {error}") from None


class Items:
    """One part of the pairs that an object hands out, one pair a row."""

    def __init__(self, data: Any, part: int) -> None:
        self._data, self._part = data, part
        first = self._one(0) if len(data) else np.empty(0)
        kind = np.dtype(object) if first.dtype.kind == "U" else first.dtype  # others may be longer
        self.shape, self.dtype = (len(data), *first.shape), kind
        for row in range(min(len(data), 8)):
            if self._one(row).tobytes() != self._one(row).tobytes():
                raise InputError(
                    f"data[{row}] is another each time it is asked for; let it stay as it is, and "
                    "have transform(x, rng) of the model change it in training"
                )

    def _one(self, row: int) -> Array:
        try:
            pair = self._data[row]
        except Exception as error:
            own = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
            raise InputError(f"data[{row}] fails: {error!r}", local=True) from own
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"data[{row}] is no pair of x and y, but {type(pair).__name__}")
        return np.asarray(as_array(pair[self._part], f"{'xy'[self._part]} of data[{row}]"))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> Array:
        numbers = np.arange(len(self))[rows]
        found = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        way: Any = "same_kind" if self.dtype.kind in "fc" else "safe"  # of others a part is lost
        for place, row in enumerate(numbers.tolist()):
            one = self._one(row)
            if one.shape != self.shape[1:] or not np.can_cast(one.dtype, self.dtype, way):
                raise InputError(
                    f"data[{row}] has {one.dtype} {one.shape}; data[0] has {self.dtype} "
                    f"{self.shape[1:]}"
                )
            found[place] = one[()]
        return found
