"""Models that a file of one's own makes: run only where a person names it, known by its hash."""

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dptrain.checked import Plain
from dptrain.config import ModelFile
from dptrain.model import Model
from dptrain.model.own_code import one_thread, siblings, users_code
from dptrain.streams import give_way
from dptrain.threads import blas_threads, threads_here
from dptrain.words import InputError, nearest

BESIDE = ("loss", "transform", "metrics")
"""Functions that are used where they stand beside the one that makes the network."""

_NEIGHBOURS: set[str] = set()
"""The files that models of this process may have imported from their folders."""


@dataclass(frozen=True)
class Origin(ModelFile):
    """Which function has made a model, with which arguments; of the file only the hash."""

    seed: int = field(default=0, metadata={"low": 0, "high": 2**63})
    siblings: tuple[str, ...] = ()
    """The files that it imports from its folder, each with its hash."""


@users_code()
def build(
    file: ModelFile,
    inputs: tuple[int, ...],
    outputs: int,
    *,
    seed: int,
    dtype: str | None = None,
    label_smoothing: float = 0.0,
) -> Model:
    """Return the model that a file's function makes, given the inputs' shape and number of outputs.

    `file` may say which hash the file must have. `seed` seeds the generators that Python, NumPy and
    PyTorch draw from by themselves; `dtype` is what a PyTorch module is made, where that is asked
    for; `label_smoothing` is the usual loss's, see `Adapted`.

    Raises InputError where there is no such file or function, the file is another than it was, it
    fails, or makes what is no model. Local: ranks may see other files.
    """
    if file.model is None:
        raise InputError(
            f"the model was made by a file of one's own, SHA-256 {file.model_sha256}: name it with "
            "--model FILE.py:FUNCTION; a run says no file to be run"
        )
    path, _, name = file.model.rpartition(":")
    text, digest = _read(Path(path), file)
    beside_it = siblings(Path(path), text)
    if isinstance(file, Origin) and file.siblings != beside_it:
        changed = min({*file.siblings} ^ {*beside_it}).split()[0]
        raise InputError(
            f"{changed}, which {path} imports, is not what it was when the run's model was made; "
            "give the files that it was"
        )
    near = [line.split()[0] for line in beside_it]
    _make_room(Path(path), near)
    with contextlib.chdir("."), _alike(text, Path(path), near):  # back from where it may go
        module = _run(Path(path), text, digest, seed)
        make = getattr(module, name, None)
        if not callable(make):
            own = [key for key, value in vars(module).items() if inspect.isroutine(value)]
            raise InputError(f"{path} has no function {name!r}; {nearest(name, own)}")
        made = _made(make, path, name, (inputs, outputs), file.model_arg)
    beside = {key: getattr(module, key) for key in BESIDE if getattr(module, key, None) is not None}
    beside |= {"label_smoothing": label_smoothing} if label_smoothing else {}
    model = _adapted(made, beside, dtype, f"{path}:{name}")
    model.origin = Origin(name, file.model_arg, digest, seed, beside_it)  # type: ignore[attr-defined]
    return model


def of_run(named: str | None, stored: Any, where: str) -> Origin:
    """Return the file that a person names for a run whose model a file has made.

    `stored` is what `described` returned of that model, perhaps a stranger's. Raises InputError
    where no file is named, or another function, or where it is no such model.
    """
    try:
        lists = {key: tuple(stored["file"].get(key, ())) for key in ("model_arg", "siblings")}
        if not all(one.strip() for one in lists["siblings"]):
            raise TypeError("a file without a name")
        made = Origin(**{**stored["file"], **lists})
    except (AttributeError, TypeError) as error:
        raise InputError(f"{where} does not say which file made its model ({error!r})") from None
    if named is None:
        raise InputError(
            f"{where} has a model that {made.model} in a file of one's own makes: name it with "
            "--model FILE.py:FUNCTION; what a run says is never run"
        )
    if named.rpartition(":")[2] != made.model:
        raise InputError(f"model is {named!r}; that of {where} was made by {made.model}")
    return dataclasses.replace(made, model=named)


def _read(path: Path, file: ModelFile) -> tuple[bytes, str]:
    """Return a file's content and its hash; InputError where it is not there or not what it was."""
    if path.suffix != ".py":
        raise InputError(f"model is {file.model!r}; give FILE.py:FUNCTION")
    try:
        text = b"" if path.is_fifo() else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    found = hashlib.sha256(text).hexdigest()
    if file.model_sha256 not in (None, found):
        raise InputError(
            f"{path} has the SHA-256 {found}, and the run's model was made by a file with "
            f"{file.model_sha256}: it has changed since, or is another; give the one that it was"
        )
    return text, found


def _make_room(path: Path, neighbours: list[str]) -> None:
    """Have what a file imports from its folder be imported anew, from there.

    Not another model's of that name, or what it was before. Raises InputError where a module of
    that name has been imported from elsewhere.
    """
    for name, module in [*sys.modules.items()]:
        if getattr(module, "__file__", None) in _NEIGHBOURS:
            del sys.modules[name]
    importlib.invalidate_caches()
    folder = path.absolute().parent
    sys.path[:] = [str(folder), *(other for other in sys.path if other != str(folder))]
    for neighbour in neighbours:
        name = ".".join(Path(neighbour).with_suffix("").parts).removesuffix(".__init__")
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) != str(folder / neighbour):
            raise InputError(
                f"{path} imports {name}, and there is {neighbour} beside it, but also a module of "
                f"that name that has been imported already, {known!r:.200}: rename the file"
            )
        with contextlib.suppress(OSError):  # what was compiled of a file as old and as long
            Path(cache_from_source(str(folder / neighbour))).unlink()
        _NEIGHBOURS.add(str(folder / neighbour))


@contextlib.contextmanager
def _alike(text: bytes, path: Path, neighbours: list[str]) -> Iterator[None]:
    """Compute with the threads of a run, whose number decides the bits of what is made."""
    texts = [text, *((path.parent / name).read_bytes() for name in neighbours)]
    with contextlib.ExitStack() as opened:
        opened.enter_context(blas_threads(threads_here(), brief=True))
        if any(b"torch" in one for one in texts) and find_spec("torch") is not None:
            from dptrain.model.torch_settings import settings

            opened.enter_context(settings(0))
        yield


def _run(path: Path, text: bytes, digest: str, seed: int) -> ModuleType:
    """Return the module that a file is, run with its folder to import from, as a script is."""
    give_way()
    one_thread()  # before the file can start JAX
    module = ModuleType(f"_model_{path.stem}_{digest[:16]}")
    module.__file__ = str(path.absolute())
    sys.modules[module.__name__] = module
    exec(compile(text, module.__file__, "exec"), vars(module))  # noqa: S102 (asked for)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (those that a model may draw from)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed % 2**63)
    return module


def _made(
    make: Callable[..., Any], path: str, name: str, given: tuple[Any, ...], texts: tuple[str, ...]
) -> Any:
    """Return what a person's function makes; InputError where it can't be called like this."""
    arguments, signature = _arguments(texts), inspect.signature(make)
    try:
        signature.bind(*given, **arguments)
    except TypeError as error:
        raise InputError(
            f"{name}{signature} in {path} can't be called with the inputs' shape, the number of "
            f"outputs and --model-arg {', '.join(texts) or 'none'}: {error}"
        ) from None
    return make(*given, **arguments)


def _arguments(texts: tuple[str, ...]) -> Plain:
    """Return arguments by name: numbers, true, false, null and lists as in JSON, else texts.

    True, False and None also as Python has them.
    """
    found, of_python = Plain(), {"True": "true", "False": "false", "None": "null"}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"model-arg is {text!r}; give NAME=VALUE, such as width=32")
        if name in found:
            raise InputError(f"model-arg gives {name} twice; give each once")
        try:
            found[name] = json.loads(of_python.get(value, value))
        except (ValueError, RecursionError):
            found[name] = value
    return found


def _adapted(made: Any, beside: Mapping[str, Any], dtype: str | None, where: str) -> Model:
    """Return as a model what a function has made, with what is `beside` it."""
    made_one = not isinstance(made, type)  # and not the class of one
    if made_one and callable(getattr(made, "named_parameters", None)):
        from dptrain.model.torch import TorchModel

        if dtype is not None:
            made = made.double() if dtype == "float64" else made.float()
        return TorchModel(made, **beside)
    pair = isinstance(made, tuple) and len(made) == 2 and all(map(callable, made))
    if pair and not hasattr(made[0], "named_parameters"):  # as a module and its loss
        from dptrain.model.jax import JaxModel

        model: Model = JaxModel(*made, **beside)
    elif made_one and callable(getattr(made, "loss_and_grad_sum", None)):
        model = made
        if beside:
            given = ", ".join(beside).replace("_", "-")
            raise InputError(
                f"{given} is given; what {where} makes has its own loss, transform and metrics: "
                "leave that out, or name it otherwise"
            )
    else:
        raise InputError(
            f"{where} returns {made!r:.200}; return a torch.nn.Module, a pair of JAX functions "
            "(init, apply), or what keeps dptrain.Model"
        )
    if dtype not in (None, str(model.dtype)):
        needed = f"leave --dtype out, or have it make one of {dtype}"
        raise InputError(f"dtype is {dtype}; {where} makes a model of {model.dtype}: {needed}")
    return model
