"""Code of a person's own: where it has failed, what it is made of, and what its libraries need."""

import ast
import contextlib
import ctypes
import functools
import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dptrain.model import source_of
from dptrain.words import InputError, install

OUR_ROOMS = ("torch", "jax", "jaxlib", "numpy", "dptrain", "builtins", "functools")
"""Libraries whose source says nothing of a model: the receipt names their versions."""

PLACES = "<", f"{Path(os.__file__).parent}{os.sep}", f"{Path(__file__).parents[1]}{os.sep}"
"""Where what Python and dptrain are made of is from: a person's folder may be called dptrain."""

MEMORY = {-3: 2**30, -1: 2**31 - 1, -2: 2**26}
"""What glibc's mallopt is told as M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD."""


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


def siblings(path: Path, text: bytes) -> tuple[str, ...]:
    """Return name and SHA-256 of each file beside one that it imports, or these do, sorted.

    What is asked is the text alone, also where functions import: nothing is run.
    """
    found: dict[str, str] = {}
    waiting = [*_imported(text, ())]
    while waiting:
        name = Path(*waiting.pop())
        for shown in (name.with_name(f"{name.name}.py"), name / "__init__.py"):
            beside = path.parent / shown
            if str(shown) in found or not beside.is_file() or beside.resolve() == path.resolve():
                continue
            content = beside.read_bytes()
            found[str(shown)] = hashlib.sha256(content).hexdigest()
            waiting += _imported(content, shown.parent.parts)
    return tuple(f"{name} {digest}" for name, digest in sorted(found.items()))


def _imported(text: bytes, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the names, part by part, of modules that a file of a package may import.

    With those of the packages that they are in, which are imported first.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):  # which whoever imports it will see
        return
    for node in ast.walk(tree):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(one.name.split(".")) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            names = [(*module, one.name) for one in node.names]
        for name in names:
            yield from (name[: stop + 1] for stop in range(len(name)))


@contextlib.contextmanager
def users_code() -> Iterator[None]:
    """Say in one line where code of a person's own has failed, where its traceback begins, too."""
    try:
        yield
    except InputError as error:
        error.local = True
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "jax"):
            raise missing(error.name, error) from None
        trace = error.__traceback__
        while trace and not _is_own(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        own = [f for f in traceback.extract_tb(trace) if _is_own(f.filename)]
        where = f"{own[-1].filename}, line {own[-1].lineno}, in {own[-1].name}: " if own else ""
        text = "".join(traceback.format_exception_only(error))
        text = re.sub(r"(?s)Traceback \(most.*?\n(?=\S)", "", text)  # of a callback in JAX
        text = re.split("-{20}|Exception raised from", text)[0]  # what libraries add in C++
        text = f"the model's code failed: {where}{' '.join(text.split())}"
        if "no known parent package" in text:
            text += ": the file is run by itself; name one beside the package, which imports that"
        raise InputError(text, local=True) from error.with_traceback(trace)


def _is_own(file: str) -> bool:
    """Return whether a file is neither a library's, nor Python's, nor of dptrain."""
    libraries = {"site-packages", "dist-packages"}
    return not libraries & {*Path(file).parts} and not file.startswith(PLACES)


def one_thread() -> bool:
    """Have XLA compute with one thread, if it has not begun to; return whether it was told so."""
    told = {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    before = all(value in os.environ.get(name, "") for name, value in told.items())
    if not before:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ |= told | {"XLA_FLAGS": f"{flags} {told['XLA_FLAGS']}".strip()}
    return before


def library(name: str) -> Any:
    """Return a library; InputError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing(name, error) from None


def missing(library: str, error: ImportError) -> InputError:
    """Return the error of a library that is not installed."""
    return InputError(
        f"{library} can't be imported ({error}): {install(library)}, with Python "
        f"{sys.version_info.major}.{sys.version_info.minor} of {sys.prefix}",
        local=True,
    )


def name_of(function: Any) -> str | None:
    """Return what a function is called, of a partial with the settings in it; None for none."""
    if function is None:
        return None
    if isinstance(function, functools.partial):
        held = dict(enumerate(function.args)) | function.keywords
        plain = {k: v for k, v in held.items() if isinstance(v, (bool, int, float, str))}
        return f"{name_of(function.func)}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


@functools.cache
def keep_memory() -> None:
    """Have glibc keep what is freed, as the next step asks for as much again.

    Else it gives large arrays back to the system one by one, which must then find and clear their
    pages anew. Measured on one core: a step of a convolutional network took 73 ms of CPU time with
    3,900 page faults, 54 ms without; one of a transformer 189 and 164.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)  # of another library none
        for option, size in MEMORY.items():
            mallopt(option, size)
