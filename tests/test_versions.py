"""Shows that the lowest versions work that pyproject.toml allows; all other tests run the newest.

They live in an environment of their own, made once and kept in pytest's cache: half a minute.
"""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
LINT = {"mypy", "ruff"}
"""Only the newest are of use: what they find differs from version to version."""

CORE = (
    "test_arrays.py::test_a_typed_column_is_read_or_refused_by_its_type",
    "test_bytes.py::test_mapped_files_give_the_bytes_of_an_archive",
    "test_cli.py::test_help_needs_neither_mpi_nor_numpy",
    "test_cli.py::test_an_option_goes_before_a_variable_before_a_file_before_the_default",
    "test_cli.py::test_progress_is_a_bar_on_a_terminal",
    "test_explain.py::test_the_page_stands_by_itself_and_says_what_the_terminal_says",
    "test_resume.py::test_from_every_checkpoint_the_run_ends_alike",
    "test_resume.py::test_other_settings_are_refused",
    "test_verify.py::test_a_run_as_it_was_written_is_whole_and_identical",
)
"""What is run with the lowest versions: options, bytes on 1 and 2 ranks, data, a run's files."""


def lowest() -> dict[str, str]:
    """Return the lowest version of each requirement that says one, lint aside, by its name."""
    asked = [PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"]]
    asked += [EXTRAS["mpi"], EXTRAS["test"]]  # which hold all that the tests use of the others
    found = dict(line.split(">=") for lines in asked for line in lines)
    return {name: version for name, version in found.items() if name not in LINT}


@pytest.fixture(scope="module")
def bin_of_lowest(pytestconfig: pytest.Config) -> Path:
    """Return the programs' folder of an environment with the lowest versions."""
    folder = pytestconfig.cache.mkdir("lowest")
    pins = "".join(f"{name}=={version}\n" for name, version in lowest().items())
    made, wanted = folder / "made.txt", f"{sys.version}\n{ROOT}\n{pins}"
    if not made.exists() or made.read_text() != wanted:
        made.unlink(missing_ok=True)
        (folder / "pins.txt").write_text(pins)
        line: list[str | Path] = [sys.executable, "-m", "venv", "--clear", "--without-pip"]
        subprocess.run([*line, folder / "env"], check=True)
        test = [line for line in EXTRAS["test"] if line.split(">=")[0] not in LINT]
        install(folder / "env" / "bin", folder / "pins.txt", ["--editable", f"{ROOT}[mpi]", *test])
        made.write_text(wanted)
    return folder / "env" / "bin"


def install(programs: Path, pins: Path, what: list[str]) -> None:
    """Install with pip at the versions pinned, those that build included; skip without an index."""
    pinned = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), str(pins))
    pip: tuple[str | Path, ...] = (sys.executable, "-m", "pip", "--python", programs / "python")
    quickly = ("--quiet", "--no-compile")  # most modules are never imported
    done = run(*pip, "install", *quickly, *what, cwd=ROOT, env=os.environ | pinned)
    for name in lowest() if done.returncode else ():
        if run(*pip, "index", "versions", name, "--retries", "1", cwd=ROOT).returncode:
            pytest.skip(f"the index of packages can't be reached, or does not have {name}")
    assert done.returncode == 0, done.stderr


def run(*args: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, however that is."""
    options |= {"capture_output": True, "text": True, "check": False, "timeout": 500}
    return subprocess.run(args, cwd=cwd, **options)


@pytest.mark.timeout(600)
def test_the_core_works_with_the_lowest_versions(bin_of_lowest: Path, tmp_path: Path) -> None:
    places = [str(path) for path in bin_of_lowest.parent.glob("lib/*/site-packages")]
    there = {
        found.name.replace("_", "-"): f"{found.version}.0" for found in distributions(path=places)
    }
    for name, version in lowest().items():
        if name != "hatchling":  # which was there for the build only
            assert there[name].startswith(f"{version}."), name
    core = [str(ROOT / "tests" / name) for name in CORE]
    options = ("-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "core"))
    # matplotlib's lowest version warns of its own newer parts, which the tests take for errors
    for line in (
        ("python", "-m", "pytest", *options, *core),
        ("dptrain", "--epochs", "1", "--out", "run"),
        ("dptrain", "plot", "run", "--out", "run.png"),
    ):
        done = run(bin_of_lowest / line[0], *line[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
