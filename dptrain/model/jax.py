"""A pair of JAX functions as a model: their parameters are ravelled into the flat vector."""

import contextlib
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats, Param, Sums, Weights, kind_by_name
from dptrain.model import MakeGenerator
from dptrain.model.adapted import Adapted, Beside, one_kind, sums
from dptrain.model.own_code import library, one_thread, users_code
from dptrain.words import InputError

ASKED = one_thread()
"""Whether this process was asked for one thread already."""

jax = library("jax")
jnp = jax.numpy

TOO_LATE = not ASKED and library("jax._src.xla_bridge").backends_are_initialized()
"""Whether JAX has started its threads before it was asked for one."""

jax.config.update("jax_platforms", "cpu")

BITS = {"jax_enable_x64": False, "jax_threefry_partitionable": True, "jax_disable_jit": False}
"""JAX's settings that decide bits, as they are where nobody has set them."""


class JaxModel(Adapted):
    """Two functions in JAX that keep the `Model` protocol.

    The leaves of the parameters are the arrays of the flat vector, named by their places, such as
    layers.0.weight. XLA computes with one thread, whatever the run's `threads`. Threads may call
    it at once. What is to stay as it is, `TrainConfig.freeze` names.

    Parameters
    ----------
    init
        Takes a key of `jax.random` and returns parameters: arrays in dicts, lists and so on, all of
        them float32, or all float64 (which needs jax_enable_x64 where the model is made).
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
    log_softmax: ClassVar[Any] = staticmethod(jax.nn.log_softmax)

    def __init__(
        self,
        init: Callable[..., Any],
        apply: Callable[..., Any],
        loss: Callable[..., Any] | None = None,
        **beside: Unpack[Beside],
    ) -> None:
        super().__init__(loss, **beside)
        if TOO_LATE:
            raise InputError(
                "JAX has computed before it was told to do so with one thread: have "
                "`from dptrain import JaxModel` at the top of the file"
            )
        for function in (init, apply):
            if not callable(function):
                raise InputError(f"{function!r:.200} is no function; give two: init(key), apply")
        self._init, self._apply = init, apply
        self.settings = {k: v for k in BITS if (v := getattr(jax.config, k)) != BITS[k]}
        third = [one.kind.name for one in inspect.signature(apply).parameters.values()][2:3]
        self._random = third in (["POSITIONAL_ONLY"], ["POSITIONAL_OR_KEYWORD"])
        with users_code():
            shapes = jax.eval_shape(init, _key(np.zeros(2, np.uint32)))
        leaves, self._tree = jax.tree_util.tree_flatten_with_path(shapes)
        name_of_place = partial(jax.tree_util.keystr, simple=True, separator=".")
        arrays = [(name_of_place(place) or "params", array) for place, array in leaves]
        self.dtype = one_kind(dict(arrays))
        self.layout = tuple(Param(name, tuple(a.shape), kind_by_name(name)) for name, a in arrays)
        self._stops = [*itertools.accumulate(param.size for param in self.layout)]
        self._gradient = jax.jit(jax.value_and_grad(self._total, has_aux=True))
        self._evaluate = jax.jit(self._outputs)
        self._judge = jax.jit(self._losses)

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return what `init` makes of a key, shape [n]; see `Model`."""
        with self._calling():
            leaves = jax.tree_util.tree_leaves(self._init(_key(_seed(rng))))
        return np.concatenate([np.asarray(leaf, self.dtype).ravel() for leaf in leaves])

    def loss_and_grad_sum(
        self, params: Floats, x: Array, y: Array, weights: Weights, out: Floats, rng: MakeGenerator
    ) -> Sums:
        """Return a shard's sums, and write the gradient's to `out`; see `Model`."""
        seed = _seed(rng()) if self._random else np.zeros(2, np.uint32)
        with self._calling():
            (_, (outputs, losses, counts)), gradient = self._gradient(
                params, self._array(x), self._array(y), weights, seed
            )
            out[:] = gradient
        return sums(losses, counts, self._right_sum(outputs, y, weights))

    def forget(self) -> None:
        """Have the gradient traced anew: a random number of NumPy's would be another one then."""
        self._gradient.clear_cache()

    def software(self) -> list[str]:
        """Return JAX's version and that of its compiler, and what else that is told to do."""
        flags = [
            one for one in os.environ.get("XLA_FLAGS", "").split() if "multi_thread" not in one
        ]
        told = f" ({' '.join(sorted(flags))})" * bool(flags)
        return [f"jax {jax.__version__}", f"jaxlib {jax.lib.__version__}{told}"]

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
        with users_code(), enable("jax_enable_x64" in self.settings):
            yield

    def _array(self, array: Array | None) -> Any:
        """Return an array; InputError for whole numbers that JAX would cut to 32 bits."""
        wide = "jax_enable_x64" in self.settings
        if array is not None and array.dtype in (np.int64, np.uint64) and not wide:
            cut = array[array != array.astype(f"{array.dtype.kind}4")]
            if cut.size:
                raise InputError(
                    f"the data have {cut[0]}, and JAX computes with 32 bits: set jax_enable_x64 "
                    "before the model is made, as by JAX_ENABLE_X64=1"
                )
        return array

    def _parts(self) -> Iterable[Any]:
        return self._init, self._apply

    def _total(self, params: Any, x: Any, y: Any, weights: Any, seed: Any) -> Any:
        """Return what the gradient is of; and the outputs, the losses, and what each counts."""
        key = _key(seed) if self._random else None
        outputs = self._outputs(params, x, key)
        losses, counts = self._losses(outputs, y, weights, self.label_smoothing)
        return (losses if counts is None else losses * counts).sum(), (outputs, losses, counts)

    def _forward(self, params: Floats, x: Array) -> Any:
        return self._evaluate(params, self._array(x))

    def _losses_of(self, outputs: Floats, y: Array, weights: Weights) -> Any:
        return self._judge(outputs, self._array(y), weights)

    def _outputs(self, params: Any, x: Any, key: Any = None) -> Any:
        """Return what `apply` makes of a flat vector and inputs, a row for each."""
        parts = zip(jnp.split(params, self._stops[:-1]), self.layout, strict=True)
        leaves = [part.reshape(param.shape) for part, param in parts]
        tree = jax.tree_util.tree_unflatten(self._tree, leaves)
        return self._apply(tree, x, *([key] if self._random else []))

    def _constant(self, array: Any, like: Any) -> Any:
        return jax.lax.stop_gradient(array.astype(like.dtype))


def _key(seed: Any) -> Any:
    """Return a key of `jax.random` of its usual kind, whatever jax_default_prng_impl says."""
    return jax.random.wrap_key_data(seed, impl="threefry2x32")


def _seed(rng: np.random.Generator) -> NDArray[np.uint32]:
    """Return the data of a key."""
    return np.asarray(rng.bit_generator.random_raw(1)).view(np.uint32)
