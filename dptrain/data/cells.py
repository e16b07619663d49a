"""What the cells of a table's column are by their type; what texts mean is asked elsewhere."""

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dptrain.data.table import GAPS, NO_DATE, Column, Kind
from dptrain.words import InputError

TYPED = r"^[-+]?(0|[1-9][0-9]{0,17}|[0-9]+[eE][-+]?[0-9]+)$"
"""Numbers without a point that are no codes."""

EMPTY = [*{form for gap in GAPS for form in (gap, gap.upper(), gap.capitalize())}, "NaN", "NaT"]
"""How gaps among numbers are written mostly; where otherwise, they are read as texts."""

THOUSANDS = r"^[-+]?[1-9][0-9]{0,2}[.,][0-9]{3}$"
"""Numbers whose mark may stand behind thousands."""

TEXTS = pa.binary(), pa.large_binary(), pa.binary_view(), pa.string_view()
"""What is read as texts, as strings are."""


@dataclass(frozen=True)
class Asked:
    """What a column of a table has to be, as far as that is known before its cells are."""

    source: str
    name: str
    kind: Kind | None = None
    """What it must be, as the training rows were; None to find out."""
    label: bool = False
    """Whether it is to be predicted: then it has no gaps."""
    several: bool = False
    """Whether it is one of several that are, each a number, or yes or no."""
    as_written: bool = False
    """Whether labels are taken as texts wherever a number would lose how they are written."""
    written: bool = False
    """Whether it is a text file's, whose numbers are texts too."""
    decimal: str = ""
    """What stands before decimals: a point or a comma; nothing where that is to be found."""
    typed: Collection[str] = ()
    """Columns of a text file that are believed to hold numbers."""

    def fault(self, array: Any, mask: Any, needed: str) -> "Fault":
        """Return what is wrong with the first cell of a mask."""
        place = pc.index(mask, True).as_py()
        found = array[place].as_py()
        what = repr(found if found is not None else "")
        what = what if len(what) <= 80 else f"{what[:70]}... ({len(what):,} letters)"
        return Fault(place, f"has {what} in column {self.name!r}; {needed}")

    def unreadable(self, array: Any) -> InputError:
        """Return that it can't be a column, whatever its rows are."""
        return InputError(
            f"{self.source}: column {self.name!r} holds {array.type}; only numbers, texts, "
            "dates, yes or no, or lists of as many numbers can be read, and none that is broken: "
            f"leave it out with --drop {self.name!r}"
        )


class Fault(Exception):  # noqa: N818 (an InputError once it is known where)
    """What is wrong with a cell: its place among those looked at, and the words for it."""

    def __init__(self, place: int, what: str) -> None:
        super().__init__(what)
        self.place = place


class Mistaken(Exception):  # noqa: N818 (the rows are read once more)
    """A column that was believed to hold numbers holds other texts too."""


Piece: TypeAlias = Column | Any
"""Some of a column's rows: values, or else texts as a `pa.DictionaryArray`, each once."""


def piece(asked: Asked, array: pa.ChunkedArray) -> Piece:
    """Return what some cells of a column hold, as far as their type says it.

    Raises Fault where one of them is not what is needed, Mistaken where they are not the numbers
    that they were believed to be, InputError where no column can be of such a type.
    """
    kinds = pa.types
    if kinds.is_null(array.type) and not (asked.kind or asked.label):  # which takes no room
        return Column(asked.name, "numbers", np.broadcast_to(np.nan, len(array)))
    cells = _plain(asked, array)
    if asked.label and cells.null_count:
        raise asked.fault(cells, cells.is_null(), NO_LABEL)
    if kinds.is_dictionary(cells.type):
        return cells
    if kinds.is_string(cells.type) or kinds.is_large_string(cells.type):
        return _as_typed(asked, cells) if asked.name in asked.typed else cells.dictionary_encode()
    if asked.kind == "words" or kinds.is_null(cells.type):
        return _as_words(asked, cells)
    plain = kinds.is_integer(cells.type) or kinds.is_floating(cells.type)
    if asked.kind == "date" and (plain or kinds.is_boolean(cells.type)):
        raise InputError(f"{asked.source}: column {asked.name!r} holds numbers; give dates")
    if kinds.is_boolean(cells.type):
        if asked.label or asked.kind == "numbers":
            return Column(asked.name, "numbers", cells.to_numpy(zero_copy_only=False))
        return Column(asked.name, "flag", to_numpy(cells.cast(pa.int8()).fill_null(-1)))
    if any(is_one(cells.type) for is_one in (kinds.is_timestamp, kinds.is_date, kinds.is_duration)):
        return _dates(asked, cells)
    return _numbers(asked, cells) if plain else _lists(asked, cells)


def _lists(asked: Asked, cells: pa.Array) -> Column:
    """Return lists of as many numbers each."""
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        lengths = pc.min_max(pc.list_value_length(cells)).as_py()
        if cells.null_count == 0 and lengths["min"] == lengths["max"]:
            cells = cells.cast(pa.list_(cells.type.value_type, lengths["max"] or 0))
    if pa.types.is_fixed_size_list(cells.type) and cells.null_count == 0 and cells.type.list_size:
        values = to_numpy(cells.flatten())
        if values.dtype.kind in "biuf" and asked.kind in (None, "numbers"):
            return Column(asked.name, "numbers", values.reshape(len(cells), cells.type.list_size))
    raise asked.unreadable(cells)


def _as_words(asked: Asked, cells: pa.Array) -> pa.DictionaryArray:
    try:
        return cells.cast(pa.string()).dictionary_encode()
    except pa.ArrowException:
        raise asked.unreadable(cells) from None


def _plain(asked: Asked, cells: pa.ChunkedArray) -> pa.Array:
    """Return cells without what Arrow does to keep them small; a text file's as they are."""
    kinds = pa.types
    if kinds.is_dictionary(cells.type) and not asked.written:
        cells = pa.chunked_array([_decoded(chunk) for chunk in cells.chunks])
    try:
        if cells.type in TEXTS:
            cells = cells.cast(pa.string())
        if kinds.is_duration(cells.type) and not asked.label:
            cells = cells.cast(pa.duration("us"), safe=cells.type.unit != "ns").cast(pa.int64())
    except pa.ArrowInvalid:  # bytes that are no text, or years that none has
        raise asked.unreadable(cells) from None
    if kinds.is_decimal(cells.type):
        cells = cells.cast(pa.float64())
    found = cells.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found


def _decoded(chunk: pa.DictionaryArray) -> pa.Array:
    words = chunk.dictionary
    words = words.cast(pa.string()) if pa.types.is_string_view(words.type) else words
    return pa.DictionaryArray.from_arrays(chunk.indices, words).dictionary_decode()


NO_LABEL = "each row needs a target: fill it in, or leave the row out"


def to_numpy(cells: pa.Array) -> Any:
    """Return numbers as NumPy has them, NaN for a gap."""
    if pa.types.is_floating(cells.type) and cells.null_count:
        cells = cells.fill_null(np.nan)
    return cells.to_numpy(zero_copy_only=False)


def _as_typed(asked: Asked, cells: pa.Array) -> Column:
    """Return texts as the numbers that they are believed to be; of labels none is a code.

    Raises Mistaken where they are none, or a point may stand behind thousands.
    """
    if not asked.decimal and in_thousands(cells):
        raise Mistaken(asked.name)
    if not asked.label:
        with contextlib.suppress(pa.ArrowInvalid):
            return Column(asked.name, "numbers", cells.cast(pa.float64()).to_numpy())
        known = pc.if_else(pc.is_in(cells, pa.array(EMPTY)), pa.scalar(None, cells.type), cells)
        with contextlib.suppress(pa.ArrowInvalid):
            return Column(asked.name, "numbers", to_numpy(known.cast(pa.float64())))
        raise Mistaken(asked.name)
    with contextlib.suppress(pa.ArrowInvalid):
        whole = cells.cast(pa.int64())
        if whole.cast(cells.type).equals(cells) and pc.max(pc.utf8_length(cells)).as_py() < 19:
            return Column(asked.name, "numbers", whole.to_numpy())
        raise Mistaken(asked.name)
    with contextlib.suppress(pa.ArrowInvalid):
        values = cells.cast(pa.float64())
        others = cells.filter(pc.invert(pc.match_substring(cells, ".")))
        if len(others) == 0 or all_fit(others, TYPED):  # a search takes a fifth of an expression
            return Column(asked.name, "numbers", values.to_numpy())
    raise Mistaken(asked.name)


def _numbers(asked: Asked, cells: pa.Array) -> Column:
    """Return a column of a file that has typed numbers."""
    if cells.null_count and pa.types.is_integer(cells.type):
        cells = cells.cast(pa.float64(), safe=False)
    values = to_numpy(cells)
    if asked.kind == "flag":
        known = np.isin(values, (0, 1)) | np.isnan(values)
        if not known.all():
            raise asked.fault(cells, pa.array(~known), "write yes or no")
        flags = np.where(np.isnan(values), -1, values).astype(np.int8)
        return Column(asked.name, "flag", flags)
    return Column(asked.name, "numbers", values)


def _dates(asked: Asked, cells: pa.Array) -> Column:
    if asked.label or asked.kind not in (None, "date"):
        raise InputError(
            f"{asked.source}: column {asked.name!r} holds {cells.type}; give numbers or names"
        )
    try:
        return typed_dates(asked.name, cells)
    except pa.ArrowInvalid:  # of a year that none has
        raise asked.unreadable(cells) from None


def typed_dates(name: str, array: pa.ChunkedArray) -> Column:
    """Return a column of Arrow's dates or times; pa.ArrowInvalid where one is too far away."""
    finer = getattr(array.type, "unit", "s") == "ns"
    whole = array.cast(pa.timestamp("us", getattr(array.type, "tz", None)), safe=not finer)
    return Column(name, "date", whole.cast(pa.int64()).fill_null(NO_DATE).to_numpy())


def all_fit(array: pa.Array, pattern: str) -> bool:
    """Return whether all texts but the gaps fit a pattern."""
    return bool(pc.all(pc.match_substring_regex(array, pattern)).as_py())


def in_thousands(array: pa.Array) -> bool:
    """Return whether points may stand behind thousands, as in 1.200, 900 and 15.000.

    That is where some numbers have none, and the others three digits behind it, zeros at their ends
    included: those that a program wrote have one each, or no such zeros.
    """
    marked = pc.match_substring(array, ".")
    if not 0 < (marked.true_count or 0) < len(array) - array.null_count:
        return False
    points = array.filter(marked)  # a few of them mostly tell that none does
    return all(all_fit(some, THOUSANDS) for some in (points[:9], points)) and any_fits(points, "0$")


def any_fits(array: pa.Array, pattern: str) -> bool:
    """Return whether some text fits a pattern."""
    return bool(pc.any(pc.match_substring_regex(array, pattern)).as_py())
