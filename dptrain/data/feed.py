"""Rows of a table as a model takes them: read and encoded when they are asked for."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Weights
from dptrain.data.encode import Encoding, Taker
from dptrain.data.keep import Take
from dptrain.data.split import Chosen
from dptrain.data.table import Table, in_memory
from dptrain.machine import usable_cores
from dptrain.words import InputError
from dptrain.world import World

BLOCK = 1024
"""Rows in a block. Statistics are added block by block in the tree, so are free of the ranks."""

LARGEST = 2**31
"""Bytes of encoded rows that a node holds; more are encoded anew each time that they are seen."""

LARGEST_OF_FILES = 2**28
"""Of those that are read from files piece by piece, so that a large file begins at once."""


def blocks(num_rows: int, world: World) -> Iterator[slice]:
    """Yield the blocks of rows that are this rank's, to be read by no other."""
    for block in world.mine(-(-num_rows // BLOCK)):
        yield slice(block * BLOCK, min((block + 1) * BLOCK, num_rows))


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples of a table, encoded when they are asked for: only the rows asked for are read."""

    table: Table
    encoding: Encoding
    chosen: Chosen | None = None
    """The table's rows that belong, [examples]; None for all."""
    class_weights: NDArray[np.float64] | None = None
    """How much an example of each class counts, [classes]; None where each counts 1."""

    def __len__(self) -> int:
        return len(self.table) if self.chosen is None else len(self.chosen)

    def rows(self, examples: Any) -> Any:
        """Return which of the table's rows examples are, given by number or as a slice."""
        return examples if self.chosen is None else self.chosen[examples]

    def raw_x(self, examples: Any) -> Array:
        """Return the inputs [m, width] of examples before they are scaled."""
        parts = self._parts(examples)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _parts(self, examples: Any, out: Array | None = None) -> list[Array]:
        rows = self.rows(examples)
        fields = zip(self.encoding.fields, self.table.columns, self._places, strict=True)
        return [field.encode(column.read(rows, out), places) for field, column, places in fields]

    @functools.cached_property
    def _places(self) -> list[NDArray[np.intp] | None]:
        fields = zip(self.encoding.fields, self.table.columns, strict=True)
        return [field.places(c) if field.kind == "words" else None for field, c in fields]

    def inputs(self, examples: Any, taker: Taker, out: Array | None = None) -> Array:
        """Return the inputs of examples as a model takes them; see `Encoding.inputs`."""
        return self.encoding.inputs(self._parts(examples, out), taker, out)

    def all_y(self, examples: Any) -> Array:
        """Return the raw targets [m, outputs] of examples; of names their numbers."""
        if not self.table.targets:
            raise InputError(f"{self.table.source} has no y; store a target for each example")
        rows = self.rows(examples)
        found = [column.read(rows) for column in self.table.targets]
        y = found[0] if len(found) == 1 else np.stack(found, axis=1)
        return y.reshape(len(y), sum(column.width for column in self.table.targets))

    def raw_y(self, examples: Any) -> Array:
        """Return the same, shape [m] where a row has one."""
        y = self.all_y(examples)
        return y[:, 0] if y.shape[1] == 1 else y

    @functools.cached_property
    def _classes(self) -> NDArray[np.intp]:
        """Which class each word of the target is, -1 for none."""
        classes = self.encoding.classes.tolist()
        known = {str(name): number for number, name in enumerate(classes)}
        return np.array([known.get(word, -1) for word in self.table.targets[0].words], np.intp)

    def labels(self, examples: Any) -> NDArray[np.intp]:
        """Return class numbers [m]; -1 for a label that is none of the training rows'."""
        y, classes = self.raw_y(examples), self.encoding.classes
        if y.ndim > 1:
            return np.where((y == 1).sum(axis=1) == 1, y.argmax(axis=1), -1)
        if self.table.targets[0].kind == "words":
            return self._classes[y]
        if classes.dtype.kind == "U":
            known = {name: number for number, name in enumerate(classes.tolist())}
            return np.array([known.get(str(value), -1) for value in y.tolist()], np.intp)
        if len(classes) == 0:
            return np.full(len(y), -1)
        found = classes[:-1].searchsorted(y)  # the last one for all that are larger
        return np.where(classes[found] == y, found, -1)

    def targets(self, examples: Any, dtype: Any) -> Array:
        """Return class numbers [m], or values [m] or [m, outputs] as the model learns them."""
        if self.encoding.task == "classification":
            return self.labels(examples)
        if self.encoding.task == "regression":
            return self.encoding.learned(self.raw_y(examples), dtype)
        values: Array = self.raw_y(examples).astype(dtype)
        return values

    def weights(self, examples: Any) -> Weights:
        """Return how much examples count, [m]; None where each counts 1."""
        found: Weights = None
        if self.table.weight is not None:
            found = self.table.weight.read(self.rows(examples)).astype(np.float64).reshape(-1)
        if self.class_weights is not None:
            of_class = self.class_weights[self.labels(examples)]
            found = of_class if found is None else found * of_class
        return found

    def gather(self, examples: Any, taker: Taker, out: Array | None = None) -> tuple[Array, Array]:
        """Return inputs and targets of examples, as the model takes them; see `inputs`."""
        return self.inputs(examples, taker, out), self.targets(examples, taker.dtype)

    def blocks(self, world: World) -> Iterator[slice]:
        """Yield the blocks of examples that are this rank's, to be read by no other."""
        return blocks(len(self), world)

    @property
    def num_blocks(self) -> int:
        """The number of blocks over all ranks."""
        return -(-len(self) // BLOCK)

    def line(self, example: int) -> str:
        """Return the row of an example, for people, or its line where it stands in a text."""
        row = example if self.chosen is None else int(self.chosen[[example]][0])
        return f"row {row}" if self.table.line is None else self.table.line(row)

    def place(self, example: int, column: Sequence[int] = (), *, of_x: bool = True) -> str:
        """Return where an entry stands, for people; its column's name too, where it has one."""
        if self.table.line is not None:
            return self.line(example)
        where = self.line(example) + "".join(f", column {c}" for c in column)
        names = self.encoding.features if of_x else ()
        named = "".join(f", {names[c]!r}" for c in column if c < len(names))
        return f"{where} ({'both count' if column else 'counts'} from 0){named}"


class Batch(Protocol):
    """A minibatch, as far as its rows are concerned."""

    def shards(self, numbers: range, /) -> tuple[NDArray[np.intp], object]:
        """Return the examples of neighbouring shards first."""


B = TypeVar("B", bound=Batch)


class Feed:
    """Examples as the model takes them, gathered into memory that is used again and again.

    They are encoded once, by all ranks of a node into memory that they share; more than `LARGEST`,
    or of files that are read piece by piece `LARGEST_OF_FILES`, are encoded when asked for.
    Collective: every rank must make one.
    """

    def __init__(self, rows: Rows, taker: Taker, world: World, take: Take) -> None:
        self._rows = rows
        self._taker = taker
        self._memory: dict[int, Array] = {}
        self._all: tuple[Array, Array, Weights] | None = None
        self._read: dict[bytes, Future[tuple[Array, Array, Weights]]] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._first, *_ = firsts = self._three(slice(0, 1))
        at_hand = all(in_memory(column.values) for column in rows.table.every())
        if len(rows) * firsts[0][0].nbytes <= (LARGEST if at_hand else LARGEST_OF_FILES):
            x, y, weights = firsts
            counts = None if weights is None else self._room(weights, take)
            self._all = self._room(x, take), self._room(y, take), counts
            here, shared = world.ranks_here, self._shared
            blocks = range(world.rank - here.start, rows.num_blocks, len(here))
            for block in blocks if shared else range(rows.num_blocks):
                part = slice(block * BLOCK, (block + 1) * BLOCK)
                for whole, found in zip(self._all, self._three(part), strict=True):
                    if whole is not None and found is not None:
                        whole[part] = found
            world.allgather(None)  # all have written
        elif len(usable_cores()) > len(world.ranks_here) and all(
            isinstance(column.values, np.memmap) for column in rows.table.every()
        ):
            self._thread = ThreadPoolExecutor(1)

    def ahead(self, batches: Iterable[B], stacks: Sequence[range]) -> Iterable[B]:
        """Return minibatches of which a thread reads the next one's shards, this rank's, meanwhile.

        `stacks` are those that are asked for in one go. Where rows are at hand already, or there is
        no core for a thread, they are those given.
        """
        self._read.clear()
        return batches if self._thread is None else self._reading(self._thread, batches, stacks)

    def _reading(
        self, thread: ThreadPoolExecutor, batches: Iterable[B], stacks: Sequence[range]
    ) -> Iterator[B]:
        later = iter(batches)
        now = next(later, None)
        while now is not None:
            following = next(later, None)
            if following is not None:
                for stack in stacks:
                    rows, _ = following.shards(stack)
                    self._read[rows.tobytes()] = thread.submit(self._three, rows)
            yield now
            now = following

    def _three(self, examples: Any, out: Array | None = None) -> tuple[Array, Array, Weights]:
        """Return inputs, targets and weights of examples, encoded anew."""
        with np.errstate(all="ignore"):  # which is each thread's own; the loss says what is wrong
            return *self._rows.gather(examples, self._taker, out), self._rows.weights(examples)

    def _room(self, first: Array, take: Take) -> Array:
        """Return an array for what is like `first`, which is of one row, of all rows."""
        memory, self._shared = take(len(self._rows) * first[0].nbytes)
        num = len(self._rows) * first[0].size
        return np.frombuffer(memory, first.dtype, num).reshape(-1, *first.shape[1:])

    def __getitem__(self, examples: NDArray[np.intp]) -> tuple[Array, Array, Weights]:
        """Return inputs, valid until as many are asked for again, targets, and weights [m].

        The weights are None where every example counts 1.
        """
        read = self._read.pop(examples.tobytes(), None) if self._read else None
        if read is not None:
            return read.result()
        out = self._memory.get(len(examples))
        if out is None:
            out = np.empty((len(examples), *self._first.shape[1:]), self._first.dtype)
            self._memory[len(examples)] = out
        if self._all is None:
            return self._three(examples, out)
        x, y, weights = self._all
        x.take(examples, axis=0, out=out, mode="clip")
        counts = None if weights is None else weights.take(examples)
        return out, y.take(examples, axis=0), counts
