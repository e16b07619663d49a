"""Shows what people are told before training: that a run is finished, that a minibatch is all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import ALONE, CONFIG, HIDDEN, load_once, write_data

from dptrain import fit, mlp_for


def said(
    data: Path, out: Path, capsys: pytest.CaptureFixture[str], *, resume: bool = False, **more: Any
) -> str:
    """Return what a training of so many settings says."""
    loaded, config = load_once(data), replace(CONFIG, **more)
    fit(mlp_for(loaded, HIDDEN), loaded, config, out=out, resume=resume, quiet=False, world=ALONE)
    return capsys.readouterr().err


def test_a_finished_run_says_so_and_how_to_train_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_data(tmp_path / "d.npz"), tmp_path / "run"
    assert "the run is" not in said(data, out, capsys)
    before = (out / "receipt.jsonl").read_bytes()
    again = said(data, out, capsys, resume=True)
    assert "the run is finished, after step 4; to train longer give --epochs above 2\n" in again
    assert "goes on" not in again
    assert (out / "receipt.jsonl").read_bytes() == before
    assert "the run goes on after step 4\n" in said(data, out, capsys, resume=True, epochs=3)


def test_of_a_number_of_steps_more_steps_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_data(tmp_path / "d.npz"), tmp_path / "run"
    said(data, out, capsys, steps=3, epochs=None)
    again = said(data, out, capsys, resume=True, steps=3, epochs=None)
    assert "after step 3; to train longer give --steps above 3\n" in again


def test_a_run_that_patience_has_ended_stays_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_data(tmp_path / "d.npz"), tmp_path / "run"
    said(data, out, capsys, epochs=400, patience=1, learning_rate=1.0, optimizer="sgd")
    again = said(
        data, out, capsys, resume=True, epochs=400, patience=1, learning_rate=1.0, optimizer="sgd"
    )
    assert "the run is finished, by --patience: no better validation loss since epoch" in again


def test_a_minibatch_larger_than_all_rows_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "d.npz")
    found = said(data, tmp_path / "a", capsys, batch_size=1000)
    assert (
        "--batch-size 1,000 is above the 240 rows to train on: each step takes all of them" in found
    )
    assert "each step takes all" not in said(data, tmp_path / "b", capsys, batch_size=240)
