"""The files that a model's file imports from its own folder: they decide what it is, too."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path


def siblings(path: Path, text: bytes) -> tuple[str, ...]:
    """Return name and SHA-256 of each file beside one that it imports, or these do, sorted.

    What is asked is the text alone, also where functions import: nothing is run.
    """
    found: dict[str, str] = {}
    waiting = [*_imported(text)]
    while waiting:
        name = waiting.pop().replace(".", "/")
        for beside in (path.parent / f"{name}.py", path.parent / name / "__init__.py"):
            shown = str(beside.relative_to(path.parent))
            if shown not in found and beside.is_file() and beside.resolve() != path.resolve():
                content = beside.read_bytes()
                found[shown] = hashlib.sha256(content).hexdigest()
                waiting += _imported(content)
    return tuple(f"{name} {digest}" for name, digest in sorted(found.items()))


def _imported(text: bytes) -> Iterator[str]:
    """Yield the names of modules that a file may import."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):  # which whoever imports it will see
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield one.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)
