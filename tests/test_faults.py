"""Shows that a disk that is full, read-only or gone, for a while or for good, loses nothing.

The functions by which a process changes files are replaced by ones that can be told to fail.
"""

import contextlib
import errno
import io
import json
import math
import os
import random
import shutil
import stat
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BIN, Start
from tiny import ALONE, CONFIG, HIDDEN, NUM_STEPS, bytes_of, load_once, train, write_data

from dptrain import InputError
from dptrain.arrays import Sums
from dptrain.record import checkpoint, rundir, writer
from dptrain.run import control, resume
from dptrain.run.fit import fit
from dptrain.run.outcome import Summary
from dptrain.run.ready import mlp_for
from dptrain.run.verify import verify
from dptrain.train.state import snapshot

Operation = tuple[str, str, int]
"""What is done to which file of the run, and its number among its like, from 1."""

CHANGES = ("open", "write", "fsync", "replace", "ftruncate", "lseek", "close", "mkdir", "unlink")
LOOKS = ("stat", "scandir")


class Disk:
    """Stands between a process and a folder, and fails what it is told to.

    A write that fails may first take some of its bytes: `taken` of them.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._lock = threading.RLock()  # checkpoints are written by another thread
        self.reset()
        monkeypatch.setattr(os, "fsync", id)  # no power is cut while this runs
        for name in (*CHANGES, *LOOKS):
            monkeypatch.setattr(os, name, self._in_front_of(name, getattr(os, name)))
        monkeypatch.setattr(io, "open", self._in_front_of("open", io.open))

    def reset(self) -> None:
        """Forget what has been done, and fail no more."""
        self.done: list[Operation] = []
        self.failed: list[Operation] = []
        self.taken = 0
        self.copy_to: Path | None = None
        """Where the folder is copied when something fails for the first time."""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._fails: Callable[[Operation], bool] | None = None
        self._error = 0

    def fail(
        self,
        error: int,
        *,
        at: Operation | None = None,
        what: str = "",
        where: str = "",
        first: int = 0,
        last: float = math.inf,
    ) -> None:
        """Fail one operation, or those of a kind on files with some name, from one to another."""

        def fails(operation: Operation) -> bool:
            return (
                at in (None, operation)
                and what in ("", operation[0])
                and where in operation[1]
                and first < len(self.done) <= last
            )

        self._error, self._fails = error, fails

    def _name_of(self, target: Any) -> str | None:
        """Return the name under the folder of a path or an open file; None outside of it."""
        if isinstance(target, int):
            try:
                target = os.readlink(f"/proc/self/fd/{target}")  # noqa: PTH115 (quick)
            except OSError:
                return None
        name, folder = os.fspath(target), str(self.folder)
        if name == folder:
            return "."
        return name[len(folder) + 1 :] if str(name).startswith(f"{folder}/") else None

    def _in_front_of(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *args: Any, **options: Any) -> Any:
            where = self._name_of(target)
            if where is None:
                return real(target, *args, **options)
            with self._lock:
                self._counts[name, where] += 1
                operation = name, where, self._counts[name, where]
                self.done.append(operation)
                if self._fails is None or not self._fails(operation):
                    return real(target, *args, **options)
                if name == "write":
                    real(target, bytes(args[0])[: self.taken])
                if name == "close":
                    real(target)
                if self.copy_to is not None and not self.failed:
                    fails, self._fails = self._fails, None
                    shutil.copytree(self.folder, self.copy_to)
                    self._fails = fails
                self.failed.append(operation)
                raise OSError(self._error, os.strerror(self._error), where)

        return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.npz")


@pytest.fixture(scope="module")
def undisturbed(data: Path) -> tuple[Any, ...]:
    train(data, data.parent / "undisturbed")
    return bytes_of(data.parent / "undisturbed")


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "LOCK_WAIT", 0)  # nobody else writes to these runs


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "run", monkeypatch)


def operations(data: Path, disk: Disk) -> list[Operation]:
    """Return all that a run which nothing disturbs does to its files."""
    train(data, disk.folder)
    done = disk.done.copy()
    shutil.rmtree(disk.folder)
    disk.reset()
    return done


def check_checkpoints(run: Path) -> None:
    """Check that every checkpoint of a run is whole."""
    for step in checkpoint.steps_of(run):
        checkpoint.read(checkpoint.path_of(run, step))


def warnings(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("dptrain: warning: ") for line in lines), lines
    return lines


def check_goes_on(data: Path, run: Path, undisturbed: Any, capsys: Any) -> None:
    """Check that what a run has left so far is enough for the undisturbed run's bytes."""
    check_checkpoints(run)
    train(data, run, resume=True)
    assert bytes_of(run) == undisturbed
    assert warnings(capsys) == []  # the newest checkpoint was whole


def check_one_failure(
    operation: Operation, error: int, disk: Disk, data: Path, undisturbed: Any, capsys: Any
) -> None:
    """Fail one operation; also cut the power at that moment, and go on with what is there."""
    copy = disk.folder.with_name("copy")
    disk.fail(error, at=operation)
    disk.copy_to = copy
    trained = train(data, disk.folder)
    assert disk.failed == [operation]
    said = warnings(capsys)
    assert len(said) == 1, said
    assert os.strerror(error) in said[0]
    assert str(trained.summary.trouble) in said[0]
    assert trained.summary.steps == NUM_STEPS
    if "model" not in operation[1]:
        assert bytes_of(disk.folder) == undisturbed
    assert list(disk.folder.rglob("*.tmp")) == []
    check_checkpoints(disk.folder)
    check_goes_on(data, copy, undisturbed, capsys)
    shutil.rmtree(copy)


def begun(operation: Operation, done: list[Operation]) -> bool:
    """Return whether a run has begun to train when it does this."""
    return done.index(operation) >= done.index(("lseek", "receipt.jsonl", 1))


FAILURES = {
    "a full disk": ("write", errno.ENOSPC),
    "no seeking": ("lseek", errno.EIO),
    "no fsync": ("fsync", errno.EIO),
    "no rename": ("replace", errno.ESTALE),
    "no open": ("open", errno.EROFS),
    "no folder": ("mkdir", errno.EACCES),
    "no removing": ("unlink", errno.EACCES),
    "no close": ("close", errno.EDQUOT),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_fails_once_nothing_is_lost(
    failure: str, disk: Disk, data: Path, undisturbed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every place where a run does this, one after the other; a write may take some bytes."""
    name, error = FAILURES[failure]
    everything = operations(data, disk)
    cases = [done for done in everything if done[0] == name and begun(done, everything)]
    assert cases
    for number, operation in enumerate(cases):
        disk.taken = 11 * (number % 2)
        check_one_failure(operation, error, disk, data, undisturbed, capsys)
        shutil.rmtree(disk.folder)
        disk.reset()


@pytest.mark.parametrize("failure", ["a full disk", "no fsync", "no rename", "no open"])
def test_what_fails_before_the_first_step_is_said_and_can_be_done_again(
    failure: str, disk: Disk, data: Path, undisturbed: Any
) -> None:
    name, error = FAILURES[failure]
    everything = operations(data, disk)
    cases = [done for done in everything if done[0] == name and not begun(done, everything)]
    assert cases
    for operation in cases:
        disk.fail(error, at=operation)
        with pytest.raises(InputError, match=os.strerror(error)):
            train(data, disk.folder)
        disk.reset()
        train(data, disk.folder, resume=(disk.folder / rundir.CONFIG).is_file())
        assert bytes_of(disk.folder) == undisturbed
        shutil.rmtree(disk.folder)
        disk.reset()


@pytest.mark.parametrize("failure", sorted(FAILURES.keys() - {"no folder"}))
def test_whatever_fails_once_when_a_run_goes_on_nothing_is_lost(
    failure: str, disk: Disk, data: Path, undisturbed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends at once, untouched, or it goes on with a warning."""
    name, error = FAILURES[failure]
    before = disk.folder.with_name("before")
    half = operations_of_half(data, disk, before)
    cases = [done for done in half if done[0] == name]
    assert cases
    capsys.readouterr()
    for operation in cases:
        shutil.copytree(before, disk.folder)
        disk.reset()
        disk.fail(error, at=operation)
        trained = mistake = None
        try:
            trained = train(data, disk.folder, resume=True)
        except InputError as error_of_a_person:
            mistake = error_of_a_person
        (said,) = [str(mistake)] if mistake else warnings(capsys)
        assert os.strerror(error) in said
        if trained is not None:
            assert trained.summary.trouble or "the one before it is used" in said
        assert disk.failed == [operation]
        disk.reset()
        copy = disk.folder.rename(disk.folder.with_name("copy"))
        check_goes_on(data, copy, undisturbed, capsys)
        shutil.rmtree(copy)


def operations_of_half(data: Path, disk: Disk, before: Path) -> list[Operation]:
    """Cut a run's power in its middle; return all that it does to its files when it goes on."""
    disk.fail(errno.EIO, where="step-0000000003")
    disk.copy_to = before
    train(data, disk.folder)
    shutil.rmtree(disk.folder)
    disk.reset()
    shutil.copytree(before, disk.folder)
    disk.reset()
    train(data, disk.folder, resume=True)
    done = disk.done.copy()
    shutil.rmtree(disk.folder)
    disk.reset()
    return done


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_flushes_no_folders_is_said_once(
    error: int,
    data: Path,
    undisturbed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As some FUSE and SMB mounts do. A folder that could not be flushed this time is a fault."""

    def fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fsync)
    if error == errno.EIO:
        with pytest.raises(InputError, match="Input/output error"):
            train(data, tmp_path / "run")
        return
    trained = train(data, tmp_path / "run")
    (said,) = warnings(capsys)
    assert "flushes no folders" in said
    assert trained.summary.trouble is None
    assert bytes_of(tmp_path / "run") == undisturbed


def test_a_state_is_copied_once_the_one_before_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a slow disk costs the memory of one copy."""
    writing: list[int] = []
    copied: list[int] = []
    write = checkpoint.write

    def slow(*args: Any) -> None:
        writing.append(1)
        time.sleep(0.05)
        write(*args)
        writing.pop()

    def look(run: Any) -> Any:
        copied.append(len(writing))
        return snapshot(run)

    monkeypatch.setattr(checkpoint, "write", slow)
    monkeypatch.setattr(control, "snapshot", look)
    train(data, tmp_path / "run")
    assert copied == [0] * NUM_STEPS


def messages_about(said: list[str]) -> list[str]:
    """Return the file that each warning is about; a checkpoint's is its folder."""
    paths = [Path(line.removeprefix("dptrain: warning: ").split(" can't be")[0]) for line in said]
    return [path.parent.name if path.name.startswith("step-") else path.name for path in paths]


def test_a_disk_that_is_full_for_a_while_leaves_no_gap(
    disk: Disk, data: Path, undisturbed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """From some operation to another, both at random, all that changes a file fails."""
    rng = random.Random(0)  # noqa: S311 (places to test)
    everything = operations(data, disk)
    start = everything.index(("lseek", "receipt.jsonl", 1))
    copy = disk.folder.with_name("copy")
    whole = 0
    for _ in range(15):
        first = rng.randrange(start, (start + len(everything)) // 2)
        last = first + rng.randrange(2, 15)  # what fails is not followed by all that would follow
        disk.fail(errno.ENOSPC, first=first, last=last)
        disk.copy_to = copy
        disk.taken = rng.randrange(100)
        trained = train(data, disk.folder)
        about = messages_about(warnings(capsys))
        assert about
        assert len(about) == len({*about}), about
        assert trained.summary.trouble
        in_time = disk.done.index(("close", "metrics.jsonl", 1)) > last + 8  # for the last flush
        disk.reset()
        check_checkpoints(disk.folder)
        if in_time:
            assert bytes_of(disk.folder)[1:] == undisturbed[1:]
            whole += 1
        check_goes_on(data, copy, undisturbed, capsys)
        for folder in (copy, disk.folder):
            shutil.rmtree(folder)
        disk.reset()  # of what the checks have done
    assert whole > 5


@pytest.mark.parametrize("lines", ["metrics.jsonl", "receipt.jsonl"])
def test_no_checkpoint_counts_on_lines_that_are_not_there(
    lines: str, disk: Disk, data: Path, undisturbed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only these lines find no room any more; the power is cut before they do."""
    everything = operations(data, disk)
    first = everything.index(("write", lines, 1)) + 1
    disk.fail(errno.ENOSPC, what="write", where=lines, first=first)
    train(data, disk.folder)
    assert len(disk.failed) > 1
    assert len(warnings(capsys)) == 1
    disk.reset()
    check_goes_on(data, disk.folder, undisturbed, capsys)


def test_checkpoints_that_find_no_room_are_said_once(
    disk: Disk, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines are short enough for what is left of the disk."""
    disk.fail(errno.ENOSPC, what="write", where="step-")
    trained = train(data, disk.folder)
    assert len(disk.failed) == NUM_STEPS
    assert len(warnings(capsys)) == 1
    assert "checkpoints" in str(trained.summary.trouble)
    assert trained.summary.saved is None
    assert checkpoint.steps_of(disk.folder) == []


def test_a_file_system_that_is_lost_for_good_costs_no_step_and_no_checkpoint(
    disk: Disk, data: Path, undisturbed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = operations(data, disk)
    start = everything.index(("lseek", "receipt.jsonl", 1))
    good = train(data, None).summary.params_sha256
    capsys.readouterr()
    for first in range(start, len(everything), 9):
        disk.fail(errno.ESTALE, first=first)
        trained = train(data, disk.folder)
        assert trained.summary.params_sha256 == good
        assert trained.summary.steps == NUM_STEPS
        assert os.strerror(errno.ESTALE) in str(trained.summary.trouble)
        about = messages_about(warnings(capsys))
        assert about
        assert len(about) == len({*about}), about
        disk.reset()
        copy = disk.folder.rename(disk.folder.with_name("copy"))
        check_goes_on(data, copy, undisturbed, capsys)
        shutil.rmtree(copy)


def test_a_lost_file_system_is_not_asked_at_every_step(
    disk: Disk, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits grows with every step, and each try would copy it."""
    monkeypatch.setattr(writer, "HURRY", 100)
    disk.fail(errno.EIO, what="lseek")
    start = time.monotonic()
    train(data, disk.folder, steps=60, epochs=None, patience=None, checkpoint_every="60 seconds")
    tries = len([done for done in disk.failed if done[1] == "receipt.jsonl"])
    assert tries < 7 + (time.monotonic() - start)


# ---- a power cut


def changes_of(disk: Disk) -> list[tuple[str, str]]:
    """Return what has been done to the files of a run and to its folders, in order."""
    return [(what, name) for what, name, _ in disk.done if what in CHANGES]


def test_a_file_is_on_disk_before_its_name_is_and_its_name_before_the_next(
    disk: Disk, data: Path
) -> None:
    train(data, disk.folder)
    done = changes_of(disk)
    places = [number for number, (what, _) in enumerate(done) if what == "replace"]
    assert len(places) == 1 + NUM_STEPS + 2  # settings, checkpoints, model and summary
    assert [done[place][1] for place in places[-2:]] == [
        ".model.safetensors.tmp",
        ".summary.json.tmp",
    ]
    for place in places:
        name = done[place][1]
        folder = str(Path(name).parent)
        assert [what for what, changed in done[:place] if changed == name][-3:] == [
            "write",
            "fsync",
            "close",
        ]
        later = [
            (what, changed)
            for what, changed in done[place + 1 :]
            if (what, changed) == ("fsync", folder)
            or (what == "replace" and Path(changed).parent == Path(folder))
        ]
        assert later[0] == ("fsync", folder), name
    made = done.index(("mkdir", "checkpoints"))
    assert done.index(("fsync", "."), made) < done.index(("fsync", "checkpoints"))


def test_the_lines_that_a_checkpoint_counts_on_are_on_disk_before_it(disk: Disk) -> None:
    disk.folder.mkdir()
    files = writer.Writer(disk.folder, 2, writer.Files())
    for step in (1, 2):
        files.step(step, np.arange(3), 0.5, None)
        files.metrics({"step": step})
        disk.done.clear()
        files.save(step, {"params": np.zeros(3)}, files.files()._asdict(), {})
        files.wait()
        done = changes_of(disk)
        checkpoint_begins = done.index(("write", f"checkpoints/.step-{step:010}.safetensors.tmp"))
        for lines in ("metrics.jsonl", "receipt.jsonl"):
            assert ("fsync", lines) in done[:checkpoint_begins]
            assert ("write", lines) not in done[done.index(("fsync", lines)) :]
    disk.done.clear()
    files.step(3, np.arange(3), 0.5, None)
    files.metrics({"step": 3})
    files.close()
    for lines in ("metrics.jsonl", "receipt.jsonl"):
        told = [what for what, changed in changes_of(disk) if changed == lines]
        assert told == ["lseek", "write", "fsync", "close"]


# ---- a real disk

SMALL_DISK = """
run() { "$@"; echo "status $?"; }
mkdir disk && mount -t tmpfs -o size=224k tmpfs disk || exit
train="dptrain --quiet --json --epochs 3 --checkpoint-every '1 epoch'"
run $train --out disk/run
mount -o remount,ro disk
run dptrain --quiet --json --resume disk/run
run dptrain --quiet --json --out disk/other
mount -o remount,rw,size=16m disk
run dptrain --quiet --json --resume disk/run
run dptrain verify disk/run --json
"""


def test_a_disk_that_is_really_full_and_then_read_only(tmp_path: Path, dptrain: Start) -> None:
    """It has room for one checkpoint of 116 kB, not for two; later for all."""
    line = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        possible = subprocess.run([*line, "mount -t tmpfs tmpfs /mnt"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if possible.returncode != 0:
        pytest.skip(f"no small disk is possible here: {possible.stderr.decode()}")
    done = subprocess.run(
        [*line, SMALL_DISK.replace("'1 epoch'", "15")],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    statuses = [line for line in lines if line.startswith("status")]
    assert statuses == ["status 74", "status 2", "status 2", "status 0", "status 0"], done.stderr
    full, resumed, verified = (json.loads(line) for line in lines if line.startswith("{"))
    said = done.stderr.splitlines()
    assert len(said) == 3, said
    assert said[0].startswith("dptrain: warning: disk/run/checkpoints")
    assert "No space left on device" in said[0]
    assert full["trouble"] in said[0]
    assert all("Read-only file system" in line for line in said[1:])
    good = dptrain("--quiet", "--json", "--epochs", "3").json
    assert full["params_sha256"] == resumed["params_sha256"] == good["params_sha256"]
    assert verified["verdict"] == "whole"


# ---- lines that another process takes away while a run goes on


def meddled(data: Path, run: Path, step: int, meddle: Callable[[Path], object]) -> Summary:
    """Train, with something done to the run's files before a step; return its summary."""
    loaded = load_once(data)
    model = mlp_for(loaded, HIDDEN)
    compute, calls = model.of_shards, 0

    def meddling(*args: Any) -> list[Sums]:
        nonlocal calls
        calls += 1
        if calls == step:  # all shards in one go
            meddle(run)
        return compute(*args)

    model.of_shards = meddling  # type: ignore[method-assign, assignment]
    return fit(model, loaded, CONFIG, out=run, world=ALONE).summary


def overwrite(name: str, run: Path) -> None:
    (run / name).unlink()
    (run / name).write_text("something else\n")


@pytest.mark.parametrize("name", ["receipt.jsonl", "metrics.jsonl"])
@pytest.mark.parametrize("step", [1, 3])
def test_lines_that_are_removed_or_replaced_are_written_once_more(
    name: str, step: int, data: Path, undisturbed: Any, tmp_path: Path, capsys: Any
) -> None:
    ways: list[Callable[[Path], object]] = [
        lambda run: (run / name).unlink(),
        lambda run: overwrite(name, run),
        lambda run: (run / name).rename(run.parent / "moved"),
    ]
    for number, way in enumerate(ways):
        run = tmp_path / str(number)
        summary = meddled(data, run, step, way)
        (said,) = warnings(capsys)
        assert f"{name} was removed or replaced by another process: written once more" in said
        assert (summary.trouble, summary.saved) == (None, NUM_STEPS)
        assert bytes_of(run) == undisturbed
        checkpoint.path_of(run, NUM_STEPS).unlink()
        check_goes_on(data, run, undisturbed, capsys)


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("step", [2, 4])
def test_a_receipt_that_is_cut_is_never_called_saved(
    size: int, step: int, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    summary = meddled(data, run, step, lambda run: os.truncate(run / "receipt.jsonl", size))
    assert "another process has changed it" in str(summary.trouble)
    assert summary.saved is None
    assert len(warnings(capsys)) == 1
    assert checkpoint.steps_of(run) == [*range(1, step)][-2:]


def test_checkpoints_that_become_a_link_are_never_called_saved(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine"

    def move(run: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(mine)
        (run / "checkpoints").rename(mine)
        with contextlib.suppress(OSError):  # one is being written, in a folder made anew
            shutil.rmtree(run / "checkpoints")
        link.rename(run / "checkpoints")

    summary = meddled(data, run, 3, move)
    said = warnings(capsys)  # of a checkpoint that was being written meanwhile there is one more
    assert len(said) <= 2
    assert "it is no plain folder" in said[-1]
    assert f"{run / 'checkpoints'} can't be written" in str(summary.trouble)
    assert summary.saved is None
    kept = {checkpoint.path_of(run, step).name for step in (1, 2)}
    assert {path.name for path in mine.iterdir() if path.suffix == ".safetensors"} <= kept


def test_metrics_that_are_cut_cost_no_checkpoint(
    data: Path, undisturbed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    summary = meddled(data, run, 4, lambda run: os.truncate(run / "metrics.jsonl", 200))
    assert "metrics.jsonl" in str(summary.trouble)
    assert summary.saved == NUM_STEPS
    assert len(warnings(capsys)) == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert verify(run, "all", world=ALONE).verdict == "identical"
    assert bytes_of(run)[0] == undisturbed[0]
    train(data, run, resume=True)
    (said,) = warnings(capsys)
    assert "metrics.jsonl: it has 1 of 2 epochs; the run goes on with what is left" in said


def test_a_function_that_changes_the_directory_costs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's name is one in the directory that it began in, also where others have it."""
    other = tmp_path / "other" / "run"
    other.mkdir(parents=True)
    data = load_once(write_data(tmp_path / "data.npz"))
    monkeypatch.chdir(tmp_path)
    model, move = mlp_for(data, HIDDEN), lambda _: os.chdir(other.parent)
    found = fit(model, data, CONFIG, out="run", on_epoch=move, world=ALONE).summary
    assert (found.run, found.trouble, found.saved) == ("run", None, NUM_STEPS)
    assert verify(tmp_path / "run", world=ALONE).verdict == "whole"
    assert not [*other.iterdir()]
