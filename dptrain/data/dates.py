"""Points in time in a table's column, typed or written; and what only looks like them."""

import contextlib
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dptrain.data.table import NO_DATE, Column

WRITTEN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|$)"
LIKE_A_DATE = (
    r"(?i)^([0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{4}|"
    r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{2}|"
    r"([0-9]{1,2}[ .-]*)?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .-]*"
    r"([0-9]{1,2},? +)?[0-9]{2,4})([T ,]|$)"
)
FINER = r"(\.[0-9]{6})[0-9]+"
"""Decimals of a second that are cut."""


def typed_dates(name: str, array: pa.ChunkedArray) -> Column:
    """Return a column of Arrow's dates or times; pa.ArrowInvalid where one is too far away."""
    finer = getattr(array.type, "unit", "s") == "ns"
    whole = array.cast(pa.timestamp("us", getattr(array.type, "tz", None)), safe=not finer)
    return Column(name, "date", whole.cast(pa.int64()).fill_null(NO_DATE).to_numpy())


def written_dates(name: str, array: pa.ChunkedArray) -> Column | None:
    """Return a column of texts, null for gaps, that are all dates, all with a zone or none."""
    if pc.all(pc.match_substring_regex(array, WRITTEN)).as_py() is False:
        return None
    array = pc.replace_substring_regex(array, FINER, r"\1")
    for zone in (None, "UTC"):
        with contextlib.suppress(pa.ArrowInvalid):
            return typed_dates(name, array.cast(pa.timestamp("us", zone)))
    return None


def like_dates(words: Sequence[str]) -> bool:
    """Return whether at least half of some texts look like dates, however they are written."""
    return 0 < len(words) <= 2 * sum(1 for word in words if re.match(LIKE_A_DATE, word))


def no_dates(words: Sequence[str]) -> tuple[list[str], str]:
    """Return which of the texts that `written_dates` could not read are at fault, and why."""
    zones = {word: _zones(word) for word in words}
    wrong = [word for word, found in zones.items() if not found]
    if wrong:
        return wrong, "write a date as 2026-11-25, or 2026-11-25T13:45:00"
    return [w for w, found in zones.items() if None in found], "give each time a zone, or none"


def _zones(word: str) -> list[str | None]:
    """Return how a date can be read: without a zone, with one, or in no way."""
    found: list[str | None] = []
    for zone in (None, "UTC"):
        cells = pc.replace_substring_regex(pa.chunked_array([[word]]), FINER, r"\1")
        with contextlib.suppress(pa.ArrowInvalid):
            cells.cast(pa.timestamp("us", zone))
            found.append(zone)
    return found
