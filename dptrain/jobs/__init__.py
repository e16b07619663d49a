"""Job scripts of schedulers, of which those in bash are one file: they differ in few lines."""

from pathlib import Path

IN_BASH = ("slurm", "slurm-mpirun", "pbs", "lsf", "gridengine")
SCHEDULERS = (*IN_BASH, "kubernetes")


def script(scheduler: str) -> str:
    """Return the job script, or for Kubernetes the resource, of one of SCHEDULERS.

    In job.sh a line such as `#@ pbs lsf` says whose the lines below it are, up to the next such.
    """
    folder = Path(__file__).parent
    if scheduler not in IN_BASH:
        return (folder / f"{scheduler}.yaml").read_text("utf-8")
    lines, here = [], True
    for line in (folder / "job.sh").read_text("utf-8").splitlines(keepends=True):
        if line.startswith("#@ "):
            here = not {"all", scheduler}.isdisjoint(line.split()[1:])
        elif here:
            lines.append(line)
    return "".join(lines)
