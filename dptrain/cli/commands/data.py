"""dptrain data: what is in files, and files that are larger than memory."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from dptrain.checked import Plain
from dptrain.cli.help import Commands
from dptrain.cli.options import Joint, build, json_option, settings
from dptrain.cli.ranks import connect
from dptrain.cli.results import print_result
from dptrain.config import DataConfig
from dptrain.words import aligned, brief

_columns = settings(
    DataConfig, "target", "features", "drop", "id", "weight", "no_header", "delimiter", "decimal",
    "x", "y", "task",
)  # fmt: skip
"""The options by which columns are chosen and files are understood."""


@click.group(cls=Commands, no_args_is_help=False)
def data() -> None:
    """Look at data, or convert what is larger than memory."""


@data.command(cls=Joint)
@click.argument("data", nargs=-1, metavar="[DATA]...")
@_columns
@json_option
def show(data: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Print what is in DATA: columns, types, gaps, statistics, a few rows, what looks wrong."""
    world = connect()
    from dptrain.data.read import read
    from dptrain.data.roles import Roles
    from dptrain.data.show import look
    from dptrain.reduce.memory import shared_rows

    roles = Roles.of(build(DataConfig, values))
    table, test = read(data, roles, world, partial(shared_rows, world.node_comm))
    found = look(table, world)
    if test is not None:
        found["test_rows"] = len(test)
    print_result(found, as_json, _text)


@data.command(cls=Joint)
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.argument("out", metavar="OUT")
@_columns
def convert(inputs: tuple[str, ...], out: str, **values: Any) -> None:
    """Write what IN holds as the directory OUT, whose arrays are mapped: dptrain train OUT

    The ranks share the work; the bytes are the same on any number of them. Called again, it goes on
    where it was ended. The manifest has types, shapes, statistics, and a SHA-256 a part. A table is
    read once, piece by piece, and takes twice its room on disk meanwhile.
    """
    world = connect()
    from dptrain.run.convert import convert as write

    told = time.monotonic()

    def say(done: int, parts: int) -> None:
        """Say how far it is, a line every few seconds, and at its end."""
        nonlocal told
        if done == parts or time.monotonic() - told > 2:
            told = time.monotonic()
            text = f"part {done:,}/{parts:,}" if parts else f"{done:,} rows read"
            print(text, file=sys.stderr)

    write(inputs, Path(out), build(DataConfig, values), world, say)


def _text(found: Plain) -> str:
    """Return what is in a data set, for people."""
    more = f", {found['test_rows']:,} test rows" if "test_rows" in found else ""
    lines = [f"{found['data']}: {found['rows']:,} rows{more}", ""]
    head = ["column", "for", "holds", "gaps", "least", "mean", "largest"]
    table, names = [head], [one["name"] for one in found["columns"]]
    for one in found["columns"]:
        holds = f"{one['kind']} {one['shape']}" if "shape" in one else one["kind"]
        if "different" in one:
            holds = f"{one['different']:,} words"
        mean = "" if one.get("mean") is None else f"{one['mean']:,.6g}"
        gaps = f"{one['gaps']:,}" if one["gaps"] else ""
        table.append(
            [one["name"], one["role"], holds, gaps, one.get("low", ""), mean, one.get("high", "")]
        )
    lines += [
        *aligned([[brief(cell, 24) for cell in row] for row in table]),
        "",
        *aligned([[brief(cell, 24) for cell in row] for row in (names, *found["first"])]),
    ]
    if found["balance"]:
        num = sum(found["balance"].values())
        shares = [f"{name} {count / num:.1%}" for name, count in found["balance"].items()]
        lines += ["", "target: " + ", ".join(shares)]
    return "\n".join([*lines, *([""] if found["notes"] else []), *found["notes"]])
