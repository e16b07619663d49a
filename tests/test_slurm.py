"""Shows the job scripts on a real Slurm with two nodes; skipped where none answers.

By hand: start a Slurm of two nodes with the shared file system of this folder, then run this file.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BIN, Start, wait_until

from dptrain.jobs import script

ENV = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def slurm_answers() -> bool:
    """Return whether a Slurm with at least two idle nodes answers."""
    if shutil.which("sbatch") is None:
        return False
    sinfo = ["sinfo", "--noheader", "--states=idle", "--format=%D"]
    try:
        done = subprocess.run(sinfo, capture_output=True, text=True, timeout=3, check=False)
    except subprocess.TimeoutExpired:  # installed, but its controller does not run
        return False
    return done.returncode == 0 and sum(map(int, done.stdout.split())) >= 2


@pytest.fixture(autouse=True, scope="module")
def slurm() -> None:
    if not slurm_answers():
        pytest.skip("no Slurm with two idle nodes answers here")


def job_script(folder: Path, scheduler: str) -> str:
    """Write the job script of a scheduler, and return where it is."""
    path = folder / "job.sh"
    path.write_text(script(scheduler))
    return str(path)


@pytest.mark.parametrize("scheduler", ["slurm", "slurm-mpirun"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_gives_the_bytes_of_one_process(
    scheduler: str, nodes: int, tmp_path: Path, dptrain: Start
) -> None:
    layout = [f"--nodes={nodes}", f"--ntasks-per-node={4 // nodes}"]
    line = ["sbatch", "--wait", "--parsable", *layout, job_script(tmp_path, scheduler)]
    settings = ["--shards", "4", "--epochs", "2"]
    done = subprocess.run(
        [*line, *settings],
        cwd=tmp_path,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    folder = tmp_path / f"dptrain-{done.stdout.strip()}"
    log = (folder / "log.txt").read_text()
    assert done.returncode == 0, log
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["ranks"] == 4
    alone = dptrain(*settings, "--json").json
    assert summary["params_sha256"] == alone["params_sha256"]


def slurm_says(*line: str) -> str:
    """Return what one of Slurm's commands prints."""
    return subprocess.run(
        line, capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()


def send_usr1(job: str) -> None:
    slurm_says("scancel", "--signal=USR1", job)


def queue_again(job: str) -> None:
    slurm_says("scontrol", "requeue", job)


def preempt(_: str) -> None:
    """Have a job of the other partition take the place of all others."""
    if "high" not in slurm_says("sinfo", "--noheader", "--format=%R").split():
        pytest.skip("no partition here is called high")
    line = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"]
    slurm_says(*line, "--wrap=sleep 3")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scheduler", ["slurm", "slurm-mpirun"])
@pytest.mark.parametrize("disturb", [send_usr1, queue_again, preempt])
def test_a_job_that_is_queued_again_goes_on_with_the_same_bytes(
    scheduler: str, disturb: Callable[[str], None], tmp_path: Path, dptrain: Start
) -> None:
    settings = ["--shards", "4", "--epochs", "60", "--checkpoint-every", "50"]
    line = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=2", f"--chdir={tmp_path}"]
    line += ["--export=ALL", job_script(tmp_path, scheduler), *settings]
    job = subprocess.run(line, env=ENV, capture_output=True, text=True, check=True).stdout.strip()
    run = tmp_path / f"dptrain-{job}" / "run"
    wait_until((run / "checkpoints").exists)
    disturb(job)
    # where it is queued again, Slurm lets a job wait for two minutes
    wait_until(lambda: not slurm_says("squeue", "--noheader", f"--jobs={job}"), 300)
    found = slurm_says("scontrol", "show", "job", job)
    assert "JobState=COMPLETED" in found, (run.parent / "log.txt").read_text()
    assert "Restarts=1" in found
    dptrain("train", "--out", "alone", *settings)
    for name in ("receipt.jsonl", "model.safetensors"):
        assert (run / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_four_processes_that_each_think_they_are_alone_are_refused(tmp_path: Path) -> None:
    line = ["srun", "--mpi=none", "-n", "4", str(BIN / "dptrain")]
    done = subprocess.run(
        line, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("dptrain: Slurm's srun announces 4 ranks") == 1
    assert not (tmp_path / "runs").exists()
