"""Shows the one idea: the same bytes on any number of ranks, for everything that can be set."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BIN, Start, start

import dptrain as package
from dptrain import DataConfig, ModelConfig, TrainConfig, World
from dptrain.order import Order
from dptrain.run.ready import idle

ROOT = Path(__file__).parent.parent
DIGITS = ("train", "--shards", "3", "--epochs", "2", "--json", "--out", "run")
TIMES = ("seconds", "examples_per_second")


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, times aside."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def test_the_command_gives_the_same_bytes_on_1_to_4_ranks(
    dptrain: Start, quick: Start, tmp_path: Path
) -> None:
    """With 3 shards, so that one of 4 ranks has none; on 5 and 6 test_nodes.py does so."""
    found = {}
    for ranks in (None, 1, 2, 3, 4):
        folder = tmp_path / f"{ranks}"
        folder.mkdir()
        run = dptrain if ranks in (None, 3) else quick
        summary = run(*DIGITS, ranks=ranks, cwd=folder).json
        assert summary["ranks"] == (ranks or 1)
        assert (summary["shards"], summary["steps"], summary["epochs"]) == (3, 30, 2)
        model = (folder / "run" / "model.safetensors").read_bytes()
        found[ranks] = (summary["params_sha256"], metrics(folder / "run"), model)
    assert all(result == found[None] for result in found.values())


def test_without_any_option_1_and_4_ranks_give_one_result(quick: Start) -> None:
    """And a good one: this is what people see first."""
    found = [quick("--json", "--quiet", ranks=ranks).json for ranks in (1, 4)]
    assert {(run["params_sha256"], run["shards"]) for run in found} == {
        (found[0]["params_sha256"], 4)
    }
    assert found[0]["test_accuracy"] >= 0.96


def test_the_default_number_of_shards_is_a_function_of_the_batch_alone() -> None:
    shards = {size: TrainConfig(batch_size=size).num_shards for size in (1, 64, 65, 256, 10**9)}
    assert shards == {1: 1, 64: 1, 65: 2, 256: 4, 10**9: 65536}
    assert TrainConfig(shards=3, batch_size=10).num_shards == 3


@pytest.mark.parametrize(
    ("ranks", "config", "words"),
    [
        (2, TrainConfig(shards=2), None),
        (6, TrainConfig(), "2 of 6 ranks are idle: .* 256 examples in 4 .* --batch-size 384, or by "
         "--shards 6"),
        (2, TrainConfig(shards=1), "1 of 2 ranks is idle: .* in 1 shard; use them by --shards 2"),
    ],
)  # fmt: skip
def test_ranks_without_work_are_counted(ranks: int, config: TrainConfig, words: str | None) -> None:
    order, world = Order(3823, config.batch_size, config.num_shards, 0, "rows"), World()
    world.size = ranks
    said = idle(order, config, world, resume=False)
    assert (words is None and said is None) or re.match(str(words), str(said))


def test_ranks_without_work_are_told_of_in_one_line(quick: Start, tmp_path: Path) -> None:
    args = ("--steps", "1", "--out", "run", "--shards", "3", "--batch-size", "2")
    done = quick(*args, ranks=3)
    (line,) = [line for line in done.stderr.splitlines() if "idle" in line]
    assert re.search("1 of 3 .* 2 examples .* by --batch-size 192", line)
    again = quick("--resume", tmp_path / "run", "--steps", "2", ranks=3)
    assert again.stderr.count("is idle") == 1
    assert "which a run keeps; start 2" in again.stderr


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, list[dict[str, Any]]]:
    """Return what the runs of cases.py came to, for each number of ranks."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2500, 6)) * [1, 10, 100, 1, 1, 1] + [0, 0, 1000, 0, 0, 0]
    y = np.stack([np.sin(x[:, 0]) + x[:, 1] / 10, np.abs(x[:, 3])], axis=1)
    np.savez(folder / "regression.npz", x=x, y=y, x_test=x[:99], y_test=y[:99])
    np.savez(folder / "multilabel.npz", x=x, y=(y > 0.5).astype(np.int64))
    found = {}
    for ranks in (None, 3):
        script = ROOT / "tests" / "cases.py"
        done = start("python", script, "kinds", ranks=ranks, cwd=folder, timeout=90)
        assert done.status == 0, done.stderr
        found[ranks] = [json.loads(line) for line in done.stdout.splitlines()]
    return found


def test_every_kind_of_run_gives_the_same_bytes(
    every_kind: dict[int | None, list[dict[str, Any]]],
) -> None:
    assert len(every_kind[None]) == 17
    for ranks, found in every_kind.items():
        for one, other in zip(every_kind[None], found, strict=True):
            assert one == other, f"{one['name']} on {ranks} ranks"


def test_runs_of_different_settings_give_different_bytes(
    every_kind: dict[int | None, list[dict[str, Any]]],
) -> None:
    """Without this, the test above could not fail."""
    digests = [run["params_sha256"] for run in every_kind[None]]
    assert len(set(digests)) == len(digests)


def test_early_stopping_stops_early(every_kind: dict[int | None, list[dict[str, Any]]]) -> None:
    (run,) = [run for run in every_kind[None] if run["name"] == "early stopping"]
    best = min(run["history"], key=lambda line: float(line["validation_loss"]))
    assert run["epochs"] == best["epoch"] + 1 < 9
    assert run["stopped"] == f"no better validation loss since epoch {best['epoch']}"
    assert run["validation_loss"] == best["validation_loss"]


def test_the_number_of_shards_is_part_of_the_result(quick: Start) -> None:
    digests = {
        quick("--steps", "9", "--json", "--shards", str(v)).json["params_sha256"] for v in (1, 2, 3)
    }
    assert len(digests) == 3


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_allreduce_agrees_with_the_tree_within_rounding(
    optimizer: str, tmp_path: Path, quick: Start
) -> None:
    """The parameters after 16 steps, in float64, differ by no more than sums in another order."""
    found = {}
    for way in ("tree", "allreduce"):
        args = ("--dtype", "float64", "--optimizer", optimizer, "--batch-size", "250")
        more = ("--shards", "9", "--steps", "16", "--reduce", way, "--json", "--out", way)
        assert quick(*args, *more, ranks=4).json["reduce"] == way
        found[way] = package.load_trained(tmp_path / way).params
    difference = float(np.abs(found["tree"] - found["allreduce"]).max())
    print(f"tree and allreduce differ by {difference:.1e} at most")
    assert 0 < difference < 1e-14


def test_one_process_without_mpi_gives_the_same_bytes(dptrain: Start) -> None:
    with_mpi = dptrain("--steps", "5", "--shards", "3", "--json").json
    env = {"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}
    without = dptrain("--steps", "5", "--shards", "3", "--json", env=env).json
    assert with_mpi["params_sha256"] == without["params_sha256"]


def test_evaluate_gives_the_same_numbers_on_any_number_of_ranks(quick: Start) -> None:
    trained = quick("--epochs", "1", "--json", "--out", "run").json
    alone = quick("evaluate", "run", "--json").json
    assert alone["loss"] == trained["test_loss"]
    assert alone["accuracy"] == trained["test_accuracy"]
    assert sum(map(sum, alone["confusion"])) == alone["examples"] == 1797
    right = sum(row[number] for number, row in enumerate(alone["confusion"]))
    assert alone["accuracy"] == right / 1797
    assert quick("evaluate", "run", "--json", ranks=3).json == alone


def test_the_library_and_the_command_give_the_same_bytes(quick: Start) -> None:
    data = package.load(config=DataConfig(validation=0.1), seed=3)
    model = package.mlp_for(data, ModelConfig(hidden=(20,)))
    trained = package.fit(model, data, TrainConfig(shards=2, steps=9, seed=3))
    line = ("--validation", "0.1", "--seed", "3", "--hidden", "20", "--shards", "2")
    assert (
        quick(*line, "--steps", "9", "--json").json["params_sha256"]
        == trained.summary.params_sha256
    )


def test_mapped_files_give_the_bytes_of_an_archive(quick: Start, tmp_path: Path) -> None:
    """Rows of a mapped file are encoded when they are gathered, those of an archive beforehand."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1500, 5)) * 7 + 3, rng.integers(0, 3, 1500)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    line = ("--epochs", "2", "--shards", "3", "--validation", "0.1", "--json")
    mapped = quick("train", "x.npy", "y.npy", *line, ranks=2).json
    archive = quick("train", "d.npz", *line).json
    assert mapped["params_sha256"] == archive["params_sha256"]
    assert mapped["validation_loss"] == archive["validation_loss"]


def test_the_environment_of_the_tests_is_what_people_have() -> None:
    """One BLAS thread is dptrain's doing, not this suite's."""
    assert (BIN / "dptrain").exists()
    assert "OPENBLAS_NUM_THREADS" not in os.environ


THREADS = """
import os
from dptrain.cli.ranks import connect
connect()
from dptrain.threads import HOLDERS, blas_threads
with blas_threads(2):
    print(HOLDERS.before, [one.get_num_threads() for one in HOLDERS.libraries], end=" ")
print("OPENBLAS_NUM_THREADS" in os.environ)
"""


def test_a_command_begins_with_one_blas_thread_and_has_as_many_as_are_asked_for(
    tmp_path: Path,
) -> None:
    done = start("python", "-c", THREADS, cwd=tmp_path)
    assert done.stdout == "[1] [2] False\n", done.stderr
