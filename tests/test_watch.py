"""Shows which epoch a run keeps by a metric, one's own too, and how a function may end it."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start, wait_until
from tiny import ALONE, load_once, metrics_of, train, write_data

import dptrain
from dptrain import InputError, TrainConfig
from dptrain.guard import GUARD
from dptrain.model.mlp import MLP
from dptrain.run.fit import fit
from dptrain.train.state import Metrics

MOVING: dict[str, Any] = {"batch_size": 100, "learning_rate": 0.7, "optimizer": "momentum"}
"""Settings under which what is measured becomes better and worse from epoch to epoch."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.npz")


class Counts(MLP):
    """An MLP that measures how many of the first class are found, and how many are called so."""

    def metric_sums(self, outputs: Any, y: Any) -> dict[str, tuple[float, float]]:
        named, first = outputs.argmax(1) == 0, y == 0
        found = float((named & first).sum())
        return {"found": (found, float(first.sum())), "called": (float(named.sum()), len(y))}


def kept(metric: str, data: Path, model: MLP) -> tuple[int, list[float]]:
    """Return the epoch whose parameters a run ends with, counted from 0, and a metric's values."""
    loaded, name = load_once(data), f"validation_{metric.partition('=')[0]}"
    config = TrainConfig(epochs=14, patience=14, patience_metric=metric, **MOVING)
    trained = fit(model, loaded, config, world=ALONE)
    digests = []
    for epochs in range(1, 15):
        shorter = TrainConfig(epochs=epochs, **MOVING)
        digests.append(fit(model, loaded, shorter, world=ALONE).summary.params_sha256)
    epoch = digests.index(trained.summary.params_sha256)
    assert trained.summary.metrics[name] == trained.history[epoch][name]
    return epoch, [line[name] for line in trained.history]


def test_patience_watches_the_metric_that_is_named(data: Path) -> None:
    by_loss, losses = kept("loss", data, MLP([5, 4, 3]))
    by_accuracy, accuracies = kept("accuracy", data, MLP([5, 4, 3]))
    assert by_loss == int(np.argmin(losses))
    assert by_accuracy == int(np.argmax(accuracies)) != by_loss


def test_a_metric_of_ones_own_says_what_is_better(data: Path) -> None:
    by_found, found = kept("found=max", data, Counts([5, 4, 3]))
    by_called, called = kept("called=min", data, Counts([5, 4, 3]))
    assert by_found == int(np.argmax(found))
    assert by_called == int(np.argmin(called)) != by_found


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("acuracy", r"valid: loss, accuracy, .* such as right=max"),
        ("found=most", "such as right=max"),
        ("r2", r"patience-metric is 'r2'; valid: loss, accuracy"),
        ("lost=min", r"patience-metric is 'lost'; valid: loss, accuracy"),
    ],
)
def test_a_metric_that_is_not_there_is_refused_before_the_first_step(
    metric: str, words: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        train(data, tmp_path / "run", patience_metric=metric)
    assert not (tmp_path / "run").exists()


def test_the_command_takes_it(data: Path, quick: Start) -> None:
    line = ("train", data, "--validation", "0.2", "--patience-metric", "accuracy", "--epochs", "2")
    assert "there is no --patience" in quick(*line, "--out", "run").stderr
    done = quick(*line, "--patience", "1", "--out", "run", "--quiet", "--json")
    assert done.json["validation_accuracy"] > 0.3


@pytest.mark.timeout(30)
def test_ctrl_c_once_more_at_pythons_prompt_ends_the_call_and_not_the_session(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    def pressed(_: Metrics) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: bool(GUARD.asked))
        GUARD._first_urgent = (GUARD._first_urgent or 0) - 1  # a second ago
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    before = signal.getsignal(signal.SIGINT)
    loaded, config = load_once(data), TrainConfig(epochs=2, batch_size=100)
    with pytest.raises(KeyboardInterrupt):
        fit(MLP([5, 4, 3]), loaded, config, on_epoch=pressed, world=ALONE)
    # what the guard reads of it only now may end another run, one that begins within milliseconds
    wait_until(lambda: fit(MLP([5, 4, 3]), loaded, config, world=ALONE).summary.stopped is None)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_function_is_told_of_every_epoch_and_may_end_the_run(data: Path, tmp_path: Path) -> None:
    seen: list[Metrics] = []

    def three(metrics: Metrics) -> bool:
        seen.append(metrics)
        return len(seen) == 3

    loaded, config = load_once(data), TrainConfig(epochs=5, batch_size=100)
    run, whole = tmp_path / "run", tmp_path / "whole"
    with pytest.raises(InputError, match="on_epoch is of type int; give a function"):
        fit(MLP([5, 4, 3]), loaded, config, on_epoch=3, world=ALONE)  # type: ignore[arg-type]
    ended = fit(MLP([5, 4, 3]), loaded, config, out=run, on_epoch=three, world=ALONE)
    assert ended.summary.stopped == "on_epoch ended it"
    assert ended.summary.epochs == len(ended.history) == 3
    assert seen == ended.history
    assert json.loads((run / "summary.json").read_text())["stopped"] == "on_epoch ended it"
    assert dptrain.verify(run, "all", world=ALONE).verdict == "identical"
    found = fit(MLP([5, 4, 3]), loaded, config, out=run, resume=True, world=ALONE)
    fit(MLP([5, 4, 3]), loaded, config, out=whole, world=ALONE)
    assert metrics_of(run) == metrics_of(whole)
    assert found.summary.stopped is None
    assert dptrain.verify(run, "all", world=ALONE).verdict == "identical"
