"""Shows that what is confused is told apart: runs, folders of runs, data, commands."""

from pathlib import Path

import pytest
from conftest import Start, check_mistake
from tiny import train, write_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train(write_data(tmp_path / "d.npz"), tmp_path / "run")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "dir").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train run", "run is a run, and no data; to go on with it: --resume .*run$"),
        ("data show run", "run is a run, and no data"),
        ("data convert d.npz empty.csv", "empty.csv can't be written: File exists; name a new"),
        ("data", "a command is missing: convert, show$"),
        ("data sho d.npz", "no command 'sho'; valid: convert, show; did you mean 'show'"),
        ("data convert d.npz", r"IN... is missing; see dptrain data convert --help$"),
        ("plot", r"RUN... is missing; see dptrain plot --help$"),
        ("runs run", "run is a run; name the directory that runs are in$"),
        ("runs nothing", "nothing is no directory; name"),
        ("runs empty.csv", "empty.csv is no directory; name"),
        ("runs dir", "dir holds no run; name"),
        ("train --gpus 2", "dptrain computes on CPUs only$"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_one_message_says_what_it_is_and_what_to_do(line: str, words: str, quick: Start) -> None:
    check_mistake(quick(*line.split()), words)
