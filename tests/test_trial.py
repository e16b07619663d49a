"""Shows that a model of one's own is tried before it is trusted, and what is found."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dptrain
from dptrain import InputError, TrainConfig

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from own_model import SoftmaxRegression


class Scaled(SoftmaxRegression):
    """Softmax regression with two arrays, of which one thing is as it should not be."""

    def __init__(self, fault: str) -> None:
        super().__init__(64, 10)
        self.fault, self._calls = fault, 0
        self.layout = [*self.layout, dptrain.Param("scale", (10,), "norm")]

    def initial_params(self, rng: np.random.Generator) -> Any:
        if self.fault == "initial":
            rng = np.random.default_rng()
        return np.append(super().initial_params(rng), np.ones(10))

    def outputs(self, params: Any, x: Any) -> Any:
        return super().outputs(params[:-10], x) * params[-10:]

    def loss_and_grad_sum(
        self, params: Any, x: Any, y: Any, weights: Any, out: Any, _: Any
    ) -> dptrain.Sums:
        self._calls += 1
        plain = super().outputs(params[:-10], x)
        scores = plain * params[-10:]
        delta = np.exp(scores - scores.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(len(y)), y] -= 1
        if weights is not None and self.fault != "weights":
            delta *= weights[:, None]
        out[:-10] = (x.T @ (delta * params[-10:])).ravel()
        if self.fault != "unwritten":
            out[-10:] = (delta * plain).sum(axis=0)
        loss, weight, _ = self.loss_sum(scores, y, weights)
        return self.spoil(params, x, out, loss, weight)

    def spoil(self, params: Any, x: Any, out: Any, loss: float, weight: float) -> dptrain.Sums:
        mean, one = 1 / len(x), len(x) == 1
        out *= {"mean": mean, "mean gradient": mean, "dead": 0, "one": 1 + one}.get(self.fault, 1)
        out[-10:] *= {"sign": -1, "forgotten": 0}.get(self.fault, 1)
        loss *= mean if self.fault == "mean" else 1
        weight *= -1 if self.fault == "negative" else 1
        if self.fault == "params":
            params *= 0.99
        if self.fault == "calls":
            out[3] += self._calls
        if self.fault == "random":
            out[-2] += np.random.default_rng().random()
        if self.fault == "bit":
            out[-1] = np.nextafter(out[-1], (-1) ** self._calls * np.inf)
        if self.fault == "loss":
            loss += self._calls
        if self.fault == "array":
            return dptrain.Sums(np.array([loss]), weight)  # type: ignore[arg-type]
        return dptrain.Sums(loss, weight)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("mean", "loss_and_grad_sum's loss of two shards together .* not means"),
        ("mean gradient", "the gradient of weight of two shards together is not the sum of those"),
        ("unwritten", "does not write the gradient of scale"),
        ("sign", "the gradient of scale is not that of the loss: .* -1 times as fast"),
        ("params", "writes to its parameters"),
        ("initial", "initial parameters, made twice, differ: draw them from the rng given"),
        ("calls", "differs from itself in the gradient of weight"),
        ("random", "differs from itself in the gradient of scale"),
        ("bit", "differs from itself in the gradient of scale"),
        ("loss", "differs from itself in its loss"),
        ("one", "the gradient of weight of two shards together is not the sum of those"),
        ("weights", "gradient of weight of examples that count 3 .*be times what it counts"),
        ("negative", r"returns Sums\(.* weight=-64.0, .*; return dptrain.Sums"),
        ("array", r"returns Sums\(loss=array.*; return dptrain.Sums"),
    ],
)
def test_a_model_with_a_fault_is_refused_where_a_run_begins(fault: str, words: str) -> None:
    weighed: Any = "balanced" if fault in ("weights", "") else "none"
    data = dptrain.load(config=dptrain.DataConfig(class_weight=weighed))
    tries: list[Callable[[], object]] = [
        lambda: dptrain.fit(Scaled(fault), data, TrainConfig(steps=1)),
        lambda: dptrain.check_model(Scaled(fault), data),
    ]
    for attempt in tries:
        with pytest.raises(InputError, match=words):
            attempt()


def test_a_gradient_of_0_gets_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    dptrain.check_model(Scaled("dead"), dptrain.load())
    assert "gradient of the first examples is 0: does the loss depend on" in capfd.readouterr().err


def test_a_gradient_that_was_forgotten_gets_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    dptrain.fit(Scaled("forgotten"), dptrain.load(), TrainConfig(steps=1))
    assert "the gradient of scale is 0, and the loss changes with it" in capfd.readouterr().err


class Shifted(SoftmaxRegression):
    """Softmax regression in float32, with a bias of zeros whose gradient has the wrong sign."""

    dtype: Any = np.float32

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.layout = [*self.layout, dptrain.Param("bias", (10,), "bias")]

    def initial_params(self, rng: np.random.Generator) -> Any:
        return np.append(super().initial_params(rng), np.zeros(10)).astype(np.float32)

    def outputs(self, params: Any, x: Any) -> Any:
        return x @ params[:-10].reshape(64, 10) + params[-10:]

    def loss_and_grad_sum(
        self, params: Any, x: Any, y: Any, weights: Any, out: Any, _: Any
    ) -> dptrain.Sums:
        scores = self.outputs(params, x)
        delta = np.exp(scores - scores.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(len(y)), y] -= 1
        out[:-10], out[-10:] = (x.T @ delta).ravel(), -delta.sum(axis=0)
        return self.loss_sum(scores, y, weights)


def test_a_wrong_sign_is_found_of_an_array_that_starts_as_zeros() -> None:
    data = dptrain.load(config=dptrain.DataConfig(scale="standard"))
    attempts: list[Callable[..., object]] = [dptrain.check_model, dptrain.fit]
    for attempt in attempts:
        with pytest.raises(InputError, match=r"of bias is not that of .* changes -1 times"):
            attempt(Shifted(), data)


def test_models_without_a_fault_pass() -> None:
    weighed = dptrain.load(config=dptrain.DataConfig(class_weight="balanced"))
    for data in (dptrain.load(), weighed):
        dptrain.check_model(Scaled(""), data)
    for hidden, dropout in (((), 0.0), ((20, 20), 0.0), ((30,), 0.4)):
        for dtype in ("float32", "float64"):
            config: Any = dptrain.ModelConfig(hidden=hidden, dropout=dropout, dtype=dtype)
            dptrain.check_model(dptrain.mlp_for(data, config), data)


def test_kinks_beside_the_parameters_are_no_fault() -> None:
    """Of tiny inputs, beside which each step of a bias is large, and turns units on or off."""
    rng = np.random.default_rng(0)
    data = dptrain.load(
        (1e-5 * rng.standard_normal((200, 9)), np.arange(200) % 3),
        dptrain.DataConfig(scale="none"),
    )
    for seed in range(5):
        model = dptrain.mlp_for(data, dptrain.ModelConfig(hidden=(16, 16, 16), dtype="float64"))
        dptrain.check_model(model, data, seed=seed)


def test_a_draw_of_another_thread_is_not_the_models() -> None:
    class Meanwhile(Scaled):
        def spoil(self, *args: Any) -> dptrain.Sums:
            if self._calls == 1:
                random.seed(0)
            return super().spoil(*args)

    dptrain.fit(Meanwhile(""), dptrain.load(), TrainConfig(steps=1))


def test_parameters_of_another_type_are_refused() -> None:
    class Drawn(Scaled):
        def initial_params(self, _: np.random.Generator) -> Any:
            return np.random.default_rng().random(650).astype(np.float32)

    with pytest.raises(InputError, match=r"float32 \(650,\); the layout needs float64 \(650,\)"):
        dptrain.fit(Drawn(""), dptrain.load(), TrainConfig(steps=1))
