"""Shows that files are whole or as before, and that lines survive a disk that refuses."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import temporary_folder
from hypothesis import given
from hypothesis import strategies as st

from dptrain.config import interval
from dptrain.config.train import Unit
from dptrain.record import files, rundir
from dptrain.record.files import PIECE, lines_of, lock, replace_file, write_whole
from dptrain.record.journal import Journal
from dptrain.words import InputError

# ---- intervals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", (500, "steps")),
        ("500 steps", (500, "steps")),
        ("1 step", (1, "steps")),
        ("10s", (10, "seconds")),
        ("5 minutes", (300, "seconds")),
        ("1.5 min", (90, "seconds")),
        ("1h", (3600, "seconds")),
        ("2 hours", (7200, "seconds")),
        ("0.5 seconds", (0.5, "seconds")),
        (" 2 epochs ", (2, "epochs")),
        ("1epoch", (1, "epochs")),
        ("60.0 steps", (60, "steps")),
    ],
)
def test_an_interval_is_a_number_and_a_unit(text: str, expected: tuple[float, Unit]) -> None:
    assert interval(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "steps",
        "0",
        "0 seconds",
        "-1 steps",
        "1.5 steps",
        "0.5 epochs",
        "2 weeks",
        "1 2",
        "1e3",
        "inf seconds",
        "nan",
        "1 stepss",
        "1 st",
        "1 steps 2",
        "1,5 s",
        "9" * 400 + " s",
        "9" * 400,
        pytest.param(f"5{' ' * 10**6}!", id="blanks, of which each way to share them is tried"),
    ],
)
def test_what_is_no_interval_says_what_is_needed(text: str) -> None:
    with pytest.raises(InputError, match=r"checkpoint-every is .*such as 500, '1 epoch'"):
        interval(text)


@given(st.text("0123456789.-+ stepcondh", max_size=12))
def test_any_text_is_an_interval_above_0_or_a_mistake(text: str) -> None:
    try:
        number, unit = interval(text)
    except InputError:
        return
    assert 0 < number < float("inf")
    assert unit == "seconds" or number == int(number)


# ---- whole files


@given(st.lists(st.binary(max_size=50), max_size=8), st.binary(max_size=50))
def test_a_file_is_replaced_by_all_pieces(pieces: list[bytes], before: bytes) -> None:
    with temporary_folder() as folder:
        (folder / "file").write_bytes(before)
        replace_file(folder / "file", pieces)
        assert (folder / "file").read_bytes() == b"".join(pieces)
        assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_disk_that_takes_little_at_a_time_gets_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:1000]))
    content = os.urandom(3 * PIECE // 2)
    replace_file(tmp_path / "file", [content[:10], b"", memoryview(content)[10:]])
    assert (tmp_path / "file").read_bytes() == content


def test_pieces_that_end_in_an_error_leave_the_file_as_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")

    def pieces() -> "list[bytes]":
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "file", (piece for _ in "a" for piece in pieces()))
    assert (tmp_path / "file").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_a_person_asked_for_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there/file can't be written: No such file or directory"):
        write_whole(tmp_path / "there" / "file", b"")


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "\udcff" * 255):
        write_whole(tmp_path / name, b"whole")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


def test_two_processes_may_write_what_a_person_asked_for(tmp_path: Path) -> None:
    """The second one writes all of it while the first is at it: each is whole, the last is left."""
    path = tmp_path / "file"
    other = f"{write_whole.__module__} import write_whole; from pathlib import Path; write_whole("
    other = f"from {other}Path({str(path)!r}), b'two', shared=True)"

    def pieces() -> Iterator[bytes]:
        yield b"o"
        subprocess.run([sys.executable, "-c", other], check=True)
        assert path.read_bytes() == b"two"
        yield b"ne"

    write_whole(path, pieces(), shared=True)
    assert path.read_bytes() == b"one"
    assert [*tmp_path.iterdir()] == [path]


def test_on_macos_a_file_is_flushed_all_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system does not know how, as elsewhere."""
    asked: list[object] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, how: asked.append(how))
    monkeypatch.setattr(os, "fsync", lambda _: asked.append("fsync"))
    write_whole(tmp_path / "file", b"")
    assert asked == [51, 51]  # the file and its folder

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "unknown")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    write_whole(tmp_path / "file", b"")
    assert asked == [51, 51, "fsync", "fsync"]


def test_lines_that_have_no_end_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "TEXT", 10)
    (tmp_path / "lines").write_bytes(b"123456789\n\nhalf")
    assert [*lines_of(tmp_path / "lines")] == [b"123456789", b""]
    (tmp_path / "lines").write_bytes(b"1\n1234567890\n")
    with pytest.raises(InputError, match="a line of more than 10 bytes"):
        list(lines_of(tmp_path / "lines"))


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    held = lock(tmp_path / "file")
    assert held is not None
    assert lock(tmp_path / "file") is None
    os.close(held)
    again = lock(tmp_path / "file")
    assert again is not None
    os.close(again)


# ---- files of lines

LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=12)


@given(before=LINES, half=st.binary(max_size=9), keep=st.integers(0, 12), more=LINES)
def test_lines_are_kept_cut_and_added(
    before: list[bytes], half: bytes, keep: int, more: list[bytes]
) -> None:
    keep = min(keep, len(before))
    with temporary_folder() as folder:
        path = folder / "lines"
        path.write_bytes(b"".join(line + b"\n" for line in before) + half)
        journal = Journal(path, keep)
        for line in more:
            journal.append(line)
        assert path.read_bytes().count(b"\n") == keep
        assert journal.num_lines == keep + len(more)
        assert len(journal.waiting) == sum(len(line) + 1 for line in more)
        journal.flush()
        assert not journal.waiting
        journal.flush()
        journal.sync()
        journal.close()
        assert path.read_bytes() == b"".join(line + b"\n" for line in [*before[:keep], *more])


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=30), st.integers(0, 40) | st.none(), st.booleans()
        ),
        max_size=12,
    )
)
def test_a_disk_that_refuses_now_and_then_leaves_no_gap_and_no_half_line(
    tries: list[tuple[bytes, int | None, bool]],
) -> None:
    """Each try adds a line; the disk takes some bytes before it refuses, or takes all (None)."""
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        write, cut, expected = os.write, os.ftruncate, b""
        journal = Journal(folder / "lines")
        for line, taken, can_cut in tries:
            line = line.replace(b"\n", b"") + b"."
            expected += line + b"\n"
            journal.append(line)

            def refuse(file: int, content: bytes, taken: int | None = taken) -> int:
                if taken is None:
                    return write(file, content)
                write(file, content[:taken])
                raise OSError(errno.ENOSPC, "full")

            def no_cut(file: int, length: int, can_cut: bool = can_cut) -> None:
                if not can_cut:
                    raise OSError(errno.EIO, "lost")
                cut(file, length)

            patch.setattr(os, "write", refuse)
            patch.setattr(os, "ftruncate", no_cut)
            if taken is None:
                journal.flush()
            else:
                with pytest.raises(OSError, match="full"):
                    journal.flush()
            found = (folder / "lines").read_bytes()
            assert expected.startswith(found)
            assert not can_cut or found == b"" or found.endswith(b"\n")
            assert journal.num_lines == expected.count(b"\n")
        patch.undo()
        journal.flush()
        journal.close()
        assert (folder / "lines").read_bytes() == expected


def test_a_journal_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Journal(tmp_path / "there" / "lines")


# ---- files that another process takes away


def test_a_file_whose_name_is_gone_is_written_once_more(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    journal = Journal(path)
    journal.append(b"a" * PIECE)
    journal.append(b"b")
    journal.flush()
    whole = path.read_bytes()
    assert journal.keep_name()
    other = tmp_path / "other"
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: path.write_bytes(b"somebody's"),
        lambda: path.symlink_to(other),
        lambda: os.mkfifo(path),
    ]
    for change in changes:
        path.rename(other)
        change()
        assert not journal.keep_name()
        assert path.is_file()
        assert not path.is_symlink()
        assert path.read_bytes() == whole
        journal.append(b"c")
        journal.flush()
        whole += b"c\n"
        assert path.read_bytes() == whole
        assert journal.keep_name()
    journal.close()


def test_a_file_that_is_another_process_s_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    journal = Journal(path)
    path.unlink()
    path.write_bytes(b"theirs")
    held = lock(path)
    assert held is not None
    with pytest.raises(OSError, match="another process writes"):
        journal.keep_name()
    assert path.read_bytes() == b"theirs"
    os.close(held)
    journal.close()


@pytest.mark.parametrize("size", [0, 3, 7, 40])
def test_a_file_that_is_cut_gets_no_line_behind_a_hole(size: int, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    journal = Journal(path)
    for line in (b"one", b"two"):
        journal.append(line)
    journal.flush()
    os.truncate(path, size)
    left = path.read_bytes()
    journal.append(b"three")
    for attempt in (journal.flush, journal.check_size, journal.keep_name):
        with pytest.raises(OSError, match="another process has changed it"):
            attempt()
    assert path.read_bytes() == left
    journal.adopt()
    journal.flush()
    kept = left[: left.rfind(b"\n") + 1]
    assert path.read_bytes() == kept + b"three\n"
    assert journal.num_lines == kept.count(b"\n") + 1
    journal.close()


# ---- a run's directory


def test_a_directory_without_a_name_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dptrain.record.rundir.time.strftime", lambda _: "now")
    for name in ("now-x", "now-x-2", "now-x-3"):
        found = rundir.default_path("x")
        assert found == Path("runs") / name
        rundir.check_free(found)


def test_only_what_a_start_that_failed_has_left_may_be_in_a_new_directory(tmp_path: Path) -> None:
    (tmp_path / rundir.RECEIPT).touch()
    (tmp_path / ".config.toml.tmp").write_text("half")
    rundir.check_free(tmp_path)
    for name, content in ((rundir.RECEIPT, "{}"), ("other", ""), (rundir.METRICS, "")):
        run = tmp_path / name.partition(".")[0]
        run.mkdir()
        (run / name).write_text(content)
        with pytest.raises(InputError, match="exists and is not empty"):
            rundir.check_free(run)


def test_a_link_is_not_followed_where_a_run_s_file_should_be(tmp_path: Path) -> None:
    """Though it was none when the directory was looked at."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for opening in (lock, Journal):
        with pytest.raises(OSError, match="no plain file"):
            opening(tmp_path / "link")
    replace_file(tmp_path / "link", [b"new"])
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "receipt.jsonl"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_run_s_file_is_a_plain_file(name: str, kind: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "file").touch()
    make: dict[str, Callable[[Path], object]] = {
        "link": lambda path: path.symlink_to(tmp_path / "file"),
        "dangling": lambda path: path.symlink_to(tmp_path / "nothing"),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
    }
    make[kind](run / name)
    with pytest.raises(OSError, match="no plain file"):
        files.open_plain(run / name)
