"""What the ranks' facts mean: for each check a pure function from facts to a finding."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from dptrain.doctor.look import Facts, Unknown
from dptrain.doctor.place import Place
from dptrain.launch import RIGHT_LAUNCHER, Launch, misfit
from dptrain.level import one_level
from dptrain.machine import MORE_SHARED, crowded
from dptrain.train.needs import Needs
from dptrain.words import counted, install

SLOW = 1000
"""Microseconds of the smallest exchange from which on something is wrong. Measured on 2 cores: 27
for 2 ranks, 113 for 4."""

MEASURED = ("latency_us", "exchange_ms", "exchange_gb_per_s")
"""What is measured of the reduction: for one number; for the model, and its bytes a second."""


class Finding(NamedTuple):
    """How good what was found is, and what to do where it is not."""

    status: Literal["ok", "warning", "error"]
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Case:
    """What is judged: every rank's facts, the ranks of each node, what the run would need."""

    everyone: Sequence[Facts]
    nodes: Sequence[range]
    launch: Launch | None
    threads: int
    needs: Needs
    directory: Place | Unknown
    measured: dict[str, float]
    """The times of exchanges; empty where there is one rank only."""

    @property
    def first(self) -> Facts:
        """The facts of rank 0."""
        return self.everyone[0]


def judge(case: Case) -> dict[str, Finding]:
    """Return the finding of each check, by name; what a rank could not find out is a warning."""
    return {name: _judge(case, *check) for name, check in CHECKS.items()}


def _judge(case: Case, needed: Sequence[str], check: Callable[[Case], Finding]) -> Finding:
    for rank, facts in enumerate(case.everyone):
        for name in needed:
            if isinstance(facts[name], Unknown):
                where = f"rank {rank} on {facts['host']}"
                why = f"{where} can't find out: {facts[name].why}"
                return Finding("warning", why, "mend that, or do without this check")
    return check(case)


def _unless(fine: bool, found: str, else_: str, advice: str) -> Finding:
    """Return that what was found is fine, or else a warning that says more, and what to do."""
    return Finding("ok", found) if fine else Finding("warning", found + else_, advice)


def _library(case: Case) -> Finding:
    name, file, packages = (case.first[key] for key in ("library", "library file", "packages"))
    if name is None:
        return Finding("warning", "none: dptrain runs in one process only", install("mpi"))
    found = name + (f" ({file})" if isinstance(file, str) else "")
    return _unless(
        len(packages) < 2,
        found,
        f"; the packages {' and '.join(packages)} are in one environment, where the mpirun of one "
        "has replaced the other's",
        f"pip uninstall {' '.join(packages)}, then install the one you want",
    )


def _launcher(case: Case) -> Finding:
    library, launch, mpirun = case.first["library"], case.launch, case.first["mpirun"]
    if launch is not None:
        found = f"{launch.launcher}, {counted(launch.size, 'rank')}"
        trouble = library and misfit(launch, library)
        if trouble:
            return Finding("error", f"{found}; with {library} {trouble}", RIGHT_LAUNCHER)
        return Finding("ok", found)
    if library is None:
        return Finding("ok", "none: one process")
    own = case.first["beside"]
    advice = f"start with {own}, which stands beside this Python" if own else RIGHT_LAUNCHER
    if mpirun is None:
        return Finding("warning", "one process; there is no mpirun on PATH", advice)
    path, says = mpirun
    makes = [_maker(library), _maker(says)]
    found = f"one process; mpirun on PATH is {path}"
    fine = None in makes or makes[0] == makes[1]
    return _unless(fine, found, f", {makes[1]}'s; the library is {library}", advice)


def _maker(text: str) -> str | None:
    """Return whose MPI a library's or a launcher's text names; Intel's and MPICH's go together."""
    words = {"Open MPI": "Open MPI", "HYDRA": "MPICH", "MPICH": "MPICH", "Intel(R) MPI": "MPICH"}
    return next((maker for word, maker in words.items() if word in text), None)


def _cores(case: Case) -> Finding:
    found = [_node_cores(case, ranks) for ranks in case.nodes]
    found.sort(key=lambda node: not node[1])  # those where something is wrong first
    advice = found[0][1]
    return Finding("warning" if advice else "ok", _list([line for line, _ in found], "; "), advice)


def _node_cores(case: Case, ranks: range) -> tuple[str, str]:
    """Return a node's ranks and cores in words, and what to do where ranks hold each other up."""
    facts, threads = case.everyone[ranks.start : ranks.stop], case.threads
    cores, quota = [frozenset(own["cores"]) for own in facts], facts[0]["quota"]
    usable = frozenset[int]().union(*cores)
    found = f"{_host(case, ranks)}: {counted(len(ranks), 'rank')} on {len(usable)} of "
    found += counted(facts[0]["cpus"], "core")
    found += f" with the time of {quota:g}" if quota else ""
    bound = any(mine != usable for mine in cores)
    found += ", each bound to some" if bound else ", free to move among them"
    if crowded(cores, threads, quota):
        return f"{found}; expect waiting", "start fewer ranks, give fewer --threads, or get cores"
    for mine in cores:
        within = [rank for rank, other in zip(ranks, cores, strict=True) if other <= mine]
        if len(within) * threads > len(mine):
            names = ", ".join(map(str, within))
            return (
                f"{found}; ranks {names} share {counted(len(mine), 'core')} while others idle",
                "bind each rank to cores of its own: mpiexec -bind-to core (MPICH), "
                "mpirun --map-by core --bind-to core (Open MPI), srun --cpu-bind=cores",
            )
    return found, ""


def _blas(case: Case) -> Finding:
    threads = counted(case.threads, "thread")
    pools = case.first["blas"]
    if not pools:
        return Finding(
            "warning",
            "NumPy's is none that threadpoolctl knows, so dptrain can't set its threads",
            "install NumPy from PyPI, or set the threads by the library's own variable",
        )
    names = ", ".join(name for name, _ in pools)
    set_to = sorted({number for facts in case.everyone for _, number in facts["blas"]})
    found = f"{names}; {threads} a rank, as dptrain sets it (the environment: {_list(set_to)})"
    return _unless(len(pools) < 2, found, f"; {len(pools)} are loaded", "load one BLAS only")


def _alike(case: Case) -> Finding:
    kinds: dict[str, list[str]] = {}
    for facts in case.everyone:
        kinds.setdefault(f"{facts['level']}; {facts['software']}", []).append(facts["host"])
    if len(kinds) == 1:
        cpus = _list([facts["cpu"] for facts in case.everyone])
        return Finding("ok", f"{cpus}; {next(iter(kinds))}")
    found = ", but ".join(f"{kind} on {_list(hosts)}" for kind, hosts in kinds.items())
    mend = "ask for one kind of node (Slurm: --constraint) and install the same versions on all"
    if len({facts["level"] for facts in case.everyone}) > 1:
        mend = f"{one_level([facts['highest level'] for facts in case.everyone])}; or {mend}"
    return Finding("warning", f"{found}: bits depend on which node computes which shard", mend)


def _shared(case: Case) -> Finding:
    """Judge the memory that is shared, and name what killed ranks have left in it."""
    finding = _enough_shared(case)
    for ranks in case.nodes:
        left = case.everyone[ranks.start]["left behind"]
        if left:
            found = f"{finding.found}; ranks that were killed have left "
            found += f"{counted(len(left), 'file')} on {_host(case, ranks)}"
            advice = f"rm {shlex.join(left)}; dptrain supervise does so"
            return Finding("warning", found, "; ".join(filter(None, (finding.advice, advice))))
    return finding


def _enough_shared(case: Case) -> Finding:
    sharing = [ranks for ranks in case.nodes if len(ranks) > 1]
    if not sharing:
        return Finding("ok", "not needed: one rank a node")
    needed = {ranks: case.needs.shared[ranks] for ranks in sharing}
    found, enough = _tightest(case, "shared memory", needed, "needed, {} free in /dev/shm of")
    slower = ": gradients would go by messages, which is slower"
    return _unless(enough, found, slower, MORE_SHARED)


def _memory(case: Case) -> Finding:
    needed = {ranks: case.needs.shared[ranks] + case.needs.own[ranks] for ranks in case.nodes}
    found, enough = _tightest(case, "memory", needed, "needed beside the data, {} free on")
    each = {r: case.needs.shared[r] + case.needs.own[r] // len(r) for r in case.nodes}
    words = "needed by each rank, {} left to it by ulimit -v on"
    limited, allowed = _tightest(case, "addresses", each, words)
    if enough and allowed:
        return Finding("ok", found)
    advice = "take more nodes, fewer --shards, a smaller model or batch"
    limit = "raise that limit, " * enough
    return Finding("error", limited if enough else found, limit + advice)


def _directory(case: Case) -> Finding:
    found = case.directory
    if isinstance(found, Unknown):
        return Finding("error", found.why, "give another --out")
    text = f"{found.directory} ({found.type})" if found.type else found.directory
    if found.fault:
        return Finding("error", f"{text} {found.fault}", "give another --out")
    if found.unseen:
        hosts = {case.everyone[rank]["host"] for rank in found.unseen}
        return Finding(
            "warning",
            f"{text} is not seen on {_list(sorted(hosts))}",
            f"rank 0 alone writes, so a run is safe; but --resume must start on "
            f"{case.first['host']}, so give an --out that all nodes share",
        )
    if not found.locks:
        return Finding(
            "warning",
            f"{text} knows no locks: two runs could write into one directory unnoticed",
            "take care not to start a run twice",
        )
    if found.type in ("tmpfs", "ramfs"):
        return Finding("warning", f"{text} is memory, lost with the machine", "--out on a disk")
    seen = "seen on all nodes" if len(case.nodes) > 1 else "usually shared between machines"
    shared = f", {seen}" if found.shared or len(case.nodes) > 1 else ", of this machine"
    return Finding("ok", f"{text}{shared}: can be written, flushed, renamed and locked in")


def _room(case: Case) -> Finding:
    if isinstance(case.directory, Unknown):
        return Finding("warning", "not looked at", "see directory")
    needed, free = case.needs.disk, case.directory.free
    checkpoint = _mb(case.needs.checkpoint)
    found = f"{_mb(needed)} needed, checkpoints of {checkpoint}; {_mb(free)} free"
    advice = "make room, give another --out, or --keep-checkpoints 1"
    return _unless(needed <= free, found, "", advice)


def _reduction(case: Case) -> Finding:
    if not case.measured:
        return Finding("ok", "one rank: nothing to exchange")
    latency, time, rate = (case.measured[name] for name in MEASURED)
    found = f"{latency:.0f} us at least; for this model {time:.3g} ms, {rate:.3g} GB/s"
    advice = "see cores; see whether other programs use them, and, between nodes, whether MPI uses "
    advice += "the fast network"
    return _unless(latency < SLOW, found, ": ranks wait long for each other", advice)


CHECKS: dict[str, tuple[Sequence[str], Callable[[Case], Finding]]] = {
    "library": (("library", "packages"), _library),
    "launcher": (("library", "mpirun", "beside"), _launcher),
    "cores": (("cores", "quota"), _cores),
    "blas": (("blas",), _blas),
    "nodes": (("cpu", "level", "highest level", "software"), _alike),
    "shared memory": (("shared memory", "left behind"), _shared),
    "memory": (("memory", "addresses"), _memory),
    "directory": ((), _directory),
    "disk": ((), _room),
    "reduction": ((), _reduction),
}
"""Each check by its name, with the facts that every rank must have found out for it."""


def _tightest(case: Case, name: str, needed: Mapping[range, int], words: str) -> tuple[str, bool]:
    """Return in words what the node has that has the least beside what it needs; is it enough?"""
    free = {r: min(int(case.everyone[rank][name]) for rank in r) for r in needed}
    ranks = min(needed, key=lambda ranks: free[ranks] - needed[ranks])
    found = f"{_mb(needed[ranks])} {words.format(_mb(free[ranks]))} {_host(case, ranks)}"
    return found, needed[ranks] <= free[ranks]


def _host(case: Case, ranks: range) -> str:
    return str(case.everyone[ranks.start]["host"])


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _list(names: Sequence[Any], comma: str = ", ") -> str:
    """Return up to four different names, and how many more there are."""
    different = list(dict.fromkeys(map(str, names)))
    return comma.join(different[:4] + [f"{len(different) - 4} more"] * (len(different) > 4))
