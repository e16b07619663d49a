"""Shows that what a rank computes wrong is found, the rank named, and what is right kept."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from conftest import start
from faulty import EVERY, Kind

from dptrain.arrays import Sums
from dptrain.order import Batch
from dptrain.train.recheck import Result, choose, verdict

ROOT = Path(__file__).parent


def world(*sizes: int) -> Any:
    """Return what stands for ranks on nodes of these sizes."""
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    nodes = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    return SimpleNamespace(size=sum(sizes), nodes=nodes)


def batch(step: int, size: int = 90, shards: int = 7) -> Batch:
    return Batch(3, 0, step, np.arange(size), shards)


def node_of(rank: int, nodes: list[range]) -> range:
    return next(ranks for ranks in nodes if rank in ranks)


@pytest.mark.parametrize("sizes", [(1,), (2,), (5,), (1, 1), (2, 2), (3, 1), (2, 2, 2)])
def test_who_checks_is_elsewhere_as_far_as_there_is_an_elsewhere(sizes: tuple[int, ...]) -> None:
    ranks = world(*sizes)
    for step in range(200):
        chosen = choose(batch(step), ranks)
        assert chosen == choose(batch(step), ranks)
        assert chosen.shard in range(7 * chosen.owner // ranks.size, 7)
        away = [node_of(rank, ranks.nodes) for rank in (chosen.owner, chosen.checker)]
        assert (chosen.owner == chosen.checker) == (ranks.size == 1)
        assert (away[0] == away[1]) == (len(sizes) == 1)
        expected = {1: [chosen.owner], 2: [chosen.owner, chosen.checker]}.get(ranks.size)
        assert chosen.judges == (expected or chosen.judges)
        if ranks.size > 2:
            (judge,) = chosen.judges
            assert judge not in (chosen.owner, chosen.checker)
            assert len(sizes) < 3 or node_of(judge, ranks.nodes) not in away


def test_every_shard_that_has_examples_and_every_rank_has_its_turn() -> None:
    """The shard whoever the ranks are, as it is keyed by the step."""
    ranks = world(2, 2)
    found = [choose(batch(step, size=5), ranks) for step in range(300)]
    full = {number for number in range(7) if len(batch(0, size=5).shard(number))}
    assert {chosen.shard for chosen in found} == full
    assert {chosen.checker for chosen in found} == {*range(4)}
    assert [chosen.shard for chosen in found] == [
        choose(batch(step, size=5), world(3)).shard for step in range(300)
    ]


def result(rank: int, kind: str) -> Result:
    return Result(rank, Sums(1.0, 2.0), np.array([0.0, 5.0, -float(kind == "b")], np.float32))


@pytest.mark.parametrize(
    ("kinds", "right", "wrong"),
    [
        ("aba", "a", [1]),
        ("abb", "b", [0]),
        ("abab", None, [0, 1, 0, 1]),
        ("abbb", "b", [0]),
        ("abaa", "a", [1]),
    ],
)
def test_what_most_agree_on_is_right(kinds: str, right: str | None, wrong: list[int]) -> None:
    """Also between 0 and -0, which are equal and not the same."""
    found = [result(number % 2, kind) for number, kind in enumerate(kinds)]
    kept, others = verdict(found)
    assert [one.rank for one in others] == (wrong if right else [0, 1, 0, 1])
    assert kept is None if right is None else kept is not None and kept.same(result(0, right))
    assert result(0, "a").place(result(0, "b")) == 2


@pytest.mark.timeout(300)
def test_a_bit_that_is_wrong_is_found_and_its_host_named(tmp_path: Path) -> None:
    done = start("python", ROOT / "faulty.py", "4", ranks=3, cwd=tmp_path, timeout=240)
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for kind in get_args(Kind):
        counts = found["stuck"][kind]
        assert counts["found"] == counts["named"] == counts["times"], counts
        assert counts["silent"] > 0, counts  # nothing else finds it
        assert 0 <= counts["mean_steps"] < 6 * EVERY, counts
    for case in (found["once"]["owner"], found["once"]["checker"], found["alone"]["owner"]):
        assert case["same"]
        (line,) = case["said"]
        assert "first in layers.0.weight, wrong" in line
        assert line.endswith("others agree on it, and theirs is kept")
    (line,) = found["two"]
    assert "rank 0 on host0 (" in line
    assert "rank 1 on host1 (" in line
    assert "nobody can say who is right" in line


def test_a_host_that_is_wrong_twice_ends_the_job_with_status_70(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    done = start("python", "job.py", ranks=3, cwd=tmp_path)
    assert done.status == 70, done.stderr
    assert done.stderr.count("was wrong before. The run ends here") == 1


JOB = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import dptrain
from faulty import CONFIG, Faulty, data_for
world = dptrain.connect()
model = Faulty("gradient", lambda _: world.rank == 1, 7, 3)
try:
    dptrain.fit(model, data_for(world), CONFIG, world=world)
except dptrain.InputError as error:
    if world.rank == 0:
        print(error, file=sys.stderr)
    sys.exit(error.status)
"""
