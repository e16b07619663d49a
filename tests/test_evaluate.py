"""Shows that loss and metrics are those that plain NumPy finds on all rows at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dptrain import Param
from dptrain.arrays import Sums
from dptrain.config import Task
from dptrain.data.encode import Encoding
from dptrain.data.feed import BLOCK, Rows
from dptrain.data.field import Field
from dptrain.data.given import pair
from dptrain.data.roles import Roles
from dptrain.guard import Ask
from dptrain.run.trained import Trained
from dptrain.train.evaluate import Interrupted, evaluate
from dptrain.words import InputError
from dptrain.world import World

Array = NDArray[Any]
ALONE = World()
NUM = 2 * BLOCK + 51


@dataclass
class Passing:
    """A model whose outputs are its inputs, and whose loss an error of each example."""

    layout = (Param("nothing", (1,)),)
    dtype = np.dtype(np.float64)

    def initial_params(self, rng: np.random.Generator) -> Array:  # noqa: ARG002 (the protocol's)
        return np.zeros(1)

    def loss_and_grad_sum(self, *_: Any) -> Sums:
        raise NotImplementedError

    def outputs(self, params: Array, x: Array) -> Array:  # noqa: ARG002 (the protocol's)
        return x

    def loss_sum(self, outputs: Array, y: Array, weights: Any) -> Sums:  # noqa: ARG002
        errors = np.abs(outputs.sum(axis=1) - y.reshape(len(y), -1).sum(axis=1))
        return Sums(float(errors.sum()), float(len(y)))


def rows_of(task: Task, x: Array, y: Array, chosen: Array | None = None) -> Rows:
    """Return rows whose inputs are the raw ones."""
    width = x.shape[1]
    classes = np.unique(y) if task == "classification" else np.empty(0)
    outputs = 1 if y.ndim == 1 else y.shape[1]
    fields = (Field("x", "numbers", (width,)),)
    encoding = Encoding(task, fields, np.zeros(width), np.ones(width), classes, outputs)
    return Rows(pair(x, y, Roles(), "table"), encoding, chosen)


def found_for(rows: Rows, **more: Any) -> dict[str, Any]:
    return evaluate(Passing(), np.zeros(1), rows, ALONE, **more)


RNG = np.random.default_rng(0)
OUTPUTS = RNG.standard_normal((NUM, 3))
WHOLE_OUTPUTS = RNG.integers(-3, 4, (NUM, 3)).astype(np.float64)
LABELS = (OUTPUTS + RNG.standard_normal((NUM, 3)) > 0).astype(np.int64)
CLASSES = RNG.integers(0, 3, NUM)
VALUES = OUTPUTS + RNG.standard_normal((NUM, 3)) * [0.1, 1.0, 3.0] + [5, 0, -2]


def classes_by_numpy(outputs: Array, y: Array) -> dict[str, Any]:
    hits = [row.tolist().index(row.max()) == label for row, label in zip(outputs, y, strict=True)]
    return {"accuracy": sum(hits) / len(y)}


def labels_by_numpy(outputs: Array, y: Array) -> dict[str, Any]:
    y = y.reshape(outputs.shape)
    right = [
        [(z > 0) == (t == 1) for z, t in zip(*both, strict=True)]
        for both in zip(outputs, y, strict=True)
    ]
    labels = [label for row in right for label in row]
    return {
        "accuracy": sum(map(all, right)) / len(right),
        "label_accuracy": sum(labels) / len(labels),
    }


def values_by_numpy(outputs: Array, y: Array) -> dict[str, Any]:
    error = outputs - y.reshape(outputs.shape)
    columns = y.reshape(outputs.shape).T
    r2 = [
        1 - np.sum(e**2) / np.sum((c - c.mean()) ** 2)
        for e, c in zip(error.T, columns, strict=True)
    ]
    return {
        "rmse": np.sqrt(np.mean(error**2)),
        "mae": np.mean(np.abs(error)),
        "r2": np.mean(r2),
    }


CASES: dict[str, tuple[Task, Array, Array, Callable[[Array, Array], dict[str, Any]]]] = {
    "classes": ("classification", OUTPUTS, CLASSES, classes_by_numpy),
    "classes whose outputs tie": ("classification", WHOLE_OUTPUTS, CLASSES, classes_by_numpy),
    "labels": ("multilabel", OUTPUTS, LABELS, labels_by_numpy),
    "labels of outputs that are 0": ("multilabel", WHOLE_OUTPUTS, LABELS, labels_by_numpy),
    "one label": ("multilabel", OUTPUTS[:, :1], LABELS[:, 0], labels_by_numpy),
    "three values": ("regression", OUTPUTS, VALUES, values_by_numpy),
    "one value": ("regression", OUTPUTS[:, :1], VALUES[:, 0], values_by_numpy),
}


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_numpys_of_all_rows(case: str) -> None:
    """Of three blocks, the last one small; and of rows that are chosen, in their order."""
    task, outputs, y, by_numpy = CASES[case]
    for chosen in (None, RNG.permutation(NUM)[: BLOCK + 9]):
        of = slice(None) if chosen is None else chosen
        found = found_for(rows_of(task, outputs, y, chosen))
        loss = Passing().loss_sum(outputs[of], y[of], None)[0] / len(y[of])
        assert found == {
            "loss": pytest.approx(loss, rel=1e-12),
            **{
                name: pytest.approx(value, rel=1e-12)
                for name, value in by_numpy(outputs[of], y[of]).items()
            },
        }


def test_two_classes_may_have_one_output() -> None:
    y = np.array([0, 1, 1, 0, 1])
    x = np.array([-1.0, 2.0, -3.0, 0.0, 1.0])[:, None]  # 0 is no more than 0: the first class
    rows = rows_of("classification", x, y)
    assert found_for(rows) == {"loss": 6 / 5, "accuracy": 4 / 5}


def test_each_block_is_seen_once() -> None:
    seen: list[tuple[Array, Array]] = []
    found_for(rows_of("classification", OUTPUTS, CLASSES), seen=lambda *both: seen.append(both))
    outputs, y = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    assert np.array_equal(outputs, OUTPUTS)
    assert np.array_equal(y, CLASSES)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("constant", [7, 0.1, 200_000.1])
def test_where_a_target_never_changes_there_is_no_r2(constant: float, dtype: Any) -> None:
    """As in a single row; a model computes with what it is rounded to."""
    values, model = VALUES.copy(), Passing()
    values[:, 1], model.dtype = constant, np.dtype(dtype)
    rows = rows_of("regression", OUTPUTS, values)
    for some in rows, replace(rows, chosen=np.array([3])):
        found = evaluate(model, np.zeros(1), some, ALONE)
        assert found.keys() == {"loss", "rmse", "mae"}


def test_a_loss_that_is_not_finite_is_said() -> None:
    outputs = OUTPUTS.copy()
    outputs[BLOCK + 1, 2] = np.inf
    with pytest.raises(InputError, match="the loss of table is inf") as error:
        found_for(rows_of("regression", outputs, VALUES))
    assert error.value.everywhere


class Others(World):
    """The first of two ranks, the other of which answers what it is told to."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def allgather(self, value: Any) -> list[Any]:
        return [value, value and (self.answer, *value[1:])]


@pytest.mark.parametrize("own", [Ask(0), Ask.SAVE, Ask.SIGUSR1])
@pytest.mark.parametrize("other", [Ask(0), Ask.SAVE, Ask.SIGINT])
def test_who_is_asked_to_stop_stops_all(own: Ask, other: Ask) -> None:
    rows = rows_of("classification", OUTPUTS, CLASSES)
    try:
        evaluate(Passing(), np.zeros(1), rows, Others(other), lambda: own)
        stopped = Ask(0)
    except Interrupted as found:
        stopped = found.asked
    assert stopped == (own | other if (own | other).stop else Ask(0))


def test_an_evaluation_looks_for_a_stop_before_each_block() -> None:
    looks: list[int] = []
    rows = rows_of("classification", OUTPUTS, CLASSES)

    def asked() -> Ask:
        looks.append(1)
        return Ask.SIGTERM if len(looks) > 1 else Ask(0)

    with pytest.raises(Interrupted):
        found_for(rows, asked=asked)
    assert len(looks) == 3  # before two of three blocks, and once with the others


@pytest.mark.parametrize("outputs", [OUTPUTS, WHOLE_OUTPUTS])
def test_what_is_predicted_is_what_is_counted(outputs: Array) -> None:
    """A label where its output is above 0, the class of the highest output, values as such."""
    cases: dict[Task, Array] = {
        "classification": CLASSES,
        "multilabel": LABELS,
        "regression": VALUES,
    }
    for task, y in cases.items():
        rows = rows_of(task, outputs, y)
        found = Trained(Passing(), np.zeros(1), rows.encoding).predict(outputs)
        expected = {
            "classification": outputs.argmax(axis=1),
            "multilabel": outputs > 0,
            "regression": outputs,
        }
        np.testing.assert_array_equal(found, expected[task])


@pytest.mark.parametrize("later", [("b", "a"), ("a",), ("a", "b", "c")])
def test_metrics_of_ones_own_are_the_same_for_all_rows(later: tuple[str, ...]) -> None:
    """Also in one order: sums of one would be taken for another's."""
    x = np.arange(3.0 * NUM).reshape(NUM, 3)

    def sums(_: Array, y: Array) -> dict[str, tuple[float, float]]:
        return dict.fromkeys(("a", "b") if y[0] == 0 else later, (1.0, 1.0))

    model: Any = Passing()
    model.metric_sums = sums
    with pytest.raises(InputError, match=r"not the same for all rows: a.* and .*; return all of"):
        evaluate(model, np.zeros(1), rows_of("regression", x, x[:, 0]), ALONE)
