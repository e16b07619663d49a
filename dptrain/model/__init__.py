"""What the training loop knows of a model: a small protocol, and the networks that keep it."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Model(Protocol):
    """Parameters in one flat vector, and the sums over examples that training needs.

    Sums, never means: the loop divides once, by the size of the whole minibatch. A result must
    depend on the arguments alone (no state, no rank), then it is free of the number of processes.
    Threads may call a model at once, so memory that it computes in must be a call's own.
    """

    @property
    def num_params(self) -> int:
        """The length n of the parameter vector."""

    @property
    def dtype(self) -> Any:
        """The type of parameters, gradients and inputs: float32 or float64."""

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return the parameters to start from, shape [n]."""

    def loss_and_grad_sum(
        self,
        params: Floats,
        x: Floats,
        y: NDArray[Any],
        out: Floats,
        rng: Callable[[], np.random.Generator],
        /,
    ) -> float:
        """Return the loss summed over a shard's examples, and write its gradient to `out` [n].

        Parameters
        ----------
        params
            Shape [n], not to be changed.
        x
            Inputs, shape [m, features], m >= 1.
        y
            Targets: class numbers [m] for classification, values [m] or [m, outputs] else.
        out
            Receives the gradient of the sum; all n entries must be written.
        rng
            Call it for random numbers of this shard of this step, such as for dropout.
        """

    def outputs(self, params: Floats, x: Floats) -> Floats:
        """Return what the loss takes (scores or values), shape [m] or [m, outputs]."""

    def loss_sum(self, outputs: Floats, y: NDArray[Any]) -> float:
        """Return the loss summed over the examples of `outputs`."""
