"""PyTorch: what a module holds, by kind, and the settings that a call computes with."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from dptrain.arrays import Kind
from dptrain.model.adapted import one_kind
from dptrain.model.own_code import missing
from dptrain.threads import threads_here
from dptrain.words import InputError

try:
    import torch
    from torch import nn
except ImportError as error:
    raise missing("torch", error) from None

LOCK = threading.RLock()
"""The settings are the process's: they are lent to one call at a time, so that it repeats."""


def check_module(module: Any) -> None:
    """Raise InputError for what is no module, or has no values yet."""
    if not isinstance(module, nn.Module):
        raise InputError(f"the model is {module!r:.200}; give a torch.nn.Module, such as net()")
    for name, param in module.named_parameters():
        if nn.parameter.is_lazy(param):
            raise InputError(f"{name} has no shape yet: call the module once, on some inputs")


def check_constants(buffers: dict[str, Any]) -> None:
    """Raise InputError for a buffer that NumPy knows no array for."""
    for name, buffer in buffers.items():
        try:
            buffer.contiguous().numpy()
        except (TypeError, RuntimeError) as error:
            raise InputError(
                f"{name} can't be stored: {error}; give a plain tensor on the CPU, as by "
                f"{name}.float(), or one that is no buffer"
            ) from None


def type_of(arrays: dict[str, Any]) -> np.dtype[Any]:
    """Return the one type of all arrays; InputError for one that can't be trained here."""
    for name, array in arrays.items():
        if array.device.type != "cpu":
            raise InputError(f"{name} is on {array.device}; bring it to the CPU: module.cpu()")
    kinds = {name: str(array.dtype).removeprefix("torch.") for name, array in arrays.items()}
    return one_kind(kinds, ": module.float() or module.double()")


def kinds_in(module: Any) -> Iterator[tuple[str, Kind]]:
    """Yield what each parameter is for, by name; InputError for statistics without a momentum."""
    for where, part in module.named_modules():
        if getattr(part, "track_running_stats", False) and part.momentum is None:
            raise InputError(
                f"{where} has momentum=None, an average over all steps; its statistics need a "
                "momentum, such as 0.1"
            )
        other: Kind = "norm" if "Norm" in type(part).__name__ else "weight"
        for name, _ in part.named_parameters(recurse=False):
            yield f"{where}.{name}".lstrip("."), "bias" if name.endswith("bias") else other


@contextlib.contextmanager
def settings(seed: int) -> Iterator[None]:
    """Compute with the run's threads, the same way each time; then all is as it was."""
    with LOCK:
        threads, debug = torch.get_num_threads(), torch.get_deterministic_debug_mode()
        fill, random = torch.utils.deterministic.fill_uninitialized_memory, torch.get_rng_state()
        torch.set_num_threads(threads_here())
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(debug)
            torch.utils.deterministic.fill_uninitialized_memory = fill
            torch.set_rng_state(random)
