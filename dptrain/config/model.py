"""The settings of the model: the perceptron's, or of one that a file makes."""

from dataclasses import dataclass

from dptrain.checked import Checked, setting
from dptrain.config.names import Activation, DType, Init, LossChoice


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
    label_smoothing: float = setting(
        0.0,
        "In training take this much of each class's target for all classes alike, where the loss "
        "is the usual one; losses of validation and test are without.",
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
