"""Shows in short what torture.py shows at length: a run that is killed ends with the same bytes."""

from pathlib import Path

from torture import torture


def test_a_run_killed_at_random_moments_has_the_bytes_of_the_undisturbed_one(
    tmp_path: Path,
) -> None:
    assert torture(tmp_path, moments=3, seed=0).total() == 3
