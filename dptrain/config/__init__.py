"""The settings: their names, defaults and help, for the command line, its files and Python."""

from dptrain.config.data import FROM_PYTHON, DataConfig
from dptrain.config.model import MadeByFile, ModelConfig, ModelFile
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
    TaskChoice,
)
from dptrain.config.tools import BenchConfig, ExplainConfig, PlotConfig
from dptrain.config.train import SHARD, TrainConfig, Unit, interval

__all__ = [
    "FROM_PYTHON",
    "SHARD",
    "Activation",
    "BenchConfig",
    "CpuLevel",
    "DType",
    "DataConfig",
    "ExplainConfig",
    "Init",
    "Loss",
    "LossChoice",
    "MadeByFile",
    "ModelConfig",
    "ModelFile",
    "Over",
    "Part",
    "PlotConfig",
    "Reduction",
    "Rule",
    "Scale",
    "Schedule",
    "Shuffle",
    "Task",
    "TaskChoice",
    "TrainConfig",
    "Unit",
    "interval",
]
