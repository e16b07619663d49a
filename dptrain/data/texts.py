"""What the texts of a table's column mean: numbers, yes or no, dates, words, or nothing."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dptrain.data.cells import NO_LABEL, THOUSANDS, Asked, all_fit, any_fits, in_thousands, to_numpy
from dptrain.data.dates import LIKE_A_DATE, MANY, like_dates, no_dates, written_dates
from dptrain.data.form import NUMBER
from dptrain.data.table import BLANK, GAPS, Column

PAIRS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"))
"""Words of which a column of two is no or yes."""

COMMA_NUMBER = NUMBER.replace(r"\.", ",")
WHOLE = r"^-?[0-9]+$"
CODE = r"^[-+]?(0[0-9]+|[0-9]{19,})$"
"""Digits that a number would not keep."""

PLAIN = r"^(0|-?[1-9][0-9]{0,17})$"
"""Digits that a number keeps as they are written."""

MONEY = r"(?:[A-Z]{0,2}[$€£¥₹₽₩₺₫₪]|\s*(?:USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD)\s*)?"
LIKE_A_NUMBER = (
    rf"^[-+(\u2212]?{MONEY}\s*[-+\u2212]?\.?\d[\d.,'\u2019\u066b\u066c\s]*([eEdD][-+]?[0-9]+)?\s*[%‰]?{MONEY}"
    r"([-\u2212]?\)?|\s*(±|\+/?-).*|[-+][\d.]+[ij]|\([0-9]+\))$|0x[0-9a-fA-F]+$"
)
"""Also numbers of Fortran (1.5D-3), with their error (5±1, 5(1)), complex and hexadecimal ones."""

WITH_UNIT = r"[-+]?[0-9][0-9.,]*(\s+[^\W\d_]{1,9}[²³]?|[a-zµ][A-Za-z]{1,5}|[kMGT]i?B|\s*°[CF]?)$"
UNITS = {
    "mg", "g", "kg", "t", "oz", "lb", "lbs", "ml", "cl", "l", "gal", "mm", "cm", "m", "km", "in",
    "ft", "mi", "s", "min", "h", "kB", "MB", "GB",
}  # fmt: skip
"""Of which several in a column are one mistake; other words behind numbers may be names."""
ORDINALS = ("st", "nd", "rd", "th")
STORED = 32
"""Different texts beyond which numbers with decimals are none that somebody has stored as texts."""


def texts(asked: Asked, array: pa.Array) -> Column:
    """Return what different texts are, in a column of these: texts, or what all can be read as.

    Raises Fault for a text that is not what is needed, or leaves in doubt what the column holds.
    """
    kind, array = asked.kind, pc.utf8_trim(array, BLANK)
    gaps = pc.fill_null(pc.is_in(pc.utf8_lower(array), pa.array(GAPS, array.type)), True)
    if asked.label:
        if pc.any(gaps).as_py():
            raise asked.fault(array, gaps, NO_LABEL)
        return _labels(asked, array)
    found = None
    if kind == "numbers" or (kind is None and asked.written):
        found = _parsed(asked, array, gaps)
    known = pc.if_else(gaps, pa.scalar(None, array.type), array)
    if kind == "date" or (kind is None and found is None and known.null_count < len(known)):
        found = written_dates(asked.name, known)
    if found is not None:
        return found
    if kind == "numbers":
        wrong = pc.invert(pc.or_(pc.match_substring_regex(array, _number(asked)), gaps))
        raise asked.fault(array, wrong, "give a number, as in the rows that were trained on")
    found = _words(asked, array, gaps)
    if kind == "date" or (kind is None and like_dates(found.words)):
        wrong, needed = no_dates(found.words)
        others = f", leave the cell empty, or the column out with --drop {asked.name!r}"
        needed += others if kind is None else ""  # a stored model needs it
        raise asked.fault(array, pc.is_in(array, pa.array(wrong, array.type)), needed)
    if kind == "flag" or (kind is None and {w.lower() for w in found.words} in map(set, PAIRS)):
        return _flags(asked, array, found)
    if kind is None:
        _check_doubt(asked, array, gaps, found.words, label=False)
    return found


def _labels(asked: Asked, array: pa.Array) -> Column:
    """Return a column of labels or values, of which none is a gap."""
    kind, as_written, no_gaps = asked.kind, asked.as_written, pa.array(np.zeros(len(array), bool))
    numbers = all_fit(array, _number(asked))
    if kind == "words":
        return _words(asked, array, no_gaps)
    if kind is None and numbers and asked.written:
        lost = not all_fit(array, PLAIN) if as_written else any_fits(array, CODE)
        if lost:
            return _words(asked, array, no_gaps)
    parsed = asked.written or kind is not None
    if parsed and numbers and all_fit(array, WHOLE) and not any_fits(array, CODE):
        return Column(asked.name, "numbers", array.cast(pa.int64()).to_numpy())
    parsed = parsed and not (as_written and kind is None)
    found = _parsed(asked, array, no_gaps) if parsed else None
    if found is not None:
        return found
    found = _words(asked, array, no_gaps)
    if asked.several and any({word.lower() for word in found.words} <= {*pair} for pair in PAIRS):
        return Column(asked.name, "numbers", _flags(asked, array, found).values)
    if kind == "numbers":
        wrong = pc.invert(pc.match_substring_regex(array, _number(asked)))
        raise asked.fault(array, wrong, "give a number")
    if not as_written:
        _check_labels(asked, array, found.words, no_gaps)
    return found


def _check_labels(asked: Asked, array: pa.Array, words: list[str], no_gaps: Any) -> None:
    """Raise Fault where labels may stand for none, for dates, or for numbers."""
    marks = [word for word in words if not any(map(str.isalnum, word))]
    if "?" in marks or 0 < len(marks) < len(words):
        wrong = pc.is_in(array, pa.array(marks, array.type))
        raise asked.fault(array, wrong, f"{NO_LABEL}; or --task classification")
    if like_dates(words):
        raise asked.fault(
            array, pc.match_substring_regex(array, LIKE_A_DATE), "is it a date? Write it as a "
            "number (of days, say); or are all of them labels: --task classification"
        )  # fmt: skip
    _check_doubt(asked, array, no_gaps, words, label=True)


def _number(asked: Asked) -> str:
    """Return how numbers are written, as far as that was said."""
    return COMMA_NUMBER if asked.decimal == "," else NUMBER


def _parsed(asked: Asked, array: pa.Array, gaps: Any) -> Column | None:
    """Return a column of numbers, where all texts but the gaps are some; Fault where in doubt."""
    array = pc.if_else(gaps, pa.scalar(None, array.type), array)
    commas = asked.decimal == ","
    if not asked.decimal:
        commas = any_fits(array, r"^[-+]?[0-9]+,[0-9]+$") and all_fit(array, COMMA_NUMBER)
        mark = "," if commas else "."
        marked = pc.match_substring(array, mark)
        if all_fit(array.filter(marked), THOUSANDS) if commas else in_thousands(array):
            way = "write 1.2" if asked.kind else f"--decimal {mark}"  # with a model one can't say
            told = f"is {mark!r} before decimals ({way}) or between thousands (write 1200)?"
            raise asked.fault(array, marked, told)
    if commas:  # then a point is none of a number
        array = pc.replace_substring(pc.replace_substring(array, ".", " "), ",", ".")
    try:
        values = array.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    return Column(asked.name, "numbers", to_numpy(values))


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
    unit = _unit(words)
    if unit and not label:
        wrong = pc.and_(pc.match_substring_regex(array, "^[-+]?[0-9]"), pc.ends_with(array, unit))
        raise asked.fault(
            array, wrong, f"which looks like a number with a unit: leave {unit!r} out of each cell "
            f"(and make them one unit), or the column out with --drop {asked.name!r}"
        )  # fmt: skip
    like = [word for word in words if unit or re.match(LIKE_A_NUMBER, " ".join(word.split()))]
    codes = label and all(re.match(WHOLE, word) for word in like)
    if codes or not like or 2 * len(like) < len(words):
        return
    plain = [word for word in like if re.match(_number(asked), word)]
    wrong, way = pc.is_in(array, pa.array(like, array.type)), "store it as one"
    if asked.written:
        wrong = pc.invert(pc.or_(pc.match_substring_regex(array, _number(asked)), gaps))
        number = array[pc.index(wrong, True).as_py()].as_py() in like
        way = f"write it as 1200{asked.decimal or '.'}5" if number else "write a number"
    if label:
        told = f"is it a number? {way.capitalize()}; or are all of them labels"
        raise asked.fault(array, wrong, f"{told}: --task classification")
    names = len(plain) <= STORED or all(re.match(WHOLE, word) for word in plain)
    if plain and names and not asked.written:  # texts, as somebody has stored them
        return
    others = "whose other cells are numbers" * bool(plain and asked.written)
    raise asked.fault(
        array, wrong, f"{others or 'which looks like a number'}: {way}, leave the cell empty, or "
        f"the column out with --drop {asked.name!r}"
    )  # fmt: skip


def _unit(words: Sequence[str]) -> str | None:
    """Return the unit that stands behind the number in at least half of many texts.

    Or the most frequent one, where well-known units stand behind all of them.
    """
    found = Counter(match[1].strip() for word in words if (match := re.match(WITH_UNIT, word)))
    unit, times = max(found.items(), key=lambda one: one[1], default=("", 0))
    mixed = found.keys() <= UNITS and found.total() == len(words)
    clear = (mixed or 2 * times >= len(words)) and unit not in ORDINALS
    return unit if clear and len(words) >= MANY else None
