"""Shows that supervise brings a run to its end, gives up where it should, and leaves nothing."""

import contextlib
import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, Finished, start, wait_until

from dptrain.record import checkpoint
from dptrain.reduce import memory
from dptrain.supervise import tidy_up

ENV = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONWARNINGS": "error"}
LONG = "--steps 400 --hidden 128 --checkpoint-every 20 --quiet"
"""A run that goes on for long enough to be killed again and again."""

HASTY = (
    "import dptrain.supervise, dptrain.cli.main; dptrain.supervise.GRACE = 0.1; "
    "dptrain.cli.main.main()"
)
"""Supervise that does not wait for what was left behind."""

END = "mkdir -p run; echo >run/summary.json"
"""What a launcher does whose run comes to its end."""


Supervise = Callable[..., Finished]
Supervised = Callable[..., "subprocess.Popen[str]"]
Launcher = Callable[..., str]


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """Start supervise in an empty folder; whatever still runs is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        line: str, program: Sequence[str | Path] = (BIN / "dptrain",), env: Mapping[str, str] = ENV
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*program, "supervise", *line.split()],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()


@pytest.fixture
def supervise(supervised: Supervised) -> Supervise:
    """Run supervise to its end in an empty folder: supervise("-n 2 ...")."""

    def run(line: str, **options: Any) -> Finished:
        process = supervised(line, **options)
        stdout, stderr = process.communicate(timeout=60)
        return Finished(process.returncode, stdout, stderr)

    return run


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    """Make a launcher whose starts each do the next of some shell commands, the last for ever."""

    def make(*commands: str) -> str:
        cases = "".join(f"{n}) {command};;\n" for n, command in enumerate(commands[:-1]))
        script = tmp_path / "launcher"
        script.write_text(
            "#!/bin/sh\necho >>starts\n"
            f"case $(($(wc -l <starts) - 1)) in\n{cases}*) {commands[-1]};;\nesac\n"
        )
        script.chmod(0o755)
        return f"--launcher {script}"

    return make


def ranks_of(run: Path) -> list[int]:
    """Return the processes that train this run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            words = path.read_text().split("\0")
            if str(BIN / "dptrain") in words and str(run) in words and "supervise" not in words:
                found.append(int(path.parent.name))
    return found


def saved(run: Path) -> int:
    """Return after how many steps the last checkpoint is."""
    return max(checkpoint.steps_of(run), default=0)


def have_ended(processes: Sequence[int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes)


def has_saved_more(run: Path, than: int) -> bool:
    return saved(run) > than


def events(stderr: str) -> list[str]:
    """Return what supervise said of ends, without times."""
    said = [line for line in stderr.splitlines() if line.startswith("supervise: ")]
    return [
        re.sub(r" after [0-9.]+ s, [0-9]+ steps saved", "", line.removeprefix("supervise: "))
        for line in said
        if " -n " not in line and "removed what ranks" not in line  # of other programs too
    ]


def starts(stderr: str) -> list[str]:
    """Return the command lines that supervise said it starts, without the launcher."""
    return [line.partition(" -n ")[2] for line in stderr.splitlines() if " -n " in line]


def same_bytes(run: Path, calm: Path) -> bool:
    """Return whether two finished runs have the same receipt and model."""
    return all(
        (run / name).read_bytes() == (calm / name).read_bytes()
        for name in ("receipt.jsonl", "model.safetensors")
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same settings that nothing disturbs."""
    folder = tmp_path_factory.mktemp("calm")
    assert start("dptrain", *f"train --out calm {LONG}".split(), cwd=folder).status == 0
    return folder / "calm"


def test_a_run_comes_through_three_killed_ranks_with_its_bytes(
    tmp_path: Path, supervised: Supervised, calm: Path
) -> None:
    run = tmp_path / "run"
    process = supervised(f"-n 3,2,1 --pause 0.01 --out {run} {LONG}")
    for _ in range(3):
        wait_until(partial(has_saved_more, run, saved(run)))
        ranks = ranks_of(run)
        os.kill(ranks[-1], signal.SIGKILL)
        wait_until(partial(have_ended, ranks))
    _, stderr = process.communicate(timeout=60)
    died = [
        f"died: status 9 (SIGKILL) on {ranks}; restart 1 of 5 in 0.01 s"
        for ranks in ("3 ranks", "2 ranks", "1 rank")
    ]
    assert events(stderr) == [*died, "ended: status 0 (done) on 1 rank"], stderr
    assert same_bytes(run, calm)


def test_a_signal_saves_the_run_and_the_same_line_goes_on(
    tmp_path: Path, supervised: Supervised, supervise: Supervise, calm: Path
) -> None:
    run = tmp_path / "run"
    line = f"-n 2 --out {run} {LONG}"
    for number, status in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        process = supervised(line)
        wait_until(partial(has_saved_more, run, saved(run)))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == status, stderr
        assert events(stderr)[0] == f"{number.name}: the run is to save and end"
        assert len(starts(stderr)) == 1
        assert not ranks_of(run)
    done = supervise(line)
    assert done.status == 0, done.stderr
    assert starts(done.stderr) == [f"2 dptrain train --out {run} --continue {LONG}"]
    assert same_bytes(run, calm)


def test_a_mistake_is_not_tried_again(supervise: Supervise) -> None:
    done = supervise("-n 2 --hidden many")
    assert done.status == 2
    assert len(starts(done.stderr)) == 1
    assert done.stderr.count("dptrain: Invalid value for '--hidden'") == 1


@pytest.mark.parametrize("status", [0, 2, 74, 75, 130])
def test_ends_that_no_restart_mends_are_passed_on(
    status: int, supervise: Supervise, launcher: Launcher
) -> None:
    done = supervise(f"{launcher(f'{END}; exit {status}')} --out run")
    assert done.status == status
    assert len(starts(done.stderr)) == 1
    assert events(done.stderr)[0].startswith(f"ended: status {status} (")


def test_a_launcher_s_0_without_the_end_of_the_run_is_a_death(
    supervise: Supervise, launcher: Launcher, tmp_path: Path
) -> None:
    """MPICH's, where a rank leaves early; a file of an earlier end is none of this start."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").touch()
    done = supervise(f"{launcher('exit 0', END)} --pause 0 --out run")
    assert (done.status, len(starts(done.stderr))) == (0, 2)
    assert events(done.stderr)[0] == "status 0, but the run has not come to its end"
    done = supervise(f"{launcher('exit 0')} --pause 0 --restarts 2 --out run")
    assert (done.status, len(starts(done.stderr))) == (1, 3)


@pytest.mark.parametrize(("end", "status"), [("exit 1", 1), ("exit 70", 70), ("kill -9 $$", 137)])
def test_restarts_are_bounded_and_pauses_grow(
    end: str, status: int, supervise: Supervise, launcher: Launcher
) -> None:
    done = supervise(f"{launcher(end)} --restarts 3 --pause 0.01")
    assert done.status == status
    assert len(starts(done.stderr)) == 4
    pauses = [event.partition("; ")[2] for event in events(done.stderr)]
    expected = [f"restart {n} of 3 in {pause} s" for n, pause in ((1, 0.01), (2, 0.02), (3, 0.04))]
    assert pauses == [*expected, "3 restarts in a row saved no more"]


def test_a_start_that_saved_a_checkpoint_begins_the_count_anew(
    supervise: Supervise, launcher: Launcher, tmp_path: Path
) -> None:
    """A name that only looks like a checkpoint's is none."""
    save = "mkdir -p run/checkpoints; touch run/checkpoints/step-%010d.safetensors; exit 9"
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-²³.safetensors").touch()
    program = launcher("exit 1", *(save % step for step in (10, 20)), "exit 1")
    done = supervise(f"{program} --restarts 2 --pause 0 --out run")
    found = [event.rpartition("; ")[2] for event in events(done.stderr)]
    counts = [f"restart {n} of 2 in 0 s" for n in (1, 1, 1, 2)]
    assert found == [*counts, "2 restarts in a row saved no more"]


def test_what_never_began_begins_again_on_as_many_ranks(
    supervise: Supervise, launcher: Launcher
) -> None:
    program = launcher("exit 1", "mkdir run; touch run/config.toml; exit 1", "exit 1", END)
    done = supervise(f"-n 4,3,2 {program} --pause 0 data.npz --out=run --config my.toml")
    assert starts(done.stderr) == [
        f"{ranks} dptrain train --config my.toml --out run --continue data.npz"
        for ranks in (4, 4, 3, 2)
    ]


def test_the_run_directory_is_the_one_that_was_named_or_a_new_one(
    tmp_path: Path, supervise: Supervise, launcher: Launcher
) -> None:
    (tmp_path / "my.toml").write_text('out = "from-file"\n')
    line = launcher("exit 2")
    assert starts(supervise(f"{line} --config my.toml").stderr) == [
        "1 dptrain train --config my.toml --out from-file --continue"
    ]
    for name, words in (("OUT", "--out named --continue"), ("RESUME", "--resume named")):
        named = supervise(line, env={**ENV, f"DPTRAIN_{name}": "named"})
        assert starts(named.stderr) == [f"1 dptrain train {words}"]
    assert " --out runs/20" in starts(supervise(line).stderr)[0]


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("-n 4,0", "Invalid value for '-n': give numbers of ranks, as 4 or 4,3,2"),
        ("-n 1000000", "Invalid value for '-n': give numbers of ranks, as 4 or 4,3,2"),
        ("-- c.npz --out=a", "--out stands behind --, where supervise looks no more: move it up"),
        ("--pause -1", "Invalid value for '--pause'"),
        ("--pause nan", "Invalid value for '--pause': nan is no number of seconds"),
        ("--out a --resume b", "out is a, but b goes on where it is: leave --out out"),
        ("--launcher no-such-program", "no-such-program is not in PATH"),
    ],
)
def test_mistakes_are_said(line: str, needed: str, supervise: Supervise) -> None:
    done = supervise(line)
    assert done.status == 2
    assert needed in done.stderr
    assert done.stderr.startswith("dptrain: ")


def test_a_launcher_starts_no_supervise_of_each_rank(supervise: Supervise) -> None:
    """Each would start ranks of its own."""
    done = supervise("-n 2", env={**ENV, "PMI_RANK": "0", "PMI_SIZE": "2"})
    said = "dptrain: supervise starts the ranks itself: start it once, without a launcher\n"
    assert done == Finished(2, "", said)


def test_a_missing_dptrain_is_said(supervise: Supervise, launcher: Launcher) -> None:
    line = [sys.executable, "-c", "from dptrain.cli.main import main; main()"]
    done = supervise(launcher("exit 0"), program=line, env={**ENV, "PATH": os.defpath})
    assert done.status == 2
    assert done.stderr == ("dptrain: dptrain is not in PATH: load its module or its environment\n")


def test_nothing_is_left_behind(tmp_path: Path, supervise: Supervise, launcher: Launcher) -> None:
    left = "(setsid sh -c 'echo $$ >left; exec sleep 1000' &) ; sleep 0.3; kill -9 $$"
    done = supervise(f"{launcher(left)} --restarts 0", program=[sys.executable, "-Bc", HASTY])
    process = (tmp_path / "left").read_text().strip()
    assert f"ending what was left behind: process {process}" in events(done.stderr)
    assert not Path(f"/proc/{process}").exists()


def test_a_signal_that_comes_while_the_launcher_starts_is_not_lost(
    tmp_path: Path, supervised: Supervised, launcher: Launcher
) -> None:
    """Which passes on nothing yet, as MPICH's in its first moments."""
    deaf = "trap '' USR1; touch started; sleep 0.3; trap 'kill $!; exit 75' USR1; sleep 60 & wait"
    process = supervised(launcher(deaf))
    wait_until((tmp_path / "started").exists)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75


def test_who_ends_supervise_by_force_has_the_run_saved(
    tmp_path: Path, supervised: Supervised, launcher: Launcher
) -> None:
    waits = "trap 'touch saved; exit' USR1; touch ready; while :; do sleep 0.05; done"
    process = supervised(launcher(waits))
    wait_until((tmp_path / "ready").exists)
    process.kill()
    wait_until((tmp_path / "saved").exists)


def test_a_second_signal_ends_at_once(
    tmp_path: Path, supervised: Supervised, launcher: Launcher
) -> None:
    deaf = "trap '' USR1; touch ready; while :; do sleep 0.05; done"
    process = supervised(launcher(deaf))
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.1)  # launchers may pass one signal on twice: a second one comes later than that
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM  # nothing has been saved


def test_a_run_that_saved_before_it_was_ended_by_force_is_to_go_on(
    tmp_path: Path, supervised: Supervised, launcher: Launcher
) -> None:
    save = "mkdir -p run/checkpoints; touch run/checkpoints/step-0000000009.safetensors"
    waits = f"trap 'kill -9 $$' USR1; {save}; touch ready; while :; do sleep 0.05; done"
    process = supervised(f"{launcher(waits)} --out run")
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75


def test_what_killed_ranks_left_in_shared_memory_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("SHM", tmp_path), ("AGE", -1)):
        monkeypatch.setattr(memory, name, value)
    for name in ("mpich_shm_1a_0", "mpich_shm_2b_0", "mpich_shm_3c_0", "dptrain-4d", "other_5e"):
        (tmp_path / name).write_bytes(bytes(4096))
    (tmp_path / "mpich_shm_link").symlink_to("other_5e")
    left = [tmp_path / name for name in ("dptrain-4d", "mpich_shm_1a_0", "mpich_shm_link")]
    with (tmp_path / "mpich_shm_2b_0").open() as is_open, (tmp_path / "mpich_shm_3c_0").open() as f:
        mapped = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ)
        f.close()
        assert memory.left_behind() == left
        tidy_up()
        is_open.close()
    assert "dptrain-4d, mpich_shm_1a_0, mpich_shm_link" in capsys.readouterr().err
    mapped.close()
    assert {path.name for path in tmp_path.iterdir()} == {
        "mpich_shm_2b_0", "mpich_shm_3c_0", "other_5e",
    }  # fmt: skip
    monkeypatch.setattr(memory, "AGE", 60)
    tidy_up()
    assert (tmp_path / "mpich_shm_2b_0").exists()
