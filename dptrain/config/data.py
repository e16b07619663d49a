"""The settings of what is learned from, how raw rows become input, and of the model that learns."""

from dataclasses import dataclass

from dptrain.checked import Checked, setting
from dptrain.config.names import Activation, ClassWeight, DType, Init, LossChoice, Scale, TaskChoice
from dptrain.words import InputError

FROM_PYTHON = "(arrays or a frame, from Python)"
"""What stands for the files of a run that was trained on none."""


@dataclass(frozen=True)
class DataConfig(Checked):
    """What is learned from, and how raw rows become input."""

    test_data: tuple[str, ...] = setting(
        (), "Test data, where DATA holds none; twice for a pair of x and y.", metavar="FILE"
    )
    target: tuple[str, ...] = setting((), "Column to predict; repeat it for several.")
    features: tuple[str, ...] = setting(
        (), "Columns that are inputs, by name or pattern (px*); else all others."
    )
    drop: tuple[str, ...] = setting((), "Columns to leave out, by name or pattern.")
    id: tuple[str, ...] = setting(
        (), "Columns that rows are called by: no inputs, but beside predictions."
    )
    weight: str | None = setting(None, "Column that says how much each row counts in training.")
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
    x: str | None = setting(None, "Array of a .npz or HDF5 file that holds the inputs.")
    y: str | None = setting(None, "And the one that holds the target.")
    one_hot: int = setting(
        32,
        "Different texts in a column up to which each is an input; of more, each becomes some "
        "numbers that are learned.",
        high=10**6,
    )
    task: TaskChoice = setting("auto", "What the target is; auto decides from its values.")
    scale: Scale = setting(
        "auto",
        "How inputs and values to predict are scaled, by the training rows' statistics; "
        "auto is standard.",
    )
    validation: float = setting(
        0.0, "Share of the training rows held out, chosen by seed.", low=0, high=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter == "\\t":
            object.__setattr__(self, "delimiter", "\t")
        mark = self.delimiter
        if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in '"\r\n\0'):
            raise InputError(f"delimiter is {mark!r}; give one letter of ASCII, such as ;")
        if self.decimal not in (None, ".", ","):
            raise InputError(f"decimal is {self.decimal!r}; give a point or a comma")


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The multilayer perceptron that the command line trains."""

    hidden: tuple[int, ...] = setting(
        (128,), "Units of each hidden layer, such as 512,512; none for no hidden layer.", high=2**31
    )
    activation: Activation = setting("relu", "Activation of the hidden layers.")
    dropout: float = setting(0.0, "Probability to drop a hidden unit in training.", low=0, high=1)
    init: Init = setting("auto", "Initial weights; auto is he for relu and gelu, else glorot.")
    loss: LossChoice = setting("auto", "Loss; auto decides from the task.")
    label_smoothing: float = setting(
        0.0,
        "In training take this much of each class's target for all classes alike, where the "
        "loss is the usual one; losses of validation and test are without.",
        low=0,
        high=1,
    )
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
