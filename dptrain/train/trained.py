"""A trained model: parameters and the encoding of its data, stored and loaded as one file."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dptrain.config import InputError, Task
from dptrain.data.prepare import BLOCK, Encoding
from dptrain.data.read import Table
from dptrain.model import Model, described
from dptrain.model.mlp import MLP
from dptrain.record import checkpoint, rundir
from dptrain.record.files import write_whole
from dptrain.record.progress import Silence
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
        ask: Callable[[Array], Array] | None = getattr(self.model, "probabilities", None)
        if self.encoding.task == "regression" or ask is None:
            raise InputError("only an MLP that classifies has probabilities; use predict")
        found = ask(self.outputs(x))
        if self.encoding.task == "classification" and found.shape[1] == 1:
            return np.hstack([1 - found, found])
        return found

    def file(self, version: str = __version__) -> list[bytes | memoryview]:
        """Return what model.safetensors consists of, as this version of dptrain writes it."""
        mlp = self.model if type(self.model) is MLP else None
        tensors = {"params": self.params} if mlp is None else mlp.tensors(self.params)
        encoding = {
            "task": self.encoding.task,
            "features": self.encoding.features,
            "classes": self.encoding.classes.tolist(),
            "outputs": self.encoding.outputs,
        }
        scale = {"input.shift": self.encoding.shift, "input.factor": self.encoding.factor}
        about = {"version": version, "encoding": encoding, "mlp": mlp and mlp.spec()}
        if mlp is None:
            about["model"] = described(self.model)
        arrays = {name: np.ascontiguousarray(array) for name, array in (scale | tensors).items()}
        return checkpoint.encode(arrays, about)

    def sha256(self, version: str = __version__) -> str:
        """Return the SHA-256 of model.safetensors; see `file`."""
        found = hashlib.sha256()
        for piece in self.file(version):
            found.update(piece)
        return found.hexdigest()

    def save(self, directory: Path) -> None:
        """Write model.safetensors and summary.json, in this order; InputError where that fails."""
        write_whole(directory / rundir.MODEL, *self.file())
        content = json.dumps(self.summary, indent=2) + "\n"
        write_whole(directory / rundir.SUMMARY, content.encode())


def end_line(trained: Trained, version: str = __version__) -> dict[str, Any]:
    """Return what a receipt says of the end of a run: what it came to, and its model's file.

    `trained` has a summary without times and ranks; see `Trained.file` for `version`.
    """
    end = dict(trained.summary)
    return {"step": end["steps"], "end": end, "model": trained.sha256(version)}


def params_in(tensors: dict[str, Array], about: dict[str, Any]) -> NDArray[np.floating]:
    """Return the parameters [n] that model.safetensors holds; ValueError where it can't be.

    Also KeyError and TypeError, of what a stranger wrote.
    """
    params = MLP(**about["mlp"]).params_from(tensors) if about["mlp"] else tensors["params"]
    if params.ndim != 1 or params.dtype.kind != "f":
        raise ValueError(f"the parameters are {params.dtype} {params.shape}")
    return params


def _check_encoding(encoding: Encoding, model: Model) -> None:
    """Raise ValueError where a stored encoding can't belong to the model.

    How many inputs and outputs a model of one's own has, it alone knows.
    """
    sizes = model.sizes if type(model) is MLP else (*encoding.shift.shape[:1], None)
    for name, scale in (("shift", encoding.shift), ("factor", encoding.factor)):
        if scale.shape != sizes[:1] or scale.dtype != np.float64:
            raise ValueError(f"input.{name} is {scale.dtype} {scale.shape}")
    if encoding.task not in get_args(Task):
        raise ValueError(f"the task is {encoding.task!r}")
    classes, outputs = encoding.classes, encoding.outputs
    wanted = sizes[-1]
    if encoding.task == "classification":
        if classes.dtype.kind not in "biufU" or not np.array_equal(classes, np.unique(classes)):
            raise ValueError("the classes are not sorted labels")
        if type(model) is MLP:
            wanted = {"cross-entropy": len(classes), "binary-cross-entropy": 1}.get(model.loss, -1)
            outputs = model.sizes[-1] if outputs == 1 else -1
    fits = wanted in (None, outputs) and not (wanted == 1 and len(classes) > 2)
    if type(outputs) is not int or not fits:
        raise ValueError(f"{outputs} outputs and {len(classes)} classes don't fit {sizes}")
    names = encoding.features
    if not all(isinstance(name, str) for name in names) or len(names) not in (0, sizes[0]):
        raise ValueError("the features are not one name for each input")


def load_trained(directory: str | Path, model: Model | None = None) -> Trained:
    """Return the model that a run directory holds. Local: every rank reads for itself.

    `model` is for a run with a model of one's own: one of its class, with its settings.

    Raises
    ------
    InputError
        There is no stored model, it is damaged, or it is another than is given.
    """
    path = Path(directory) / rundir.MODEL
    rundir.check_plain(Path(directory))
    tensors, about = rundir.read_tensors(path)
    try:
        encoding, params = about["encoding"], params_in(tensors, about)
        if about["mlp"]:
            if model is not None:
                raise InputError(f"{path} holds an MLP, which is made from it: give no model")
            model = MLP(**about["mlp"])
        else:
            model = _same(model, params, about["model"], path)
        found = Encoding(
            task=encoding["task"],
            features=tuple(encoding["features"]),
            shift=tensors["input.shift"],
            factor=tensors["input.factor"],
            classes=np.array(encoding["classes"]),
            outputs=encoding["outputs"],
        )
        _check_encoding(found, model)
        return Trained(model, params, found)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} does not hold what it should ({error!r})") from None


def _same(model: Model | None, params: Array, stored: dict[str, Any], path: Path) -> Model:
    """Return a model of one's own, if it is the stored one; of other source it may be, with a word.

    Raises InputError where it is not.
    """
    what = f"{path} holds a model of one's own class, {stored['class']}"
    if model is None:
        raise InputError(f"{what}: give it to dptrain.load_trained(run, model), in Python")
    given = described(model) | {"params": f"{model.num_params} {np.dtype(model.dtype)}"}
    held = {**stored, "params": f"{len(params)} {params.dtype}"}
    for name in ("class", "params", "spec", "attributes", "fingerprint"):
        if given.get(name) != held.get(name):
            raise InputError(f"{what}; its {name} is {held.get(name)}, given is {given.get(name)}")
    if given["source"] != held["source"]:
        Silence().warn(f"{what}, whose source has changed since: it may predict otherwise")
    return model
