"""Shows that a converted data set is the data it was made of, on any number of ranks, and whole."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Start, start

import dptrain
from dptrain import DataConfig, InputError, ModelConfig, TrainConfig, World
from dptrain.cli.commands.data import _text
from dptrain.data import delimited
from dptrain.data.delimited import Parser
from dptrain.data.read import read
from dptrain.data.roles import Roles
from dptrain.data.show import look
from dptrain.record.files import lock
from dptrain.run import cache
from dptrain.run import convert as converting
from dptrain.run.convert import convert

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
ALONE = World()
NUM = 5000
TARGET = DataConfig(target=("label",))


def silent(done: int, parts: int) -> None:
    """Say nothing of how far it is."""


def write_csv(path: Path) -> None:
    """Write a table with a gap, words, dates, yes and no, and labels that are no numbers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((NUM, 2)).round(3)
    lines = ["a,b,colour,day,ok,who,label"]
    for n, (a, b) in enumerate(x):
        colour = ("red", "green", "blue")[n * 7 % 3]
        gap = "" if n % 9 == 0 else b
        day, ok = f"2026-{1 + n % 12:02d}-{1 + n % 28:02d}", ("yes", "no")[n % 2]
        lines.append(f"{a},{gap},{colour},{day},{ok},n{n},0{int(a > 0)}")
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert")
    write_csv(folder / "t.csv")
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((NUM, 4, 3)).astype(">f4"), rng.integers(0, 3, NUM)
    np.savez(folder / "a.npz", x=x, y=y)
    np.save(folder / "x.npy", np.asfortranarray(x))
    np.save(folder / "y.npy", y)
    convert([str(folder / "t.csv")], folder / "table", TARGET, ALONE, silent)
    convert([str(folder / "a.npz")], folder / "arrays", DataConfig(), ALONE, silent)
    return folder


def trained(data: Any, config: DataConfig) -> str:
    """Return what decides the bytes of a run, and what it came to."""
    loaded = dptrain.load(data, config, world=ALONE)
    model = dptrain.mlp_for(loaded, ModelConfig(hidden=(5,)))
    run = dptrain.fit(model, loaded, TrainConfig(epochs=1), world=ALONE)
    return str(run.summary.params_sha256)


def test_a_column_may_be_the_weight_here_or_there(made: Path) -> None:
    weighted = replace(TARGET, weight="w")
    lines = (made / "t.csv").read_text().splitlines()
    rows = [f"{line},{1 + n % 4}" for n, line in enumerate(lines[1:])]
    (made / "w.csv").write_text("\n".join([f"{lines[0]},w", *rows]))
    convert([str(made / "w.csv")], made / "weighted", weighted, ALONE, silent)
    convert([str(made / "w.csv")], made / "plain", TARGET, ALONE, silent)
    found = {trained(str(made / name), weighted) for name in ("w.csv", "weighted", "plain")}
    found |= {trained(str(made / "weighted"), DataConfig())}
    assert len(found) == 1
    assert found.isdisjoint({trained(str(made / "plain"), DataConfig())})


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_it_trains_to_the_bytes_of_its_source(made: Path, validation: float) -> None:
    table = DataConfig(target=("label",), validation=validation)
    found = {trained(str(made / name), table) for name in ("t.csv", "table")}
    assert len(found) == 1
    arrays = DataConfig(validation=validation)
    pair = [str(made / "x.npy"), str(made / "y.npy")]
    found |= {trained(data, arrays) for data in (str(made / "a.npz"), pair, str(made / "arrays"))}
    assert len(found) == 2


def test_labels_are_kept_as_they_are_written_and_rows_are_mapped(made: Path) -> None:
    table, _ = read((str(made / "table"),), Roles(), ALONE, lambda _: (memoryview(b""), False))
    assert table.targets[0].words == ["00", "01"]
    assert [column.name for column in table.columns] == ["a", "b", "colour", "day", "ok"]
    assert all(isinstance(c.values, np.memmap) for c in table.every())


def sha256(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_the_manifest_says_what_the_parts_hold(made: Path) -> None:
    manifest = json.loads((made / "arrays" / "manifest.json").read_text())
    found = np.load(made / "arrays" / "0.npy")
    assert manifest["arrays"][0]["sha256"] == [hashlib.sha256(found.tobytes()).hexdigest()]
    about = manifest["columns"][0]["statistics"]
    assert (about["low"], about["high"]) == (found.min(), found.max())
    assert about["mean"] == pytest.approx(found.astype(float).mean(), rel=1e-12)


class Ended(Exception):  # noqa: N818 (no error)
    """What ends a conversion in the middle."""


def test_it_goes_on_where_it_was_ended(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting, "PART", 1)  # a part is a block
    monkeypatch.setattr(converting, "usable_cores", lambda: {0})  # and one is written at a time
    source = [str(made / "a.npz")]
    convert(source, tmp_path / "whole", DataConfig(), ALONE, silent)
    told: list[int] = []

    def ends(done: int, _: int) -> None:
        told.append(done)
        if done == 3:
            raise Ended

    with pytest.raises(Ended):
        convert(source, tmp_path / "ended", DataConfig(), ALONE, ends)
    with pytest.raises(InputError, match="is not converted yet"):
        dptrain.load(str(tmp_path / "ended"), world=ALONE)
    with (tmp_path / "ended" / "unfinished.jsonl").open("ab") as file:
        file.write(b'[3, ["half a li')
    with pytest.raises(InputError, match="was begun from other rows"):
        convert([str(made / "t.csv")], tmp_path / "ended", TARGET, ALONE, silent)
    other = lock(tmp_path / "ended" / "unfinished.jsonl")
    assert other is not None
    with pytest.raises(InputError, match="another process converts"):
        convert(source, tmp_path / "ended", DataConfig(), ALONE, silent)
    os.close(other)
    (tmp_path / "ended" / "rows-0-other").mkdir()
    (tmp_path / "ended" / "rows-0-other" / "0-0").write_bytes(b"of one that was killed")
    told.clear()
    convert(source, tmp_path / "ended", DataConfig(), ALONE, lambda done, _: told.append(done))
    assert told == [4, 5]
    assert sha256(tmp_path / "ended") == sha256(tmp_path / "whole")
    with pytest.raises(InputError, match="is converted already"):
        convert(source, tmp_path / "ended", DataConfig(), ALONE, silent)


def test_what_another_process_has_just_converted_stays_as_it_is(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between this one's first look at the directory and its lock."""
    source = [str(made / "t.csv")]

    def later(path: Path) -> int | None:
        monkeypatch.setattr(converting, "lock", lock)
        convert(source, tmp_path / "out", TARGET, ALONE, silent)
        return lock(path)

    monkeypatch.setattr(converting, "lock", later)
    with pytest.raises(InputError, match="is converted already"):
        convert(source, tmp_path / "out", TARGET, ALONE, silent)
    assert not (tmp_path / "out" / "unfinished.jsonl").exists()
    assert len(dptrain.load(str(tmp_path / "out"), world=ALONE).train) > 0


def test_a_table_is_read_on_where_that_was_ended(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "PIECE", 2**13)
    monkeypatch.setattr(delimited, "OF_A_COLUMN", 0)
    lines = (made / "t.csv").read_text().splitlines()
    lines[200] += ".5"  # whose label is no whole number: all is read anew from there
    (tmp_path / "t.csv").write_text("\n".join(lines))
    source, parsed, parse = [str(tmp_path / "t.csv")], list[int](), Parser._parsed

    def counted(*args: Any) -> Any:
        parsed.append(1)
        return parse(*args)

    monkeypatch.setattr(Parser, "_parsed", counted)
    convert(source, tmp_path / "whole", TARGET, ALONE, silent)
    every = len(parsed)

    def ends(done: int, parts: int) -> None:
        if done > NUM / 2 and not parts:
            raise Ended

    with pytest.raises(Ended):
        convert(source, tmp_path / "ended", TARGET, ALONE, ends)
    [kept] = (tmp_path / "ended").glob("rows-0-*")
    half, other = sorted((kept / "2").iterdir())[:2]
    half.write_bytes(half.read_bytes()[:-8])
    other.write_bytes(bytes(other.stat().st_size))  # as after a power cut
    parsed.clear()
    convert(source, tmp_path / "ended", TARGET, ALONE, silent)
    assert 2 <= len(parsed) < every * 2 / 3
    assert sha256(tmp_path / "ended") == sha256(tmp_path / "whole")
    with pytest.raises(Ended):
        convert(source, tmp_path / "mended", TARGET, ALONE, ends)
    (tmp_path / "t.csv").write_text("\n".join(lines[:-1]))  # other rows: none of it counts
    convert(source, tmp_path / "mended", TARGET, ALONE, silent)
    assert json.loads((tmp_path / "mended" / "manifest.json").read_text())["rows"] == NUM - 1
    assert not [*(tmp_path / "mended").glob("rows-*")]


def test_three_ranks_write_what_one_writes(made: Path) -> None:
    script = Path(__file__).parent / "cases.py"
    for ranks in (1, 3):
        done = start("python", script, "converts", str(ranks), ranks=ranks, cwd=made, timeout=60)
        assert done.status == 0, done.stderr
    assert sha256(made / "by 1") == sha256(made / "by 3")
    assert len(json.loads((made / "by 1" / "manifest.json").read_text())["arrays"][0]["sha256"]) > 3


def test_a_large_table_is_converted_once_and_found_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = tmp_path / "t.csv"
    table.write_bytes((made / "t.csv").read_bytes())

    def told_of(config: DataConfig = TARGET) -> tuple[str, str]:
        found = trained(str(table), config)
        return found, capfd.readouterr().err

    plain, told = told_of()
    assert told == ""
    notes = dptrain.load(str(table), TARGET, world=ALONE).told
    monkeypatch.setattr(cache, "LARGE", 1000)
    first, told = told_of()
    [kept] = (tmp_path / "cache" / "dptrain").iterdir()
    assert f"of tables are converted, once for all, to {kept}\n" in told
    again, told = told_of()
    assert f"read as it was converted: 0.00017 GB in {kept}\n" in told
    assert "once" not in told
    assert {first, again} == {plain}
    assert dptrain.load(str(table), TARGET, world=ALONE).told == notes

    table.write_text(table.read_text() + "\n1,2,red,2026-01-01,no,n,00")  # another table now
    other, told = told_of()
    assert "once" in told
    assert other != plain
    mine = kept.parent / "mine"  # which dptrain has not made
    mine.mkdir()
    month = time.time() - 31 * 86400
    for path in (kept, mine):
        os.utime(path, (month, month))
    [new] = {*kept.parent.iterdir()} - {kept, mine}
    os.utime(new, (month, month))
    told_of()  # is to read it
    dropped, told = told_of(replace(TARGET, drop=("a",)))  # as are other columns
    assert "once" in told
    assert f"removed, as it was not read for 31 days: 0.00017 GB in {kept}\n" in told
    assert (kept.exists(), mine.exists(), new.exists()) == (False, True, True)
    monkeypatch.setattr(cache, "LARGE", 10**9)
    assert (other, dropped) == (told_of()[0], told_of(replace(TARGET, drop=("a",)))[0])
    monkeypatch.setattr(cache, "LARGE", 1000)
    for path in kept.parent.glob("*/0.npy"):  # whatever becomes of what is kept
        path.write_bytes(path.read_bytes()[:-1])
    broken, told = told_of()
    assert broken == other
    assert "is damaged; so the tables are read without being kept" in told
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "busy"))
    with monkeypatch.context() as busy:
        busy.setattr(converting, "lock", lambda _: None)
        waited, told = told_of()
    assert waited == other
    assert "another process converts to" in told
    assert "; wait for it" not in told
    monkeypatch.setenv("XDG_CACHE_HOME", str(table))
    refused, told = told_of()
    assert refused == other
    assert "can't be written: Not a directory" in told
    assert "converted" not in told
    assert "read without being kept" in told


def test_a_packed_parquet_file_is_as_large_as_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few: dict[str, list[float]] = {"a": [0.5, 1.5], "b": [3.0, 2.0], "label": [0, 1]}
    parquet.write_table(pa.table({k: v * 2000 for k, v in few.items()}), tmp_path / "t.parquet")
    plain = trained(str(tmp_path / "t.parquet"), TARGET)
    monkeypatch.setattr(cache, "LARGE", 8 * 3 * 4000)
    assert (tmp_path / "t.parquet").stat().st_size < cache.LARGE / 10
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
        assert trained(str(tmp_path / "t.parquet"), TARGET) == plain
        assert "has no room for twice 9.6e-05 GB; so the tables are" in capfd.readouterr().err
    assert trained(str(tmp_path / "t.parquet"), TARGET) == plain
    assert "of tables are converted, once for all, to" in capfd.readouterr().err


def test_the_cache_goes_on_where_it_was_ended(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(converting, "PART", 1)
    monkeypatch.setattr(converting, "usable_cores", lambda: {0})
    plain = trained(str(made / "t.csv"), TARGET)
    monkeypatch.setattr(cache, "LARGE", 1000)
    written, write = list[int](), converting._write

    def ends(out: Path, plan: Any, number: int) -> Any:
        if len(written) == 3:
            raise Ended
        written.append(number)
        return write(out, plan, number)

    monkeypatch.setattr(converting, "_write", ends)
    with pytest.raises(Ended):
        dptrain.load(str(made / "t.csv"), TARGET, world=ALONE)
    assert written == [0, 1, 2]
    written.clear()
    assert trained(str(made / "t.csv"), TARGET) == plain
    assert written == [3, 4]


def test_a_table_that_changes_while_it_is_converted_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LARGE", 1000)
    table = tmp_path / "t.csv"
    table.write_bytes((made / "t.csv").read_bytes())

    def changing(*args: Any) -> None:
        convert(*args)
        os.utime(table, (1, 1))

    monkeypatch.setattr(converting, "convert", changing)
    with pytest.raises(InputError, match="has changed while it was read"):
        dptrain.load(str(table), TARGET, world=ALONE)


BROKEN = {
    "format": 4,
    "arrays": [{"file": "../x.npy", "shape": [NUM, 4, 3], "dtype": "<f4", "sha256": [""]}],
    "columns": [{"name": "x", "role": "input", "kind": "words", "array": 0, "number": None}],
    "facts": {"sha256": "", "finite": True, "standard": 3},
}


@pytest.mark.parametrize("key", BROKEN)
def test_a_manifest_may_be_a_strangers(key: str, made: Path, tmp_path: Path) -> None:
    for path in (made / "arrays").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {key: BROKEN[key]}))
    with pytest.raises(InputError, match=r"manifest\.json (is of format|does not hold what)"):
        dptrain.load(str(tmp_path), world=ALONE)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    raw = bytearray((tmp_path / "0.npy").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "0.npy").write_bytes(raw)
    with pytest.raises(InputError, match=r"0\.npy is damaged: part 0"):
        dptrain.load(str(tmp_path), world=ALONE)
    (tmp_path / "0.npy").write_bytes((tmp_path / "1.npy").read_bytes())
    with pytest.raises(InputError, match="the manifest says"):
        dptrain.load(str(tmp_path), world=ALONE)


def test_a_strangers_manifest_that_tells_of_other_columns_is_refused(
    made: Path, tmp_path: Path
) -> None:
    for path in (made / "table").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / "manifest.json").read_text()
    words = next(n for n, one in enumerate(json.loads(text)["columns"]) if "words" in one)
    changes: list[tuple[str, Any]] = [
        ("role", "no"), ("array", -1), ("array", True), ("number", -1), ("number", None),
        ("words", []), ("words", ["0.npy", "0.npy"]), ("kind", "date"), ("kind", "numbers "),
    ]  # fmt: skip
    for key, value in changes:
        manifest = json.loads(text)
        manifest["columns"][words][key] = value
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=r"manifest\.json does not hold what it should"):
            dptrain.load(str(tmp_path), TARGET, world=ALONE)
    (tmp_path / "manifest.json").write_text(json.dumps(json.loads(text) | {"named": 1}))
    with pytest.raises(InputError, match="columns have no names"):
        dptrain.load(str(tmp_path), TARGET, world=ALONE)


def test_a_flag_is_no_label_unless_it_was_converted_as_one(made: Path) -> None:
    with pytest.raises(InputError, match="convert it with --target 'ok'"):
        dptrain.load(str(made / "table"), DataConfig(target=("ok",)), world=ALONE)


def test_show_says_what_is_there(made: Path, tmp_path: Path) -> None:
    lines = (made / "t.csv").read_text().splitlines()
    odd = [f"{line},{'x' if n < NUM - 3 else 'y'}" for n, line in enumerate(lines[1:])]
    (tmp_path / "odd.csv").write_text("\n".join([f"{lines[0]},rare", *odd]))
    table, _ = read(
        (str(tmp_path / "odd.csv"),),
        Roles(target=("rare",), new=True),
        ALONE,
        lambda _: (memoryview(b""), False),
    )
    found = look(table, ALONE)
    by_name = {one["name"]: one for one in found["columns"]}
    assert found["rows"] == NUM
    assert by_name["b"]["gaps"] == -(-NUM // 9)
    assert by_name["colour"]["different"] == 3
    assert (by_name["day"]["low"], by_name["ok"]["high"]) == ("2026-01-01T00:00:00", "yes")
    assert found["balance"] == {"x": NUM - 3, "y": 3}
    assert any("5,000 texts are all different" in note for note in found["notes"])
    assert "of the target 'y' there are 3 rows of 5,000 only" in found["notes"]
    text = _text(found)
    assert "target: x 99.9%, y 0.1%" in text
    assert "2026-02-02T00:00:00" in text


def test_the_command_shows_and_converts(quick: Start, made: Path) -> None:
    found = quick("data", "show", made / "t.csv", "--target", "label", "--json", ranks=2).json
    assert found == quick("data", "show", made / "t.csv", "--target", "label", "--json").json
    (made / "dates.csv").write_text("a,y\n1,2013-01-05\n2,2013-02-05\n")
    line = ("data", "convert", made / "dates.csv", "dates", "--target", "y")
    assert "is it a date" in quick(*line).stderr  # and the option that it names is there
    assert quick(*line, "--task", "classification").status == 0
    done = quick("data", "convert", made / "a.npz", "out", ranks=2)
    assert "part 1/1" in done.stderr
    assert quick("train", "out", "--epochs", "1", "--json").json["steps"] == 20
