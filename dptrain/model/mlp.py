"""The multilayer perceptron over one flat vector: layers are views, gradients go where they are
reduced."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.config import Activation, DType, Init, InputError, Loss, ModelConfig, nearest
from dptrain.model.activations import ACTIVATIONS, sigmoid
from dptrain.model.losses import LOSSES

Floats = NDArray[np.floating]


class MLP:
    """Dense layers with an activation and dropout between them; keeps the `Model` protocol.

    Parameters
    ----------
    sizes
        Units of each layer, from the inputs to the outputs, such as [64, 128, 10].
    activation
        Of every hidden layer; the outputs have none, the loss takes them as they are.
    dropout
        Probability that a hidden unit is set to 0 in training; the others are scaled by
        1 / (1 - dropout), so that nothing changes for evaluation (Srivastava et al., 2014).
    init
        "he": normal with variance 2 / inputs (He et al., 2015). "glorot": uniform with variance
        2 / (inputs + outputs) (Glorot and Bengio, 2010). "auto": he for relu and gelu. Biases
        start at 0.
    loss
        "cross-entropy", "binary-cross-entropy", "mean-squared-error" or "huber".
    dtype
        "float32" or "float64".
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        init: Init = "auto",
        loss: Loss = "cross-entropy",
        dtype: DType = "float32",
    ) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise InputError(f"sizes is {list(sizes)}; it must be at least two numbers above 0")
        for name, found, valid in (("activation", activation, ACTIVATIONS), ("loss", loss, LOSSES)):
            if found not in valid:
                raise InputError(f"{name} is {found!r}; {nearest(found, valid)}")
        self.sizes = tuple(sizes)
        self.activation: Activation = activation
        self.dropout = dropout
        self.init: Init = init
        self.loss: Loss = loss
        self.dtype = np.dtype(dtype)
        self._shapes = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        self._memory: list[tuple[Floats, Floats]] = []  # of each layer: units, slopes

    @property
    def num_params(self) -> int:
        """The number of weights and biases."""
        return sum((inputs + 1) * outputs for inputs, outputs in self._shapes)

    def layers(self, vector: Floats) -> list[tuple[Floats, Floats]]:
        """Return views of a flat vector: a layer's weights [inputs, outputs], biases [outputs]."""
        views, start = [], 0
        for inputs, outputs in self._shapes:
            middle, stop = start + inputs * outputs, start + (inputs + 1) * outputs
            views.append((vector[start:middle].reshape(inputs, outputs), vector[middle:stop]))
            start = stop
        return views

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return random weights and zero biases, shape [num_params]; see `Model`."""
        params = np.zeros(self.num_params, self.dtype)
        he = self.init == "he" or (self.init == "auto" and self.activation in ("relu", "gelu"))
        for weight, _ in self.layers(params):
            inputs, outputs = weight.shape
            if he:
                weight[:] = rng.standard_normal(weight.shape) * math.sqrt(2 / inputs)
            else:
                weight[:] = rng.uniform(-1, 1, weight.shape) * math.sqrt(6 / (inputs + outputs))
        return params

    def loss_and_grad_sum(
        self, params: Floats, x: Floats, y: NDArray[Any], out: Floats, rng: np.random.Generator
    ) -> float:
        """Return the shard's loss sum and write the gradient's sum to `out`; see `Model`.

        The sum over examples is inside the product a.T @ delta: row i of `a` and of `delta` belong
        to example i, and nothing else is added across examples.
        """
        layers, gradients = self.layers(params), self.layers(out)
        units, slopes = self._forward(layers, x, rng)
        delta = units.pop()
        loss_sum = LOSSES[self.loss].loss_sum_and_delta(delta, y)
        ones = np.ones(len(x), self.dtype)
        for number in reversed(range(len(layers))):
            weight_grad, bias_grad = gradients[number]
            np.matmul(units[number].T, delta, out=weight_grad)
            np.matmul(ones, delta, out=bias_grad)
            if number > 0:
                weight, _ = layers[number]
                # the units of this layer have done their work: the deltas below take their place
                delta = np.matmul(delta, weight.T, out=units[number])
                delta *= slopes[number - 1]
        return loss_sum

    def outputs(self, params: Floats, x: Floats) -> Floats:
        """Return the outputs [m, outputs] before softmax or sigmoid; see `Model`."""
        units, _ = self._forward(self.layers(params), x, None)
        return units[-1].copy()

    def loss_sum(self, outputs: Floats, y: NDArray[Any]) -> float:
        """Return the loss summed over examples; see `Model`."""
        return LOSSES[self.loss].loss_sum(outputs, y)

    def probabilities(self, outputs: Floats) -> Floats:
        """Return what outputs [m, outputs] mean: probabilities of classes or labels, or values."""
        result = outputs.copy()
        if self.loss == "cross-entropy":
            result -= result.max(axis=1, keepdims=True)
            np.exp(result, out=result)
            result /= result.sum(axis=1, keepdims=True)
        elif self.loss == "binary-cross-entropy":
            sigmoid(result, None)
        return result

    def _forward(
        self, layers: list[tuple[Floats, Floats]], x: Floats, rng: np.random.Generator | None
    ) -> tuple[list[Floats], list[Floats]]:
        """Return every layer's units, x first, and the hidden layers' slopes (with dropout in).

        All but x are this model's working memory, valid until its next call. Without a generator
        there is no training: no slopes, no dropout.
        """
        units, slopes = [x], []
        for number, (weight, bias) in enumerate(layers):
            z, slope = self._working_memory(number, len(x))
            np.matmul(units[-1], weight, out=z)
            z += bias
            if number < len(layers) - 1:
                ACTIVATIONS[self.activation](z, None if rng is None else slope)
                if rng is not None and self.dropout > 0:
                    keep = rng.random(z.shape, dtype=np.float32) >= self.dropout
                    for array in (z, slope):
                        array *= keep
                        array *= 1 / (1 - self.dropout)
                slopes.append(slope)
            units.append(z)
        return units, slopes

    def _working_memory(self, number: int, rows: int) -> tuple[Floats, Floats]:
        """Return two arrays [rows, units] of a layer, made anew only when more rows are asked."""
        if number == len(self._memory):
            self._memory.append((np.empty((0, 0)), np.empty((0, 0))))
        if len(self._memory[number][0]) < rows:
            shape = (rows, self.sizes[number + 1])
            self._memory[number] = (np.empty(shape, self.dtype), np.empty(shape, self.dtype))
        units, slopes = self._memory[number]
        return units[:rows], slopes[:rows]

    def tensors(self, params: Floats) -> dict[str, Floats]:
        """Return named arrays for storing: layers.I.weight [outputs, inputs], layers.I.bias.

        Names and shapes are those of PyTorch's Linear layers.
        """
        named = {}
        for number, (weight, bias) in enumerate(self.layers(params)):
            named[f"layers.{number}.weight"] = np.ascontiguousarray(weight.T)
            named[f"layers.{number}.bias"] = np.ascontiguousarray(bias)
        return named

    def params_from(self, tensors: Mapping[str, Floats]) -> Floats:
        """Return the parameter vector [num_params] from arrays as `tensors` returns them."""
        params = np.empty(self.num_params, self.dtype)
        for number, (weight, bias) in enumerate(self.layers(params)):
            weight[:] = tensors[f"layers.{number}.weight"].T
            bias[:] = tensors[f"layers.{number}.bias"]
        return params

    @property
    def config(self) -> ModelConfig:
        """The settings that make this model again, given the data."""
        return ModelConfig(
            hidden=self.sizes[1:-1],
            activation=self.activation,
            dropout=self.dropout,
            init=self.init,
            loss=self.loss,
            dtype="float32" if self.dtype == np.float32 else "float64",
        )

    def spec(self) -> dict[str, Any]:
        """Return the keyword arguments that make this model again, as plain values."""
        settings = asdict(self.config)
        del settings["hidden"]
        return {"sizes": list(self.sizes), **settings}
