"""A PyTorch module as a model: its arrays lie in the flat vector, its gradient takes one copy."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from operator import is_
from typing import Any, ClassVar, Unpack

import numpy as np

from dptrain.arrays import Array, Floats, Param, Sums, Weights, kind_by_name
from dptrain.model import MakeGenerator
from dptrain.model.adapted import Adapted, Beside, one_kind, sums
from dptrain.model.own_code import users_code
from dptrain.model.torch_settings import check_mkl, settings, threads, torch
from dptrain.words import InputError

nn = torch.nn


class TorchModel(Adapted):
    """A `torch.nn.Module` that keeps the `Model` protocol.

    Its parameters, and the running statistics that it has (buffers named running_...), are the
    arrays of the flat vector, under its own names. They start as they are in the module, which
    itself is left as it was, and stay so where `requires_grad` is False. Batch normalisation takes
    its statistics from a shard: with shards of few examples group or layer normalisation does
    better. Threads may call it, one after the other. How many compute as a module is made decides
    bits of some values, as of `nn.init.orthogonal_`: say torch.set_num_threads(1) before.

    Parameters
    ----------
    module
        On the CPU, all its parameters float32 or all float64. Given inputs [m, ...], it returns
        outputs [m, ...]. Parts of it that are in evaluation while it trains stay so.
    loss, transform, metrics, label_smoothing
        See `Adapted`. A function of PyTorch's that has `reduction` is called with "none".

    Raises
    ------
    InputError
        The module holds what can't be trained here, by name.
    """

    library: ClassVar[Any] = torch
    log_softmax: ClassVar[Any] = staticmethod(torch.log_softmax)

    def __init__(
        self, module: Any, loss: Callable[..., Any] | None = None, **beside: Unpack[Beside]
    ) -> None:
        super().__init__(loss, **beside)
        if not isinstance(module, nn.Module):
            raise InputError(f"the model is {module!r:.200}; give a torch.nn.Module, such as net()")
        check_mkl()
        self.module = module
        self._params = dict(module.named_parameters())  # those that are tied once
        self._loss_module = loss if isinstance(loss, nn.Module) else nn.Identity()
        for name, param in self._loss_module.named_parameters():
            if param.requires_grad and id(param) not in map(id, self._params.values()):
                raise InputError(f"the loss has {name} to be trained; let the module have that")
        buffers = dict(module.named_buffers())
        self._held = self._params | buffers
        self._arrays = self._params | {
            name: buffer
            for name, buffer in buffers.items()
            if buffer.is_floating_point() and name.rpartition(".")[2].startswith("running_")
        }
        self._counters = [b for name, b in buffers.items() if name.endswith("num_batches_tracked")]
        changed = {id(array) for array in (*self._arrays.values(), *self._counters)}
        self._constants = {name: b for name, b in buffers.items() if id(b) not in changed}
        for name, array in (self._arrays | self._constants).items():
            _check(name, array)
        self.dtype = one_kind(self._arrays, ": module.float() or module.double()")
        self.layout = tuple(self._param(name, array) for name, array in self._arrays.items())
        trains = (getattr(part.train, "__func__", None) for part in module.modules())
        self._sets_modes = any(train is not nn.Module.train for train in trains)

    def _param(self, name: str, array: Any) -> Param:
        """Return what an array is for; InputError for statistics without a momentum."""
        part, shape = reduce(getattr, name.split(".")[:-1], self.module), tuple(array.shape)
        if isinstance(array, nn.Parameter):
            kind = kind_by_name(name, getattr(part, "original_name", type(part).__name__))
            return Param(name, shape, kind, fixed=not array.requires_grad)
        if getattr(part, "momentum", 0) is None:
            raise InputError(
                f"{name} is an average over all steps, as its layer has momentum=None; give that a "
                "momentum, such as 0.1"
            )
        return Param(name, shape, "statistic")

    def initial_params(self, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """Return the module's own values, shape [n]; see `Model`."""
        return np.concatenate([array.detach().numpy().ravel() for array in self._arrays.values()])

    def loss_and_grad_sum(
        self, params: Floats, x: Array, y: Array, weights: Weights, out: Floats, rng: MakeGenerator
    ) -> Sums:
        """Return a shard's sums, and write the gradient's to `out`; see `Model`."""
        with self._computing(params, int(rng().bit_generator.random_raw())), torch.enable_grad():
            outputs = self.module(self._array(x))
            targets, each = self._array(y), self._array(weights)
            losses, counts = self._losses(outputs, targets, each, self.label_smoothing)
            trained = [param for param in self._params.values() if param.requires_grad]
            if not getattr(losses, "requires_grad", False):
                raise InputError("the loss does not depend on any parameter that is trained")
            one = (losses if counts is None else losses * counts).sum()  # more load SymPy, for 1 s
            grads = torch.autograd.grad(one, trained, materialize_grads=True)
            found = (grad.detach() for grad in grads)  # PyTorch 2.6 asks for those of its zeros
            total = sums(losses.detach(), counts, self._right_sum(outputs.detach(), y, weights))
            for array, part in zip(self._arrays.values(), self._views(out), strict=True):
                if not isinstance(array, nn.Parameter):
                    torch.mul(array, total.weight, out=part)
                else:
                    part.copy_(next(found).to_dense()) if array.requires_grad else part.zero_()
        return total

    @users_code()
    def fingerprint(self) -> str:
        """Return a hash of how the module is built, and of what in it is never trained."""
        fixed = [param.name for param in self.layout if param.fixed]
        modes = [part.training for part in self.module.modules() if self.module.training]
        code = [getattr(part, "code", "") for part in self.module.modules()]  # of TorchScript, FX
        parts = [*self.module.modules(), *self._loss_module.modules()]
        numbers = [sorted(_numbers(vars(part))) for part in parts]
        built = self.module, fixed, modes, code, numbers
        found = hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", repr(built)).encode())
        for name, buffer in [*self._constants.items(), *self._loss_module.named_buffers()]:
            found.update(name.encode() + buffer.contiguous().numpy().tobytes())
        return found.hexdigest()

    @users_code()
    def beside(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """Return what else the module's state has: arrays' second names, counters and constants."""
        names = {id(array): name for name, array in self._arrays.items()}
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

    def _forward(self, params: Floats, x: Array) -> Any:
        with self._computing(params, None), torch.no_grad():
            found = self.module(self._array(x))
        return found.detach() if isinstance(found, torch.Tensor) else found

    def _transformed(self, x: Array, rng: np.random.Generator) -> Array:
        with threads():
            return super()._transformed(x, rng)

    def _metric_sums(self, outputs: Floats, y: Array) -> dict[str, tuple[float, float]]:
        with settings(0):
            return super()._metric_sums(outputs, y)

    def _losses_of(self, outputs: Floats, y: Array, weights: Weights) -> tuple[Any, Any]:
        with settings(0), torch.no_grad():
            return self._losses(self._array(outputs), self._array(y), self._array(weights))

    def _state(self, found: Iterable[tuple[str, Any]]) -> set[tuple[str, Any, Any]]:
        """Return which arrays these are; of those that must stay, too, if trained, how changed."""
        stay = self._params | self._constants
        return {(k, id(a), k in stay and (a.requires_grad, a._version)) for k, a in found}

    def _views(self, vector: Floats) -> Iterator[Any]:
        """Yield the named arrays of a flat vector [n], as tensors that share its memory."""
        parts = self._array(vector).split([param.size for param in self.layout])
        return (part.view(one.shape) for part, one in zip(parts, self.layout, strict=True))

    @contextlib.contextmanager
    def _computing(self, params: Floats, seed: int | None) -> Iterator[None]:
        """Let the module have these parameters; to train, with a seed. Statistics are a copy's."""
        parts = [(part, part.training, vars(part).copy()) for part in self.module.modules()]
        lent = [*self._arrays.values(), *self._counters]
        own = [array.data for array in lent]
        with settings(seed or 0), users_code():
            training, trains = self.module.training, seed is not None
            if training != trains or self._sets_modes:
                self.module.train(trains)
                for part, mode, _ in parts:
                    part.training &= mode or not training  # what was in evaluation stays there
            for number, array in enumerate([*self._views(params), *self._counters]):
                lent[number].data = array if number < len(self._params) else array.clone()
            before = self._state(self._held.items())
            try:
                yield
            finally:
                for array, data in zip(lent, own, strict=True):
                    array.data = data
                for part, mode, _ in parts:
                    if part.training != mode:  # what is set goes a long way in PyTorch
                        part.training = mode
            found = [*self.module.named_parameters(), *self.module.named_buffers()]
            changed = [name for name, *_ in before ^ self._state(found)]
            for part, _, had in parts:
                has = vars(part)
                if len(had) != len(has) or not all(map(is_, had.values(), has.values())):
                    changed += [name for name, _ in _numbers(had) ^ _numbers(has)]
            if changed:
                raise InputError(
                    f"the module changes {min(changed)} as it computes; what may change are "
                    "statistics of float32 or float64, in place, in buffers named running_..., and "
                    "numbers named _... that nothing depends on"
                )


def _numbers(held: dict[str, Any]) -> set[tuple[str, Any]]:
    """Return the public numbers and words that a part holds, but for whether it trains."""
    found = [(k, v) for k, v in held.items() if type(v) in (bool, int, float, str)]
    return {(k, v) for k, v in found if k[0] != "_" and k != "training"}


def _check(name: str, array: Any) -> None:
    """Raise InputError for an array that has no values here that NumPy knows."""
    if nn.parameter.is_lazy(array):
        raise InputError(f"{name} has no shape yet: call the module once, on some inputs")
    if array.device.type != "cpu":
        raise InputError(f"{name} is on {array.device}; bring it to the CPU: module.cpu()")
    try:
        array.detach().contiguous().numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{name} can't be stored: {error}; give a plain tensor, as by {name}.float()"
        ) from None
