"""Shows that predictions are the same numbers and words in every kind of file."""

import csv
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start
from numpy.typing import NDArray

from dptrain.config import InputError
from dptrain.run import predictions
from dptrain.run.predictions import check_name, write_predictions

Array = NDArray[Any]
WORDS = np.array(["q", "é\n\"'", "a,b"])
KINDS = {
    "words": np.resize(WORDS, 2500),
    "whole numbers": np.arange(2500) * 2**40,
    "values": np.random.default_rng(0).standard_normal(2500).astype(np.float32),
    "probabilities": np.random.default_rng(1).random((2500, 3)),
}


def blocks(values: Array) -> Iterator[Array]:
    return iter(np.split(values, [1024, 2048]))


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
@pytest.mark.parametrize("group", [2**16, 2000])
def test_each_kind_of_file_holds_the_same(
    kind: str, group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(predictions, "GROUP", group)
    values = KINDS[kind]
    names = [f"p{k}" for k in range(1 if values.ndim == 1 else 3)]
    for suffix in (".csv", ".parquet", ".npy"):
        write_predictions(str(tmp_path / f"p{suffix}"), names, blocks(values), 2500)
    rows = values.reshape(2500, -1).tolist()
    assert read(tmp_path / "p.parquet") == (names, rows)
    assert read(tmp_path / "p.csv") == (names, [[str(cell) for cell in row] for row in rows])
    found = np.load(tmp_path / "p.npy")
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def test_a_name_says_what_is_written() -> None:
    for name in ("p.txt", "p", "p.csv.gz"):
        with pytest.raises(InputError, match=r"to a \.csv, \.parquet or \.npy file"):
            check_name(name)
    for name in ("p.csv", "p.npy"):
        check_name(name)


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'dptrain\[tables\]', or write \.csv"):
        check_name("p.parquet")


def test_ranks_write_one_parquet_file(dptrain: Start, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    x = np.random.default_rng(0).standard_normal((3000, 3))
    np.savez(tmp_path / "d.npz", x=x, y=np.where(x[:, 0] > 0, "yes", "no"))
    dptrain("train", "d.npz", "--epochs", "1", "--out", "run", "--quiet")
    dptrain("predict", "run", "d.npz", "--out", "p.parquet", ranks=2)
    names, rows = read(tmp_path / "p.parquet")
    dptrain("predict", "run", "d.npz", "--out", "p.csv")
    assert (names, rows) == read(tmp_path / "p.csv")
    assert names == ["prediction"]
    assert {name for (name,) in rows} == {"yes", "no"}
