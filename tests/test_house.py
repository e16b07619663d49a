"""Shows that imports run one way: cli -> run -> train -> stages -> world, config; none sideways."""

import ast
import functools
import graphlib
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import start

import dptrain

PACKAGE = Path(dptrain.__file__).parent
STAGES = {"order", "data", "model", "reduce", "optim", "record"}
GROUND = {"world", "nodes", "guard", "neighbour", "board", "launch", "config", "keys", "machine"}
GROUND |= {"version", "threads", "level", "arrays", "status", "streams", "checked", "words"}
TOOLS = {"bench", "doctor", "explain"}
OTHERS = {"cli", "jobs", "supervise", "plot", "figure", "run", "train", "__init__", "__main__"}
FILES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
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
            found |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
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
        "guard": {"neighbour", "board", "launch", "machine", "streams"},
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
        "threads": {"version", "words"},
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


def test_files_and_functions_are_short() -> None:
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 300
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = (ast.get_docstring(node, clean=False) or "").count("\n") + 1
                assert int(node.end_lineno or 0) - node.lineno + 1 - docstring <= 40, node.name


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES
    }
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {name: (imports(path) & names.keys()) - {name} for name, path in names.items()}
    assert len([*graphlib.TopologicalSorter(graph).static_order()]) == len(FILES)


def test_public_names_are_sorted_and_there() -> None:
    public = dptrain.__all__
    assert all(getattr(dptrain, name) for name in public)
    assert public == sorted({*public})
    brought: dict[str, object] = {}
    exec("from dptrain import *", brought)  # noqa: S102
    assert {*public} <= brought.keys()


def patches() -> list[dict[str, list[str]]]:
    """Return the hunks of each patch that CONTRIBUTING shows, by the names of the files."""
    page = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    found = []
    for block in re.findall(r"```diff\n(.*?)```", page, re.DOTALL):
        files = re.findall(
            r"^--- .*\n\+\+\+ b/(.*)\n((?:[ @+-].*\n)+?)(?=--- |\Z)", block, re.MULTILINE
        )
        found.append(
            {name: re.split(r"^@@.*\n", hunks, flags=re.MULTILINE)[1:] for name, hunks in files}
        )
    return found


def apply(patch: dict[str, list[str]], folder: Path) -> None:
    """Change the files of a folder as a patch says; each of its hunks must fit one place."""
    for name, hunks in patch.items():
        path = folder / name
        text = path.read_text() if path.exists() else ""
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] != "+")
            assert text.count(old) == 1 or not text
            text = text.replace(old, "".join(line[1:] for line in lines if line[0] != "-"), 1)
        path.write_text(text)


def test_a_newcomer_adds_what_is_new_by_five_lines_in_one_room(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "dptrain")  # with what Python has compiled of it
    model, *others = patches()
    for patch in (model, *others):
        apply(patch, tmp_path)
        added = [line for hunks in patch.values() for line in "".join(hunks).splitlines()]
        assert len([one for one in added if re.match(r'\+\s*[^\s"]', one)]) <= 5
    rooms = [{Path(name).parts[1] for name in patch} - {"config"} for patch in others]
    assert rooms == [{"model"}, {"data"}, {"optim"}, {"run"}, {"cli"}]
    rows = [json.dumps({"x": [n, n % 3], "y": n % 2}) for n in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    line = ["rows.jsonl", "--activation", "sine", "--optimizer", "signsgd", "--steps", "2"]
    done = start("python", "-m", "dptrain", "train", *line, "--json", cwd=tmp_path)
    first, second, found = done.stdout.splitlines()
    assert (first[:8], second[:8]) == ("step 1: ", "step 2: ")
    assert json.loads(found)["steps"] == 2
    assert (
        "_DPTRAIN_COMPLETE" in start("python", "-m", "dptrain", "completion", cwd=tmp_path).stdout
    )
