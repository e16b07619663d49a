"""What the training loop knows of a model: a small protocol, and the networks that keep it."""

import contextlib
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from types import CodeType
from typing import Any, NamedTuple, Protocol

import numpy as np

from dptrain.arrays import Array, Categories, Floats, Layout, Sums, Weights
from dptrain.checked import Plain
from dptrain.config import ModelFile, Task
from dptrain.words import InputError, is_text

NOTED = ("__firstlineno__", "__static_attributes__")
"""What Python, from 3.13 on, notes of a class's text: its line, and names in any order."""

getsource = cache(inspect.getsource)  # it looks through a whole file, and is asked often
MakeGenerator = Callable[[], np.random.Generator]
"""Makes a generator of random numbers, always the same ones."""

Places = tuple[tuple[int, int], ...]
"""From where to where each of several neighbouring shards is, of their rows."""


class Shards(NamedTuple):
    """Neighbouring shards whose gradient sum is computed in one go: a subtree of the fixed tree."""

    places: Places
    adds: tuple[int, ...]
    """How often, once a shard's sum is there, the last two sums are added, the upper to the lower;
    see `reduce.tree.times_added`."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many rows each shard has, of those that have any."""
        return tuple(stop - start for start, stop in self.places if stop > start)


OfShards = Callable[
    [Floats, Array, Array, Weights, Floats, Shards, Sequence[MakeGenerator]], list[Sums]
]
"""Computes several shards in one go; see `MLP.of_shards`."""


class Model(Protocol):
    """Named arrays in one flat vector, and the sums over examples that training needs.

    Sums, never means: the loop divides once, by the sum of the weights over the whole minibatch. A
    result must depend on the arguments alone (no state, no rank), then it is free of the number of
    processes. Threads may call a model at once, so memory that it computes in must be a call's own.

    A run goes on with the same model only, known by its class's source and its plain attributes. A
    model may say more: `spec()`, its settings in place of the attributes; `sources()`, texts in
    place of its class's; `fingerprint()`, a text that changes with what it computes; `software()`,
    the names and versions of what it computes with; `transform(x, rng)`, which changes an example's
    inputs in training, with a generator keyed by (seed, epoch, example); `metric_sums(outputs, y)`,
    pairs of a sum and its divisor by name, in place of the task's metrics; `beside(arrays)`, what
    is stored beside the layout's arrays, given these by name; `forget()`, which drops what a call
    leaves for the next, such as compiled code; and, as an `MLP` does, `probabilities`, `check`
    (whether data fit it), `activation_bytes` and `flop` (its products, for `bench`).

    An array's rows come in their own shape, whole numbers as they are, other numbers scaled. With
    `flat_inputs = True`, as an `MLP` has it, each is one row of scaled numbers of type `dtype`. A
    category of more than `one_hot` words is one input, the word's number; the last is a new word's.
    """

    @property
    def layout(self) -> Layout:
        """The arrays that the vector of length n holds. Of a statistic, such as a running mean, a
        shard's gradient is the new value times the shard's weight sum; the minibatch's mean of it
        takes its place in the vector, and no optimizer touches it."""

    @property
    def dtype(self) -> Any:
        """The type of parameters, gradients and inputs: float32 or float64."""

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return the parameters to start from, shape [n]."""

    def loss_and_grad_sum(
        self,
        params: Floats,
        x: Array,
        y: Array,
        weights: Weights,
        out: Floats,
        rng: MakeGenerator,
        /,
    ) -> Sums:
        """Return a shard's sums, and write the gradient of its loss sum to `out`.

        Parameters
        ----------
        params
            Shape [n], not to be changed.
        x
            Inputs, shape [m, features], or [m, ...] as an array's rows have it; m >= 1.
        y
            Targets: class numbers [m] for classification, values [m] or [m, outputs] else.
        weights
            How much each example counts, shape [m], >= 0; None where each counts 1. A model that
            counts terms of an example, such as tokens, counts each so much.
        out
            Shape [n]; all entries must be written.
        rng
            Call it for random numbers of this shard of this step, such as for dropout.
        """

    def outputs(self, params: Floats, x: Array) -> Floats:
        """Return what the loss takes (scores or values), shape [m] or [m, outputs]."""

    def loss_sum(self, outputs: Floats, y: Array, weights: Weights) -> Sums:
        """Return the sums of what has these outputs; see `loss_and_grad_sum`."""


def weight_sum(weights: Weights, num_examples: int) -> float:
    """Return what examples weigh together, 1 each unless said."""
    return float(num_examples) if weights is None else float(np.add.reduce(weights))


def check_data(
    model: Model, task: Task, inputs: int, outputs: int, classes: int, categories: Categories
) -> None:
    """Raise InputError where data don't fit a model, as far as it says so; see `MLP.check`.

    A model that does not say which of its inputs are codes of categories takes them as they are.
    """
    if getattr(model, "categories", categories) != categories:
        raise InputError("the model is for other categories than the data has")
    ask: Callable[[Task, int, int, int], None] | None = getattr(model, "check", None)
    if ask is not None:
        ask(task, inputs, outputs, classes)


def check_layout(model: Model) -> None:
    """Raise InputError where a model's arrays can't be stored by their names."""
    names = [param.name for param in model.layout]
    for name in names:
        if not is_text(name) or names.count(name) > 1 or name == "__metadata__":
            raise InputError(
                f"the model has an array named {name!r}; give each a name of its own, of letters, "
                "which __metadata__ is not: it is that of what stands beside arrays in a file"
            )


def described(model: Model) -> Plain:
    """Return what a model is, as plain values by which a run knows it again.

    dptrain's own by its class's name and its settings; one of one's own, such as a subclass, also
    by a hash of what its class is made of, and by its settings: what `spec()` returns, or else its
    public attributes that are plain values.
    """
    kind = type(model)
    found: Plain = {"class": kind.__qualname__}
    texts: Callable[[], list[str]] | None = getattr(model, "sources", None)
    if texts is not None:
        found["source"] = hashlib.sha256("\n".join(texts()).encode()).hexdigest()
    elif not kind.__module__.startswith("dptrain."):
        rooms = ("dptrain", "typing", "builtins")
        classes = [base for base in kind.__mro__ if base.__module__.split(".")[0] not in rooms]
        found["source"] = hashlib.sha256("\n".join(map(source_of, classes)).encode()).hexdigest()
    ask: Callable[[], Any] | None = getattr(model, "fingerprint", None)
    if ask is not None:
        found["fingerprint"] = str(ask())
    origin: ModelFile | None = getattr(model, "origin", None)
    if origin is not None:
        found["file"] = {key: value for key, value in asdict(origin).items() if value}
    spec: Callable[[], Any] | None = getattr(model, "spec", None)
    if spec is None:
        found["attributes"] = _plain(getattr(model, "__dict__", {}))
    else:
        found["spec"] = _plain(spec())
    return found


def check_is_one(model: object) -> None:
    """Raise InputError where a caller in Python has given what is no model."""
    if isinstance(model, type) or not hasattr(model, "loss_and_grad_sum"):
        raise InputError(
            f"the model is {model!r:.200}; give an MLP, a TorchModel(module), a JaxModel(init, "
            "apply), or an object that keeps dptrain.Model"
        )


def is_own(described: Any) -> bool:
    """Return whether that is a model of one's own, which no settings can make again."""
    return isinstance(described, dict) and "source" in described


def _plain(values: Mapping[str, Any]) -> Plain:
    """Return those of some values that are public and that JSON knows, as it reads them again."""
    found = {}
    for name, value in values.items():
        with contextlib.suppress(TypeError, ValueError):
            text = json.dumps(value.item() if isinstance(value, np.generic) else value)
            if not name.startswith("_"):
                found[name] = json.loads(text)
    return found


def source_of(part: Any) -> str:
    """Return the text of a class or function, or what it was made into, as in a shell."""
    with contextlib.suppress(OSError, TypeError):
        text = getsource(part)
        # of a class from a shell Python 3.13 takes what has its line in the file that was started
        if not isinstance(part, type) or f"class {part.__name__}" in text:
            return text
    found = sorted(vars(part).items()) if isinstance(part, type) else [("", part)]
    return repr([(name, [*_code(value)]) for name, value in found if name not in NOTED])


def _code(value: Any) -> Iterator[Any]:
    """Yield what a function does, and those within it, without where they stand."""
    value = getattr(value, "fget", value)
    code = getattr(getattr(value, "__func__", value), "__code__", value)
    if isinstance(code, CodeType):
        yield code.co_code, code.co_names
        for constant in code.co_consts:
            yield from _code(constant)
    elif code is None or isinstance(code, (bool, int, float, str, bytes, tuple)):
        yield code
