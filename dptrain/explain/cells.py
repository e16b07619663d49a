"""How numbers are shown among words: printed whole or rounded, in tables, or not at all."""

from collections.abc import Callable, Iterable, Mapping, Sequence

Fields = dict[str, str]
Drawings = Mapping[str, str]

ABSENT = "\0"
"""Stands for a paragraph that is not there."""


def exact(value: float) -> str:
    """Return a number of few digits as it is."""
    return f"{value:zg}"


def rounded(value: float) -> str:
    """Return a number to four decimals."""
    return f"{value:z.4f}"


def conditions(**facts: bool) -> Fields:
    """Return what keeps paragraphs that begin with {name?} where that is so, and drops others."""
    return {f"{name}?": "" if fact else ABSENT for name, fact in facts.items()}


def code(name: str) -> str:
    """Return a name as Markdown writes formulas."""
    return f"`{name}`" if name else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; what names the rows is a formula, all else stands to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *([code(row[0]), *row[1:]] for row in rows)]
    return "\n".join(" | ".join(["", *map(_cell, line), ""]).strip() for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def columns(
    names: Iterable[str], *found: Sequence[float], show: Callable[[float], str] = rounded
) -> list[list[str]]:
    """Return table rows: a name, and its number in each column."""
    return [[name, *map(show, row)] for name, *row in zip(names, *found, strict=True)]
