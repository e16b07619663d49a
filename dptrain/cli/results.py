"""How results are shown: text for people, or one JSON object; and the files that hold them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dptrain.checked import Plain
from dptrain.cli.ranks import is_first
from dptrain.streams import output, tell
from dptrain.words import shown


def print_result(values: Plain, as_json: bool, text: Callable[[Plain], str]) -> None:
    """Print, once, what a command found: one JSON object, or `text` of it, each text `shown`."""
    import json

    if is_first():
        click.echo(json.dumps(values) if as_json else text(_shown(values)), output())


def _shown(value: Any) -> Any:
    """Return plain values with every text in them as a person may see it."""
    if isinstance(value, dict):
        return {_shown(name): _shown(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(part) for part in value]
    return shown(value) if isinstance(value, str) else value


force_option = click.option("--force", is_flag=True, help="Replace a file that exists.")
"""Lets a command do so; see `record.files.check_writable`."""


def out_options(words: str, **more: Any) -> Callable[[Any], Any]:
    """Return the options that name a file to write, and let it be replaced."""
    out = click.option("--out", metavar="FILE", help=words, **more)
    return lambda function: out(force_option(function))


def say_written(path: str, what: str) -> None:
    """Say, on standard error, that a file has been written, what it holds, and how large it is."""
    tell(f"wrote {shown(path)}: {what}, {Path(path).stat().st_size:,} bytes")
