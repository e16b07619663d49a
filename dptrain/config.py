"""The settings: their names, defaults and help, for the command line, its files and Python."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from dptrain.checked import Checked, setting
from dptrain.words import InputError

Task = Literal["classification", "multilabel", "regression"]
TaskChoice = Literal["auto", "classification", "multilabel", "regression"]
Scale = Literal["auto", "standard", "minmax", "none"]
Activation = Literal["relu", "tanh", "sigmoid", "gelu", "identity"]
Init = Literal["auto", "he", "glorot"]
Loss = Literal["cross-entropy", "binary-cross-entropy", "mean-squared-error", "huber"]
LossChoice = Literal["auto", "cross-entropy", "binary-cross-entropy", "mean-squared-error", "huber"]
DType = Literal["float32", "float64"]
ClassWeight = Literal["none", "balanced"]
Rule = Literal["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"]
Schedule = Literal["constant", "step", "cosine"]
Shuffle = Literal["rows", "blocks"]
Reduction = Literal["tree", "allreduce"]
CpuLevel = Literal["native", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
Over = Literal["steps", "examples", "seconds"]


SHARD = 64
"""Examples in a shard, unless the number of shards is given: with fewer, products get slow, with
more, fewer ranks have work. Measured on 784-512-512-10, the products of 256 examples: in shards of
64 they take 1.3 times as long as in one piece, in shards of 32 1.4 to 1.6 times."""

MOST_SHARDS = 2**16


Unit = Literal["steps", "seconds", "epochs"]
SECONDS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}


def interval(text: str) -> tuple[float, Unit]:
    """Return what "500", "2 epochs", "10s", "5 minutes" or "1h" mean; InputError else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", text)
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


FROM_PYTHON = "(arrays or a frame, from Python)"
"""What stands for the files of a run that was trained on none."""


@dataclass(frozen=True)
class DataConfig(Checked):
    """What is learned from, and how raw rows become input."""

    test_data: tuple[str, ...] = setting(
        (), "Test data, where DATA holds none; twice for a pair of x and y.", metavar="FILE"
    )
    target: tuple[str, ...] = setting(
        (), "Column to predict; repeat it for several.", metavar="NAME"
    )
    features: tuple[str, ...] = setting(
        (), "Columns that are inputs, by name or pattern (px*); else all others.", metavar="NAME"
    )
    drop: tuple[str, ...] = setting((), "Columns to leave out, by name or pattern.", metavar="NAME")
    id: tuple[str, ...] = setting(
        (), "Columns that rows are called by: no inputs, but beside predictions.", metavar="NAME"
    )
    weight: str | None = setting(
        None, "Column that says how much each row counts in training.", metavar="NAME"
    )
    class_weight: ClassWeight = setting(
        "none", "balanced: each class counts as much as the others, however rare it is."
    )
    no_header: bool = setting(False, "The first line holds no names: columns are c1, c2, ...")
    delimiter: str | None = setting(
        None, "What separates cells, where it is not found by itself.", metavar="LETTER"
    )
    decimal: str | None = setting(
        None, "What stands before decimals, a point or a comma, where it is not found by itself.",
        metavar="LETTER",
    )  # fmt: skip
    x: str | None = setting(
        None, "Array of a .npz or HDF5 file that holds the inputs.", metavar="NAME"
    )
    y: str | None = setting(None, "And the one that holds the target.", metavar="NAME")
    one_hot: int = setting(
        32, "Different texts in a column up to which each is an input.", low=1, high=10**6
    )
    task: TaskChoice = setting("auto", "What the target is; auto decides from its values.")
    scale: Scale = setting(
        "auto",
        "How inputs and values to predict are scaled, by the training rows' statistics; auto is "
        "standard.",
    )
    validation: float = setting(
        0.0, "Share of the training rows held out, chosen by seed.", low=0, high=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter == "\\t":
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise InputError(f"delimiter is {self.delimiter!r}; needed is one letter, such as ;")
        if self.decimal not in (None, ".", ","):
            raise InputError(f"decimal is {self.decimal!r}; needed is a point or a comma")


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The multilayer perceptron that the command line trains."""

    hidden: tuple[int, ...] = setting(
        (128,),
        "Units of each hidden layer, such as 512,512; none for no hidden layer.",
        low=1,
        high=2**31,
    )
    activation: Activation = setting("relu", "Activation of the hidden layers.")
    dropout: float = setting(0.0, "Probability to drop a hidden unit in training.", low=0, high=1)
    init: Init = setting("auto", "Initial weights; auto is he for relu and gelu, else glorot.")
    loss: LossChoice = setting("auto", "Loss; auto decides from the task.")
    dtype: DType = setting("float32", "Type of parameters, activations and gradients.")


@dataclass(frozen=True)
class ModelFile(Checked):
    """A model of one's own, in place of the perceptron, which a function in a file makes."""

    model: str | None = setting(
        None,
        "A function that makes a PyTorch module, or a pair of JAX functions (init, apply), not the "
        "perceptron; it is given the shape of an example's inputs and the number of outputs.",
        metavar="FILE.py:FUNCTION",
    )
    model_arg: tuple[str, ...] = setting(
        (), "A further argument of that function; repeat it for several.", metavar="NAME=VALUE"
    )
    model_sha256: str | None = setting(
        None, "What the file's SHA-256 must be, as a run notes it.", metavar="HEX"
    )


@dataclass(frozen=True)
class MadeByFile(Checked):
    """What a run notes of such a model among its settings: never which file is to be run."""

    model_arg: tuple[str, ...]
    model_sha256: str | None
    dtype: DType


@dataclass(frozen=True)
class TrainConfig(Checked):
    """How a model is trained; together with the data and the model it decides every byte."""

    shards: int | None = setting(
        None,
        "Parts V of each minibatch, whose gradients are added in one fixed tree.  "
        "[default: one for each 64 examples]",
        low=1,
        high=MOST_SHARDS + 1,
    )
    batch_size: int = setting(256, "Examples in a minibatch of the whole.", low=1)
    epochs: int | None = setting(None, "Passes over the training rows.  [default: 30]", low=1)
    steps: int | None = setting(None, "Stop after this many steps, in place of --epochs.", low=1)
    seed: int = setting(
        0, "Decides order, initial weights, dropout, held-out rows.", low=0, high=10**100
    )
    shuffle: Shuffle = setting(
        "rows",
        "What is mixed each epoch: all rows, or, for slow storage, blocks of 1,024 rows, and the "
        "rows of 64 blocks at a time, which are then all that a minibatch sees of the data.",
    )
    optimizer: Rule = setting("adam", "Rule of the update.")
    learning_rate: float = setting(0.002, "Step size, before the schedule.", low=0, above=True)
    momentum: float = setting(0.9, "Of momentum and nesterov.", low=0, high=1)
    weight_decay: float = setting(0.0, "L2 penalty; decoupled for adamw.", low=0)
    clip_norm: float | None = setting(
        None, "Scale the gradient down to this global norm.", low=0, above=True
    )
    clip_value: float | None = setting(
        None, "Cut each entry of the gradient to this size.", low=0, above=True
    )
    schedule: Schedule = setting("constant", "Learning rate over the run.")
    decay_epochs: int = setting(10, "Of the step schedule: epochs between two decays.", low=1)
    decay_factor: float = setting(
        0.1, "Of the step schedule: what each decay multiplies by.", low=0, above=True, high=1
    )
    warmup: int = setting(0, "Steps of linear warm-up before the schedule.", low=0)
    patience: int | None = setting(
        None,
        "Stop after so many epochs without a better validation loss, and keep the best.",
        low=1,
    )
    reduce: Reduction = setting(
        "tree", "How gradients are added: tree (bits free of the ranks) or MPI's own allreduce."
    )
    threads: int = setting(
        1, "BLAS threads a rank; part of what decides the bytes.", low=1, high=1025
    )
    cpu_level: CpuLevel = setting(
        "native", "Instructions to compute with; one that all CPUs have gives one result on all."
    )
    log_every: int | None = setting(
        None, "Also write a line of metrics every so many steps.", low=1
    )
    noise_scale: bool = setting(
        False, "Estimate the gradient noise scale: how large a batch is worth its work."
    )
    hash_every: int | None = setting(
        None,
        "Steps between two hashes of the parameters in the receipt.  [default: 4096 / batch size]",
        low=1,
    )
    checkpoint_every: str = setting(
        "60 seconds",
        "Between two checkpoints: 500 (steps), '5 minutes', 1h or '1 epoch'.",
        metavar="INTERVAL",
    )
    keep_checkpoints: int = setting(
        3, "The last checkpoints to keep; of those at an epoch's end the best stays too.", low=1
    )
    audit_every: int = setting(
        100,
        "Steps between two comparisons of the parameters' copies, where there are several.",
        low=1,
    )
    recheck_every: int | None = setting(
        None,
        "Steps between two at which a shard is computed on another rank, too, and compared.",
        low=1,
    )
    stall_timeout: float = setting(
        600.0, "Seconds without a step until silent ranks are named and the run ends.", low=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        interval(self.checkpoint_every)
        if self.epochs is not None and self.steps is not None:
            raise InputError("epochs and steps are both given; give one of them")

    def num_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the whole run, given those of one epoch."""
        return self.steps if self.steps is not None else self.num_epochs * steps_per_epoch

    @property
    def num_epochs(self) -> int:
        """The number of epochs, where it isn't `steps` that end the run."""
        return self.epochs or 30

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


@dataclass(frozen=True)
class BenchConfig(Checked):
    """What `bench` makes up to measure, and how often."""

    inputs: int = setting(784, "Inputs of an example.", low=1, high=2**31)
    outputs: int = setting(10, "Classes, or values to predict.", low=1, high=2**31)
    task: Literal["classification", "regression"] = setting("classification", "What the target is.")
    rounds: int = setting(
        5, "Times that everything is measured; medians are shown.", low=5, high=1001
    )


@dataclass(frozen=True)
class PlotConfig(Checked):
    """How `plot` draws."""

    x: Over = setting("steps", "What curves stand over.")
    width: float = setting(9.0, "Inches; the height follows.", low=3, high=100)


@dataclass(frozen=True)
class ExplainConfig(Checked):
    """The network and the minibatch that `explain` computes with; more would not fit 80 columns."""

    examples: int = setting(4, "Examples in the minibatch, 2 to 6.", low=2, high=7)
    hidden: int = setting(2, "Hidden units, 1 to 4.", low=1, high=5)
    workers: int = setting(3, "Workers that share the minibatch, 2 to 8.", low=2, high=9)
    seed: int = setting(
        999,  # of which no two examples fall together in a drawing
        "Decides the numbers, and the order of the digits.",
        low=0,
        high=10**100,
    )
