"""The settings: their names, defaults and help, for the command line, its files and Python.

Those of commands that train nothing are in `tools`, and not loaded with these.
"""

from dptrain.config.data import FROM_PYTHON as FROM_PYTHON
from dptrain.config.data import DataConfig as DataConfig
from dptrain.config.data import ModelConfig as ModelConfig
from dptrain.config.data import ModelFile as ModelFile
from dptrain.config.names import Activation as Activation
from dptrain.config.names import DType as DType
from dptrain.config.names import Init as Init
from dptrain.config.names import Loss as Loss
from dptrain.config.names import LossChoice as LossChoice
from dptrain.config.names import Reduction as Reduction
from dptrain.config.names import Rule as Rule
from dptrain.config.names import Scale as Scale
from dptrain.config.names import Schedule as Schedule
from dptrain.config.names import Task as Task
from dptrain.config.train import SHARD as SHARD
from dptrain.config.train import TrainConfig as TrainConfig
from dptrain.config.train import interval as interval
