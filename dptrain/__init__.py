"""Data-parallel minibatch training on CPUs with MPI: the same bytes on any number of processes."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dptrain.arrays import Param as Param
    from dptrain.arrays import Sums as Sums
    from dptrain.config import DataConfig as DataConfig
    from dptrain.config import ModelConfig as ModelConfig
    from dptrain.config import TrainConfig as TrainConfig
    from dptrain.data.prepare import Data as Data
    from dptrain.level import use_cpu_level as use_cpu_level
    from dptrain.model import Model as Model
    from dptrain.model.jax import JaxModel as JaxModel
    from dptrain.model.mlp import MLP as MLP
    from dptrain.model.torch import TorchModel as TorchModel
    from dptrain.plot.curves import plot_runs as plot_runs
    from dptrain.run.check import Verdict as Verdict
    from dptrain.run.fit import fit as fit
    from dptrain.run.ready import check_model as check_model
    from dptrain.run.ready import load as load
    from dptrain.run.ready import mlp_for as mlp_for
    from dptrain.run.trained import Trained as Trained
    from dptrain.run.trained import load_trained as load_trained
    from dptrain.run.verify import verify as verify
    from dptrain.version import __version__ as __version__
    from dptrain.words import InputError as InputError
    from dptrain.world import World as World
    from dptrain.world import connect as connect

os.environ.setdefault("MKL_CBWR", "AUTO")  # else its products depend on where arrays lie in memory

_HOMES = {
    "dptrain.arrays": ("Param", "Sums"),
    "dptrain.config": ("DataConfig", "ModelConfig", "TrainConfig"),
    "dptrain.data.prepare": ("Data",),
    "dptrain.level": ("use_cpu_level",),
    "dptrain.model": ("Model",),
    "dptrain.model.jax": ("JaxModel",),
    "dptrain.model.mlp": ("MLP",),
    "dptrain.model.torch": ("TorchModel",),
    "dptrain.plot.curves": ("plot_runs",),
    "dptrain.run.check": ("Verdict",),
    "dptrain.run.fit": ("fit",),
    "dptrain.run.ready": ("check_model", "load", "mlp_for"),
    "dptrain.run.trained": ("Trained", "load_trained"),
    "dptrain.run.verify": ("verify",),
    "dptrain.version": ("__version__",),
    "dptrain.words": ("InputError",),
    "dptrain.world": ("World", "connect"),
}

_LIBRARIES = {"TorchModel": "torch", "JaxModel": "jax"}


def _there() -> list[str]:
    """Return the public names, but for those whose library is not there."""
    from importlib.util import find_spec

    absent = {name for name, library in _LIBRARIES.items() if find_spec(library) is None}
    return sorted({name for names in _HOMES.values() for name in names} - absent)


def __dir__() -> list[str]:
    """Return what help() shows."""
    return sorted({*(name for name in globals() if name[:2] == "__"), *_there()})


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `dptrain --help` needs no NumPy."""
    if name == "__all__":  # of `from dptrain import *`
        return _there()
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'dptrain' has no attribute {name!r}")
