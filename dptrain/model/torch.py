"""A PyTorch module as a model: its arrays lie in the flat vector, its gradient takes one copy."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from dptrain.arrays import Array, Floats, Param, Sums, Weights
from dptrain.model import MakeGenerator
from dptrain.model.adapted import Adapted, check_rows, sums
from dptrain.model.own_code import users_code
from dptrain.model.torch_module import check_constants, check_module, kinds_in, settings, type_of
from dptrain.words import InputError

import torch  # isort: skip (which has been missed, if it is not here)


class TorchModel(Adapted):
    """A `torch.nn.Module` that keeps the `Model` protocol.

    Its parameters, and the running statistics that it has (buffers named running_...), are the
    arrays of the flat vector, under its own names. They start as they are in the module, which
    itself is left as it was, and stay so where `requires_grad` is False. Batch normalisation takes
    its statistics from a shard: with shards of few examples group or layer normalisation does
    better. Threads may call it, one after the other.

    Parameters
    ----------
    module
        On the CPU, all its parameters float32 or all float64. Given inputs [m, ...], it returns
        outputs [m, ...].
    loss, transform, metrics, label_smoothing
        See `Adapted`. A function of PyTorch's that has `reduction` is called with "none".

    Raises
    ------
    InputError
        The module holds what can't be trained here, by name.
    """

    library: ClassVar[Any] = torch

    def __init__(
        self,
        module: Any,
        loss: Callable[..., Any] | None = None,
        *,
        transform: Callable[..., Any] | None = None,
        metrics: Callable[..., Any] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(loss, transform, metrics, label_smoothing)
        self.module = module
        check_module(module)
        self._params = dict(module.named_parameters())  # those that are tied once
        buffers = dict(module.named_buffers())
        self._statistics = {
            k: b
            for k, b in buffers.items()
            if b.is_floating_point() and k.rsplit(".", 1)[-1].startswith("running_")
        }
        self._counters = [b for k, b in buffers.items() if k.endswith("num_batches_tracked")]
        changed = {id(buffer) for buffer in (*self._statistics.values(), *self._counters)}
        self._constants = {k: b for k, b in buffers.items() if id(b) not in changed}
        check_constants(self._constants)
        self._homes = [
            (part._buffers, name, buffer)
            for part in module.modules()
            for name, buffer in part._buffers.items()
        ]
        named = self._params | self._statistics
        self._arrays = [*named.values()]
        self._sizes = [array.numel() for array in self._arrays]
        self._trained = [p for p in self._params.values() if p.requires_grad]
        self.dtype = type_of(named)
        kinds = dict(kinds_in(module))
        fixed = {name for name, param in self._params.items() if not param.requires_grad}
        self.layout = tuple(
            Param(k, tuple(a.shape), kinds.get(k, "statistic"), k in fixed)
            for k, a in named.items()
        )

    def initial_params(self, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Return the module's own values, shape [n]; see `Model`."""
        return np.concatenate([array.detach().numpy().ravel() for array in self._arrays])

    def loss_and_grad_sum(
        self, params: Floats, x: Array, y: Array, weights: Weights, out: Floats, rng: MakeGenerator
    ) -> Sums:
        """Return a shard's sums, and write the gradient's to `out`; see `Model`."""
        seed = int(rng().bit_generator.random_raw())
        with self._computing(params, seed), torch.enable_grad():
            targets, each = self._array(y), self._array(weights)
            outputs = self._outputs(x)
            losses, counts = self._losses(outputs, targets, each, self.label_smoothing)
            if not losses.requires_grad:
                raise InputError("the loss does not depend on any parameter that is trained")
            ones = torch.ones_like(losses) if counts is None else counts
            found = iter(torch.autograd.grad(losses, self._trained, ones, allow_unused=True))
            right = self._right_sum(outputs.detach(), y, weights)
            total = sums(losses.detach(), counts, right)
            for param, array, part in zip(self.layout, self._arrays, self._views(out), strict=True):
                if param.kind == "statistic":
                    torch.mul(array, total.weight, out=part)
                    continue
                gradient = next(found) if array.requires_grad else None
                part.zero_() if gradient is None else part.copy_(gradient.to_dense())
        return total

    def outputs(self, params: Floats, x: Array) -> Floats:
        """Return the module's outputs in evaluation, shape [m, ...]; see `Model`."""
        with self._computing(params, None), torch.no_grad():
            return np.asarray(self._outputs(x))

    def loss_sum(self, outputs: Floats, y: Array, weights: Weights) -> Sums:
        """Return the sums of what has these outputs; see `Model`."""
        with settings(0), users_code(), torch.no_grad():
            return sums(*self._losses(self._array(outputs), self._array(y), self._array(weights)))

    def fingerprint(self) -> str:
        """Return a hash of how the module is built, and of what in it is never trained."""
        fixed = [param.name for param in self.layout if param.fixed]
        found = hashlib.sha256(repr((self.module, fixed)).encode())
        for name, buffer in self._constants.items():
            found.update(name.encode() + buffer.contiguous().numpy().tobytes())
        return found.hexdigest()

    def beside(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """Return what else the module's state has: arrays' second names, counters and constants."""
        names = {id(array): name for name, array in (self._params | self._statistics).items()}
        return {
            name: arrays[names[id(found)]] if id(found) in names else found.detach().numpy()
            for name, found in self.module.state_dict(keep_vars=True).items()
            if isinstance(found, torch.Tensor) and name not in arrays
        }

    def software(self) -> list[str]:
        """Return PyTorch's version, and which instructions of the CPU it uses."""
        return [f"torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"]

    def _array(self, array: Array | None) -> Any:
        """Return a tensor that shares an array's memory, where that may be written to."""
        if array is None:
            return None
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    def _constant(self, array: Any, like: Any) -> Any:
        return array.detach().to(like.dtype)

    def _parts(self) -> Iterable[Any]:
        return {type(part): None for part in self.module.modules()}

    def _views(self, vector: Floats) -> list[Any]:
        """Return the named arrays of a flat vector [n], as tensors that share its memory."""
        parts = self._array(vector).split(self._sizes)
        return [part.view(a.shape) for part, a in zip(parts, self._arrays, strict=True)]

    @contextlib.contextmanager
    def _computing(self, params: Floats, seed: int | None) -> Iterator[None]:
        """Let the module have these parameters; to train, with a seed, statistics to change."""
        training, before = seed is not None, self.module.training
        with settings(seed or 0), users_code():
            if training != before:
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
                if training != before:
                    self.module.train(before)
            now = zip(fixed.items(), versions, strict=True)
            changed = [name for (name, array), version in now if array._version != version]
            changed += [name for home, name, b in self._homes if home.get(name) is not b]
            if changed:
                raise InputError(
                    f"the module changes {changed[0]} as it computes; what may change are running "
                    "statistics of float32 or float64, in place, in buffers named running_..."
                )

    def _outputs(self, x: Array) -> Any:
        found = self.module(self._array(x))
        check_rows(found, len(x))
        return found

    def _usual(self, outputs: Any, targets: Any) -> Any:
        functional = torch.nn.functional
        if self._task == "classification" and outputs.ndim == 2 and outputs.shape[1] > 1:
            return functional.cross_entropy(outputs, targets, reduction="none")
        rows, squared = outputs.reshape(len(outputs), -1), self._task == "regression"
        of = functional.mse_loss if squared else functional.binary_cross_entropy_with_logits
        return of(rows, targets.reshape(rows.shape).to(rows.dtype), reduction="none").mean(1)
