"""Shows that what is said of each class is what plain NumPy, and scikit-learn, find on all rows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start
from numpy.typing import NDArray

from dptrain.cli.commands.evaluate import _evaluation_text
from dptrain.config import Task
from dptrain.model.losses import BinaryCrossEntropy, CrossEntropy
from dptrain.train import scores
from dptrain.train.scores import Scores, area
from dptrain.words import InputError
from dptrain.world import World

Array = NDArray[Any]
RNG = np.random.default_rng(0)
NUM = 500
OUTPUTS = RNG.standard_normal((NUM, 4)).astype(np.float32)
TIED = RNG.integers(-1, 2, (NUM, 4)).astype(np.float32)
CLASSES = np.where(RNG.random(NUM) < 0.4, OUTPUTS[:, :3].argmax(1), RNG.integers(0, 3, NUM))
LABELS = (OUTPUTS + RNG.standard_normal((NUM, 4)) > 0.5).astype(np.int64)
PIECES = np.split(np.arange(NUM), [200, 437])

CASES: dict[str, tuple[Task, Array, Array]] = {
    "classes": ("classification", OUTPUTS[:, :3], CLASSES),
    "classes that tie": ("classification", TIED[:, :3], CLASSES),
    "a class that is never there": ("classification", OUTPUTS, CLASSES),
    "a class that is never there nor taken": (
        "classification", OUTPUTS - np.array([0, 0, 0, 99], np.float32), CLASSES,
    ),
    "two classes": ("classification", OUTPUTS[:, :2], LABELS[:, 0]),
    "two classes of one output": ("classification", OUTPUTS[:, :1], LABELS[:, 0]),
    "two classes that tie": ("classification", TIED[:, :1], LABELS[:, 0]),
    "labels": ("multilabel", OUTPUTS, LABELS),
    "labels that tie": ("multilabel", TIED, LABELS),
    "one label": ("multilabel", OUTPUTS[:, :1], LABELS[:, 0]),
}  # fmt: skip


def chances(task: Task, outputs: Array) -> Array:
    """Return probabilities as `Trained.chances` does of an MLP."""
    if task == "multilabel":
        return BinaryCrossEntropy().probabilities(outputs)
    if outputs.shape[1] > 1:
        return CrossEntropy().probabilities(outputs)
    found = BinaryCrossEntropy().probabilities(outputs)
    return np.hstack([1 - found, found])


def found_in(case: str, how: Callable[[Array], Array] | None = None) -> dict[str, Any]:
    """Return what is found when the rows come in three blocks."""
    task, outputs, y = CASES[case]
    found = Scores(task, columns(task, outputs), NUM, how or partial(chances, task))
    for piece in PIECES:
        found.add(outputs[piece], y[piece])
    return found.result(World(), NUM, len(PIECES))


def columns(task: Task, outputs: Array) -> int:
    return max(1 + (task == "classification"), len(outputs[0]))


def each(task: Task, outputs: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return for each class or label (columns): is it, was taken for it, its probability."""
    p = chances(task, outputs.astype(np.float64))
    if task == "multilabel":
        return y.reshape(p.shape) == 1, p > 0.5, p
    number = np.arange(p.shape[1])
    best = p.argmax(axis=1)  # of equal ones the first
    return y[:, None] == number, best[:, None] == number, p


def f1(real: Array, taken: Array) -> float | None:
    right = int(np.sum(real & taken))
    if not real.any() and not taken.any():
        return None
    precision = right / taken.sum() if taken.any() else 0
    recall = right / real.sum() if real.any() else 0
    return 2 * precision * recall / (precision + recall) if right else 0.0


def pairs(real: Array, p: Array) -> float | None:
    """Return the share of pairs in the right order, each looked at."""
    apart = p[real][:, None] - p[~real]
    return float(np.mean((np.sign(apart) + 1) / 2)) if apart.size else None


def near(values: list[float | None]) -> list[Any]:
    return [None if value is None else pytest.approx(value, rel=1e-12) for value in values]


def mean(values: list[float | None]) -> Any:
    return pytest.approx(np.mean([value for value in values if value is not None]), rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_scores_are_numpys_of_all_rows(case: str) -> None:
    task, outputs, y = CASES[case]
    real, taken, p = each(task, outputs, y)
    f1s = [f1(real[:, k], taken[:, k]) for k in range(p.shape[1])]
    areas = [pairs(real[:, k], p[:, k]) for k in range(p.shape[1])]
    right = np.where(real, p, 1 - p if task == "multilabel" else 1)
    expected = {
        "log_loss": pytest.approx(
            -np.log(right).sum() / (1 if task == "classification" else real.shape[1]) / NUM
        ),
        "f1_each": near(f1s),
        "f1_macro": mean(f1s),
    }
    if task == "classification":
        expected["confusion"] = (real.T.astype(int) @ taken.astype(int)).tolist()
    if case.startswith(("two classes", "one label")):
        expected["roc_auc"] = near(areas)[-1]
    else:
        expected |= {"roc_auc_each": near(areas), "roc_auc_macro": mean(areas)}
    assert found_in(case) == expected


@pytest.mark.parametrize("case", [case for case in CASES if "never" not in case])
def test_scores_are_scikit_learns(case: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    task, outputs, y = CASES[case]
    real, taken, p = each(task, outputs, y)
    found = found_in(case)
    truth, guess = (y, taken.argmax(1)) if task == "classification" else (real[:, :], taken)
    one = "roc_auc" in found
    score = p[:, -1] if one else p
    average = None if p.shape[1] > 1 and not one else "macro"
    assert found["f1_each"] == near(
        np.atleast_1d(metrics.f1_score(truth, guess, average=None)).tolist()[
            -len(found["f1_each"]) :
        ]
    )
    areas = metrics.roc_auc_score(truth, score, average=average, multi_class="ovr")
    assert found.get("roc_auc_each", [found.get("roc_auc")]) == near(np.atleast_1d(areas).tolist())
    if task == "classification":
        assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p), rel=1e-12)
        assert found["confusion"] == metrics.confusion_matrix(y, guess).tolist()


def test_the_area_counts_every_pair() -> None:
    for _ in range(200):
        num = int(RNG.integers(0, 12))
        values, is_it = RNG.integers(0, 4, num) / 3, RNG.random(num) < 0.5
        assert area(values, is_it) == (pytest.approx(pairs(is_it, values)) if num else None)


def no_chances(_: Array) -> Array:
    raise InputError("nobody knows what outputs mean")


def test_outputs_that_are_no_probabilities_have_no_log_loss_but_an_order() -> None:
    for case in ("two classes of one output", "classes", "labels"):
        known, found = found_in(case), found_in(case, no_chances)
        assert known.keys() - found.keys() == {"log_loss"}
        assert found["f1_each"] == known["f1_each"]
        if case != "classes":  # an output says the same of its label as its probability
            same = "roc_auc" if "roc_auc" in found else "roc_auc_each"
            assert found[same] == known[same]
    assert "log_loss" not in found_in("labels", np.asarray)  # values, beyond 0 and 1


def test_certainty_costs_no_more_than_can_be_said() -> None:
    found = Scores("classification", 2, 2, partial(chances, "classification"))
    found.add(np.array([[900.0, 0.0], [900.0, 0.0]]), np.array([0, 1]))
    assert found.result(World(), 2, 1)["log_loss"] == pytest.approx(-np.log(2.0**-52) / 2)


def test_too_many_scores_have_no_area_and_too_many_classes_no_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = found_in("classes")
    monkeypatch.setattr(scores, "MOST_SCORES", 3 * NUM - 1)
    assert whole.keys() - found_in("classes").keys() == {"roc_auc_each", "roc_auc_macro"}
    assert "roc_auc" in found_in("two classes")
    monkeypatch.setattr(scores, "MOST_CLASSES", 2)
    found = found_in("classes")
    assert "confusion" not in found
    assert found["f1_each"] == whole["f1_each"]


def test_a_person_sees_a_line_for_each_class() -> None:
    found = {"data": "d.csv", "examples": 4, "loss": 0.5, "accuracy": 0.75}
    more = {"classes": ["no", "yes"], "confusion": [[1, 0], [11, 2]], "log_loss": 0.51}
    scores = {"f1_macro": 0.4, "f1_each": [0.2, None], "roc_auc": 0.9}
    assert _evaluation_text(found | more | scores).splitlines() == [
        "d.csv: 4 examples",
        "loss 0.5, accuracy 0.75, log loss 0.51, macro F1 0.4000, ROC-AUC 0.9000",
        "",
        "confusion (row: true class, column: predicted class)",
        "        no  yes       F1",
        "   no    1    .   0.2000",
        "  yes   11    2",
    ]
    labels = {
        "f1_macro": 0.4,
        "f1_each": [0.2, 0.6],
        "roc_auc_macro": 0.9,
        "roc_auc_each": [1, 0.8],
    }
    assert _evaluation_text(found | labels).splitlines()[2:] == [
        "",
        "          F1  ROC-AUC",
        "  0   0.2000   1.0000",
        "  1   0.6000   0.8000",
    ]
    assert _evaluation_text(found | {"rmse": 2.0}).splitlines()[1:] == [
        "loss 0.5, accuracy 0.75, rmse 2"
    ]
    many = {"classes": list(range(2000)), "f1_macro": 0.4, "f1_each": [0.1] * 2000}
    assert _evaluation_text(found | many).splitlines()[2:] == [
        "no ROC-AUC of so many rows and classes",
        "no table of so many classes: 2,000",
    ]


def test_ranks_without_rows_have_no_say_in_labels(quick: Start, tmp_path: Path) -> None:
    x = np.arange(120.0).reshape(40, 3) / 120
    np.savez(tmp_path / "data.npz", x=x, y=(x > [0.3, 0.5, 0.7]) * 1)
    small = ("--hidden", "4", "--steps", "2")
    quick("train", "data.npz", *small, "--out", "run", "--json").json  # noqa: B018
    alone = quick("evaluate", "run", "data.npz", "--json").json
    assert len(alone["roc_auc_each"]) == 3
    for ranks in (2, 3):
        assert quick("evaluate", "run", "data.npz", "--json", ranks=ranks).json == alone
