"""What the tests share: the command line as people start it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what ends with an &
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup does
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a thousand processes would compile all anew
sys.dont_write_bytecode = False

PATIENT = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "MPIR_CVAR_POLLS_BEFORE_YIELD": "10"}
"""MPICH's ranks then leave the processor to others while they wait: here are more than cores."""

os.environ.update(PATIENT)

LONG = (
    "ends", "mistakes", "nodes", "strangers", "supervise", "faults", "cli", "readme", "versions",
    "plot", "resume", "bytes", "examples", "model", "odd_ranks", "tables", "doctor", "memory",
    "optim", "recheck", "torture", "level", "data", "names", "receipt", "verify", "formats",
    "house", "doctor_job", "explain", "bench", "model_file",
)  # fmt: skip
"""The files of tests that take longest begin first, so that two workers end at the same time."""


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist take files in their order, not by how many tests each has.

    And let an example of Hypothesis take as long as the machine wants, and the tests' own products
    be computed by one thread each, as there are more workers than cores.
    """
    config.option.loadscopereorder = False
    import numpy as np  # noqa: F401 (whose threads they are)
    from hypothesis import settings

    threadpoolctl.threadpool_limits(1, "blas")
    vars(os)["fsync"] = os.fstat  # no power is cut while this runs; a wrong number still fails

    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


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


def wait_until(ready: Callable[[], bool], seconds: float = 60) -> None:
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


# ---- a person's mistakes


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file's bytes, and None for every folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def check_mistake(done: Finished, words: str) -> None:
    """Assert that a process ended as a mistake does: one message with these words, status 2."""
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.endswith("; expect waiting")]
    messages = [line for line in lines if line.startswith("dptrain: ")]
    assert len(messages) == 1, done.stderr
    assert re.search(words, messages[0]), messages[0]


class Ranks:
    """Ranks that wait for command lines, so that they start once for many; None: one process."""

    def __init__(self, num: int | None, folder: Path) -> None:
        self.said = folder / f"{num}"
        launcher: list[str | Path] = [] if num is None else [BIN / "mpirun", "-n", str(num)]
        line = [*launcher, BIN / "python", HERE / "cases.py", "commands"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("DPTRAIN_")}
        env = {**own, "PYTHONWARNINGS": "error"}
        with self.said.open("w") as stderr:
            pipe = subprocess.PIPE
            self.job = subprocess.Popen(
                line, text=True, env=env, stdin=pipe, stdout=pipe, stderr=stderr
            )

    def run(
        self,
        *args: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        last: tuple[Sequence[str | Path], Path] | None = None,
    ) -> Finished:
        """Run `dptrain ARGS` on all of them; what they print is put together.

        `last` are arguments and folder of the last rank, where they are others.
        """
        assert self.job.stdin
        assert self.job.stdout
        odd, folder = last or (args, cwd)
        asked = {
            "args": [str(arg) for arg in args],
            "cwd": str(cwd),
            "env": dict(env or {}),
            "last": {"args": [str(arg) for arg in odd], "cwd": str(folder)},
        }
        print(json.dumps(asked), file=self.job.stdin, flush=True)
        answer = self.job.stdout.readline()
        assert answer, self.said.read_text()
        statuses, stdout, stderr = zip(*json.loads(answer), strict=True)
        assert len({*statuses}) == 1, answer
        return Finished(statuses[0], stdout[0], "".join(stderr))


@pytest.fixture(scope="session")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int | None], Ranks]]:
    """Return ranks that wait, by how many they are; started when they are first asked for."""
    folder, made = tmp_path_factory.mktemp("ranks"), dict[int | None, Ranks]()

    def of(num: int | None) -> Ranks:
        if num not in made or made[num].job.poll() is not None:
            made[num] = Ranks(num, folder)
        return made[num]

    yield of
    for ranks in made.values():
        ranks.job.communicate(timeout=60)  # they end with their input


@pytest.fixture
def quick(waiting: Callable[[int | None], Ranks], tmp_path: Path) -> Start:
    """Run `dptrain ARGS` as the fixture `dptrain` does, by ranks that have been started before.

    For what a command computes, writes and says; not for how a process starts and ends.
    """

    def run(*args: str | Path, ranks: int | None = None, **options: Any) -> Finished:
        return waiting(ranks).run(*args, **{"cwd": tmp_path, **options})

    return run


Mistake = Callable[..., None]


@pytest.fixture
def mistake(quick: Start, tmp_path: Path) -> Mistake:
    """Check that `dptrain ARGS` is a mistake, changing no file: mistake("train", words="...")."""

    def check(*args: str | Path, words: str, **options: Any) -> None:
        before = contents(tmp_path)
        done = quick(*args, ranks=3, **options)
        check_mistake(done, words)
        assert "not on all" not in done.stderr  # it is the mistake of all three
        assert contents(tmp_path) == before

    return check


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for one example of a property; pytest's own is there once a test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
