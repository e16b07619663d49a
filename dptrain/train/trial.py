"""A model is tried before it is trusted: what it must keep for sums over shards to be right."""

import contextlib
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dptrain.arrays import Array, Floats, Sums, Weights, name_of, num_params, views
from dptrain.data.feed import Rows
from dptrain.keys import Purpose, generator, generators
from dptrain.model import Model
from dptrain.streams import warn
from dptrain.train.loop import stacked
from dptrain.words import InputError

STEPS = 1e-2, 1e-3, 1e-1, 1e-4, 1e-5
"""Of finite differences, as parts of an array's own size; a model need agree with one of them."""

MOST_EXAMPLES = 64

SUMS = (
    "two shards together",
    "each",
    "return sums over examples, not means; let none depend on the others beside it, nor, in "
    "evaluation, on random numbers; and compute in float32 or float64 throughout",
)
WEIGHTS = (
    "examples that count 3",
    "every other one, where the rest count 0",
    "let what an example adds to loss, weight and gradient be times what it counts",
)
"""Whose sums are compared, with those of which parts of it, and what to do where they differ."""

Made = tuple[Sums, Floats]
"""A shard's sums, and its gradient; that is empty where none was computed."""


class Trial:
    """Two shards of the first examples, and what a model makes of them.

    Raises InputError, in any method, where the model does not keep what it must.
    """

    def __init__(self, model: Model, rows: Rows, num: int, seed: int) -> None:
        self.model, self.seed = model, seed
        num = max(1, min(num, MOST_EXAMPLES, len(rows) // 2))
        self.whole = rows.gather(slice(0, 2 * num), model)
        self.weighed = rows.weights(slice(0, 1)) is not None
        x, y = self.whole
        self.halves = (x[:num], y[:num]), (x[num:], y[num:])
        params, again = (model.initial_params(generator(seed, Purpose.PARAMS)) for _ in range(2))
        self.params = np.ascontiguousarray(params)
        kind, size = np.dtype(model.dtype), num_params(model.layout)
        if self.params.shape != (size,) or self.params.dtype != kind:
            raise InputError(
                f"initial_params returns {self.params.dtype} {self.params.shape}; the layout needs "
                f"{kind} ({size},)"
            )
        if not np.array_equal(params, again, equal_nan=True):
            raise InputError("initial parameters, made twice, differ: draw them from the rng given")
        self.eps = float(np.finfo(kind).eps)

    def shard(
        self, x: Array, y: Array, params: Floats, fill: float = 0.0, key: int = 0, w: Weights = None
    ) -> Made:
        """Return what is made of a shard with weights w, in a buffer that held `fill`."""
        out = np.full(len(params), fill, params.dtype)
        rng = partial(generator, self.seed, Purpose.DROPOUT, 0, 0, key)
        try:
            sums = self.model.loss_and_grad_sum(params, x.copy(), y.copy(), w, out, rng)
        except ValueError as error:
            if "read-only" in str(error):
                raise InputError(
                    f"the model writes to its parameters or inputs: {error}"
                ) from error
            if x.dtype.kind in "biu" and error.__cause__:  # code of one's own has failed
                raise InputError(
                    f"{error}. Inputs are {x.dtype}, as they are stored: let the model convert "
                    "them, as by x.float(), or give --scale standard, which makes real numbers"
                ) from error.__cause__
            raise
        return _as_sums("loss_and_grad_sum", sums), out

    def twice(self) -> Made:
        """Compute a shard twice, from other buffers, and return what is made of it."""
        params = self.params.copy()
        params.flags.writeable = False
        first = self.shard(*self.halves[0], params, fill=3.0)
        params = self.params.copy()
        forget: Callable[[], None] = getattr(self.model, "forget", lambda: None)
        forget()
        second = self.shard(*self.halves[0], params, fill=7.0)
        if params.tobytes() != self.params.tobytes():
            where = name_of(self.model.layout, int(np.argmax(params != self.params)))
            raise InputError(f"the model writes to its parameters, in {where}: they are only read")
        unwritten = (first[1] == 3.0) & (second[1] == 7.0)
        if unwritten.any():
            where = name_of(self.model.layout, int(np.argmax(unwritten)))
            raise InputError(f"the model does not write the gradient of {where}")
        again = self.named(second)
        for name, part in self.named(first).items():
            if part.tobytes() != again[name].tobytes():  # NaN is NaN there
                raise InputError(
                    "the model, called twice with the same arguments, differs from itself in "
                    f"{name}: a random number that is not from the generator it is given, what an "
                    "earlier call left, or a gradient that is added to and not written"
                )
        return first

    def named(self, made: Made) -> dict[str, Array]:
        """Return by name what is made of a shard, in which each call and each rank must agree."""
        arrays = views(self.model.layout, made[1]).items()
        return {f"the gradient of {k}": v for k, v in arrays} | {"its loss": np.array(made[0][:2])}

    def transformed(self) -> Array:
        """Return some examples as a transform changes them, twice with the same random numbers."""
        transform: Callable[..., Any] | None = getattr(self.model, "transform", None)
        if transform is None:
            return self.whole[0][:0]
        keyed, rows = generators(self.seed, Purpose.TRANSFORM, 0), []
        for number, row in enumerate(self.whole[0][:16]):
            found = [np.asarray(transform(row.copy(), keyed(number))) for _ in range(2)]
            if found[0].tobytes() != found[1].tobytes():
                raise InputError(
                    "transform, called twice with the same inputs and generator, differs from "
                    "itself: let it draw from the generator that it is given, and keep nothing"
                )
            rows.append(found[0])
        return stacked(rows)

    def adds_up(self, made: Made) -> None:
        """Compare the sums over two shards with those over all of their examples.

        `made` is what is made of the first half, whose examples are also weighed where the data's
        are. Of two shards whose gradients are computed one is a single example, as may be.
        """
        scored = []
        measured, ask = list[dict[str, Any]](), getattr(self.model, "metric_sums", None)
        for x, y in (*self.halves, self.whole):
            outputs = self.model.outputs(self.params, x.copy())
            sums = _as_sums("loss_sum", self.model.loss_sum(outputs, y, None))
            scored.append((sums, self.params[:0]))
            measured.append(ask(outputs, y) if ask else {})
        self._compare("loss_sum's", scored, SUMS)
        for name in measured[0] if len({tuple(each) for each in measured}) == 1 else ():
            pairs = [(Sums(*each[name]), self.params[:0]) for each in measured]
            self._compare(f"metrics' {name}, its", pairs, SUMS)
        half = self.halves[0]
        if self.weighed:
            other = np.resize([0.0, 3.0], len(half[1]))
            parts = [self.shard(*half, self.params, w=w) for w in (other, 3 - other)]
            thrice = Sums(*(3 * number for number in made[0])), 3 * made[1]
            self._compare("loss_and_grad_sum's", [*parts, thrice], WEIGHTS)
        x, y = half if len(half[1]) > 1 else self.whole
        draws = self.shard(*half, self.params, key=1)[1].tobytes() != made[1].tobytes()
        if draws or len(y) < 2 or any(param.kind == "statistic" for param in self.model.layout):
            return  # other numbers for another shard, and statistics of each
        shards = (x[:1], y[:1]), (x[1:], y[1:]), (x, y)
        parts = [self.shard(*part, self.params) for part in shards]
        self._compare("loss_and_grad_sum's", parts, SUMS)

    def warn_of_probabilities(self) -> None:
        """Warn where a loss that takes scores is given probabilities.

        Those stay between 0 and 1 whatever the parameters are; of scores some few may.
        """
        if not getattr(self.model, "takes_scores", False) or len(self.whole[0]) < 8:
            return
        for times in (1, -2, 4, -8):
            params = self.params.copy()
            for param in self.model.layout:
                if param.kind != "statistic":
                    views(self.model.layout, params)[param.name][...] *= times
            found = self.model.outputs(params, self.whole[0].copy())
            inside = times != 1 or np.any((found > 0) & (found < 1))
            if not (inside and np.all((found >= 0) & (found <= 1))):
                return
        warn(
            "the model's outputs look like probabilities, and the loss makes these of them once "
            "more: leave the softmax or the sigmoid at the model's end out, or give a loss"
        )

    def _compare(self, what: str, made: Sequence[Made], told: tuple[str, str, str]) -> None:
        """Raise InputError where the third of some sums is not the first two together."""
        (whose, parts, advice), (sums, gradients) = told, zip(*made, strict=True)
        for name, (a, b, whole) in zip(("loss", "weight"), zip(*sums, strict=True), strict=False):
            if abs(a + b - whole) > 1e4 * self.eps * (abs(a) + abs(b) + abs(whole)):
                raise InputError(
                    f"{what} {name} of {whose} is {whole:g}, and {a:g} and {b:g} of {parts}: "
                    f"{advice}"
                )
        first, second, whole = gradients
        error = np.abs(first + second - whole)
        size = np.abs(first) + np.abs(second) + np.abs(whole)
        for name, part in views(self.model.layout, error).items() if len(error) else ():
            bound = views(self.model.layout, size)[name].max(initial=0)
            if part.max(initial=0) > 1e4 * self.eps * max(bound, float(size.max()) / 100):
                raise InputError(
                    f"the gradient of {name} of {whose} is not the sum of those of {parts}: "
                    f"{advice}"
                )

    def slopes(self, made: Made, most: int, tolerance: float) -> None:
        """Compare, for so many arrays, the gradient with how the loss changes along it.

        Those that start as zeros are drawn here, or units behind them would stand at their kinks.
        """
        if not np.any(made[1]):
            warn("the gradient of the first examples is 0: does the loss depend on the parameters?")
        layout, at = self.model.layout, self.params.copy()
        rng = generator(self.seed, Purpose.PARAMS)
        trained = [p for p in layout if p.kind != "statistic" and not getattr(p, "fixed", False)]
        arrays = {p.name: views(layout, at)[p.name] for p in trained if p.size}
        for array in arrays.values():
            if not array.any():
                array[...] = 0.1 * rng.standard_normal(array.shape)
        (loss, *_), slopes = self.shard(*self.halves[0], at)
        parts = views(layout, slopes.astype(np.float64))
        norms = {name: float(np.linalg.norm(parts[name])) for name in arrays}
        names = [name for name in arrays if np.isfinite(norms[name])]
        for name in sorted(names, key=lambda name: -norms[name])[:most]:
            said, found = norms[name], dict[float, tuple[float, float]]()
            along = parts[name] / said if said else rng.standard_normal(parts[name].shape)
            for step in STEPS:
                length = step * (float(np.linalg.norm(arrays[name])) + 0.01)
                up, down = (self._moved(at, name, sign * length * along) for sign in (1, -1))
                noise = 100 * self.eps * max(abs(up), abs(down))
                if max(abs(up - down), 2 * length * said) <= noise / tolerance:
                    continue  # it can't be told from rounding
                if abs((up - down) / 2 / length - said) <= tolerance * said:
                    break
                found[step] = (up - loss) / length, (loss - down) / length
            else:
                last = [slope for step in sorted(found)[:2] for slope in found[step]]
                # where these differ, the loss bends more within a step than can be seen through
                if len(last) > 2 and np.ptp(last) <= 0.1 * max(said, *map(abs, last)):
                    self._tell(name, sum(last[:2]) / 2, said)
                    return

    def _moved(self, at: Floats, name: str, move: Floats) -> float:
        """Return the loss where one of the arrays is elsewhere."""
        params = at.copy()
        views(self.model.layout, params)[name][...] += move
        return self.shard(*self.halves[0], params)[0].loss

    def _tell(self, name: str, slope: float, said: float) -> None:
        """Say that the loss changes otherwise along an array than its gradient says."""
        found = f"the gradient of {name} is 0, and the loss changes with it"
        if said:
            found = (
                f"the gradient of {name} is not that of the loss: along it the loss changes "
                f"{slope / said:.3g} times as fast as it says"
            )
            if not hasattr(self.model, "library"):  # which derives the gradient
                raise InputError(found)
        warn(f"{found}; detached parts, or a backward of one's own, may mean that")


def _as_sums(where: str, found: object) -> Sums:
    with contextlib.suppress(TypeError, ValueError):
        if isinstance(found, Sums) and found.weight >= 0:
            return Sums(*map(float, found))
    raise InputError(
        f"{where} returns {found!r:.200}; return dptrain.Sums(loss, weight), numbers and none of "
        "less than 0 for a weight, or with a third: what the examples weigh that are said rightly"
    )


def _generators() -> str:
    """Return the states of generators that no model is to draw from."""
    return repr((random.getstate(), np.random.get_state()))  # noqa: NPY002 (only looked at)


def try_model(trial: Trial, *, thoroughly: bool = False) -> Made:
    """Return what is made of a shard; InputError where the model does not keep what it must.

    Thoroughly: for every array, and to a tenth; else for the four with the largest gradients, where
    it is off by a third. Local.
    """
    with np.errstate(all="ignore"):  # what is not finite ends the first step by name
        for _ in range(3):  # once, but that another thread may draw meanwhile
            before, changed = _generators(), trial.transformed()
            if len(changed):
                trial.shard(changed, trial.whole[1][: len(changed)], trial.params)
            made = trial.twice()
            if _generators() == before:
                break
        else:
            raise InputError(
                "the model, or its transform, draws from Python's or NumPy's own generator, whose "
                "numbers differ from rank to rank: let it draw from the one that it is given, or, "
                "a module as it computes, by PyTorch"
            )
        trial.adds_up(made)
        trial.warn_of_probabilities()
        trial.slopes(made, *((len(trial.model.layout), 0.1) if thoroughly else (4, 1 / 3)))
    return made
