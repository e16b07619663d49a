"""Categories as numbers that are learned: a row of a table for each, in place of its code."""

import functools

import numpy as np

from dptrain.arrays import Array, Categories, Floats, Param, num_params
from dptrain.model import Shards
from dptrain.model.products import tree_of
from dptrain.model.spare import Memory
from dptrain.words import InputError

WIDEST = 50
SPREAD = 0.01
"""Standard deviation of the numbers to begin with."""

MOST = 2**24
"""Codes that float32 can tell apart."""


def width(rows: int) -> int:
    """Return how many numbers stand for each of so many categories.

    1.6 * rows ** 0.56, as fastai has it, found there by trying; not more than `WIDEST`.
    """
    return min(WIDEST, round(1.6 * float(rows**0.56)))


class Embedding:
    """The inputs that are codes, and their tables, which end a model's flat vector.

    `inputs` is how many inputs an example has, codes included. InputError where `categories` are
    none of them.
    """

    def __init__(self, inputs: int, categories: Categories) -> None:
        columns = [column for _, column, _ in categories]
        for name, column, rows in categories:
            sound = type(column) is int and type(rows) is int and isinstance(name, str)
            if not sound or not 0 <= column < inputs or rows < 1 or columns.count(column) > 1:
                raise InputError(f"categories has {name!r}, {column}, {rows}: no input of codes")
            if rows > MOST:
                raise InputError(
                    f"column {name!r} has {rows:,} different texts, above {MOST:,}: "
                    f"leave it out with --drop {name!r}"
                )
        self.columns, self._all = columns, inputs
        self.num_plain = inputs - len(columns)
        """How many inputs are no codes."""
        self.layout = tuple(
            Param(f"embedding.{name}", (rows, width(rows))) for name, _, rows in categories
        )
        """Each table [categories, numbers]; the last category is whatever was never seen."""
        self.inputs = self.num_plain + sum(param.shape[1] for param in self.layout)
        """What an example has once numbers stand for codes, which come behind the others."""

    @functools.cached_property
    def plain(self) -> list[int]:
        """The inputs that are no codes; first looked for where there are rows of as many."""
        return [column for column in range(self._all) if column not in self.columns]

    def parts(self, vector: Floats) -> list[tuple[int, slice, Floats]]:
        """Return each code's input, where its numbers come, and its table, a view of `vector`."""
        found, start, place = [], len(vector) - num_params(self.layout), self.num_plain
        for column, param in zip(self.columns, self.layout, strict=True):
            table = vector[start : start + param.size].reshape(param.shape)
            found.append((column, slice(place, place + param.shape[1]), table))
            start, place = start + param.size, place + param.shape[1]
        return found

    def start(self, params: Floats, rng: np.random.Generator) -> None:
        """Write the numbers to begin with: small ones, and 0 for what is never seen."""
        for _, _, table in self.parts(params):
            table[:-1] = rng.standard_normal((len(table) - 1, table.shape[1])) * SPREAD

    def look_up(self, params: Floats, x: Array, out: Floats) -> Array:
        """Return `out` with the inputs [m, inputs], numbers in place of codes; x without codes."""
        if not self.layout:
            return x
        out[:, : self.num_plain] = x[:, self.plain]
        for column, place, table in self.parts(params):
            out[:, place] = table[x[:, column].astype(np.intp)]
        return out

    def add_up(
        self, x: Array, delta: Floats, weight: Floats, out: Floats, memory: Memory, shards: Shards
    ) -> None:
        """Write the gradient of the tables to the end of `out`: a sum over examples, in order.

        `delta` [m, units] are the first layer's, `weight` [inputs, units] its weights.
        """
        for column, place, table in self.parts(out):

            def write(rows: slice, into: Floats, column: int = column, at: slice = place) -> None:
                into.fill(0)
                np.add.at(into, x[rows, column].astype(np.intp), delta[rows] @ weight[at].T)

            tree_of(shards, write, table, memory)
