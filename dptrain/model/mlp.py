"""The multilayer perceptron over one flat vector: layers are views, gradients go where they are
reduced."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np

from dptrain.arrays import Array, Categories, Floats, Param, Sums, Weights, num_params, views
from dptrain.checked import Plain
from dptrain.config import Activation, DType, Init, Loss, LossChoice, ModelConfig, Task
from dptrain.model import MakeGenerator, Shards
from dptrain.model.activations import ACTIVATIONS, initial_weights
from dptrain.model.embedding import Embedding
from dptrain.model.losses import LOSSES, SmoothedCrossEntropy, loss_for
from dptrain.model.products import gradient_sum, multiply, near_rows, product
from dptrain.model.spare import Memory, Spare
from dptrain.words import InputError, nearest


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
        2 / (inputs + outputs) (Glorot and Bengio, 2010). "auto": he for relu, gelu. Biases are 0.
    loss
        "cross-entropy", "binary-cross-entropy", "mean-squared-error" or "huber".
    label_smoothing
        Of cross-entropy in training: how much of a target all classes share. `loss_sum` is without.
    dtype
        "float32" or "float64".
    categories
        Inputs that are codes, for each of which the first layer takes numbers that are learned.
    """

    flat_inputs = True
    """It takes the inputs of an example as one row of numbers, whatever their shape."""

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        init: Init = "auto",
        loss: LossChoice = "cross-entropy",
        label_smoothing: float = 0.0,
        dtype: DType = "float32",
        categories: Categories = (),
    ) -> None:
        if len(sizes) < 2 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in sizes):
            raise InputError(f"sizes is {list(sizes)}; it must be at least two numbers above 0")
        hidden, smoothing = tuple(sizes[1:-1]), label_smoothing
        self.config = ModelConfig(hidden, activation, dropout, init, loss, smoothing, dtype)
        """The settings that make this model again, given the data; checks them."""
        if loss == "auto":
            raise InputError(f"loss is 'auto', which needs data to decide; {nearest('', LOSSES)}")
        if smoothing and loss != "cross-entropy":
            raise InputError(f"label-smoothing is {smoothing}; it needs cross-entropy, not {loss}")
        self.sizes = tuple(map(int, sizes))
        self.loss: Loss = loss
        self._training_loss = SmoothedCrossEntropy(smoothing) if smoothing else LOSSES[loss]
        self.dtype = np.dtype(dtype)
        self.categories: Categories = tuple((name, n, rows) for name, n, rows in categories)
        self._embedding = Embedding(self.sizes[0], self.categories)
        self._shapes = list(itertools.pairwise((self._embedding.inputs, *self.sizes[1:])))
        self.layout: tuple[Param, ...] = ()
        for number, shape in enumerate(self._shapes):
            name, units = f"layers.{number}", shape[1:]
            self.layout += Param(f"{name}.weight", shape), Param(f"{name}.bias", units, "bias")
        self.layout += self._embedding.layout
        """Each layer's weights [inputs, outputs] and biases [outputs]; the categories' tables."""
        looked_up = self._embedding.inputs * bool(self.categories)
        self._spare = Spare((looked_up, *self.sizes[1:]), self.dtype)

    def __repr__(self) -> str:
        return f"MLP({list(self.sizes)}, loss={self.loss!r}, dtype={self.dtype.name!r})"

    @property
    def num_params(self) -> int:
        """The number of weights and biases."""
        return num_params(self.layout)

    def layers(self, vector: Floats) -> list[tuple[Floats, Floats]]:
        """Return views of a flat vector: a layer's weights [inputs, outputs], biases [outputs]."""
        arrays = iter([*views(self.layout, vector).values()][: 2 * len(self._shapes)])
        return [*zip(arrays, arrays, strict=True)]

    def initial_params(self, rng: np.random.Generator) -> Floats:
        """Return random weights and zero biases, shape [num_params]; see `Model`."""
        params = np.zeros(self.num_params, self.dtype)
        for weight, _ in self.layers(params):
            weight[:] = initial_weights(weight.shape, self.config, rng)
        self._embedding.start(params, rng)
        return params

    def loss_and_grad_sum(
        self, params: Floats, x: Array, y: Array, weights: Weights, out: Floats, rng: MakeGenerator
    ) -> Sums:
        """Return the shard's sums, and write the gradient's to `out`; see `Model`."""
        alone = Shards(((0, len(x)),), (0,))
        return self.of_shards(params, x, y, weights, out, alone, [rng])[0]

    def of_shards(
        self,
        params: Floats,
        x: Array,
        y: Array,
        weights: Weights,
        out: Floats,
        shards: Shards,
        rngs: Sequence[MakeGenerator],
    ) -> list[Sums]:
        """Return what `loss_and_grad_sum` does for each of several shards, and write to `out` the
        sum of their gradients in the fixed tree. x, y and weights are of all their rows.
        """
        memory, places = self._spare.take(len(x)), shards.places
        layers = memory.views(self.layers, params, "params")
        gradients = memory.views(self.layers, out, "gradients")
        alone = len(places) == 1
        parts = [memory] if alone else [memory.part(*place) for place in places]
        randoms = [rng() for rng in rngs] if self.config.dropout else []
        times = product if alone else partial(multiply, shards)
        below = self._embedding.look_up(params, x, memory.inputs)
        self._forward(layers, below, memory, times, parts, randoms)
        sums = []
        for part, (start, stop) in zip(parts, places, strict=True):
            counts = None if weights is None else weights[start:stop]
            z, work = part.units[-1], part.slopes[-1]
            sums.append(self._training_loss.sums_and_delta(z, y[start:stop], work, counts))
        delta = memory.units[-1]
        for number in range(len(layers) - 1, 0, -1):
            units = memory.units[number - 1]
            gradient_sum(units, delta, gradients[number], memory, shards)
            # the units below have done their work: their deltas take their place
            times(delta, layers[number][0].T, units)
            np.multiply(units, memory.slopes[number - 1], out=units)
            delta = units
        gradient_sum(below, delta, gradients[0], memory, shards)
        if self.categories:
            self._embedding.add_up(x, delta, layers[0][0], out, memory, shards)
        self._spare.give_back(memory)
        return sums

    def outputs(self, params: Floats, x: Array) -> Floats:
        """Return the outputs [m, outputs] before softmax or sigmoid; see `Model`."""
        memory = self._spare.take(len(x))
        below = self._embedding.look_up(params, x, memory.inputs)
        self._forward(self.layers(params), below, memory, product)
        found = memory.units[-1].copy()
        self._spare.give_back(memory)
        return found

    def loss_sum(self, outputs: Floats, y: Array, weights: Weights) -> Sums:
        """Return the examples' sums; see `Model`."""
        return LOSSES[self.loss].sums(outputs, y, weights)

    def probabilities(self, outputs: Floats) -> Floats:
        """Return what outputs [m, outputs] mean: probabilities of classes or labels, or values."""
        return LOSSES[self.loss].probabilities(outputs)

    def _forward(
        self,
        layers: list[tuple[Floats, Floats]],
        below: Array,
        memory: Memory,
        times: Callable[[Floats, Floats, Floats], object],
        parts: Sequence[Memory] = (),
        randoms: Sequence[np.random.Generator] = (),
    ) -> None:
        """Compute every layer's units, and for training the hidden layers' slopes, with dropout.

        `parts` are the memories of the shards that the rows are of, which only products of all
        rows pass over; `randoms` what drops their units. Without parts there is no training: no
        slopes.
        """
        activate, last = ACTIVATIONS[self.config.activation], len(layers) - 1
        for number, (weight, bias) in enumerate(layers):
            z = memory.units[number]
            times(below, weight, z)
            np.add(z, bias, out=z)
            if number < last:
                for part in parts:
                    activate(part.units[number], part.slopes[number])
                for part, random in zip(parts, randoms, strict=False):
                    part.drop(number, random, self.config.dropout)
                if not parts:
                    activate(z, None)
            below = z

    def check(self, task: Task, inputs: int, outputs: int, classes: int) -> None:
        """Raise InputError where data of this kind don't fit; see `mlp`."""
        needed = mlp(self.config, task, inputs, outputs, classes).sizes
        if self.sizes != needed:
            raise InputError(f"the model's sizes are {self.sizes}; this data needs {needed}")

    def flop(self, rows: int) -> int:
        """Return the additions and multiplications of all products of a step with so many rows."""
        once = 2 * rows * sum(inputs * outputs for inputs, outputs in self._shapes)
        plain = self._embedding.num_plain
        return 3 * once - 2 * rows * plain * self.sizes[1]  # no delta of the inputs

    def activation_bytes(self, rows: int, shards: int = 1) -> int:
        """Return the memory that rows are computed in: units and slopes, dropout, and of several
        shards in one go sums in progress.
        """
        inputs = self._embedding.inputs * bool(self.categories)
        entries = rows * (2 * sum(self.sizes[1:]) + 1 + inputs)
        keep = 4 * rows * sum(self.sizes[1:-1]) if self.config.dropout else 0
        tables = [param.size for param in self._embedding.layout]
        near = [min(k, near_rows(n, self.dtype)) * n for k, n in self._shapes]
        entries += (shards.bit_length() - 1) * max(near + tables)
        return entries * self.dtype.itemsize + keep

    def spec(self) -> Plain:
        """Return the keyword arguments that make this model again, as plain values."""
        settings = asdict(self.config)
        del settings["hidden"]
        codes = {"categories": [*map(list, self.categories)]} if self.categories else {}
        return {"sizes": list(self.sizes), **settings, **codes}


def mlp(
    config: ModelConfig,
    task: Task,
    inputs: int,
    outputs: int,
    classes: int,
    categories: Categories = (),
) -> MLP:
    """Return a perceptron as wide as a row of inputs, with a loss and outputs for the task.

    `outputs` is how many targets a row has, `classes` how many classes: 0 but in classification.
    Raises InputError where the loss that is asked for does not fit the task.
    """
    loss = loss_for(config.loss, task, classes)
    settings = asdict(config) | {"loss": loss, "categories": categories}
    del settings["hidden"]
    last = classes if loss == "cross-entropy" else outputs
    return MLP([inputs, *config.hidden, last], **settings)
