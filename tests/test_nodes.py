"""Shows that the bytes do not depend on how they moved: in shared memory, in messages, over nodes.

On one machine several nodes are pretended: cases.py makes worlds with few ranks a node. On
separate hosts, by hand: DPTRAIN_TEST_HOSTS names a program, called as `PROGRAM run 4 2 COMMAND`,
that runs a command as four ranks on two hosts.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, Finished, start

from dptrain import World
from dptrain.reduce import wire
from dptrain.reduce.allreduce import AllReduce

SCRIPT = Path(__file__).parent / "cases.py"
WORLDS: dict[int | None, Sequence[str]] = {
    None: ("0",),
    2: ("0", "1"),
    4: ("0", "1", "3", "turn", "reversed"),
    5: ("1", "2", "turn"),
    6: ("2", "turn2"),
}
"""For each number of ranks: 0 for real nodes, or how many of them a node pretends to have."""

PLACE = ("ranks", "world", "nodes")
"""What tells worlds apart, and should make no difference."""

Lines = list[dict[str, Any]]


def finished(ranks: int | None, *args: str, cwd: Path) -> Finished:
    return start("python", SCRIPT, *args, ranks=ranks, cwd=cwd, timeout=60)


def lines_of(done: Finished) -> Lines:
    assert done.status == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """What runs and sums came to in every world; MPI is started once for all of them."""
    folder = tmp_path_factory.mktemp("told")
    ways = {2: "fits,sums", 4: "fits,copies,first", 5: "fits,sums", 6: "fits"}
    words: list[str] = []
    for ranks, way in ways.items():
        words += ["and", way, *(f"{ranks}:{name}" for name in WORLDS[ranks])]
    several = lines_of(finished(6, *words[1:], cwd=folder))
    alone = lines_of(finished(None, "fits,sums", *WORLDS[None], cwd=folder))
    return [
        *({"ranks": None, **line} for line in alone),
        *({"ranks": sum(line["nodes"]), **line} for line in several),
    ]


@pytest.fixture(scope="module")
def fits(told: Lines) -> Lines:
    """What every run came to in every world."""
    return [line for line in told if "metrics" in line]


def check_one_result_each(lines: Lines, *case: str) -> dict[tuple[Any, ...], Any]:
    """Check that runs of one case came to one result, and return the result of each case."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        key = tuple(line[name] for name in case)
        result = {name: value for name, value in line.items() if name not in PLACE}
        assert found.setdefault(key, result) == result, line
    return found


def test_the_worlds_are_what_they_pretend_to_be(fits: Lines) -> None:
    nodes = {(line["ranks"], line["world"]): line["nodes"] for line in fits}
    assert nodes[2, "0"] == [2]
    assert nodes[2, "1"] == [1, 1]
    assert nodes[5, "1"] == [1, 1, 1, 1, 1]
    assert nodes[5, "2"] == [2, 2, 1]
    assert nodes[5, "turn"] == [3, 2]
    assert nodes[6, "2"] == [2, 2, 2]
    assert nodes[6, "turn2"] == [2, 2, 1, 1]
    assert nodes[4, "reversed"] == [2, 2]


def test_a_run_gives_the_same_bytes_in_every_world(fits: Lines) -> None:
    """Parameters and metrics of Adam with all that it can have, and with validation."""
    found = check_one_result_each(fits, "shards")
    assert len(fits) == 4 * sum(map(len, WORLDS.values()))
    assert len({result["digest"] for result in found.values()}) == len(found) == 4


def test_known_gradients_come_to_the_sum_that_the_tree_defines(told: Lines) -> None:
    """On every rank, bit for bit, from one parameter to 70001; slices partition the vector.

    Norms and updated parameters are one and the same in all worlds; cases.py compares the sums.
    """
    sums = [line for line in told if "norm" in line]
    found = check_one_result_each(sums, "shards", "n")
    assert {n for _, n in found} == {1, 1023, 1024, 5000, 70001}
    assert len(sums) == len(found) * sum(len(WORLDS[ranks]) for ranks in (None, 2, 5))


def test_messages_cut_in_pieces_give_the_same_bytes(fits: Lines, tmp_path: Path) -> None:
    lines = lines_of(finished(3, "cut", "1", "2", cwd=tmp_path))
    assert len([line for line in lines if "metrics" in line]) == 2 * 2
    check_one_result_each([*fits, *(line for line in lines if "metrics" in line)], "shards")
    check_one_result_each([line for line in lines if "n" in line], "shards", "n")


def test_a_node_has_one_copy_of_the_parameters_and_leaves_each_rank_its_own(told: Lines) -> None:
    """Rank 0 writes 5: its node sees it at once, other nodes don't; after `close` nobody would."""
    lines = [line for line in told if "seen" in line]
    assert [sum(line["nodes"]) for line in lines] == [4] * 5
    for line in lines:
        node = range(line["nodes"][0])
        assert line["seen"] == [5 if rank in node else 0 for rank in range(4)], line
        assert line["private"] == [0, 1, 2, 3], line


def test_parameters_are_first_written_by_who_updates_them_and_synchronised(told: Lines) -> None:
    """Each rank of a node writes to its area, all of the vector together; then the first rank."""
    lines = [line for line in told if "written" in line]
    assert len(lines) == len(WORLDS[4])
    for line in lines:
        assert line["written"], line
        sizes = [size for size in line["nodes"] for _ in range(size)]
        assert line["syncs"] == [2 if size > 1 else None for size in sizes], line


def test_who_waits_for_a_rank_leaves_it_the_cores(tmp_path: Path) -> None:
    impatient = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "0"}  # as users have it
    done = start("python", SCRIPT, "waits", "0", "1", ranks=3, cwd=tmp_path, env=impatient)
    assert [line["awake"] for line in lines_of(done)] == [[], []]


def test_allreduce_goes_in_messages_that_mpi_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Comm:
        def Allreduce(self, _: object, part: Any) -> None:  # noqa: N802
            sizes.append(len(part))

    sizes: list[int] = []
    monkeypatch.setattr(wire, "LARGEST", 1000)
    world = World()
    world.comm = Comm()
    way = AllReduce(world, 2500, 1, "float32")
    with way.writes[range(1)] as gradient:
        gradient[:] = 3
    assert way.reduce_scatter().tolist() == [3] * 2500
    assert sizes == [1000, 1000, 500]


def test_many_fits_leave_no_shared_memory_behind_and_none_in_a_trained_model(
    tmp_path: Path,
) -> None:
    """A copy of all that the model holds gives the same outputs."""
    line, trained = lines_of(finished(2, "leaks,after", "0", cwd=tmp_path))
    without, inside = line["seen"]
    assert inside[0] > without[0]
    assert inside[1] > without[1]
    assert line["after"] == line["before"]
    assert trained["equal"]


# ---- a node that can not share enough memory


def check_one_warning(stderr: str) -> None:
    assert stderr.count("dptrain: ") == 1, stderr
    assert "gradients go by messages, which is slower: /dev/shm of " in stderr
    assert "are needed. More: mount -o remount,size=... /dev/shm, or docker run --shm" in stderr


def test_where_one_rank_is_refused_memory_all_go_by_messages(fits: Lines, tmp_path: Path) -> None:
    """Where no memory is shared, as in the second world, nothing is said."""
    done = finished(3, "short", "0", "1", cwd=tmp_path)
    check_one_warning(done.stderr)
    lines = lines_of(done)
    assert [line["nodes"] for line in lines] == [[3], [1, 1, 1]]
    check_one_result_each([*fits, *lines], "shards")


def with_shm_of(size: str, folder: Path, way: str = "large") -> Finished:
    """Train 2 million parameters on 2 ranks in a namespace with a small /dev/shm of its own."""
    small = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    line: list[str | Path] = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        small,
        "sh",
    ]
    try:
        possible = subprocess.run([*line, "true"], capture_output=True, timeout=10, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if possible.returncode != 0:
        pytest.skip(f"no small /dev/shm is possible here: {possible.stderr.decode()}")
    command: list[str | Path] = [BIN / "mpirun", "-n", "2", BIN / "python", SCRIPT, way, "0"]
    for _ in range(6):
        done = subprocess.run(
            [*line, *command],
            cwd=folder,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # MPICH 5.0.2 crashes in MPI_Init in one of some ten such namespaces, before dptrain runs
        if done.returncode != 11 or "in _handle_fromlist" not in done.stderr:
            break
    return Finished(done.returncode, done.stdout, done.stderr)


def test_a_small_dev_shm_is_found_before_it_is_touched(tmp_path: Path) -> None:
    """It would be the end by SIGBUS: 25 MB are needed."""
    small, enough = with_shm_of("20m", tmp_path), with_shm_of("64m", tmp_path)
    assert lines_of(small) == lines_of(enough)
    check_one_warning(small.stderr)
    assert " MB free, and 24.8 MB are needed" in small.stderr
    assert enough.stderr == ""


def test_memory_is_taken_where_it_is_found_free(tmp_path: Path) -> None:
    """Two that share memory at once, each of which has room alone: the second one sees that."""
    done = with_shm_of("45m", tmp_path, "both")
    assert lines_of(done) == [{"nodes": [2], "world": "0", "copies": [1, 2]}]
    check_one_warning(done.stderr)


# ---- hosts of their own


def test_two_separate_hosts_give_the_same_bytes(fits: Lines, tmp_path: Path) -> None:
    program = os.environ.get("DPTRAIN_TEST_HOSTS")
    if not program or not Path(program).exists():
        pytest.skip("DPTRAIN_TEST_HOSTS names no program that runs ranks on separate hosts")
    done = subprocess.run(
        [program, "run", "4", "2", str(BIN / "python"), str(SCRIPT), "fits", "0", "1"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    lines = lines_of(Finished(done.returncode, done.stdout, done.stderr))
    assert [line["nodes"] for line in lines] == [[2, 2]] * 4 + [[1, 1, 1, 1]] * 4
    check_one_result_each([*fits, *lines], "shards")
