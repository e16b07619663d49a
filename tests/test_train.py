"""Shows what a run says of itself and which epoch it keeps: what no comparison of runs can see."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import ALONE, CONFIG, HIDDEN, bytes_of, load_once, metrics_of, train, write_data

import dptrain
from dptrain import DataConfig, TrainConfig
from dptrain.guard import Ask
from dptrain.record import checkpoint, receipt
from dptrain.record.receipt import Receipt
from dptrain.record.rundir import SUMMARY
from dptrain.run.control import RunControl
from dptrain.run.fit import fit
from dptrain.run.ready import load, mlp_for
from dptrain.train.evaluate import evaluate

RISING: dict[str, Any] = {
    "batch_size": 100,
    "epochs": 14,
    "learning_rate": 1.0,
    "optimizer": "momentum",
}
"""Settings under which the validation loss falls, rises, and falls again, but less deep."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.npz")


def settings(**changes: Any) -> TrainConfig:
    return replace(CONFIG, **changes)


# ---- the best epoch


@pytest.fixture(scope="module")
def stopped(data: Path) -> Path:
    """A run that patience has ended, with a checkpoint after each step; 3 steps an epoch."""
    out = data.parent / "stopped"
    train(data, out, patience=5, keep_checkpoints=99, **RISING)
    return out


def validation_losses(run: Path) -> list[float]:
    lines = [line for line in metrics_of(run) if "validation_loss" in line]
    return [line["validation_loss"] for line in lines]


@pytest.mark.parametrize(
    ("rows", "steps"), [(90, 200), (512, 200), (600, 300), (1050, 450), (3823, 450), (9999, 1200)]
)
def test_the_fewer_rows_the_more_often_each_is_seen(rows: int, steps: int) -> None:
    settled = TrainConfig().settled(rows)
    assert settled.num_steps(-(-rows // settled.batch_size)) == steps
    assert TrainConfig(epochs=3).settled(rows).epochs == 3


def test_the_losses_rise_and_fall_again(stopped: Path) -> None:
    """Else the tests below would show little."""
    losses = validation_losses(stopped)
    best = losses.index(min(losses))
    later = losses[best + 1 :]
    assert best >= 1
    assert len(later) == 5
    assert any(two < one for one, two in itertools.pairwise(later))


def test_the_parameters_are_the_best_epochs_and_give_its_loss(stopped: Path, data: Path) -> None:
    losses = validation_losses(stopped)
    arrays, state = checkpoint.read(checkpoint.path_of(stopped, checkpoint.steps_of(stopped)[-1]))
    trained = dptrain.load_trained(stopped)
    assert trained.params.tobytes() == arrays["best"].tobytes() != arrays["params"].tobytes()
    assert float.fromhex(state["best_value"]) == min(losses)
    of_best = 3 * (1 + losses.index(min(losses)))
    then, _ = checkpoint.read(checkpoint.path_of(stopped, of_best))
    assert trained.params.tobytes() == then["params"].tobytes()
    rows = load_once(data).validation
    assert rows is not None
    found = evaluate(trained.model, trained.params, rows, ALONE)
    summary = json.loads((stopped / SUMMARY).read_text())
    assert found["loss"] == summary["validation_loss"] == min(losses)
    assert summary["stopped"] == f"no better validation loss since epoch {of_best // 3}"


def test_the_best_epoch_is_kept_from_wherever_the_run_goes_on(
    stopped: Path, data: Path, tmp_path: Path
) -> None:
    """Before the best epoch, after it, and where patience has ended the run."""
    steps = checkpoint.steps_of(stopped)
    assert len(steps) == 3 * len(validation_losses(stopped))
    for step in {*steps[::4], steps[-1]}:
        run = shutil.copytree(stopped, tmp_path / str(step))
        for later in steps[step:]:
            checkpoint.path_of(run, later).unlink()
        summary = train(data, run, resume=True, patience=5, keep_checkpoints=99, **RISING).summary
        assert summary.steps == steps[-1]
        assert bytes_of(run) == bytes_of(stopped)
        assert checkpoint.steps_of(run) == steps
        kept = json.loads((stopped / SUMMARY).read_text())
        for name in ("params_sha256", "stopped", "validation_loss", "receipt_sha256"):
            assert summary.plain()[name] == kept[name]


def test_the_checkpoint_of_the_best_epoch_outlives_the_others(
    stopped: Path, data: Path, tmp_path: Path
) -> None:
    losses = validation_losses(stopped)
    best, end = 3 * (1 + losses.index(min(losses))), 3 * len(losses)
    more = {"checkpoint_every": "1 epoch", "keep_checkpoints": 2}
    train(data, tmp_path / "run", patience=5, **RISING | more)
    assert checkpoint.steps_of(tmp_path / "run") == [best, end - 3, end]


def test_of_epochs_that_are_equally_good_the_first_is_kept(data: Path) -> None:
    """The steps are so small that no parameter changes."""
    small: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1e-30}
    trained = train(data, None, patience=2, epochs=9, **small)
    losses = {line["validation_loss"] for line in trained.history}
    assert (len(losses), len(trained.history)) == (1, 3)
    assert trained.summary.stopped == "no better validation loss since epoch 1"


def test_without_patience_the_last_epoch_is_kept(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", patience=None, **RISING | {"epochs": 9})
    losses = validation_losses(tmp_path / "run")
    summary = json.loads((tmp_path / "run" / SUMMARY).read_text())
    assert summary["validation_loss"] == losses[-1] > min(losses)
    newest = checkpoint.steps_of(tmp_path / "run")[-1]
    arrays, _ = checkpoint.read(checkpoint.path_of(tmp_path / "run", newest))
    assert dptrain.load_trained(tmp_path / "run").params.tobytes() == arrays["params"].tobytes()


# ---- metrics and receipt


def test_the_lines_of_metrics_count_steps_epochs_and_examples(data: Path, tmp_path: Path) -> None:
    """Of 240 rows by 100: the last minibatch of an epoch has 40; the second epoch is cut short."""
    short: dict[str, Any] = {"epochs": None, "steps": 5, "patience": None}
    summary = train(data, tmp_path / "run", batch_size=100, log_every=1, **short).summary
    assert (summary.steps, summary.epochs) == (5, 2)
    found = metrics_of(tmp_path / "run")
    counts = [(line["epoch"], line["step"], line["examples"]) for line in found]
    steps = [(1, 1, 100), (1, 2, 200), (1, 3, 240), (2, 4, 340), (2, 5, 440)]
    assert counts == [*steps[:3], steps[2], *steps[3:], steps[4]]
    for *lines, end in (found[:4], found[4:]):
        losses, sizes = [line["loss"] for line in lines], [100, 100, 40][: len(lines)]
        assert end["train_loss"] == pytest.approx(np.average(losses, weights=sizes), rel=1e-12)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_train_accuracy_is_that_of_the_rows_by_what_they_weigh(
    data: Path, class_weight: Any
) -> None:
    """Of steps too small to be seen; the last minibatch of the epoch is smaller."""
    loaded = load(data, DataConfig(validation=0.2, class_weight=class_weight), world=ALONE)
    model = mlp_for(loaded, replace(HIDDEN, activation="tanh", label_smoothing=0.1))
    config = TrainConfig(optimizer="sgd", learning_rate=1e-30, epochs=2, batch_size=100, shards=3)
    trained = fit(model, loaded, config, world=ALONE)
    x, y = loaded.train.gather(slice(None), model)
    hits = model.outputs(trained.params, x).argmax(axis=1) == y
    recalls = [hits[y == k].mean() for k in range(3)]
    each = np.mean(recalls) if class_weight == "balanced" else hits.mean()
    for metrics in (*trained.history, trained.summary.metrics):
        assert metrics["train_accuracy"] == pytest.approx(each, rel=1e-14)
    assert 0.1 < each < 0.9


def test_the_receipt_hashes_the_parameters_where_an_epoch_ends_too(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(data, run, batch_size=100, epochs=None, steps=8, hash_every=4, keep_checkpoints=99)
    hashed = [line.step for line in receipt.follow(run, Receipt()) if line and line.params]
    assert hashed == [3, 4, 6, 8]
    train(data, tmp_path / "more", batch_size=100, epochs=None, steps=8, hash_every=99)
    lines = receipt.follow(tmp_path / "more", Receipt())
    last = [line.step for line in lines if line and line.params]
    assert last == [3, 6, 8]


def test_a_rate_that_changes_is_that_of_the_step(data: Path) -> None:
    rate: dict[str, Any] = {"learning_rate": 0.001, "schedule": "step", "decay_epochs": 1}
    trained = train(data, None, batch_size=100, patience=None, **rate)
    rates = [line["learning_rate"] for line in trained.history]
    assert rates == [0.001, pytest.approx(0.0001)]


def test_an_epoch_whose_metrics_a_signal_kept_away_gets_them_later(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: what the epoch's line needs is in the checkpoint of its last step."""
    loaded, model = load_once(data), mlp_for(load_once(data), HIDDEN)
    config = settings(batch_size=100, clip_norm=0.01, noise_scale=True, checkpoint_every="1 epoch")
    whole, run = tmp_path / "whole", tmp_path / "run"
    fit(model, loaded, config, out=whole, world=ALONE)
    assert {"gradient_norm", "noise_scale"} <= metrics_of(whole)[-1].keys()
    with monkeypatch.context() as patched:  # asked in the evaluation, and no more
        patched.setattr(RunControl, "asked", lambda _: Ask.SIGUSR1)
        asked = fit(model, loaded, config, out=run, world=ALONE)
    assert (asked.summary.stopped, asked.summary.steps) == ("SIGUSR1", 3)
    assert checkpoint.steps_of(run) == [3]
    assert asked.history == []
    fit(model, loaded, config, out=run, resume=True, world=ALONE)
    assert bytes_of(run) == bytes_of(whole)


def test_an_epoch_that_a_signal_cut_short_has_no_metrics_until_it_is_over(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rows held out, whose evaluation would hear of the signal too."""
    loaded = load(data, world=ALONE)
    config, model = settings(batch_size=100, patience=None), mlp_for(loaded, HIDDEN)
    whole, run = tmp_path / "whole", tmp_path / "run"
    fit(model, loaded, config, out=whole, world=ALONE)
    with monkeypatch.context() as patched:
        patched.setattr(RunControl, "before_update", lambda own: Ask.SIGUSR1 * (own.run.step == 1))
        asked = fit(model, loaded, config, out=run, world=ALONE)
    assert (asked.summary.stopped, asked.summary.steps) == ("SIGUSR1", 2)
    assert asked.history == []
    assert checkpoint.steps_of(run)[-1] == 2
    assert not any("train_loss" in line for line in metrics_of(run))
    fit(model, loaded, config, out=run, resume=True, world=ALONE)
    assert bytes_of(run) == bytes_of(whole)


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        ("2 steps", [2, 4, 6, 8]),
        ("3 steps", [3, 6, 8]),
        ("2 epochs", [6, 8]),
        ("1000 seconds", [8]),
        ("1000 steps", [8]),
    ],
)
def test_checkpoints_are_where_they_are_asked_for_and_at_the_end(
    every: str, steps: list[int], data: Path, tmp_path: Path
) -> None:
    """3 steps an epoch, of which the last one is cut short."""
    more: dict[str, Any] = {"batch_size": 100, "epochs": None, "steps": 8, "keep_checkpoints": 99}
    train(data, tmp_path / "run", checkpoint_every=every, patience=None, **more)
    assert checkpoint.steps_of(tmp_path / "run") == steps


def test_where_patience_ends_a_run_there_is_a_checkpoint(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train(data, run, patience=5, checkpoint_every="1000 steps", **RISING).summary
    assert checkpoint.steps_of(run) == [summary.steps]
    assert summary.saved == summary.steps < 3 * RISING["epochs"]


# ---- the sum by MPI's own allreduce


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_allreduce_alone_is_the_tree_to_rounding(clip_norm: float | None, data: Path) -> None:
    model = replace(HIDDEN, dtype="float64")
    loaded = load_once(data)
    found = {}
    for way in ("tree", "allreduce"):
        config = settings(reduce=way, clip_norm=clip_norm, optimizer="sgd", learning_rate=1.0)
        config = replace(config, noise_scale=True)  # for which each shard is written alone
        trained = fit(mlp_for(loaded, model), loaded, config, world=ALONE)
        norms = [line.get("gradient_norm", math.nan) for line in trained.history]
        found[way] = trained.params, norms
    (params, norms), (others, their_norms) = found.values()
    np.testing.assert_allclose(params, others, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(norms, their_norms, rtol=1e-12)
    assert params.tobytes() != others.tobytes()  # or they are one and the same sum
