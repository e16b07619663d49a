"""Shows that a job ends, with the rank named, where one of its ranks is odd: see odd_ranks.py."""

from pathlib import Path

import pytest
from conftest import start
from odd_ranks import Start, check


@pytest.mark.parametrize(
    ("how", "moment"),
    [
        ("true", ""),
        ("dptrain evaluate nowhere", ""),
        ("dptrain train --no-such-option", ""),
        ("sys.exit(0)", "connected"),
        ("another call", "connected"),
        ("no call", "loaded"),
        ("another hook", "loaded"),
        ("InputError", "step"),
        ("argparse", "evaluation"),
        ("raise", "trained"),
    ],
)
def test_a_job_ends_with_its_odd_rank_named(how: str, moment: str, tmp_path: Path) -> None:
    check(Start(2, 1, how, moment), tmp_path, limit=60)


def test_ranks_that_each_fail_say_so_once(tmp_path: Path) -> None:
    check(Start(3, 0, "dptrain train nowhere.csv", ""), tmp_path, limit=60)


def test_a_program_that_a_rank_starts_is_no_rank(tmp_path: Path) -> None:
    """It has the rank's variables, but not the socket that they name."""
    variables = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "99"}
    line = ("train", "--steps", "3", "--shards", "1", "--json", "--out", "run")
    assert start("dptrain", *line, cwd=tmp_path, env=variables).json["ranks"] == 1


def test_what_a_world_is_made_of_goes_with_its_communicator(tmp_path: Path) -> None:
    """MPI has some two thousand communicators, and a search for settings may make many worlds."""
    script = """
from mpi4py import MPI
import dptrain
comm = MPI.COMM_WORLD.Split(0, -MPI.COMM_WORLD.rank)
for number in range(1000):
    world = dptrain.World(comm)
assert world.allgather(world.rank) == [0, 1]
comm.Free()
assert world.comm == world.node_comm == MPI.COMM_NULL
"""
    assert start("python", "-c", script, ranks=2, cwd=tmp_path).status == 0
