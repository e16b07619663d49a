"""Shows that the README's commands work, typed one after the other as a newcomer does."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LEFT_OUT = ("make ",)
"""What changes the environment of the tests."""


def commands() -> list[str]:
    """Return what stands behind a prompt, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line[:2] == "$ "]


def printed() -> list[str]:
    """Return the lines that the README shows commands to print."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line[:2] != "$ " and line != "..."]


def numbered(line: str) -> tuple[str, list[float]]:
    """Return a line's words, and its numbers; of what is another each time only the words."""
    line = re.sub(r"[0-9a-f]{64}|runs/\d\S*|in \S+ s; \S+ examples a second|\.\.\.$", "", line)
    numbers = re.findall(r"\d+(?:\.\d+)?", line)
    return re.sub(r"\d+(?:\.\d+)?", "#", line), [float(number) for number in numbers]


def alike(shown: tuple[str, list[float]], found: tuple[str, list[float]]) -> bool:
    """Return whether a line was printed; its last bits are of the kind of CPU."""
    words = found[0][: len(shown[0])] if shown[0].endswith(": ") else found[0]
    return shown[0] == words and (
        words != found[0] or found[1] == pytest.approx(shown[1], rel=0.05)
    )


def write_data(folder: Path) -> None:
    """Write the files of one's own that the README names."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1300, 4)).round(2)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    np.savez(folder / "data.npz", x=x, y=y)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    rows = [",".join(map(str, (*row, row.sum().round(2)))) for row in x]
    names = "rooms,floors,age,garden"
    for name in ("houses.csv", "more.csv"):
        (folder / name).write_text("\n".join([f"{names},price", *rows]))
    (folder / "new.csv").write_text(f"{names}\n1,2,3,4\n")


@pytest.mark.timeout(300)
def test_every_command_works_in_order(tmp_path: Path) -> None:
    if sys.prefix == sys.base_prefix:
        pytest.skip("the tests run in no virtual environment, which could be activated")
    write_data(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    typed = [line for line in commands() if not line.startswith(LEFT_OUT)]
    assert len(typed) > 10
    bare = [path for path in os.environ["PATH"].split(":") if not Path(path, "dptrain").exists()]
    (tmp_path / "typed").write_text("\n".join(typed))
    done = subprocess.run(
        ["bash", "-ex", "typed"],  # ends with the first that fails, and shows it
        cwd=tmp_path,
        env={**os.environ, "PATH": ":".join(bare)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = [numbered(line) for line in (done.stdout + done.stderr).splitlines()]
    for line in printed():
        assert any(alike(numbered(line), other) for other in said), line


def test_the_makefile_has_what_the_readme_makes() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = [line.split()[1] for line in commands() if line.startswith("make ")]
    assert made == ["run"]
    assert {"run", "test"} <= {*targets}


def test_the_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, network = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(code, {"new_rows": np.zeros((2, 4))})  # noqa: S102 (it stands in the README)
    if importlib.util.find_spec("torch"):
        made: dict[str, Any] = {}
        exec(network, made)  # noqa: S102 (likewise)
        assert len([*made["build"]((2, 3), 4).parameters()]) == 4
    else:
        compile(network, "net.py", "exec")
