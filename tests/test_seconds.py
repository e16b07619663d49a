"""Shows that a run's seconds are all that its steps took, those that were lost included.

A clock that ticks once a step stands in the place of the real one.
"""

import itertools
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import wait_until
from tiny import CONFIG, NUM_STEPS, bytes_of, train, write_data

from dptrain.arrays import Sums
from dptrain.guard import GUARD
from dptrain.plot.runs import read_runs
from dptrain.record import checkpoint, writer
from dptrain.record.rundir import METRICS, SECONDS, SUMMARY
from dptrain.train import loop
from dptrain.train.state import Training

BEFORE = 2
"""How many steps are done before a run ends; the second epoch has not begun."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.npz")


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(1000.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))


def times(run: Path) -> list[tuple[int, float]]:
    """Return step and seconds of each line of a run's metrics."""
    lines = map(json.loads, (run / METRICS).read_text().splitlines())
    return [(line["step"], line["seconds"]) for line in lines]


def kept(run: Path) -> Any:
    return json.loads((run / SECONDS).read_text())


def back_to(step: int, run: Path) -> None:
    """Leave a run as if it had been killed at its end, with this checkpoint as the last one."""
    for later in checkpoint.steps_of(run):
        if later > step:
            checkpoint.path_of(run, later).unlink()


def test_every_line_says_when_it_was(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train(data, run, log_every=1).summary
    assert times(run) == [(1, 1.0), (2, 2.0), (2, 2.0), (3, 3.0), (4, 4.0), (4, 4.0)]
    assert summary.seconds == NUM_STEPS
    assert kept(run) == {"seconds": NUM_STEPS}
    (curves,) = read_runs([run])
    assert [x for x, _ in curves.curves("seconds", ["loss"])["loss"]] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_steps_that_are_done_again_count_twice(step: int, data: Path, tmp_path: Path) -> None:
    """From any checkpoint, and from none; and once more from the same."""
    run = tmp_path / "run"
    train(data, run, keep_checkpoints=99, log_every=1)
    right = bytes_of(run)
    spent = float(NUM_STEPS)
    for _ in range(2):
        before = [line for line in times(run) if line[0] <= step and line[1] <= NUM_STEPS]
        back_to(step, run)
        summary = train(data, run, resume=True, keep_checkpoints=99, log_every=1).summary
        later = [(number, spent + number - step) for number in range(step + 1, NUM_STEPS + 1)]
        assert sorted({*times(run)}) == sorted({*before, *later})
        spent += NUM_STEPS - step
        assert summary.seconds == kept(run)["seconds"] == spent
        assert summary.examples_per_second == CONFIG.batch_size  # of these steps alone
        assert bytes_of(run) == right


def test_an_epoch_that_a_signal_interrupts_has_all_of_its_seconds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(data, whole, batch_size=30, checkpoint_every="60 seconds")
    compute, calls = loop.shard_loss_and_grad_sum, itertools.count()

    def interrupted(*args: Any, **options: Any) -> Sums:
        if next(calls) == 20:
            signal.raise_signal(signal.SIGTERM)
            wait_until(lambda: bool(GUARD.asked))  # another thread hears it
        return compute(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "shard_loss_and_grad_sum", interrupted)
        patched.setattr(loop, "together", lambda *_: 1)
        summary = train(data, run, batch_size=30, checkpoint_every="60 seconds").summary
    assert summary.stopped == "SIGTERM"
    assert 1 < summary.steps == summary.seconds == kept(run)["seconds"] < 8
    summary = train(data, run, batch_size=30, checkpoint_every="60 seconds", resume=True).summary
    assert summary.steps == summary.seconds == 16
    assert times(run) == times(whole)
    assert bytes_of(run) == bytes_of(whole)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nonsense\n"),
        lambda path: path.write_bytes(b"n" * 5000),
        lambda path: path.write_text('{"seconds": NaN}\n'),
        lambda path: path.write_text('{"seconds": -5.000000}\n'),
        lambda path: path.write_text('{"seconds": 1.000000}\n'),
    ],
)
def test_without_them_the_last_epoch_says_how_long_it_has_been(
    damage: Callable[[Path], object], data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(data, run, keep_checkpoints=99)
    back_to(3, run)
    damage(run / SECONDS)
    assert train(data, run, resume=True).summary.seconds == 3.0
    assert kept(run) == {"seconds": 3.0}


def test_they_are_written_while_the_run_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is killed leaves them behind; here a second passes between any two steps."""
    run, found, after = tmp_path / "run", [], Training.add_noise
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=itertools.count(0, 2).__next__))

    def look(*args: Any) -> None:
        found.append(kept(run)["seconds"])
        after(*args)

    monkeypatch.setattr(Training, "add_noise", look)
    train(data, run, noise_scale=True, checkpoint_every="60 seconds")
    assert found == [0.0, 1.0, 2.0, 3.0]


def test_a_slower_run_differs_in_no_other_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = tmp_path / "run", []
    for pace in (1.0, 0.3):
        clock = SimpleNamespace(perf_counter=itertools.count(0, pace).__next__)
        monkeypatch.setattr(loop, "time", clock)
        train(data, run, keep_checkpoints=99)
        found.append({path: path.read_bytes() for path in run.rglob("*") if path.is_file()})
        shutil.rmtree(run)
    differ = {path.name for path in found[0].keys() | found[1] if found[0][path] != found[1][path]}
    assert differ == {METRICS, SECONDS, SUMMARY}


# ---- beside the seconds, what else a line says of the steps


def test_an_epochs_gradient_norm_is_the_mean_over_its_examples(data: Path, tmp_path: Path) -> None:
    """Of 240 examples by 100: the last minibatch has 40, and a norm of its own."""
    run = tmp_path / "run"
    train(data, run, batch_size=100, clip_norm=0.1, log_every=1, patience=None)
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    for *steps, epoch in (lines[:4], lines[4:]):
        norms = [line["gradient_norm"] for line in steps]
        assert len({*norms}) == 3
        mean = np.average(norms, weights=[100, 100, 40])
        assert epoch["gradient_norm"] == pytest.approx(mean, rel=1e-14)
        assert epoch["gradient_norm"] != norms[-1]
