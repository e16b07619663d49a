"""The settings of commands that train nothing."""

from dataclasses import dataclass
from typing import Literal

from dptrain.checked import Checked, setting
from dptrain.config.names import Over


@dataclass(frozen=True)
class BenchConfig(Checked):
    """What `bench` makes up to measure, and how often."""

    inputs: int = setting(784, "Inputs of an example.", high=2**31)
    outputs: int = setting(10, "Classes, or values to predict.", high=2**31)
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
    hidden: int = setting(2, "Hidden units, 1 to 4.", high=5)
    workers: int = setting(3, "Workers that share the minibatch, 2 to 8.", low=2, high=9)
    seed: int = setting(  # by 999 no two examples fall together in a drawing
        999, "Decides the numbers, and the order of the digits.", low=0, high=2**63
    )
