"""Shows that `evaluate --on` takes the rows that a run was trained on, held out or tested on."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Start, check_mistake
from tiny import ALONE, metrics_of

from dptrain import DataConfig, load, load_trained

TRAIN = ("train", "d.csv", "--target", "kind", "--out", "run", "--hidden", "4", "--quiet")


def write_table(path: Path, seed: int = 0) -> None:
    """Write 500 rows of two numbers, a word and a kind, with gaps."""
    x = np.random.default_rng(seed).standard_normal((500, 2)).round(2)
    words = np.array(["red", "green", "blue", ""])[(x[:, 0] > 0) + 2 * (x[:, 1] > 0.5)]
    kinds = np.where(x.sum(axis=1) > 0, "yes", "no")
    rows = zip(*x.T, words, kinds, range(500), strict=True)
    lines = [f"{a},{b},{word},{kind},{1 + number % 3}" for a, b, word, kind, number in rows]
    path.write_text("\n".join(["a,b,word,kind,counts", *lines]))


@pytest.fixture
def run(tmp_path: Path, quick: Start) -> Path:
    write_table(tmp_path / "d.csv")
    more = ("--validation", "0.2", "--epochs", "3", "--seed", "5", "--weight", "counts")
    done = quick(*TRAIN, *more)
    assert done.status == 0, done.stderr
    return tmp_path / "run"


@pytest.mark.parametrize("ranks", [None, 3])
def test_rows_held_out_are_those_of_training(run: Path, quick: Start, ranks: int | None) -> None:
    found = quick("evaluate", "run", "--on", "validation", "--json", ranks=ranks).json
    last = metrics_of(run)[-1]
    assert found["examples"] == 100
    assert found["on"] == "validation"
    assert {name: found[name] for name in ("loss", "accuracy")} == {
        name: last[f"validation_{name}"] for name in ("loss", "accuracy")
    }


def test_rows_trained_on_are_the_others_alike_on_all_ranks(run: Path, quick: Start) -> None:
    found = quick("evaluate", "run", "--on", "train", "--json").json
    assert found["examples"] == 400
    assert quick("evaluate", "run", "--on", "train", "--json", ranks=3).json == found
    config = DataConfig(target=("kind",), validation=0.2, weight="counts")
    data = load(run.parent / "d.csv", config, seed=5, world=ALONE)
    block = slice(0, len(data.train))
    outputs = load_trained(run).model.outputs(
        load_trained(run).params, data.train.gather(block, load_trained(run).model)[0]
    )
    right = outputs.argmax(axis=1) == data.train.labels(block)
    assert found["accuracy"] == pytest.approx(right.mean())
    assert "d.csv, train rows: 400 examples" in quick("evaluate", "run", "--on", "train").stdout


def test_data_that_has_moved_is_taken_and_other_data_refused(run: Path, quick: Start) -> None:
    there = quick("evaluate", "run", "--on", "validation", "--json").json
    moved = (run.parent / "d.csv").rename(run.parent / "moved.csv")
    here = quick("evaluate", "run", moved.name, "--on", "validation", "--json").json
    assert here["loss"] == there["loss"]
    words = r"/d\.csv is not there any more; if the run's data has moved, name its files: DATA"
    for line in ("evaluate run --on train", "verify run --replay all", "train --resume run"):
        check_mistake(quick(*line.split(), ranks=3), words)
    write_table(run.parent / "other.csv", seed=1)
    for part in ("train", "validation"):
        done = quick("evaluate", "run", "other.csv", "--on", part, ranks=3)
        check_mistake(done, "other.csv is not what run was trained on")


def test_where_there_are_none_it_says_so(tmp_path: Path, quick: Start) -> None:
    write_table(tmp_path / "d.csv")
    assert quick(*TRAIN, "--steps", "1").status == 0
    done = quick("evaluate", "run", "--on", "validation", ranks=3)
    check_mistake(done, "run held no rows out: train with --validation, such as 0.1")
    check_mistake(quick("evaluate", "run", "--on", "test"), "has no test rows; name the DATA")
    check_mistake(quick("evaluate", "run", "d.csv", "--on", "test"), "d.csv has no test rows")
    check_mistake(quick("evaluate", "run", "--on", "tests"), "'tests' is not one of")


def test_test_rows_are_what_is_evaluated_by_default(tmp_path: Path, quick: Start) -> None:
    assert quick("train", "--steps", "2", "--out", "run", "--quiet").status == 0
    found = quick("evaluate", "run", "--json").json
    named = quick("evaluate", "run", "--on", "test", "--json").json
    assert named == found | {"on": "test"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert named["loss"] == summary["test_loss"]
