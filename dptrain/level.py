"""Which instructions compute here: they decide the last bits, not the CPU, so a run can pin them.

What follows a level: NumPy's loops, the BLAS's products, and libm, by which NumPy and Python take
powers and, in float64, exponentials.
"""

import hashlib
import math
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple

from dptrain.machine import cpu_features, listed_features
from dptrain.version import known_blas
from dptrain.words import InputError

NATIVE = "native"


class Level(NamedTuple):
    """A level of x86-64, as its ABI defines it, and what makes libraries keep to it."""

    flags: tuple[str, ...]
    """What a CPU must have beyond the level before, as Linux names it."""
    groups: tuple[str, str]
    """What NumPy calls this in its versions from 2.4 on, and before that."""
    above: tuple[str, str]
    """What NumPy must not use, from 2.4 on and before: what comes right above this level."""
    kernel: str
    """OpenBLAS's products."""
    others: dict[str, str]
    """Variables of libraries that a model of one's own may use: MKL, PyTorch, oneDNN, JAX."""


MKL = "COMPATIBLE"
"""What MKL keeps to on CPUs of all makers; on AMD's it takes the others for this or for nothing."""


def _others(torch: str, onednn: str, xla: str) -> dict[str, str]:
    return {
        "MKL_CBWR": MKL,
        "ATEN_CPU_CAPABILITY": torch,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "XLA_FLAGS": f"--xla_cpu_max_isa={xla}",
    }


LEVELS = {
    "x86-64-v2": Level(
        ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"),
        ("X86_V2", "SSE42"),
        ("X86_V3", "AVX F16C FMA3 AVX2"),
        "Nehalem",
        _others("default", "SSE41", "SSE4_2"),
    ),
    "x86-64-v3": Level(
        ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"),
        ("X86_V3", "AVX2"),
        ("X86_V4", "AVX512F AVX512CD AVX512_SKX"),
        "Haswell",
        _others("avx2", "AVX2", "AVX2"),
    ),
    "x86-64-v4": Level(
        ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
        ("X86_V4", "AVX512_SKX"),
        ("AVX512_ICL AVX512_SPR", "AVX512_CLX AVX512_CNL AVX512_ICL"),
        "SkylakeX",
        _others("avx512", "AVX512_CORE", "AVX512"),
    ),
}
"""The lowest first."""

NAMES = [*LEVELS]

LOWEST = "x86-64-v2"
"""On a CPU that has more, libm must be told to do without, too."""

FMA = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-FMA4_Usable"
"""What makes the C library's libm do without: read once, where a program starts."""


@cache
def highest() -> str | None:
    """Return the highest level that this CPU has; None where that isn't known, or there is none.

    Linux does not list what it can't save; a program that is emulated is shown the list of the
    machine around it. So both must agree.
    """
    told = [flags for flags in (cpu_features(), listed_features()) if flags is not None]
    found = None
    for name, level in LEVELS.items():
        if not told or not all(flags.issuperset(level.flags) for flags in told):
            break
        found = name
    return found


def has(level: str) -> bool:
    """Return whether this CPU has a level."""
    top = highest()
    return top is not None and NAMES.index(level) <= NAMES.index(top)


def one_level(tops: Sequence[str | None]) -> str:
    """Return what makes the bytes one on CPUs with these levels, where they have one in common."""
    place = min(-1 if name is None else NAMES.index(name) for name in tops)
    if place < 0:
        return "ask for one kind of node"
    return f"all have {NAMES[place]}: --cpu-level {NAMES[place]} makes the bytes one"


def fused_libm() -> bool | None:
    """Return whether libm multiplies and adds in one instruction, which rounds once, not twice.

    None where the C library has one libm for every CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return None
    used = cpu_features(active=True)
    if used is None:
        listed = listed_features() or frozenset()
        return "fma" in listed and "-FMA" not in os.environ.get("GLIBC_TUNABLES", "")
    return used.issuperset({"fma", "avx2"}) or "fma4" in used


def variables(level: str) -> dict[str, str]:
    """Return the variables that pin a level where they are set before Python starts."""
    from importlib import metadata

    old = tuple(int(part) for part in metadata.version("numpy").split(".")[:2]) < (2, 4)
    above = " ".join(LEVELS[name].above[old] for name in NAMES[NAMES.index(level) :])
    before = os.environ.get("NPY_DISABLE_CPU_FEATURES", "").replace(",", " ").split()
    found = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(dict.fromkeys([*above.split(), *before])),
        "OPENBLAS_CORETYPE": LEVELS[level].kernel,
    }
    if level == LOWEST:
        kept = [text for text in os.environ.get("GLIBC_TUNABLES", "").split(":") if text]
        kept = [text for text in kept if not text.startswith("glibc.cpu.hwcaps=")]
        found["GLIBC_TUNABLES"] = ":".join([*kept, FMA])
    return found


class InUse(NamedTuple):
    """What really computes in this process."""

    numpy: str
    """The level that NumPy's loops follow, or what else it uses."""
    kernels: tuple[str, ...]
    """Whose products each BLAS has."""
    fused: bool | None
    """See `fused_libm`."""
    libm: str
    """A hash of what the elementary functions give: it follows level, libm and NumPy."""
    flushes: bool
    """Whether numbers below the smallest normal one are flushed to 0."""

    @property
    def level(self) -> str | None:
        """The level to which all of it belongs; None where it is of no one level."""
        level = LEVELS.get(self.numpy)
        if level is None or self.flushes or self.fused is (self.numpy == LOWEST):
            return None
        known = {*self.kernels} <= {level.kernel, MKL}
        return self.numpy if self.kernels and known else None

    @property
    def text(self) -> str:
        """It in words: by its level's name, or else part by part."""
        if self.level is not None:
            return self.level
        libm = {True: "libm with FMA", False: "libm without FMA", None: "libm"}[self.fused]
        small = ["small numbers flushed to 0"] * self.flushes
        return ", ".join([f"NumPy {self.numpy}", *self.kernels, libm, *small])


def in_use() -> InUse:
    """Return what computes in this process, looked at anew. Loads NumPy."""
    found = import_module("numpy._core._multiarray_umath").__cpu_features__
    names = [
        name
        for name, level in LEVELS.items()
        if found.get(level.groups[0], found.get(level.groups[1]))
    ]
    other = " ".join(sorted(name for name, there in found.items() if there)) or "plain"
    small = sys.float_info.min
    return InUse(
        names[-1] if names else other,
        tuple(sorted({kernel for _, kernel in known_blas()})),
        fused_libm(),
        _elementary(),
        small / 2 == 0,
    )


@cache
def _elementary() -> str:
    """Return a hash of what the functions give that are neither products nor exact."""
    import numpy as np

    found = hashlib.sha256()
    points = np.linspace(0.013, 9.7, 500)
    for dtype in (np.float32, np.float64):
        x = points.astype(dtype)
        for function in (np.exp, np.log, np.log1p, np.tanh):
            given = np.negative(x) if function in (np.exp, np.tanh) else x
            found.update(function(given).tobytes())
    scalars = [math.cos(x) for x in points.tolist()] + [0.999**k for k in range(1, 500)]
    found.update(np.array(scalars).tobytes())
    return found.hexdigest()[:16]


def begin_again(level: str) -> None:
    """Start this program once more where libm can keep to a level only from the start.

    Before MPI is loaded: the process stays the same one to its launcher. Returns where there is
    nothing to do.
    """
    if level != LOWEST or not fused_libm() or FMA in os.environ.get("GLIBC_TUNABLES", ""):
        return
    os.environ["GLIBC_TUNABLES"] = variables(level)["GLIBC_TUNABLES"]
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (this very program)


def use_cpu_level(level: str) -> None:
    """Have NumPy, the BLAS and other libraries keep to a level. Local.

    To be called before NumPy is imported; else it only checks what is in use.

    Raises InputError where the CPU has it not, or what is loaded already does not keep to it.
    """
    if level == NATIVE:
        return
    if level not in LEVELS:
        raise InputError(f"cpu-level is {level!r}; valid: {', '.join([NATIVE, *LEVELS])}")
    _check_has(level)
    if "numpy" not in sys.modules:
        os.environ.pop("NPY_ENABLE_CPU_FEATURES", None)
        os.environ.update({name: v for name, v in variables(level).items() if name[0] != "G"})
        for name, value in LEVELS[level].others.items():
            before = os.environ.get(name, "") if name == "XLA_FLAGS" else ""
            os.environ[name] = f"{before} {value}".strip()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # of what this NumPy is built without
            try:
                import_module("numpy")
            except RuntimeError as error:
                text = f"cpu-level is {level}, and NumPy is built for more: {error}"
                raise InputError(text, local=True) from None
    check(level)


def check(level: str) -> None:
    """Raise InputError where this process does not compute at a level that is asked for. Local."""
    if level == NATIVE:
        return
    found = in_use()
    if found.level == level:
        return
    _check_has(level)
    how = " ".join(f"{name}='{value}'" for name, value in variables(level).items())
    early = f"call dptrain.use_cpu_level({level!r}) before NumPy is imported, or "
    if level == LOWEST and found.fused:
        early = "libm looks only where Python starts: "
    raise InputError(
        f"cpu-level is {level}, and this process computes with {found.text}; {early}set before "
        f"Python starts: {how}",
        local=True,
    )


def _check_has(level: str) -> None:
    if not has(level):
        found = highest() or f"none that is known of ({os.uname().machine})"
        raise InputError(
            f"cpu-level is {level}, and the CPU here has {found}: give a level that it has, or "
            "start on a machine with that one",
            local=True,
        )
