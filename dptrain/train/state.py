"""A run in progress, and its state: all that its future depends on."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dptrain.arrays import Array, Floats, Forms, Sums, name_of, not_finite
from dptrain.checked import Plain
from dptrain.config import TrainConfig
from dptrain.data.feed import Feed
from dptrain.data.prepare import Data
from dptrain.model import Model, OfShards
from dptrain.optim.optimizer import Optimizer
from dptrain.order import Order
from dptrain.reduce import Reducer
from dptrain.reduce.segments import Segments
from dptrain.reduce.tree import tree_sum
from dptrain.train.evaluate import Interrupted
from dptrain.train.noise import noise
from dptrain.world import World

Metrics = dict[str, float]
"""Where a run is, its losses and metrics, by name."""


@dataclass
class Training:
    """A run in progress: what its steps read, and what they have come to so far."""

    model: Model
    data: Data
    config: TrainConfig
    world: World
    feed: Feed
    order: Order
    reducer: Reducer
    segments: Segments
    """Of which norms are computed."""
    optimizer: Optimizer
    num_steps: int
    best: Floats
    """This rank's slice of the best epoch's parameters, where `keeps_best`."""
    keeps_best: bool
    doubts: bool = False
    """Whether the gradient of each shard is looked at, as of a model of one's own."""
    of_shards: OfShards | None = None
    """What computes several shards in one go, of a model that does."""
    known: dict[int, tuple[Sums, Floats]] = field(default_factory=dict)
    """The sums and the gradient sum of a shard of this step that is computed already."""
    faults: dict[int, tuple[float, str | None]] = field(default_factory=dict)
    """What that found: of this rank's shards the loss, and which array is not finite."""
    step: int = 0
    """Steps done."""
    seen: int = 0
    """Examples seen since the last epoch's metrics were written."""
    loss_sum: float = 0.0
    """The sum of their losses, each times its weight."""
    weight_sum: float = 0.0
    """The sum of their weights."""
    right_sum: float = 0.0
    """That of those which were said rightly; NaN where the model does not count them."""
    noise_sum: float = 0.0
    """With `noise_scale`: the variance of one example's gradient, summed over the epoch's steps."""
    square_norm_sum: float = 0.0
    """Likewise the square norm of the gradient without noise."""
    norm: float = math.nan
    """The Euclidean norm of the last step's gradient, where it is computed."""
    norm_sum: float = 0.0
    """The norms of the epoch's steps, each as often as its minibatch has examples."""
    best_value: float = math.inf
    """What patience watches, of the best epoch; negative where more is better."""
    measured: int = 0
    """How many epochs' metrics have been taken; one that was ended and gone on with has two."""
    kept: int = 0
    """Which of them, counted from 0, the parameters are of: the last, or with patience the best."""
    kept_metrics: Metrics = field(default_factory=dict)
    """Its losses and metrics."""
    history: list[Metrics] = field(default_factory=list)
    """The metrics of every epoch, as far as they are known."""
    stopped: str | None = None
    """Why the run ended before its last step, if it did."""
    interrupted: bool = False
    """Whether that was a signal, so that the run is to go on later."""
    seconds: float = 0.0
    """All that the steps took so far, those that were lost and done again included."""

    @property
    def epoch(self) -> int:
        """The epoch at hand, counted from 0: over only once its metrics have been written."""
        return (self.step - (self.seen > 0)) // self.order.steps_per_epoch

    @property
    def epoch_is_over(self) -> bool:
        """Whether all steps of an epoch, or all that are to be done, have been done."""
        return self.step == self.num_steps or self.step % self.order.steps_per_epoch == 0

    def stop_without_gain(self) -> None:
        """Stop where what patience watches has not become better for so many epochs."""
        patience = self.config.patience
        if patience is not None and self.measured - 1 - self.kept >= patience:
            name = self.config.watched[0].replace("_", " ")
            self.stopped = f"no better validation {name} since epoch {self.kept + 1}"

    @property
    def params(self) -> Floats:
        """This rank's slice of the parameters."""
        return self.reducer.params[self.reducer.own_slice]

    @property
    def averaged(self) -> Floats | None:
        """This rank's slice of the parameters' average, with `ema`."""
        return None if self.optimizer.average is None else self.optimizer.average.values

    def next_epoch(self) -> None:
        """Begin to count the next epoch's examples and losses."""
        self.seen, self.loss_sum, self.weight_sum, self.right_sum = 0, 0.0, 0.0, 0.0
        self.norm_sum, self.noise_sum, self.square_norm_sum = 0.0, 0.0, 0.0

    @property
    def train_metrics(self) -> Metrics:
        """The epoch's mean loss so far, and accuracy where it is counted; 0 of no weight.

        Of each step's parameters, and with dropout, as training has them.
        """
        divisor = self.weight_sum or 1.0
        right = {} if math.isnan(self.right_sum) else {"train_accuracy": self.right_sum / divisor}
        return {"train_loss": self.loss_sum / divisor} | right

    def doubted(self, stack: range, sums: list[Sums], gradient: Floats) -> list[Sums]:
        """Return the sums of a shard, their loss NaN where its gradient [n] is not finite.

        By that the step ends as long as it can be said which shard it is.
        """
        name = None if math.isfinite(gradient.dot(gradient)) else self.faulty(gradient)
        if name is None:
            return sums
        self.faults[stack.start] = sums[0].loss, name
        return [sums[0]._replace(loss=math.nan)]

    def faulty(self, gradient: Floats) -> str | None:
        """Return the first array of a gradient [n] that is not finite."""
        entry = not_finite(gradient)
        return None if entry is None else name_of(self.model.layout, entry)

    def add_noise(self, shard_square_norms: NDArray[np.float64], weights: Sequence[float]) -> None:
        """Count what a step tells of the gradient's noise; takes all shards' [num_shards]."""
        norm = self.norm * tree_sum(weights)
        found = noise(shard_square_norms.tolist(), weights, norm * norm)
        if found is not None:
            self.noise_sum += found.variance
            self.square_norm_sum += found.square_norm

    def line(self, gradient_norm: float) -> Metrics:
        """Return where the run is, when, and how it steps; a norm that is NaN is left out."""
        found: Metrics = {"epoch": self.epoch + 1, "step": self.step, "examples": self.examples}
        found |= {"seconds": self.seconds, "learning_rate": self.optimizer.rate(self.step - 1)}
        if not math.isnan(gradient_norm):
            found["gradient_norm"] = gradient_norm
        if self.square_norm_sum > 0:  # each is unbiased and their ratio is not: it is of their sums
            found["noise_scale"] = self.noise_sum / self.square_norm_sum
        return found

    @property
    def examples(self) -> int:
        """Examples seen since the start of the run."""
        epochs, steps = divmod(self.step, self.order.steps_per_epoch)
        return epochs * self.order.num_examples + steps * self.order.batch_size


class State(NamedTuple):
    """The plain values of a run's state, as `Training` has them."""

    step: int
    seen: int
    measured: int
    kept: int
    loss_sum: float
    weight_sum: float
    right_sum: float
    noise_sum: float
    square_norm_sum: float
    norm_sum: float
    best_value: float
    kept_metrics: Metrics

    def plain(self) -> dict[str, object]:
        """Return it as plain values; real numbers in hexadecimal, exactly."""
        values = self._asdict().items()
        return {name: v.hex() if isinstance(v, float) else v for name, v in values}

    @classmethod
    def read(cls, values: Mapping[str, object]) -> "State":
        """Return what `plain` returned these values of; ValueError where they can't be that."""
        found: Plain = {}
        for name, kind in cls.__annotations__.items():
            value = values.get(name)
            if kind is float:
                fits = isinstance(value, str)
            elif kind is int:
                fits = type(value) is int and value >= 0
            else:
                fits = isinstance(value, dict) and all(type(v) is float for v in value.values())
            if not fits:
                raise ValueError(f"its {name} is {value!r}")
            try:
                found[name] = float.fromhex(value) if isinstance(value, str) else value
            except OverflowError as error:
                raise ValueError(f"its {name} is {value!r}: {error}") from None
        if found["kept"] > max(0, found["measured"] - 1):
            raise ValueError(f"it keeps epoch {found['kept']} of {found['measured']}")
        return cls(**found)


def snapshot(run: Training) -> tuple[dict[str, Array], State]:
    """Return copies of a run's arrays, on rank 0, and its plain values, free of the ranks.

    `params` [n]; `optimizer.I` [slots, n] for each transform that has a state; `ema` [n]
    and `best` [n] with these. Collective: every rank must call this.
    """
    arrays = {name: run.reducer.gather(part) for name, part in _parts(run).items()}
    state = State(*(getattr(run, name) for name in State._fields))
    return {name: array for name, array in arrays.items() if array is not None}, state


def restore(
    run: Training, arrays: Mapping[str, Array], state: State, history: list[Metrics]
) -> None:
    """Set a run to a snapshot; `arrays` are looked at on rank 0 only, and have the right forms.

    Collective: every rank must call this.
    """
    for name, part in _parts(run).items():
        run.reducer.scatter(arrays.get(name), part)
    run.reducer.allgather()
    for name, value in state._asdict().items():
        setattr(run, name, value)
    run.history = history


def forms(run: Training) -> Forms:
    """Return the types and shapes that a snapshot's arrays have."""
    n, parts = len(run.reducer.params), _parts(run).items()
    return {name: (part.dtype.name, (*part.shape[:-1], n)) for name, part in parts}


def _parts(run: Training) -> dict[str, Array]:
    """Return this rank's slice [..., m] of each array of the state."""
    parts: dict[str, Array] = {"params": run.params}
    for number, state in enumerate(run.optimizer.state):
        if len(state):
            parts[f"optimizer.{number}"] = state
    if run.averaged is not None:
        parts["ema"] = run.averaged
    if run.keeps_best:
        parts["best"] = run.best
    return parts


def take_result(run: Training) -> None:
    """Set the parameters to the best epoch's, with `patience`, or to their average. Collective."""
    result = run.best if run.keeps_best and run.best_value < math.inf else run.averaged
    if result is not None:
        run.params[:] = result
        run.reducer.allgather()


@contextmanager
def averaged(run: Training) -> Iterator[None]:
    """Let the parameters be their average within the block, with `ema`. Collective."""
    average = run.optimizer.average

    def swap() -> None:
        if average is not None:
            average.swap(run.params)
            run.reducer.allgather()

    swap()
    try:
        yield
    except Interrupted:  # which all ranks raise
        swap()
        raise
    swap()
