"""What an evaluation tells of classes and labels one by one, exact on any number of ranks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats
from dptrain.checked import Plain
from dptrain.config import Task
from dptrain.reduce.sums import gather_at, total, total_count
from dptrain.train.evaluate import fits, predicted_classes
from dptrain.words import InputError
from dptrain.world import World

Counts = NDArray[np.int64]

MOST_CLASSES = 1000
"""With more, a table of what was taken for what has more entries than most models."""

MOST_SCORES = 2**27
"""Rows times classes up to which the area under a ROC curve is counted. The ranks hold 8 bytes of
each in all, and the one that counts a class 18 bytes a row."""

SMALLEST = np.finfo(np.float64).eps
"""What probabilities are kept from 0 and 1 by, as their logarithm is asked for."""


class Scores:
    """Log loss, F1, ROC-AUC and the confusion matrix, of blocks that are added one by one.

    `task`, `num_classes`: classification, of so many classes, or multilabel, of so many labels.
    `num_rows`: all that will be added, over all ranks. `chances`: what makes probabilities [m,
    classes or labels] of outputs; InputError where nothing does. Then there is no log loss, and
    outputs are what a ROC curve is drawn by.
    """

    def __init__(
        self, task: Task, num_classes: int, num_rows: int, chances: Callable[[Array], Array]
    ) -> None:
        self._task, self._chances = task, chances
        self._counts: Counts = np.zeros((3, num_classes), np.int64)  # are it, taken for it, both
        table = (num_classes, num_classes) if task == "classification" else (0, 0)
        self._confusion = np.zeros(table, np.int64) if num_classes <= MOST_CLASSES else None
        self._first = int(task == "classification" and num_classes == 2)  # one score says it all
        self._keeps = num_rows * (num_classes - self._first) <= MOST_SCORES
        self._fit = True
        self._losses: list[float] = []
        self._scores: list[Array] = []
        self._labels: list[Array] = []

    def add(self, values: Floats, y: Array) -> None:
        """Count a block of outputs [m, outputs], whose classes are y [m] or labels y [m, ...]."""
        self._fit = fits(values.shape[1], self._counts.shape[1], self._task)
        if not self._fit:
            return
        try:
            scores = self._chances(values.astype(np.float64))
            inside = scores.min() >= 0 and scores.max() <= 1
            self._losses.append(self._loss(scores, y) if inside else np.nan)
        except InputError:
            scores = values if values.shape[1] > 1 else np.hstack([-values, values])
            self._losses.append(np.nan)
        if self._task == "classification":
            taken, classes = predicted_classes(values), np.arange(self._counts.shape[1])
            if self._confusion is not None:
                np.add.at(self._confusion, (y, taken), 1)
            for counts, found in zip(self._counts, (y, taken, y[taken == y]), strict=True):
                counts += np.bincount(found, minlength=len(classes))
        else:
            y = y.reshape(values.shape) == 1
            found = np.array([y, values > 0, y & (values > 0)])
            self._counts += found.sum(axis=1)
        if self._keeps:
            self._scores.append(np.asarray(scores[:, self._first :], np.float64))
            self._labels.append(y)

    def _loss(self, chances: Array, y: Array) -> float:
        """Return minus the logarithm of what the truth was given, summed over rows."""
        if self._task == "classification":
            right = chances[np.arange(len(y)), y]
        else:
            right = np.where(y.reshape(chances.shape) == 1, chances, 1 - chances)
        logarithms = np.log(np.clip(right, SMALLEST, 1 - SMALLEST))
        return -float(logarithms.reshape(len(y), -1).mean(axis=1).sum())

    def result(self, world: World, num_rows: int, num_blocks: int) -> Plain:
        """Return what all blocks of all ranks come to.

        `log_loss`; `f1_each`, of each class or label, None where none is it or was taken for it,
        and their mean `f1_macro`; `roc_auc` of two classes, else `roc_auc_each`, one against the
        rest, None where all or none are it, and their mean `roc_auc_macro`; `confusion`, whose row
        i counts what class i was taken for. Nothing where outputs are not a score each. Collective:
        every rank must call this.
        """
        if not all(world.allgather(self._fit)):
            return Plain()
        counts, found = total_count(world, self._counts), Plain()
        loss = total(world, np.array(self._losses, np.float64), num_blocks) / num_rows
        if np.isfinite(loss):
            found["log_loss"] = float(loss)
        triples = counts.T.tolist()
        each = [2 * both / (real + said) if real + said else None for real, said, both in triples]
        found |= {"f1_macro": mean(each), "f1_each": each}
        if self._keeps:
            areas = self._areas(world)
            several = {"roc_auc_macro": mean(areas), "roc_auc_each": areas}
            found |= {"roc_auc": areas[0]} if len(areas) == 1 else several
        if self._confusion is not None and self._confusion.size:
            found["confusion"] = total_count(world, self._confusion).tolist()
        return found

    def _areas(self, world: World) -> list[float | None]:
        """Return the area under each score's ROC curve; the ranks share them. Collective."""
        number = self._counts.shape[1] - self._first
        scores = np.concatenate([np.empty((0, number)), *self._scores])
        labels = np.concatenate(self._labels) if self._labels else np.empty(0, np.intp)
        own = {}
        for column in range(number):
            root = column % world.size
            if self._task == "classification":
                is_it = labels == column + self._first
            else:
                is_it = labels.reshape(scores.shape)[:, column] == 1  # a rank may have no row
            all_scores = gather_at(world, scores[:, column], root)
            all_truth = gather_at(world, is_it, root)
            if world.rank == root:
                own[column] = area(all_scores, all_truth)
        areas = {k: v for part in world.allgather(own) for k, v in part.items()}
        return [areas[column] for column in range(number)]


def mean(values: list[float | None]) -> float | None:
    """Return the mean of those that are known, None of none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def area(scores: Array, is_it: Array) -> float | None:
    """Return the share of pairs (one that is it, one that is not) that scores [m] order rightly.

    Where they tie a pair counts half. That is the area under the ROC curve (Hanley, McNeil, 1982),
    counted in whole numbers; None without pairs.
    """
    others, those = np.sort(scores[~is_it]), scores[is_it]
    num_pairs = len(others) * len(those)
    if num_pairs == 0:
        return None
    below = int(np.searchsorted(others, those, "left").sum())
    not_above = int(np.searchsorted(others, those, "right").sum())
    return (below + not_above) / (2 * num_pairs)
