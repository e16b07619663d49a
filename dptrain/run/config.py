"""What a run stores of itself, as values that read themselves: settings, identity, checkpoint."""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dptrain.checked import Checked, Plain, fits, option_name
from dptrain.config import FROM_PYTHON, DataConfig, ModelConfig, TrainConfig
from dptrain.data.prepare import Data
from dptrain.model import Model
from dptrain.model import load as models
from dptrain.record.receipt import Receipt
from dptrain.record.rundir import RECEIPT
from dptrain.record.writer import Files
from dptrain.train.state import State
from dptrain.words import InputError

C = TypeVar("C", bound=Checked)


def check_there(files: Sequence[str]) -> None:
    """Raise InputError where a run's own file is gone, on a rank that misses it."""
    for name in files:
        if not os.path.lexists(name) and not glob.has_magic(name):
            raise InputError(
                f"{name} is not there any more; if the run's data has moved, name its files: DATA",
                local=True,
            )


class RunConfig(NamedTuple):
    """What a run was told: its files, and the settings of data, training and model."""

    files: tuple[str, ...]
    """None for the embedded digits."""
    data: DataConfig
    train: TrainConfig
    model: ModelConfig
    """Which a model of one's own has no use for."""

    def named_files(self) -> tuple[str, ...]:
        """Return the files that the run was trained on; InputError where it was on none, or where
        they are gone.
        """
        if self.files == (FROM_PYTHON,):
            raise InputError("the run was trained on what Python gave it: name the DATA")
        check_there(self.files)
        return self.files

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """Return what `settings` returned these of; InputError where they can't be that."""
        files = settings.get("data", [])
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise InputError(f"data is {files!r}; it must be a list of files")
        data, train = _part(DataConfig, settings), _part(TrainConfig, settings)
        return cls(tuple(files), data, train, _part(ModelConfig, settings))


def settings(data: Data, train: TrainConfig, model: Model) -> Plain:
    """Return every setting of a run by its option's name, with what was decided by default."""
    found = {"data": list(data.paths), **data.config.by_option(), **models.settings(model)}
    found |= train.by_option()
    found["test-data"] = [str(Path(path).absolute()) for path in data.config.test_data]
    found["shards"] = train.num_shards
    return found


def _part(config: type[C], settings: Mapping[str, Any]) -> C:
    found = {item.name: settings.get(option_name(item), item.default) for item in fields(config)}
    return config(**found)


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
    settings: Plain
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
        if not isinstance(values, dict):
            raise ValueError("it does not say what the run is")
        found: Plain = dict.fromkeys(cls._fields) | values
        more = sorted(found.keys() - {*cls._fields})
        if more:
            raise ValueError(f"it says of the run what none has: {more}")
        for name, kind in cls.__annotations__.items():
            if not fits(found[name], kind):
                raise ValueError(f"it says that the run's {name} is {found[name]!r}")
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
