"""Shows that the table of runs says how each stands, what sets it apart and how good it became."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import write_data

from dptrain import DataConfig, InputError, ModelConfig, TrainConfig, World, fit, load, mlp_for
from dptrain.checked import Plain
from dptrain.cli.commands.runs import runs
from dptrain.plot.runs import apart, labels
from dptrain.plot.table import ordered, runs_in, text
from dptrain.record.files import lock


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of two runs, and of one copied before its end."""
    folder = tmp_path_factory.mktemp("runs")
    data = load(config=DataConfig(validation=0.5), world=World())
    for name, rate in (("slow", 0.0001), ("fast", 0.01)):
        config = TrainConfig(epochs=2, learning_rate=rate)
        model = mlp_for(data, ModelConfig(hidden=(8,)))
        fit(model, data, config, out=folder / name, quiet=True, world=World())
    shutil.copytree(folder / "slow", folder / "dead")
    (folder / "dead" / "summary.json").unlink()
    (folder / "no run").mkdir()
    return folder


def by_name(folder: Path) -> dict[str, Plain]:
    return {row["run"]: row for row in runs_in(folder)}


def test_states_settings_and_best_metrics(folder: Path) -> None:
    rows = by_name(folder)
    assert {name: row["state"] for name, row in rows.items()} == {
        "slow": "done", "fast": "done", "dead": "died",
    }  # fmt: skip
    assert [rows[name]["learning-rate"] for name in ("slow", "fast")] == [0.0001, 0.01]
    assert "optimizer" not in rows["slow"]  # which is the same in all
    lines = (folder / "fast" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["validation_loss"] for line in lines]
    assert rows["fast"]["validation_loss"] == min(losses)
    assert rows["fast"]["epochs"] == 2


def test_what_changes_nothing_sets_no_run_apart(tmp_path: Path) -> None:
    """Data under another path, shards that follow from the batch size, how often to save."""
    for name in ("a.npz", "b.npz"):
        (tmp_path / name).write_bytes(write_data(tmp_path / "x.npz").read_bytes())
    other = write_data(tmp_path / "c.npz", seed=1)
    for name, size in (("a.npz", 64), ("b.npz", 128), ("c.npz", 128)):
        data = load(tmp_path / name, world=World())
        config = TrainConfig(steps=1, batch_size=size, checkpoint_every=f"{size} seconds")
        fit(mlp_for(data), data, config, out=tmp_path / "runs" / name[0], world=World())
    paths = [tmp_path / "runs" / name for name in "abc"]
    assert apart(paths[:2]) == [{"batch-size": 64}, {"batch-size": 128}]
    assert labels(paths[1:], "bc") == ["data b.npz", "data c.npz"]
    assert labels([paths[1], paths[1]], ["x", "y"]) == ["x", "y"]
    other.replace(tmp_path / "b.npz")
    data = load(tmp_path / "b.npz", world=World())
    fit(mlp_for(data), data, TrainConfig(steps=1), out=tmp_path / "runs" / "d", world=World())
    found = apart([paths[1], tmp_path / "runs" / "d"], left_out=["batch-size", "shards"])
    assert [own["data"] for own in found] == ["b.npz (1)", "b.npz (2)"]


def test_a_run_that_someone_holds_is_going_on(folder: Path) -> None:
    held = lock(folder / "dead" / "receipt.jsonl")
    assert held is not None
    with open(held):  # noqa: PTH123 (a descriptor)
        assert by_name(folder)["dead"]["state"] == "going on"
    assert by_name(folder)["dead"]["state"] == "died"


def test_a_run_that_was_stopped_says_so(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "slow", tmp_path / "slow")
    path = tmp_path / "slow" / "summary.json"
    path.write_text(path.read_text().replace('"stopped": null', '"stopped": "SIGTERM"'))
    assert by_name(tmp_path)["slow"]["state"] == "stopped"


def test_rows_are_sorted_by_a_column(folder: Path) -> None:
    rows = runs_in(folder)
    best = ordered(rows, "validation_accuracy", reverse=True)
    assert best[0]["run"] == "fast"
    with pytest.raises(InputError, match="did you mean 'validation_loss'"):
        ordered(rows, "validation_los", reverse=False)
    assert text(best).splitlines()[1].startswith("fast  done")


def test_the_command_prints_json(folder: Path) -> None:
    line = [str(folder), "--json", "--sort", "train_loss", "--reverse"]
    found = json.loads(CliRunner().invoke(runs, line).output)["runs"]
    assert found[-1]["run"] == "fast"


def test_a_folder_without_runs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        runs_in(tmp_path)
