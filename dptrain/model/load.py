"""How a model's arrays are stored, and the models that dptrain makes again by itself."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dptrain.arrays import Array, Floats, Forms, views
from dptrain.checked import Plain
from dptrain.config import ModelFile
from dptrain.model import Model, is_own
from dptrain.model.mlp import MLP


def settings(model: Model) -> Plain:
    """Return what makes a model again, given the data, by the options' names.

    Of one that a file makes never which file is to be run; nothing of one from Python.
    """
    if type(model) is MLP:
        return model.config.by_option()
    origin: ModelFile | None = getattr(model, "origin", None)
    if origin is None:
        return {}
    return {
        "model-arg": origin.model_arg,
        "model-sha256": origin.model_sha256,
        "dtype": np.dtype(model.dtype).name,
        "label-smoothing": getattr(model, "label_smoothing", 0.0),
    }


def remade(stored: Any) -> Model | None:
    """Return the model that `described` returned this of; None for one of one's own.

    Raises ValueError, KeyError or TypeError for what describes no model, as a stranger's may.
    """
    if is_own(stored):
        return None
    if stored["class"] != MLP.__qualname__:
        raise ValueError(f"the model is {stored['class']!r}")
    return MLP(**stored["spec"])


def forms(model: Model) -> Forms:
    """Return the types and shapes of the arrays that `tensors` returns."""
    empty = np.zeros((), model.dtype)
    arrays = {param.name: np.broadcast_to(empty, param.shape) for param in model.layout}
    return {name: (array.dtype.name, array.shape) for name, array in stored(model, arrays).items()}


def tensors(model: Model, params: Floats) -> dict[str, Array]:
    """Return the arrays to store, each contiguous: those of the layout by their names, in order.

    An `MLP`'s weights are [outputs, inputs], as in PyTorch's Linear layers. Then what the model
    has `beside` them.
    """
    found = stored(model, views(model.layout, params))
    return {name: np.asarray(array, order="C") for name, array in found.items()}


def stored(model: Model, arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the same without copies, of the layout's arrays by name."""
    if type(model) is MLP:
        return _turned(arrays)
    ask: Callable[[dict[str, Array]], dict[str, Array]] | None = getattr(model, "beside", None)
    return arrays if ask is None else arrays | ask(arrays)


def put(model: Model, params: Floats, name: str, array: Array) -> None:
    """Set one of a model's arrays in a flat vector [n] to what `tensors` has for it."""
    own = views(model.layout, params)[name]
    own[...] = _turned({name: array})[name] if type(model) is MLP else array


def _turned(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a perceptron's arrays as they are stored, or those stored as they are computed with.

    The numbers of categories are [categories, numbers] here and there.
    """
    return {n: a if n.startswith("embedding.") else a.T for n, a in arrays.items()}


def params_of(stored: Any, arrays: Mapping[str, Array]) -> Floats:
    """Return the parameters [n] that `tensors` has made these arrays of.

    `stored` is what `described` returned of their model. One of one's own lies in the file as in
    its layout. Raises ValueError, also KeyError or TypeError, where they can't be that.
    """
    made = remade(stored)
    wanted = forms(made) if made else {n: (a.dtype.name, a.shape) for n, a in arrays.items()}
    if {name: (array.dtype.name, array.shape) for name, array in arrays.items()} != wanted:
        raise ValueError(f"the arrays are {', '.join(arrays)}, and should be {wanted}")
    if len({kind for kind, _ in wanted.values()}) != 1:
        raise ValueError("there are no parameters of one type")
    found = _turned(arrays) if made else arrays
    return np.concatenate([found[name].ravel() for name in wanted])
