"""Shows that no command overwrites a file unasked, and that each says what it wrote."""

import json
from pathlib import Path

import pytest
from conftest import Start, check_mistake, contents
from tiny import train, write_data

LINES = {
    "predict run x.npz --out p.csv": "300 rows",
    "plot run --out p.svg": "loss, accuracy, learning rate",
    "explain averaging --html p.html": "1 chapter",
    "receipt run --out p.json": "4 steps",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    train(write_data(tmp_path / "x.npz"), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("line", LINES)
@pytest.mark.usefixtures("run")
def test_a_file_is_told_of_and_never_overwritten_unasked(
    line: str, quick: Start, tmp_path: Path
) -> None:
    out = tmp_path / line.split()[-1]
    out.write_text("what stood there")
    before = contents(tmp_path)
    check_mistake(quick(*line.split()), rf"{out.name}, which exists; name another, or --force")
    assert contents(tmp_path) == before
    done = quick(*line.split(), "--force")
    assert done.status == 0, done.stderr
    size = len(out.read_bytes())
    assert f"dptrain: wrote {out.name}: {LINES[line]}, {size:,} bytes\n" in done.stderr
    assert out.read_bytes() != b"what stood there"


def test_a_statement_in_a_file_is_what_is_printed(run: Path, quick: Start) -> None:
    assert quick("receipt", "run", "--out", "s.json").stdout == ""
    assert (run.parent / "s.json").read_text() == quick("receipt", "run").stdout
    assert json.loads((run.parent / "s.json").read_text())["predicate"]
