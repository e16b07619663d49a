"""Which program this is, and what it computes with: part of what decides the bytes."""

import platform
from importlib.metadata import version
from pathlib import Path

__version__ = version("dptrain")


def linear_algebra() -> list[str]:
    """Return the name and version of each BLAS that is loaded, and its name for this CPU."""
    import numpy  # noqa: F401 (loads it)
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    found = {f"{p['internal_api']} {p['version']} ({p.get('architecture', '?')})" for p in pools}
    return sorted(found)


def cpu() -> str:
    """Return the CPU's model as Linux names it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def software() -> str:
    """Return the versions of dptrain, NumPy and the BLAS, and the BLAS's name for this CPU."""
    import numpy

    return ", ".join([f"dptrain {__version__}", f"NumPy {numpy.__version__}", *linear_algebra()])
