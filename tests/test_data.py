"""From files to examples, to a stored model and back: every format, split, scale and label."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import dptrain
from dptrain import Data, DataConfig, InputError, ModelConfig, TrainConfig, Trained
from dptrain.config import LossChoice, Scale, Task
from dptrain.config.names import TaskChoice
from dptrain.data.encode import Encoding, Flat
from dptrain.data.feed import BLOCK, Rows
from dptrain.data.field import Field
from dptrain.data.read import read
from dptrain.data.roles import Roles

Array = NDArray[Any]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def load_arrays(
    folder: Path, config: DataConfig | None = None, *, seed: int = 0, **arrays: Any
) -> Data:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return dptrain.load(str(path), config, seed=seed)


def load_csv(folder: Path, text: str, *target: str) -> Data:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return dptrain.load(str(path), DataConfig(target=target))


def everything(rows: Rows | None) -> tuple[Array, Array]:
    assert rows is not None
    y = rows.raw_y(slice(None))
    target = rows.table.targets[0]
    return rows.raw_x(slice(None)), np.array(target.words)[y] if target.kind == "words" else y


def memmap_under(array: Any) -> np.memmap[Any, Any] | None:
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array


def resident_kib(path: Path) -> int:
    """Return how much of a memory-mapped file is in this process's memory, as Linux counts it."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            here = line.endswith(str(path))
        elif here and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


# Files


@pytest.mark.parametrize("train", ["", "_train"])
def test_an_npz_file_holds_training_rows_and_test_rows(tmp_path: Path, train: str) -> None:
    x, y = random().normal(size=(12, 3)), np.arange(12) % 2
    train_rows: dict[str, Any] = {f"x{train}": x[:8], f"y{train}": y[:8]}
    data = load_arrays(tmp_path, **train_rows, x_test=x[8:], y_test=y[8:])
    np.testing.assert_array_equal(everything(data.train)[0], x[:8])
    np.testing.assert_array_equal(everything(data.train)[1], y[:8])
    np.testing.assert_array_equal(everything(data.test)[0], x[8:])
    np.testing.assert_array_equal(everything(data.test)[1], y[8:])


def test_an_npz_file_may_hold_no_test_rows_and_other_arrays(tmp_path: Path) -> None:
    data = load_arrays(tmp_path, x=np.eye(4), y=np.arange(4) % 2, about=np.array("an array"))
    assert len(data.train) == 4
    assert data.validation is None
    assert data.test is None


def test_test_rows_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    x, y = random().normal(size=(12, 3)), np.arange(12) % 2
    np.savez(tmp_path / "other.npz", x=x[8:], y=y[8:])
    config = DataConfig(test_data=(str(tmp_path / "other.npz"),))
    data = load_arrays(tmp_path, config, x=x[:8], y=y[:8])
    np.testing.assert_array_equal(everything(data.test)[0], x[8:])


def test_of_a_test_file_with_test_rows_these_are_taken(tmp_path: Path) -> None:
    x, y = random().normal(size=(12, 3)), np.arange(12) % 2
    np.savez(tmp_path / "other.npz", x=x[:4], y=y[:4], x_test=x[8:], y_test=y[8:])
    config = DataConfig(test_data=(str(tmp_path / "other.npz"),))
    data = load_arrays(tmp_path, config, x=x[:8], y=y[:8])
    np.testing.assert_array_equal(everything(data.test)[0], x[8:])


def test_two_npy_files_are_memory_mapped(tmp_path: Path) -> None:
    x, y = random().normal(size=(12, 3)), np.arange(12) % 3
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", y)
    data = dptrain.load([str(tmp_path / "a.npy"), str(tmp_path / "b.npy")])
    for column, array in zip(data.train.table.every(), (x, y), strict=True):
        table_array = column.values
        assert memmap_under(table_array) is not None
        np.testing.assert_array_equal(table_array, array)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux counts mapped pages")
def test_of_a_memory_mapped_file_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    rows, features = 2**17, 64  # 64 MiB, a hole in the file but for two rows
    path = tmp_path / "x.npy"
    x = np.lib.format.open_memmap(path, "w+", np.float64, (rows, features))
    x[[5, 70_000]] = [[1], [2]]
    del x
    np.save(tmp_path / "y.npy", np.arange(rows) % 2)
    files = [str(path), str(tmp_path / "y.npy")]
    table, _ = read(files, Roles(), dptrain.World(), lambda n: (np.empty(n, np.uint8).data, True))
    ones, fields = np.ones(features), (Field("x", "numbers", (features,)),)
    examples = Rows(table, Encoding("classification", fields, 0 * ones, ones, np.arange(2), 1))
    inputs, targets = examples.gather([70_000, 5], Flat(np.float32))
    np.testing.assert_array_equal(inputs, np.outer([2, 1], ones))
    np.testing.assert_array_equal(targets, [0, 1])
    assert 0 < resident_kib(path) < 2**10


def test_a_csv_file_has_named_columns_in_any_order_of_the_target(tmp_path: Path) -> None:
    data = load_csv(tmp_path, "a,label,b\n1,0,2\n3,1,4\n5,0,6.5\n", "label")
    assert data.encoding.features == ("a", "b")
    x, y = everything(data.train)
    np.testing.assert_array_equal(x, [[1, 2], [3, 4], [5, 6.5]])
    np.testing.assert_array_equal(y, [0, 1, 0])


def test_csv_names_and_labels_may_be_quoted(tmp_path: Path) -> None:
    text = '\ufeff"width, mm" ,"the ""kind"""\n"1.5","cat, black"\n\n2e3,"dog"\n-3,"cat, black"\n'
    data = load_csv(tmp_path, text, 'the "kind"')
    assert data.encoding.features == ("width, mm",)
    x, y = everything(data.train)
    np.testing.assert_array_equal(x, [[1.5], [2000], [-3]])
    np.testing.assert_array_equal(y, ["cat, black", "dog", "cat, black"])


@pytest.mark.parametrize(
    ("cells", "kind", "task"),
    [
        (["0", "1", "0"], "i", "classification"),
        (["0.5", "1", "2e1"], "f", "regression"),
        (["no", "yes", "no"], "U", "classification"),
        (["0", "one", "0"], "U", "classification"),
    ],
)
def test_the_labels_of_a_csv_file_are_integers_floats_or_names(
    tmp_path: Path, cells: Sequence[str], kind: str, task: Task
) -> None:
    text = "".join(f"{row},{cell}\n" for row, cell in enumerate(cells))
    data = load_csv(tmp_path, f"a,y\n{text}", "y")
    found = everything(data.train)[1]
    assert found.dtype.kind == kind
    assert [str(value) for value in found] == [
        str({"i": int, "f": float, "U": str}[kind](cell)) for cell in cells
    ]
    assert data.encoding.task == task


def test_a_csv_file_may_have_several_targets(tmp_path: Path) -> None:
    data = load_csv(tmp_path, "a,p,q\n1,0.5,2\n2,1.5,4\n", "q", "p")
    assert data.encoding.task == "regression"
    np.testing.assert_array_equal(everything(data.train)[1], [[2, 0.5], [4, 1.5]])


def test_columns_of_a_csv_test_file_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("y,more,b,a\n1,9,20,10\n0,9,40,30\n")
    (tmp_path / "data.csv").write_text("a,b,y\n1,2,0\n3,4,1\n")
    config = DataConfig(target=("y",), test_data=(str(tmp_path / "test.csv"),))
    x, y = everything(dptrain.load(str(tmp_path / "data.csv"), config).test)
    np.testing.assert_array_equal(x, [[10, 20], [30, 40]])
    np.testing.assert_array_equal(y, [1, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n1,2,0\n3,4,1\n5,red,1\n", "line 4 has 'red' in column 'b'"),
        ("a,b,y\n1,2,0\n3,4\n", "line 3 has 2 cells; the header has 3"),
        ("a,b,y\n1,2,0\n3,4,1,5\n", "line 3 has 4 cells; the header has 3"),
        ("a,b,y\n1,5,2,0\n3,5,4,1\n", "line 2 has 4 cells; the header has 3"),
        ("a,a,y\n1,2,0\n3,4,1\n", "'a'"),
        ("a,b,y\n", "no example"),
        ("y\n0\n1\n", "no input beside the target"),
        ("\n\n", "no first line with the names"),
    ],
    ids=[
        "name among numbers",
        "cell missing",
        "cell too many",
        "comma for a decimal point",
        "two columns of one name",
        "header alone",
        "target alone",
        "no header",
    ],
)
def test_a_broken_csv_file_is_refused_with_the_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_csv(tmp_path, text, "y")


def test_the_embedded_digits_have_the_official_split() -> None:
    data = dptrain.load()
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (3823, 1797)
    for rows, counts in (  # as optdigits.names of the UCI repository gives them
        (data.train, [376, 389, 380, 389, 387, 376, 377, 387, 380, 382]),
        (data.test, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
    ):
        x, y = everything(rows)
        assert x.shape == (len(rows), 64)
        assert (x.min(), x.max()) == (0, 16)
        np.testing.assert_array_equal(np.bincount(y), counts)


# Shapes, types and tasks


def test_images_are_flattened_and_a_column_of_targets_is_a_target(tmp_path: Path) -> None:
    x = np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8)
    data = load_arrays(tmp_path, x=x, y=np.array([[0], [1], [1], [0], [1]]))
    found_x, found_y = everything(data.train)
    np.testing.assert_array_equal(found_x, x.reshape(5, 64))
    np.testing.assert_array_equal(found_y, [0, 1, 1, 0, 1])
    assert data.encoding.task == "classification"


@pytest.mark.parametrize(
    ("y", "task", "outputs"),
    [
        (np.array([0, 1, 2, 1]), "classification", 1),
        (np.array([1, 2, 2, 1], np.uint8), "classification", 1),
        (np.array([True, False, True, True]), "classification", 1),
        (np.array(["no", "yes", "no", "yes"]), "classification", 1),
        (np.array([0.0, 1.0, 2.0, 1.0]), "classification", 1),
        (np.array([[0.0], [1.0], [2.5], [1.0]], np.float32), "regression", 1),
        (np.array([900, 1200, 1300, 1100]), "regression", 1),
        (np.array([[0, 1], [1, 1], [0, 0], [1, 0]]), "multilabel", 2),
        (np.array([[True, False], [True, True], [False, False], [True, True]]), "multilabel", 2),
        (np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]), "multilabel", 2),
        (np.eye(4), "classification", 1),
        (np.array([[0, 1], [2, 0], [1, 1], [0, 0]]), "regression", 2),
        (np.arange(12.0).reshape(4, 3), "regression", 3),
    ],
    ids=str,
)
def test_the_values_of_the_target_decide_the_task(
    tmp_path: Path, y: Array, task: Task, outputs: int
) -> None:
    encoding = load_arrays(tmp_path, x=np.eye(4), y=y).encoding
    assert (encoding.task, encoding.outputs) == (task, outputs)


@pytest.mark.parametrize(
    ("y", "task", "dtype"),
    [
        (np.array([0, 1, 2, 1]), "regression", np.float64),
        (np.array([0.0, 1.0, 2.0, 1.0]), "classification", np.intp),
        (np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]), "multilabel", np.float64),
        (np.array([[3, 1], [1, 4], [1, 5], [9, 2]]), "regression", np.float64),
        (np.array([0, 1, 0, 1]), "multilabel", np.float64),
    ],
    ids=str,
)
def test_the_task_can_be_forced(tmp_path: Path, y: Array, task: TaskChoice, dtype: Any) -> None:
    data = load_arrays(tmp_path, DataConfig(task=task), x=np.eye(4), y=y)
    assert data.encoding.task == task
    _, targets = data.train.gather(slice(None), Flat(np.float64))
    assert targets.dtype == dtype
    expected = y
    if task == "regression":
        spread = np.where(y.std(axis=0) > 0, y.std(axis=0), 1)
        expected = (y - y.mean(axis=0)) / spread
    np.testing.assert_allclose(targets, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (np.array([[0, 1], [1, 1]]), "classification", "one label a row"),
        (np.array(["a", "b"]), "regression", "y holds names; regression needs numbers"),
        (np.array(["a", "b"]), "multilabel", "y holds names; multilabel needs numbers"),
        (np.array([0.0, 1.5]), "classification", "label 1.5 in row 1.*--task regression"),
        (np.array([[0, 1], [2, 0]]), "multilabel", "label 2 in row 1; give 0 or 1"),
        (np.array([7, 9] * 9), "auto", "2 different .*--task classification or --task regression"),
        (np.array([-1.0, 1.0] * 9), "auto", "2 different .*--task classification or --task regr"),
        (np.array([0, 3]), "multilabel", "label 3 in row 1; give 0 or 1"),
        (np.array([1j, 2]), "auto", "y has dtype complex128"),
        (np.array([4, 4]), "auto", "all 2 labels are 4; classification needs at least two"),
    ],
    ids=str,
)
def test_a_task_that_the_target_does_not_allow_is_refused(
    tmp_path: Path, y: Array, task: TaskChoice, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_arrays(tmp_path, DataConfig(task=task), x=np.ones((len(y), 2)), y=y)


def test_integers_that_look_like_values_need_a_task(tmp_path: Path) -> None:
    x, y = np.ones((300, 1)), np.arange(300)
    with pytest.raises(InputError, match=r"300 different .*--task classification or --task regr"):
        load_arrays(tmp_path, x=x, y=y)
    data = load_arrays(tmp_path, DataConfig(task="classification"), x=x, y=y)
    assert len(data.encoding.classes) == 300


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, "no example"),
        ({"x": np.float64(3), "y": np.zeros(1)}, "give rows of numbers"),
        ({"x": np.array(["a", "b"]), "y": np.zeros(2)}, "give rows of numbers"),
        ({"a": np.eye(2)}, "holds a; store x and y"),
        ({}, "it holds no array"),
        ({"x": np.eye(2)}, "no target"),
        ({"x": np.eye(2), "y": np.zeros((2, 0))}, "y has rows of no number"),
        ({"x": np.eye(2), "y": np.array(["a", "nan"])}, "y has 'nan' in row 1"),
        ({"x": np.eye(3), "y": np.array([b"a", b"b", b""])}, "y has '' in row 2"),
        ({"x": np.eye(2), "y": np.arange(2), "x_test": np.eye(2)}, "test rows of .* no y"),
        (
            {
                "x": np.eye(2),
                "y": np.arange(2),
                "x_test": np.eye(2),
                "y_test": np.array(["a", "b"]),
            },
            "label a in row 0; give one of the training rows' labels .*0, 1",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_arrays_that_are_no_examples_are_refused(
    tmp_path: Path, arrays: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_arrays(tmp_path, **arrays)


# Scale

ROWS = 2 * BLOCK + 100  # of which three quarters are more than one block
WIDTH = 5


def columns_of_all_sorts() -> Array:
    """Far from 0, tiny, of whole numbers, and two that never change, one with rounding errors."""
    x = random(3).normal(size=(ROWS, WIDTH))
    x[:, 0] += 1e4
    x[:, 1] *= 1e-6
    x[:, 2] = np.round(10 * x[:, 2])
    x[:, 3] = 0.1
    x[:, 4] = 0
    return x


@pytest.mark.parametrize("validation", [0.0, 0.25])
@pytest.mark.parametrize("scale", ["standard", "minmax", "none"])
def test_the_scale_is_numpys_statistics_of_the_training_rows(
    tmp_path: Path, scale: Scale, validation: float
) -> None:
    x, y = columns_of_all_sorts(), np.arange(ROWS) % 2
    config = DataConfig(scale=scale, validation=validation)
    data = load_arrays(tmp_path, config, x=x, y=y, x_test=100 * x[:9], y_test=y[:9])
    train = x if data.train.chosen is None else x[data.train.chosen[:]]
    assert len(train) == ROWS - round(ROWS * validation)
    assert len(train) > BLOCK
    changes = np.array([True, True, True, False, False])
    shift, spread = {
        "standard": (train.mean(axis=0), train.std(axis=0)),
        "minmax": (train.min(axis=0), np.ptp(train, axis=0)),
        "none": (np.zeros(WIDTH), np.ones(WIDTH)),
    }[scale]
    factor = 1 / np.where(changes, spread, 1)
    np.testing.assert_allclose(data.encoding.shift, shift, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(data.encoding.factor, factor, rtol=1e-10)
    for rows in (data.train, data.validation, data.test):
        if rows is not None:
            inputs, _ = rows.gather(slice(None), Flat(np.float64))
            raw, _ = everything(rows)
            np.testing.assert_allclose(inputs, (raw - shift) * factor, rtol=1e-8, atol=1e-8)


def test_scaled_training_rows_have_mean_0_and_spread_1(tmp_path: Path) -> None:
    data = load_arrays(tmp_path, x=columns_of_all_sorts(), y=np.arange(ROWS) % 2)
    inputs, _ = data.train.gather(slice(None), Flat(np.float64))
    np.testing.assert_allclose(inputs.mean(axis=0), np.zeros(WIDTH), atol=1e-9)
    np.testing.assert_allclose(inputs.std(axis=0), [1, 1, 1, 0, 0], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float16, np.float32, ">f8"])
def test_whole_numbers_and_short_floats_are_scaled_in_double_precision(
    tmp_path: Path, dtype: Any
) -> None:
    x = random(1).integers(0, 200, size=(40, 3)).astype(dtype)
    data = load_arrays(tmp_path, x=x, y=np.arange(40) % 2)
    exact = x.astype(np.float64)
    inputs, _ = data.train.gather(slice(None), Flat(np.float32))
    assert inputs.dtype == np.float32
    spread = np.where(exact.std(axis=0) > 0, exact.std(axis=0), 1)
    np.testing.assert_allclose(inputs, (exact - exact.mean(axis=0)) / spread, rtol=1e-6, atol=1e-6)


# Rows held out


def held_out(folder: Path, num_rows: int, share: float, seed: int) -> tuple[Array, Array]:
    """Return the first column, which numbers the rows, of training and of validation rows."""
    x = np.arange(2.0 * num_rows).reshape(num_rows, 2) // 2
    config = DataConfig(validation=share)
    data = load_arrays(folder, config, seed=seed, x=x, y=np.arange(num_rows) % 2)
    for rows in (data.train, data.validation):
        raw, y = everything(rows)
        np.testing.assert_array_equal(raw[:, 0] % 2, y)
    return everything(data.train)[0][:, 0], everything(data.validation)[0][:, 0]


@pytest.mark.parametrize("seed", [-1, 1.5, "5", [1, 2], 2**63])
def test_rows_are_held_out_by_a_seed_that_a_run_can_have(tmp_path: Path, seed: Any) -> None:
    with pytest.raises(InputError, match="seed is "):
        held_out(tmp_path, 40, 0.25, seed)


@pytest.mark.parametrize(
    ("num_rows", "share", "size"), [(40, 0.25, 10), (7, 0.3, 2), (7, 0.25, 2), (3, 0.8, 2)]
)
def test_validation_rows_are_a_part_of_the_size_asked_for(
    tmp_path: Path, num_rows: int, share: float, size: int
) -> None:
    train, validation = held_out(tmp_path, num_rows, share, seed=0)
    assert len(validation) == size
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), range(num_rows))


@pytest.mark.parametrize(("share", "size"), [(0.01, 0), (0.9, 3)])
def test_a_split_that_leaves_no_row_on_one_side_is_refused(
    tmp_path: Path, share: float, size: int
) -> None:
    with pytest.raises(InputError, match=f"of 3 rows that holds out {size}; hold out at least"):
        held_out(tmp_path, 3, share, seed=0)


def test_validation_rows_are_chosen_by_the_seed(tmp_path: Path) -> None:
    _, first = held_out(tmp_path, 40, 0.25, seed=0)
    _, again = held_out(tmp_path, 40, 0.25, seed=0)
    _, other = held_out(tmp_path, 40, 0.25, seed=1)
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)
    assert set(first) != set(range(10))
    assert set(first) != set(range(30, 40))


def test_a_split_by_another_seed_than_the_run_s_is_refused() -> None:
    data = dptrain.load(config=DataConfig(validation=0.2))
    model = dptrain.mlp_for(data, ModelConfig(hidden=(3,)))
    with pytest.raises(InputError, match=r"with seed 0; .* has 3: load the data with seed=3"):
        dptrain.fit(model, data, TrainConfig(seed=3, steps=1))


# Labels


@pytest.mark.parametrize(
    "labels",
    [[3, -1, 7], ["pear", "fig", "an apple"], [True, False, True], [2.0, 0.0, 9.0]],
    ids=str,
)
def test_labels_become_the_numbers_of_the_sorted_classes(tmp_path: Path, labels: list[Any]) -> None:
    y = np.array(labels)[np.arange(30) % 3]
    config = DataConfig(task="classification")
    data = load_arrays(tmp_path, config, x=np.ones((30, 1)), y=y, x_test=[[1], [2]], y_test=y[1:3])
    classes, numbers = np.unique(y, return_inverse=True)
    np.testing.assert_array_equal(data.encoding.classes, classes)
    np.testing.assert_array_equal(data.train.gather(slice(None), Flat(np.float32))[1], numbers)
    assert data.test is not None
    np.testing.assert_array_equal(data.test.gather(slice(None), Flat(np.float32))[1], numbers[1:3])


def test_a_label_that_only_one_block_holds_is_a_class(tmp_path: Path) -> None:
    y = np.zeros(3 * BLOCK, np.int64)
    y[BLOCK + 1], y[-1] = 5, -2
    config = DataConfig(task="classification")
    data = load_arrays(tmp_path, config, x=np.ones((len(y), 1)), y=y)
    np.testing.assert_array_equal(data.encoding.classes, [-2, 0, 5])


def test_a_csv_test_file_may_hold_only_those_labels_that_look_like_numbers(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,y\n1,1\n2,two\n3,1\n4,10\n")
    (tmp_path / "test.csv").write_text("a,y\n1,1\n4,10\n")
    config = DataConfig(target=("y",), test_data=(str(tmp_path / "test.csv"),))
    data = dptrain.load(str(tmp_path / "data.csv"), config)
    assert data.test is not None
    np.testing.assert_array_equal(data.test.gather(slice(None), Flat(np.float32))[1], [0, 1])


# The stored model


def train_and_store(
    folder: Path, x: Array, y: Array, loss: LossChoice = "auto", task: TaskChoice = "auto"
) -> tuple[Trained, Trained]:
    """Return a model as its training left it, and as its directory holds it."""
    data = load_arrays(folder, DataConfig(task=task), x=x, y=y)
    model = dptrain.mlp_for(data, ModelConfig(hidden=(16, 8), loss=loss))
    config = TrainConfig(shards=2, batch_size=16, epochs=30, learning_rate=0.01)
    fitted = dptrain.fit(model, data, config, out=folder / "run")
    return fitted, dptrain.load_trained(folder / "run")


def raw_rows() -> Array:
    """Return rows that no model could take unless they are scaled: [200, 4], means of 500."""
    return 500 + 30 * random(5).normal(size=(200, 4))


HIGH = raw_rows()[:, 0] > 500


@pytest.mark.parametrize(
    ("y", "loss", "task"),
    [
        (np.where(HIGH, 3, 11), "auto", "classification"),
        (np.where(HIGH, "low is high", "an é"), "auto", "auto"),
        (np.where(HIGH, "b", np.where(raw_rows()[:, 1] > 500, "c", "a")), "auto", "auto"),
        (np.where(HIGH, 3, 11), "binary-cross-entropy", "classification"),
        (HIGH, "binary-cross-entropy", "auto"),
        (np.where(HIGH, 1.0, 4.0), "auto", "classification"),
        (np.stack([HIGH, raw_rows()[:, 1] > 500, ~HIGH], axis=1), "auto", "auto"),
    ],
    ids=[
        "integers",
        "names",
        "three names",
        "integers and one output",
        "booleans and one output",
        "floats",
        "multilabel",
    ],
)
def test_a_stored_model_predicts_the_same_labels_from_raw_rows(
    tmp_path: Path, y: Array, loss: LossChoice, task: TaskChoice
) -> None:
    x = raw_rows()
    fitted, stored = train_and_store(tmp_path, x, y, loss, task)
    predicted = fitted.predict(x)
    np.testing.assert_array_equal(stored.predict(x), predicted)
    np.testing.assert_array_equal(stored.probabilities(x), fitted.probabilities(x))
    assert predicted.shape == y.shape
    assert np.mean(predicted == y) > 0.9
    kind = "i" if y.ndim > 1 or y.dtype.kind == "f" else y.dtype.kind
    assert stored.predict(x).dtype.kind == kind


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("loss", ["mean-squared-error", "huber"])
def test_a_stored_model_predicts_the_same_values_from_raw_rows(
    tmp_path: Path, outputs: int, loss: LossChoice
) -> None:
    x = raw_rows()
    y = (x[:, :outputs] - 500) / 30
    fitted, stored = train_and_store(tmp_path, x, y, loss)
    predicted = fitted.predict(x)
    assert predicted.shape == ((200,) if outputs == 1 else (200, 2))
    np.testing.assert_array_equal(stored.predict(x), predicted)
    assert np.mean((predicted - y.reshape(predicted.shape)) ** 2) < 0.1
    for trained in (fitted, stored):
        with pytest.raises(InputError, match="has no probabilities"):
            trained.probabilities(x)


@pytest.mark.parametrize(
    ("y", "loss", "columns"),
    [
        (HIGH, "cross-entropy", 2),
        (HIGH, "binary-cross-entropy", 2),
        (np.arange(200) % 3, "auto", 3),
    ],
    ids=["two outputs", "one output", "three classes"],
)
def test_probabilities_of_classes_add_up_to_1_and_agree_with_the_prediction(
    tmp_path: Path, y: Array, loss: LossChoice, columns: int
) -> None:
    x = raw_rows()
    _, stored = train_and_store(tmp_path, x, y, loss)
    found = stored.probabilities(x)
    assert found.shape == (200, columns)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), np.ones(200), rtol=1e-5)
    np.testing.assert_array_equal(stored.encoding.classes[found.argmax(axis=1)], stored.predict(x))


def test_probabilities_of_labels_stand_each_for_itself(tmp_path: Path) -> None:
    x = raw_rows()
    _, stored = train_and_store(tmp_path, x, np.stack([HIGH, HIGH], axis=1))
    found = stored.probabilities(x)
    assert found.shape == (200, 2)
    assert found.min() >= 0
    assert found.sum(axis=1).max() > 1.5
    np.testing.assert_array_equal(found > 0.5, stored.predict(x))


def test_the_stored_file_alone_tells_safetensors_the_whole_model(tmp_path: Path) -> None:
    x, y = raw_rows(), np.where(HIGH, "high", "low")
    fitted, _ = train_and_store(tmp_path, x, y)
    path = tmp_path / "run" / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes == {
        "layers.0.weight": (16, 4),
        "layers.0.bias": (16,),
        "layers.1.weight": (8, 16),
        "layers.1.bias": (8,),
        "layers.2.weight": (2, 8),
        "layers.2.bias": (2,),
    }
    with safetensors.safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["dptrain"])
    units = (x - about["encoding"]["shift"]) * about["encoding"]["factor"]
    for number in range(3):
        weight, bias = tensors[f"layers.{number}.weight"], tensors[f"layers.{number}.bias"]
        units = units @ weight.T + bias
        units = np.maximum(units, 0) if number < 2 else units
    np.testing.assert_allclose(fitted.outputs(x), units, rtol=1e-3, atol=1e-4)
    labels = np.array(about["encoding"]["classes"])[units.argmax(axis=1)]
    np.testing.assert_array_equal(fitted.predict(x), labels)


def test_many_rows_are_predicted_as_few_are(tmp_path: Path) -> None:
    _, stored = train_and_store(tmp_path, raw_rows(), HIGH)
    x = np.tile(raw_rows(), (11, 1))
    assert len(x) > 2 * BLOCK
    np.testing.assert_array_equal(stored.predict(x), np.tile(stored.predict(raw_rows()), 11))


def test_predict_takes_images_too_and_refuses_another_width(tmp_path: Path) -> None:
    x = raw_rows()
    _, stored = train_and_store(tmp_path, x.reshape(200, 2, 2), HIGH)
    np.testing.assert_array_equal(stored.predict(x.reshape(200, 2, 2)), stored.predict(x))
    with pytest.raises(InputError, match="x has 3 columns; the training data has 4"):
        stored.predict(x[:, :3])


class Frame:
    """As much of a data frame as is looked at."""

    def __init__(self, values: Any, *columns: Any) -> None:
        self.values, self.columns = np.asarray(values), columns

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.values.astype(dtype or self.values.dtype)


ROW = [500.0, 490, 510, 505]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_and_store(tmp_path_factory.mktemp("answers"), raw_rows(), HIGH)[1]


@pytest.mark.parametrize(
    "x",
    [
        [ROW, ROW],
        [[500, 490, 510, 505]] * 2,
        Frame([ROW, ROW], "a", "b", "c", "d"),
        np.array([[500, 490.0, np.float32(510), np.uint16(505)]] * 2, object),
        np.array([ROW, ROW], np.uint16).reshape(2, 2, 2),
        (ROW, tuple(ROW)),
    ],
    ids=["lists", "whole numbers", "frame", "objects", "images", "tuples"],
)
def test_predict_takes_what_numpy_makes_rows_of(answers: Trained, x: Any) -> None:
    expected = np.array([ROW, ROW])
    assert answers.outputs(x).tobytes() == answers.outputs(expected).tobytes()
    assert answers.predict(x).tolist() == answers.predict(expected).tolist()
    assert answers.probabilities(x).tolist() == answers.probabilities(expected).tolist()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([ROW, [1, 2, np.nan, 4]], "x has nan in row 1, column 2"),
        (np.array([[1, 2, 3, -np.inf]], np.float16), "x has -inf in row 0, column 3"),
        (np.insert(np.tile(ROW, (1500, 1)), 1400, np.nan, axis=0), "nan in row 1400, column 0"),
        ([[1, None, 3, 4]], "x has None in row 0, column 1"),
        ([[1, 2, 10**400, 4]], "x has 10*0 in row 0, column 2"),
        (np.array([[1, "2", 3, 4]], object), "x has '2' in row 0, column 1"),
        ([["1", "2", "3", "4"]], "x has dtype <U1"),
        (np.ones((1, 4), complex), "x has dtype complex128"),
        (np.ma.array([ROW], mask=[[False, False, True, False]]), "x has masked entries"),
        (ROW[:3], r"x has 1 columns; .* has 4.*one row has shape \[1, n\]"),
        ([[1, 2, 3]], "x has 3 columns; the training data has 4"),
        ([ROW, [1]], "x can't be made an array"),
        (np.empty((0, 4)), r"x has shape \(0, 4\), so there is no example"),
        ([], "there is no example"),
        (None, r"shape \(\); give rows of numbers"),
        ([[1e300, 2, 3, 4]], r"outputs for row 0 .*not finite.* too large"),
    ],
    ids=[
        "NaN", "infinity", "NaN in another block", "None", "a huge integer", "a string in objects",
        "strings", "complex numbers", "a mask", "one row", "too few columns", "uneven rows",
        "no row", "an empty list", "nothing", "too large for float32",
    ],
)  # fmt: skip
def test_predict_refuses_what_is_no_row_of_numbers(answers: Trained, x: Any, words: str) -> None:
    for ask in (answers.predict, answers.probabilities, answers.outputs):
        with pytest.raises(InputError, match=words) as found:
            ask(x)
        assert not found.value.everywhere  # on this rank only, perhaps


def test_predict_takes_columns_by_their_names_in_any_order(tmp_path: Path) -> None:
    data = load_csv(tmp_path, "u,v,kind\n" + "0,1,low\n5,2,high\n" * 20, "kind")
    trained = dptrain.fit(dptrain.mlp_for(data), data, TrainConfig(learning_rate=0.05))
    assert trained.predict(Frame([[5, 1]], "u", "v")).tolist() == ["high"]
    assert trained.predict(Frame([[0, 1]], 0, 1)).tolist() == ["low"]
    assert trained.predict(Frame([[2, 5], [1, 0]], "v", "u")).tolist() == ["high", "low"]
    with pytest.raises(InputError, match=r"has no column 'v'; valid: w, u"):
        trained.predict(Frame([[1, 5]], "w", "u"))
    with pytest.raises(InputError, match=r"nan in row 0, column 1 .*'v'"):
        trained.predict([[0, np.nan]])


def test_parameters_that_are_not_finite_predict_nothing(answers: Trained) -> None:
    broken = replace(answers, params=np.full_like(answers.params, np.nan))
    with pytest.raises(InputError, match="parameters are not finite"):
        broken.predict([ROW])


def test_the_stored_parameters_are_the_trained_ones_bit_for_bit(tmp_path: Path) -> None:
    fitted, stored = train_and_store(tmp_path, raw_rows(), HIGH)
    assert stored.params.tobytes() == fitted.params.tobytes()
    assert repr(stored) == f"Trained({stored.model})"  # no steps are known of it, and none are told
    found = hashlib.sha256(stored.params.tobytes()).hexdigest()
    assert found == fitted.summary.params_sha256
