"""Parameters to start from that a file holds: by their names, as far as they fit."""

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dptrain.arrays import Floats, Form
from dptrain.config import TrainConfig
from dptrain.model import Model
from dptrain.model import load as models
from dptrain.record import rundir
from dptrain.record.files import open_plain
from dptrain.words import InputError, counted, listed

KINDS = {"F16": "float16", "F32": "float32", "F64": "float64"}
"""Types of a safetensors file that are taken, as the model's own."""


class Weights(NamedTuple):
    """What of a file a model can start from, and what is to be said of it."""

    path: Path
    names: list[str]
    told: list[str]

    def initial(self, model: Model, own: Floats) -> Floats:
        """Return a model's own initial parameters [n] with the file's in their place. Local."""
        params = np.array(own)
        with _opened(self.path) as file:
            for name in self.names:
                models.put(model, params, name, file.get_tensor(name))
        return params


def with_weights(config: TrainConfig, model: Model) -> tuple[TrainConfig, Weights | None]:
    """Return the weights that a configuration names; and it, with the file's whole name and hash.

    Local: every rank reads for itself. Raises InputError where the file can't be read, is another
    than it was, or has nothing that fits the model.
    """
    if config.init_from is None:
        if config.init_sha256 is not None:
            raise InputError(
                f"the run started from a file with the SHA-256 {config.init_sha256}: name it by "
                "--init-from"
            )
        return config, None
    path = Path(config.init_from).absolute()
    with contextlib.suppress(OSError):  # what is wrong with its name is said below
        path = path / rundir.MODEL if path.is_dir() else path
    digest = _digest(path)
    if config.init_sha256 not in (None, digest):
        raise InputError(
            f"{path} has the SHA-256 {digest}, and the run started from one with "
            f"{config.init_sha256}: it has changed since, or is another; name that by --init-from",
            local=True,
        )
    found = _matched(path, model)
    return replace(config, init_from=str(path), init_sha256=digest), found


def _digest(path: Path) -> str:
    """Return a file's SHA-256; InputError where it can't be read."""
    try:
        with open_plain(path.resolve()) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself; a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"init-from: {path} can't be read: {why}; give a .safetensors file, or the "
            "directory of a finished run",
            local=True,
        ) from None


def _opened(path: Path) -> Any:
    """Return an open safetensors file; InputError where it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(f"init-from: {path} is no safetensors file: {error}", local=True) from None


def _matched(path: Path, model: Model) -> Weights:
    """Return which of a model's arrays a file has in their shapes, and what to say of the others.

    InputError where it has none.
    """
    known = models.forms(model)
    needed = {param.name: known[param.name] for param in model.layout}
    with _opened(path) as file:
        there = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        forms = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in there.items()}
    missing = [name for name in needed if name not in forms]
    unlike = {n: f"{n}: found {_form(forms[n])}, needed {_form(f)}" for n, f in needed.items()
              if n in forms and not (forms[n][0] in KINDS and forms[n][1] == f[1])}  # fmt: skip
    names = [name for name in needed if name in forms and name not in unlike]
    if not names:
        raise InputError(
            f"init-from: {path} has nothing that fits the model. "
            f"{'; '.join(unlike.values()) or f'Found: {listed(list(forms))}'}; needed: "
            f"{listed(list(needed))}"
        )
    with _opened(path) as file:
        for name in names:
            with np.errstate(over="ignore"):  # of a type with more room
                array = file.get_tensor(name).astype(needed[name][0])
            if not np.isfinite(array).all():
                raise InputError(
                    f"init-from: {path} holds what is not finite as {needed[name][0]}, in {name}; "
                    "give weights of a run that went well"
                )
    others = [name for name in forms if name not in known and not name.startswith("input.")]
    told = [f"from {path}: {counted(len(names), 'array')}, {listed(names)}"]
    told += [f"not taken from it, {line}" for line in unlike.values()]
    rest = {"not in it, and so as without it": missing, "not used": others}
    told += [f"{title}: {listed(there)}" for title, there in rest.items() if there]
    return Weights(path, names, told)


def _form(form: Form) -> str:
    kind, shape = form
    return f"{KINDS.get(kind, kind)} [{', '.join(map(str, shape))}]"
