"""What the cells of a table's column mean: numbers, yes or no, dates, words, or nothing."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dptrain.data.table import NO_DATE, Column, Kind
from dptrain.words import InputError

GAPS = ["", "na", "n/a", "#n/a", "nan", "null", "none", "<na>", "nat"]
"""What stands, in letters of any size, where a table has no value."""

PAIRS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
"""Words of which a column of two is no or yes."""

NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
WHOLE = r"^[-+]?[0-9]+$"
CODE = r"^[-+]?(0[0-9]+|[0-9]{19,})$"
"""Digits that a number would not keep."""

PLAIN = r"^(0|-?[1-9][0-9]{0,17})$"
"""Digits that a number keeps as they are written."""

TYPED = r"^[-+]?(0|[1-9][0-9]{0,17}|[0-9]+[eE][-+]?[0-9]+)$"
"""Numbers without a point that are no codes."""

LIKE_A_NUMBER = r"^[-+(]?[$€£¥]?\s*[-+]?[0-9][0-9.,'\s]*([eE][-+]?[0-9]+)?\s*[%$€£¥]?\)?$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|$)"


@dataclass(frozen=True)
class Asked:
    """What a column of a table has to be, as far as that is known before its cells are."""

    source: str
    name: str
    kind: Kind | None = None
    """What it must be, as the training rows were; None to find out."""
    label: bool = False
    """Whether it is to be predicted: then it has no gaps."""
    as_written: bool = False
    """Whether labels are taken as texts wherever a number would lose how they are written."""
    written: bool = False
    """Whether it is a text file's, whose numbers are texts too."""
    decimal: str = ""
    """What stands before decimals: a point or a comma; nothing where that is to be found."""
    typed: bool = False
    """Whether it is believed to hold numbers, of which none would lose how it is written."""

    def fault(self, array: Any, mask: Any, needed: str) -> "Fault":
        """Return what is wrong with the first cell of a mask."""
        place = pc.index(mask, True).as_py()
        found = array[place].as_py()
        what = repr(found if found is not None else "")
        what = what if len(what) <= 80 else f"{what[:70]}... ({len(what):,} letters)"
        return Fault(place, f"has {what} in column {self.name!r}; {needed}")


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

    Raises
    ------
    Fault
        One of them is not what is needed.
    Mistaken
        They are not the numbers that they were believed to be.
    InputError
        No column can be of such a type.
    """
    cells, kinds = _plain(asked, array), pa.types
    if asked.label and cells.null_count:
        raise asked.fault(cells, cells.is_null(), NO_LABEL)
    if kinds.is_dictionary(cells.type):
        return cells
    if kinds.is_string(cells.type) or kinds.is_large_string(cells.type):
        return _as_typed(asked, cells) if asked.typed else cells.dictionary_encode()
    if asked.kind == "words":
        return cells.cast(pa.string()).dictionary_encode()
    if kinds.is_boolean(cells.type):
        if asked.label or asked.kind == "numbers":
            return Column(asked.name, "numbers", cells.to_numpy(zero_copy_only=False))
        return Column(asked.name, "flag", _numpy(cells.cast(pa.int8()).fill_null(-1)))
    if kinds.is_temporal(cells.type) and not kinds.is_time(cells.type):
        return _dates(asked, cells)
    if kinds.is_integer(cells.type) or kinds.is_floating(cells.type):
        return _numbers(asked, cells)
    if kinds.is_fixed_size_list(cells.type) and cells.null_count == 0:
        values = _numpy(cells.flatten()).reshape(len(cells), cells.type.list_size)
        return Column(asked.name, "numbers", values)
    raise InputError(
        f"{asked.source}: column {asked.name!r} holds {cells.type}; only numbers, texts, "
        f"dates, or yes and no can be read: leave it out with --drop {asked.name!r}"
    )


def _plain(asked: Asked, cells: pa.ChunkedArray) -> pa.Array:
    """Return cells without what Arrow does to keep them small; a text file's as they are."""
    if pa.types.is_dictionary(cells.type) and not asked.written:
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_binary(cells.type) or pa.types.is_string_view(cells.type):
        cells = cells.cast(pa.string())
    if pa.types.is_decimal(cells.type) or pa.types.is_null(cells.type):
        cells = cells.cast(pa.float64())
    found = cells.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found


NO_LABEL = "each row needs a target: fill it in, or leave the row out"


def _numpy(cells: pa.Array) -> Any:
    if pa.types.is_floating(cells.type) and cells.null_count:
        cells = cells.fill_null(np.nan)
    return cells.to_numpy(zero_copy_only=False)


def _as_typed(asked: Asked, cells: pa.Array) -> Column:
    """Return texts as the numbers that they are believed to be, none of which is a code."""
    with contextlib.suppress(pa.ArrowInvalid):
        whole = cells.cast(pa.int64())
        if whole.cast(cells.type).equals(cells) and pc.max(pc.utf8_length(cells)).as_py() < 19:
            return Column(asked.name, "numbers", whole.to_numpy())
        raise Mistaken(asked.name)
    with contextlib.suppress(pa.ArrowInvalid):
        values = cells.cast(pa.float64())
        others = cells.filter(pc.invert(pc.match_substring(cells, ".")))
        if len(others) == 0 or _all(others, TYPED):  # a search takes a fifth of an expression
            return Column(asked.name, "numbers", values.to_numpy())
    raise Mistaken(asked.name)


def _numbers(asked: Asked, cells: pa.Array) -> Column:
    """Return a column of a file that has typed numbers."""
    if cells.null_count and pa.types.is_integer(cells.type):
        cells = cells.cast(pa.float64(), safe=False)
    values = _numpy(cells)
    if asked.kind == "flag":
        known = np.isin(values, (0, 1)) | np.isnan(values)
        if not known.all():
            raise asked.fault(cells, pa.array(~known), "write yes or no")
        flags = np.where(np.isnan(values), -1, values).astype(np.int8)
        return Column(asked.name, "flag", flags)
    if asked.kind == "date":
        raise InputError(f"{asked.source}: column {asked.name!r} holds numbers; give dates")
    return Column(asked.name, "numbers", values)


def _dates(asked: Asked, cells: pa.Array) -> Column:
    if asked.label or asked.kind not in (None, "date"):
        raise InputError(
            f"{asked.source}: column {asked.name!r} holds {cells.type}; give numbers or names"
        )
    if pa.types.is_duration(cells.type):
        return Column(asked.name, "numbers", _numpy(cells.cast(pa.int64()).cast(pa.float64())))
    whole = cells.cast(pa.timestamp("us", getattr(cells.type, "tz", None)), safe=False)
    return Column(asked.name, "date", whole.cast(pa.int64()).fill_null(NO_DATE).to_numpy())


def texts(asked: Asked, array: pa.Array) -> Column:
    """Return what different texts are, in a column of these: texts, or what all can be read as.

    Raises Fault for a text that is not what is needed, or leaves in doubt what the column holds.
    """
    kind, array = asked.kind, pc.utf8_trim_whitespace(array)
    gaps = pc.fill_null(pc.is_in(pc.utf8_lower(array), pa.array(GAPS, array.type)), True)
    if asked.label:
        if pc.any(gaps).as_py():
            raise asked.fault(array, gaps, NO_LABEL)
        return _labels(asked, array)
    found = None
    if kind == "numbers" or (kind is None and asked.written):
        found = _parsed(asked, array, gaps)
    elif kind == "date":
        found = _as_dates(asked, array, gaps)
    if kind is None and found is None:
        found = _as_dates(asked, array, gaps)
    if found is not None:
        return found
    if kind in ("numbers", "date"):
        pattern, needed = (
            (NUMBER, "a number") if kind == "numbers" else (DATE, "a date: 2026-11-25")
        )
        wrong = pc.invert(pc.or_(pc.match_substring_regex(array, pattern), gaps))
        raise asked.fault(array, wrong, f"give {needed}, as in the rows that were trained on")
    found = _words(asked, array, gaps)
    if kind == "flag" or (kind is None and _is_pair(found.words)):
        return _flags(asked, array, found)
    if asked.written and kind is None:
        _check_doubt(asked, array, gaps, found.words, label=False)
    return found


def _labels(asked: Asked, array: pa.Array) -> Column:
    """Return a column of labels or values, of which none is a gap."""
    kind, as_written, no_gaps = asked.kind, asked.as_written, pa.array(np.zeros(len(array), bool))
    numbers = _all(array, NUMBER)
    if kind == "words" or (not asked.written and kind is None):
        return _words(asked, array, no_gaps)
    if kind is None and numbers:
        lost = not _all(array, PLAIN) if as_written else _any(array, CODE)
        if lost:
            return _words(asked, array, no_gaps)
    if numbers and _all(array, WHOLE) and not _any(array, CODE):
        return Column(asked.name, "numbers", array.cast(pa.int64()).to_numpy())
    found = None if as_written and kind is None else _parsed(asked, array, no_gaps)
    if found is not None:
        return found
    if kind == "numbers":
        raise asked.fault(
            array, pc.invert(pc.match_substring_regex(array, NUMBER)), "give a number"
        )
    found = _words(asked, array, no_gaps)
    if not as_written:
        _check_doubt(asked, array, no_gaps, found.words, label=True)
    return found


def _all(array: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(array, pattern)).as_py())


def _any(array: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(array, pattern)).as_py())


def _parsed(asked: Asked, array: pa.Array, gaps: Any) -> Column | None:
    """Return a column of numbers, where all texts but the gaps are some."""
    array = pc.if_else(gaps, pa.scalar(None, array.type), array)
    if asked.decimal == "," or (not asked.decimal and _decimal_commas(asked, array)):
        array = pc.replace_substring(array, ",", ".")
    try:
        values = array.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    return Column(asked.name, "numbers", _numpy(values))


def _decimal_commas(asked: Asked, array: pa.Array) -> bool:
    """Return whether numbers have commas before their decimals; InputError where in doubt."""
    if not _any(array, r"^[-+]?[0-9]+,[0-9]+$") or not _all(
        array, r"^[-+]?([0-9]+,?[0-9]*|,[0-9]+)([eE][-+]?[0-9]+)?$"
    ):
        return False
    commas = pc.match_substring(array, ",")
    if _all(array.filter(commas), r"^[-+]?[1-9][0-9]{0,2},[0-9]{3}$"):
        raise asked.fault(
            array,
            commas,
            "is that a decimal comma (--decimal ,) or are they thousands (write 1200)?",
        )
    return True


def _as_dates(asked: Asked, array: pa.Array, gaps: Any) -> Column | None:
    """Return a column of dates, where all texts but the gaps are some."""
    array = pc.if_else(gaps, pa.scalar(None, array.type), array)
    if array.null_count == len(array) or not _all(array, DATE):
        return None
    for zone in (None, "UTC"):
        try:
            found = array.cast(pa.timestamp("us", zone)).cast(pa.int64()).fill_null(NO_DATE)
        except pa.ArrowInvalid:
            continue
        return Column(asked.name, "date", found.to_numpy())
    return None


def _words(asked: Asked, array: pa.Array, gaps: Any) -> Column:
    """Return a column of texts."""
    array = pc.if_else(gaps, pa.scalar(None, array.type), array)
    coded = array.cast(pa.large_string()).dictionary_encode()
    order = pc.sort_indices(coded.dictionary)  # by bytes, so by letters, as Python does
    places = np.full(len(order) + 1, -1, np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    _, ends, text = coded.dictionary.take(order).buffers()
    codes = places[coded.indices.fill_null(-1).to_numpy()]
    return Column(
        asked.name, "words", codes, np.frombuffer(text or b"", np.uint8),
        np.frombuffer(ends, np.int64)[1 : len(order) + 1],
    )  # fmt: skip


def _is_pair(words: Sequence[str]) -> bool:
    lower = {word.lower() for word in words}
    return any(lower == {*pair} for pair in PAIRS)


def _flags(asked: Asked, array: pa.Array, found: Column) -> Column:
    """Return 0 and 1 for the words that mean no and yes."""
    meaning = {word: value for pair in PAIRS for value, word in enumerate(pair)}
    meaning |= {"0": 0, "1": 1}
    values = np.array([meaning.get(word.lower(), -2) for word in found.words] + [-1], np.int8)
    flags = values[np.asarray(found.values)]
    if (flags == -2).any():
        raise asked.fault(array, pa.array(flags == -2), "write yes or no")
    return Column(asked.name, "flag", flags)


def _check_doubt(asked: Asked, array: Any, gaps: Any, words: list[str], label: bool) -> None:
    """Raise InputError where texts look like numbers of which some could not be read."""
    like = [word for word in words if re.match(LIKE_A_NUMBER, word)]
    plain = [word for word in like if re.match(NUMBER, word)]
    if 2 * len(like) < len(words) or (label and all(re.match(WHOLE, word) for word in like)):
        return
    wrong = pc.invert(pc.or_(pc.match_substring_regex(array, NUMBER), gaps))
    if label:
        raise asked.fault(
            array,
            wrong,
            "is it a number? Write it as 1200.5; or are all of them labels: --task classification",
        )
    others = "whose other cells are numbers" if plain else "which looks like a number"
    raise asked.fault(
        array, wrong, f"{others}: write it as 1200.5, leave the cell empty, or the column out with "
        f"--drop {asked.name!r}"
    )  # fmt: skip
