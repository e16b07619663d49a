"""A person's mistakes, and how what is told is worded."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

LONGEST = 5000
"""Letters of a text that a person is shown; what is between its start and its end is left out."""


def shown(text: str) -> str:
    """Return a text as a person may see it, whoever wrote it: on one line, and not too long.

    What a terminal would obey, or not show, is escaped as in Python: line breaks, control
    characters, what turns the direction of writing, bytes that are no text. Twice is as once.
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1000]} [...] {text[-900:]}"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def quoted(name: str | Path) -> str:
    """Return a name as it can be typed into a shell, and shown."""
    if str(name).isprintable():
        return shlex.quote(str(name))
    plain = {*range(32, 127)} - {*b"\\'"}
    letters = (chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(name))
    return f"$'{''.join(letters)}'"


def file_name(text: str) -> str:
    """Return a name from a text as this locale can ask for it; as UTF-8 where it has no letter."""
    with contextlib.suppress(UnicodeEncodeError):
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text


def is_text(name: str) -> bool:
    """Return whether a name can be written as UTF-8; half of a character can't."""
    return not re.search("[\ud800-\udfff]", name)


SEVERAL = "it is several files in one, of which only one would be read: give each by itself"


class InputError(ValueError):
    """A person's mistake: says what was found, what was needed and what to do.

    `everywhere` is True once every rank is known to raise the same error, so that each may end by
    itself; `local` marks what may differ from machine to machine, such as a missing file. What the
    message repeats may be a stranger's: it is `shown`.
    """

    status = 2
    """What a command exits with."""

    def __init__(self, message: str, *, local: bool = False, everywhere: bool = False) -> None:
        super().__init__(shown(message))
        self.local = local
        self.everywhere = everywhere


ELSEWHERE = {
    "lr": "learning-rate", "rate": "learning-rate", "alpha": "learning-rate", "bs": "batch-size",
    "wd": "weight-decay", "l2": "weight-decay", "layers": "hidden", "units": "hidden",
    "rng": "seed", "early-stopping": "patience", "val": "validation", "label": "target",
    "output": "out", "epoch": "epochs", "scheduler": "schedule", "lr-scheduler": "schedule",
    "min-lr": "min-learning-rate", "smoothing": "label-smoothing", "ema-decay": "ema",
    "weights": "init-from", "pretrained": "init-from", "accumulate": "shards",
    "gradient-accumulation": "shards", "gradient-accumulation-steps": "shards",
    "accumulation-steps": "shards", "micro-batches": "shards",
}  # fmt: skip
"""What settings are called in other programs."""


def likely(found: str, valid: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return which of some names is meant by one that is none of them."""
    import difflib  # which takes a while, and is seldom needed

    names = list(valid)
    meant = ELSEWHERE.get(found.lower().replace("_", "-"))
    close = difflib.get_close_matches(found, names, n=1, cutoff=cutoff)
    return meant if meant in names else close[0] if close else None


def nearest(found: str, valid: Iterable[str]) -> str:
    """Return "valid: a, b; did you mean 'b'?" for a name that is not one of `valid`."""
    names = list(valid)
    close = likely(found, names)
    hint = f"; did you mean {close!r}?" if close else ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") or "none"
    return f"valid: {shown}{hint}"


def install(extra: str) -> str:
    """Return what installs an extra: its packages, by names that any clone and any index know."""
    from importlib import metadata  # which takes a while, and is seldom needed

    ends = f"extra == '{extra}'"
    named = [one.replace('"', "'").split(";") for one in metadata.requires("dptrain") or ()]
    packages = [what.strip() for what, *when in named if "".join(when).strip() == ends]
    return shlex.join(["pip", "install", *packages])


def brief(text: str, width: int = 40) -> str:
    """Return a text, cut where it is long."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def counted(number: int, noun: str) -> str:
    """Return "1 step" or "1,200 steps"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
