"""Shows that predictions are the same numbers and words in every kind of file."""

import csv
import importlib
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start
from numpy.typing import NDArray

import dptrain as dptrain_
from dptrain.run import predictions
from dptrain.run.predictions import Block, check_name, write_predictions
from dptrain.words import InputError

Array = NDArray[Any]
WORDS = np.array(["q", "é\n\"'", "a,b"])
KINDS = {
    "words": np.resize(WORDS, 2500),
    "whole numbers": np.arange(2500) * 2**40,
    "values": np.random.default_rng(0).standard_normal(2500).astype(np.float32),
    "probabilities": np.random.default_rng(1).random((2500, 3)),
}


IDS = np.array([f"row {number}" for number in range(2500)], object)


def blocks(values: Array, *, ids: bool) -> Iterator[Block]:
    """Yield three blocks, of which the last is small."""
    pieces = [slice(0, 1024), slice(1024, 2048), slice(2048, 2500)]
    return iter([([IDS[piece]] * ids, values[piece]) for piece in pieces])


def read(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Return the names and the rows of a file."""
    if path.suffix == ".parquet":
        table = importlib.import_module("pyarrow.parquet").read_table(path)
        columns = [column.to_pylist() for column in table.columns]
        return table.column_names, [list(row) for row in zip(*columns, strict=True)]
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    return names, rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("group", "ids"), [(64, False), (2, True)])
def test_each_kind_of_file_holds_the_same(
    kind: str, group: int, ids: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(predictions, "GROUP", group)
    values = KINDS[kind]
    names = ["id"] * ids + [f"p{k}" for k in range(1 if values.ndim == 1 else 3)]
    for suffix in (".csv", ".parquet", ".npy"):
        write_predictions(str(tmp_path / f"p{suffix}"), names, blocks(values, ids=ids), 2500)
    rows = values.reshape(2500, -1).tolist()
    rows = [[name, *row] for name, row in zip(IDS, rows, strict=True)] if ids else rows
    assert read(tmp_path / "p.parquet") == (names, rows)
    assert read(tmp_path / "p.csv") == (names, [[str(cell) for cell in row] for row in rows])
    found = np.load(tmp_path / "p.npy")
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def test_a_name_says_what_is_written() -> None:
    for name in ("p.txt", "p", "p.csv.gz"):
        with pytest.raises(InputError, match=r"to a \.csv, \.parquet or \.npy file"):
            check_name(name)
    for name in ("p.csv", "p.NPY"):
        check_name(name)


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'pyarrow>=18.0', or write \.csv"):
        check_name("p.parquet")


def test_rows_are_called_as_they_are_in_the_table(quick: Start, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    x = np.random.default_rng(0).standard_normal((3000, 2)).round(3)
    lines = [f"n{n},{a},{b},{'yes' if a > 0 else 'no'}" for n, (a, b) in enumerate(x)]
    (tmp_path / "d.csv").write_text("\n".join(["who,a,b,label", *lines]))
    train = ("train", "d.csv", "--target", "label", "--id", "who", "--epochs", "15")
    quick(*train, "--out", "run", "--quiet")
    quick("predict", "run", "d.csv", "--out", "p.parquet", ranks=2)
    names, rows = read(tmp_path / "p.parquet")
    quick("predict", "run", "d.csv", "--out", "p.csv")
    assert (names, rows) == read(tmp_path / "p.csv")
    assert names == ["who", "prediction"]
    assert [who for who, _ in rows] == [f"n{n}" for n in range(3000)]
    assert {name for _, name in rows} == {"yes", "no"}
    (tmp_path / "e.csv").write_text("b,a\n1,2\n")  # without: as the run says, where they are there
    assert quick("predict", "run", "e.csv").stdout == "prediction\nyes\n"
    assert quick("predict", "run", "e.csv", "--id", "b").stdout == "b,prediction\n1,yes\n"
    quick("predict", "run", "d.csv", "--out", "p.NPY")
    assert np.load(tmp_path / "p.NPY").tolist() == [name for _, name in rows]


def test_a_column_none_of_whose_texts_is_known_is_told(quick: Start, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [f"{'abc'[n % 3]},{'xyz'[n % 3]},{n % 3}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    (tmp_path / "new.csv").write_text("a,b,y\nA,z,0\nB,new,1\n")
    assert quick("train", "t.csv", "--target", "y", "--steps", "2", "--out", "run").status == 0
    for command in ("predict", "evaluate"):
        assert quick(command, "run", "t.csv").stderr == ""
        said = quick(command, "run", "new.csv", ranks=2).stderr
        assert said.count("warning") == 1
        assert "new.csv: no text of column 'a', such as 'A', was in the training rows" in said


def test_several_targets_are_told_of_one_by_one_and_by_their_names(
    quick: Start, tmp_path: Path
) -> None:
    """In their own units, as a large one hides how wrong the others are. Those of arrays have no
    names."""
    x = np.random.default_rng(0).standard_normal((2100, 2)).round(3)
    y = np.stack([x[:, 0] + x[:, 1] ** 2, 1e5 - 3e4 * x[:, 0], np.full(len(x), 7)], axis=1)
    lines = [",".join(map(repr, row)) for row in np.concatenate([x, y], axis=1).tolist()]
    (tmp_path / "d.csv").write_text("\n".join(["a,b,low,high,still", *lines]))
    np.savez(tmp_path / "d.npz", x=x, y=(x > 0) * 1)
    targets = [word for name in ("low", "high", "still") for word in ("--target", name)]
    quick("train", "d.csv", *targets, "--steps", "40", "--out", "run", "--quiet")
    quick("predict", "run", "d.csv", "--out", "p.csv", ranks=2)
    names, rows = read(tmp_path / "p.csv")
    assert names == ["prediction_low", "prediction_high", "prediction_still"]
    wrong = np.array(rows, float) - y
    found = json.loads(quick("evaluate", "run", "d.csv", "--json", ranks=2).stdout)
    assert found["targets"] == ["low", "high", "still"]
    np.testing.assert_allclose(found["rmse_each"], np.sqrt(np.square(wrong).mean(axis=0)), 1e-5)
    np.testing.assert_allclose(found["mae_each"], np.abs(wrong).mean(axis=0), 1e-5)
    r2 = 1 - np.square(wrong).sum(axis=0) / np.square(y - y.mean(axis=0)).sum(axis=0).clip(1e-9)
    np.testing.assert_allclose(found["r2_each"][:2], r2[:2], 1e-5)
    assert found["r2_each"][2] is None
    text = quick("evaluate", "run", "d.csv").stdout
    assert re.search(
        rf"^ +low +{found['rmse_each'][0]:.4g} +{found['mae_each'][0]:.4g} ", text, re.MULTILINE
    )
    quick("train", "d.npz", "--steps", "2", "--out", "labels", "--quiet")
    assert json.loads(quick("evaluate", "labels", "d.npz", "--json").stdout)["targets"] == [
        "0",
        "1",
    ]


def test_rows_from_python_come_as_lists_mappings_and_one_by_one() -> None:
    pytest.importorskip("pyarrow")
    x = np.random.default_rng(0).standard_normal((400, 2))
    colour = np.where(x[:, 1] > 0, "red", "blue")
    y = np.where((x[:, 0] > 0) ^ (colour == "red"), "p", "q")
    table = {"x": x[:, 0], "colour": colour, "y": y}
    data = dptrain_.load(table, dptrain_.DataConfig(target=("y",)))
    config = dptrain_.TrainConfig(epochs=20, batch_size=20)
    trained = dptrain_.fit(dptrain_.mlp_for(data), data, config)
    assert re.fullmatch(
        r"Trained\(MLP\(\[4, 128, 2\], .*\), 400 steps, train_loss 0\.\d+, .*\)", repr(trained)
    )
    assert re.match(r"Data\(.*400 rows, 4 inputs.*; target y: p, q, so", repr(data)), repr(data)
    wanted = trained.predict({"colour": ["red", "red"], "x": [1.0, -1.0]}).tolist()
    assert wanted == ["q", "p"]
    assert trained.predict([[1.0, "red"], [-1.0, "red"]]).tolist() == wanted
    rows = [{"colour": "red", "x": 1.0}, {"x": -1.0, "colour": "red"}]
    assert trained.predict(rows).tolist() == wanted
    assert [trained.predict(row).tolist() for row in rows] == [["q"], ["p"]]
    assert trained.predict([-1.0, "red"]).tolist() == ["p"]
    with pytest.raises(InputError, match="not all the same columns"):
        trained.predict([rows[0], {"x": 1.0}])
    with pytest.raises(InputError, match=r"nan in row 1 .* of column 'x'"):
        trained.predict([rows[0], {"x": float("nan"), "colour": "red"}])
    lazy = types.SimpleNamespace(columns=["x", "colour"])
    with pytest.raises(InputError, match=r"x has dtype object and shape \(\)"):
        trained.predict(lazy)


def test_a_single_row_of_numbers_is_one() -> None:
    x = np.random.default_rng(0).standard_normal((300, 3))
    data = dptrain_.load((x, (x[:, 0] > 0).astype(int)))
    trained = dptrain_.fit(dptrain_.mlp_for(data), data, dptrain_.TrainConfig(epochs=1))
    assert trained.predict(x[7]).tolist() == trained.predict(x[7:8]).tolist()
    assert trained.predict([*x[8]]).tolist() == trained.predict(x[8:9]).tolist()
    with pytest.raises(InputError, match="x has 1 columns"):
        trained.predict(x[7][:2])


def test_a_table_for_what_was_trained_on_an_array_is_taken_whole(
    quick: Start, tmp_path: Path
) -> None:
    """Columns that would teach nothing are not left out: the others would take their places."""
    pytest.importorskip("pyarrow")
    x = np.random.default_rng(0).standard_normal((300, 3))
    np.savez(tmp_path / "d.npz", x=x, y=(x[:, 1] > 0).astype(int))
    quick("train", "d.npz", "--epochs", "20", "--out", "run", "--quiet")
    given = {
        "a,b,c\n0,5,1\n0,5,2\n": "prediction\n1\n1\n",
        "a,b,c,d\n0,-5,7,1\n0,-5,7,2\n": "x has 4 columns; the training data has 3",
        "a,b,c\n1,yes,2\n,no,3\n": "x has nan in line 3",
        "a,b,c\n1,yes,2\n2,no,3\n3,,3\n": "x has nan in line 4",
    }
    for text, told in given.items():
        (tmp_path / "p.csv").write_text(text)
        done = quick("predict", "run", "p.csv")
        assert told in done.stdout + done.stderr


@pytest.mark.parametrize("held", [[True], [[1]]])
def test_other_types_than_dates_are_refused(held: list[Any]) -> None:
    pa = pytest.importorskip("pyarrow")
    table = {"day": np.array(["2026-01-05", "2026-02-06"] * 9, "M8[D]"), "y": np.arange(18) % 2}
    data = dptrain_.load(table, dptrain_.DataConfig(target=("y",)))
    config = dptrain_.TrainConfig(epochs=1, batch_size=9)
    trained = dptrain_.fit(dptrain_.mlp_for(data), data, config)
    with pytest.raises(InputError, match="column 'day' holds"):
        trained.predict(pa.table({"day": held}))
