"""Data-parallel minibatch training on CPUs with MPI: the same bytes on any number of processes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dptrain.arrays import Param, Sums
    from dptrain.config import DataConfig, ModelConfig, TrainConfig
    from dptrain.data.prepare import Data
    from dptrain.level import use_cpu_level
    from dptrain.model import Model
    from dptrain.model.jax import JaxModel
    from dptrain.model.mlp import MLP
    from dptrain.model.torch import TorchModel
    from dptrain.plot.curves import plot_runs
    from dptrain.run.check import Verdict
    from dptrain.run.fit import fit
    from dptrain.run.ready import check_model, load, mlp_for
    from dptrain.run.trained import Trained, load_trained
    from dptrain.run.verify import verify
    from dptrain.version import __version__
    from dptrain.words import InputError
    from dptrain.world import World, connect

__all__ = [
    "MLP",
    "Data",
    "DataConfig",
    "InputError",
    "JaxModel",
    "Model",
    "ModelConfig",
    "Param",
    "Sums",
    "TorchModel",
    "TrainConfig",
    "Trained",
    "Verdict",
    "World",
    "__version__",
    "check_model",
    "connect",
    "fit",
    "load",
    "load_trained",
    "mlp_for",
    "plot_runs",
    "use_cpu_level",
    "verify",
]

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


def __dir__() -> list[str]:
    """Return the public names, but for those whose library is not there; help() shows them."""
    from importlib.util import find_spec

    absent = {name for name, library in _LIBRARIES.items() if find_spec(library) is None}
    return sorted({*(name for name in globals() if name[:2] == "__"), *__all__} - absent)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `dptrain --help` needs no NumPy."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'dptrain' has no attribute {name!r}")
