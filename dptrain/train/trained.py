"""A trained model: parameters and the encoding of its data, stored and loaded as one file."""

import itertools
import json
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dptrain.config import InputError, Task, TrainConfig, is_text
from dptrain.data.prepare import Encoding, Rows, check_block, place
from dptrain.data.read import Table
from dptrain.model import Model
from dptrain.model.mlp import MLP
from dptrain.record import rundir
from dptrain.record.files import write_whole
from dptrain.record.tensors import Forms
from dptrain.train.evaluate import predicted_classes
from dptrain.train.threads import blas_threads
from dptrain.version import __version__
from dptrain.world import World

Array = NDArray[Any]


@dataclass(frozen=True)
class Trained:
    """A model, its parameters [n], how its inputs are encoded, and what its run came to."""

    model: Model
    params: NDArray[np.floating]
    encoding: Encoding
    summary: dict[str, Any] = field(default_factory=dict)
    """As `train --json` prints it."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The metrics of every epoch, as in metrics.jsonl."""
    threads: int = 1
    """BLAS threads that it computes with, as its run did: they decide the last bits."""

    def outputs(self, x: Any) -> Array:
        """Return the model's outputs [m, outputs] for raw rows x; see `predict`."""
        return np.concatenate(self.in_blocks(_as_rows(x, self.encoding), World(), np.asarray))

    def predict(self, x: Any) -> Array:
        """Return labels [m], 0 or 1 for each label [m, labels], or values [m] or [m, outputs].

        `x` are raw rows [m, features], or what NumPy makes into an array of numbers [m, ...], as in
        training: scaling belongs to the model. Local: any rank may call it, and any threads at
        once.

        Raises
        ------
        InputError
            These are no rows as the model was trained on, or one holds what is not finite.
        """
        rows = _as_rows(x, self.encoding)
        return np.concatenate(self.in_blocks(rows, World(), self.predictions))

    def probabilities(self, x: Any) -> Array:
        """Return probabilities [m, classes] or [m, labels] for raw rows x; see `predict`.

        Raises
        ------
        InputError
            The task is regression, or the model does not say what its outputs mean.
        """
        rows = _as_rows(x, self.encoding)
        return np.concatenate(self.in_blocks(rows, World(), self.chances))

    def in_blocks(self, rows: Rows, world: World, meaning: Callable[[Array], Array]) -> list[Array]:
        """Return what the outputs for each of this rank's blocks of rows mean. Local.

        Raises InputError for the first row that is not finite, or whose outputs are not.
        """
        with blas_threads(self.threads, brief=True), np.errstate(all="ignore"):
            return [meaning(self._outputs(rows, block)) for block in rows.blocks(world)]

    def _outputs(self, rows: Rows, block: slice) -> Array:
        """Return the outputs [m, outputs] for a block of rows, finite as far as they count."""
        check_block(rows, block)
        x = self.encoding.inputs(rows.raw_x(block), self.model.dtype)
        found = np.asarray(self.model.outputs(self.params, x)).reshape(len(x), -1)
        decides = found
        if self.encoding.task == "classification":  # the largest; the others may be -inf
            decides = found.max(axis=1, keepdims=True)
        sound = np.isfinite(decides).all(axis=1)
        if not sound.all():
            row = int(np.argmin(sound))
            raise InputError(
                f"{rows.table.source}: the outputs for {place(block.start + row, [], ())} are not "
                f"finite, {found[row]}: its numbers are too large for the model, or the model's "
                "parameters are not finite"
            )
        return found

    def predictions(self, outputs: Array) -> Array:
        """Return what outputs [m, outputs] mean: see `predict`."""
        if self.encoding.task == "classification":
            return self.encoding.classes[predicted_classes(outputs)]
        if self.encoding.task == "multilabel":
            return (outputs > 0).astype(np.int64)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def chances(self, outputs: Array) -> Array:
        """Return what outputs [m, outputs] mean: see `probabilities`."""
        if self.encoding.task == "regression" or not isinstance(self.model, MLP):
            raise InputError("only an MLP that classifies has probabilities; use predict")
        found = self.model.probabilities(outputs)
        if self.encoding.task == "classification" and found.shape[1] == 1:
            return np.hstack([1 - found, found])
        return found

    def save(self, directory: Path) -> None:
        """Write model.safetensors and summary.json; InputError where that fails."""
        mlp = self.model if isinstance(self.model, MLP) else None
        tensors = {"params": self.params} if mlp is None else mlp.tensors(self.params)
        encoding = {
            "task": self.encoding.task,
            "features": self.encoding.features,
            "classes": self.encoding.classes.tolist(),
            "outputs": self.encoding.outputs,
        }
        scale = {"input.shift": self.encoding.shift, "input.factor": self.encoding.factor}
        about = {
            "version": __version__,
            "encoding": encoding,
            "mlp": mlp and mlp.spec(),
            "threads": self.threads,
        }
        rundir.write_tensors(directory / rundir.MODEL, tensors | scale, about)
        content = json.dumps(self.summary, indent=2) + "\n"
        write_whole(directory / rundir.SUMMARY, content.encode())


def _as_rows(x: Any, encoding: Encoding) -> Rows:
    """Return rows of what NumPy can make an array of; InputError where they are none that fit."""
    try:
        found, names = np.asarray(x), tuple(getattr(x, "columns", ()))
    except (TypeError, ValueError, RuntimeError) as error:  # rows of uneven lengths, say
        raise InputError(f"x can't be made an array of numbers: {error}") from None
    if np.ma.is_masked(x):
        raise InputError("x has masked entries; needed are numbers: fill them in")
    named = bool(names) and all(isinstance(name, str) for name in names)
    if named and encoding.features not in ((), names):
        raise InputError(
            f"the columns of x are {', '.join(names)}; needed are those that the model was trained "
            f"on, in their order: {', '.join(encoding.features)}"
        )
    if found.dtype.kind == "O" and found.ndim > 0:
        found = _as_numbers(found.reshape(len(found), -1), encoding.features)
    table = Table(found, None, "the rows to predict")
    encoding.check(table)
    return Rows(table, encoding)


def _as_numbers(x: Array, names: Sequence[str]) -> NDArray[np.float64]:
    """Return objects [m, features] as numbers, which is what a table of several types may hold."""
    found = np.empty(x.shape)
    for (row, column), value in np.ndenumerate(x):
        try:
            found[row, column] = value if isinstance(value, (numbers.Real, np.bool_)) else ()
        except (TypeError, ValueError, OverflowError):
            where = place(row, [column], names)
            raise InputError(f"x has {value!r} in {where}; needed are finite numbers") from None
    return found


def _check_encoding(encoding: Encoding, model: MLP) -> None:
    """Raise ValueError where a stored encoding can't belong to the model."""
    for name, scale in (("shift", encoding.shift), ("factor", encoding.factor)):
        if scale.shape != model.sizes[:1] or scale.dtype != np.float64:
            raise ValueError(f"input.{name} is {scale.dtype} {scale.shape}")
    if encoding.task not in get_args(Task):
        raise ValueError(f"the task is {encoding.task!r}")
    classes, outputs = encoding.classes, encoding.outputs
    wanted = model.sizes[-1]
    if encoding.task == "classification":
        if classes.dtype.kind not in "biufU" or not np.array_equal(classes, np.unique(classes)):
            raise ValueError("the classes are not sorted labels")
        if not is_text("".join(map(str, classes))):
            raise ValueError("a class is no text")
        wanted = {"cross-entropy": len(classes), "binary-cross-entropy": 1}.get(model.loss, -1)
        outputs = model.sizes[-1] if outputs == 1 else -1
    if type(outputs) is not int or outputs != wanted or (wanted == 1 and len(classes) > 2):
        raise ValueError(f"{outputs} outputs and {len(classes)} classes don't fit {model.sizes}")
    names = encoding.features
    if not all(isinstance(name, str) for name in names) or len(names) not in (0, model.sizes[0]):
        raise ValueError("the features are not one name for each input")


def load_trained(directory: str | Path) -> Trained:
    """Return the model that a run directory holds. Local: every rank reads for itself.

    Raises
    ------
    InputError
        There is no stored model, it is damaged, or its class is not dptrain's.
    """
    path, models = Path(directory) / rundir.MODEL, []

    def fits(about: dict[str, Any], forms: Forms) -> None:
        if about["mlp"] is None:
            raise InputError(f"{path} holds a model of one's own class; use it from Python")
        models.append(MLP(**about["mlp"]))
        wanted = _forms(models[0])
        if forms != wanted:
            raise ValueError(f"it holds {forms}; needed are {wanted}")

    try:
        tensors, about = rundir.read_tensors(path, fits)
        encoding, model = about["encoding"], models[0]
        found = Encoding(
            task=encoding["task"],
            features=tuple(encoding["features"]),
            shift=tensors["input.shift"],
            factor=tensors["input.factor"],
            classes=np.array(encoding["classes"]),
            outputs=encoding["outputs"],
        )
        _check_encoding(found, model)
        threads = TrainConfig(threads=about["threads"]).threads
        return Trained(model, model.params_from(tensors), found, threads=threads)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} does not hold what it should ({error!r})") from None


def _forms(model: MLP) -> Forms:
    """Return the types and shapes of the arrays that `Trained.save` stores."""
    forms: Forms = {f"input.{name}": ("float64", model.sizes[:1]) for name in ("shift", "factor")}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(model.sizes)):
        forms[f"layers.{number}.weight"] = model.dtype.name, (outputs, inputs)
        forms[f"layers.{number}.bias"] = model.dtype.name, (outputs,)
    return forms
