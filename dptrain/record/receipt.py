"""The receipt: a line for the run and one a step, each with the hash of the line before."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.config import InputError
from dptrain.record.files import lines_of, read_object
from dptrain.record.rundir import RECEIPT


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


@dataclass
class Receipt:
    """The lines of a receipt whose chain holds: what the run is, and its steps in order."""

    first: dict[str, Any] = field(default_factory=dict)
    """What the run was when it began."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    """Lines that say what a run that went on has changed, and after which step."""
    num_lines: int = 0
    head: str = ""
    """The hash of the last line."""
    tail: list[str] = field(default_factory=list)
    """The hashes of the last step's line and of what follows it."""
    heads: dict[int, str] = field(default_factory=dict)
    """The hashes of the lines that were asked for, by number from 1."""

    def run_before(self, step: int) -> dict[str, Any]:
        """Return what the run was when it did a step: as it began, and what had changed by then."""
        found = self.first
        for note in self.notes:
            if note["step"] < step:
                found = merged(found, note["changed"])
        return found

    def add(self, line: dict[str, Any]) -> None:
        """Take the next line; ValueError where it does not follow from the one before."""
        if line.pop("previous") != self.head:
            raise ValueError("the chain is broken, by this line or by the one before")
        if self.num_lines == 0:
            self.first = {**line, "settings": {**line["settings"]}}
        elif "changed" in line:
            merged(self.first, line["changed"])  # to see that it can be done
            self.notes.append({"step": int(line["step"]), "changed": line["changed"]})
        else:
            if line["step"] != len(self.steps) + 1:
                raise ValueError(f"it is of step {line['step']}, after {len(self.steps)}")
            float.fromhex(line["loss"])
            if not isinstance(line["rows"], str) or not isinstance(line.get("params", ""), str):
                raise ValueError("its hashes are no text")
            self.steps.append(line)
        self.num_lines += 1


def read(run: Path, num_lines: int | None = None, marks: Collection[int] = ()) -> Receipt:
    """Return the receipt of a run, or its first lines, once the chain has been checked.

    `marks` are the numbers of lines, from 1, whose hashes are wanted.

    Raises
    ------
    InputError
        There is no receipt, or a line does not follow from the one before; names it.
    """
    path = run / RECEIPT
    receipt, last = Receipt(), 0
    for number, line in enumerate(lines_of(path), 1):
        if num_lines is not None and number > num_lines:
            break
        try:
            receipt.add(read_object(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(f"{path}: line {number} is damaged: {error!r}") from None
        receipt.head = head_of(line)
        if receipt.steps and receipt.steps[-1]["step"] != last:
            last, receipt.tail = receipt.steps[-1]["step"], []
        receipt.tail.append(receipt.head)
        if number in marks:
            receipt.heads[number] = receipt.head
    if num_lines is not None and receipt.num_lines < num_lines:
        raise InputError(f"{path} has {receipt.num_lines} lines; needed are {num_lines}")
    return receipt


def merged(run: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run is once things have changed; None stands for what is no longer there."""
    settings = {**run["settings"], **changed.get("settings", {})}
    found = {**run, **changed, "settings": {k: v for k, v in settings.items() if v is not None}}
    return {name: value for name, value in found.items() if value is not None}


def differences(run: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `other` is not as in `run`, in the form that `merged` takes."""

    def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        names = dict.fromkeys([*new, *old])
        return {name: new.get(name) for name in names if old.get(name) != new.get(name)}

    found = changed(run, other)
    settings = changed(run["settings"], other["settings"])
    found.pop("settings", None)
    return found | ({"settings": settings} if settings else {})
