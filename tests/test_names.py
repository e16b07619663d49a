"""Shows that whatever a file, a column or a class is called, it is read again as it was stored.

Commands run in this process, on runs that last a twentieth of a second.
"""

import csv
import functools
import gzip
import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Finished, Start
from hypothesis import given
from hypothesis import strategies as st
from tiny import ALONE, write_data

from dptrain import world as worlds
from dptrain.cli import main as cli
from dptrain.record.files import shortened
from dptrain.record.rundir import check_free, default_path, from_toml, read_config, toml
from dptrain.words import LONGEST, InputError, quoted, shown

NAMES = {
    "emoji": "📊 \U0001f468‍\U0001f469",
    "no UTF-8": "caf\udce9 \udcff\udc80e9",
    "DEL": "\x7f",
    "ESC and BEL": "\x1b]0;evil\x07\x1b[2J",
    "line breaks": "two\nlines\rand\u2028more\x85",
    "quotes": "'\"\\ \\u0041 #$(x)`x`!{{",
    "blanks": "  two blanks\t",
    "turned": "\u202egpj.exe",
    "255 bytes": "é" * 127 + "x",
    "an option": "--out",
}

QUICK = ("--epochs", "1", "--hidden", "2", "--quiet")
Call = Callable[..., Finished]


@pytest.fixture
def call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Run `dptrain ARGS` in this process, in an empty folder."""
    monkeypatch.setattr(worlds, "connect", functools.cache(lambda: ALONE))
    monkeypatch.setattr(os, "fsync", id)
    monkeypatch.chdir(tmp_path)

    def command(*args: str | Path, status: int = 0) -> Finished:
        monkeypatch.setattr(sys, "argv", ["dptrain", *map(str, args)])
        done = Finished(cli._run(), *capsys.readouterr())
        assert done.status == status, done
        if status == 2:
            (line,) = done.stderr.splitlines()
            assert line.startswith("dptrain: ")
            assert line.isprintable()
            assert done.stdout == ""
        return done

    return command


# ---- what a run stores


@pytest.mark.parametrize("kind", NAMES)
def test_a_run_on_files_of_any_name_is_read_by_every_command(
    kind: str, call: Call, tmp_path: Path
) -> None:
    name = NAMES[kind]
    folder, run = tmp_path / name, tmp_path / "out" / name
    folder.mkdir()
    data = write_data(folder / "data.npz")
    call("train", data, "--test-data", data, "--out", run, *QUICK)
    settings = tomllib.loads((run / "config.toml").read_text("utf-8"))  # anyone can read it
    assert settings.keys() == read_config(run).keys()
    assert read_config(run)["data"] == read_config(run)["test-data"] == [str(data)]
    assert json.loads((run / "summary.json").read_bytes())["run"] == str(run)
    assert call("evaluate", run, "--json").json["examples"] == 300
    assert call("verify", run, "--replay", "all", "--json").json["verdict"] == "identical"
    call("train", "--resume", run, "--epochs", "2", "--quiet")
    assert call("train", "--config", run / "config.toml", "--quiet", "--json").json["steps"] == 4
    longest = f"{shortened(name, 251)}.csv"
    call("predict", run, data, "--out", tmp_path / longest)
    call("plot", run, "--out", "a.svg")
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {name, "out", "runs", "a.svg", longest}


def test_tables_of_every_format_may_have_names_that_are_no_utf_8(
    call: Call, tmp_path: Path
) -> None:
    """pyarrow opens no such file by its name; what is in it is the same rows."""
    rows = [[i % 7, i * i % 5, "xy"[i % 2]] for i in range(60)]
    table = pa.table(dict(zip("abt", zip(*rows, strict=True), strict=True)))
    text = "a,b,t\n" + "".join(f"{a},{b},{t}\n" for a, b, t in rows)
    sinks = {kind: pa.BufferOutputStream() for kind in (".parquet", ".arrow", "2.arrow")}
    pq.write_table(table, sinks[".parquet"])
    for kind, make in ((".arrow", pa.ipc.new_file), ("2.arrow", pa.ipc.new_stream)):
        with make(sinks[kind], table.schema) as writer:
            writer.write_table(table)
    written = {kind: sink.getvalue() for kind, sink in sinks.items()}
    written |= {".csv": text.encode(), ".csv.gz": gzip.compress(text.encode())}
    found = set()
    for kind, content in written.items():
        file = tmp_path / f"caf\udce9{kind}"
        file.write_bytes(content)
        call("data", "show", file)
        call("train", file, "--target", "t", "--out", f"run{kind}", *QUICK)
        found.add(
            json.loads((tmp_path / f"run{kind}" / "summary.json").read_text())["params_sha256"]
        )
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["emoji", "ESC and BEL", "DEL", "quotes", "turned"])
def test_columns_of_any_name(kind: str, call: Call, tmp_path: Path) -> None:
    names = [NAMES[kind], f"the {NAMES[kind]}"]
    rows = np.random.default_rng(0).random((40, 2)).round(3)
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows.tolist()])
    call("train", "a.csv", "--target", names[1], "--out", "run", *QUICK)
    assert read_config(tmp_path / "run")["target"] == [names[1]]
    assert call("evaluate", "run", "a.csv", "--json").json["examples"] == 40
    assert call("verify", "run", "--replay", "all", "--json").json["verdict"] == "identical"
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    said = call("predict", "run", "b.csv", status=2).stderr
    assert "has no column" in said


def test_classes_of_any_name(call: Call, tmp_path: Path) -> None:
    names = sorted({*NAMES.values(), "a,b", "\r", "x" * 3000} - {NAMES["no UTF-8"]})
    x = np.eye(len(names)).repeat(5, axis=0)
    np.savez(tmp_path / "d.npz", x=x, y=np.repeat(names, 5))
    args = ("--epochs", "60", "--learning-rate", "0.1", "--hidden", "none", "--quiet")
    call("train", "d.npz", "--out", "run", *args)
    np.save(tmp_path / "x.npy", np.eye(len(names)))
    printed = call("predict", "run", "x.npy").stdout
    call("predict", "run", "x.npy", "--out", "p.csv")
    for text in (printed, (tmp_path / "p.csv").read_bytes().decode()):
        found = [row for (row,) in csv.reader(io.StringIO(text, newline=""))]
        assert found == ["prediction", *names]
    call("predict", "run", "x.npy", "--out", "p.npy")
    assert np.load(tmp_path / "p.npy").tolist() == names
    text = call("evaluate", "run", "d.npz").stdout
    assert all(line.isprintable() for line in text.splitlines())
    assert shown(NAMES["ESC and BEL"]) in text


def test_classes_that_are_no_text_are_refused_at_the_start(call: Call, tmp_path: Path) -> None:
    y = np.array(["a", "\ud800"] * 20)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((40, 2)), y=y)
    assert "\\ud800" in call("train", "d.npz", "--out", "run", status=2).stderr
    assert not (tmp_path / "run").exists()


ANY = st.text(st.characters(exclude_categories=()))


@given(st.lists(ANY | st.text("\0e9\udce9\\", max_size=5)))
def test_any_texts_are_read_again_as_they_were_or_refused(texts: list[str]) -> None:
    try:
        content = toml({"data": texts, "out": "".join(texts)}, "".join(texts))
    except InputError:
        wrong = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
        assert any(wrong.search(text) for text in texts)
        return
    assert from_toml(content) == {"data": texts, "out": "".join(texts)}
    assert content.startswith(b"# ")
    tomllib.loads(content.decode())


# ---- the name of a run


def test_a_run_that_is_not_named_takes_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of processes that start at once each gets one; here of threads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    assert [default_path("d") for _ in range(3)] == [
        Path("runs/now-d"), Path("runs/now-d-2"), Path("runs/now-d-3")
    ]  # fmt: skip
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.extend(default_path("e") for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*found}) == 80


@pytest.mark.parametrize("name", ["x" * 251, "é" * 125, "📊" * 62, "\udcff" * 251])
def test_a_name_that_is_too_long_for_a_run_is_cut(name: str, call: Call, tmp_path: Path) -> None:
    write_data(tmp_path / "d.npz").rename(tmp_path / f"{name}.npz")
    run = Path(call("train", f"{name}.npz", *QUICK, "--json").json["run"])
    assert run.is_dir()
    assert f"-{name[:20]}" in run.name


def test_a_mistake_leaves_no_run_directory(call: Call, tmp_path: Path) -> None:
    call("train", "--patience", "3", status=2)
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "runs").symlink_to("nowhere")
    assert "runs" in call("train", *QUICK, status=2).stderr


def test_places_where_no_run_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("x" * 300, tmp_path / ("x" * 300) / "run", "a\0b"):
        with pytest.raises(InputError, match="can't be written"):
            check_free(Path(path))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InputError, match="can't be written: Permission denied"):
        check_free(tmp_path / "run")


def test_only_what_a_start_has_left_is_taken_for_nothing(tmp_path: Path) -> None:
    (tmp_path / ".config.toml.tmp").touch()
    (tmp_path / "receipt.jsonl").touch()
    check_free(tmp_path)
    (tmp_path / "mine.tmp").touch()
    with pytest.raises(InputError, match="is not empty"):
        check_free(tmp_path)


LONG = "x" * 300


@pytest.mark.parametrize(
    "line",
    [
        f"train --out {LONG}",
        f"train --resume {LONG}",
        f"train --config {LONG}",
        f"train {LONG}.npz",
        f"verify {LONG}",
        f"evaluate {LONG}",
        f"predict {LONG} d.npz",
        f"predict {LONG} d.npz --out {LONG}.csv",
        f"plot {LONG}",
        f"plot run --out {LONG}.png",
        f"plot run --out {LONG}/a.png",
        f"explain --html {LONG}",
        LONG,
    ],
    ids=lambda line: line.replace(LONG, "LONG"),
)
def test_names_that_are_too_long_give_one_message(line: str, call: Call) -> None:
    call(*line.split(), status=2)


def test_no_permission_to_write_is_said_before_the_work(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    write_data(tmp_path / "d.npz")
    for line in ("predict run d.npz --out a.csv", "explain --html a.html", "plot run --out a.png"):
        assert "no permission to write" in call(*line.split(), status=2).stderr


# ---- variables


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"DATA": "my data.csv", "TARGET": "Sale Price"}, ["Sale Price"]),
        ({"DATA": '["my data.csv"]', "TARGET": "['Sale Price', \"[x]\"]"}, ["Sale Price", "[x]"]),
        ({"DATA": "my data.csv", "TARGET": "[x]"}, ["[x]"]),
        ({"DATA": "my data.csv", "TARGET": " two\tblanks "}, [" two\tblanks "]),
    ],
)
def test_a_variable_is_one_name_or_a_list_as_in_a_file(
    variables: Mapping[str, str], found: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "Sale Price", "[x]", *(found if found[0].startswith(" ") else [])]
    rows = np.random.default_rng(0).random((40, len(names)))
    with Path("my data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows.tolist()])
    for name, value in variables.items():
        monkeypatch.setenv(f"DPTRAIN_{name}", value)
    if found[0].startswith(" "):  # a header's names have no blanks around them
        assert "no column ' two\\tblanks '" in call("train", *QUICK, status=2).stderr
        return
    run = call("train", *QUICK, "--json").json["run"]
    assert read_config(Path(run))["target"] == found


def test_two_files_in_a_variable(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    np.save("x 1.npy", rng.random((40, 2)))
    np.save("y 1.npy", rng.integers(0, 2, 40))
    monkeypatch.setenv("DPTRAIN_DATA", '["x 1.npy", "y 1.npy"]')
    call("train", *QUICK)


def test_a_variable_that_is_no_setting_is_named_once_and_does_nothing(dptrain: Start) -> None:
    names = ("VERSION", "HELP", "TRAIN_HELP", "BATHC_SIZE", "\x1b[2J")
    env = {f"DPTRAIN_{name}": "1" for name in names} | {"DPTRAIN_BATCH_SIZE": "100"}
    done = dptrain("train", "--steps", "1", "--quiet", "--json", env=env, ranks=2)
    assert done.json["steps"] == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(names)
    assert all(line.startswith("dptrain: warning: DPTRAIN_") for line in lines)
    assert "DPTRAIN_BATHC_SIZE is no setting; did you mean DPTRAIN_BATCH_SIZE?" in done.stderr
    assert "\x1b" not in done.stderr


def test_every_option_of_every_command_has_a_variable() -> None:
    for command in (cli.command.get_command(None, name) for name in cli.COMMANDS):
        for param in command.params:
            assert param.envvar or param.param_type_name == "argument", (command.name, param.name)


# ---- files of settings


@pytest.mark.parametrize(
    "content",
    [
        "epochs = " + "9" * 5000,
        "epochs = 0x" + "f" * 5000,
        "out = {a = 0x" + "f" * 5000 + "}",
        "epochs = " + "[" * 5000,
        "epochs = " + "[" * 5000 + "]" * 5000,
        "learning-rate = 1" + "0" * 400,
        "learning-rate = 1e400",
        "learning-rate = []",
        "noise-scale = []",
        "quiet = 'yes'",
        "json = 1",
        'out = "a\\u0000b"',
        "out = ['a']",
        "out = true",
        "out = 1979-05-27",
        "data = [1]",
        "data = [['a']]",
        "data = {}",
        "data = 5",
        "target = [true]",
        "hidden = {}",
        "hidden = [[1]]",
        "hidden = true",
        "checkpoint-every = []",
        "optimizer = 07:32:00",
        'optimizer = "\\u001b[2J"',
        '"\\u001b[2J\\u0007\\n" = 1',
        "version = true",
        "help = true",
        "a" + ".a" * 20_000 + " = 1",
        "[" + "a." * 5000 + "a]\n" + "".join(f"a{n} = 1\n" for n in range(5000)),
        "x = {" + "a." * 100_000 + "a = 1}",
        "#" + "x" * 2**20,
        "\x1b = 1",
        "data = 'a\x1bb'",
        "b = '''\n" + "x" * 3000 + "'''",
    ],
    ids=lambda content: ascii(content[:20]),
)
def test_settings_that_none_can_have_give_one_message(
    content: str, call: Call, tmp_path: Path
) -> None:
    """In a file that a person names, and in a run that may be a stranger's."""
    (tmp_path / "a.toml").write_text(content, "utf-8")
    said = call("train", "--config", "a.toml", status=2).stderr
    assert len(said) < LONGEST + 100
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(content, "utf-8")
    call("train", "--resume", "run", status=2)


def test_files_are_utf_8_whatever_the_locale(dptrain: Start, tmp_path: Path) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    write_data(tmp_path / "café.npz")
    (tmp_path / "é.toml").write_text("# é\ndata = 'café.npz'\nout = 'é'\nepochs = 1\n", "utf-8")
    train = ("train", "--quiet", "--hidden", "2")
    assert dptrain(*train, "--config", "é.toml", env=ascii_only).status == 0
    assert read_config(tmp_path / "é")["data"] == [str(tmp_path / "café.npz")]
    assert dptrain("verify", "é", "--replay", "all", "--json").json["verdict"] == "identical"
    assert dptrain("evaluate", "é", "café.npz", "--json", env=ascii_only).json["examples"] == 300
    (tmp_path / "g.csv").write_text("a,größe\n" + "1,2\n2,3.5\n" * 9, "utf-8")
    done = dptrain(*train, "g.csv", "--target", "größe", "--out", "g", env=ascii_only)
    assert done.status == 0, done.stderr
    assert read_config(tmp_path / "g")["target"] == ["größe"]


# ---- how names are shown


@given(ANY)
def test_what_is_shown_is_on_one_line_and_shown_twice_the_same(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(shown(text)) == shown(text)
    assert str(InputError(text)) == shown(text)
    if text.isprintable():
        assert shown(text) == text


def test_what_is_too_long_is_cut() -> None:
    assert len(shown("x" * 10**6)) <= LONGEST
    assert shown("a" + "x" * 10**6 + "b").startswith("ax")
    assert shown("a" + "x" * 10**6 + "b").endswith("xb")


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_in_a_hint_can_be_typed(kind: str) -> None:
    name = NAMES[kind] + "1"
    typed = quoted(name)
    assert typed.isprintable()
    if name.isprintable():
        assert typed == shlex.quote(name)
    done = subprocess.run(
        ["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout == os.fsencode(name)


def test_hints_are_quoted(call: Call, tmp_path: Path) -> None:
    for name in ("my run", "two\nlines"):
        call("train", "--out", name, *QUICK)
        said = call("train", "--out", name, *QUICK, status=2).stderr
        assert f"to go on with the run in it: --resume {quoted(name)}\n" in said
        (tmp_path / name / "file").touch()
        said = call(f"{name}/file", status=2).stderr
        assert said.endswith(f"to train on a file: dptrain train {quoted(f'{name}/file')}\n")
