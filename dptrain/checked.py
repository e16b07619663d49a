"""Settings that check themselves where they are built."""

import math
import numbers
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from dptrain.words import InputError, nearest

Plain = dict[str, Any]
"""Values by name, as JSON and TOML hold them: read and not yet looked at, or to be written."""


def setting(default: Any, help: str, **metadata: Any) -> Any:  # noqa: A002 (click's own word)
    """Declare a field that is an option of the command line, a key of the TOML file, a variable.

    Numbers are at least 1, or at least (with `above` more than) `low`, and below `high`. What a
    text is called in the help is `metavar`; a name unless given.
    """
    return field(default=default, metadata={"help": help, **metadata})


def option_name(item: "Field[Any]") -> str:
    """Return a setting's name as people write it: on the command line and in the TOML file."""
    return item.name.replace("_", "-")


@dataclass(frozen=True)
class Checked:
    """Validates a frozen dataclass where it is built, so that no invalid settings can exist.

    Numbers of NumPy and lists become plain numbers and tuples, as settings are stored and compared;
    where there may be several, one by itself is a tuple of it.
    """

    def by_option(self) -> Plain:
        """Return the values by their options' names."""
        return {option_name(item): getattr(self, item.name) for item in fields(self)}

    def __post_init__(self) -> None:
        for item in fields(self):
            value = _plain(getattr(self, item.name), item.type)
            if get_origin(item.type) is tuple and fits((value,), item.type):
                value = (value,)
            object.__setattr__(self, item.name, value)
            if get_origin(item.type) is Literal:
                if value not in get_args(item.type):
                    valid = nearest(_shown(value).strip("'"), get_args(item.type))
                    raise InputError(f"{option_name(item)} is {_shown(value)}; {valid}")
                continue
            if not fits(value, item.type):
                needed = item.type.__name__ if isinstance(item.type, type) else item.type
                found = f"{option_name(item)} is {_shown(value)}"
                raise InputError(f"{found}; give a value of type {needed}")
            for number in value if isinstance(value, tuple) else (value,):
                if item.metadata and isinstance(number, int | float) and item.type is not bool:
                    _check_number(option_name(item), number, item.metadata)


def _plain(value: Any, kind: Any) -> Any:
    """Return NumPy's numbers and arrays, and lists, as the plain numbers and tuples of a field."""
    if hasattr(type(value), "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):  # of which none is within another
        return tuple(one if isinstance(one, list | tuple) else _plain(one, kind) for one in value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    if float in (kind, *get_args(kind)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return int(value) if isinstance(value, numbers.Integral) else value


def check_type(name: str, value: object, kind: Any, needed: str) -> None:
    """Raise InputError where a caller in Python has given something of another type."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is of type {type(value).__name__}; give {needed}")


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of the type that a field says."""
    plain = isinstance(kind, type)  # most are, and typing takes its time to look at one
    origin, args = (None, ()) if plain else (get_origin(kind), get_args(kind))
    if origin in (tuple, list, dict):
        parts = value.values() if isinstance(value, dict) else value
        return isinstance(value, origin) and all(fits(part, args[origin is dict]) for part in parts)
    if args:  # X | None
        return any(fits(value, one) for one in args)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind in (bool, Any)
    return kind is Any or isinstance(value, kind)


LARGEST = 2**53
"""Whole numbers are below it unless said otherwise: up to there a float can be any of them."""


def _check_number(name: str, value: float, bounds: Any) -> None:
    above, low = bounds.get("above", False), bounds.get("low", 1)
    high = bounds.get("high", LARGEST if isinstance(value, int) else math.inf)
    large_enough = value > low if above else value >= low
    if not (large_enough and value < high):  # also refuses NaN
        needed = f"{'above' if above else 'at least'} {low}"
        if "high" in bounds or not value < high:
            needed += f" and below {_shown(high)}" if high < math.inf else " and finite"
        raise InputError(f"{name} is {_shown(value)}; it must be {needed}")


def _shown(value: object) -> str:
    """Return a value as a message shows it; Python refuses to write the longest numbers."""
    if isinstance(value, int) and abs(value) > 10**30:
        return f"about {'-' * (value < 0)}1e{math.log10(abs(value)):.0f}"
    try:
        return repr(value)
    except ValueError:
        return f"a {type(value).__name__}"
