"""What decides a run's bytes, and what a checkpoint says: as values that read themselves."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from dptrain.checked import Plain
from dptrain.record.receipt import Receipt
from dptrain.record.rundir import RECEIPT
from dptrain.record.writer import Files
from dptrain.run.config import Settings
from dptrain.train.state import State
from dptrain.words import InputError


class Identity(NamedTuple):
    """What ranks, who goes on with a run and who replays it must have the same."""

    dptrain: str
    numpy: str
    blas: list[str]
    """With version, and whose products it has."""
    cpu_level: list[str]
    """What each rank computes with; see `InUse.text`."""
    libm: list[str]
    """See `InUse.libm`."""
    cpu: list[str]
    """The CPUs' names, which decide nothing."""
    data: dict[str, str]
    """Shapes and a hash of each table."""
    shards: int
    threads: int
    model: Plain
    """See `described`."""
    num_params: int
    hash_every: int
    hash_block: int
    settings: Settings
    ranks: int | None = None
    """With `--reduce allreduce`, whose bits depend on them."""
    libraries: list[str] | None = None
    """What else a model of one's own computes with."""

    def plain(self) -> Plain:
        """Return it as plain values, as they will be read again; None is left out."""
        values = {name: value for name, value in self._asdict().items() if value is not None}
        settings = {name: value for name, value in self.settings.items() if value is not None}
        found: Plain = json.loads(json.dumps(values | {"settings": settings}))
        return found

    @classmethod
    def read(cls, values: object) -> "Identity":
        """Return what `plain` returned these values of; ValueError where they can't be that."""
        if not isinstance(values, dict) or not isinstance(values.get("settings"), dict):
            raise ValueError("it does not say what the run is")
        names = {*cls._fields}
        found: Plain = dict.fromkeys(names) | values
        if found.keys() != names:
            raise ValueError(f"it says of the run what none has: {sorted(found.keys() - names)}")
        return cls(**found)


def told(receipt: Receipt, step: int) -> Identity:
    """Return what a receipt says that a run was when it did a step; InputError where it can't be.

    Step 0 is its beginning.
    """
    try:
        return Identity.read(receipt.run_before(step))
    except ValueError as error:
        raise InputError(f"{RECEIPT} is damaged: {error}") from None


class Saved(NamedTuple):
    """What a checkpoint says beside its arrays."""

    state: State
    files: Files
    run: Identity

    def plain(self) -> Plain:
        """Return it as plain values."""
        return self.state.plain() | self.files._asdict() | {"run": self.run.plain()}

    @classmethod
    def read(cls, values: Mapping[str, object], step: int) -> "Saved":
        """Return what `plain` returned these values of; ValueError where they can't be that.

        `step` is that of the file's name.
        """
        state = State.read(values)
        if state.step != step:
            raise ValueError(f"it is of step {state.step}")
        return cls(state, Files.read(values), Identity.read(values.get("run")))
