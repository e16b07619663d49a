"""Shows how runs end before their last step, on purpose or not, and that they go on from there."""

import dataclasses
import fcntl
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import BIN, Finished, Start, start, wait_until
from disturb import STEP

import dptrain
from dptrain import guard, launch, machine, streams, world
from dptrain.guard import GUARD, Ask
from dptrain.run import resume
from dptrain.run.trained import Trained
from dptrain.train.state import Metrics

HERE = Path(__file__).parent


def disturbed(out: Path, *words: object, ranks: int | None = 3) -> Finished:
    """Run disturb.py; its words are WHAT WHEN RANK and so on."""
    script = HERE / "disturb.py"
    return start("python", script, out, *map(str, words), ranks=ranks, cwd=out.parent, timeout=60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same settings that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = disturbed(out, "nothing", "never", 0, ranks=None)
    assert done.stdout.split() == ["None", "162"], done.stderr
    return out


def same(run: Path, whole: Path) -> None:
    """Assert that two runs have left the same bytes, times aside."""
    names = ("receipt.jsonl", "model.safetensors", "checkpoints/step-0000000162.safetensors")
    for name in names:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert lines_without_times(run) == lines_without_times(whole)


def lines_without_times(run: Path) -> list[str]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [json.dumps({k: v for k, v in line.items() if k != "seconds"}) for line in lines]


SIGNALS: dict[int | None, tuple[tuple[str, str, int], ...]] = {
    None: (
        ("INT", "step", 0),
        ("USR1", "start", 0),
        ("USR1", "evaluation", 0),
        ("HUP", "step", 0),
        ("USR2", "step", 0),
    ),
    2: (("TERM", "step", -1), ("USR1", "test", 0), ("HUP", "step", 1), ("XCPU", "evaluation", 1)),
    3: (
        ("TERM", "step", 1),
        ("USR1", "step", 0),
        ("INT", "step", 2),
        ("TERM", "start", 0),
        ("TERM", "evaluation", 2),
    ),
}
"""Which signal comes when to which rank, -1 for all, in runs of one start with so many ranks."""


@pytest.mark.parametrize("spoken", [False, True])
def test_a_rank_that_never_started_is_named_once(
    spoken: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the first one that sees it, which is gone when the next one looks again."""
    monkeypatch.setattr(launch, "launcher_processes", lambda: [os.getpid()])
    found = iter(["rank 2", "rank 2", "rank 0, 2" if spoken else "rank 2"])
    monkeypatch.setattr(launch, "missing_ranks", lambda _: next(found))
    monkeypatch.setattr(launch, "LOOK", 0.01)

    def end(*_: int) -> None:
        raise SystemExit

    monkeypatch.setattr(os, "kill", end)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda *_: None)  # this is no thread of its own
    with pytest.raises(SystemExit):
        launch._watch_start(launch.Launch("mpirun", 1, 3), threading.Event())
    assert ("rank 2 has ended before MPI started" in capfd.readouterr().err) is not spoken


def test_of_ranks_that_see_at_one_moment_that_one_never_started_only_one_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """None has ended yet when each looks again: on a busy machine that takes longer than to speak.

    So here none ends before all have looked.
    """
    looked = threading.Barrier(3, timeout=10)

    def end(*_: int) -> None:
        looked.wait()
        raise SystemExit

    monkeypatch.setattr(launch, "missing_ranks", lambda _: "rank 3")
    monkeypatch.setattr(launch, "launcher_processes", lambda: [os.getpid()])
    monkeypatch.setattr(launch, "LOOK", 0.01)
    monkeypatch.setattr(os, "kill", end)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda *_: None)
    with ThreadPoolExecutor(3) as pool:
        ranks = [launch.Launch("mpirun", rank, 4) for rank in range(3)]
        ends = [pool.submit(launch._watch_start, each, threading.Event()) for each in ranks]
    assert all(isinstance(each.exception(), SystemExit) for each in ends)
    assert capfd.readouterr().err.count("rank 3 has ended before MPI started") == 1


@pytest.mark.parametrize(
    ("a_node", "size", "words"),
    [("4", 4, "rank 1"), ("3(x2),4", 10, f"a rank on {os.uname().nodename}, beside 0, 2, 3,")],
)
def test_a_rank_that_slurm_has_started_and_that_has_ended_is_missed(
    a_node: str, size: int, words: str, tmp_path: Path
) -> None:
    """Here by a shell of slurmstepd's name."""
    (tmp_path / "slurmstepd").symlink_to("/bin/bash")
    look = f"from dptrain.launch import *; print(missing_ranks(Launch('srun', 3, {size})))"
    lines = f"""
    for rank in 0 2; do SLURM_PROCID=$rank sleep 60 & done
    SLURM_PROCID=3 {BIN}/python -c "{look}"
    kill $(jobs -p)"""
    env = {**os.environ, "SLURM_STEP_TASKS_PER_NODE": a_node, "SLURM_NODEID": "2"}
    for command, expected in ((lines, words), (lines.replace("0 2", "0 1 2"), "None")):
        line: list[str | Path] = [tmp_path / "slurmstepd", "-c", command]
        assert subprocess.check_output(line, env=env, text=True) == f"{expected}\n"


@pytest.mark.parametrize("ranks", SIGNALS)
def test_a_signal_saves_the_run_which_goes_on_with_the_same_bytes(
    ranks: int | None, tmp_path: Path, whole: Path, quick: Start
) -> None:
    names = ["-".join(map(str, case)) for case in SIGNALS[ranks]]
    first, *others = zip(names, SIGNALS[ranks], strict=True)
    words = [word for name, case in others for word in ("and", tmp_path / name, *case)]
    done = disturbed(tmp_path / first[0], *first[1], *words, ranks=ranks)
    assert done.status == (130 if SIGNALS[ranks][-1][0] == "INT" else 75), done.stderr
    assert done.stderr == ""
    within = {"start": range(1, 30), "step": range(18, 100), "evaluation": [54], "test": [162]}
    for name, (what, when, _), told in zip(
        names, SIGNALS[ranks], done.stdout.splitlines(), strict=True
    ):
        stopped, step = told.rsplit(None, 1)
        assert stopped == ("Ctrl-C" if what == "INT" else f"SIG{what}")
        assert int(step) in within[when], name
        saved = [path.name for path in (tmp_path / name / "checkpoints").iterdir()]
        assert saved == [f"step-{int(step):010}.safetensors"]
        on = 2 if name == names[0] else None
        assert quick("train", "--resume", name, "--json", ranks=on).json["steps"] == 162
        same(tmp_path / name, whole)


@pytest.mark.parametrize(
    ("number", "wait"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0.3), (signal.SIGUSR1, 1.5)]
)
def test_a_signal_to_one_rank_that_starts_ends_all(
    number: signal.Signals, wait: float, tmp_path: Path
) -> None:
    """The others would wait for ever: a process that ends by itself then is no failure to mpirun.

    Nothing has been saved, so the status is not the one of a run to go on later.
    """
    script = "import os, time; os.write(1, b'%d\\n' % os.getpid()); time.sleep(0.1); "
    script += "import dptrain; dptrain.connect(); dptrain.load(); time.sleep(60)"
    command = [str(BIN / "mpirun"), "-n", "3", sys.executable, "-u", "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1, text=True) as job:
        assert job.stdout is not None
        process = int(job.stdout.readline())
        time.sleep(wait)
        os.kill(process, number)
        job.communicate(timeout=60)
    assert job.returncode not in (0, 75)


def test_a_signal_before_there_is_a_run_ends_by_itself(tmp_path: Path) -> None:
    command = [str(BIN / "dptrain"), "train", "--out", "run", "--steps", "1000000", "--quiet"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1) as process:
        time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == -signal.SIGUSR1
    assert not [*tmp_path.rglob("*.toml")]


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    words = [sys.executable, str(HERE / "disturb.py"), "run", "HUP", "step", "0"]
    script = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    script += f"os.execv({sys.executable!r}, {words})"
    done = start("python", "-c", script, cwd=tmp_path)
    assert done.stdout.split() == ["None", "162"], done.stderr


def test_signals_are_heard_with_many_files_open_and_none_to_be_had(
    tmp_path: Path,
) -> None:
    """select() takes no descriptor over 1023; a look that fails is no launcher that is gone."""
    script = """
import os, resource, signal, sys, threading, time
import dptrain
from dptrain import guard, launch, streams
from dptrain.guard import GUARD, Ask
resource.setrlimit(resource.RLIMIT_NOFILE, (1200, 1200))
guard.TICK = 0.1
data = dptrain.load()
model = dptrain.mlp_for(data)
many = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
def none_left_and_then_a_signal():
    time.sleep(0.5)
    try:
        while True:
            many.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=none_left_and_then_a_signal, daemon=True).start()
began = time.monotonic()
trained = dptrain.fit(model, data, dptrain.TrainConfig(steps=10**9))
assert trained.summary.stopped == "SIGTERM" and time.monotonic() - began > 1.4
"""
    done = start("python", "-c", script, ranks=1, cwd=tmp_path)
    assert done.status == 0, done.stderr


def test_a_handler_that_is_not_pythons_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """signal.signal() returns None for a handler of a C library, and doesn't take it back."""
    real = signal.signal

    def of_a_library(number: int, handler: Any) -> Any:
        found = real(number, handler)
        return None if handler is guard._heard else found

    monkeypatch.setattr(signal, "signal", of_a_library)
    with guard.GUARD.hearing(600.0):
        pass
    assert {signal.getsignal(number) for number in guard.SIGNALS} == {signal.SIG_DFL}


def test_a_young_run_is_saved_soon(tmp_path: Path) -> None:
    """No rank hears of a SIGHUP that ends MPICH's mpirun: the last checkpoint is all there is."""
    data, folder = dptrain.load(), tmp_path / "run" / "checkpoints"

    def stop_once_saved() -> None:
        wait_until(lambda: bool([*folder.glob("step-*")]))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_once_saved).start()
    dptrain.fit(dptrain.mlp_for(data), data, dptrain.TrainConfig(steps=10**9), out=folder.parent)
    assert len([*folder.iterdir()]) == 2


def test_signals_while_the_model_is_written_let_it_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is over: there is nothing to be saved for later."""
    real = Trained.save

    def disturbed(trained: Trained, directory: Path) -> None:
        for number in guard.SIGNALS:
            os.kill(os.getpid(), number)
        wait_until(lambda: all(ask in GUARD.asked for ask in guard.STOPS))
        real(trained, directory)

    monkeypatch.setattr(Trained, "save", disturbed)
    data, run = dptrain.load(), tmp_path / "run"
    found = dptrain.fit(dptrain.mlp_for(data), data, dptrain.TrainConfig(steps=2), out=run).summary
    assert (found.stopped, found.trouble) == (None, None)
    assert dptrain.verify(run).verdict == "whole"


@pytest.mark.parametrize("within", [False, True])
def test_a_forked_child_hears_its_own_signals(within: bool) -> None:
    """Such as a worker of a multiprocessing.Pool; and its parent, in a run, hears none of them."""
    data = dptrain.load()
    model, long = dptrain.mlp_for(data), dptrain.TrainConfig(steps=10**9)
    begun = multiprocessing.get_context("fork").Event()

    def child() -> None:
        dptrain.fit(model, data, long, on_epoch=lambda _: begun.set())
        os._exit(7)

    def fork(*_: object) -> None:
        for target, status in ((child, 7), (begun.set, -signal.SIGTERM)):
            begun.clear()

            def do(target: Callable[[], object] = target) -> None:
                target()
                time.sleep(60)

            process = multiprocessing.get_context("fork").Process(target=do, daemon=True)
            process.start()
            assert begun.wait(30)
            process.terminate()
            process.join(30)
            assert process.exitcode == status

    run = dptrain.fit(model, data, dptrain.TrainConfig(epochs=1), on_epoch=fork if within else None)
    if not within:
        fork()
    assert run.summary.stopped is None
    assert GUARD.asked == Ask(0)


def test_a_child_of_a_rank_is_alone_and_after_finalize_there_are_no_ranks(tmp_path: Path) -> None:
    """MPI knows nothing of a forked child; and a program may end MPI itself, as those in C do."""
    script = """
import multiprocessing
import dptrain
from mpi4py import MPI
world, data = dptrain.connect(), dptrain.load()
def trained(**options):
    config = dptrain.TrainConfig(steps=3, shards=4)
    return dptrain.fit(dptrain.mlp_for(data), data, config, **options)
def refused():
    try:
        trained(world=world)
    except dptrain.InputError as error:
        return "thread or process" in str(error) and "after MPI.Finalize()" in str(error)
def child():
    found = trained().summary
    queue.put((found.ranks, found.params_sha256, refused()))
fork = multiprocessing.get_context("fork")
queue = fork.Queue()
fork.Process(target=child, daemon=True).start()
of_child, together = queue.get(timeout=30), trained()
assert of_child == (1, together.summary.params_sha256, True)
MPI.Finalize()
assert refused()
together.predict([[0.0] * 64])
"""
    done = start("python", "-c", script, ranks=2, cwd=tmp_path)
    assert (done.status, done.stderr) == (0, "")


def test_the_world_of_threads_that_connect_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two would be made of messages that mix."""
    world.joined.cache_clear()
    monkeypatch.setattr(world, "load_mpi", lambda _: time.sleep(0.05))
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(dptrain.connect) for _ in range(4)]
    assert len({id(each.result()) for each in found}) == 1


def test_who_has_ended_mpi_before_there_was_a_world_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MPI itself would end the process where it is asked for anything; one process needs none."""
    over = SimpleNamespace(
        Get_library_version=lambda: "MPICH", Is_initialized=lambda: True, Is_finalized=lambda: True
    )
    monkeypatch.setattr(launch, "_import_mpi", lambda: over)
    assert launch.load_mpi(None) is None
    with pytest.raises(dptrain.InputError, match=r"call dptrain before MPI\.Finalize"):
        launch.load_mpi(launch.Launch("mpiexec", 0, 2))


def test_too_little_shared_memory_to_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=500, f_frsize=4096))
    monkeypatch.delenv("MPI_LOCALNRANKS", raising=False)
    assert machine.room_to_start() is None
    monkeypatch.setenv("MPI_LOCALNRANKS", "2")
    assert "has 2.0 MB free in /dev/shm: MPI may die of a signal" in str(machine.room_to_start())
    monkeypatch.setenv("MPI_LOCALNRANKS", "1")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as where it is not there
    assert "has 0.0 MB free" in str(machine.room_to_start())


def test_a_process_alone_starts_no_mpi_that_would_die(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "room_to_start", lambda: "there is none")
    monkeypatch.setattr(world, "load_mpi", lambda _: pytest.fail("MPI is started"))
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    world.joined.cache_clear()
    assert dptrain.connect().size == 1


class OfTheWeb(Exception):  # noqa: N818 (as others call theirs)
    """Such as urllib's, whose status is a server's."""

    status = 512


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SystemExit(256), 1),  # of which a process keeps the last 8 bits
        (SystemExit(2**40), 1),
        (SystemExit(-1), 255),
        (SystemExit("no"), 1),
        (OfTheWeb(), 1),
        (dptrain.InputError("no"), 2),
    ],
)
def test_a_rank_that_fails_never_ends_with_status_0(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(dptrain.World, "abort", lambda _, status: found.append(status))
    dptrain.World().end_all_ranks(error)
    assert found == [status]


class Odd(io.StringIO):
    """A stream of somebody's own, with a fault."""

    def write(self, text: str) -> int:
        raise RuntimeError(text)


@pytest.mark.parametrize("how", ["None", "closed", "no stream", "bytes", "odd", "not there"])
def test_standard_error_may_be_anything(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A warning ends no run, and neither does progress; what ends the process is still said."""
    closed = io.StringIO()
    closed.close()
    found = {"None": None, "closed": closed, "no stream": "x", "bytes": io.BytesIO(), "odd": Odd()}
    if how in found:
        monkeypatch.setattr(sys, "stderr", found[how])
    else:
        monkeypatch.delattr(sys, "stderr")
    data, run = dptrain.load(), tmp_path / "run"
    settings = dptrain.TrainConfig(epochs=3, checkpoint_every="1 epoch")

    def move(metrics: Metrics) -> None:
        if metrics["epoch"] == 1:
            run.rename(tmp_path / "away")

    model = dptrain.mlp_for(data)
    trained = dptrain.fit(model, data, settings, out=run, on_epoch=move, quiet=False)
    assert trained.summary.trouble is not None
    streams.last_words("the end")
    assert "dptrain: the end" in capfd.readouterr().err


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    script = HERE / "disturb.py"
    command = [sys.executable, str(script), "run", "sleep", "step", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asleep\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        assert process.poll() is None  # it waits for the step
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


@pytest.mark.parametrize("what", ["KILL", "raise", "exit"])
def test_a_rank_that_dies_ends_the_job(what: str, tmp_path: Path) -> None:
    began = time.monotonic()
    done = disturbed(tmp_path / "run", what, "step", 1, ranks=2)
    assert done.status != 0
    assert time.monotonic() - began < 30
    if what == "raise":
        assert "rank 1 of 2" in done.stderr
        assert "RuntimeError: something unexpected" in done.stderr


@pytest.mark.parametrize(
    ("what", "per_node", "said"),
    [("STOP", 2, "no answer"), ("sleep", 2, "not at the point"), ("STOP", 1, "no answer")],
)
def test_a_silent_rank_is_named(what: str, per_node: int, said: str, tmp_path: Path) -> None:
    done = disturbed(tmp_path / "run", what, "step", 1, per_node, "stall_timeout=1", ranks=2)
    assert done.status != 0
    assert done.stderr.count("no progress for 1 s") == 1
    assert "rank 1 (process " in done.stderr
    assert said in done.stderr
    assert "rank 0 (" not in done.stderr


def test_copies_that_drift_apart_stop_the_run(tmp_path: Path) -> None:
    """At the latest where a checkpoint would be written; three runs of one start."""
    cases = (("allreduce", 2, 1), ("tree", 1, 1), ("allreduce", 2, 1000))
    runs, words = [tmp_path / f"run{number}" for number in range(3)], list[object]()
    for run, (reduce, per_node, audit_every) in zip(runs, cases, strict=True):
        often = (f"audit_every={audit_every}", f"checkpoint_every={STEP} steps")
        words += ["and", run, "flip", "step", 1, per_node, f"reduce={reduce}", *often]
    done = disturbed(runs[0], *words[2:], ranks=2)
    assert done.status == 70, done.stderr
    for run, said in zip(runs, done.stdout.splitlines(), strict=True):
        assert said.startswith("70 after step ")
        assert "of rank 1 are not those of rank 0" in said
        assert "layers.1.weight" in said
        assert not (run / "model.safetensors").exists()
        assert not (run / "checkpoints").exists()


def test_one_process_writes_to_a_run_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "LOCK_WAIT", 0.5)
    data, out = dptrain.load(), tmp_path / "run"
    model = dptrain.mlp_for(data)
    dptrain.fit(model, data, dptrain.TrainConfig(epochs=1), out=out)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    with (out / "receipt.jsonl").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(dptrain.InputError, match="is being written by another process"):
            dptrain.fit(model, data, dptrain.TrainConfig(epochs=2), out=out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_who_begins_a_run_where_another_was_quicker_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory was empty when it was looked at first."""
    take, out = resume.lock, tmp_path / "run"

    def late(directory: Path) -> int:
        (directory / "config.toml").write_text("theirs")
        return take(directory)

    monkeypatch.setattr(resume, "lock", late)
    data = dptrain.load()
    with pytest.raises(dptrain.InputError, match="exists and is not empty"):
        dptrain.fit(dptrain.mlp_for(data), data, dptrain.TrainConfig(steps=1, shards=1), out=out)
    assert (out / "config.toml").read_text() == "theirs"
    assert not (out / "metrics.jsonl").exists()


def test_a_run_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    data, out = dptrain.load(), tmp_path / "run"
    model = dptrain.mlp_for(data)
    settings = dptrain.TrainConfig(shards=1, batch_size=500, epochs=1)
    dptrain.fit(model, data, settings, out=out)
    with (out / "receipt.jsonl").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.5, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        longer = dataclasses.replace(settings, epochs=2)
        trained = dptrain.fit(model, data, longer, out=out, resume=True)
        timer.join()
    assert trained.summary.epochs == 2


# ---- what is asked


def test_all_that_is_asked_is_noted() -> None:
    """A second signal, though within a second, does not take the first one's place."""
    before = signal.getsignal(signal.SIGUSR1)
    with GUARD.hearing(600.0):
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        wait_until(lambda: GUARD.asked == Ask.SIGUSR1 | Ask.SIGTERM)
    assert GUARD.asked.stop == "SIGTERM"
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Ask(0), None),
        (Ask.SAVE, None),
        (Ask.SAVE | Ask.SIGUSR1, "SIGUSR1"),
        (Ask.SIGUSR1 | Ask.SIGTERM, "SIGTERM"),
        (Ask.SIGUSR1 | Ask.SIGTERM | Ask.SIGINT, "Ctrl-C"),
    ],
)
def test_of_what_is_asked_the_strongest_counts(asked: Ask, why: str | None) -> None:
    assert asked.stop == why


def test_a_slow_disk_is_waited_for(tmp_path: Path) -> None:
    """Longer than ranks may be silent."""
    words = ("slow", "disk", 0, "stall_timeout=1", "checkpoint_every=60 steps")
    done = disturbed(tmp_path / "run", *words, ranks=2)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.split() == ["None", "162"]
