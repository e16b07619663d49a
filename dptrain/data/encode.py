"""How raw rows become inputs, and targets numbers: fitted once, and stored with the model."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Categories
from dptrain.checked import Plain
from dptrain.config import Scale, Task
from dptrain.data.field import Field, field_of
from dptrain.data.table import Column, Kind, Table
from dptrain.words import InputError

NOTHING: tuple[object, ...] = ((), None, False)
"""What is not stored of a field, as it is what a field has unless said."""

NEAR = 2**14
"""Numbers that are encoded at a time: they stay in a core's cache, and in memory that the process
has, where larger arrays would be handed out by the system anew, page by page."""


class Taker(Protocol):
    """What takes inputs: a model, as far as it is known here."""

    @property
    def dtype(self) -> Any:
        """The type of what it computes with."""


@dataclass(frozen=True)
class Flat:
    """What takes each example as one row of numbers of a type."""

    dtype: Any
    flat_inputs = True


@dataclass(frozen=True)
class Encoding:
    """How raw rows become inputs and targets become numbers; it belongs to the stored model.

    `shift` and `factor` are float64 [inputs]: input = (raw - shift) * factor. `classes` are the
    sorted labels [classes], of classification only. `outputs` is how many values y has in a row.
    """

    task: Task
    fields: tuple[Field, ...]
    shift: NDArray[np.float64]
    factor: NDArray[np.float64]
    classes: Array
    outputs: int
    named: bool = False
    """Whether the inputs are a table's columns, not one array."""
    scale: Scale = "auto"
    targets: tuple[str, ...] = ()
    """The names of a table's columns that are predicted."""
    one_hot: bool = False
    """Whether a class stands as a row of numbers of which one is 1."""
    target_shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    target_factor: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    """Of values, float64 [outputs] or [1]: what the model learns is (value - shift) * factor."""

    @property
    def features(self) -> tuple[str, ...]:
        """The names of a table's columns that are inputs; none of an array's."""
        return tuple(field.name for field in self.fields) if self.named else ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an example's inputs, for a model that does not ask for flat ones."""
        return (self.shift.size,) if self.named else self.fields[0].shape

    @property
    def scores(self) -> int:
        """How many scores, one a class, or else values a model of one's own gives an example."""
        return len(self.classes) or self.outputs

    @property
    def categories(self) -> Categories:
        """The inputs that are codes of categories; the last code is of whatever was never seen."""
        places = itertools.accumulate((field.width for field in self.fields), initial=0)
        found = zip(self.fields, places, strict=False)
        return tuple((f.name, place, len(f.words) + 1) for f, place in found if f.coded)

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """What each of a table's columns must be; nothing for an array."""
        return {field.name: field.kind for field in self.fields} if self.named else {}

    @property
    def label_kind(self) -> Kind:
        """What labels or values must be."""
        return "words" if self.classes.dtype.kind == "U" and not self.one_hot else "numbers"

    def inputs(self, parts: Sequence[Array], taker: Taker, out: Array | None = None) -> Array:
        """Return inputs [m, width] of a row's fields, computed in float64, then rounded.

        They are written to `out`, where it is given, unless they are what was read already.
        A model that has `flat_inputs` False, or does not say, gets an array's rows in their own
        shape [m, ...], and whole numbers as they are, unless a scale is asked for.
        """
        shape = self.fields[0].shape
        as_it_is = not self.named and not getattr(taker, "flat_inputs", False)
        if as_it_is and self.scale in ("auto", "none") and parts[0].dtype.kind in "biu":
            return np.require(parts[0].reshape(len(parts[0]), *shape), requirements="W")
        num, width = len(parts[0]), self.shift.size
        if out is None:
            out = np.empty((num, *shape) if as_it_is else (num, width), taker.dtype)
        flat, (shift, factor) = out.reshape(num, width), self._scales
        for start in range(0, num, len(shift)):
            some = [part[start : start + len(shift)] for part in parts]
            if len(some) == 1:
                scaled = some[0].astype(np.float64)  # the same, and faster
            else:
                scaled = np.concatenate(some, axis=1, dtype=np.float64, casting="unsafe")
            scaled -= shift[: len(scaled)]  # half the time of np.subtract(..., dtype=...)
            scaled *= factor[: len(scaled)]
            flat[start : start + len(shift)] = scaled
        return out

    @functools.cached_property
    def _scales(self) -> tuple[Array, Array]:
        """Shift and factor as often as rows are encoded at a time: half the time of one row's."""
        rows = max(1, NEAR // max(1, self.shift.size))
        return np.tile(self.shift, (rows, 1)), np.tile(self.factor, (rows, 1))

    def __getstate__(self) -> Plain:
        """Return what a copy has, pickled or not: all but what it makes again by itself."""
        return {name: value for name, value in vars(self).items() if name != "_scales"}

    def learned(self, values: Array, dtype: Any) -> Array:
        """Return values [m] or [m, outputs] as the model learns them."""
        found: Array = (values.astype(np.float64) - self.target_shift) * self.target_factor
        return found.astype(dtype)

    def in_units(self, outputs: Array) -> Array:
        """Return what the model says [m] or [m, outputs] in the units of the file."""
        if not self.target_shift.any() and (self.target_factor == 1).all():
            return outputs
        found: Array = outputs / self.target_factor + self.target_shift
        return found

    def adapt(self, table: Table) -> Table:
        """Return a table with the inputs that are needed, in their order.

        Raises InputError where it has other columns, numbers in a row, or targets.
        """
        table = self._adapted(table)
        for known, column in zip(self.fields if self.named else (), table.columns, strict=False):
            if column.width != (width := math.prod(known.shape)):
                raise InputError(
                    f"{table.source}: column {known.name!r} holds {column.width} a row; the "
                    f"training rows have {width}"
                )
        if not self.named:
            _check_width(table, math.prod(self.fields[0].shape))
        outputs = sum(column.width for column in table.targets)
        needed = {self.outputs, len(self.classes)} if self.one_hot else {self.outputs}
        if table.targets and outputs not in needed:
            shape = table.targets[0].values.shape
            raise InputError(f"{table.source}: y has shape {shape}; give {max(needed)} a row")
        return table

    def _adapted(self, table: Table) -> Table:
        if not self.named and table.named:
            if any(column.kind in ("words", "date") for column in table.columns):
                raise InputError(f"{table.source} has texts; the model was trained on numbers")
            x = np.stack([_numbers(column) for column in table.columns], axis=1)
            return replace(table, columns=(Column("x", "numbers", x),), named=False)
        if self.named and not table.named:
            column = table.columns[0]
            _check_width(table, len(self.fields))
            other = [field.name for field in self.fields if field.kind in ("words", "date")]
            if other:
                held = "dates" if self.kinds[other[0]] == "date" else "texts"
                raise InputError(
                    f"{table.source} has numbers only; the model was trained on a table whose "
                    f"column {other[0]!r} holds {held}"
                )
            values = column.read(slice(None)).reshape(len(table), -1)
            columns = (Column(f.name, f.kind, values[:, n]) for n, f in enumerate(self.fields))
            return replace(table, columns=tuple(columns), named=True)
        if self.named:
            by_name = {column.name: column for column in table.columns}
            return replace(table, columns=tuple(by_name[name] for name in self.features))
        return table

    def spec(self) -> Plain:
        """Return it as plain values; a scale that all inputs have in common as one number."""
        return {
            "task": self.task,
            "inputs": [
                {key: value for key, value in one._asdict().items() if value not in NOTHING}
                for one in self.fields
            ],
            "named": self.named,
            "scale": self.scale,
            "shift": _as_plain(self.shift),
            "factor": _as_plain(self.factor),
            "classes": self.classes.tolist(),
            "outputs": self.outputs,
            "one_hot": self.one_hot,
            "targets": self.targets,
            "target_shift": self.target_shift.tolist(),
            "target_factor": self.target_factor.tolist(),
        }

    @staticmethod
    def from_spec(spec: Mapping[str, Any]) -> "Encoding":
        """Return the encoding that `spec` told of; ValueError, TypeError, KeyError where none can.

        What is told may be a stranger's.
        """
        fields = tuple(field_of(one) for one in spec["inputs"])
        width = sum(one.width for one in fields)
        shift, factor = (_of_plain(spec[name], width) for name in ("shift", "factor"))
        found = Encoding(
            spec["task"], fields, shift, factor, np.array(spec["classes"]), spec["outputs"],
            spec["named"], spec["scale"], tuple(spec["targets"]), spec["one_hot"],
            np.array(spec["target_shift"]), np.array(spec["target_factor"]),
        )  # fmt: skip
        if found.task not in get_args(Task) or found.scale not in get_args(Scale):
            raise ValueError(f"the task is {found.task!r}, the scale {found.scale!r}")
        if type(found.named) is not bool or type(found.one_hot) is not bool:
            raise ValueError("a switch is neither true nor false")
        if not found.named and (len(fields) != 1 or fields[0].kind != "numbers"):
            raise ValueError("an array is one field of numbers")
        if len({one.name for one in fields}) < len(fields) or not fields:
            raise ValueError("the inputs have not each a name")
        if not all(isinstance(name, str) for name in found.targets):
            raise ValueError("the targets are no names")
        for values in (found.target_shift, found.target_factor):
            numbers = values.dtype == np.float64 and values.shape in ((1,), (found.outputs,))
            if not numbers or not np.isfinite(values).all():
                raise ValueError(f"the targets' scale is {values.dtype} {values.shape}")
        return found


def _numbers(column: Column) -> Array:
    """Return a column's numbers [m], or yes and no as 1 and 0; NaN for a gap."""
    values = column.read(slice(None))
    gaps = column.gaps(values)
    return np.where(gaps, np.nan, values) if gaps.any() else values


def _check_width(table: Table, width: int) -> None:
    """Raise InputError where a row has another number of inputs than is needed."""
    found = sum(column.width for column in table.columns)
    if found != width:
        raise InputError(
            f"{table.source}: x has {found} columns; the training data has {width}, and every row "
            "must have the same columns" + "; an array of one row has shape [1, n]" * (found == 1)
        )


def _as_plain(scale: NDArray[np.float64]) -> float | list[float]:
    """Return the numbers [inputs], or the one that all of them are."""
    numbers: list[float] = scale.tolist()
    alike = len(scale) and (scale.view(np.int64) == scale[:1].view(np.int64)).all()
    return numbers[0] if alike else numbers


def _of_plain(values: Any, width: int) -> NDArray[np.float64]:
    """Return the numbers [width] that `_as_plain` returned these values of; ValueError else."""
    numbers = values if isinstance(values, list) else [values]
    if len(numbers) not in (1, width) or not all(
        type(n) is float and math.isfinite(n) for n in numbers
    ):
        raise ValueError(f"the inputs have not one scale each, of {width}")
    found: NDArray[np.float64] = np.broadcast_to(np.array(numbers), (width,))
    return found
