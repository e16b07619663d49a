"""Shows that `bench` accounts for all of a step, on any ranks, and draws what it found."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BIN, Start

from dptrain import figure
from dptrain.bench import measure as bench
from dptrain.bench import show
from dptrain.bench.clock import PARTS, Clock
from dptrain.bench.floors import traffic
from dptrain.config import ModelConfig, TrainConfig
from dptrain.model.mlp import MLP
from dptrain.optim.optimizer import Optimizer
from dptrain.optim.rules import transforms
from dptrain.world import World

SMALL = ("--inputs", "20", "--outputs", "3", "--hidden", "16,8", "--batch-size", "80")


def check(found: dict[str, Any]) -> None:
    """Check what holds for every measurement, however busy the machine."""
    assert tuple(found["parts"]) == PARTS
    for name, part in found["parts"].items():
        assert part["time_ms"] >= 0
        assert part["floor_ms"] is None if name == "loop" else part["floor_ms"] >= 0
    for name in ("products", "other_arithmetic", "waiting", "reducing", "optimizer", "data"):
        assert found["parts"][name]["time_ms"] > 0
        assert found["parts"][name]["floor_ms"] > 0 or name == "reducing"
    assert sum(part["share_ratio"] for part in found["parts"].values()) == pytest.approx(1)
    assert sum(part["time_ms"] for part in found["parts"].values()) == pytest.approx(
        found["step_ms"]
    )
    assert 0.1 < found["step_ms"] / found["unclocked_step_ms"] < 10  # the machine may be busy
    assert 0 < found["fastest_round_step_ms"] <= found["slowest_round_step_ms"]
    for run in found["runs"]:
        assert run["step_ms"] > 0
        assert run["reduce_and_update_ms"] > 0
    for name in ("allreduce_to_tree_ratio", "fourfold_shards_step_ratio", "memory_gb_per_s"):
        assert found[name] > 0


@pytest.mark.parametrize("ranks", [None, 2])
def test_json_says_where_the_time_of_a_step_goes(ranks: int | None, dptrain: Start) -> None:
    done = dptrain("bench", *SMALL, "--json", "--quiet", ranks=ranks)
    found = done.json
    check(found)
    size = ranks or 1
    named = [found[key] for key in ("ranks", "nodes", "shards", "threads", "rounds")]
    assert named == [size, 1, 2, 1, 5]
    assert [(run["reduce"], run["shards"]) for run in found["runs"]] == [
        ("tree", 2), ("allreduce", 2), *[("tree", 1)] * (size == 1), ("tree", 4 * size),
    ]  # fmt: skip
    assert found["sizes"] == [20, 16, 8, 3]
    assert found["network_gb_per_s"] is None
    assert "NumPy" in found["software"]
    assert done.stdout.count("\n") == 1


def test_shards_of_ones_own_stand_beside_one_and_four_a_rank(dptrain: Start) -> None:
    args = ("--shards", "6", "--task", "regression", "--outputs", "1", "--optimizer", "nesterov")
    found = dptrain("bench", *SMALL, *args, "--json", "--quiet", ranks=2).json
    check(found)
    assert [run["shards"] for run in found["runs"]] == [6, 6, 2, 8]


def test_text_has_a_line_for_each_part_and_each_round(dptrain: Start) -> None:
    done = dptrain("bench", *SMALL)
    assert done.status == 0
    for part in PARTS:
        assert f"\n{part.replace('_', ' ')} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert [line.split()[1] for line in done.stderr.splitlines()] == [f"{n}/5" for n in range(1, 6)]


PRETENDING = """
import json, sys
from mpi4py import MPI
from dptrain.config import ModelConfig, TrainConfig
from dptrain.bench.measure import bench
from dptrain.bench.show import text
from dptrain.world import World

world = World(MPI.COMM_WORLD, ranks_per_node=1)
found = bench(
    ModelConfig(hidden=(16, 8)), TrainConfig(batch_size=80), inputs=20, outputs=3,
    task="classification", rounds=5, world=world, say=lambda _: None,
)
if world.rank == 0:
    assert "between nodes" in text(found), text(found)
    assert max(map(len, text(found).splitlines())) <= 100
    print(json.dumps(found))
"""


def test_between_nodes_the_network_is_measured(tmp_path: Path) -> None:
    command = [str(BIN / "mpirun"), "-n", "2", sys.executable, "-c", PRETENDING]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check(found)
    assert found["nodes"] == 2
    assert found["network_gb_per_s"] > 0
    assert 0 < found["network_floor_ms"] < found["parts"]["reducing"]["floor_ms"]
    assert found["reducing_network_mb"] == pytest.approx(4 * found["num_params"] / 1e6)


def test_a_clock_gives_every_second_to_one_part() -> None:
    clock = Clock()
    start = clock.since
    inner = clock.around(lambda: None, "products", "other_arithmetic")
    clock.around(inner, "other_arithmetic", "loop")()
    assert clock.part == "loop"
    assert sum(clock.seconds.values()) == pytest.approx(clock.since - start)


def test_a_process_alone_moves_what_the_formulas_say() -> None:
    model, config = MLP([20, 16, 3]), TrainConfig(batch_size=10, shards=3, optimizer="adam")
    optimizer = Optimizer(transforms(config), lambda _: 0.1, model.num_params, model.dtype)
    assert traffic(model, optimizer, replace(config, shards=1), World())["reducing"] == 0
    assert traffic(model, optimizer, config, World()) == {
        "other_arithmetic": 4 * 2 * 10 * (2 * 16 + 3),
        "reducing": 4 * 4 * model.num_params,
        "optimizer": 4 * 7 * model.num_params,
        "data": 4 * 2 * 10 * 20,
        "network": 0,
    }


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What a bench in this process found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "ROUND", 0.001)
        return bench.bench(
            ModelConfig(hidden=(8,)),
            TrainConfig(batch_size=4096, shards=1),
            inputs=9,
            outputs=3,
            task="classification",
            rounds=5,
            world=World(),
            say=lambda _: None,
        )


def test_nothing_stays_of_the_clock(found: dict[str, Any]) -> None:
    check(found)
    assert isinstance(np.matmul, np.ufunc)
    assert Optimizer.update.__name__ == "update"


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_plot_draws_a_picture(
    name: str, begins: bytes, found: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / name
    figure.check(path, "--plot")
    show.draw(found, path)
    assert path.read_bytes().startswith(begins)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_without_matplotlib_the_extra_is_named(dptrain: Start, tmp_path: Path) -> None:
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not installed')")
    env = {"PYTHONPATH": str(tmp_path)}
    done = dptrain("bench", "--plot", "a.png", env=env, ranks=2)
    assert done.status == 2
    assert done.stderr.count("dptrain: ") == 1
    assert "pip install 'dptrain[plot]'" in done.stderr


def test_bench_takes_a_file_of_settings(dptrain: Start, tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text('hidden = [4]\ninputs = 5\nplot = "b.svg"\nquiet = true\n')
    found = dptrain("bench", "--config", "b.toml", "--json", "--batch-size", "8").json
    assert found["sizes"] == [5, 4, 10]
    assert (tmp_path / "b.svg").exists()
