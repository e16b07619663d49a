"""Shows that doctor takes a job's own line, and judges its data and settings as train would."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Start, contents
from tiny import write_data

Checks = Callable[..., dict[str, dict[str, str]]]
LINE = ("doctor", "d.npz", "--json")


@pytest.fixture
def found(tmp_path: Path, quick: Start) -> Checks:
    """Return what doctor finds, by the name of the check, of d.npz, 300 rows."""
    write_data(tmp_path / "d.npz")

    def run(*args: str, ranks: int | None = 3, status: int = 0) -> dict[str, dict[str, str]]:
        before = contents(tmp_path)
        done = quick(*LINE, *args, ranks=ranks)
        assert done.status == status, done.stderr
        assert contents(tmp_path) == before
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    return run


def test_data_that_can_be_trained_on_is_said(found: Checks) -> None:
    data = found("--hidden", "16,8", "--validation", "0.2", "--batch-size", "192")["data"]
    assert data["status"] == "ok"
    assert "d.npz: 300 rows, 5 inputs; target y: the whole numbers 0 to 2" in data["found"]


@pytest.mark.parametrize(
    ("line", "check", "words", "advice"),
    [
        ("--test-data no.npz", "data", "no.npz: No such file or directory", "mend that"),
        ("--loss huber", "settings", "loss is 'huber'", "for classification of 3 classes"),
        ("--patience 3", "settings", "no rows are held out", "give --validation"),
        ("--validation 0.001", "data", "that holds out 0", "hold out at least one"),
        ("--out d.npz", "run", "d.npz is a file", "--out needs a new"),
    ],
)
def test_what_train_would_refuse_is_an_error(
    line: str, check: str, words: str, advice: str, found: Checks
) -> None:
    verdict = found(*line.split(), status=1)[check]
    assert verdict["status"] == "error"
    assert words in verdict["found"]
    assert advice in verdict["advice"]


def test_numbers_that_are_none_are_found_before_the_job(found: Checks, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=[[1.0], [np.nan]], y=[0, 1])
    assert "x has nan in row 1" in found(status=1)["data"]["found"]


def test_what_looks_wrong_is_a_warning(found: Checks) -> None:
    data = found("--batch-size", "1000", "--shards", "2")["data"]
    assert data["status"] == "warning"
    assert "--batch-size 1,000 is above the 300 rows to train on" in data["advice"]
    assert "1 of 3 ranks is idle" in data["advice"]


def test_a_run_that_exists_is_an_error_unless_it_is_gone_on_with(
    found: Checks, quick: Start, tmp_path: Path
) -> None:
    assert quick("train", "d.npz", "--steps", "1", "--out", "run", "--quiet").status == 0
    assert "exists and is not empty" in found("--out", "run", status=1)["run"]["found"]
    assert "run" not in found("--out", "run", "--continue")
    done = quick("doctor", "--resume", "run", "--quiet", ranks=3)
    assert done.status == 0, done.stderr
    assert "d.npz" not in done.stdout  # of which all is fine
    (tmp_path / "d.npz").unlink()
    done = quick("doctor", "--resume", "run", "--quiet", ranks=3)
    assert done.status == 1
    assert "error    data" in done.stdout
