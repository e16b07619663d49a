"""Which program this is, and what it computes with: part of what decides the bytes."""

import functools
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

NAMED = r"(?:model name|Model Name|cpu model|cpu|CPU implementer|CPU part|uarch)\s*:\s*(.*\S)"
"""A line of Linux's list of CPUs that says which kind one is: on x86, LoongArch, MIPS, POWER, ARM
(where every kind has numbers only), RISC-V."""

KERNELS = {"Zen": "Haswell", "Cooperlake": "SkylakeX", "SapphireRapids": "SkylakeX"}
"""CPUs for which OpenBLAS has no products of their own in float32 and float64."""


def linear_algebra() -> list[str]:
    """Return the name and version of each BLAS that is loaded, and its name for this CPU.

    Of one that threadpoolctl does not know, what NumPy was built with, and the system it is of.
    """
    import numpy

    if known := known_blas():
        return sorted({f"{name} ({kernel})" for name, kernel in known})
    built: Any = numpy.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {})
    return [f"{blas.get('name', 'a BLAS')} {blas.get('version', '')} of {platform.platform()}"]


def libraries() -> list[Any]:
    """Return each BLAS that is loaded and that threadpoolctl knows."""
    import numpy  # noqa: F401 (loads one)

    return _libraries(len(sys.modules))


@functools.lru_cache(1)
def _libraries(_: int) -> list[Any]:
    """Look for them, which takes 1 to 3 ms, where a module more may have brought another one."""
    import threadpoolctl

    found: Any = threadpoolctl.ThreadpoolController().select(user_api="blas")
    return list(found.lib_controllers)


def known_blas() -> list[tuple[str, str]]:
    """Return of each BLAS that threadpoolctl knows its name with the version, and its kernel.

    MKL does not tell whose; what it is told to keep to stands for it.
    """
    pools = [library.info() for library in libraries()]
    told = os.environ.get("MKL_CBWR", "?")
    kernels = [pool.get("architecture", told) for pool in pools]
    return [
        (f"{pool['internal_api']} {pool['version']}", KERNELS.get(kernel, kernel))
        for pool, kernel in zip(pools, kernels, strict=True)
    ]


def cpu() -> str:
    """Return the CPU's model as the system names it; elsewhere what Python knows."""
    try:
        if platform.system() == "Darwin":
            import subprocess

            line = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            named = subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()
        else:
            named = cpu_in(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        named = ""
    return named or platform.processor() or platform.machine() or "unknown"


def cpu_in(cpuinfo: str) -> str:
    """Return all kinds of CPU that Linux's list of them names, each once; empty if none."""
    found = re.findall(rf"^{NAMED}$", cpuinfo, re.MULTILINE)
    found += re.findall(r"^processor \d+:.* (machine = \w+)", cpuinfo, re.MULTILINE)  # s390
    numbers = any(name.startswith("0x") for name in found)
    return " ".join([*([platform.machine()] if numbers else []), *dict.fromkeys(found)])


def software() -> str:
    """Return the versions of dptrain, NumPy and the BLAS, and the BLAS's name for this CPU."""
    import numpy

    return ", ".join([f"dptrain {__version__}", f"NumPy {numpy.__version__}", *linear_algebra()])
