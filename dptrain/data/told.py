"""What people are told of their data before anything is learned from it."""

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array
from dptrain.data.field import Field
from dptrain.data.table import Table
from dptrain.data.task import Answer
from dptrain.words import brief, counted, listed, shown


def rare(counts: NDArray[np.int64], classes: Array) -> str:
    """Return what a person should know of classes of which some are rare."""
    least, most = (shown(brief(str(classes[n]))) for n in (counts.argmin(), counts.argmax()))
    share = counts.max() / counts.sum()
    return (
        f"{counts.min():,} of {counts.sum():,} rows only have the label {least!r}, and to say "
        f"{most!r} each time is right in {share:.1%}: --class-weight balanced lets each class "
        "count the same"
    )


def understood(table: Table, fields: tuple[Field, ...], answer: Answer) -> list[str]:
    """Return what was understood, for people: three to ten lines."""
    width = sum(field.width for field in fields)
    rows = f"{table.source}: {counted(len(table), 'row')}, {counted(width, 'input')}"
    columns = f" from {counted(len(fields), 'column')}" if table.named else ""
    lines = [rows + columns]
    if table.named:
        called = {
            "numbers": "numbers", "flag": "yes or no", "date": "dates", "words": "categories",
        }  # fmt: skip
        for kind, name in called.items():
            found = [field for field in fields if field.kind == kind]
            if found:
                lines.append(f"{name}: {_named([_about(field) for field in found])}")
        gaps = [field.name for field in fields if field.fill is not None]
        if gaps:
            lines.append(f"gaps, filled with the median and marked: {_named(gaps)}")
        lines += table.notes[:4]
        if len(table.notes) > 4:
            lines.append(f"{len(table.notes) - 4} more columns are left out")
    else:
        lines.append(f"x: {table.columns[0].about().partition(' ')[2]}")
    if table.weight is not None:
        lines.append(f"each row counts as {table.weight.name} says")
    target = _named([column.name for column in table.targets])
    return [*lines, f"target {target}: {answer.told}"]


def _about(field: Field) -> str:
    if field.kind == "words":
        learned = " learned" * field.coded
        return f"{field.name} ({len(field.words):,}{learned})"
    return f"{field.name} ({', '.join(field.parts)})" if field.kind == "date" else field.name


def _named(names: list[str]) -> str:
    return listed([brief(shown(name)) for name in names])
