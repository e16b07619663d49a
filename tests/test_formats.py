"""The same rows give the same bytes, whatever they are stored as, on any number of ranks."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from conftest import start

import dptrain
from dptrain import DataConfig, InputError, World
from dptrain.run.convert import convert

ROWS = 2100

SCRIPT = """
import sys
from mpi4py import MPI
import dptrain
from dptrain import DataConfig, TrainConfig, World

dptrain.connect()
inputs = ("size", "rooms", "town", "street", "garden", "sold")  # HDF5 keeps no order
config = DataConfig(target=("price",), features=inputs, weight="w", id=("name",), validation=0.2)
for number, path in enumerate(sys.argv[1:]):
    size = max(1, MPI.COMM_WORLD.size - number % 3)  # 4, 3 or 2 of four ranks
    comm = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank < size)
    if MPI.COMM_WORLD.rank >= size:
        continue
    world = World(comm)
    data = dptrain.load(path, config, world=world)
    model = dptrain.mlp_for(data)
    trained = dptrain.fit(model, data, TrainConfig(steps=5, shards=3), world=world)
    loss = trained.summary.metrics["validation_rmse"]
    if world.rank == 0:
        print(world.size, path, trained.summary.params_sha256, loss.hex(), flush=True)
"""


def columns() -> dict[str, Any]:
    """Return numbers, gaps, words, yes and no, dates, weights, names and values to predict.

    Streets are too many for an input each, so that numbers are learned for them.
    """
    rng = np.random.default_rng(0)
    size = rng.normal(3, 2, ROWS).round(3)
    rooms = rng.integers(1, 9, ROWS)
    return {
        "name": np.array([f"house {n}" for n in range(ROWS)]),
        "size": np.where(rng.random(ROWS) < 0.1, np.nan, size),
        "rooms": rooms,
        "town": np.array(["Oslo", "Rome", "Ulm", "Bern"])[rng.integers(0, 4, ROWS)],
        "street": np.array(["", *(f"{n}th street" for n in range(40))])[rng.integers(0, 41, ROWS)],
        "garden": rng.random(ROWS) < 0.5,
        "sold": np.datetime64("2013-01-01", "s") + rng.integers(0, 10**8, ROWS) // 3600 * 3600,
        "w": rng.integers(0, 4, ROWS),
        "price": (1000 * size + 77.5 * rooms).round(2),
    }


def write_all(folder: Path) -> Iterator[str]:
    """Yield the names of files that hold the same rows."""
    found = columns()
    table = pa.table({k: pa.array(v, from_pandas=True) for k, v in found.items()})
    pa.csv.write_csv(table, folder / "a.csv")
    yield "a.csv"
    text = (folder / "a.csv").read_text()
    (folder / "a.tsv.gz").write_bytes(gzip.compress(text.replace(",", "\t").encode()))
    yield "a.tsv.gz"
    head, *lines = text.splitlines(keepends=True)
    (folder / "parts").mkdir()
    for number in range(3):
        part = lines[number * 1000 : (number + 1) * 1000]
        with pa.CompressedOutputStream(folder / "parts" / f"{number}.csv.zst", "zstd") as file:
            file.write("".join([head, *part]).encode())
    yield "parts"
    pa.parquet.write_table(table, folder / "a.parquet", row_group_size=700)
    yield "a.parquet"
    pa.parquet.write_table(table.slice(0, 1100), folder / "b-0.parquet")
    pa.parquet.write_table(table.slice(1100), folder / "b-1.parquet")
    yield "b-*.parquet"
    pa.feather.write_feather(table, folder / "a.feather")
    yield "a.feather"
    plain = {k: v.astype("U") if v.dtype.kind == "M" else v for k, v in found.items()}
    with h5py.File(folder / "a.h5", "w") as file:
        for name, values in plain.items():
            file[name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values
    yield "a.h5"
    np.savez(folder / "a.npz", **found)
    yield "a.npz"
    np.savez_compressed(folder / "b.npz", **plain)
    yield "b.npz"
    rows = np.empty(ROWS, [(name, values.dtype) for name, values in plain.items()])
    for name, values in plain.items():
        rows[name] = values
    np.save(folder / "a.npy", rows)
    yield "a.npy"
    config = DataConfig(target=("price",), weight="w", id=("name",))
    convert([str(folder / "a.csv")], folder / "converted", config, World(), lambda *_: None)
    yield "converted"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


def test_one_sha256_for_all_formats_on_1_to_4_ranks(folder: Path) -> None:
    files = list(write_all(folder))
    (folder / "train.py").write_text(SCRIPT)
    found = {}
    for ranks in (1, 4):
        done = start("python", "train.py", *files, ranks=ranks, cwd=folder)
        assert done.status == 0, done.stderr
        for line in done.stdout.splitlines():
            size, name, *result = line.split()
            found[size, name] = tuple(result)
    assert len(found) == 2 * len(files)
    assert {size for size, _ in found} == {*"1234"}
    assert len({*found.values()}) == 1, found


def test_what_directories_are_named_by_is_a_column(folder: Path) -> None:
    """An empty one is a gap; a copy that an editor has left beside a file is none of the data."""
    towns = (2023, "Ulm"), (2024, "New%20York"), (2024, "__HIVE_DEFAULT_PARTITION__"), (2023, "")
    for year, town in towns:
        part = folder / "by" / f"year={year}" / f"town={town}"
        part.mkdir(parents=True)
        rows = pa.table({"a": [0.5, 1.5], "y": [year + 0.5, year + 1.25]})
        pa.parquet.write_table(rows, part / "0.parquet")
        pa.parquet.write_table(rows, part / "0.parquet~")
    data = dptrain.load(folder / "by", DataConfig(target=("y",)), world=World())
    assert data.encoding.features == ("a", "year", "town")
    assert data.train.raw_x(slice(None))[:, 1].tolist() == [2023] * 4 + [2024] * 4
    assert data.encoding.fields[2].words == ("New York", "Ulm", None)
    one = dptrain.load(folder / "by" / "year=2024", DataConfig(target=("y",)), world=World())
    assert one.encoding.features == ("a", "town")
    pa.parquet.write_table(pa.table({"a": [2.5], "y": [1.5]}), folder / "by" / "2.parquet")
    with pytest.raises(InputError, match=r"2.parquet has no column 'town', as .*--drop town"):
        dptrain.load(folder / "by", DataConfig(target=("y",)), world=World())
    (folder / "text" / "year=1").mkdir(parents=True)
    (folder / "text" / "year=1" / "0.csv").write_text("a,y\n1,2\n")
    with pytest.raises(InputError, match="directory named key=value"):
        dptrain.load(folder / "text", DataConfig(target=("y",)), world=World())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_need_the_same_columns_only_where_these_are_read(tmp_path: Path, kind: str) -> None:
    write = pa.csv.write_csv if kind == "csv" else pa.parquet.write_table
    rows: Any = {"a": [0.5, 1.5], "b": [1.0, 3.5], "y": [1.25, 2.5]}
    for number, more in enumerate(
        ({}, {"extra": [1.0, 2.0]}, {"note": ["p", "q"], "b": [2.5, 9.0]})
    ):
        write(pa.table(rows | more), tmp_path / f"{number}.{kind}")
    for drop, words in [
        ((), f"0.{kind} has no column 'extra', as others have.* --drop extra"),
        (("extra",), f"0.{kind} has no column 'note'.* --drop note"),
        (("z",), "has no column 'z'; valid: a, b, y, extra, note"),
    ]:
        with pytest.raises(InputError, match=words):
            dptrain.load(tmp_path, DataConfig(target=("y",), drop=drop), world=World())
    for config in (
        DataConfig(target=("y",), drop=("extra", "n*")),
        DataConfig(target=("y",), features=("a", "b")),
    ):
        data = dptrain.load(tmp_path, config, world=World())
        assert data.train.raw_x(slice(None))[:, 1].tolist() == [1, 3.5, 1, 3.5, 2.5, 9]
    config = DataConfig(target=("note",), drop=("extra",))
    with pytest.raises(InputError, match=r"have; give the same$"):
        dptrain.load(tmp_path, config, world=World())


@pytest.mark.filterwarnings("ignore")  # nobody writes the first one any more
def test_older_and_streamed_arrow_files_are_read(tmp_path: Path) -> None:
    table = pa.table({"a": np.arange(50) / 2, "y": np.arange(50) * 1.5})
    pa.feather.write_feather(table, tmp_path / "one.feather", version=1)
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as stream:
        stream.write_table(table)
    for path in tmp_path.iterdir():
        data = dptrain.load(path, DataConfig(target=("y",)), world=World())
        assert data.train.raw_y(slice(None)).tolist() == table["y"].to_pylist()
