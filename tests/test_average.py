"""Shows that the parameters' moving average is its formula, and what is evaluated and stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start
from numpy.typing import NDArray
from tiny import ALONE, CONFIG, bytes_of, load_once, train, write_data

import dptrain
from dptrain import ModelConfig, TrainConfig
from dptrain.arrays import CACHED
from dptrain.optim.optimizer import Average
from dptrain.record import checkpoint
from dptrain.train.control import Control
from dptrain.train.evaluate import evaluate
from dptrain.train.loop import begin
from dptrain.train.loop import train as train_run

SETTINGS: dict[str, Any] = {
    "optimizer": "lamb", "weight_decay": 0.1, "no_decay": ("bias",), "ema": 0.6,
    "learning_rate_of": ("layers.1.*=0.01",), "schedule": "one-cycle", "min_learning_rate": 1e-4,
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


def average_of(steps: list[NDArray[Any]], start: NDArray[Any], decay: float) -> NDArray[Any]:
    """Return the average after some steps, as a sum over all of them with their weights."""
    kept = [min(decay, (1 + n) / (10 + n)) for n in range(1, len(steps) + 1)]
    total = start * np.prod(kept)
    for number, params in enumerate(steps):
        total = total + params * (1 - kept[number]) * np.prod(kept[number + 1 :])
    return np.asarray(total)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_the_average_is_the_weighted_sum_of_all_steps(decay: float) -> None:
    rng = np.random.default_rng(0)
    start, *steps = rng.normal(size=(8, 2 * CACHED + 5))
    tested = Average(decay, start)
    for number, params in enumerate(steps, 1):
        tested.update(params, number)
    np.testing.assert_allclose(tested.values, average_of(steps, start, decay), rtol=0, atol=1e-14)


def test_what_never_changes_is_its_own_average_to_the_bit() -> None:
    params = np.random.default_rng(1).normal(size=999).astype(np.float32)
    tested = Average(0.9, params)
    for number in range(1, 50):
        tested.update(params, number)
    assert tested.values.tobytes() == params.tobytes()


class Watch(Control):
    """Notes the parameters after each step."""

    def __init__(self, params: NDArray[Any]) -> None:
        self.params, self.seen = params, [params.copy()]

    def after_step(self, batch: Any, loss: float, asked: int) -> None:  # noqa: ARG002
        self.seen.append(self.params.copy())


@pytest.mark.parametrize("patience", [None, 1])
def test_a_run_evaluates_and_ends_with_the_average(data: Path, patience: int | None) -> None:
    loaded = load_once(data)
    model = dptrain.mlp_for(loaded, ModelConfig(hidden=(4,), dtype="float64"))
    config = replace(CONFIG, ema=0.6, patience=patience, learning_rate=3.0, epochs=20)
    run = begin(model, loaded, config, ALONE)
    watch = Watch(run.reducer.params)
    train_run(run, watch)
    assert loaded.validation is not None
    assert len(watch.seen) == 1 + run.step
    losses, averages = [], []
    for line in run.history:
        start, *steps = watch.seen[: 1 + int(line["step"])]
        averages.append(average_of(steps, start, 0.6))
        losses.append(line["validation_loss"])
        expected = evaluate(model, averages[-1], loaded.validation, ALONE)["loss"]
        assert losses[-1] == pytest.approx(expected, rel=1e-12)
    best = averages[int(np.argmin(losses))] if patience else averages[-1]
    np.testing.assert_allclose(run.reducer.params, best, rtol=1e-12, atol=1e-15)
    assert patience is None or (run.stopped and np.argmin(losses) == run.kept)


def test_a_run_with_all_of_it_goes_on_to_the_same_bytes_and_is_replayed(
    data: Path, tmp_path: Path
) -> None:
    """Resumed after each of its steps, in the middle of an epoch too."""
    whole = tmp_path / "whole"
    trained = train(data, whole, keep_checkpoints=99, patience=None, **SETTINGS)
    arrays, _ = checkpoint.read(checkpoint.path_of(whole, 4))
    assert trained.params.tobytes() == arrays["ema"].tobytes() != arrays["params"].tobytes()
    for step in (1, 2, 3):
        part = tmp_path / f"part{step}"
        train(data, part, keep_checkpoints=99, patience=None, **SETTINGS)
        for later in range(step + 1, 5):
            checkpoint.path_of(part, later).unlink()
        for name in ("model.safetensors", "summary.json"):
            (part / name).unlink()
        train(data, part, resume=True, keep_checkpoints=99, patience=None, **SETTINGS)
        assert bytes_of(part) == bytes_of(whole)
    assert dptrain.verify(whole, world=ALONE).verdict == "whole"
    assert dptrain.verify(whole, "all", data=[str(data)], world=ALONE).verdict == "identical"


@pytest.mark.parametrize("patience", [None, 2])
def test_a_model_that_is_not_the_last_checkpoints_average_is_found(
    data: Path, tmp_path: Path, patience: int | None
) -> None:
    run = tmp_path / "run"
    train(data, run, patience=patience, **SETTINGS)
    assert dptrain.verify(run, world=ALONE).verdict == "whole"
    path = checkpoint.path_of(run, 4)
    arrays, state = checkpoint.read(path)
    arrays["best" if patience else "ema"][0] += 1
    checkpoint.write(path, arrays, state)
    found = dptrain.verify(run, world=ALONE)
    assert found.wrong == ["model.safetensors: parameters that the receipt does not name"]
    path.unlink()  # then the receipt's word stands, which names the file
    assert dptrain.verify(run, world=ALONE).verdict == "whole"


def test_one_line_of_options_gives_the_same_bytes_on_any_ranks_and_is_replayed(
    quick: Start, data: Path, tmp_path: Path
) -> None:
    line = ["--optimizer", "lamb", "--weight-decay", "0.1", "--no-decay", "bias", "--ema", "0.9"]
    line += ["--learning-rate-of", "layers.1.*=0.01", "--freeze", "layers.2.bias", "--shards", "7"]
    line += ["--hidden", "40,40", "--epochs", "3", "--batch-size", "100", "--validation", "0.2"]
    line += ["--hash-every", "1", "--checkpoint-every", "2", "--patience", "2"]
    found = []
    for ranks in (None, 1, 2, 3):
        out = tmp_path / f"run{ranks}"
        done = quick("train", data, *line, "--out", out, ranks=ranks)
        assert done.status == 0, done.stderr
        found.append(bytes_of(out))
    assert all(each == found[0] for each in found)
    done = quick("verify", tmp_path / "run3", "--replay", "all", ranks=2)
    assert done.status == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "identical"
    lars = [word if word != "lamb" else "lars" for word in line]
    shas = set()
    for ranks in (None, 3):
        done = quick("train", data, *lars, "--out", tmp_path / f"lars{ranks}", ranks=ranks)
        assert done.status == 0, done.stderr
        shas.add(bytes_of(tmp_path / f"lars{ranks}")[:2])
    assert len(shas) == 1


def test_what_it_can_not_be_is_refused() -> None:
    for value in (1.0, -0.1):
        with pytest.raises(dptrain.InputError, match=r"ema is .*; it must be at least 0 and below"):
            TrainConfig(ema=value)
