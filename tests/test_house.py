"""Shows that imports run one way: cli -> run -> train -> stages -> world, config; none sideways."""

import ast
import importlib.util
from pathlib import Path

import pytest

import dptrain

PACKAGE = Path(dptrain.__file__).parent
STAGES = {"order", "data", "model", "reduce", "optim", "record"}
GROUND = {"world", "nodes", "guard", "neighbour", "board", "launch", "config", "keys", "machine"}
GROUND |= {"version", "threads", "level", "arrays", "status", "streams", "checked", "words"}
TOOLS = {"bench", "doctor", "explain"}
OTHERS = {"cli", "jobs", "supervise", "plot", "figure", "run", "train", "__init__", "__main__"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, those for type checking aside."""
    found = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "dptrain":
            found |= {f"dptrain.{name.name}" for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


def floor(module: str) -> str:
    """Return the part of the house a module stands in: dptrain.data.read is in data."""
    return module.split(".")[1] if "." in module else "dptrain"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = path.relative_to(PACKAGE.parent).with_suffix("").parts[1]
    below = {
        "cli": STAGES
        | GROUND
        | TOOLS
        | {"train", "run", "plot", "figure", "jobs", "supervise", "cli"},
        "bench": STAGES | GROUND | {"train", "run", "bench"},
        "doctor": STAGES | GROUND | {"train", "run", "bench", "doctor"},
        "explain": STAGES | GROUND | {"train", "run", "plot", "explain"},
        "plot": {"words", "checked", "config", "record", "figure", "plot"},
        "figure": {"words", "config", "record"},
        "supervise": {"words", "config", "status", "record", "reduce"},
        "jobs": set(),
        "run": STAGES | GROUND | {"train", "run"},
        "train": STAGES - {"record"} | GROUND | {"train"},
        "world": {"nodes", "guard", "board", "launch", "machine", "streams", "words", "config"},
        "nodes": {"guard", "neighbour", "board"},
        "guard": {"neighbour", "board", "launch", "streams"},
        "neighbour": {"board"},
        "board": set(),
        "launch": {"streams", "words", "config"},
        "config": {"checked", "words", "config"},
        "checked": {"words"},
        "words": set(),
        "keys": set(),
        "machine": {"words", "config"},
        "version": set(),
        "arrays": set(),
        "status": set(),
        "streams": {"words"},
        "threads": {"words"},
        "__main__": {"cli"},
    }.get(here, GROUND | {here})
    own = {floor(name) for name in imports(path) if name.split(".")[0] == "dptrain"}
    if here != "__init__":
        assert own <= below
    outside = {name.split(".")[0] for name in imports(path)}
    assert "mpi4py" not in outside or here in ("launch", "nodes", "reduce")
    assert "click" not in outside or here == "cli"
    assert not outside & {"torch", "jax"} or path.parent.name == "model"


def test_the_house_has_all_its_rooms() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == STAGES | GROUND | TOOLS | OTHERS


def test_public_names_are_sorted_and_there() -> None:
    public = dptrain.__all__
    adapters = {"JaxModel": "jax", "TorchModel": "torch"}
    here = [n for n in public if n not in adapters or importlib.util.find_spec(adapters[n])]
    assert all(getattr(dptrain, name) for name in here)
    assert public == sorted({*public})
