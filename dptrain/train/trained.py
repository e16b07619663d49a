"""A trained model: parameters and the encoding of its data, stored and loaded as one file."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dptrain.config import InputError, Task, is_text
from dptrain.data.prepare import BLOCK, Encoding
from dptrain.data.read import Table
from dptrain.model import Model
from dptrain.model.mlp import MLP
from dptrain.record import rundir
from dptrain.record.files import write_whole
from dptrain.record.tensors import Forms
from dptrain.train.evaluate import predicted_classes
from dptrain.version import __version__

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

    def outputs(self, x: Array) -> Array:
        """Return the model's outputs [m, outputs] for raw rows x [m, features]."""
        self.encoding.check(Table(x, None, "x"))
        rows = x.reshape(len(x), -1)
        blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
        found = [
            self.model.outputs(self.params, self.encoding.inputs(block, self.model.dtype))
            for block in blocks
        ]
        return np.concatenate(found).reshape(len(rows), -1)

    def predict(self, x: Array) -> Array:
        """Return labels [m], 0 or 1 for each label [m, labels], or values [m] or [m, outputs].

        `x` are raw rows [m, features]: scaling belongs to the model. Local: any rank may call it.
        """
        outputs = self.outputs(x)
        if self.encoding.task == "classification":
            return self.encoding.classes[predicted_classes(outputs)]
        if self.encoding.task == "multilabel":
            return (outputs > 0).astype(np.int64)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def probabilities(self, x: Array) -> Array:
        """Return probabilities [m, classes] or [m, labels] for raw rows x [m, features].

        Raises
        ------
        InputError
            The task is regression, or the model does not say what its outputs mean.
        """
        if self.encoding.task == "regression" or not isinstance(self.model, MLP):
            raise InputError("only an MLP that classifies has probabilities; use predict")
        found = self.model.probabilities(self.outputs(x))
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
        about = {"version": __version__, "encoding": encoding, "mlp": mlp and mlp.spec()}
        rundir.write_tensors(directory / rundir.MODEL, tensors | scale, about)
        content = json.dumps(self.summary, indent=2) + "\n"
        write_whole(directory / rundir.SUMMARY, content.encode())


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
        return Trained(model, model.params_from(tensors), found)
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
