"""Shows that the job scripts are bash, and go on until there is nothing more to gain."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import Start

from dptrain.jobs import IN_BASH, SCHEDULERS, script

JOBS: dict[str, dict[str, str]] = {
    "slurm": {"SLURM_JOB_ID": "7"},
    "slurm-mpirun": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},
    "pbs": {"PBS_JOBID": "7.host", "PBS_O_WORKDIR": ".", "PBS_NODEFILE": "nodes"},
    "lsf": {"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "4"},
    "gridengine": {"JOB_ID": "7", "NSLOTS": "4"},
}
"""The job scripts, each with what its scheduler sets."""


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_script_is_printed_and_is_bash(
    scheduler: str, tmp_path: Path, dptrain: Start
) -> None:
    done = dptrain("launch", scheduler)
    assert (done.status, done.stderr) == (0, "")
    assert "#@" not in done.stdout
    assert done.stdout.count("--continue") == 1
    if scheduler in IN_BASH:
        assert done.stdout.startswith("#!/bin/bash\n# dptrain on ")
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
    (tmp_path / "mpi4py.py").write_text("raise ImportError")
    wrong = dptrain("launch", "nobody", env={"PYTHONPATH": str(tmp_path)})
    assert wrong.status == 2
    assert wrong.stderr.startswith(
        "dptrain: Invalid value for 'SCHEDULER': 'nobody' is not one of 'slurm'"
    )


@pytest.mark.parametrize(("scheduler", "env"), JOBS.items(), ids=JOBS)
def test_a_job_is_queued_again_until_starts_save_nothing_more(
    scheduler: str, env: dict[str, str], tmp_path: Path
) -> None:
    """Saved before the first step, then a checkpoint at the third start, then none any more."""
    checkpoints = "dptrain-7/run/checkpoints"
    programs = {
        "launcher": 'echo launched "$@" >>started\n'
        f"[ $(wc -l <started) != 3 ] || {{ mkdir -p {checkpoints}; touch "
        f"{checkpoints}/step-0000000009.safetensors; }}\nexit ${{STATUS:-75}}",
        "queue": "echo again >>queued",
    }
    (tmp_path / "job.sh").write_text(script(scheduler))
    (tmp_path / "nodes").write_text("a\na\nb\nb\n")
    for names, content in (("srun mpirun", "launcher"), ("scontrol qsub", "queue")):
        for name in names.split():
            (tmp_path / name).write_text(f"#!/bin/sh\n{programs[content]}\n")
            (tmp_path / name).chmod(0o755)

    def again(**more: str) -> bool:
        """Start the job; return whether it is to be started again."""
        queued = tmp_path / "queued"
        queued.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "job.sh", *(() if "DATA" in more else ("--epochs", "5"))],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "ARGS": "--epochs 5", **env, **more},
            timeout=60,
            check=False,
        )
        asked = {"lsf": done.returncode == 75, "gridengine": done.returncode == 99}
        return asked.get(scheduler, queued.exists())

    assert not again(STATUS="2", DATA="data.npz")
    assert [again() for _ in range(9)] == [True] * 7 + [False] * 2
    starts = (tmp_path / "started").read_text().splitlines()
    assert "dptrain train data.npz --out dptrain-7/run --continue" in starts[0]
    line = "dptrain train --out dptrain-7/run --continue --epochs 5"
    assert all(start.endswith(line) for start in starts[1:])
    log = (tmp_path / "dptrain-7" / "log.txt").read_text()
    assert log == 2 * "gave up: 6 starts saved no more\n"
