"""Words with numbers: Markdown whose fields are filled in, tables, paragraphs that may go."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from dptrain.words import InputError, nearest

Fields = dict[str, str]
Drawings = Mapping[str, str]

ABSENT = "\0"
"""Stands for a paragraph that is not there."""

exact, rounded = "{:zg}".format, "{:z.4f}".format
"""Numbers of few digits as they are, and others to four decimals."""


def filled(name: str, text: str, fields: Mapping[str, str]) -> str:
    """Return words with numbers in the place of fields.

    Raises InputError for a field that there is no number for, or a brace that has no other.
    """
    try:
        paragraphs = text.format_map(fields).split("\n\n")
    except KeyError as error:
        field = str(error.args[0])
        raise InputError(f"{name}.md has {{{field}}}; {nearest(field, fields)}") from None
    except ValueError as error:
        raise InputError(f"{name}.md: {error}; write a brace twice to have one") from None
    return "\n\n".join(one for one in paragraphs if ABSENT not in one)


def conditions(**facts: bool) -> Fields:
    """Return what keeps paragraphs that begin with {name?} where that is so, and drops others."""
    return {f"{name}?": "" if fact else ABSENT for name, fact in facts.items()}


def code(name: str) -> str:
    """Return a name as Markdown writes formulas."""
    return f"`{name}`" if name else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; what names the rows is a formula, all else stands to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *([code(row[0]), *row[1:]] for row in rows)]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(" | ".join(["", *line, ""]).strip() for line in cells)


def columns(
    names: Iterable[str], *found: Sequence[float], show: Callable[[float], str] = rounded
) -> list[list[str]]:
    """Return table rows: a name, and its number in each column."""
    return [[name, *map(show, row)] for name, *row in zip(names, *found, strict=True)]
