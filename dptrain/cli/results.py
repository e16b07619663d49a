"""How results are shown: text for people, or one JSON object."""

import json
from collections.abc import Callable
from typing import Any

import click


def print_result(
    values: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]
) -> None:
    """Print what a command found: as one JSON object, or as `text` puts it."""
    click.echo(json.dumps(values) if as_json else text(values))


def count(number: int, noun: str) -> str:
    """Return "1 step" or "1,200 steps"."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def measures(values: dict[str, Any], prefix: str) -> str:
    """Return the metrics of one set of rows in a line; empty where there are none."""
    names = ("loss", "accuracy", "label_accuracy", "rmse", "mae", "r2")
    found = [(name, values[prefix + name]) for name in names if prefix + name in values]
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found)
