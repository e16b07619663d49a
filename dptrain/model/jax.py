"""A pair of JAX functions as a model: their parameters are ravelled into the flat vector."""

import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats, Kind, Param, Sums, Weights
from dptrain.model import MakeGenerator
from dptrain.model.adapted import Adapted, check_rows, one_kind, sums
from dptrain.model.own_code import missing, one_thread, users_code
from dptrain.words import InputError

ASKED = one_thread()
"""Whether this process was asked for one thread already."""

try:
    import jax
    import jax.numpy as jnp
    from jax._src.xla_bridge import backends_are_initialized
except ImportError as error:
    raise missing("jax", error) from None

TOO_LATE = not ASKED and backends_are_initialized()
"""Whether JAX has started its threads before it was asked for one."""

jax.config.update("jax_platforms", "cpu")


class JaxModel(Adapted):
    """Two functions in JAX that keep the `Model` protocol.

    The leaves of the parameters are the arrays of the flat vector, named by their places, such as
    layers.0.weight. XLA computes with one thread, whatever the run's `threads`. Threads may call
    it at once. What is to stay as it is, `TrainConfig.freeze` names.

    Parameters
    ----------
    init
        Takes a key of `jax.random` and returns parameters: arrays in dicts, lists and so on, all of
        them float32, or all float64 (which needs jax_enable_x64).
    apply
        Takes parameters and inputs [m, ...] and returns outputs [m, ...]. A third argument, if it
        has one, is a key for dropout and the like in training, None else.
    loss, transform, metrics, label_smoothing
        See `Adapted`; the loss and `apply` are compiled, so must be made of what JAX can trace.

    Raises
    ------
    InputError
        The parameters can't be trained here, by name; or JAX computes already, with threads.
    """

    library: ClassVar[Any] = jnp

    def __init__(
        self,
        init: Callable[..., Any],
        apply: Callable[..., Any],
        loss: Callable[..., Any] | None = None,
        *,
        transform: Callable[..., Any] | None = None,
        metrics: Callable[..., Any] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(loss, transform, metrics, label_smoothing)
        if TOO_LATE:
            raise InputError(
                "JAX has computed before it was told to do so with one thread: have "
                "`from dptrain import JaxModel` at the top of the file"
            )
        for function in (init, apply):
            if not callable(function):
                raise InputError(f"{function!r:.200} is no function; give two: init(key), apply")
        self._init, self._apply = init, apply
        third = [one.kind.name for one in inspect.signature(apply).parameters.values()][2:3]
        self._random = third in (["POSITIONAL_ONLY"], ["POSITIONAL_OR_KEYWORD"])
        with users_code():
            shapes = jax.eval_shape(init, jax.random.key(0))
        leaves, self._tree = jax.tree_util.tree_flatten_with_path(shapes)
        arrays = [(jax.tree_util.keystr(k, simple=True, separator="."), a) for k, a in leaves]
        self.dtype = one_kind({name: str(array.dtype) for name, array in arrays})
        self.layout = tuple(Param(name, tuple(a.shape), _kind(name)) for name, a in arrays)
        self._stops = [*itertools.accumulate(param.size for param in self.layout)]
        self._gradient = jax.jit(jax.value_and_grad(self._total, has_aux=True))
        self._forward = jax.jit(lambda params, x: self._outputs(params, x, None))
        self._losses_of = jax.jit(self._losses)

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return what `init` makes of a key, shape [n]; see `Model`."""
        with users_code():
            leaves = jax.tree_util.tree_leaves(self._init(jax.random.wrap_key_data(_seed(rng))))
        return np.concatenate([np.asarray(leaf, self.dtype).ravel() for leaf in leaves])

    def loss_and_grad_sum(
        self, params: Floats, x: Array, y: Array, weights: Weights, out: Floats, rng: MakeGenerator
    ) -> Sums:
        """Return a shard's sums, and write the gradient's to `out`; see `Model`."""
        seed = _seed(rng()) if self._random else np.zeros(2, np.uint32)
        with users_code():
            (_, (outputs, losses, counts)), gradient = self._gradient(
                params, x, y, self._weights(weights), seed
            )
            out[:] = gradient
        return sums(losses, counts, self._right_sum(outputs, y, weights))

    def forget(self) -> None:
        """Have the gradient traced anew: a random number of NumPy's would be another one then."""
        self._gradient.clear_cache()

    def outputs(self, params: Floats, x: Array) -> Floats:
        """Return the outputs in evaluation, shape [m, ...]; see `Model`."""
        with users_code():
            return np.array(self._forward(params, x))

    def loss_sum(self, outputs: Floats, y: Array, weights: Weights) -> Sums:
        """Return the sums of what has these outputs; see `Model`."""
        with users_code():
            return sums(*self._losses_of(outputs, y, self._weights(weights)))

    def software(self) -> list[str]:
        """Return JAX's version and that of its compiler."""
        return [f"jax {jax.__version__}", f"jaxlib {jax.lib.__version__}"]

    def _parts(self) -> Iterable[Any]:
        return self._init, self._apply

    def _total(self, params: Any, x: Any, y: Any, weights: Any, seed: Any) -> Any:
        """Return what the gradient is of; and the outputs, the losses, and what each counts."""
        key = jax.random.wrap_key_data(seed) if self._random else None
        outputs = self._outputs(params, x, key)
        losses, counts = self._losses(outputs, y, weights, self.label_smoothing)
        return (losses if counts is None else losses * counts).sum(), (outputs, losses, counts)

    def _outputs(self, params: Any, x: Any, key: Any) -> Any:
        """Return what `apply` makes of a flat vector and inputs, a row for each."""
        parts = zip(jnp.split(params, self._stops[:-1]), self.layout, strict=True)
        leaves = [part.reshape(param.shape) for part, param in parts]
        tree = jax.tree_util.tree_unflatten(self._tree, leaves)
        found = self._apply(tree, x, *([key] if self._random else []))
        check_rows(found, len(x))
        return found

    def _constant(self, array: Any, like: Any) -> Any:
        return jax.lax.stop_gradient(array.astype(like.dtype))

    def _usual(self, outputs: Any, targets: Any) -> Any:
        if self._task == "classification" and outputs.ndim == 2 and outputs.shape[1] > 1:
            rows = jax.nn.log_softmax(outputs)
            return -jnp.take_along_axis(rows, targets[:, None], axis=1)[:, 0]
        rows = outputs.reshape(len(outputs), -1)
        targets = targets.reshape(rows.shape).astype(rows.dtype)
        if self._task == "regression":
            return jnp.square(rows - targets).mean(1)
        return (jnp.maximum(rows, 0) - rows * targets + jnp.log1p(jnp.exp(-jnp.abs(rows)))).mean(1)

    def _weights(self, weights: Weights) -> Any:
        return None if weights is None else weights.astype(self.dtype)


def _seed(rng: np.random.Generator) -> NDArray[np.uint32]:
    """Return the data of a key of `jax.random`."""
    return np.asarray(rng.bit_generator.random_raw(1)).view(np.uint32)


def _kind(name: str) -> Kind:
    """Return what an array is for, as far as its name says it."""
    last = name.rsplit(".", 1)[-1]
    return "bias" if last in ("b", "bias") else "norm" if last in ("scale", "gamma") else "weight"
