"""Shows in short what mutated_runs.py shows at length: a changed run ends in one message."""

from pathlib import Path

from conftest import start


def test_runs_that_are_changed_in_many_ways(tmp_path: Path) -> None:
    script = Path(__file__).with_name("mutated_runs.py")
    done = start("python", script, "--runs", "20", "--seed", "0", cwd=tmp_path, timeout=110)
    assert done.status == 0, done.stdout
    assert "20 changed runs: 0 faults" in done.stdout
