"""What models of PyTorch and of JAX share: a loss of one's own, and what they are known by."""

import contextlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dptrain.arrays import Array, Floats
from dptrain.config import Task
from dptrain.model import Sums, source_of
from dptrain.words import InputError

OUR_ROOMS = ("torch", "jax", "jaxlib", "numpy", "dptrain", "builtins", "functools")
"""Libraries whose source says nothing of a model: the receipt names their versions."""


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
        returns them changed.
    metrics
        Takes outputs and targets, and returns sums over these examples by name, which in the end
        are divided by the number of examples; or pairs, of a sum and of what it is divided by.
    """

    def __init__(
        self,
        loss: Callable[..., Any] | None,
        transform: Callable[..., Any] | None,
        metrics: Callable[..., Any] | None,
    ) -> None:
        self.loss, self.metrics = loss, metrics
        self._transform = transform
        self._task: Task = "classification"
        self._width: int | None = None

    def check(self, task: Task, inputs: int, outputs: int, classes: int) -> None:  # noqa: ARG002
        """Learn what the usual loss is, and how many outputs it takes; see `Model`."""
        self._task, self._width = task, classes or outputs

    @property
    def transform(self) -> Callable[[Array, np.random.Generator], Array] | None:
        """What changes an example's inputs in training; see `Model`."""
        return None if self._transform is None else self._transformed

    def _transformed(self, x: Array, rng: np.random.Generator) -> Array:
        with users_code():
            return np.asarray(self._transform(x, rng))  # type: ignore[misc]

    @property
    def metric_sums(self) -> Callable[[Floats, Array], dict[str, Sums]] | None:
        """Sums for metrics of one's own, in place of the task's; see `Model`."""
        return None if self.metrics is None else self._metric_sums

    def _metric_sums(self, outputs: Floats, y: Array) -> dict[str, Sums]:
        with users_code():
            found = self.metrics(self._array(outputs), self._array(y))  # type: ignore[misc]
            pairs = {k: v if isinstance(v, tuple) else (v, len(y)) for k, v in found.items()}
            return {str(name): (float(a), float(b)) for name, (a, b) in pairs.items()}

    def _array(self, array: Array) -> Any:
        """Return an array of NumPy as the library's."""
        return array

    def sources(self) -> list[str]:
        """Return the text of each file that the model is made of, libraries aside."""
        parts = [*self._parts(), self.loss, self._transform, self.metrics]
        return sources_of(part for part in parts if part is not None)

    def spec(self) -> dict[str, Any]:
        """Return what settings the model has, as plain values."""
        return {"loss": _name(self.loss)}

    def _parts(self) -> Iterable[Any]:
        """Return the classes and functions that the network is made of."""
        raise NotImplementedError

    def _find_losses(self, usual: Callable[..., Any], outputs: Any, targets: Any) -> Any:
        """Return losses, at least one an example, and how much each counts, or None for 1."""
        if tuple(outputs.shape[:1]) != tuple(targets.shape[:1]):
            raise InputError(
                f"the model's outputs have shape {tuple(outputs.shape)} for {len(targets)} "
                "examples; needed is a row for each"
            )
        if self.loss is None:
            return usual(outputs, targets, self._task), None
        if "float" in str(targets.dtype) and math.prod(outputs.shape) == math.prod(targets.shape):
            targets = targets.reshape(outputs.shape)  # [m, 1] and [m] would make [m, m]
        keywords = {"reduction": "none"} if _takes_reduction(self.loss) else {}
        found = self.loss(outputs, targets, **keywords)
        losses, counts = found if isinstance(found, tuple) else (found, None)
        check_losses(tuple(losses.shape), len(targets))
        if counts is not None and tuple(counts.shape) != tuple(losses.shape):
            raise InputError(
                f"the loss returns losses {tuple(losses.shape)} and weights "
                f"{tuple(counts.shape)}; needed is a weight for each loss"
            )
        return losses, counts

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
                f"the model's outputs have shape {list(shape)}; needed is {needed}, or a loss of "
                "one's own"
            )


def check_losses(shape: tuple[int, ...], num_examples: int) -> None:
    """Raise InputError where a loss returned no number for each of so many examples."""
    if not shape and num_examples > 1:
        raise InputError(
            f"the loss returns one number for {num_examples} examples; needed is one an example: "
            "shards of several sizes, and minibatches on several ranks, are only added up rightly "
            'where nothing has been divided before. In PyTorch give it reduction="none"'
        )
    if shape and (shape[0] == 0 or shape[0] % num_examples):
        raise InputError(
            f"the loss returns shape {list(shape)} for {num_examples} examples; needed is one "
            "number, or a row of terms, for each"
        )


def sources_of(parts: Iterable[Any]) -> list[str]:
    """Return the text of each file that some classes and functions are from, libraries aside."""
    found = set()
    for part in parts:
        part = getattr(part, "func", part)  # of a partial
        part = part if inspect.isclass(part) or inspect.isroutine(part) else type(part)
        if str(part.__module__).split(".")[0] in OUR_ROOMS:
            continue
        try:
            found.add(Path(str(inspect.getsourcefile(part))).read_text(errors="replace"))
        except (OSError, TypeError):  # as in a shell
            found.add(source_of(part))
    return sorted(found)


@contextlib.contextmanager
def users_code() -> Iterator[None]:
    """Say in one line where code of a person's own has failed; the traceback is the cause's."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        own = [f for f in traceback.extract_tb(error.__traceback__) if _is_own(f.filename)]
        where = f"{own[-1].filename}, line {own[-1].lineno}, in {own[-1].name}: " if own else ""
        text = "".join(traceback.format_exception_only(error)).strip()
        raise InputError(f"the model's code failed: {where}{' '.join(text.split())}") from error


def _is_own(file: str) -> bool:
    """Return whether a file is neither a library's nor of dptrain."""
    library = {"site-packages", "dist-packages", Path(__file__).parents[1].name}
    return not library & {*Path(file).parts} and not file.startswith("<")


def one_thread() -> bool:
    """Have XLA compute with one thread, if it has not begun to; return whether it was told so."""
    told = {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    before = all(value in os.environ.get(name, "") for name, value in told.items())
    if not before:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ |= told | {"XLA_FLAGS": f"{flags} {told['XLA_FLAGS']}".strip()}
    return before


def missing(library: str, error: ImportError) -> InputError:
    """Return the error of a library that is not installed."""
    return InputError(
        f"{library} can't be imported ({error}): pip install 'dptrain[{library}]', with Python "
        f"{sys.version_info.major}.{sys.version_info.minor} of {sys.prefix}",
        local=True,
    )


def _takes_reduction(loss: Callable[..., Any]) -> bool:
    """Return whether a loss is told whether to average, as PyTorch's functions are."""
    try:
        return "reduction" in inspect.signature(loss).parameters
    except (TypeError, ValueError):
        return False


def _name(function: Any) -> str | None:
    if function is None:
        return None
    function = getattr(function, "func", function)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
