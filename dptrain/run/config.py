"""All settings of a run, to and from what it stores."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dptrain.checked import Checked, Plain, option_name
from dptrain.config import FROM_PYTHON, DataConfig, ModelConfig, TrainConfig
from dptrain.data.prepare import Data
from dptrain.model import Model
from dptrain.model import load as models
from dptrain.words import InputError

Settings = Plain
"""Settings by their options' names, plain values as a run stores them."""

C = TypeVar("C", bound=Checked)


class RunConfig(NamedTuple):
    """What a run was told: its files, and the settings of data, training and model."""

    files: tuple[str, ...]
    """None for the embedded digits."""
    data: DataConfig
    train: TrainConfig
    model: ModelConfig
    """Which a model of one's own has no use for."""

    def named_files(self) -> tuple[str, ...]:
        """Return the files that the run was trained on; InputError where it was on none."""
        if self.files == (FROM_PYTHON,):
            raise InputError(
                "the run was trained on what Python gave it, not on files: name the DATA"
            )
        return self.files

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """Return what `settings` returned these of; InputError where they can't be that."""
        files = settings.get("data", [])
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise InputError(f"data is {files!r}; it must be a list of files")
        data, train = _part(DataConfig, settings), _part(TrainConfig, settings)
        return cls(tuple(files), data, train, _part(ModelConfig, settings))


def settings(data: Data, train: TrainConfig, model: Model) -> Settings:
    """Return every setting of a run, with what was decided by default."""
    found = {"data": list(data.paths), **data.config.by_option(), **models.settings(model)}
    found |= train.by_option()
    found["test-data"] = [str(Path(path).absolute()) for path in data.config.test_data]
    found["shards"] = train.num_shards
    return found


def _part(config: type[C], settings: Mapping[str, Any]) -> C:
    found = {item.name: settings.get(option_name(item), item.default) for item in fields(config)}
    return config(**found)
