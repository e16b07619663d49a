"""What the cells of a table's column mean: numbers, yes or no, dates, words, or nothing."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dptrain.data.table import NO_DATE, Column, Kind, words_column
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

LIKE_A_NUMBER = r"^[-+(]?[$€£¥]?\s*[-+]?[0-9][0-9.,'\s]*([eE][-+]?[0-9]+)?\s*[%$€£¥]?\)?$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|$)"


@dataclass(frozen=True)
class Cells:
    """A column of a table before it is known what it holds."""

    name: str
    array: pa.ChunkedArray
    source: str
    line: Callable[[int], str]
    """Where a row stands, for people."""
    written: bool = False
    """Whether it is a text file's, whose numbers are texts too."""
    decimal: str = ""
    """What stands before decimals: a point or a comma; nothing where that is to be found."""

    def fault(self, mask: Any, needed: str) -> InputError:
        """Return what is wrong with the first row of a mask."""
        row = pc.index(mask, True).as_py()
        found = self.array[row].as_py()
        what = repr(found if found is not None else "")
        what = what if len(what) <= 80 else f"{what[:70]}... ({len(what):,} letters)"
        return InputError(
            f"{self.source}: {self.line(row)} has {what} in column {self.name!r}; {needed}"
        )


def column(cells: Cells, kind: Kind | None, *, label: bool, as_written: bool) -> Column:
    """Return what a column holds.

    Parameters
    ----------
    cells
        The column.
    kind
        What it must be, as the training rows were; None to find out.
    label
        Whether it is to be predicted: then it has no gaps.
    as_written
        Whether labels are taken as texts wherever a number would lose how they are written.

    Raises
    ------
    InputError
        Some cell is not what is needed, with its line; or what the column holds is in doubt.
    """
    array, kinds = _plain(cells.array), pa.types
    if label and array.null_count:
        raise cells.fault(array.is_null(), NO_LABEL)
    if kinds.is_string(array.type) or kinds.is_large_string(array.type):
        if cells.written and not label and kind in (None, "numbers") and cells.decimal != ",":
            with contextlib.suppress(pa.ArrowInvalid):  # as most are: numbers without a gap
                return Column(cells.name, "numbers", array.cast(pa.float64()).to_numpy())
        return _texts(cells, array, kind, label=label, as_written=as_written)
    if kind == "words":
        return _words(cells, array.cast(pa.string()), array.is_null())
    if kinds.is_boolean(array.type):
        if label or kind == "numbers":
            return Column(cells.name, "numbers", array.to_numpy())
        return Column(cells.name, "flag", _numpy(array.cast(pa.int8()).fill_null(-1)))
    if kinds.is_temporal(array.type) and not kinds.is_time(array.type):
        return _dates(cells, array, kind, label)
    if kinds.is_integer(array.type) or kinds.is_floating(array.type):
        return _numbers(cells, array, kind)
    if kinds.is_fixed_size_list(array.type) and array.null_count == 0:
        flat = pa.chunked_array([chunk.flatten() for chunk in array.chunks])
        values = _numpy(flat).reshape(len(array), array.type.list_size)
        return Column(cells.name, "numbers", values)
    raise InputError(
        f"{cells.source}: column {cells.name!r} holds {array.type}; only numbers, texts, "
        f"dates, or yes and no can be read: leave it out with --drop {cells.name!r}"
    )


def _plain(array: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells without what Arrow does to keep them small."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_binary(array.type) or pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    if pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
        return array.cast(pa.float64())
    return array


NO_LABEL = "each row needs a target: fill it in, or leave the row out"


def _numpy(array: pa.ChunkedArray) -> Any:
    if pa.types.is_floating(array.type):
        array = array.fill_null(np.nan) if array.null_count else array
    return array.to_numpy()


def _numbers(cells: Cells, array: pa.ChunkedArray, kind: Kind | None) -> Column:
    """Return a column of a file that has typed numbers."""
    if array.null_count and pa.types.is_integer(array.type):
        array = array.cast(pa.float64(), safe=False)
    values = _numpy(array)
    if kind == "flag":
        known = np.isin(values, (0, 1)) | np.isnan(values)
        if not known.all():
            raise cells.fault(pa.array(~known), "write yes or no")
        return Column(cells.name, "flag", np.where(np.isnan(values), -1, values).astype(np.int8))
    if kind == "date":
        raise InputError(f"{cells.source}: column {cells.name!r} holds numbers; give dates")
    return Column(cells.name, "numbers", values)


def _dates(cells: Cells, array: pa.ChunkedArray, kind: Kind | None, label: bool) -> Column:
    if label or kind not in (None, "date"):
        raise InputError(
            f"{cells.source}: column {cells.name!r} holds {array.type}; give numbers or names"
        )
    if pa.types.is_duration(array.type):
        return Column(cells.name, "numbers", _numpy(array.cast(pa.int64()).cast(pa.float64())))
    whole = array.cast(pa.timestamp("us", getattr(array.type, "tz", None)), safe=False)
    return Column(cells.name, "date", whole.cast(pa.int64()).fill_null(NO_DATE).to_numpy())


def _texts(
    cells: Cells, array: pa.ChunkedArray, kind: Kind | None, *, label: bool, as_written: bool
) -> Column:
    """Return a column of texts, or what all its texts can be read as."""
    array = pc.utf8_trim_whitespace(array)
    gaps = pc.fill_null(pc.is_in(pc.utf8_lower(array), pa.array(GAPS, array.type)), True)
    if label:
        if pc.any(gaps).as_py():
            raise cells.fault(gaps, NO_LABEL)
        return _labels(cells, array, kind, as_written)
    found = None
    if kind == "numbers" or (kind is None and cells.written):
        found = _parsed(cells, array, gaps)
    elif kind == "date":
        found = _as_dates(cells, array, gaps)
    if kind is None and found is None:
        found = _as_dates(cells, array, gaps)
    if found is not None:
        return found
    if kind in ("numbers", "date"):
        pattern, needed = (
            (NUMBER, "a number") if kind == "numbers" else (DATE, "a date: 2026-11-25")
        )
        wrong = pc.invert(pc.or_(pc.match_substring_regex(array, pattern), gaps))
        raise cells.fault(wrong, f"give {needed}, as in the rows that were trained on")
    found = _words(cells, array, gaps)
    if kind == "flag" or (kind is None and _is_pair(found.words)):
        return _flags(cells, found)
    if cells.written and kind is None:
        _check_doubt(cells, array, gaps, found.words, label=False)
    return found


def _labels(cells: Cells, array: pa.ChunkedArray, kind: Kind | None, as_written: bool) -> Column:
    """Return a column of labels or values, of which none is a gap."""
    no_gaps = pa.chunked_array([pa.array(np.zeros(len(array), bool))])
    numbers = _all(array, NUMBER)
    if kind == "words" or (not cells.written and kind is None):
        return _words(cells, array, no_gaps)
    if kind is None and numbers:
        lost = not _all(array, PLAIN) if as_written else _any(array, CODE)
        if lost:
            return _words(cells, array, no_gaps)
    if numbers and _all(array, WHOLE) and not _any(array, CODE):
        return Column(cells.name, "numbers", array.cast(pa.int64()).to_numpy())
    found = None if as_written and kind is None else _parsed(cells, array, no_gaps)
    if found is not None:
        return found
    if kind == "numbers":
        raise cells.fault(pc.invert(pc.match_substring_regex(array, NUMBER)), "give a number")
    found = _words(cells, array, no_gaps)
    if not as_written:
        _check_doubt(cells, array, no_gaps, found.words, label=True)
    return found


def _all(array: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(array, pattern)).as_py())


def _any(array: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(array, pattern)).as_py())


def _parsed(cells: Cells, array: pa.ChunkedArray, gaps: Any) -> Column | None:
    """Return a column of numbers, where all texts but the gaps are some."""
    array = pc.if_else(gaps, pa.scalar(None, array.type), array)
    if cells.decimal == "," or (not cells.decimal and _decimal_commas(cells, array)):
        array = pc.replace_substring(array, ",", ".")
    try:
        values = array.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    return Column(cells.name, "numbers", _numpy(values))


def _decimal_commas(cells: Cells, array: pa.ChunkedArray) -> bool:
    """Return whether numbers have commas before their decimals; InputError where in doubt."""
    if not _any(array, r"^[-+]?[0-9]+,[0-9]+$") or not _all(
        array, r"^[-+]?([0-9]+,?[0-9]*|,[0-9]+)([eE][-+]?[0-9]+)?$"
    ):
        return False
    commas = pc.match_substring(array, ",")
    if _all(array.filter(commas), r"^[-+]?[1-9][0-9]{0,2},[0-9]{3}$"):
        raise cells.fault(
            commas, "is that a decimal comma (--decimal ,) or are they thousands (write 1200)?"
        )
    return True


def _as_dates(cells: Cells, array: pa.ChunkedArray, gaps: Any) -> Column | None:
    """Return a column of dates, where all texts but the gaps are some."""
    array = pc.if_else(gaps, pa.scalar(None, array.type), array)
    if array.null_count == len(array) or not _all(array, DATE):
        return None
    for zone in (None, "UTC"):
        try:
            found = array.cast(pa.timestamp("us", zone)).cast(pa.int64()).fill_null(NO_DATE)
        except pa.ArrowInvalid:
            continue
        return Column(cells.name, "date", found.to_numpy())
    return None


def _words(cells: Cells, array: pa.ChunkedArray, gaps: Any) -> Column:
    """Return a column of texts."""
    array = pc.if_else(gaps, pa.scalar(None, array.type), array)
    coded = pc.dictionary_encode(array)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks() if coded.num_chunks != 1 else coded.chunk(0)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().chunk(0)
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return words_column(cells.name, codes, coded.dictionary.to_pylist())


def _is_pair(words: Sequence[str]) -> bool:
    lower = {word.lower() for word in words}
    return any(lower == {*pair} for pair in PAIRS)


def _flags(cells: Cells, found: Column) -> Column:
    """Return 0 and 1 for the words that mean no and yes."""
    meaning = {word: value for pair in PAIRS for value, word in enumerate(pair)}
    meaning |= {"0": 0, "1": 1}
    values = np.array([meaning.get(word.lower(), -2) for word in found.words] + [-1], np.int8)
    flags = values[np.asarray(found.values)]
    if (flags == -2).any():
        raise cells.fault(pa.array(flags == -2), "write yes or no")
    return Column(cells.name, "flag", flags)


def _check_doubt(cells: Cells, array: Any, gaps: Any, words: list[str], label: bool) -> None:
    """Raise InputError where texts look like numbers of which some could not be read."""
    like = [word for word in words if re.match(LIKE_A_NUMBER, word)]
    plain = [word for word in like if re.match(NUMBER, word)]
    if 2 * len(like) < len(words) or (label and all(re.match(WHOLE, word) for word in like)):
        return
    wrong = pc.invert(pc.or_(pc.match_substring_regex(array, NUMBER), gaps))
    if label:
        raise cells.fault(
            wrong,
            "is it a number? Write it as 1200.5; or are all of them labels: --task classification",
        )
    others = "whose other cells are numbers" if plain else "which looks like a number"
    raise cells.fault(
        wrong, f"{others}: write it as 1200.5, leave the cell empty, or the column out with "
        f"--drop {cells.name!r}"
    )  # fmt: skip
