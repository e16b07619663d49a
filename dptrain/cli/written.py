"""The files that people ask commands for: none is overwritten unasked, and each is told of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dptrain.streams import tell
from dptrain.words import shown


def force_option(command: str) -> Callable[[Any], Any]:
    """Return the option that lets a command replace a file; see `record.files.check_writable`."""
    return click.option(
        "--force",
        is_flag=True,
        envvar=f"DPTRAIN_{command.upper()}_FORCE",
        help="Replace a file that exists.",
    )


def say_written(path: str, what: str) -> None:
    """Say, on standard error, that a file has been written, what it holds, and how large it is."""
    tell(f"wrote {shown(path)}: {what}, {Path(path).stat().st_size:,} bytes")
