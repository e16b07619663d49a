"""What models of PyTorch and of JAX share: losses and metrics of one's own, sums, memory."""

import contextlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypedDict

import numpy as np

from dptrain.arrays import Array, Floats, Sums, Weights
from dptrain.checked import Plain
from dptrain.config import ModelConfig, Task
from dptrain.model.losses import LOSSES, LossFunction
from dptrain.model.own_code import keep_memory, name_of, sources_of, users_code
from dptrain.words import InputError


class Beside(TypedDict, total=False):
    """What may stand beside a network and its loss; see `Adapted`."""

    transform: Callable[..., Any] | None
    metrics: Callable[..., Any] | None
    label_smoothing: float


class Adapted:
    """A library's network as a `Model`: what does not depend on the library.

    Parameters
    ----------
    loss
        Takes outputs and targets, and returns one loss an example [m], or a term [m, ...]; never
        their mean. Or a pair of these and of how much each counts, such as a mask. The task's
        usual one unless given.
    transform
        Takes the inputs of an example of training and a generator keyed by (seed, epoch, example);
        returns them changed; real numbers become the parameters' type.
    metrics
        Takes outputs and targets, and returns sums over these examples by name, which in the end
        are divided by the number of examples; or pairs, of a sum and of what it is divided by.
    label_smoothing
        Of the usual loss for classes, in training: how much of a target all classes share.
    """

    dtype: np.dtype[Any]
    library: ClassVar[Any]
    """Has `ones_like`, `arange` and `logaddexp`."""
    log_softmax: ClassVar[Any]
    """Takes outputs [m, classes] and the axis."""
    _calling: Callable[..., contextlib.AbstractContextManager[None]] = staticmethod(users_code)
    """In it a person's code is called."""
    settings: Plain = Plain()
    """The library's, as it is set otherwise than usual."""

    def __init__(
        self,
        loss: Callable[..., Any] | None = None,
        transform: Callable[..., Any] | None = None,
        metrics: Callable[..., Any] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        keep_memory()
        self.label_smoothing = ModelConfig(label_smoothing=label_smoothing).label_smoothing
        if loss is not None and label_smoothing:
            raise InputError(f"label-smoothing is {label_smoothing}; have the given loss smooth")
        self.loss, self.metrics, self._transform = loss, metrics, transform
        for name, given in {"loss": loss, "transform": transform, "metrics": metrics}.items():
            if given is not None and (not callable(given) or isinstance(given, type)):
                raise InputError(f"{name} is {given!r:.200}; give a function, or leave it out")
        self._keywords: dict[str, str] = {}
        with contextlib.suppress(TypeError, ValueError):  # no loss, or one in C that doesn't say
            if "reduction" in inspect.signature(loss).parameters:  # type: ignore[arg-type]
                self._keywords["reduction"] = "none"
        self.transform = None if transform is None else self._transformed
        """What changes an example's inputs in training; see `Model`."""
        self.metric_sums = None if metrics is None else self._metric_sums
        """Sums for metrics of one's own, in place of the task's; see `Model`."""
        self._task: Task = "classification"
        self._width: int | None = None

    def check(self, task: Task, inputs: int, outputs: int, classes: int) -> None:  # noqa: ARG002
        """Learn what the usual loss is, and how many outputs it takes; see `Model`."""
        if self._width is not None and task != self._task:  # JAX has compiled that
            raise InputError(f"the model is one for {self._task}, and this is {task}: make another")
        self._task, self._width = task, classes or outputs

    def _transformed(self, x: Array, rng: np.random.Generator) -> Array:
        with self._calling():
            found = np.asarray(self._transform(x, rng))  # type: ignore[misc]
        if found.dtype.kind not in "biuf":
            raise InputError(f"transform returns {found.dtype}; return an array of numbers")
        return found.astype(self.dtype) if found.dtype.kind == "f" else found

    def _metric_sums(self, outputs: Floats, y: Array) -> dict[str, tuple[float, float]]:
        with self._calling():
            found = self.metrics(self._array(outputs.copy()), self._array(y))  # type: ignore[misc]
            with contextlib.suppress(AttributeError, TypeError, ValueError, ArithmeticError):
                pairs = {k: v if isinstance(v, tuple) else (v, len(y)) for k, v in found.items()}
                if "loss" not in pairs:
                    return {str(name): (float(a), float(b)) for name, (a, b) in pairs.items()}
            raise InputError(
                f"metrics returns {found!r:.200}; return sums by name, numbers as in "
                '{"right": 12}, none of them named loss'
            )

    def outputs(self, params: Floats, x: Array) -> Floats:
        """Return the network's outputs in evaluation, shape [m, ...]; see `Model`."""
        with self._calling():
            found = self._forward(params, x)
            check_rows(found, len(x))
            return np.array(np.asarray(found))  # of JAX's they can't be written to

    def loss_sum(self, outputs: Floats, y: Array, weights: Weights) -> Sums:
        """Return the sums of what has these outputs; see `Model`."""
        with self._calling():
            return sums(*self._losses_of(outputs, y, weights))

    def probabilities(self, outputs: Floats) -> Floats:
        """Return probabilities [m, classes] or [m, labels]: softmax's or the sigmoid's."""
        return self._like(outputs).probabilities(outputs)

    def _like(self, outputs: Any) -> LossFunction:
        """Return which of dptrain's losses takes such outputs of classes or labels."""
        one = self._task != "classification" or outputs.ndim == 1 or outputs.shape[1] == 1
        return LOSSES["binary-cross-entropy" if one else "cross-entropy"]

    @property
    def takes_scores(self) -> bool:
        """Whether the loss makes probabilities of the outputs, as the usual one of classes does."""
        return self.loss is None and self._task != "regression"

    def _right_sum(self, outputs: Any, y: Array, weights: Weights) -> float:
        """Return what examples weigh that are said rightly; NaN with a loss of one's own."""
        if not self.takes_scores:
            return math.nan
        scores = np.asarray(outputs)
        return self._like(scores).right_sum(scores.reshape(len(y), -1), y, weights)

    def sources(self) -> list[str]:
        """Return the text of each file that the model is made of, libraries aside."""
        parts = [*self._parts(), self.loss, self._transform, self.metrics]
        return sources_of(part for part in parts if part is not None)

    def spec(self) -> Plain:
        """Return what settings the model has, as plain values."""
        smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return {"loss": name_of(self.loss), **smoothing, **self.settings}

    def _array(self, array: Array | None) -> Any:
        """Return an array of NumPy as the library's."""
        return array

    def _parts(self) -> Iterable[Any]:
        """Return the classes and functions that the network is made of."""
        raise NotImplementedError

    def _forward(self, params: Floats, x: Array) -> Any:
        """Return the network's outputs in evaluation, as the library's."""
        raise NotImplementedError

    def _losses_of(self, outputs: Floats, y: Array, weights: Weights) -> Any:
        """Return what `_losses` makes of arrays of NumPy."""
        raise NotImplementedError

    def _constant(self, array: Any, like: Any) -> Any:
        """Return an array of the type of another, and no function of any parameter."""
        raise NotImplementedError

    def _losses(
        self, outputs: Any, targets: Any, weights: Any, smoothing: float = 0.0
    ) -> tuple[Any, Any]:
        """Return losses [m, terms], and what each counts, or None for 1. All are the library's."""
        losses, counts = self._find_losses(outputs, targets)
        if smoothing:
            losses = losses + smoothing * self._more_smoothed(outputs, targets)
        losses = losses.reshape(len(targets), -1)
        if counts is not None:
            counts = self._constant(counts.reshape(losses.shape), losses)
        if weights is not None:
            column = self._constant(weights.reshape(-1, 1), losses)
            counts = column * (self.library.ones_like(losses) if counts is None else counts)
        return losses, counts

    def _find_losses(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """Return losses, at least one an example, and how much each counts, or None for 1."""
        check_rows(outputs, len(targets))
        if self.loss is None:
            self._check_width(tuple(outputs.shape), math.prod(targets.shape))
            return self._usual(outputs, targets), None
        if "float" in str(targets.dtype) and math.prod(outputs.shape) == math.prod(targets.shape):
            targets = targets.reshape(outputs.shape)  # [m, 1] and [m] would make [m, m]
        found = self.loss(outputs, targets, **self._keywords)
        losses, counts = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        for part in (losses,) if counts is None else (losses, counts):
            if not hasattr(part, "shape") or re.search("complex|float16", str(part.dtype)):
                raise InputError(
                    f"the loss returns {kind_of(part)}; return an array of real numbers, float32 "
                    "or float64, one an example, or a pair: these, and how much each counts"
                )
        shape, num = tuple(losses.shape), len(targets)
        if not shape and num > 1:
            raise InputError(
                f"the loss returns one number for {num} examples; return one an example: shards of "
                "several sizes, and minibatches on several ranks, are only added up rightly where "
                'nothing has been divided before. In PyTorch give it reduction="none"'
            )
        if shape and (shape[0] == 0 or shape[0] % num):
            raise InputError(
                f"the loss returns shape {list(shape)} for {num} examples; return one number, or a "
                "row of terms, for each"
            )
        if counts is not None and tuple(counts.shape) != tuple(losses.shape):
            raise InputError(
                f"the loss returns losses {tuple(losses.shape)} and weights "
                f"{tuple(counts.shape)}; return a weight for each loss"
            )
        return losses, counts

    def _usual(self, outputs: Any, targets: Any) -> Any:
        """Return the task's usual loss [m] of outputs; means over outputs, as an `MLP` has it."""
        if self._task == "classification" and outputs.ndim == 2 and outputs.shape[1] > 1:
            return -self.log_softmax(outputs, 1)[self.library.arange(len(targets)), targets]
        rows = outputs.reshape(len(outputs), -1)
        targets = self._constant(targets.reshape(rows.shape), rows)
        if self._task == "regression":
            return ((rows - targets) ** 2).mean(1)
        return (self.library.logaddexp(rows, 0 * rows) - rows * targets).mean(1)

    def _more_smoothed(self, outputs: Any, targets: Any) -> Any:
        """Return how much more cross-entropy is [m] for targets that all classes share."""
        if self._task != "classification" or outputs.ndim != 2 or outputs.shape[1] < 2:
            raise InputError(
                f"label-smoothing is {self.label_smoothing}; it needs a score for each class, and "
                f"this is {self._task} with outputs of shape {list(outputs.shape)}"
            )
        picked = outputs[self.library.arange(len(targets)), targets]
        return picked - outputs.mean(1)

    def _check_width(self, shape: tuple[int, ...], num_targets: int) -> None:
        """Raise InputError where outputs of this shape are not what the usual loss takes."""
        width, rows = self._width, shape[0]
        if self._task != "classification":
            fits = len(shape) < 3 and shape[1:] in ((), (1,), (num_targets // rows,))
            fits = fits and rows * (shape[1] if len(shape) > 1 else 1) == num_targets
            needed = f"{num_targets // rows} a row, as the targets have"
        elif shape[1:] in ((), (1,)):
            fits, needed = width in (2, None), f"[m, {width}], a score for each class"
        else:
            fits = len(shape) == 2 and shape[1] == (width or shape[1])
            needed = f"[m, {width}], a score for each class"
        if not fits:
            raise InputError(
                f"the model's outputs have shape {list(shape)}; return {needed}, or give a loss "
                "of one's own"
            )


def sums(losses: Any, counts: Any, right: float = math.nan) -> Sums:
    """Return the sum of losses, each times what it counts, and the sum of the latter."""
    found = np.asarray(losses).astype(np.float64, copy=False)
    if counts is None:
        return Sums(float(found.sum()), float(found.size), right)
    weights = np.asarray(counts).astype(np.float64, copy=False)
    if (weights < 0).any():
        raise InputError(
            f"the loss returns {weights.min():g} for how much an example counts; return numbers of "
            "at least 0"
        )
    return Sums(float((found * weights).sum()), float(weights.sum()), right)


def one_kind(arrays: Mapping[str, Any], how: str = "") -> np.dtype[Any]:
    """Return the one type of all arrays; InputError, by name, for one that can't be trained."""
    kinds = {name: kind_of(array) for name, array in arrays.items()}
    if not kinds:
        raise InputError("the model has no parameters to train")
    first = next((kind for kind in kinds.values() if kind in ("float32", "float64")), None)
    for name, kind in kinds.items():
        if kind != first:
            raise InputError(f"{name} is {kind}; give float32 for all arrays, or float64{how}")
    return np.dtype(first)


def check_rows(found: Any, num: int) -> None:
    """Raise InputError where a network has not returned a row for each of so many examples."""
    shape = getattr(found, "shape", None)
    if shape is None or tuple(shape[:1]) != (num,):
        what = kind_of(found) if shape is None else f"shape {list(shape)}"
        raise InputError(
            f"the network returns {what} for {num} examples; give an array [m, ...], a row each"
        )
    if kind_of(found) not in ("float32", "float64", "complex64", "complex128"):
        raise InputError(f"the network returns {kind_of(found)}; give float32 or float64")


def kind_of(found: Any) -> str:
    """Return what something is called: the type of an array's numbers, or its own."""
    return str(getattr(found, "dtype", f"a {type(found).__name__}")).removeprefix("torch.")
