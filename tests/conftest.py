"""What the tests share: the command line as people start it, in one process and under mpirun."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Finished:
    """How a process ended, and what it printed."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What --json printed; fails with the error output where the process failed."""
        assert self.status == 0, self.stderr
        return json.loads(self.stdout)


Start = Callable[..., Finished]


def start(
    *args: str | Path,
    ranks: int | None = None,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Finished:
    """Run a program of this environment, under mpirun where ranks are given, in a folder."""
    launcher: Sequence[str | Path] = [] if ranks is None else [BIN / "mpirun", "-n", str(ranks)]
    program, *rest = args
    own = {name: value for name, value in os.environ.items() if not name.startswith("DPTRAIN_")}
    done = subprocess.run(
        [*launcher, BIN / program, *rest],
        cwd=cwd,
        env={**own, "PYTHONWARNINGS": "error", **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def wait_until(ready: Callable[[], bool], seconds: float = 30) -> None:
    """Return once that is true; AssertionError where it takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def dptrain(tmp_path: Path) -> Start:
    """Run `dptrain ARGS` in an empty folder: dptrain("train", ..., ranks=3)."""

    def run(*args: str | Path, **options: Any) -> Finished:
        return start("dptrain", *args, **{"cwd": tmp_path, **options})

    return run
