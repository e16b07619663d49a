"""Shows that `bench` accounts for all of a step, on any ranks, and draws what it found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HERE, Start, start
from tiny import RunningMean

from dptrain import InputError
from dptrain import world as worlds
from dptrain.bench import measure as bench
from dptrain.bench import results
from dptrain.bench.measure import synthetic
from dptrain.bench.results import PARTS, least
from dptrain.cli.main import command
from dptrain.config import TrainConfig
from dptrain.config.tools import BenchConfig
from dptrain.model.mlp import MLP
from dptrain.train.loop import begin
from dptrain.world import World

SMALL = ("--inputs", "20", "--outputs", "3", "--hidden", "16,8", "--batch-size", "80")


def check(found: dict[str, Any]) -> None:
    """Check what holds for every measurement, however busy the machine."""
    assert tuple(found["parts"]) == (*PARTS, "rest")
    for name in PARTS:
        assert found["parts"][name]["time_ms"] > 0
        assert (found["parts"][name]["floor_ms"] or 0) > 0 or name in ("reducing", "model")
    assert found["parts"]["rest"]["floor_ms"] is None
    assert sum(part["share_ratio"] for part in found["parts"].values()) == pytest.approx(1)
    assert sum(found["parts"][name]["time_ms"] for name in PARTS) == pytest.approx(
        found["parts_sum_ms"]
    )
    assert found["parts_sum_ms"] + found["parts"]["rest"]["time_ms"] == pytest.approx(
        found["step_ms"]
    )
    assert 0 < found["fastest_round_step_ms"] <= found["slowest_round_step_ms"]
    for run in found["runs"]:
        assert run["step_ms"] > 0
        assert run["reduce_and_update_ms"] > 0
    for name in ("allreduce_to_tree_ratio", "fourfold_shards_step_ratio", "memory_gb_per_s"):
        assert found[name] > 0


def test_json_says_where_the_time_of_a_step_goes(quick: Start) -> None:
    for size in (1, 2):
        done = quick("bench", *SMALL, "--json", "--quiet", ranks=size if size > 1 else None)
        found = done.json
        check(found)
        named = [found[key] for key in ("ranks", "nodes", "shards", "threads", "rounds")]
        assert named == [size, 1, 2, 1, 5]
        assert [(run["reduce"], run["shards"]) for run in found["runs"]] == [
            ("tree", 2), ("allreduce", 2), *[("tree", 1)] * (size == 1), ("tree", 4 * size),
        ]  # fmt: skip
        assert found["model"] == "MLP"
        assert found["shapes"] == [[20, 16], [16], [16, 8], [8], [8, 3], [3]]
        assert found["network_gb_per_s"] is None
        assert "NumPy" in found["software"]
        assert done.stdout.count("\n") == 1


def test_shards_of_ones_own_stand_beside_one_and_four_a_rank(quick: Start) -> None:
    args = ("--shards", "6", "--task", "regression", "--outputs", "1", "--optimizer", "nesterov")
    found = quick("bench", *SMALL, *args, "--json", "--quiet", ranks=2).json
    check(found)
    assert [run["shards"] for run in found["runs"]] == [6, 6, 2, 8]


def test_text_has_a_line_for_each_part_and_each_round(quick: Start) -> None:
    done = quick("bench", *SMALL)
    assert done.status == 0
    for part in (*PARTS, "rest", "whole step"):
        assert f"\n{part} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert [line.split()[1] for line in done.stderr.splitlines()] == [f"{n}/5" for n in range(1, 6)]


def test_between_nodes_the_network_is_measured(tmp_path: Path) -> None:
    done = start("python", HERE / "cases.py", "benches", "1", ranks=2, cwd=tmp_path)
    found = done.json
    check(found)
    assert found["nodes"] == 2
    assert found["network_gb_per_s"] > 0
    assert 0 < found["network_floor_ms"] < found["parts"]["reducing"]["floor_ms"]
    assert found["reducing_network_mb"] == pytest.approx(4 * found["num_params"] / 1e6)
    told = results.text(found)
    assert "between nodes" in told
    assert max(map(len, told.splitlines())) <= 100


def test_a_process_alone_moves_what_the_formulas_say() -> None:
    model, world = MLP([20, 16, 3]), World()
    data = synthetic(BenchConfig(inputs=20, outputs=3), 0, 20)
    n, rows = model.num_params, [np.ones((4, 20), np.float32), np.ones((6, 20), np.float32)]
    for shards, alone, reducing in ((1, True, 0), (3, False, 0), (3, True, 4 * 4 * n)):
        config = TrainConfig(batch_size=10, shards=shards, optimizer="adam", noise_scale=alone)
        run = begin(model, data, config, world)
        assert least(run, rows, world) == {
            "data": 4 * 2 * 10 * 20,
            "flop": 2 * 10 * (2 * 20 * 16 + 3 * 16 * 3),
            "reducing": reducing,
            "network": 0,
            "optimizer": 4 * 7 * n,
        }


class Silent(RunningMean):
    """A model of one's own, which doesn't say what its products are."""

    flop = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What a bench in this process found of a model of one's own."""
    settings = BenchConfig(inputs=9, outputs=3)
    config = TrainConfig(batch_size=4096, shards=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "ROUND", 0.001)
        return bench.bench(Silent([9, 8, 3]), settings, config, world=World(), say=lambda _: None)


def test_a_model_of_ones_own_is_measured_too(found: dict[str, Any]) -> None:
    check(found)
    assert found["model"] == "Silent"
    assert found["shapes"][-1] == [9]
    assert found["parts"]["model"]["floor_ms"] is None


def test_bench_takes_a_file_of_settings(quick: Start, tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("hidden = 4\ninputs = 5\nquiet = true\n")
    found = quick("bench", "--config", "b.toml", "--json", "--batch-size", "8").json
    assert found["shapes"] == [[5, 4], [4], [4, 10], [10]]


def test_nothing_is_made_up_that_no_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "connect", World)
    monkeypatch.setattr(bench, "synthetic", lambda *_: pytest.fail("rows are made up"))
    for size in ("--inputs", "--outputs"):
        with pytest.raises(InputError, match="MB are needed beside the data"):
            command.main(["bench", size, "2147483647"], standalone_mode=False)
