"""A trained model: parameters and the encoding of its data, stored and loaded as one file."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Forms, views
from dptrain.checked import Plain
from dptrain.config import TrainConfig
from dptrain.data.check import check_block
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.model import Model, check_data, check_is_one, described
from dptrain.model import load as models
from dptrain.record import checkpoint, rundir
from dptrain.record.files import write_whole
from dptrain.record.receipt import End
from dptrain.run.outcome import Summary
from dptrain.run.rows import as_rows
from dptrain.streams import warn
from dptrain.threads import blas_threads
from dptrain.train.evaluate import fits, predicted_classes
from dptrain.train.state import Metrics
from dptrain.version import __version__
from dptrain.words import InputError, counted, is_text
from dptrain.world import World


@dataclass(frozen=True, repr=False, eq=False)
class Trained:
    """A model, its parameters [n], how its inputs are encoded, and what its run came to."""

    model: Model
    params: NDArray[np.floating]
    encoding: Encoding
    summary: Summary = field(default_factory=Summary)
    history: list[Metrics] = field(default_factory=list)
    """The metrics of every epoch, as in metrics.jsonl."""
    threads: int = 1
    """BLAS threads that it computes with, as its run did: they decide the last bits."""

    def __repr__(self) -> str:
        found, sha256 = self.summary.metrics, self.summary.params_sha256[:12]
        told = [f"{name} {value:.4g}" for name, value in found.items()]
        steps = [counted(self.summary.steps, "step"), *told, f"sha256 {sha256}"] if sha256 else []
        return f"Trained({', '.join([str(self.model), *steps])})"

    def outputs(self, x: Any) -> Array:
        """Return the model's outputs [m, outputs] for raw rows x; see `predict`."""
        return np.concatenate(self.in_blocks(as_rows(x, self.encoding), World(), np.asarray))

    def predict(self, x: Any) -> Array:
        """Return labels [m], 0 or 1 for each label [m, labels], or values [m] or [m, outputs].

        `x` are raw rows [m, features], or what NumPy makes into an array [m, ...], as in training:
        scaling belongs to the model. A frame, a mapping of columns or a list of mappings has its
        columns in any order; a single row [features], or a mapping of its cells, is one of m = 1.
        Outputs that are not one a class, label or value are returned as they are [m, outputs]: what
        they mean is known to a loss of one's own alone.
        Local: any rank may call it, and any threads at once.

        Raises InputError where these are no rows as the model was trained on, or one holds what is
        not finite.
        """
        return np.concatenate(self.in_blocks(as_rows(x, self.encoding), World(), self.predictions))

    def probabilities(self, x: Any) -> Array:
        """Return probabilities [m, classes] or [m, labels] for raw rows x; see `predict`.

        Raises InputError for regression, or where the model does not say what its outputs mean.
        """
        return np.concatenate(self.in_blocks(as_rows(x, self.encoding), World(), self.chances))

    def in_blocks(self, rows: Rows, world: World, meaning: Callable[[Array], Array]) -> list[Array]:
        """Return what the outputs for each of this rank's blocks of rows mean. Local.

        Raises InputError for the first row that is not finite, or whose outputs are not.
        """
        with blas_threads(self.threads, brief=True), np.errstate(all="ignore"):
            return [meaning(self._outputs(rows, block)) for block in rows.blocks(world)]

    def _outputs(self, rows: Rows, block: slice) -> Array:
        """Return the outputs [m, outputs] for a block of rows, finite as far as they count."""
        check_block(rows, block)
        x = rows.inputs(block, self.model)
        found = np.asarray(self.model.outputs(self.params, x)).reshape(len(x), -1)
        decides = found
        if self.encoding.task == "classification":  # the largest; the others may be -inf
            decides = found.max(axis=1, keepdims=True)
        sound = np.isfinite(decides).all(axis=1)
        if not sound.all():
            row = int(np.argmin(sound))
            raise InputError(
                f"{rows.table.source}: the outputs for {rows.place(block.start + row)} are not "
                f"finite, {found[row]}: its numbers are too large for the model, or the model's "
                "parameters are not finite"
            )
        return found

    def predictions(self, outputs: Array) -> Array:
        """Return what outputs [m, outputs] mean: see `predict`."""
        if not fits(outputs.shape[1], self.encoding.scores, self.encoding.task):
            return outputs
        if self.encoding.task == "classification":
            return self.encoding.classes[predicted_classes(outputs)]
        if self.encoding.task == "multilabel":
            return (outputs > 0).astype(np.int64)
        outputs = self.encoding.in_units(outputs)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def chances(self, outputs: Array) -> Array:
        """Return what outputs [m, outputs] mean: see `probabilities`."""
        ask: Callable[[Array], Array] | None = getattr(self.model, "probabilities", None)
        if self.encoding.task == "regression" or ask is None:
            raise InputError("this task, or this model, has no probabilities; use predict")
        if not fits(outputs.shape[1], self.encoding.scores, self.encoding.task):
            raise InputError(
                f"the model gives {outputs.shape[1]} outputs for {self.encoding.scores} classes or "
                "labels, which are no probabilities; use predict, which gives them as they are"
            )
        found = ask(outputs)
        if self.encoding.task == "classification" and found.shape[1] == 1:
            return np.hstack([1 - found, found])
        return found

    def file(self, version: str = __version__) -> list[bytes | memoryview]:
        """Return what model.safetensors consists of, as this version of dptrain writes it."""
        arrays = models.tensors(self.model, self.params)
        about = {
            "version": version,
            "encoding": self.encoding.spec(),
            "model": described(self.model),
            "threads": self.threads,
        }
        beside = [*arrays][len(self.model.layout) :]
        return checkpoint.encode(arrays, about | ({"beside": beside} if beside else {}))

    def sha256(self, version: str = __version__) -> str:
        """Return the SHA-256 of model.safetensors; see `file`."""
        found = hashlib.sha256()
        for piece in self.file(version):
            found.update(piece)
        return found.hexdigest()

    def save(self, directory: Path) -> None:
        """Write model.safetensors and summary.json, in this order; InputError where that fails."""
        write_whole(directory / rundir.MODEL, self.file())
        write_whole(directory / rundir.SUMMARY, rundir.as_json(self.summary.plain()))


def end_of(trained: Trained, version: str = __version__) -> End:
    """Return what a receipt says of the end of a run; see `Trained.file` for `version`."""
    return End(trained.summary.steps, trained.summary.covered(), trained.sha256(version))


def params_in(tensors: dict[str, Array], about: Plain) -> NDArray[np.floating]:
    """Return the parameters [n] that model.safetensors holds; ValueError where it can't be.

    Also KeyError and TypeError, of what a stranger wrote.
    """
    beside = about.get("beside", ())
    own = {name: array for name, array in tensors.items() if name not in beside}  # in its order
    return models.params_of(about["model"], own)


def _check_encoding(encoding: Encoding, model: Model) -> None:
    """Raise ValueError where a stored encoding can't belong to the model.

    How many inputs and outputs a model of one's own has, it alone knows.
    """
    task, classes, outputs = encoding.task, encoding.classes, encoding.outputs
    if type(outputs) is not int:
        raise ValueError(f"{outputs!r} outputs")
    if task == "classification":
        if classes.dtype.kind not in "biufU" or not np.array_equal(classes, np.unique(classes)):
            raise ValueError("the classes are not sorted labels")
        if not is_text("".join(map(str, classes))):
            raise ValueError("a class is no text")
    elif len(classes):
        raise ValueError(f"{task} has no classes")
    check_data(model, task, encoding.shift.size, outputs, len(classes), encoding.categories)


def load_trained(
    directory: str | Path, model: Model | None = None, *, file: str | None = None
) -> Trained:
    """Return the model that a run directory holds. Local: every rank reads for itself.

    `model` is for a run with a model of one's own: one of its class, with its settings. `file`,
    FILE.py:FUNCTION, is for one that was trained with --model: it must be the same file.

    Raises InputError where no model is stored, it is damaged, or it is another than is given.
    """
    path, found = Path(directory) / rundir.MODEL, list[Model]()

    def fits(about: Plain, forms: Forms) -> None:
        made = models.remade(about["model"])
        if made and model is not None:
            raise InputError(f"{path} holds an MLP, which is made from it: give no model")
        own = model
        if not made and own is None and "file" in about["model"]:
            own = _from_file(file, about, forms, str(directory))
        elif file is not None:
            raise InputError(f"{directory} has no model that a file makes: leave --model out")
        found.append(made or _same(own, forms, about["model"], path))
        wanted = models.forms(found[0])
        beside = [*wanted][len(found[0].layout) :]
        if [*forms.items()] != [*wanted.items()] or about.get("beside", []) != beside:
            raise ValueError(f"it holds {forms}, and should hold {wanted}")

    try:
        tensors, about = checkpoint.read_model(path, fits)
        how = Encoding.from_spec(about["encoding"])
        _check_encoding(how, found[0])
        threads = TrainConfig(threads=about["threads"]).threads
        params = params_in(tensors, about)
        known = models.stored(found[0], views(found[0].layout, params))
        for name in about.get("beside", ()):
            if known[name].tobytes() != tensors[name].tobytes():
                raise ValueError(f"{name} is not the model's")
        return Trained(found[0], params, how, threads=threads)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} does not hold what it should ({error!r})") from None


def _from_file(named: str | None, about: Plain, forms: Forms, where: str) -> Model:
    """Return the model that the file which a person names makes, for the stored encoding."""
    from dptrain.model.file import build, of_run

    origin, encoding = of_run(named, about["model"], where), Encoding.from_spec(about["encoding"])
    kind = next(kind for kind, _ in forms.values())
    known = {"label_smoothing": about["model"].get("spec", {}).get("label_smoothing", 0.0)}
    return build(origin, encoding.shape, encoding.scores, seed=origin.seed, dtype=kind, **known)


def _same(model: Model | None, forms: Forms, stored: Plain, path: Path) -> Model:
    """Return a model of one's own, if it is the stored one; of other source it may be, with a word.

    Raises InputError where it is not.
    """
    what = f"{path} holds a model of one's own class, {stored['class']}"
    if model is None:
        raise InputError(f"{what}: give it to dptrain.load_trained(run, model), in Python")
    check_is_one(model)
    given = described(model) | {"arrays": models.forms(model)}
    held = {**stored, "arrays": forms}
    for name in ("class", "arrays", "spec", "attributes", "fingerprint"):
        if given.get(name) != held.get(name):
            raise InputError(f"{what}; its {name} is {held.get(name)}, given is {given.get(name)}")
    if given["source"] != held["source"]:
        warn(f"{what}, whose source has changed since: it may predict otherwise")
    return model
