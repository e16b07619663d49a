"""Shows that the README's commands work, typed one after the other as a newcomer does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LEFT_OUT = ("make ", "pip install ", "mpirun -n 2 dptrain bench ")
"""What takes long, or changes the environment of the tests."""


def commands() -> list[str]:
    """Return what stands behind a prompt, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line[:2] == "$ "]


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


def test_the_makefile_has_what_the_readme_makes() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = [line.split()[1] for line in commands() if line.startswith("make ")]
    assert {"run", "test"} == {*made} <= {*targets}


def test_the_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(code, {"new_rows": np.zeros((2, 4))})  # noqa: S102 (it stands in the README)
