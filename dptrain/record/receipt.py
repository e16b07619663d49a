"""The receipt: a line for the run, one a step and one for its end, each with the hash of the line
before. It is read as a stream: what is kept of it does not grow with its length."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dptrain.checked import Plain
from dptrain.record.files import lines_of, read_object
from dptrain.record.rundir import RECEIPT
from dptrain.words import InputError, quoted

OTHERWISE = "not as dptrain writes it: git's core.autocrlf, for one, changes the ends of lines"
_HASH = '"([0-9a-f]{64})"'
_STEP = re.compile(
    rf'{{"step": (\d+), "rows": {_HASH}, "loss": "([^"]+)", '
    rf'(?:"params": {_HASH}, )?"previous": {_HASH}}}'
)


def head_of(line: bytes) -> str:
    """Return the SHA-256 of a line, by which the next one names it."""
    return hashlib.sha256(line).hexdigest()


def encode(values: Mapping[str, Any], previous: str) -> bytes:
    """Return a line: values and the hash of the line before, empty for the first."""
    return json.dumps({**values, "previous": previous}).encode()


def rows_digest(rows: NDArray[np.intp]) -> str:
    """Return the SHA-256 of a minibatch's example numbers [m] as 64-bit integers, little-endian."""
    return hashlib.sha256(rows.astype("<i8", copy=False).data).hexdigest()


def step_line(step: int, rows: str, loss: float, params: str | None, previous: str) -> bytes:
    """Return the line of a step, as `encode` would, in half the time.

    rows: see `rows_digest`. loss: the minibatch's mean. params: the digest of the parameters after
    the step, where it is taken.
    """
    taken = "" if params is None else f'"params": "{params}", '
    return (
        f'{{"step": {step}, "rows": "{rows}", "loss": "{loss.hex()}", {taken}'
        f'"previous": "{previous}"}}'
    ).encode()


class Step(NamedTuple):
    """What a receipt says of a step; `loss` in hexadecimal. See `step_line`."""

    step: int
    rows: str
    loss: str
    params: str | None


class Note(NamedTuple):
    """What a run that went on has changed, after which step."""

    step: int
    changed: Plain


class End(NamedTuple):
    """What a run came to, after which step, and the SHA-256 of its model's file."""

    step: int
    end: Plain
    model: str


@dataclass
class Receipt:
    """What the lines of a receipt so far say, but for the steps; their chain holds."""

    first: Plain = field(default_factory=dict)
    """What the run was when it began."""
    run: Plain = field(default_factory=dict)
    """What it is after all lines so far."""
    notes: list[Note] = field(default_factory=list)
    end: End | None = None
    """Where the run has ended."""
    num_steps: int = 0
    last_params: str | None = None
    """The digest of the parameters after the last step, where it was taken."""
    num_lines: int = 0
    head: str = ""
    """The hash of the last line."""

    def run_before(self, step: int) -> Plain:
        """Return what the run was when it did a step: as it began, and what had changed by then."""
        found = self.first
        for note in self.notes:
            if note.step < step:
                found = merged(found, note.changed)
        return found

    def take(self, line: bytes) -> Step | None:
        """Take the next line, and return what it says of a step; None for other lines.

        Raises ArithmeticError, LookupError, TypeError, ValueError, RecursionError where it does not
        follow from the one before, or is none that dptrain writes.
        """
        if self.end is not None:
            raise ValueError("it follows the run's end")
        match = _STEP.fullmatch(line.decode("ascii")) if self.num_lines else None
        found, previous = (None, match[5]) if match else self._read(line)
        if previous != self.head:
            raise ValueError("the chain is broken, by this line or by the one before")
        if match:
            found = Step(int(match[1]), match[2], match[3], match[4])
            if found.step != self.num_steps + 1 or match[1][0] == "0":
                raise ValueError(f"it is of step {match[1]}, after {self.num_steps}")
            if float.fromhex(found.loss).hex() != found.loss:
                raise ValueError(f"its loss is {found.loss!r}")
            self.num_steps, self.last_params = self.num_steps + 1, found.params
        self.num_lines += 1
        self.head = head_of(line)
        return found

    def _read(self, line: bytes) -> tuple[None, str]:
        """Take a line that is no step's; return the hash that it names."""
        values = read_object(line)
        previous = values.pop("previous")
        if encode(values, previous) != line:
            raise ValueError(OTHERWISE)
        if self.num_lines == 0:
            self.first = self.run = {**values, "settings": {**values["settings"]}}
        elif type(values["step"]) is not int or values["step"] != self.num_steps:
            raise ValueError(f"it is of step {values['step']}, after {self.num_steps}")
        elif values.keys() == {"step", "end", "model"}:
            self.end = End(values["step"], {**values["end"]}, values["model"])
        elif values.keys() == {"step", "changed"}:
            self.run = merged(self.run, values["changed"])
            self.notes.append(Note(values["step"], values["changed"]))
        else:
            raise ValueError(f"it says {', '.join(values)}")
        return None, previous


def follow(run: Path, receipt: Receipt) -> Iterator[Step | None]:
    """Let a new receipt take all lines of a run's file; yield after each, a step's or None.

    Raises InputError where there is no receipt, or a line does not follow from the one before;
    names it.
    """
    path = run / RECEIPT
    for number, line in enumerate(lines_of(path), 1):
        try:
            step = receipt.take(line)
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is damaged: {error!r}") from None
        yield step


def first_line(run: Path) -> Receipt | None:
    """Return what the first line of a run's receipt says; None where it has none yet."""
    found = Receipt()
    return found if next(follow(run, found), found) is None else None


def head_at(run: Path, num_lines: int) -> str:
    """Return the hash of a run's line, by its number from 1: all that going on with it needs.

    Raises InputError where there are fewer, or their ends were changed.
    """
    path = run / RECEIPT
    line = next(itertools.islice(lines_of(path), num_lines - 1, None), None)
    if line is None or line.endswith(b"\r"):
        found = f"is {OTHERWISE}" if line else f"has too few lines: line {num_lines} is not there"
        mend = f"put it back whole, or begin anew with --init-from {quoted(run)}"
        raise InputError(f"{path} {found}; {mend}")
    return head_of(line)


def merged(run: Mapping[str, Any], changed: Mapping[str, Any]) -> Plain:
    """Return what a run is once things have changed; None stands for what is no longer there."""
    settings = {**run["settings"], **changed.get("settings", {})}
    found = {**run, **changed, "settings": {k: v for k, v in settings.items() if v is not None}}
    return {name: value for name, value in found.items() if value is not None}


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of what is not the same in both, or is in one only."""
    return [n for n in dict.fromkeys([*one, *other]) if one.get(n, ...) != other.get(n, ...)]


def differences(run: Mapping[str, Any], other: Mapping[str, Any]) -> Plain:
    """Return what of `other` is not as in `run`, in the form that `merged` takes."""
    found = {name: other.get(name) for name in unlike(other, run) if name != "settings"}
    old, new = run["settings"], other["settings"]
    settings = {name: new.get(name) for name in unlike(new, old)}
    return found | ({"settings": settings} if settings else {})


def places(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the innermost places where two plain values are not the same, and what stands there.

    A place is named by the keys that lead to it; None stands for what is not there.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys([*one, *other]):
            inner = f"{place}.{name}" if place else str(name)
            yield from places(one.get(name, ...), other.get(name, ...), inner)
    elif type(one) is not type(other) or one != other:
        yield place, None if one is ... else one, None if other is ... else other
