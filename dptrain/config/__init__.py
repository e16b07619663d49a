"""The settings: their names, defaults and help, for the command line, its files and Python.

Those of commands that train nothing are in `tools`, and not loaded with these.
"""

from dptrain.config.data import FROM_PYTHON, DataConfig
from dptrain.config.model import ModelConfig, ModelFile
from dptrain.config.names import (
    Activation,
    DType,
    Init,
    Loss,
    LossChoice,
    Reduction,
    Rule,
    Scale,
    Schedule,
    Task,
)
from dptrain.config.train import SHARD, TrainConfig, interval

__all__ = [
    "FROM_PYTHON",
    "SHARD",
    "Activation",
    "DType",
    "DataConfig",
    "Init",
    "Loss",
    "LossChoice",
    "ModelConfig",
    "ModelFile",
    "Reduction",
    "Rule",
    "Scale",
    "Schedule",
    "Task",
    "TrainConfig",
    "interval",
]
