"""A PyTorch module as a model: its arrays lie in the flat vector, its gradient takes one copy."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from dptrain.arrays import Array, Floats, Kind, Param, Weights
from dptrain.config import Task
from dptrain.model import MakeGenerator, Sums
from dptrain.model.adapted import Adapted, missing, users_code
from dptrain.threads import threads_here
from dptrain.words import InputError

try:
    import torch
except ImportError as error:
    raise missing("torch", error) from None

LOCK = threading.RLock()
"""Held by a call: PyTorch's settings and its generator are the process's."""


class TorchModel(Adapted):
    """A `torch.nn.Module` that keeps the `Model` protocol.

    Its parameters, and the running statistics that it has (buffers named running_...), are the
    arrays of the flat vector, under its own names. They start as they are in the module, which
    itself is left as it was. Batch normalisation takes its statistics from a shard: with shards of
    few examples group or layer normalisation does better. Threads may call it, one after the other.

    Parameters
    ----------
    module
        On the CPU, all its parameters float32 or all float64. Given inputs [m, ...], it returns
        outputs [m, ...].
    loss, transform, metrics
        See `Adapted`. A function of PyTorch's that has `reduction` is called with "none".

    Raises
    ------
    InputError
        The module holds what can't be trained here, by name.
    """

    def __init__(
        self,
        module: Any,
        loss: Callable[..., Any] | None = None,
        *,
        transform: Callable[..., Any] | None = None,
        metrics: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(loss, transform, metrics)
        self.module = module
        self._params = dict(module.named_parameters())  # those that are tied once
        buffers = dict(module.named_buffers())
        self._statistics = {k: b for k, b in buffers.items() if _is_statistic(k, b)}
        self._counters = [b for k, b in buffers.items() if k.endswith("num_batches_tracked")]
        others = [*self._statistics.values(), *self._counters]
        self._constants = {k: b for k, b in buffers.items() if all(b is not o for o in others)}
        self._homes = [
            (part._buffers, name, buffer)
            for part in module.modules()
            for name, buffer in part._buffers.items()
        ]
        self.dtype = np.dtype(_one_kind(self._params | self._statistics))
        self._arrays = [*self._params.values(), *self._statistics.values()]
        self._sizes = [array.numel() for array in self._arrays]
        self._trained = [p for p in self._params.values() if p.requires_grad]
        for where, part in module.named_modules():
            if getattr(part, "track_running_stats", False) and part.momentum is None:
                raise InputError(
                    f"{where} has momentum=None, an average over all steps; its statistics need a "
                    "momentum, such as 0.1"
                )
        kinds = {f"{where}.{name}".lstrip("."): _kind(name, part)
            for where, part in module.named_modules()
            for name, _ in part.named_parameters(recurse=False)
        }  # fmt: skip
        self.layout = (
            *(Param(name, tuple(p.shape), kinds[name]) for name, p in self._params.items()),
            *(Param(name, tuple(b.shape), "statistic") for name, b in self._statistics.items()),
        )

    def initial_params(self, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Return the module's own values, shape [n]; see `Model`."""
        return np.concatenate([array.detach().numpy().ravel() for array in self._arrays])

    def loss_and_grad_sum(
        self,
        params: Floats,
        x: Array,
        y: Array,
        weights: Weights,
        out: Floats,
        rng: MakeGenerator,
    ) -> Sums:
        """Return a shard's loss and weight sums, and write the gradient's to `out`; see `Model`."""
        seed = int(rng().bit_generator.random_raw())
        with self._computing(params, seed), torch.enable_grad():
            losses, counts = self._losses(self._outputs(x), y, weights)
            if not losses.requires_grad:
                raise InputError("the loss does not depend on any parameter that is trained")
            ones = torch.ones_like(losses) if counts is None else counts
            found = torch.autograd.grad(losses, self._trained, ones, allow_unused=True)
            loss_sum, weight_sum = _sums(losses.detach(), counts)
            views, gradients = self._views(out), iter(found)
            for array, part in zip(self._params.values(), views, strict=False):
                gradient = next(gradients) if array.requires_grad else None
                part.zero_() if gradient is None else part.copy_(gradient)
            for array, part in zip(
                self._statistics.values(), views[len(self._params) :], strict=True
            ):
                torch.mul(array, weight_sum, out=part)
        return loss_sum, weight_sum

    def outputs(self, params: Floats, x: Array) -> Floats:
        """Return the module's outputs in evaluation, shape [m, ...]; see `Model`."""
        with self._computing(params, None), torch.no_grad():
            found: Floats = self._outputs(x).numpy()
            return found

    def loss_sum(self, outputs: Floats, y: Array, weights: Weights) -> Sums:
        """Return the loss sum of outputs, and the weight sum; see `Model`."""
        with LOCK, _settings(0), users_code(), torch.no_grad():
            return _sums(*self._losses(_tensor(outputs), y, weights))

    def probabilities(self, outputs: Floats) -> Floats:
        """Return probabilities [m, classes] or [m, labels]: softmax's or the sigmoid's."""
        z = _tensor(outputs)
        one = self._task != "classification" or z.ndim == 1 or z.shape[1] == 1
        found: Floats = (torch.sigmoid(z) if one else torch.softmax(z, 1)).numpy()
        return found

    def fingerprint(self) -> str:
        """Return a hash of how the module is built, and of what in it is never trained."""
        found = hashlib.sha256(repr(self.module).encode())
        for name, buffer in self._constants.items():
            found.update(name.encode() + buffer.contiguous().numpy().tobytes())
        return found.hexdigest()

    def software(self) -> list[str]:
        """Return PyTorch's version, and which instructions of the CPU it uses."""
        return [f"torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"]

    def _array(self, array: Array) -> Any:
        return _tensor(array)

    def _parts(self) -> Iterable[Any]:
        return {type(part): None for part in self.module.modules()}

    def _views(self, vector: Floats) -> list[Any]:
        """Return the named arrays of a flat vector [n], as tensors that share its memory."""
        parts = _tensor(vector).split(self._sizes)
        return [part.view(a.shape) for part, a in zip(parts, self._arrays, strict=True)]

    @contextlib.contextmanager
    def _computing(self, params: Floats, seed: int | None) -> Iterator[None]:
        """Let the module have these parameters; to train, with a seed, statistics to change."""
        training = seed is not None
        with LOCK, _settings(seed or 0), users_code():
            if self.module.training != training:
                self.module.train(training)
            lent = [*self._arrays, *self._counters]
            own = [array.data for array in lent]
            views = [*self._views(params), *(counter.clone() for counter in self._counters)]
            for number, (array, view) in enumerate(zip(lent, views, strict=True)):
                array.data = view.clone() if training and number >= len(self._params) else view
            fixed = self._params | self._constants
            versions = [array._version for array in fixed.values()]
            try:
                yield
            finally:
                for array, data in zip(lent, own, strict=True):
                    array.data = data
            now = zip(fixed.items(), versions, strict=True)
            changed = [name for (name, array), version in now if array._version != version]
            changed += [name for home, name, b in self._homes if home.get(name) is not b]
            if changed:
                raise InputError(
                    f"the module changes {changed[0]} as it computes; what may change are running "
                    "statistics of float32 or float64, in place, in buffers named running_..."
                )

    def _outputs(self, x: Array) -> Any:
        """Return what the module makes of inputs, a row for each."""
        found = self.module(_tensor(x))
        if not isinstance(found, torch.Tensor) or found.shape[:1] != x.shape[:1]:
            what = f"shape {list(found.shape)}" if isinstance(found, torch.Tensor) else repr(found)
            raise InputError(
                f"the module returns {what:.200} for {len(x)} examples; needed is a tensor "
                "[m, ...], a row for each example"
            )
        return found

    def _losses(self, outputs: Any, y: Array, weights: Weights) -> Any:
        """Return losses [m, terms], and what each counts, or None for 1."""
        losses, counts = self._find_losses(self._usual, outputs, _tensor(y))
        losses = losses.reshape(len(y), -1)
        if counts is not None:
            counts = counts.detach().reshape(losses.shape).to(losses.dtype)
        if weights is not None:
            column = torch.from_numpy(weights).to(losses.dtype)[:, None]
            counts = column.expand(losses.shape) if counts is None else counts * column
        return losses, counts

    def _usual(self, outputs: Any, targets: Any, task: Task) -> Any:
        """Return the task's usual loss [m] of outputs; means over outputs, as an `MLP` has it."""
        self._check_width(tuple(outputs.shape), targets.numel())
        functional = torch.nn.functional
        if task == "classification" and outputs.ndim == 2 and outputs.shape[1] > 1:
            return functional.cross_entropy(outputs, targets, reduction="none")
        squared = task == "regression"
        of = functional.mse_loss if squared else functional.binary_cross_entropy_with_logits
        rows = outputs.reshape(len(outputs), -1)
        return of(rows, targets.reshape(rows.shape).to(rows.dtype), reduction="none").mean(1)


def _sums(losses: Any, counts: Any) -> Sums:
    """Return the sum of losses, each times what it counts, and the sum of the latter."""
    losses = losses.double()
    if counts is None:
        return float(losses.sum()), float(losses.numel())
    return float((losses * counts).sum()), float(counts.double().sum())


def _tensor(array: Array) -> Any:
    """Return a tensor that shares an array's memory, where that may be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@contextlib.contextmanager
def _settings(seed: int) -> Iterator[None]:
    """Compute with the run's threads, the same way each time; then all is as it was."""
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


def _is_statistic(name: str, buffer: Any) -> bool:
    return buffer.is_floating_point() and name.rsplit(".", 1)[-1].startswith("running_")


def _one_kind(arrays: dict[str, Any]) -> str:
    """Return the one type of all arrays; InputError for one that can't be trained here."""
    kinds = {name: str(array.dtype).removeprefix("torch.") for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.device.type != "cpu":
            raise InputError(f"{name} is on {array.device}; needed is the CPU: module.cpu()")
        if kinds[name] not in ("float32", "float64") or len({*kinds.values()}) > 1:
            raise InputError(
                f"{name} is {kinds[name]}; needed is float32 for all arrays, or float64: "
                "module.float() or module.double()"
            )
    if not arrays:
        raise InputError("the module has no parameters to train")
    return next(iter(kinds.values()))


def of_type(module: Any, dtype: str | None) -> Any:
    """Return a module made to be of a type, where one is asked for."""
    return module if dtype is None else module.to(getattr(torch, dtype))


def _kind(name: str, part: Any) -> Kind:
    """Return what a module's parameter of this name is for."""
    return (
        "bias" if name.endswith("bias") else "norm" if "Norm" in type(part).__name__ else "weight"
    )
