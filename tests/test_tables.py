"""Tables as people have them: what is understood, what is refused, with the line at fault."""

import bz2
import csv
import errno
import gc
import gzip
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from tiny import metrics_of

import dptrain
from dptrain import Data, DataConfig, InputError, TrainConfig
from dptrain.data import arrow, delimited, keep
from dptrain.data.arrow import read_text
from dptrain.data.keep import Pieces, Spool, own, share
from dptrain.data.roles import Roles
from dptrain.data.table import Stacked
from dptrain.record.rundir import RECEIPT
from dptrain.run.rows import as_rows

ALONE = dptrain.World()
Y = DataConfig(target=("y",))
LABELS = DataConfig(target=("y",), task="classification")


def load(folder: Path, text: str | bytes, config: DataConfig = Y, name: str = "d.csv") -> Data:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return dptrain.load(path, config, world=ALONE)


def column(*cells: object) -> str:
    """Return a table of two columns, a that differs from row to row, and y."""
    return "a,y\n" + "".join(f"{row},{cell}\n" for row, cell in enumerate(cells))


REFUSED: dict[str, tuple[str | bytes, DataConfig, str]] = {
    "a quote never closed": ('a,y\n1,p\n2,"q\n3,p\n4,q\n', Y, "line 3 opens a quote"),
    "behind blank lines": ('\na,y\n\n1,p\n2,"q\n3,p\n4,q\n', Y, "line 5 opens a quote"),
    "in the last row": ('a,y\n1,p\n2,"q', Y, "line 3 opens a quote"),
    "with other columns": ('a;b;y\n1;2;p\n2;"3;q\n3;3;p\n', Y, "line 3 opens a quote"),
    "in a first column": ('a,y\n1,0\n"2,1\n' + "3,0\n" * 40_000, Y, "line 3 opens a quote"),
    "in the header": ('a,"b,y\n' + "1,2,0\n" * 30_000, Y, "line 1 opens a quote"),
    "an empty target": ("a,y\n1,0\n2,1\n3,\n", Y, "line 4 has '' in column 'y'"),
    "an empty value": ("a,y\n1,10.5\n2,11\n3,\n", Y, "line 4 has '' in column 'y'"),
    "a target NA": ("a,y\n1,10.5\n2,11\n3,NA\n", Y, "line 4 has 'NA' in column 'y'"),
    "a name among targets": ("a,y\n1,p\n2,N/A\n3,q\n", Y, "line 3 has 'N/A' in column 'y'"),
    "money": ('a,y\n1,"$1,200.00"\n2,"$900.00"\n', Y, r"line 2 has '\$1,200.00'.*is it a number"),
    "thousands": ('a,y\n1,"1,200"\n2,"1,900"\n', Y, r"line 2 has '1,200'"),
    "thousands with a point": ("a;y\n1.200;1.5\n900;2\n15.000;3\n", Y, "line 2 has '1.200'.*betw"),
    "thousands far behind": (
        "a,y\n" + "".join(f"{n},{n}.5\n" for n in range(300)) + "1.200,1\n", Y,
        "line 302 has '1.200' in column 'a'.*thousands"
    ),
    "to predict, far behind": (
        "a,y\n" + "".join(f"{n}.5,{n}\n" for n in range(300)) + "1,1.000\n", Y,
        "line 302 has '1.000' in column 'y'.*thousands"
    ),
    "to predict": ("a;y\n1;900\n2;1.200\n3;15.000\n", Y, "line 3 has '1.200'.*--decimal \\."),
    "a point beside commas": (
        "a;y\n1.200;1\n900,5;2\n", replace(Y, decimal=","), "line 2 has '1.200'.*as 1200,5"
    ),
    "commas asked for, a point to predict": (
        "a;y\n1;1.5\n2;2,5\n", replace(Y, decimal=","), "line 2 has '1.5'.*as 1200,5"
    ),
    "digits of another script": (
        "a,y\n\u0661,1.5\n\u0662,2.5\n", Y, "line 2 has '\u0661' in column 'a'; .*like a number"
    ),
    "apostrophes as typed": ("a,y\n1\u2019200,1.5\n9,1\n", Y, "line 2 has '1\u2019200'"),
    "a delimiter that is none": ("sep=é\naéy\n1é2\n", Y, "first line is 'sep=é', in which no"),
    "percents": ("a,y\n5%,1.5\n6%,2.5\n7%,1\n", Y, "line 2 has '5%' in column 'a'"),
    "prices": ('a,y\n"$1,200",1.5\n$900,2.5\n$70,1\n', Y, r"line 2 has '\$1,200' in column 'a'"),
    "prices behind a gap": ("a,y\n,1.5\n$9,2.5\n$7,1\n", Y, r"line 3 has '\$9' in column 'a'"),
    "debts": ("a,y\n\u2212$5,1.5\n\u2212$6,2.5\n", Y, "line 2 has '\u2212\\$5' in column 'a'"),
    "a sign behind": ("a,y\n5-,1.5\n6-,2.5\n", Y, "line 2 has '5-' in column 'a'"),
    "in brackets": ("a,y\n(5),1.5\n(6),2.5\n", Y, r"line 2 has '\(5\)' in column 'a'"),
    "weights": (
        "a,y\n1.2,1\n1 kg,2.5\n" + "".join(f"{n} kg,{n}.5\n" for n in range(2, 7)), Y,
        "line 3 has '1 kg' in column 'a'; which looks like a number with a unit: leave 'kg' out",
    ),
    "sizes": (
        "a,y\n" + "".join(f"{n}GB,{n}.5\n" for n in (1, 2, 4, 8, 16)), Y, "line 2 has '1GB'.*'GB'"
    ),
    "mixed units": (
        "a,y\n" + "".join(f"{n} {u},{n}.5\n" for n in (1, 2) for u in ("kg", "lb", "g")), Y,
        "line 2 has '1 kg' in column 'a'; which looks like a number with a unit",
    ),
    "a currency in front": ("a,y\nUSD 5,1.5\nUSD 6,2.5\nUSD 7,1\n", Y, "2 has 'USD 5'.* like a"),
    "another behind": ("a,y\n5 EUR,1.5\n6 EUR,2.5\n7 EUR,1\n", Y, "2 has '5 EUR'.* like a number"),
    "lengths to predict": (
        "y,a\n" + "".join(f"{n} cm,{n}.5\n" for n in range(6)), Y, "'0 cm'.*is it a number",
    ),
    "numbers of Fortran": ("a,y\n1.5D-01,1\n.25d+02,2\n", Y, "line 2 has '1.5D-01'.*like a number"),
    "with their error": ("a,y\n5±1,1.5\n6 +/- 2,2.5\n7(1),3\n", Y, "line 2 has '5±1'.*like a num"),
    "of two parts": ("a,y\n1+2j,1.5\n3-.5j,2.5\n", Y, r"line 2 has '1\+2j'.*like a number"),
    "of base 16": ("a,y\n0x1F,1.5\n0xa0,2.5\n", Y, "line 2 has '0x1F'.*like a number"),
    "days and times in one": (
        "a,y\n20260525T0630,1.5\n20260525T063100Z,2.5\n", Y, "has '20260525T0630' .* as 2026-11-25"
    ),
    "columns between many blanks": (
        "a   b y\n1  2  p\n3   4 q\n", replace(Y, delimiter=" "), "two columns named ''"
    ),
    "months and days": ("a,y\n4/25/2026,1.5\n25/4/2026,2\n", Y, "'4/25/2026'.*; is the month"),
    "months": ("a,y\n2026-05,1.5\n2026-11,2.5\n", Y, "line 2 has '2026-05'.*as 2026-11-25"),
    "weekdays too": (
        'a,y\n"Thu, 26 May 2022",1.5\n"Friday 27 May 2022",2.5\n', Y, "line 2 has 'Thu, 26 May"
    ),
    "years of two digits": ("a,y\n26.05.22,1.5\n27.05.22,2.5\n", Y, "line 2 has '26.05.22'.*date"),
    "times of many kinds": (
        "a,y\n0:30,1\n12:30:05.5,2.5\n1 days 02:03:00,2\n7:05 PM,1\n08:15,1\n", Y,
        "line 2 has '0:30' in column 'a'; .*a time as a number",
    ),
    "a label in doubt": ("a,y\n1,p\n2,?\n3,q\n", Y, r"line 3 has '\?' in column 'y'; each row"),
    "a gap of a database": ("a,y\n1,p\n2,\\N\n3,q\n", Y, r"line 3 has '\\\\N' in column"),
    "a fault of a sheet": ("a,y\n1,p\n2,#REF!\n3,q\n", Y, "line 3 has '#REF!' in column"),
    "a mark among labels": ("a,y\n1,p\n2,-\n3,q\n", Y, "line 3 has '-' .*each row needs a target"),
    "a mark among numbers": ("a,y\n1,1.5\n-,2.5\n", Y, "line 3 has '-' .*: write a number, l"),
    "a name too few": ("a,y\nr1,1,0\nr2,2,1\n", Y, "line 2 has 3 cells; .*, or name each"),
    "two names in one": (
        "a,b,y\n1,2,0\n", replace(Y, features=("a,b",)), "no column 'a,b'.*; name each column by it"
    ),
    "a title": ("Results of May\n\na,y\n1,0\n2,1\n", Y, "first line is 'Results of May'.*above"),
    "columns of a width": ("a   y\n1   0\n2   1\n", Y, "first line is 'a   y'.*--delimiter"),
    "a word among numbers": ("a,y\n1,1.5\n2,2.5\nred,1\n", Y, "line 4 has 'red' in column 'a'"),
    "a long cell": (f'a,y\n"{"x" * 131_073}",0\n1,1\n', Y, "line 2 has 'xx.*in column 'a'"),
    "no names": ("5.1,3.5,p\n4.9,3.0,q\n", DataConfig(target=("p",)), "first line holds numbers"),
    "no names of images": ("5,0,0,0\n3,0,1,0\n", DataConfig(target=("5",)), "first line holds num"),
    "Latin-1 in the header": (b"a,\xe9,y\n1,2,0\n", Y, "no UTF-8, Latin-1 perhaps"),
    "Latin-1 in a row": (b"a,y\n1,p\n2,\xe9\n", Y, "no UTF-8, Latin-1 perhaps"),
    "UTF-16": ("a,y\n1,p\n2,q\n".encode("utf-16"), Y, "is UTF-16"),
    "a cell too many": ("a,y\n1,0\n2,1,5\n", Y, "line 3 has 3 cells; the header has 2"),
    "a cell of Latin-1 too many": (b"a,y\n" + 9000 * b"1,p\n2,q\n" + b"3,\xe4,p\n", Y, "3 cells"),
    "a cell too many that says UTF8": ("a,y\n1,0\n2,UTF8,5\n", Y, "line 3 has 3 cells"),
    "a cell too few": ("a,b,y\n1,2,0\n\n2,1\n", Y, "line 4 has 2 cells; the header has 3"),
    "decimals or thousands": ('a;y\n"1,200";1.5\n"1,300";2.5\n', Y, "--decimal"),
    "nothing to drop": ("a,y\n1,0\n", DataConfig(target=("y",), drop=("b",)), "no column 'b'"),
    "labels in doubt": (column(*[3, 8] * 9), Y, "--task classification or --task regression"),
    "by name": ("y,stars\n" + "1,3\n2,8\n" * 9, replace(Y, target=("stars",)), "stars holds 2 "),
    "dates that may be two": ("a,y\n5/1/2013,0.5\n12/1/2013,1\n", Y, "line 2 has '5/1/2013'.*mon"),
    "dates in words": ("a,y\n5 Jan 2013,0.5\n6 May 2013,1.5\n", Y, "line 2 has '5 Jan.*--drop 'a'"),
    "a month that is none": ("a,y\n12.31.2013,1\n1.2.2013,2\n", Y, "line 2 has '12.31.2013'.*2026"),
    "two marks in a date": ("a,y\n2013/02-03,1\n2013/04-05,2\n", Y, "has '2013/02-03'.*2026"),
    "a day that is none": ("a,y\n2013-02-28,1\n2013-02-30,2\n", Y, "line 3 has '2013-02-30'.*2026"),
    "a zone to one": ("a,y\n2013-02-08T05:00Z,1\n2013-02-09T05:00,2\n", Y, "line 3.*each.*a zone"),
    "a word among dates": ("a,y\n2013-02-08,1\n2013-02-09,2\nlater,1\n", Y, "line 4 has 'later'"),
    "another minus": ("a,y\n\u22125,0.5\n\u22126,1.5\n7,1\n", Y, "line 2 has '\u22125' in"),
    "no row counts": ("a,w,y\n1,0,1.5\n2,0,2.5\n", replace(Y, weight="w"), "'w'.*add up to 0"),
    "two weights": ("a,w1,w2,y\n1,1,1,0\n2,2,2,1\n", replace(Y, weight="w*"), "'w.' is 2 columns"),
    "a target as weight": ("a,y\n1,1.5\n2,2.5\n", replace(Y, weight="y"), "'y' is the target"),
    "a target dropped": ("a,y\n1,1.5\n2,2.5\n", replace(Y, drop=("[xy]",)), "'y' is asked for as"),
    "an id as input": (
        "a,b,y\n1,2,1.5\n2,3,2.5\n", replace(Y, features=("a", "b"), id=("a",)),
        "'a' is asked for as two things",
    ),
    "an array of a table": ("a,y\n1,1.5\n2,2.5\n", replace(Y, x="a"), "x is given, but .*npz"),
    "nothing that differs": ("a,y\n1,1.5\n1,2.5\n", Y, "no input.*a is left out: it is the same"),
    "UTF-32": ("a,y\n1,p\n2,q\n".encode("utf-32"), Y, "is UTF-32"),
    "dates to predict": (column("2013-01-05", "2014-02-05"), Y, "line 2.*date.*--task class"),
    "dates as people write them": (column("5 Jan 2013", "6 May 2014"), Y, "is it a date"),
    "dates to predict, with points": (column("5.1.2013", "6.5.2014"), Y, "is it a date"),
    "two files in one": ("a,y\n" + 3 * "u,p\nv,q\n" + "\ufeffa,y\nu,q\n", Y, "line 8 has the n"),
    "a zero far behind": ("a,y\n" + 9000 * "1,p\n2,q\n" + "3,\0p\n", Y, "is binary, or damaged"),
    "many classes in a row": (column(*range(200)), Y, "--task classification or --task regression"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_right_is_refused_with_its_line(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text, config, words = REFUSED[case]
    monkeypatch.setattr(delimited, "OF_A_COLUMN", 0)
    for size in (delimited.PIECE, 2**10):
        monkeypatch.setattr(delimited, "PIECE", size)
        with pytest.raises(InputError, match=words):
            load(tmp_path, text, config)
    assert capfd.readouterr().err == ""


CELLS = [*"17", "", "2.5", "-0", "1e3", "x", '"q"', '"a,b"', '"one""two"', '"l\nm"', '5"', ' "r']
"""As they are written: also quotes within cells, which are letters like others."""


@pytest.mark.parametrize("seed", range(30))
def test_how_a_text_is_cut_into_pieces_changes_nothing(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor that it is kept on disk while it is read; the rows are those that Python finds."""
    rng = np.random.default_rng(seed)
    some = [rng.choice(CELLS, 3 + seed % 4) for _ in range(3)]
    rows = [[*(rng.choice(cells) for cells in some), "12"[row % 2]] for row in range(20)]
    text = "a,b,c,y\n" + "\n".join(map(",".join, rows)) + "\n" * (seed % 2)
    (tmp_path / "d.csv").write_text(text)
    found = set[Any]()
    monkeypatch.setattr(delimited, "OF_A_COLUMN", 0)
    sizes = (delimited.PIECE, 64, 9, 1)
    for size in sizes:
        monkeypatch.setattr(delimited, "PIECE", size)
        times = 2 * (size == sizes[seed % 4])  # the last one finds what is there
        kept = [Spool(tmp_path / "spool", lambda _: None) for _ in range(times)]
        for spool in (Pieces(), *kept):
            try:
                table = read_text([str(tmp_path / "d.csv")], Roles(("y",)), "d", spool)
                shapes = table.shapes(), len(table), [c.about() for c in table.every()]
                found.add((str(shapes), table.content(slice(None)), table.texts(), table.notes))
                assert len(table) == len([*csv.reader(io.StringIO(text))]) - 1
            except InputError as error:
                found.add(str(error))
    assert len(found) == 1, found


@pytest.mark.parametrize("then", ["y,a\n1,p\n2,q\n", "a,y\n1,p\n2,q\n3,p\n", None])
def test_a_table_that_changes_while_it_is_read_is_refused(
    then: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its columns may be others by then, or some of its rows be missing."""

    def changing(_: object) -> None:
        (tmp_path / "d.csv").unlink()
        if then is not None:
            (tmp_path / "d.csv").write_text(then)

    monkeypatch.setattr(arrow, "check_names", changing)
    with pytest.raises(InputError, match=r"has changed while|No such file"):
        load(tmp_path, "a,y\n1,p\n2,q\n")


def test_pieces_of_a_table_are_let_go_of_while_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of all of them and of the whole is never taken together."""
    monkeypatch.setattr(keep, "ROOM", 1)
    monkeypatch.setattr(delimited, "OF_A_COLUMN", 0)
    monkeypatch.setattr(delimited, "PIECE", 64)
    rows = [f"{row / 8},{'abc'[row % 3]},{row % 2}" for row in range(500)]
    (tmp_path / "d.csv").write_text("\n".join(["a,b,y", *rows]))

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("/dev/zero")

    gc.collect()
    none, left = mapped(), []
    table = read_text([str(tmp_path / "d.csv")], Roles(("y",)), "d", Pieces())
    every, before = mapped(), table.content(slice(None))
    pour = Stacked.pour

    def watched(one: Stacked, number: int, out: Any) -> None:
        pour(one, number, out)
        left.append(mapped())

    monkeypatch.setattr(Stacked, "pour", watched)
    shared = share(table, None, own)
    assert shared.content(slice(None)) == before
    assert all(type(column.values) is np.ndarray for column in shared.every())
    assert every - none >= 3 * 50
    assert left == sorted(left, reverse=True)
    assert left[-1] <= none + 1


def test_what_is_one_value_many_times_takes_no_room_and_all_else_only_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packed file of a few bytes may hold any number of rows."""
    rows = 300_000
    packed = gzip.compress(b"a,b,y\n" + b"1,,0\n2,,1\n" * (rows // 2))
    kept, keep_one = list[int](), Pieces.keep

    def watched(pieces: Pieces, values: Any) -> Any:
        found: Any = keep_one(pieces, values)
        kept.append(found.nbytes if found.strides[0] else 0)
        return found

    monkeypatch.setattr(Pieces, "keep", watched)
    assert len(load(tmp_path, packed, name="d.csv.gz").train) == rows
    assert sum(kept) <= 2 * 8 * rows
    monkeypatch.setattr(keep, "too_little_memory", lambda _: 0)
    with pytest.raises(
        InputError, match=r"d.csv.gz needs more memory than there is: it has .*--drop"
    ):
        load(tmp_path, packed, name="d.csv.gz")


@pytest.mark.parametrize(
    "cells",
    [
        ["12A", "12B", "7C", "8D", "9E"],
        ["36 months", "60 months"],
        ["4th", "5th", "6th", "7th", "8th"],
        ["12 Elm", "3 Oak", "5 Fir", "7 Ash", "9 Yew"],
        ["1 kg", "2 lb", "3 g", "fig", "pear", "plum", "rye"],
    ],
)
def test_numbers_within_names_are_categories(tmp_path: Path, cells: Sequence[str]) -> None:
    text = "a,b,y\n" + "".join(f"{cells[n % len(cells)]},{n},{n}.5\n" for n in range(30))
    assert load(tmp_path, text).encoding.fields[0].words == tuple(sorted(cells))


@pytest.mark.parametrize(
    ("cells", "config", "classes"),
    [
        (["007", "7", "8"], LABELS, ["007", "7", "8"]),
        (["1E2", "100", "7"], LABELS, ["100", "1E2", "7"]),
        (["1_0", "10", "7"], LABELS, ["10", "1_0", "7"]),
        (["2.1", "2.10", "2.2"], LABELS, ["2.1", "2.10", "2.2"]),
        (
            ["18446744073709551615", "18446744073709551614", "3"],
            LABELS,
            ["18446744073709551614", "18446744073709551615", "3"],
        ),
        (["007", "008", "007"], Y, ["007", "008"]),
        (["0.0", "1.0", "2.0"], Y, [0, 1, 2]),
        (["yes", "no", "yes"], Y, ["no", "yes"]),
        (["-7", "3", "12"], LABELS, [-7, 3, 12]),
        (["+1", "+2", "+1"], Y, [1, 2]),
        (["1", "2", "3", "3"], Y, [1, 2, 3]),
        (["0", "one", "0"], Y, ["0", "one"]),
        (["2013-01-05", "2013-02-05"], LABELS, ["2013-01-05", "2013-02-05"]),
        (["p", "p\u200b", "\ufeffq"], Y, ["p", "q"]),
        (["+", "-", "+"], Y, ["+", "-"]),
        ([i % 100 for i in range(1000)], Y, [*range(100)]),
    ],
    ids=str,
)
def test_labels_are_kept_as_they_are_written(
    tmp_path: Path, cells: Sequence[object], config: DataConfig, classes: list[object]
) -> None:
    data = load(tmp_path, column(*cells), config)
    assert data.encoding.task == "classification"
    assert data.encoding.classes.tolist() == classes
    numbers = data.train.targets(slice(None), np.float32)
    wanted = [str(cell).strip("\u200b\ufeff") for cell in cells]
    if not isinstance(classes[0], str):
        wanted = [str(int(float(text))) for text in wanted]
    assert [str(classes[number]) for number in numbers] == wanted


def test_stored_labels_meet_those_of_other_files_as_they_are_written(tmp_path: Path) -> None:
    data = load(tmp_path, column(*["01", "02", "x"] * 9), LABELS)
    dptrain.fit(dptrain.mlp_for(data), data, TrainConfig(steps=2), out=tmp_path / "r", world=ALONE)
    (tmp_path / "t.csv").write_text(column("01", "02"))
    from dptrain.run.apply import evaluate_run

    assert evaluate_run(str(tmp_path / "r"), [str(tmp_path / "t.csv")], (), ALONE)["examples"] == 2
    (tmp_path / "t.csv").write_text(column("01", "2"))
    with pytest.raises(InputError, match=r"label 2 in line 3; give one of .*01, 02, x"):
        evaluate_run(str(tmp_path / "r"), [str(tmp_path / "t.csv")], (), ALONE)


READ: dict[str, tuple[str, list[list[float]]]] = {
    "semicolons and decimal commas": ("a;y\n1,5;p\n2,25;q\n", [[1.5], [2.25]]),
    "a line that says so": ("sep=;\na;y\n1;p\n2;q\n", [[1], [2]]),
    "tabs": ("a\tb\ty\n1\t2\tp\n2\t4\tq\n", [[1, 2], [2, 4]]),
    "pipes": ("a|y\n1|p\n2|q\n", [[1], [2]]),
    "a line break in a name": ('"a\n(cm)",y\n1,p\n2,q\n', [[1], [2]]),
    "a blank first line": ("\na,y\n1,p\n2,q\n", [[1], [2]]),
    "blank lines": ("\n \n" * 1000 + "sep=;\na;y\n1;p\n2;q\n", [[1], [2]]),
    "many blank lines": ("\n" * 10_000 + "a,y\n1,p\n2,q\n", [[1], [2]]),
    "blanks in a cell": (
        "c,y\n5{0}x,p\n6{0}x,q\n5{0}x,q\n".format(" " * 10_000), [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    ),
    "True and False": ("a,y\nTrue,p\nFalse,q\n", [[1], [0]]),
    "yes and no": ("a,y\nno,p\nYES,q\n", [[0], [1]]),
    "a number of rows without a name": (",a,y\n0,5,p\n1,6,p\n2,5,q\n", [[5], [6], [5]]),
    "all-different texts and a constant": (
        "n,a,c,y\nAnn,1,7,p\nBob,2,7,q\nCyd,3,7,q\n", [[1], [2], [3]]
    ),
    "gaps": ("a,y\n1,p\n,q\n4,q\nnan,p\n", [[1, 0], [2.5, 1], [4, 0], [2.5, 1]]),
    "on and off": ("a,y\nOn,p\noff,q\n", [[1], [0]]),
    "rows numbered out of order": (",a,y\n7,5,p\n3,6,p\n5,5,q\n", [[5], [6], [5]]),
    "a date to the nanosecond": (
        "d,y\n2013-01-05 03:00:00.123456789,p\n2013-01-05 04:00:00.5,q\n", [[3], [4]]
    ),
    "a gap among yes and no": ("a,y\nyes,p\n,q\nno,q\nyes,p\n", [[1, 0], [1, 1], [0, 0], [1, 0]]),
    "categories": ("c,y\nu,p\nw,q\nu,q\n", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
    "few sizes": ("c,y\n1 kg,p\n2 lb,q\n1 kg,q\n", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
    "streets": ("c,y\n" + "1 ash,p\n1 elm,q\n1 oak,p\n2 ash,q\n2 elm,p\n2 oak,q\n" * 2,
                np.eye(6, 7)[[*range(6)] * 2].tolist()),
    "a gap among them": ("c,y\nu,p\n,q\nu,q\nw,p\n",
                         [[1, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]),
    "dates": ("d,y\n2013-01-05,p\n2013-03-05,q\n", [[1, 5], [3, 1]]),
    "dates with points or slashes": (
        "d,y\n5.1.2013,p\n31.12.2014 23:05,q\n2015/3/07,q\n2016.04.30,q\n2017-5-6T07:08:09.5,q\n",
        [[2013, 1, 5, 0], [2014, 12, 2, 23], [2015, 3, 5, 0], [2016, 4, 5, 0], [2017, 5, 5, 7]],
    ),
    "dates with the month first": (
        "d,y\n4/5/2013,p\n12/31/2014 23:05,q\n2015-03-07,q\n",
        [[2013, 4, 4, 0], [2014, 12, 2, 23], [2015, 3, 5, 0]],
    ),
    "dates with slashes and the day first": (
        "d,y\n4/5/2013,p\n31/12/2014,q\n,q\n7/3/2015,q\n",
        [[2013, 5, 5, 0], [2014, 12, 2, 0], [2014, 5, 5, 1], [2015, 3, 5, 0]],
    ),
    "hours": ("d,y\n2013-01-05T03:00:00Z,p\n2013-01-05T15:30:00Z,q\n", [[3], [15]]),
    "columns without names": ("a,,y,,\n1,,p,,\n2,,q,,\n", [[1], [2]]),
    "gaps of databases and of sheets": (
        "a,y\n1,p\n\\N,q\n4,q\n(NULL),p\n#DIV/0!,p\n",
        [[1, 0], [2.5, 1], [4, 0], [2.5, 1], [2.5, 1]],
    ),
    "names that are numbers": ("0,1,y\n5,6,p\n7,8,q\n", [[5, 6], [7, 8]]),
    "marks and spaces that nobody sees": (
        "\ufeff\ufeffsep=;\n\u200ba\u00a0;y\n1\u200b;p\n2;\u2060q\ufeff\n3;q\n", [[1], [2], [3]],
    ),
    "quotes within": ('a,y\n1,"5"" p"\n2,q\n', [[1], [2]]),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read_as_a_person_reads_it(tmp_path: Path, case: str) -> None:
    text, inputs = READ[case]
    data = load(tmp_path, text)
    np.testing.assert_array_equal(data.train.raw_x(slice(None)), inputs)
    assert 3 <= len(data.told) <= 10
    assert "\u200b" not in "".join(data.encoding.features)
    packed = gzip.compress(text.encode())
    again = load(tmp_path, packed, name="d.csv.gz")
    np.testing.assert_array_equal(again.train.raw_x(slice(None)), inputs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",a,y\n0,5,p\n1,6,p\n2,5,q\n", "left out: it counts the rows"),
        ("d,y\n2013-01-05T03:00:00Z,p\n2013-01-05T15:30:00Z,q\n", "hour, in UTC where there is"),
        ("theId,a,y\n7,5,p\n8,6,p\n9,5,q\n", "theId is left out: it counts the rows .taken"),
        ("n,a,y\nAnn,1,p\nBob,2,q\n", "n is left out: its 2 texts are all different"),
        ("c,a,y\n7,1,p\n7,2,q\n", "c is left out: it is the same in every row"),
        ('a,y\n1,p\n2,"q\n3,p\n4,q"\n5,p\n', "line 3 has a text of several lines .*'y'"),
        ("a,y\n1,52000\n2,755000\n3,60000\n",
         "target y: numbers from 52,000 to 755,000, so regression .*for 3 classes"),
        (column(*[i % 100 for i in range(1000)]), "classification of 100 classes"),
        ("a,y\n,p\n2,q\n3,q\n", "gaps, filled with the median and marked: a"),
        (column(7.5, 7.5), "nothing to learn from what is the same in every row, or nearly: y$"),
        (column("1e-200", "1.5e-200"), "nothing to learn from .*: y$"),
        ("a,b,y\n1000000000000001,1,p\n1000000000000002,2,q\n", "nothing to learn from .*: a$"),
        ("a,y\n4/5/2026,p\n6/17/2026,q\n", "dates in a: month/day/year"),
        ("a,y\n4/5/2026,p\n17/6/2026,q\n", "dates in a: day/month/year"),
        ("y, a\np, 4/5/2026\nq, 17/6/2026\n", "dates in a: day/month/year"),
    ],
)  # fmt: skip
def test_what_was_understood_is_said(tmp_path: Path, text: str, words: str) -> None:
    import re

    told = load(tmp_path, text).told
    assert any(re.search(words, line) for line in told), told


def test_columns_are_chosen_by_name_and_pattern(tmp_path: Path) -> None:
    text = "a1,a2,b,y\n1,2,3,p\n4,5,6,q\n"
    for config, names in (
        (DataConfig(target=("y",), features=("a*",)), ("a1", "a2")),
        (DataConfig(target=("y",), drop=("a*",)), ("b",)),
        (DataConfig(target=("y",), features=("b", "a2")), ("b", "a2")),
        (DataConfig(target=("y",), id=("a1",)), ("a2", "b")),
    ):
        assert load(tmp_path, text, config).encoding.features == names
    counted = "Id,row,a,y\n1,2,3,p\n2,4,6,q\n"
    for config, names in ((Y, ("row", "a")), (replace(Y, features=("Id", "a")), ("Id", "a"))):
        assert load(tmp_path, counted, config).encoding.features == names
    headless = DataConfig(target=("c4",), no_header=True)
    assert load(tmp_path, "1,2,3,p\n4,5,6,q\n", headless).encoding.features == ("c1", "c2", "c3")


def test_encoding_is_fitted_on_the_training_rows_alone(tmp_path: Path) -> None:
    """The rows held out have numbers and a text that the others have not."""
    names, config = "a,b,c,y\n", DataConfig(target=("y",), validation=0.25)
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.normal():.3f},{i % 7 or ''},{'uvw'[i % 3]},{rng.normal():.3f}\n" for i in range(40)
    ]
    kept = load(tmp_path, names + "".join(rows), config).train.chosen
    assert kept is not None
    for row in {*range(40)} - {*kept[:].tolist()}:
        rows[row] = f"{rng.normal():.3f},{70 + row},x,{row}\n"
    whole = load(tmp_path, names + "".join(rows), config).encoding
    alone = load(tmp_path, names + "".join(rows[row] for row in kept[:])).encoding
    assert whole.fields == alone.fields
    assert whole.fields[1].fill == (np.median([i % 7 for i in kept[:] if i % 7]),)
    for name in ("shift", "factor", "target_shift", "target_factor"):
        assert getattr(whole, name).tolist() == getattr(alone, name).tolist()
    assert (whole.shift != 0).tolist() == [True, True, *[False] * 5]  # no scale: gap, texts
    assert (whole.factor != 1).tolist() == [True, True, *[False] * 5]


def test_a_text_of_100_000_letters_costs_no_more_than_itself(tmp_path: Path) -> None:
    import tracemalloc

    text = column(*["p", "q"] * 1000, "z" * 100_000)
    tracemalloc.start()
    data = load(tmp_path, text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data.encoding.classes) == 3
    assert peak < 30e6  # of 2,001 times as many it would be 200e6 at least


def houses(num: int = 2000) -> str:
    x = np.random.default_rng(0).normal(size=num)
    return "x,price\n" + "".join(f"{v!r},{200e3 + 40e3 * v!r}\n" for v in x.tolist())


def test_houses_reach_the_straight_line_and_answer_in_money(tmp_path: Path) -> None:
    data = load(tmp_path, houses(), DataConfig(target=("price",), validation=0.1))
    trained = dptrain.fit(dptrain.mlp_for(data), data, TrainConfig(epochs=20), world=ALONE)
    assert trained.summary.metrics["validation_r2"] > 0.98
    assert 100 < trained.summary.metrics["validation_mae"] < 10_000
    found = trained.predict([[0.0], [1.0]])
    np.testing.assert_allclose(found, [200e3, 240e3], rtol=0.05)


ARRAYS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Fortran": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
    "int8": lambda x: x.astype(np.int8),
}


def test_the_way_an_array_is_stored_changes_no_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (3000, 4, 3)).astype(np.float32)
    y = x.sum(axis=(1, 2)) % 3

    def params(x: NDArray[Any], y: NDArray[Any]) -> bytes:
        np.save(tmp_path / "x.npy", x)
        np.save(tmp_path / "y.npy", y)
        data = dptrain.load([tmp_path / "x.npy", tmp_path / "y.npy"], world=ALONE)
        model = dptrain.mlp_for(data)
        return dptrain.fit(model, data, TrainConfig(steps=3), world=ALONE).params.tobytes()

    plain = params(x, y.astype(np.int64))
    for change in ARRAYS.values():
        assert params(change(x), change(y)) == plain


class Images:
    """A model that notes what it is given."""

    dtype = np.float32
    layout = (dptrain.Param("w", (1,)),)

    def __init__(self) -> None:
        self.seen: list[tuple[Any, tuple[int, ...]]] = []

    def initial_params(self, _: object) -> NDArray[Any]:
        return np.zeros(1, np.float32)

    def loss_and_grad_sum(self, _: Any, x: Any, y: Any, __: Any, out: Any, ___: Any) -> Any:
        self.seen.append((x.dtype, x.shape[1:]))
        out[:] = 0
        return dptrain.Sums(0.0, float(len(y)))

    def outputs(self, _: Any, x: Any) -> Any:
        return np.zeros((len(x), 2))

    def loss_sum(self, outputs: Any, _: Any, __: Any) -> Any:
        return dptrain.Sums(0.0, float(len(outputs)))


@pytest.mark.parametrize(
    ("dtype", "scale", "seen"),
    [
        (np.uint8, "auto", np.uint8),
        (">i4", "auto", np.int32),
        (np.int64, "standard", np.float32),
        (np.float64, "auto", np.float32),
    ],
)
def test_models_of_ones_own_get_arrays_as_they_are(dtype: Any, scale: Any, seen: Any) -> None:
    x = np.arange(5 * 4 * 3).reshape(5, 4, 3).astype(dtype)
    data = dptrain.load((x, np.arange(5) % 2), DataConfig(scale=scale), world=ALONE)
    model = Images()
    dptrain.fit(model, data, TrainConfig(steps=1), world=ALONE)
    assert {*model.seen} == {(np.dtype(seen), (4, 3))}


def one_step(
    folder: Path, text: str, config: DataConfig, out: Path | None = None, **changes: Any
) -> dptrain.Trained:
    """Train for one step on all rows, in float64."""
    data = load(folder, text, config)
    model = dptrain.mlp_for(data, dptrain.ModelConfig(hidden=(3,), dtype="float64"))
    train = TrainConfig(steps=1, optimizer="sgd", learning_rate=0.5, **changes)
    return dptrain.fit(model, data, train, out=out, world=ALONE)


WEIGHED = ["1,2,0.5\n", "2,3,1.5\n", "3,0,-1\n", "0,1,2.5\n"]
"""Rows a,w,y; the weights' sum is not the number of rows."""
PLAIN = DataConfig(target=("y",), scale="none")


def test_a_weight_of_2_is_a_row_twice(tmp_path: Path) -> None:
    """In the parameters, and in all that a run tells of its losses and norms."""
    weighted = "a,w,y\n" + "".join(WEIGHED)
    repeated = "a,w,y\n" + "".join(row for row in WEIGHED for _ in range(int(row[2])))
    by_weight, by_row = replace(PLAIN, weight="w"), replace(PLAIN, drop=("w",))
    told = []
    for name, text, config in (("w", weighted, by_weight), ("r", repeated, by_row)):
        out = tmp_path / name
        found = one_step(tmp_path, text, config, out, clip_norm=0.1, log_every=1)
        logged, epoch = metrics_of(out)
        step = float.fromhex(json.loads((out / RECEIPT).read_text().splitlines()[1])["loss"])
        losses = [logged["loss"], step, epoch["train_loss"]]
        assert losses == [losses[0]] * 3
        told.append([*found.params, *losses, logged["gradient_norm"], epoch["gradient_norm"]])
    np.testing.assert_allclose(told[0], told[1], rtol=1e-12)
    other = one_step(tmp_path, weighted, by_row, clip_norm=0.1).params
    assert not np.allclose(told[0][: len(other)], other)


def test_balanced_classes_count_alike(tmp_path: Path) -> None:
    text = column(*["p"] * 99, "q")
    config = replace(Y, class_weight="balanced")
    weights = load(tmp_path, text, config).train.weights(slice(None))
    assert weights is not None
    assert weights[:99].sum() == pytest.approx(weights[99]) == pytest.approx(50)
    kept = load(tmp_path, text, replace(config, validation=0.2)).train
    weights = kept.weights(slice(None))
    assert weights is not None
    assert weights[kept.labels(slice(None)) == 0].sum() == pytest.approx(len(kept) / 2)
    with pytest.raises(InputError, match=r"class-weight is balanced, but .* has no classes"):
        load(tmp_path, column(0.5, 1.5, 2.5), config)


def test_classes_of_which_some_are_rare_are_said_to_be(tmp_path: Path) -> None:
    told = load(tmp_path, column(*["p"] * 99, "q")).told[-1]
    assert (
        "1 of 100 rows only have the label 'q', and to say 'p' each time is right in 99.0%" in told
    )
    assert "--class-weight balanced" in told
    for even in (column(*["p"] * 94, *["q"] * 6), column(*map(str, range(100)))):
        assert "only" not in "".join(load(tmp_path, even, Y).told)
    weighed = load(tmp_path, column(*["p"] * 99, "q"), replace(Y, class_weight="balanced"))
    assert "only" not in "".join(weighed.told)


def test_few_rows_are_trained_on_for_200_to_450_steps() -> None:
    assert [TrainConfig().settled(rows).epochs for rows in (120, 457, 900, 1600, 3823)] == [
        200, 100, 100, 65, 30,
    ]  # fmt: skip
    assert TrainConfig(epochs=5).settled(120).epochs == 5
    assert TrainConfig(steps=7).settled(120).epochs is None
    x = np.arange(40.0).reshape(20, 2)
    data = dptrain.load((x, x[:, 0] / 8), world=ALONE)
    assert dptrain.fit(dptrain.mlp_for(data), data, world=ALONE).summary.steps == 200


def test_the_weights_of_rows_and_of_classes_are_multiplied(tmp_path: Path) -> None:
    text = "a,w,y\n1,2,p\n2,3,p\n3,0,p\n4,5,q\n"
    config = DataConfig(target=("y",), weight="w", class_weight="balanced")
    weights = load(tmp_path, text, config).train.weights(slice(None))
    assert weights is not None
    np.testing.assert_allclose(weights, [2 * 2 / 3, 3 * 2 / 3, 0, 5 * 2])


def test_rows_keep_their_weights_where_others_are_held_out(tmp_path: Path) -> None:
    text = "a,w,y\n" + "".join(f"{n / 8},{n / 8},{'pq'[n % 2]}\n" for n in range(20))
    train = load(tmp_path, text, DataConfig(target=("y",), weight="w", validation=0.2)).train
    weights = train.weights(slice(None))
    assert weights is not None
    assert weights.tolist() == train.raw_x(slice(None))[:, 0].tolist()


@pytest.mark.parametrize("weight", ["-1", "inf", "1e300"])
def test_weights_that_can_not_be_are_refused(tmp_path: Path, weight: str) -> None:
    config = DataConfig(target=("y",), weight="w")
    with pytest.raises(InputError, match=r"line 3 has weight .* in 'w'; give a finite number"):
        load(tmp_path, f"a,w,y\n1,1,p\n2,{weight},q\n", config)


def test_rows_to_predict_are_not_told_to_drop_what_the_model_needs(tmp_path: Path) -> None:
    data = load(tmp_path, "d,y\n2013-01-05,p\n2013-03-05,q\n")
    with pytest.raises(
        InputError, match=r"has '5/1/2013' .*, or 2026-11-25T13:45:00, a time as a number$"
    ):
        as_rows(pa.table({"d": ["5/1/2013"]}), data.encoding)


def test_a_separator_that_nobody_guesses_is_named(tmp_path: Path) -> None:
    for mark in "! e\x1f":
        text = "a!b,c!y\n1!2!p\n3!4!q\n".replace("!", mark)
        named = load(tmp_path, text, replace(Y, delimiter=mark)).encoding
        assert (named.features, [*named.classes]) == (("a", "b,c"), ["p", "q"])
    with pytest.raises(InputError, match="one letter of ASCII"):
        replace(Y, delimiter="§")


def test_rows_that_are_all_gaps_are_predicted_where_training_had_some(tmp_path: Path) -> None:
    """A single row with a gap, say: of it nothing says what the column holds."""
    text = "a,c,d,f,y\n1,u,2013-01-05,yes,p\n2,,,,q\n3,w,2013-03-05,no,q\n4,u,2013-01-07,yes,p\n"
    (tmp_path / "t.csv").write_text("a,c,d,f,y\n2,,,,q\n")
    data = load(tmp_path, text, replace(Y, test_data=(str(tmp_path / "t.csv"),)))
    assert data.test
    found = data.test.raw_x(slice(None)).tolist()
    assert found == data.train.raw_x([1]).tolist()
    row = {"a": [2.0], "c": [None], "d": [None], "f": [None]}
    assert as_rows(row, data.encoding).raw_x(slice(None)).tolist() == found


def test_memory_that_the_system_refuses_is_too_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under ulimit -v: the machine has some, and this process may not have it."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", refuse)
    pieces = Pieces()
    pieces.clear()
    with pytest.raises(MemoryError):
        pieces.keep(np.arange(9.0))


def test_a_reader_that_cannot_be_loaded_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dptrain.data.arrow", None)
    monkeypatch.delattr("dptrain.data.arrow")
    with pytest.raises(InputError, match=r"pyarrow reads \(import of dptrain.data.arrow halted"):
        load(tmp_path, column(1, 2))


def test_several_targets_may_be_yes_or_no_as_numbers_are_in_typed_files(tmp_path: Path) -> None:
    """In files of other rows each may be one of both alone."""
    names = ("y1", "y2", "y3")
    text = "a,y1,y2,y3\n1,yes,True,1\n2,No,False,1\n3,no,True,0\n"
    (tmp_path / "t.csv").write_text("a,y1,y2,y3\n2,yes,False,1\n")
    config = DataConfig(target=names, test_data=(str(tmp_path / "t.csv"),))
    data = load(tmp_path, text, config)
    assert data.encoding.task == "multilabel"
    assert data.train.raw_y(slice(None)).tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 0]]
    assert data.test
    assert data.test.raw_y(slice(None)).tolist() == [[1, 0, 1]]
    with pytest.raises(InputError, match="y2 holds names; of several targets each must be numbers"):
        load(tmp_path, text.replace("False", "Maybe"), DataConfig(target=names))


def test_text_may_be_packed_by_bzip2_and_other_files_not_at_all(tmp_path: Path) -> None:
    data = load(tmp_path, bz2.compress(b"a,y\n" + b"1,p\n2,q\n" * 99), name="d.csv.bz2")
    assert len(data.train) == 198
    np.save(tmp_path / "x.npy", np.eye(3))
    packed = gzip.compress((tmp_path / "x.npy").read_bytes())
    with pytest.raises(InputError, match=r"x.npy.gz is a packed .npy file, .*: unpack it"):
        load(tmp_path, packed, name="x.npy.gz")


def test_test_rows_are_not_taken_for_the_data() -> None:
    rows = {"a": np.arange(9.0), "y": np.arange(9) / 4}
    with pytest.raises(InputError, match="the test data has no column 'a'"):
        dptrain.load(rows, Y, test={"y": rows["y"]}, world=ALONE)
