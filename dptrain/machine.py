"""What this process may use of its machine and its control groups, and which others there are."""

import ctypes
import os
import re
import sys
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

CPUS = os.cpu_count() or 1

SHM = Path("/dev/shm")  # noqa: S108 (shared by all, so files there have names that nobody guesses)
"""Where Linux keeps what processes share; MPI libraries put theirs there too."""

MORE_SHARED = "mount -o remount,size=... /dev/shm, or docker run --shm-size=..."
"""What to do where there is too little memory that processes can share."""

FEW = 2**20
"""Bytes that are always there: where they weren't, Python itself could not go on."""

LEAVES = (
    (0, 2, "pni:0 ssse3:9 fma:12 cx16:13 sse4_1:19 sse4_2:20 movbe:22 popcnt:23 avx:28 f16c:29"),
    (1, 1, "bmi1:3 avx2:5 bmi2:8 avx512f:16 avx512dq:17 avx512cd:28 avx512bw:30 avx512vl:31"),
    (2, 2, "lahf_lm:0 abm:5 fma4:16"),
)
"""Where the C library has a CPU's features: leaf, register, bits."""


def usable_cores() -> set[int]:
    """Return the numbers of the cores that this process may use; all where that isn't known."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {*range(CPUS)}


def crowded(cores: Sequence[Collection[int]], threads: int, quota: float | None = None) -> bool:
    """Return whether ranks of a node have more threads than cores, of which each may use some.

    `quota` is the cores' worth of time that they get, where that is limited.
    """
    usable = len(set().union(*cores))
    return len(cores) * threads > min(usable, quota or usable)


def free_memory() -> int:
    """Return the bytes that processes here can still use: of the machine, and of their group.

    Raises OSError where there is no /proc to tell.
    """
    text = Path("/proc/meminfo").read_text()
    found = re.findall(r"^(?:MemAvailable|SwapFree): +(\d+) kB", text, re.MULTILINE)
    free = 1024 * sum(map(int, found)) if "MemAvailable" in text else sys.maxsize
    for folder in cgroup("memory"):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            free = min(free, int(limit - used + _file_cache(folder)))
    return max(0, free)


def too_little_memory(needed: int) -> int | None:
    """Return the free bytes where they are fewer than needed; None else, or where none can tell.

    Of a few it is not asked: that takes as long as to read them.
    """
    if needed < FEW:
        return None
    try:
        free = free_memory()
    except (OSError, ValueError):
        return None
    return free if needed > free else None


def free_bytes() -> int:
    """Return how much memory this machine can share between processes."""
    if not SHM.exists():  # only Linux has it, and a limit with it
        return sys.maxsize
    found = os.statvfs(SHM)
    return found.f_bavail * found.f_frsize


def room_to_start() -> str | None:
    """Return what to say where MPI may find too little shared memory to start, and die of a signal.

    MPICH takes 1.1 to 1.3 MB of it a rank.
    """
    ranks = os.environ.get("MPI_LOCALNRANKS", "")
    there = sys.platform != "linux" or os.access(SHM, os.W_OK)
    free = free_bytes() if there else 0
    if free >= (int(ranks) if ranks.isdecimal() else 1) * 1.25 * 2**20:
        return None
    where = f"{os.uname().nodename} has {free / 1e6:.1f} MB free in {SHM}"
    return f"{where}: MPI may die of a signal for it. More: {MORE_SHARED}"


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


@cache
def cpu_features(*, active: bool = False) -> frozenset[str] | None:
    """Return the CPU's features as the C library knows them, or those that it uses itself.

    None where it does not tell, as before glibc 2.33.
    """
    try:
        ask = ctypes.CDLL(None).__x86_get_cpuid_feature_leaf
    except (AttributeError, OSError):
        return None
    ask.argtypes, ask.restype = [ctypes.c_uint], ctypes.POINTER(ctypes.c_uint32 * 8)
    found = set()
    for leaf, register, bits in LEAVES:
        value = ask(leaf).contents[register + 4 * active]
        named = (name.split(":") for name in bits.split())
        found |= {name for name, bit in named if value >> int(bit) & 1}
    return frozenset(found)


def listed_features() -> frozenset[str] | None:
    """Return the CPU's features as Linux lists them; None where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((frozenset(line.split()) for line in lines if line.startswith("flags")), None)


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
    found = dict(line.split() for line in text.splitlines())
    kinds = ("inactive_file", "active_file")
    return sum(int(found.get(f"total_{kind}", found.get(kind, 0))) for kind in kinds)


def exists(process: int) -> bool:
    """Return whether there is a process; needs no file, of which there may be too many open."""
    try:
        os.kill(process, 0)
    except OSError as error:  # also where it is another user's
        return not isinstance(error, ProcessLookupError)
    return True
