"""Arrays, typed columns and directories: what each holds is read, or refused with the reason."""

import gzip
import io
import os
import traceback
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

import dptrain
from dptrain import DataConfig, InputError
from dptrain.config import Scale
from dptrain.data.assemble import ROWS
from dptrain.data.given import given as table_of
from dptrain.data.roles import Roles
from dptrain.data.show import look
from dptrain.run.convert import convert
from dptrain.run.rows import as_rows

ALONE = dptrain.World()
Y = DataConfig(target=("y",))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (
            ["0.5", "1.5"],
            r"row 0 .* has '0.5' in column 'y'; is it a number\? Store it as one; or .*--t",
        ),
        (["p", "$1", "$2"], r"row 1 .* has '\$1' in column 'y'; is it a number"),
        (["2013-01-05", "2013-02-05"], "'2013-01-05' in column 'y'; is it a date"),
    ],
)
def test_texts_to_predict_that_look_like_values_are_in_doubt_where_they_are_stored_as_texts(
    tmp_path: Path, cells: list[str], words: str
) -> None:
    rows = pa.table({"a": ["12", "M15", "7"][: len(cells)] * 4, "y": cells * 4})
    pa.feather.write_feather(rows, tmp_path / "d.feather")
    with pytest.raises(InputError, match=words):
        dptrain.load(tmp_path / "d.feather", Y, world=ALONE)
    classes = DataConfig(target=("y",), task="classification")
    data = dptrain.load(tmp_path / "d.feather", classes, world=ALONE)
    assert data.encoding.classes.tolist() == sorted(cells)
    pa.feather.write_feather(pa.table({"a": ["$5", "$6"], "y": ["1", "2"]}), tmp_path / "d.feather")
    with pytest.raises(InputError, match=r"'\$5' in column 'a'; which looks like a number"):
        dptrain.load(tmp_path / "d.feather", Y, world=ALONE)


@pytest.mark.parametrize(("many", "mark"), [(40, ""), (9, "."), (40, ".")])
def test_numbers_that_are_stored_as_texts_are_in_doubt_where_they_are_no_codes(
    many: int, mark: str
) -> None:
    cells = [f"7{mark}{row % many}" for row in range(80)]
    rows = pa.table({"a": cells, "y": np.arange(80) / 4})
    if mark and many > 32:
        with pytest.raises(InputError, match=r"'7.0' in column 'a'; .* like a number: store it as"):
            dptrain.load(rows, Y, world=ALONE)
    else:
        assert dptrain.load(rows, Y, world=ALONE).encoding.fields[0].words == (*sorted({*cells}),)


def test_a_frame_beside_its_target_is_a_table() -> None:
    """So rows to predict have their columns in any order: by their places they'd be mixed up."""
    x = pa.table({"a": np.arange(40.0), "b": np.arange(40) % 7 * 1.0, "c": ["p", "q"] * 20})
    y = np.array(["low", "high"])[(np.arange(40) > 20) * 1]
    data = dptrain.load((x, y), world=ALONE)
    assert data.encoding.features == ("a", "b", "c")
    trained = dptrain.fit(dptrain.mlp_for(data), data, dptrain.TrainConfig(epochs=9), world=ALONE)
    found = trained.predict(x)
    assert (trained.predict(x.select(["c", "b", "a"])) == found).all()
    row = x.slice(30, 1).to_pylist()[0]
    assert trained.predict(Series(row)).tolist() == trained.predict(row).tolist() == [found[30]]
    for beside in (y[:, None], y.tolist(), Series(dict(enumerate(y))), pa.array(y)):
        assert dptrain.load((x, beside), world=ALONE).told == data.told
    assert "target y: 2 numbers a row" in dptrain.load((x, np.zeros((40, 2)) + 0.5)).told[-1]
    named = Series(dict(enumerate(y)), "label")
    assert dptrain.load((x, named), world=ALONE).encoding.targets == ("label",)
    both = x.append_column("y", pa.array(y))
    for given, config, test in [
        ((x, y), DataConfig(), both), ((x, y), DataConfig(), (x, y)), (both, Y, (x, y))
    ]:  # fmt: skip
        rows = dptrain.load(given, config, test=test, world=ALONE).test
        assert rows is not None
        assert rows.raw_y(slice(None)).shape == (40,)
    assert dptrain.load((both, None), Y, world=ALONE).told == data.told
    for wrong, config, words in [
        (y[1:], DataConfig(), "length 40 but got length 39"),
        (3.5, DataConfig(), "can't be read: len"),
        (Series(dict(enumerate(y)), "a"), DataConfig(), "two columns named 'a'"),
        (y, DataConfig(target=("a",)), "two columns named 'a'"),
        (named, DataConfig(target=("a",)), "'a' is given, and a y beside"),
    ]:
        with pytest.raises(InputError, match=words):
            dptrain.load((x, wrong), config, world=ALONE)


class Series:
    """A row or a column of pandas, as far as it is looked at."""

    def __init__(self, cells: Mapping[Any, Any], name: str | None = None) -> None:
        self._cells, self.name, self.ndim = cells, name, 1

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array([*self._cells.values()], dtype)

    def to_dict(self) -> dict[Any, Any]:
        return dict(self._cells)


def test_arrays_of_other_lengths_are_told_how_they_are_left_out() -> None:
    """A simulation's file holds its mesh beside its runs."""
    arrays = {"a": np.arange(9.0), "mesh": np.arange(5.0), "y": np.arange(9) / 4}
    with pytest.raises(InputError, match=r"'mesh': 5.* by --features, or .* with --drop$"):
        dptrain.load(arrays, Y, world=ALONE)
    for config in replace(Y, drop=("mesh",)), replace(Y, features=("a",)):
        assert dptrain.load(arrays, config, world=ALONE).encoding.features == ("a",)


def test_a_sparse_array_is_refused_with_what_makes_numbers_of_it() -> None:
    class Sparse:
        shape, dtype = (3, 2), np.dtype(float)

        def __len__(self) -> int:
            raise TypeError("sparse array length is ambiguous")

        def __getitem__(self, rows: Any) -> Any:
            raise NotImplementedError

        def toarray(self) -> Any:
            return np.zeros(self.shape)

    plain = np.arange(6.0).reshape(3, 2)
    data = dptrain.load((plain, [0, 1, 0]), world=ALONE)
    trained = dptrain.fit(dptrain.mlp_for(data), data, dptrain.TrainConfig(epochs=1), world=ALONE)
    for given in (Sparse(), [0, 1, 0]), Sparse():
        with pytest.raises(InputError, match=r"x is sparse; give numbers: x.toarray\(\)"):
            dptrain.load(given, world=ALONE)
    with pytest.raises(InputError, match="x is sparse"):
        trained.predict(Sparse())


@pytest.mark.parametrize("fault", [IndexError, KeyError, OSError])
def test_items_that_fail_are_named_with_the_traceback_of_their_code(fault: type[Exception]) -> None:
    class Items(list[Any]):
        def __getitem__(self, row: Any) -> Any:
            if row == 20:
                raise fault("no such image")
            return [row, 1.0], row % 2

    with pytest.raises(InputError, match=rf"data\[20\] fails: {fault.__name__}\('no such") as told:
        dptrain.load(Items(range(40)), world=ALONE)
    cause = told.value.__cause__
    while cause and cause.__cause__:
        cause = cause.__cause__
    assert isinstance(cause, fault)
    assert [Path(f.filename).name for f in traceback.extract_tb(cause.__traceback__)] == [
        Path(__file__).name
    ]


def test_two_arrays_in_one_are_not_read_as_one(tmp_path: Path) -> None:
    x = np.arange(12.0)[:, None]
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(12) % 2)
    with (tmp_path / "x.npy").open("ab") as file:
        np.save(file, x)
    with pytest.raises(InputError, match="is several in one"):
        dptrain.load([tmp_path / "x.npy", tmp_path / "y.npy"], world=ALONE)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for name in "yx":
            archive.write(tmp_path / "y.npy", f"{name}.npy")
        with pytest.warns(match="Duplicate"):
            archive.write(tmp_path / "y.npy", "x.npy")
    with pytest.raises(InputError, match="two arrays of one name"):
        dptrain.load(tmp_path / "d.npz", world=ALONE)
    with pytest.raises(InputError, match="given twice"):
        dptrain.load([tmp_path / "y.npy", tmp_path / "y.npy"], world=ALONE)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["rows"] = np.zeros(3, [("a", "f4"), ("y", "f4")])
    with pytest.raises(InputError, match="no array of numbers or texts; store each column"):
        dptrain.load(tmp_path / "d.h5", Y, world=ALONE)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["a"], file["y"], file["z"] = np.eye(3)[0], [0.5, 1.5, 2.5], np.ones(3) * 1j
    with pytest.raises(InputError, match=r"z can't be a column: .*; leave it out with --drop z"):
        dptrain.load(tmp_path / "e.h5", Y, world=ALONE)
    data = dptrain.load(tmp_path / "e.h5", replace(Y, drop=("z",)), world=ALONE)
    assert data.encoding.features == ("a",)
    told = dptrain.load((np.arange(12) % 5, np.arange(24).reshape(12, 2)), world=ALONE).told
    assert "y has 2 numbers a row, x 1: should x be given first?" in told


FAR = 2**60
"""Seconds."""

TYPED: dict[str, tuple[Any, str | list[list[float]]]] = {
    "lists of texts": (pa.array([["a", "b"]] * 2, pa.list_(pa.string(), 2)), "holds fixed_size"),
    "lists of lists": (
        pa.array([[[1.0], [2.0]]] * 2, pa.list_(pa.list_(pa.float64(), 1), 2)), "holds fixed_size"
    ),
    "a list with a gap": (
        pa.array([[1.0, 2.0], [1.0, None]], pa.list_(pa.float64(), 2)), "nan in row 1 .* column 'x'"
    ),
    "lists of any length": (pa.array([[1.0, 2.0], [3.0, 4.0]]), [[1, 1, 2], [2, 3, 4]]),
    "lists of uneven lengths": (pa.array([[1.0], [3.0, 4.0]]), "holds list<.*lists of as many"),
    "no list": (pa.array([[1.0], None]), "holds list<"),
    "bytes that are no text": (pa.array([b"a", b"\xff"]), "holds binary"),
    "tensors": (
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 2, 2))), "holds extension<.*tensor"
    ),
    "intervals": (pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval()), "holds month_day"),
    "years that none has": (pa.array([FAR, FAR + 9], pa.timestamp("s")), "holds timestamp"),
    "bytes of another kind": (pa.array([b"a", b"b"], pa.binary_view()), [[1], [2]]),
    "time in nanoseconds": (pa.array([1500, 2 * 10**9], pa.duration("ns")), [[1, 1], [2, 2e6]]),
    "time in seconds": (pa.array([None, 2], pa.duration("s")), [[1, 2e6, 1], [2, 2e6, 0]]),
    "more time than there is": (pa.array([FAR, 1], pa.duration("s")), "holds duration"),
    "gaps alone": (pa.nulls(2, pa.string()), [[1], [2]]),
    "categories as polars has them": (
        pa.DictionaryArray.from_arrays(
            pa.array([0, 1]), pa.array(["u", "v"], pa.string_view())
        ).slice(0, 2), [[1], [2]],
    ),
    "a frame's numbers of rows": (pa.array([7, 7]), [[1], [2]]),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_a_typed_column_is_read_or_refused_by_its_type(tmp_path: Path, case: str) -> None:
    values, found = TYPED[case]
    name = "__index_level_0__" if "frame" in case else "x"
    rows = pa.table({"a": [1.0, 2.0], name: values, "y": ["p", "q"]})
    pa.feather.write_feather(rows, tmp_path / "d.feather")
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            dptrain.load(tmp_path / "d.feather", Y, world=ALONE)
    else:
        data = dptrain.load(tmp_path / "d.feather", Y, world=ALONE)
        np.testing.assert_array_equal(data.train.raw_x(slice(None)), found)
        again = as_rows(pa.table({"x": values, "a": [1.0, 2.0]}), data.encoding)
        np.testing.assert_array_equal(again.raw_x(slice(None)), found)


def test_lists_are_as_long_in_every_piece_and_in_the_rows_to_predict() -> None:
    rows = [[1.0, float(row % 7)] for row in range(ROWS)]
    y = np.arange(ROWS + 2) % 2
    with pytest.raises(InputError, match="column 'v' holds lists of 2 numbers and of 3"):
        dptrain.load(pa.table({"v": [*rows, *[[1.0, 2.0, 3.0]] * 2], "y": y}), Y, world=ALONE)
    data = dptrain.load(pa.table({"v": rows[:8], "w": range(8), "y": y[:8]}), Y, world=ALONE)
    model = dptrain.mlp_for(data)
    trained = dptrain.fit(model, data, dptrain.TrainConfig(steps=1), world=ALONE)
    assert trained.predict(pa.table({"v": rows[:3], "w": range(3)})).shape == (3,)
    assert trained.predict({"v": [1.0, 2.0], "w": 3}).shape == (1,)
    with pytest.raises(InputError, match="'v' holds 3 a row; the training rows have 2"):
        trained.predict(pa.table({"v": [[1.0, 2.0, 3.0]], "w": [1]}))
    with pytest.raises(InputError, match="'v' holds 1 a row; the training rows have 2"):
        trained.predict(pa.table({"v": [1.0], "w": [[1.0, 2.0]]}))


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_names_of_columns_in_npy_may_be_any_texts(tmp_path: Path) -> None:
    rows = np.array([(1.5, 0), (2.5, 1)], [("価格", "f8"), ("y", "i8")])
    np.save(tmp_path / "d.npy", rows)
    data = dptrain.load(tmp_path / "d.npy", Y, world=ALONE)
    assert data.encoding.features == ("価格",)


@pytest.mark.parametrize("name", ["d.xlsx", "d.json"])
def test_files_that_nothing_reads_are_told_by_their_names(tmp_path: Path, name: str) -> None:
    content = b"PK\x03\x04" if name == "d.xlsx" else b'[{"a": 1, "y": 2}]'
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is named .* which nothing here reads"):
        dptrain.load(tmp_path / name, Y, world=ALONE)


def test_the_largest_whole_numbers_are_told_apart() -> None:
    """A float above 2**53 stands for its neighbours too, and makes no class."""
    x = np.ones((27, 1))
    floats, whole = np.array([1e19, 2e19, 3e19] * 9), np.array([2**64 - 1, 2**63, 3] * 9, np.uint64)
    assert dptrain.load((x, floats), world=ALONE).encoding.task == "regression"
    lost = np.array([2.0**53, 2.0**53 + 1, 3] * 9)
    assert dptrain.load((x, lost), world=ALONE).encoding.task == "regression"
    classes = DataConfig(task="classification")
    with pytest.raises(InputError, match=r"label 1e\+19 in row 0; give a whole number below"):
        dptrain.load((x, floats), classes, world=ALONE)
    with pytest.raises(InputError, match="3, 9223372036854775808, 18446744073709551615"):
        dptrain.load((x, whole), world=ALONE)
    found = dptrain.load((x, whole), classes, world=ALONE).encoding.classes
    assert found.tolist() == [3, 2**63, 2**64 - 1]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"x": np.ones((12, 1)), "y": np.arange(12)}, r"b\.npz has rows of shape \(1,\)"),
        ({"x": np.ones((7, 2)), "y": np.arange(12)}, r"x and y have \[12, 7\] and \[7, 12\] rows"),
        ({"x": np.ones((12, 2)), "z": np.arange(12)}, "b.npz holds other arrays"),
    ],
)
def test_files_that_are_no_one_data_set(
    tmp_path: Path, second: Mapping[str, Any], words: str
) -> None:
    num = 24 - len(second["x"]) - 5 * (len(second["x"]) == 7)
    y = np.arange(7 if len(second["x"]) == 7 else 12)
    np.savez(tmp_path / "a.npz", x=np.ones((num, 2)), y=y, about=np.array(3))
    np.savez(tmp_path / "b.npz", **second, about=np.array(3))
    with pytest.raises(InputError, match=words):
        dptrain.load(tmp_path, world=ALONE)


@pytest.mark.parametrize("config", [{"weight": "w"}, {"features": ("a",)}, {"drop": ("a",)}])
def test_columns_of_arrays_are_not_asked_for_in_vain(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is given, but the data is no table with named columns"):
        dptrain.load((np.eye(2), np.arange(2)), DataConfig(**config), world=ALONE)


def test_names_of_classes_may_be_any_texts(tmp_path: Path) -> None:
    """As pandas has them in a column, and HDF5 in a file."""
    names = np.array(["p", "q"] * 6, object)
    x = np.arange(12.0)[:, None]
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"], file["y"] = x, names.astype(h5py.string_dtype())
    for data in (tmp_path / "d.h5", (x, names)):
        assert dptrain.load(data, world=ALONE).encoding.classes.tolist() == ["p", "q"]


class Own(dptrain.MLP):
    pass


def test_what_is_given_in_python_is_looked_at_where_it_is_given(tmp_path: Path) -> None:
    """A class in the place of its object, a mapping of settings, one run, arrays unread."""
    x, y = np.arange(12.0)[:, None], np.arange(12) % 2
    data, run = dptrain.load((x, y), world=ALONE), tmp_path / "run"
    dptrain.fit(Own([1, 2]), data, dptrain.TrainConfig(steps=2), out=run, world=ALONE)
    given: Any = dptrain
    calls: dict[str, Callable[[], object]] = {
        "config is of type dict; give a dptrain.DataConfig": lambda: given.load((x, y), {}),
        "config is of type dict; give a dptrain.ModelConfig": lambda: given.mlp_for(data, {}),
        "data is of type tuple; give what dptrain.load": lambda: given.mlp_for((x, y)),
        "the model is <class '.*Own'>; give": lambda: given.load_trained(run, Own),
        "the model is 3; give": lambda: given.verify(run, "all", (x, y), model=3, world=ALONE),
        "replay is (1, 2); give two steps": lambda: given.verify(run, (1, 2), world=ALONE),
        "there is no run to be drawn": lambda: given.plot_runs([]),
    }
    for words, call in calls.items():
        with pytest.raises(InputError, match=words.replace("(1, 2)", r"\(1, 2\)")):
            call()
    assert dptrain.plot_runs(str(run), tmp_path / "curves.svg") != []


def test_what_has_no_rows_is_no_target() -> None:
    for y in (map(int, "01"), None.__class__, 1):
        with pytest.raises(InputError, match=r"y has dtype \w+ and shape \(\); give rows of .*s$"):
            dptrain.load((np.eye(2), y), world=ALONE)
    with pytest.raises(InputError, match=r"y\.astype\(float\) makes numbers, astype\(str\) names"):
        dptrain.load((np.eye(2), np.array([1, 2], object)), world=ALONE)


def test_what_a_frame_has_for_none_is_a_gap() -> None:
    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise OverflowError("int too large")  # as pandas says

    cells = np.array(["p", np.nan, "q"] * 4, object)
    data = dptrain.load({"a": cells, "y": np.arange(12) % 2}, Y, world=ALONE)
    assert data.encoding.fields[0].words == ("p", "q", None)
    with pytest.raises(InputError, match="data can't be read: int too large"):
        dptrain.load(Frame(), Y, world=ALONE)


def stored(kind: str, number: int) -> bytes:
    """Return a file's bytes."""
    x, y, file = np.arange(9) + number, np.arange(9) % 2, io.BytesIO()
    rows = pa.table({"a": x, "y": y})
    if kind == "idx.gz":
        return gzip.compress(b"\0\0\x08\1\0\0\0\x09" + bytes(9))
    if kind == "npz":
        np.savez(file, x=x, y=y)
    elif kind == "parquet":
        pa.parquet.write_table(rows, file)
    else:
        with (pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream)(file, rows.schema) as to:
            to.write_table(rows, 4)
    return bytes(file.getbuffer())


@pytest.mark.parametrize("kind", ["parquet", "arrow", "ipc", "npz", "idx.gz"])
def test_several_files_in_one_are_refused(tmp_path: Path, kind: str) -> None:
    """Only one of them would be read, as its rows' places are counted from an end."""
    names = [tmp_path / f"{n}.{kind}" for n in range(2 if kind == "idx.gz" else 1)]
    for name in names:
        name.write_bytes(stored(kind, 0))
    config = Y if kind in ("parquet", "arrow", "ipc") else DataConfig()
    if kind != "idx.gz":
        assert len(dptrain.load(names, config, world=ALONE).train) == 9
    names[0].write_bytes(stored(kind, 0) + stored(kind, 100))
    with pytest.raises(InputError, match="it is several files in one, of which only one would"):
        dptrain.load(names, config, world=ALONE)


def test_links_of_hdf5_are_followed_where_they_lead_to_something(tmp_path: Path) -> None:
    """As a directory's are; of an array that is not there nothing is known."""
    with h5py.File(tmp_path / "o.h5", "w") as other, h5py.File(tmp_path / "d.h5", "w") as file:
        other["rows"] = np.arange(12.0).reshape(6, 2)
        file["run/label"] = np.arange(6) % 2
        file["x"] = h5py.ExternalLink("o.h5", "/rows")
        file["y"] = h5py.SoftLink("/run/label")
        file["gone"], file["lost"] = h5py.SoftLink("/none"), h5py.ExternalLink("none.h5", "/x")
    data = dptrain.load(tmp_path / "d.h5", world=ALONE)
    assert data.train.raw_x(slice(None)).tolist() == np.arange(12.0).reshape(6, 2).tolist()
    with pytest.raises(InputError, match="holds run/label, x, y; lost is not among them"):
        dptrain.load(tmp_path / "d.h5", DataConfig(x="lost"), world=ALONE)


@pytest.mark.parametrize("chunks", [(700, 2), None])
def test_rows_of_hdf5_that_nobody_wrote_are_refused(
    tmp_path: Path, chunks: tuple[int, int] | None
) -> None:
    """There may be any number of them: they take no room in the file."""
    for name, first in (("part", 700 if chunks else 3000), ("whole", 0)):
        with h5py.File(tmp_path / name, "w") as file:
            file["y"] = np.arange(3000) % 2
            x = file.create_dataset("x", (3000, 2), "f4", chunks=chunks)
            file.create_dataset("names", (10**9,), h5py.string_dtype())  # which nobody asks for
            if first < 3000:
                x[first:] = np.arange(6000).reshape(3000, 2)[first:]
    with pytest.raises(InputError, match=r"/x has 3,000 rows, not all of which were written"):
        dptrain.load(tmp_path / "part", world=ALONE)
    assert len(dptrain.load(tmp_path / "whole", world=ALONE).train) == 3000


def test_rows_of_hdf5_that_are_in_other_files_or_stand_for_others_are_refused(
    tmp_path: Path,
) -> None:
    """Where these are missing, or shorter, their place is filled with zeros."""
    layout = h5py.VirtualLayout((6, 2), "f4")
    layout[:4] = h5py.VirtualSource(tmp_path / "none.h5", "x", (4, 2))
    external = [(tmp_path / "raw", 0, h5py.h5f.UNLIMITED)]
    (tmp_path / "raw").write_bytes(b"1234")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["y"] = np.arange(6) % 2
        file.create_virtual_dataset("v", layout)
        file.create_dataset("e", (6, 2), "f4", external=external)
        file["s"], file["g"] = np.zeros((6, 2), "i2"), np.where(np.eye(6), -9999.0, 1)
        file["s"].attrs["scale_factor"], file["g"].attrs["_FillValue"] = 0.5, [-9999.0]
        file["m"] = file["g"][:]
        file["m"].attrs["missing_value"] = -9999.0
    gaps = "has gaps, written as -9999"
    for name, words in (("s", "has a scale_factor"), ("g", gaps), ("m", gaps)):
        with pytest.raises(InputError, match=f"/{name} {words}"):
            dptrain.load(tmp_path / "d.h5", DataConfig(x=name, y="y"), world=ALONE)
    for name in "ve":
        with pytest.raises(InputError, match=f"/{name} is in other files; give those"):
            dptrain.load(tmp_path / "d.h5", DataConfig(x=name, y="y"), world=ALONE)


NOTHING = "nothing to learn from what is the same in every row, or nearly: "


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_numbers_of_an_array_that_never_change_are_told_of(tmp_path: Path, scale: Scale) -> None:
    """Converted or not; those that change by 1 are others, though nothing divides them."""
    x = np.stack([np.full(40, 7), np.arange(40) % 2 * 2 - 1, np.arange(40) // 20, np.zeros(40)], 1)
    x[:, 3] = np.arange(40) % 2 * 5e-324  # of which the inverse is no number
    y, config = np.arange(40) % 2, DataConfig(scale=scale)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    convert([str(tmp_path / "d.npz")], tmp_path / "d", DataConfig(), ALONE, lambda *_: None)
    for data in ((x, y), tmp_path / "d.npz", tmp_path / "d"):
        told = dptrain.load(data, config, world=ALONE).told
        assert f"{NOTHING}x[0], x[3]" in told
    assert not any("same" in line for line in dptrain.load((x[:, 1:3], y), config).told)
    told = dptrain.load((x[:, 1:3], np.stack([x[:, 1], x[:, 0]], 1)), config, world=ALONE).told
    assert f"{NOTHING}y[1]" in told
    told = dptrain.load((x[:, :1], y), config, world=ALONE).told
    assert f"{NOTHING}x" in told


def test_a_name_that_no_file_can_have_is_refused() -> None:
    for name in ("a\0b.csv", "a\ud800.csv", "a\udc7f.csv", "a\udd00.csv", "\udfff*"):
        with pytest.raises(InputError, match="names no file; give a CSV"):
            dptrain.load(name, world=ALONE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: (folder / "more").mkdir(), "more is a directory among the files of"),
        (lambda folder: (folder / "b.csv").symlink_to("none.csv"), "b.csv: No such file"),
        (
            lambda folder: (folder / "b.csv").symlink_to("a.csv"),
            "b.csv is a file that is given twice",
        ),
        (lambda folder: os.mkfifo(folder / "b.csv"), "b.csv is a pipe"),
    ],
)
def test_no_part_of_a_directory_is_left_out_in_silence(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    (tmp_path / "a.csv").write_text("a,y\n1,p\n2,q\n")
    make(tmp_path)
    with pytest.raises(InputError, match=words):
        dptrain.load(tmp_path, DataConfig(target=("y",)), world=ALONE)
    with pytest.raises(InputError, match="'' names no file"):
        dptrain.load("", DataConfig(target=("y",)), world=ALONE)


def pairs(*labels: Any) -> Any:
    """Return an object that hands out pairs of a row's number and its label."""
    return [(float(row), label) for row, label in enumerate(labels)]


def test_labels_that_an_object_hands_out_are_whole_whatever_the_first_one_is() -> None:
    """A longer name is not cut, and a larger number none that fits."""
    data = dptrain.load(pairs("p", "pear", "plum", "p"), world=ALONE)
    assert data.encoding.classes.tolist() == ["p", "pear", "plum"]
    for first, later in (np.int8(1), 300), (np.uint8(1), np.int16(-1)):
        with pytest.raises(InputError, match=r"data\[1\] has int.*; data\[0\] has u?int8"):
            dptrain.load(pairs(first, later), world=ALONE)
    wide = dptrain.load([(np.float32(0), 0), (np.float64(1.5), 1)], world=ALONE)
    assert wide.train.raw_x(slice(None)).tolist() == [[0], [1.5]]


@pytest.mark.filterwarnings("error")
def test_numbers_too_large_to_be_added_are_looked_at_all_the_same() -> None:
    """As are those too large for what a model computes with: its loss says so."""
    signs = np.where(np.arange(3000) // 1024 % 2 == 0, 1.0, -1.0)
    once = np.where(np.arange(3000) % 1024 == 0, 1.0, 0.0)
    for values in signs, np.abs(signs), once, np.resize([1.0, -1.0], 3000):
        table = table_of((values[:, None] * 1e308, signs), Roles())
        seen = look(table, ALONE)["columns"][0]
        assert (seen["gaps"], seen["high"]) == (0, "1e+308")
        assert seen["mean"] is None or seen["mean"] == values.mean()
    data = dptrain.load((1e50 * np.eye(4), np.arange(4) % 2), DataConfig(scale="none"), world=ALONE)
    with pytest.raises(InputError, match="the loss of step 1"):
        dptrain.fit(dptrain.mlp_for(data), data, dptrain.TrainConfig(epochs=1), world=ALONE)


def test_what_was_trained_on_can_be_predicted_on_as_it_was_given(tmp_path: Path) -> None:
    """Arrays with named parts, and a column of pandas for a model of arrays; a number is none."""
    rows = np.array(
        [(n / 2, n % 3, n % 2) for n in range(24)], [("a", "f8"), ("b", "i4"), ("y", "i4")]
    )
    np.savez(tmp_path / "d.npz", seed=5, a=rows["a"], b=rows["b"], y=rows["y"])
    config = dptrain.TrainConfig(epochs=1)
    for source in rows, tmp_path / "d.npz":
        data = dptrain.load(source, Y, world=ALONE)
        assert data.encoding.features == ("a", "b")
        trained = dptrain.fit(dptrain.mlp_for(data), data, config, world=ALONE)
        found = trained.outputs(np.stack([rows["a"], rows["b"]], 1))
        assert trained.outputs(rows).tolist() == found.tolist()
        assert trained.outputs(rows[["b", "a"]][3]).tolist() == trained.outputs(rows[3:4]).tolist()
    numbers = Series(dict(enumerate(rows["a"])))
    data = dptrain.load((numbers, rows["y"]), world=ALONE)
    trained = dptrain.fit(dptrain.mlp_for(data), data, config, world=ALONE)
    assert trained.outputs(numbers).tolist() == trained.outputs(rows["a"]).tolist()
