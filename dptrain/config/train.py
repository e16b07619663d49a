"""The settings of how a model is trained."""

import contextlib
import math
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dptrain.checked import Checked, setting
from dptrain.config.names import CpuLevel, Reduction, Rule, Schedule, Shuffle
from dptrain.words import InputError

SHARD = 64
"""Examples in a shard, unless the number of shards is given: with fewer, products get slow, with
more, fewer ranks have work. Measured on 784-512-512-10, the products of 256 examples: in shards of
64 they take 1.3 times as long as in one piece, in shards of 32 1.4 to 1.6 times."""

MOST_SHARDS = 2**16

EPOCHS, FEWEST_STEPS, FEW_STEPS, MOST_EPOCHS = 30, 200, 450, 100
"""How long is trained, unless said: so many passes; of few rows as many as make so many steps, or
more steps in no more than so many passes. Measured: tables of 150 to 570 rows are learned too
little in 30 steps, values to predict by heart in 400; those of 1,050 rows too little in 200."""

BETTER = {"loss": "min", "accuracy": "max", "label_accuracy": "max", "r2": "max"}
BETTER |= {"rmse": "min", "mae": "min"}
"""Which of an epoch's metrics are better."""

Unit = Literal["steps", "seconds", "epochs"]
SECONDS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}


def interval(text: str) -> tuple[float, Unit]:
    """Return what "500", "2 epochs", "10s", "5 minutes" or "1h" mean; InputError else."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([a-z]*)", text.strip())
    units: tuple[Unit, ...] = get_args(Unit)
    word = match[2] if match else ""
    unit = next((u for u in units if word in ("", u, u[:-1])), None)
    number = float(match[1]) if match else 0.0
    seconds = SECONDS.get(word) or SECONDS.get(word.removesuffix("s"))
    if seconds:
        number, unit = number * seconds, "seconds"
    if unit is None or not 0 < number < math.inf or (unit != "seconds" and number != int(number)):
        raise InputError(
            f"checkpoint-every is {text!r}; give a number above 0 of steps, epochs, seconds, "
            "minutes or hours, such as 500, '1 epoch', '5 minutes' or 1h"
        )
    return number, unit


def _pattern_and_rate(text: str) -> tuple[str, float]:
    """Return what PATTERN=RATE means; InputError where it is no such text."""
    pattern, _, number = text.rpartition("=")
    with contextlib.suppress(ValueError):
        if pattern and 0 < float(number) < math.inf:
            return pattern, float(number)
    raise InputError(
        f"learning-rate-of is {text!r}; give a pattern, = and a number above 0, such as "
        "'head.*=0.01'; what is to stay as it is, --freeze"
    )


@dataclass(frozen=True)
class TrainConfig(Checked):
    """How a model is trained; together with the data and the model it decides every byte."""

    shards: int | None = setting(
        None,
        "Parts V of each minibatch, whose gradients are added in one fixed tree; more of "
        "them than ranks is gradient accumulation.  [default: one for each 64 examples]",
        high=MOST_SHARDS + 1,
    )
    batch_size: int = setting(256, "Examples in a minibatch of the whole.")
    epochs: int | None = setting(
        None, "Passes over the training rows.  [default: 30; for few rows 200 to 450 steps]"
    )
    steps: int | None = setting(None, "Stop after this many steps, in place of --epochs.")
    seed: int = setting(
        0, "Decides order, initial weights, dropout, held-out rows.", low=0, high=2**63
    )
    init_from: str | None = setting(
        None,
        "Weights to start from, by their names: a .safetensors file, or a run's directory. "
        "What doesn't fit, or isn't there, starts as without, and is said.",
        metavar="FILE",
    )
    init_sha256: str | None = setting(
        None, "What that file's SHA-256 must be, as a run notes it.", metavar="HEX"
    )
    shuffle: Shuffle = setting(
        "rows",
        "What is mixed each epoch: all rows, or, for slow storage, blocks of 1,024 rows, and the "
        "rows of 64 blocks at a time, which are then all that a minibatch sees of the data.",
    )
    optimizer: Rule = setting(
        "adam", "Rule of the update; lars and lamb scale each array's by norms, for large batches."
    )
    learning_rate: float = setting(0.002, "Step size, before the schedule.", low=0, above=True)
    momentum: float = setting(0.9, "Of momentum, nesterov and lars.", low=0, high=1)
    weight_decay: float = setting(0.0, "L2 penalty; decoupled for adamw and lamb.", low=0)
    no_decay: tuple[str, ...] = setting(
        (),
        "Arrays without weight decay, such as 'bias,norm*': patterns of their names "
        "(layers.0.*) or of their kinds (weight, bias, norm).",
        metavar="PATTERN,...",
    )
    learning_rate_of: tuple[str, ...] = setting(
        (),
        "Arrays with a learning rate of their own, such as 'head.*=0.01'; it follows the schedule "
        "like the others'. The last that fits counts.",
        metavar="PATTERN=RATE,...",
    )
    freeze: tuple[str, ...] = setting(
        (), "Arrays that stay as they start, such as 'encoder.*'.", metavar="PATTERN,..."
    )
    clip_norm: float | None = setting(
        None, "Scale the gradient down to this global norm.", low=0, above=True
    )
    clip_value: float | None = setting(
        None, "Cut each entry of the gradient to this size.", low=0, above=True
    )
    ema: float | None = setting(
        None,
        "Average the parameters over steps, such as by 0.999; validation, test and the "
        "stored model are the average's.",
        low=0,
        high=1,
    )
    schedule: Schedule = setting(
        "constant",
        "Learning rate over the run; one-cycle first rises, for 0.3 of the steps, from a 25th.",
    )
    min_learning_rate: float = setting(
        0.0, "Where cosine, polynomial and one-cycle end; other rates' ends in proportion.", low=0
    )
    power: float = setting(1.0, "Of the polynomial schedule; 1 falls in a line.", low=0, above=True)
    decay_epochs: int = setting(10, "Of the step schedule: epochs between two decays.")
    decay_factor: float = setting(
        0.1, "Of the step schedule: what each decay multiplies by.", low=0, above=True, high=1
    )
    warmup: int = setting(0, "Steps of linear warm-up before the schedule.", low=0)
    patience: int | None = setting(
        None, "Stop after so many epochs without a better validation loss, and keep the best."
    )
    patience_metric: str = setting(
        "loss",
        "What --patience watches of the held-out rows: loss, accuracy, r2 and so on; or a "
        "metric of one's own, with what is better, such as right=max.",
    )
    reduce: Reduction = setting(
        "tree", "How gradients are added: tree (bits free of the ranks) or MPI's own allreduce."
    )
    threads: int = setting(1, "BLAS threads a rank; part of what decides the bytes.", high=1025)
    cpu_level: CpuLevel = setting(
        "native", "Instructions to compute with; one that all CPUs have gives one result on all."
    )
    log_every: int | None = setting(None, "Also write a line of metrics every so many steps.")
    noise_scale: bool = setting(
        False, "Estimate the gradient noise scale: how large a batch is worth its work."
    )
    hash_every: int | None = setting(
        None,
        "Steps between two hashes of the parameters in the receipt.  [default: 4096 / batch size]",
    )
    checkpoint_every: str = setting(
        "60 seconds",
        "Between two checkpoints: 500 (steps), '5 minutes', 1h or '1 epoch'.",
        metavar="INTERVAL",
    )
    keep_checkpoints: int = setting(
        3, "The last checkpoints to keep; of those at an epoch's end the best stays too."
    )
    audit_every: int = setting(
        100, "Steps between two comparisons of the parameters' copies, where there are several."
    )
    recheck_every: int | None = setting(
        None, "Steps between two at which a shard is computed on another rank, too, and compared."
    )
    stall_timeout: float = setting(
        600.0, "Seconds without a step until silent ranks are named and the run ends."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("no_decay", "learning_rate_of", "freeze"):
            patterns = (part.strip() for text in getattr(self, name) for part in text.split(","))
            object.__setattr__(self, name, tuple(filter(None, patterns)))
        interval(self.checkpoint_every)
        if self.epochs is not None and self.steps is not None:
            raise InputError("epochs and steps are both given; give one of them")
        _ = self.rates  # which checks them
        if self.warmup and self.schedule == "one-cycle":
            raise InputError(f"warmup is {self.warmup}; one-cycle rises by itself: leave it out")
        if self.min_learning_rate > self.learning_rate:
            raise InputError(
                f"min-learning-rate is {self.min_learning_rate}, above the learning-rate, "
                f"{self.learning_rate}; give one below it"
            )
        if self.patience_metric != "loss" and self.patience is None:
            raise InputError(f"patience-metric is {self.patience_metric}; there is no --patience")
        _ = self.watched

    @property
    def watched(self) -> tuple[str, int]:
        """The metric that patience watches, and -1 where more of it is better, or else 1.

        Raises InputError where that is not known.
        """
        name, _, better = self.patience_metric.partition("=")
        better = better or BETTER.get(name, "")
        if not name or better not in ("min", "max"):
            raise InputError(
                f"patience-metric is {self.patience_metric!r}; valid: {', '.join(BETTER)}, or a "
                "metric of one's own with what is better, such as right=max or errors=min"
            )
        return name, -1 if better == "max" else 1

    @property
    def rates(self) -> list[tuple[str, float]]:
        """The patterns of `learning_rate_of`, each with its rate; InputError where it has none."""
        return [_pattern_and_rate(text) for text in self.learning_rate_of]

    def num_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the whole run, given those of one epoch."""
        return self.steps or self.num_epochs(steps_per_epoch) * steps_per_epoch

    def num_epochs(self, steps_per_epoch: int) -> int:
        """Return the number of epochs, where it isn't `steps` that end the run."""
        fewest, few = (-(-steps // steps_per_epoch) for steps in (FEWEST_STEPS, FEW_STEPS))
        return self.epochs or max(EPOCHS, fewest, min(few, MOST_EPOCHS))

    def settled(self, num_examples: int) -> "TrainConfig":
        """Return the settings for so many rows, with a number of epochs or of steps."""
        if self.steps is not None:
            return self
        return replace(self, epochs=self.num_epochs(-(-num_examples // self.batch_size)))

    @property
    def num_shards(self) -> int:
        """How many shards V a minibatch has.

        Unless set, a function of the batch size alone, so that the bytes are free of the ranks.
        """
        return self.shards or min(-(-self.batch_size // SHARD), MOST_SHARDS)

    @property
    def steps_between_hashes(self) -> int:
        """How often the receipt hashes the parameters.

        Unless set, a function of the batch size alone, as the receipt must not depend on timing:
        a step's work grows with the batch, a hash's doesn't. Measured: 1.3% of a step.
        """
        return self.hash_every or -(-4096 // self.batch_size)
