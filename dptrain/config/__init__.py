"""The settings: their names, defaults and help, for the command line, its files and Python.

Those of commands that train nothing are in `tools`, and not loaded with these.
"""

from dptrain.config.data import FROM_PYTHON, DataConfig
from dptrain.config.model import ModelConfig, ModelFile
from dptrain.config.names import (
    Activation,
    CpuLevel,
    DType,
    Init,
    Loss,
    LossChoice,
    Over,
    Part,
    Reduction,
    Rule,
    Scale,
    Schedule,
    Shuffle,
    Task,
)
from dptrain.config.train import SHARD, TrainConfig, interval

__all__ = [
    "FROM_PYTHON",
    "SHARD",
    "Activation",
    "CpuLevel",
    "DType",
    "DataConfig",
    "Init",
    "Loss",
    "LossChoice",
    "ModelConfig",
    "ModelFile",
    "Over",
    "Part",
    "Reduction",
    "Rule",
    "Scale",
    "Schedule",
    "Shuffle",
    "Task",
    "TrainConfig",
    "interval",
]
