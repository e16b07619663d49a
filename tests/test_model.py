"""Shows that gradients are right, by two oracles, and that nothing but the gradient is averaged."""

import itertools
import json
import math
from collections.abc import Callable
from typing import Any, get_args

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from conftest import Mistake
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dptrain.arrays import Floats, num_params
from dptrain.config import Activation, DataConfig, DType, Init, Loss, ModelConfig, TrainConfig
from dptrain.keys import Purpose, generator
from dptrain.model import Model, described
from dptrain.model import load as models
from dptrain.model.activations import ACTIVATIONS
from dptrain.model.losses import LOSSES, SmoothedCrossEntropy
from dptrain.model.mlp import MLP
from dptrain.order import Batch
from dptrain.reduce.tree import tree_sum
from dptrain.train.evaluate import predicted_classes
from dptrain.words import InputError
from dptrain.world import cut

Targets = Callable[[np.random.Generator, int], NDArray[Any]]

ALL_ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
ALL_LOSSES: tuple[Loss, ...] = get_args(Loss)
DTYPES: tuple[DType, ...] = get_args(DType)
HIDDEN: list[tuple[int, ...]] = [(), (4,), (5, 3, 4)]

PROBLEMS: dict[str, tuple[Loss, int, Targets]] = {
    "classes": ("cross-entropy", 4, lambda rng, m: rng.integers(4, size=m)),
    "two classes": ("binary-cross-entropy", 1, lambda rng, m: rng.integers(2, size=m)),
    "labels": ("binary-cross-entropy", 3, lambda rng, m: rng.integers(2, size=(m, 3))),
    "value": ("mean-squared-error", 1, lambda rng, m: rng.normal(size=m)),
    "values": ("mean-squared-error", 3, lambda rng, m: rng.normal(size=(m, 3))),
    "robust value": ("huber", 1, lambda rng, m: rng.normal(0, 2, m)),
    "robust values": ("huber", 3, lambda rng, m: rng.normal(0, 2, (m, 3))),
}
"""The loss, the number of outputs and the targets of each kind of problem."""

QUICK = settings(max_examples=30, deadline=None, derandomize=True)

every_problem = pytest.mark.parametrize("problem", PROBLEMS)
every_activation = pytest.mark.parametrize("activation", ALL_ACTIVATIONS)
every_loss = pytest.mark.parametrize("loss", ALL_LOSSES)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def make(
    problem: str, *, hidden: tuple[int, ...] = (4,), m: int = 6, seed: int = 0, **options: Any
) -> tuple[MLP, Floats, Floats, NDArray[Any]]:
    """Return a float64 network of 3 inputs, parameters (biases too), and m examples x, y."""
    loss, outputs, targets = PROBLEMS[problem]
    model = MLP([3, *hidden, outputs], **{"loss": loss, "dtype": "float64", **options})
    rng = np.random.default_rng(seed)
    params = rng.normal(0, 0.7, model.num_params).astype(model.dtype)
    return model, params, rng.normal(size=(m, 3)).astype(model.dtype), targets(rng, m)


def loss_and_gradient(
    model: Model, params: Floats, x: Floats, y: NDArray[Any], key: int = 0
) -> tuple[float, Floats]:
    """Return the loss sum and the gradient sum; an entry that is not written is NaN."""
    out = np.full(num_params(model.layout), np.nan, model.dtype)
    loss = model.loss_and_grad_sum(
        params, x, y, None, out, lambda: generator(key, Purpose.DROPOUT)
    )[0]
    return loss, out


def gradient(model: Model, params: Floats, x: Floats, y: NDArray[Any], key: int = 0) -> Floats:
    return loss_and_gradient(model, params, x, y, key)[1]


def distance(found: Floats, right: Floats) -> float:
    """Return |found - right| / |right|."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


def central_differences(
    loss_at: Callable[[Floats], float], point: Floats, h: float = 1e-5
) -> Floats:
    """Return the gradient of a function of a vector, entry by entry, from its values alone."""
    found = np.empty_like(point)
    for entry in range(len(point)):
        step = np.zeros_like(point)
        step[entry] = h
        found[entry] = (loss_at(point + step) - loss_at(point - step)) / (2 * h)
    return found


# ---- gradients: central differences, and autograd as an independent oracle


@every_problem
@every_activation
@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda hidden: f"{len(hidden)} hidden")
def test_gradient_is_that_of_central_differences(
    problem: str, activation: Activation, hidden: tuple[int, ...]
) -> None:
    model, params, x, y = make(problem, activation=activation, hidden=hidden)
    expected = central_differences(
        lambda p: model.loss_sum(model.outputs(p, x), y, None)[0], params
    )
    np.testing.assert_allclose(gradient(model, params, x, y), expected, rtol=1e-6, atol=1e-8)


@every_problem
@every_activation
def test_gradient_with_dropout_is_that_of_central_differences_under_one_key(
    problem: str, activation: Activation
) -> None:
    model, params, x, y = make(problem, activation=activation, hidden=(6, 5), dropout=0.4)
    expected = central_differences(lambda p: loss_and_gradient(model, p, x, y, key=3)[0], params)
    found = gradient(model, params, x, y, key=3)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert distance(found, gradient(model, params, x, y, key=4)) > 0.01


ORACLE_ACTIVATIONS: dict[Activation, Callable[[Any], Any]] = {
    "relu": lambda z: anp.where(z > 0, z, 0.0),
    "tanh": lambda z: (anp.exp(z) - anp.exp(-z)) / (anp.exp(z) + anp.exp(-z)),
    "sigmoid": lambda z: 1 / (1 + anp.exp(-z)),
    "gelu": lambda z: 0.5 * z * (1 + anp.tanh(anp.sqrt(2 / anp.pi) * (z + 0.044715 * z**3))),
    "identity": lambda z: z,
}


def oracle_cross_entropy(z: Any, y: NDArray[Any]) -> Any:
    logsumexp = anp.log(anp.sum(anp.exp(z), axis=1))
    return anp.sum(logsumexp - anp.sum(z * np.eye(z.shape[1])[y], axis=1))


def oracle_binary_cross_entropy(z: Any, y: NDArray[Any]) -> Any:
    ones = y.reshape(len(y), -1)
    s = 1 / (1 + anp.exp(-z))
    return -anp.sum(anp.mean(ones * anp.log(s) + (1 - ones) * anp.log(1 - s), axis=1))


def oracle_mean_squared_error(z: Any, y: NDArray[Any]) -> Any:
    return anp.sum(anp.mean((z - y.reshape(len(y), -1)) ** 2, axis=1))


def oracle_huber(z: Any, y: NDArray[Any]) -> Any:
    size = anp.abs(z - y.reshape(len(y), -1))
    return anp.sum(anp.mean(anp.where(size <= 1, 0.5 * size**2, size - 0.5), axis=1))


ORACLE_LOSSES: dict[Loss, Callable[[Any, NDArray[Any]], Any]] = {
    "cross-entropy": oracle_cross_entropy,
    "binary-cross-entropy": oracle_binary_cross_entropy,
    "mean-squared-error": oracle_mean_squared_error,
    "huber": oracle_huber,
}


@every_problem
@every_activation
@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda hidden: f"{len(hidden)} hidden")
def test_loss_and_gradient_of_the_whole_network_are_those_of_autograd(
    problem: str, activation: Activation, hidden: tuple[int, ...]
) -> None:
    model, params, x, y = make(problem, activation=activation, hidden=hidden, seed=1)
    inputs = x.copy()

    def oracle(tensors: dict[str, Any]) -> Any:
        a = inputs
        for number in range(len(hidden) + 1):
            z = anp.dot(a, tensors[f"layers.{number}.weight"].T) + tensors[f"layers.{number}.bias"]
            a = z if number == len(hidden) else ORACLE_ACTIVATIONS[activation](z)
        return ORACLE_LOSSES[model.loss](a, y)

    expected_loss, expected = autograd.value_and_grad(oracle)(models.tensors(model, params))
    loss, found = loss_and_gradient(model, params, x, y)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert loss == model.loss_sum(model.outputs(params, x), y, None)[0]
    for name, tensor in models.tensors(model, found).items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-10, atol=1e-13, err_msg=name)


# ---- a gradient is a sum over examples, and nothing else is averaged


@QUICK
@given(
    problem=st.sampled_from(sorted(PROBLEMS)),
    activation=st.sampled_from(ALL_ACTIVATIONS),
    m=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_gradient_is_the_average_of_single_examples_for_every_number_of_shards(
    problem: str, activation: Activation, m: int, seed: int
) -> None:
    model, params, x, y = make(problem, activation=activation, m=m, seed=seed, hidden=(4, 3))
    average = np.mean([gradient(model, params, x[[i]], y[[i]]) for i in range(m)], axis=0)
    assert distance(gradient(model, params, x, y) / m, average) < 1e-12

    rows = np.random.default_rng(seed).permutation(m)
    for num_shards in range(1, m + 4):
        batch = Batch(seed=0, epoch=0, step=0, rows=rows, num_shards=num_shards)
        sums = np.zeros((num_shards, model.num_params))
        losses = np.zeros(num_shards)
        for shard in range(num_shards):
            own = batch.shard(shard)
            if len(own) > 0:
                losses[shard], sums[shard] = loss_and_gradient(model, params, x[own], y[own])
        assert distance(tree_sum(sums) / batch.size, average) < 1e-12
        total = model.loss_sum(model.outputs(params, x), y, None)[0]
        assert float(tree_sum(losses)) == pytest.approx(total, rel=1e-12)


@every_problem
def test_averaging_the_examples_before_the_network_is_wrong(problem: str) -> None:
    model, params, x, y = make(problem, activation="tanh", m=8)
    # the mean of class numbers is no class: give all examples one target, in the model's favour
    y = np.repeat(y[:1], 8, axis=0)
    right = gradient(model, params, x, y) / 8
    wrong = gradient(model, params, x.mean(axis=0, keepdims=True), y[:1])
    assert distance(wrong, right) > 0.05


def test_averaging_activations_loses_their_covariance_with_the_deltas() -> None:
    m = 8
    model, params, x, y = make("values", activation="tanh", m=m)
    weight, bias = model.layers(params)[0]
    a = np.tanh(x @ weight + bias)  # [m, units], one row an example
    head = MLP([4, 3], loss="mean-squared-error", dtype="float64")
    tail = params[-head.num_params :]
    right = gradient(model, params, x, y)[-head.num_params :] / m
    np.testing.assert_allclose(gradient(head, tail, a, y) / m, right, rtol=1e-12, atol=1e-14)

    mean_a, mean_y = a.mean(axis=0, keepdims=True), y.mean(axis=0, keepdims=True)
    wrong = gradient(head, tail, mean_a, mean_y)
    [(right_weight, right_bias)] = head.layers(right)
    [(wrong_weight, wrong_bias)] = head.layers(wrong)
    deltas = 2 * (model.outputs(params, x) - y) / 3
    covariance = (a - mean_a).T @ (deltas - deltas.mean(axis=0)) / m
    np.testing.assert_allclose(right_weight - wrong_weight, covariance, rtol=1e-9, atol=1e-12)
    assert distance(wrong_weight, right_weight) > 0.1
    # the biases' gradient is the mean delta: there alone the wrong way goes unnoticed
    np.testing.assert_allclose(wrong_bias, right_bias, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("m", "uneven"), [(8, False), (10, True)])
def test_averaging_the_means_of_shards_is_wrong_where_shards_are_uneven(
    m: int, uneven: bool
) -> None:
    model, params, x, y = make("classes", m=m)
    shards = [cut(m, 4, number) for number in range(4)]
    means = [gradient(model, params, x[s], y[s]) / len(s) for s in map(list, shards)]
    wrong = distance(np.mean(means, axis=0), gradient(model, params, x, y) / m)
    assert wrong > 0.01 if uneven else wrong < 1e-12


# ---- activations and losses by themselves


def plain_sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


def plain_gelu(z: float) -> float:
    return 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


PLAIN_ACTIVATIONS: dict[Activation, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "tanh": math.tanh,
    "sigmoid": plain_sigmoid,
    "gelu": plain_gelu,
    "identity": lambda z: z,
}


@every_activation
@both_dtypes
@QUICK
@given(z=st.lists(st.floats(-9, 9, width=32) | st.floats(-(2**33), 2**33, width=32), min_size=1))
def test_activation_equals_its_plain_formula_however_large(
    activation: Activation, dtype: DType, z: list[float]
) -> None:
    found, alone = np.array([z], dtype), np.array([z], dtype)
    slope = np.full_like(found, np.nan)
    ACTIVATIONS[activation](found, slope)
    ACTIVATIONS[activation](alone, None)
    assert found.dtype == slope.dtype == dtype
    assert found.tobytes() == alone.tobytes(), "the slope must not change the value"
    assert np.isfinite(slope).all()
    expected = [[PLAIN_ACTIVATIONS[activation](value) for value in z]]
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found, expected, rtol=8 * eps, atol=32 * eps)


@every_activation
@both_dtypes
def test_slope_is_the_derivative_and_tends_to_its_limits(
    activation: Activation, dtype: DType
) -> None:
    plain = PLAIN_ACTIVATIONS[activation]
    points = np.linspace(-4, 4, 42)  # without 0, where relu has none
    z, slope = points.astype(dtype), np.empty(42, dtype)
    ACTIVATIONS[activation](z, slope)
    expected = [(plain(point + 1e-5) - plain(point - 1e-5)) / 2e-5 for point in points]
    np.testing.assert_allclose(slope, expected, atol=1e-9 if dtype == "float64" else 1e-5)

    flat, ramp = [0, 0], [0, 1]
    expected_limits = {"tanh": flat, "sigmoid": flat, "relu": ramp, "gelu": ramp}
    for size in (1e4, 1e38, np.inf):
        far = np.array([-size, size], dtype)
        ends = {"tanh": [-1, 1], "sigmoid": [0, 1], "identity": [-size, size]}
        values = np.array(ends.get(activation, [0, size]), dtype)
        ACTIVATIONS[activation](alone := far.copy(), None)
        ACTIVATIONS[activation](far, limits := np.empty(2, dtype))
        np.testing.assert_array_equal(limits, expected_limits.get(activation, [1, 1]))
        np.testing.assert_array_equal(far, values)
        assert far.tobytes() == alone.tobytes()
    nothing = np.full(2, np.nan, dtype)
    ACTIVATIONS[activation](nothing, np.empty(2, dtype))
    assert np.isnan(nothing).all()


def test_slope_of_relu_at_0_is_0() -> None:
    slope = np.full(2, np.nan)
    ACTIVATIONS["relu"](np.array([0.0, -0.0]), slope)
    assert slope.tolist() == [0, 0]


@every_problem
@both_dtypes
@QUICK
@given(seed=st.integers(0, 999), m=st.integers(1, 5), scale=st.floats(0, 5))
def test_loss_equals_its_naive_formula(
    problem: str, dtype: DType, seed: int, m: int, scale: float
) -> None:
    loss, outputs, targets = PROBLEMS[problem]
    rng = np.random.default_rng(seed)
    z, y = rng.normal(0, scale, (m, outputs)).astype(dtype), targets(rng, m)
    expected = float(ORACLE_LOSSES[loss](z.astype(np.float64), y))
    found = LOSSES[loss].sums(z, y).loss
    assert isinstance(found, float)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


@every_problem
@both_dtypes
def test_loss_alone_equals_the_loss_with_the_delta_and_leaves_its_input(
    problem: str, dtype: DType
) -> None:
    loss, outputs, targets = PROBLEMS[problem]
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 3, (7, outputs)).astype(dtype), targets(rng, 7)
    before, targets_before, delta = z.tobytes(), y.tobytes(), z.copy()
    alone = LOSSES[loss].sums(z, y)
    assert z.tobytes() == before
    assert LOSSES[loss].sums_and_delta(delta, y, np.empty_like(z)) == alone
    assert delta.dtype == dtype
    assert delta.tobytes() != before
    assert y.tobytes() == targets_before


@both_dtypes
@pytest.mark.parametrize("weights", [None, np.array([1, 2, 0, 4.0])])
def test_what_is_right_is_counted_as_an_evaluation_does(
    dtype: DType, weights: NDArray[Any] | None
) -> None:
    """Of equal scores the first is said, and 0 is no more than 0."""
    z = np.array([[2, 2, 1], [2, 2, 1], [0, 0, 0], [-5, 0, 3]]).astype(dtype)
    classes, each = np.array([0, 1, 1, 2]), np.ones(4) if weights is None else weights
    hits = predicted_classes(z) == classes
    assert hits.tolist() == [True, False, False, True]
    for loss in (LOSSES["cross-entropy"], SmoothedCrossEntropy(0.1)):
        assert loss.sums(z, classes, weights)[1:] == (each.sum(), each @ hits)
    labels = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    found = LOSSES["binary-cross-entropy"].sums(z, labels, weights)
    assert found.right == each @ [True, False, True, True]
    for name in ("mean-squared-error", "huber"):
        assert math.isnan(LOSSES[name].sums(z, labels, weights).right)


@every_problem
@both_dtypes
def test_an_example_that_weighs_two_counts_as_two_and_none_as_none(
    problem: str, dtype: DType
) -> None:
    model, params, x, y = make(problem, m=4, dtype=dtype)
    weights, rows = np.array([2.0, 0.0, 1.0, 0.5]), [0, 0, 2, 3]
    half = np.array([1.0, 1.0, 1.0, 0.5])
    outs = np.full((2, len(params)), np.nan, dtype)
    for out, (xs, ys, ws) in zip(outs, ((x, y, weights), (x[rows], y[rows], half)), strict=True):
        sums = model.loss_and_grad_sum(params, xs, ys, ws, out, np.random.default_rng)
        assert sums == model.loss_sum(model.outputs(params, xs), ys, ws)
        assert sums[1] == 3.5
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(outs[0], outs[1], rtol=tolerance, atol=tolerance)
    alone = model.loss_and_grad_sum(params, x, y, None, outs[0], np.random.default_rng)
    same = model.loss_and_grad_sum(params, x, y, np.ones(4), outs[1], np.random.default_rng)
    assert alone == pytest.approx(same, rel=tolerance, nan_ok=True)
    np.testing.assert_array_equal(outs[0], outs[1])


@both_dtypes
@pytest.mark.parametrize(
    ("loss", "z", "y", "expected", "delta"),
    [
        ("cross-entropy", [[1e4, -1e4, 0]], [0], 0, [[0, 0, 0]]),
        ("cross-entropy", [[1e4, -1e4, 0]], [1], 2e4, [[1, -1, 0]]),
        ("cross-entropy", [[-1e4, -1e4]], [0], math.log(2), [[-0.5, 0.5]]),
        ("binary-cross-entropy", [[1e4], [-1e4]], [1, 0], 0, [[0], [0]]),
        ("binary-cross-entropy", [[1e4], [-1e4]], [0, 1], 2e4, [[1], [-1]]),
        ("binary-cross-entropy", [[1e4, -1e4]], [[0, 0]], 5e3, [[0.5, 0]]),
        ("mean-squared-error", [[1e4, -1e4]], [[0, 0]], 1e8, [[1e4, -1e4]]),
        ("huber", [[1e4, -1e4]], [[0, 0]], 1e4 - 0.5, [[0.5, -0.5]]),
    ],
)
def test_loss_of_huge_outputs_is_finite_and_right(
    loss: Loss,
    z: list[list[float]],
    y: list[Any],
    expected: float,
    delta: list[list[float]],
    dtype: DType,
) -> None:
    outputs = np.array(z, dtype)
    assert LOSSES[loss].sums(outputs, np.array(y)).loss == pytest.approx(expected, rel=1e-6)
    LOSSES[loss].sums_and_delta(outputs, np.array(y), np.empty_like(outputs))
    np.testing.assert_allclose(outputs, delta, rtol=1e-6)


@both_dtypes
@QUICK
@given(
    seed=st.integers(0, 99), m=st.integers(1, 5), classes=st.integers(2, 40),
    smoothing=st.floats(0.01, 0.99), weighted=st.booleans(),
)  # fmt: skip
def test_smoothed_labels_are_cross_entropy_with_targets_that_all_classes_share(
    dtype: DType, seed: int, m: int, classes: int, smoothing: float, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    z, y = rng.normal(0, 3, (m, classes)).astype(dtype), rng.integers(0, classes, m)
    weights = rng.random(m) if weighted else None
    targets = np.full((m, classes), smoothing / classes)
    targets[range(m), y] += 1 - smoothing
    exact, each = z.astype(np.float64), np.ones(m) if weights is None else weights
    logs = exact - exact.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    delta = z.copy()
    sums = SmoothedCrossEntropy(smoothing).sums_and_delta(delta, y, np.empty_like(z), weights)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    assert sums.loss == pytest.approx(-(targets * logs).sum(axis=1) @ each, rel=tolerance)
    expected = (np.exp(logs) - targets) * each[:, None]
    np.testing.assert_allclose(delta, expected, rtol=0, atol=tolerance)


def test_labels_are_smoothed_in_training_only() -> None:
    """At outputs that are all alike the losses agree; what is sure of itself pays in training."""
    sizes, rng = [3, 4], np.random.default_rng
    plain, smoothed = MLP(sizes, dtype="float64"), MLP(sizes, dtype="float64", label_smoothing=0.25)
    params, out = np.zeros(16), np.empty(16)
    x, y = rng(0).normal(size=(5, 3)), np.array([0, 1, 2, 3, 0])
    assert smoothed.loss_and_grad_sum(params, x, y, None, out, rng)[0] == pytest.approx(
        plain.loss_and_grad_sum(params, x, y, None, out, rng)[0], rel=1e-14
    )
    params[12:] = 9, 0, 0, 0
    more = 0.25 * sum(9 * (label == 0) - 9 / 4 for label in y)
    loss = plain.loss_and_grad_sum(params, x, y, None, out, rng)[0]
    found = smoothed.loss_and_grad_sum(params, x, y, None, out, rng)[0]
    assert found == pytest.approx(loss + more, rel=1e-13)
    outputs = plain.outputs(params, x)
    assert smoothed.loss_sum(outputs, y, None) == plain.loss_sum(outputs, y, None)
    assert MLP(**smoothed.spec()).spec() == smoothed.spec()


def test_labels_that_are_no_classes_are_not_smoothed(mistake: Mistake) -> None:
    with pytest.raises(InputError, match=r"0\.1; it needs cross-entropy, not huber"):
        MLP([2, 1], loss="huber", label_smoothing=0.1)
    mistake("train", "--label-smoothing", "1", words="label-smoothing is 1.0; it must be at least")


def test_huber_is_square_inside_and_straight_outside() -> None:
    z = np.array([[0.5], [1.0], [-3.0]])
    y = np.zeros(3)
    each = [LOSSES["huber"].sums(z[[i]], y[[i]]).loss for i in range(3)]
    assert each == [0.125, 0.5, 2.5]
    LOSSES["huber"].sums_and_delta(z, y, np.empty_like(z))
    assert z.ravel().tolist() == [0.5, 1, -1]


@every_problem
def test_probabilities_mean_what_the_loss_says(problem: str) -> None:
    model, params, x, y = make(problem)
    outputs = model.outputs(params, x)
    before = outputs.tobytes()
    found = model.probabilities(outputs)
    assert outputs.tobytes() == before
    if model.loss == "cross-entropy":
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)
        loss = -np.log(found[np.arange(len(y)), y]).sum()
        assert float(loss) == pytest.approx(model.loss_sum(outputs, y, None)[0], rel=1e-12)
    elif model.loss == "binary-cross-entropy":
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-outputs)), rtol=1e-12)
    else:
        assert found.tobytes() == before


@both_dtypes
def test_probabilities_of_huge_outputs_are_finite(dtype: DType) -> None:
    for loss in ("cross-entropy", "binary-cross-entropy"):
        model = MLP([1, 2], loss=loss, dtype=dtype)
        assert model.probabilities(np.array([[1e4, -1e4]], dtype)).tolist() == [[1, 0]]


# ---- the network as the training loop uses it


@every_problem
@every_activation
def test_float32_is_float64_within_its_precision(problem: str, activation: Activation) -> None:
    options: dict[str, Any] = {"activation": activation, "dropout": 0.3, "hidden": (5, 4)}
    exact, params, x, y = make(problem, **options)
    model, *_ = make(problem, dtype="float32", **options)
    expected_loss, expected = loss_and_gradient(exact, params, x, y)
    loss, found = loss_and_gradient(model, params.astype("f4"), x.astype("f4"), y)
    assert isinstance(loss, float)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert distance(found, expected) < 1e-5
    assert model.outputs(params.astype("f4"), x.astype("f4")).dtype == np.float32
    assert model.initial_params(generator(0, Purpose.PARAMS)).dtype == np.float32


@every_problem
def test_arguments_are_left_as_they_are(problem: str) -> None:
    model, params, x, y = make(problem, dropout=0.5, hidden=(4, 3))
    for array in (params, x, y):
        array.flags.writeable = False
    outputs = model.outputs(params, x)
    outputs.flags.writeable = False
    model.loss_sum(outputs, y, None)
    assert np.isfinite(gradient(model, params, x, y)).all()


@QUICK
@given(
    problem=st.sampled_from(sorted(PROBLEMS)),
    sizes=st.lists(st.integers(1, 8), min_size=2, max_size=6),
)
def test_working_memory_of_other_batches_changes_nothing(problem: str, sizes: list[int]) -> None:
    used, params, x, y = make(problem, activation="gelu", dropout=0.5, hidden=(4, 3), m=8)
    for m in sizes:
        fresh = MLP(**used.spec())
        loss, found = loss_and_gradient(used, params, x[:m], y[:m])
        expected_loss, expected = loss_and_gradient(fresh, params, x[:m], y[:m])
        assert loss == expected_loss
        assert found.tobytes() == expected.tobytes()
        fresh = MLP(**used.spec())
        outputs = used.outputs(params, x[-m:])
        assert outputs.tobytes() == fresh.outputs(params, x[-m:]).tobytes()
        assert outputs.shape == (m, used.sizes[-1])


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda hidden: f"{len(hidden)} hidden")
def test_outputs_are_the_callers_own(hidden: tuple[int, ...]) -> None:
    model, params, x, y = make("classes", hidden=hidden)
    outputs = model.outputs(params, x)
    before = outputs.copy()
    model.outputs(2 * params, -x)
    gradient(model, params, -x, y)
    np.testing.assert_array_equal(outputs, before)


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda hidden: f"{len(hidden)} hidden")
@both_dtypes
def test_stored_tensors_are_pytorchs_and_come_back_exactly(
    hidden: tuple[int, ...], dtype: DType
) -> None:
    model, params, x, _ = make("classes", hidden=hidden, dtype=dtype, activation="tanh")
    tensors = models.tensors(model, params)
    sizes = [3, *hidden, 4]
    expected: dict[str, tuple[int, ...]] = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        expected[f"layers.{number}.weight"] = (outputs, inputs)
        expected[f"layers.{number}.bias"] = (outputs,)
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected
    assert all(tensor.flags.c_contiguous for tensor in tensors.values())
    assert all(tensor.dtype == dtype for tensor in tensors.values())
    assert models.params_of(described(model), tensors).tobytes() == params.tobytes()

    a = x
    for number in range(len(hidden) + 1):
        z = a @ tensors[f"layers.{number}.weight"].T + tensors[f"layers.{number}.bias"]
        a = np.tanh(z)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(model.outputs(params, x), z, rtol=tolerance, atol=tolerance)


# ---- initial values and dropout


@pytest.mark.parametrize(
    ("init", "activation", "rule"),
    [
        ("he", "tanh", "he"),
        ("glorot", "relu", "glorot"),
        ("auto", "relu", "he"),
        ("auto", "gelu", "he"),
        ("auto", "tanh", "glorot"),
        ("auto", "sigmoid", "glorot"),
        ("auto", "identity", "glorot"),
    ],
)
def test_initial_weights_have_the_variance_and_the_shape_of_their_rule(
    init: Init, activation: Activation, rule: str
) -> None:
    model = MLP([400, 100, 300], init=init, activation=activation, dtype="float64")
    params = model.initial_params(generator(0, Purpose.PARAMS))
    for weight, bias in model.layers(params):
        inputs, outputs = weight.shape
        assert not bias.any()
        assert abs(float(weight.mean())) < 0.03 * float(weight.std())
        if rule == "he":
            assert float(weight.var()) == pytest.approx(2 / inputs, rel=0.03)
            assert float(np.abs(weight).max()) > 3.5 * math.sqrt(2 / inputs)  # has normal's tails
        else:
            bound = math.sqrt(6 / (inputs + outputs))
            assert float(weight.var()) == pytest.approx(2 / (inputs + outputs), rel=0.03)
            assert 0.999 * bound < float(np.abs(weight).max()) <= bound


@pytest.mark.parametrize("init", ["he", "glorot"])
@both_dtypes
def test_initial_values_depend_on_the_seed_only(init: Init, dtype: DType) -> None:
    model, params, x, y = make("classes", init=init, dtype=dtype, dropout=0.5)
    first = model.initial_params(generator(5, Purpose.PARAMS))
    gradient(model, params, x, y)
    again = model.initial_params(generator(5, Purpose.PARAMS))
    other_model, *_ = make("classes", init=init, dtype=dtype, activation="sigmoid")
    elsewhere = other_model.initial_params(generator(5, Purpose.PARAMS))
    assert first.tobytes() == again.tobytes() == elsewhere.tobytes()
    assert first.tobytes() != model.initial_params(generator(6, Purpose.PARAMS)).tobytes()
    assert first.shape == (model.num_params,)


def test_dropout_drops_by_example_and_unit_and_preserves_the_mean() -> None:
    units, m, dropout = 400, 50, 0.3
    model = MLP(
        [1, units, 1], activation="identity", dropout=dropout, loss="huber", dtype="float64"
    )
    params = np.zeros(model.num_params)
    (_, hidden_bias), (weight, _) = model.layers(params)
    hidden_bias[:] = 1  # every hidden unit is 1 before dropout, whatever the example
    weight[:, 0] = np.arange(1, units + 1) / units
    # targets so far away that every example's delta is -1: a weight's gradient is minus the sum
    # of its unit over the examples
    y = np.full(m, 1e6)
    (_, bias_grad), (weight_grad, _) = model.layers(gradient(model, params, np.zeros((m, 1)), y))
    kept = -weight_grad[:, 0] * (1 - dropout)  # in how many examples a unit was kept
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-9)
    deviation = math.sqrt(m * dropout * (1 - dropout))  # of a binomial distribution
    assert -weight_grad.mean() / m == pytest.approx(1, abs=4 * deviation / m / math.sqrt(units))
    assert float(kept.std()) == pytest.approx(deviation, rel=0.1), "examples share their masks"
    # the way back goes through the same mask, with the same factor
    np.testing.assert_allclose(bias_grad, weight_grad[:, 0] * weight[:, 0], rtol=1e-12)


def test_dropout_depends_on_the_key_alone_and_evaluation_has_none() -> None:
    model, params, x, y = make("classes", hidden=(8, 8), dropout=0.5)
    first = gradient(model, params, x, y, key=1)
    other = gradient(model, params, x[:3], y[:3], key=2)
    model.outputs(params, x)
    assert gradient(model, params, x, y, key=1).tobytes() == first.tobytes()
    assert distance(gradient(model, params, x[:3], y[:3], key=1), other) > 0.01
    without, *_ = make("classes", hidden=(8, 8))
    assert model.outputs(params, x).tobytes() == without.outputs(params, x).tobytes()
    assert distance(gradient(without, params, x, y), first) > 0.01


# ---- settings


@every_problem
def test_spec_makes_an_equal_model_also_through_json(problem: str) -> None:
    model, params, x, y = make(
        problem, hidden=(5, 4), activation="gelu", dropout=0.25, init="glorot", dtype="float32"
    )
    again = MLP(**json.loads(json.dumps(model.spec())))
    assert again.spec() == model.spec()
    assert again.config == model.config
    assert gradient(again, params, x, y).tobytes() == gradient(model, params, x, y).tobytes()
    key = (0, Purpose.PARAMS)
    first, second = model.initial_params(generator(*key)), again.initial_params(generator(*key))
    assert first.tobytes() == second.tobytes()


def test_settings_may_be_numpys_numbers_and_lists_and_are_kept_as_plain_ones() -> None:
    numbers: dict[str, Any] = {
        "batch_size": np.int64(32), "learning_rate": np.float32(0.5), "noise_scale": np.bool_(True),
        "epochs": np.uint8(3), "clip_norm": np.array(2), "momentum": 0, "optimizer": np.str_("sgd"),
    }  # fmt: skip
    plain = TrainConfig(
        batch_size=32, learning_rate=0.5, noise_scale=True, epochs=3, clip_norm=2.0, momentum=0.0,
        optimizer="sgd",
    )  # fmt: skip
    for name, value in vars(TrainConfig(**numbers)).items():
        assert (type(value), value) == (type(getattr(plain, name)), getattr(plain, name)), name
    sizes: list[Any] = [[64, np.int8(3)], np.array([64, 3])]
    for hidden in sizes:
        found = ModelConfig(hidden=hidden).hidden
        assert (found, [type(size) for size in found]) == ((64, 3), [int, int])
    assert MLP(np.array([5, 4, 2])).spec() == MLP([5, 4, 2]).spec()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch_size", np.float64(64), "batch-size is 64.0; give a value of type int"),
        ("batch_size", np.bool_(True), "batch-size is True; give a value of type int"),
        ("noise_scale", np.int64(1), "noise-scale is 1; give a value of type bool"),
        ("learning_rate", np.float32("nan"), "learning-rate is nan; it must be above 0"),
        ("learning_rate", 10**400, "learning-rate is inf; it must be above 0 and finite"),
        ("learning_rate", np.array([0.1]), "give a value of type float"),
    ],
    ids=["whole", "bool for whole", "whole for bool", "NaN", "beyond float", "array"],
)
def test_numbers_of_another_kind_are_refused_as_before(name: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainConfig(**{name: value})
    with pytest.raises(InputError, match=r"hidden is .*; give a value of type tuple\[int"):
        ModelConfig(hidden=[[3]])  # type: ignore[arg-type]


def test_one_by_itself_is_one_of_several() -> None:
    one, several = DataConfig(target="y"), DataConfig(target=("y",))  # type: ignore[arg-type]
    assert one == several
    assert ModelConfig(hidden=np.int64(32)).hidden == (32,)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [[], [3], [3, 0, 2], [3, -1]])
def test_invalid_sizes_are_an_input_error(sizes: list[int]) -> None:
    with pytest.raises(InputError, match=r"sizes is \[.*at least two numbers above 0"):
        MLP(sizes)


@pytest.mark.parametrize(
    ("setting", "found", "meant"),
    [
        ("activation", "rellu", "relu"),
        ("activation", "Tanh", "tanh"),
        ("loss", "cross entropy", "cross-entropy"),
        ("loss", "hubert", "huber"),
    ],
)
def test_invalid_name_is_an_input_error_that_names_the_nearest(
    setting: str, found: str, meant: str
) -> None:
    options: dict[str, Any] = {setting: found}
    with pytest.raises(InputError, match=f"{setting} is '{found}'.*did you mean '{meant}'"):
        MLP([2, 2], **options)


def test_number_of_parameters_is_that_of_weights_and_biases() -> None:
    assert MLP([784, 512, 512, 10]).num_params == 669_706
    assert MLP([5, 1]).num_params == 6
