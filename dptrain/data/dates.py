"""Which texts are dates, and when these are."""

import contextlib
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dptrain.data.cells import typed_dates
from dptrain.data.table import Column

WRITTEN = (
    r"^([0-9]{4}(-[0-9]+-|/[0-9]+/|\.[0-9]+\.)[0-9]{1,2}|"
    r"[0-9]{1,2}(\.[0-9]{1,2}\.|/[0-9]{1,2}/)[0-9]{4})([T ]|$)"
)
"""Dates that are read."""

SLASHED, ABOVE_12 = r"^([0-9]+)/([0-9]+)/([0-9]{4})", "(1[3-9]|[23][0-9])"
"""Of these dates the month or the day may come first; a day above 12 shows which."""

ISO = (
    (r"^([0-9]+)\.([0-9]+)\.([0-9]{4})", r"\3-\2-\1"),
    *((rf"^([0-9]{{4}}){m}([0-9]+){m}([0-9]+)", r"\1-0\2-0\3") for m in (r"\.", "/", "-")),
    (r"^([0-9]{4})-0*([0-9]{2})-0*([0-9]{2})", r"\1-\2-\3"),
    (r"(\.[0-9]{6})[0-9]+", r"\1"),
)
"""How these become year-month-day, step by step; decimals of a second are cut after six."""

LIKE_A_DATE = (
    r"(?i)^([0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{4}|"
    r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{2}|[0-3][0-9][-.][01][0-9][-.][0-9]{2}|"
    r"(19|20)([0-9]{2}[-/](0[1-9]|1[0-2])|[0-9]{6}T[0-9]{4,6}Z?)|"
    r"((mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?([0-9]{1,2}[ .-]*)?(jan|feb|mar|"
    r"apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .-]*([0-9]{1,2},? +)?[0-9]{2,4})([T ,]|$)"
)
TIME = r"^(-?[0-9]+ days?,? )?[0-9]{1,2}:[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?( ?[ap]m)?$"
ZONES = (None, "UTC")

MANY = 5
"""Different texts from which on those with a unit are no categories (three sizes may be), nor
times."""


def written_dates(name: str, array: pa.ChunkedArray) -> Column | None:
    """Return a column of texts, null for gaps, that are all dates, all with a zone or none."""
    if pc.all(pc.match_substring_regex(array, WRITTEN)).as_py() is False:
        return None
    dates = _iso(array)
    every = (_times(dates, zone) for zone in ZONES)
    return next((typed_dates(name, times) for times in every if times is not None), None)


def _iso(array: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts that are dates as year-month-day, and others as whatever comes of them."""
    slashed = {True: r"\3-0\2-0\1", False: r"\3-0\1-0\2", None: r"\0"}[day_first(array)]
    for pattern, way in ((SLASHED, slashed), *ISO):
        array = pc.replace_substring_regex(array, pattern, way)
    return array


def day_first(array: pa.Array) -> bool | None:
    """Return whether the day stands before the month in dates with slashes and the year behind.

    None where no day above 12 says so, or two say otherwise.
    """
    ways = rf"^{ABOVE_12}/[0-9]+/[0-9]{{4}}", rf"^[0-9]+/{ABOVE_12}/[0-9]{{4}}"
    first, second = (bool(pc.any(pc.match_substring_regex(array, way)).as_py()) for way in ways)
    return None if first == second else first


def _times(array: pa.ChunkedArray, zone: str | None) -> pa.ChunkedArray | None:
    """Return what `_iso` returns as times, without a zone or with one; None where some are none."""
    with contextlib.suppress(pa.ArrowInvalid):
        return array.cast(pa.timestamp("us", zone))
    return None


def like_dates(words: Sequence[str]) -> bool:
    """Return whether at least half of some texts look like dates, or many of them like times."""
    like = LIKE_A_DATE if len(words) < MANY else f"{LIKE_A_DATE}|{TIME}"
    return 0 < len(words) <= 2 * sum(1 for word in words if re.match(like, word))


def no_dates(words: Sequence[str]) -> tuple[list[str], str]:
    """Return which of the texts that `written_dates` could not read are at fault, and why."""
    whole = _iso(pa.array(words, pa.string()))
    dates = [(word, whole[place : place + 1]) for place, word in enumerate(words)]
    plain, zoned = ({w for w, date in dates if _times(date, zone) is not None} for zone in ZONES)
    wrong = [word for word in words if word not in plain | zoned]
    if wrong:
        doubt = "is the month first, or the day? " * any(re.match(SLASHED, word) for word in wrong)
        needed = "write a date as 2026-11-25, or 2026-11-25T13:45:00, a time as a number"
        return wrong, f"{doubt}{needed}"
    return [word for word in words if word in plain], "give each time a zone, or none"
