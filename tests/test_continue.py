"""Shows that one line, with --continue, begins a run and goes on with it."""

import signal
import subprocess
from pathlib import Path

import pytest
from conftest import BIN, Start, wait_until

from dptrain.record import checkpoint

RUN = ["train", "--out", "run", "--shards", "4", "--checkpoint-every", "20", "--quiet"]


def test_the_same_line_begins_a_run_and_goes_on_with_its_bytes(
    tmp_path: Path, quick: Start
) -> None:
    line = [*RUN, "--continue", "--steps", "400"]
    with subprocess.Popen(
        [BIN / "dptrain", *line], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: len(checkpoint.steps_of(tmp_path / "run")) > 0)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 75
    ended = quick(*line, "--json", ranks=2).json
    assert quick(*line, "--json").json["params_sha256"] == ended["params_sha256"]
    quick("train", "--out", "calm", *RUN[3:], "--steps", "400")
    for name in ("receipt.jsonl", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_a_start_that_failed_at_once_or_lost_its_settings_is_no_hindrance(
    tmp_path: Path, quick: Start
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "receipt.jsonl").touch()
    first = quick(*RUN, "--continue", "--steps", "3", "--json").json
    (run / "config.toml").unlink()
    second = quick(*RUN, "--continue", "--steps", "4", "--json").json
    assert (first["steps"], second["steps"]) == (3, 4)
    assert (run / "config.toml").exists()
    assert "examples a second" in quick(*RUN, "--continue", "--steps", "5").stdout
    assert "examples a second" not in quick(*RUN, "--continue", "--steps", "5").stdout


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--continue", "--seed", "1"], "seed"),
        (["--continue", "--hidden", "7"], "hidden"),
        ([], "run exists and is not empty"),
        (["--continue", "--resume", "run"], "leave --out out"),
    ],
)
def test_other_settings_are_refused(
    more: list[str], words: str, tmp_path: Path, quick: Start
) -> None:
    assert quick(*RUN, "--steps", "1").status == 0
    before = (tmp_path / "run" / "receipt.jsonl").read_bytes()
    done = quick(*RUN, "--steps", "1", *more)
    assert done.status == 2
    assert words in done.stderr
    assert (tmp_path / "run" / "receipt.jsonl").read_bytes() == before


def test_what_is_no_run_is_not_written_to(tmp_path: Path, quick: Start) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").touch()
    done = quick(*RUN, "--continue")
    assert (done.status, done.stderr.count("run exists and is not empty")) == (2, 1)
    done = quick("train", "--continue")
    assert done.stderr == "dptrain: continue needs the run's directory: give it by --out DIR\n"
