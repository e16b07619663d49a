"""Shows that a PyTorch module is trained as NumPy's models are: sums, bits, and what is refused."""

import copy
import functools
import importlib
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from conftest import Start, start
from forgery import edit_tensors
from test_house import apply, patches

import dptrain
from dptrain import DataConfig, InputError, ModelConfig, TrainConfig
from dptrain.config import ModelFile, Rule
from dptrain.data.encode import Flat
from dptrain.level import NATIVE
from dptrain.model import described
from dptrain.model.file import build

torch = pytest.importorskip("torch", reason="torch is not here: make test-frameworks")
import safetensors.torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_models import Transformer, masked_loss, perceptron, write_letters  # noqa: E402

from dptrain.model.torch import TorchModel  # noqa: E402


def no_rng() -> np.random.Generator:
    return np.random.default_rng(0)


def sums(
    model: Any, x: Any, y: Any, weights: Any = None, params: Any = None
) -> tuple[dptrain.Sums, Any]:
    """Return a shard's sums, and its gradient."""
    params = model.initial_params(no_rng()) if params is None else params
    out = np.full_like(params, np.nan)
    return model.loss_and_grad_sum(params, x, y, weights, out, no_rng), out


def digits(num: int, dtype: str = "float64") -> tuple[Any, Any]:
    return dptrain.load(config=DataConfig(scale="standard")).train.gather(
        slice(0, num), Flat(dtype)
    )


@pytest.fixture
def pair() -> tuple[Any, Any, Any]:
    """The perceptron of NumPy and of PyTorch in float64, and PyTorch's order of NumPy's vector."""
    own = dptrain.MLP([64, 32, 10], dtype="float64")
    numbers = np.arange(own.num_params, dtype=np.float64)
    order = np.concatenate([
        part.astype(int).ravel()
        for weight, bias in own.layers(numbers) for part in (weight.T, bias)
    ])  # fmt: skip
    return own, TorchModel(perceptron().double()), order


def check_sums(own: Any, model: Any, order: Any, params: Any) -> None:
    """Check that two models make the same of examples, with weights and without."""
    x, y = digits(37)
    for weights in (None, np.linspace(0, 2, 37)):
        wanted, gradient = sums(own, x, y, weights, params)
        found, theirs = sums(model, x, y, weights, params[order])
        assert found == pytest.approx(wanted, rel=1e-14)
        np.testing.assert_allclose(theirs, gradient[order], rtol=0, atol=1e-12)


def test_gradients_are_those_of_the_numpy_perceptron(pair: tuple[Any, Any, Any]) -> None:
    own, model, order = pair
    check_sums(own, model, order, own.initial_params(no_rng()))


def test_labels_are_smoothed_in_training_as_pytorch_does_it(pair: tuple[Any, Any, Any]) -> None:
    own, plain, order = pair
    own = dptrain.MLP(own.sizes, dtype="float64", label_smoothing=0.2)
    model = TorchModel(perceptron().double(), label_smoothing=0.2)
    x, y = digits(37)
    params = own.initial_params(no_rng())
    check_sums(own, model, order, params)
    outputs = model.outputs(params[order], x)
    expected = functional.cross_entropy(
        torch.tensor(outputs), torch.tensor(y), reduction="sum", label_smoothing=0.2
    )
    found, _ = sums(model, x, y, None, params[order])
    assert found.loss == pytest.approx(float(expected), rel=1e-13)
    assert model.loss_sum(outputs, y, None) == plain.loss_sum(outputs, y, None)
    assert model.spec() != plain.spec()
    with pytest.raises(InputError, match="have the given loss smooth"):
        TorchModel(perceptron(), functional.cross_entropy, label_smoothing=0.2)
    model.check("regression", 64, 10, 0)
    with pytest.raises(InputError, match="it needs a score for each class, and this is regression"):
        sums(model, x, np.zeros((37, 10)), None, params[order])


@pytest.mark.parametrize("rule", get_args(Rule))
def test_50_steps_are_those_of_the_numpy_perceptron(rule: Rule, pair: tuple[Any, Any, Any]) -> None:
    own, model, order = pair
    data, config = (
        dptrain.load(config=DataConfig(scale="standard")),
        TrainConfig(optimizer=rule, steps=50, learning_rate=0.01),
    )
    trained = dptrain.fit(own, data, config)
    start = own.initial_params(dptrain.keys.generator(0, dptrain.keys.Purpose.PARAMS))
    model.initial_params = lambda _: start[order]
    found = dptrain.fit(model, data, config)
    np.testing.assert_allclose(found.params, trained.params[order], rtol=0, atol=1e-8)
    assert found.summary.metrics["test_accuracy"] == trained.summary.metrics["test_accuracy"]


def test_a_masked_loss_is_divided_once_by_all_that_counts(tmp_path: Path) -> None:
    write_letters(tmp_path / "letters.npz")
    data = dptrain.load(tmp_path / "letters.npz", DataConfig(task="regression", scale="none"))
    net = Transformer().double().eval()  # without dropout
    net.train = lambda _: net
    model = TorchModel(net, masked_loss)
    x, y = data.train.gather(slice(0, 60), model)
    slices = slice(0, 7), slice(7, 21), slice(21, 60)
    parts = [sums(model, x[part], y[part]) for part in slices]
    total_weight = sum(found.weight for found, _ in parts)
    gradient = sum(part for _, part in parts) / total_weight
    places = torch.from_numpy(y).long()
    logits = net(torch.from_numpy(x)).movedim(2, 1)
    loss = functional.cross_entropy(logits, places.masked_fill(places < 0, -100))
    wanted = torch.autograd.grad(loss, list(net.parameters()))
    reference = np.concatenate([part.numpy().ravel() for part in wanted])
    total_loss = sum(found.loss for found, _ in parts)
    assert total_loss / total_weight == pytest.approx(loss.item(), 1e-13)
    assert math.isnan(parts[0][0].right)  # a loss of one's own: nobody knows what is right
    np.testing.assert_allclose(gradient, reference, rtol=0, atol=1e-12)
    mean_of_means = sum(part / found.weight for found, part in parts) / 3
    assert np.abs(mean_of_means - reference).max() > 1e-4


def test_terms_and_the_weights_of_their_examples_multiply() -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        return outputs[:, :2] * targets[:, None], torch.tensor([[1.0, 0.0]]).expand(len(targets), 2)

    net = nn.Linear(3, 2, bias=False).double()
    x, y = np.random.default_rng(0).standard_normal((4, 3)), np.arange(4)
    weights = np.array([1.0, 0.5, 2.0, 0.0])
    (loss_sum, weight_sum, _), gradient = sums(TorchModel(net, loss), x, y, weights)
    row = net.weight.detach().numpy()[0]
    assert weight_sum == 3.5
    assert loss_sum == pytest.approx((x @ row) @ (y * weights))
    np.testing.assert_allclose(gradient, [*(y * weights) @ x, 0, 0, 0], rtol=1e-15)


def test_products_do_not_depend_on_where_arrays_lie() -> None:
    rng, room = np.random.default_rng(0), np.zeros(15 * 64 + 64, np.float32)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((15, 64), (8, 64)))
    found = set()
    for place in range(16):
        here = room[place:][: x.size].reshape(x.shape)
        here[...] = x
        found.add(
            functional.linear(torch.from_numpy(here), torch.from_numpy(weight)).numpy().tobytes()
        )
    assert len(found) == 1


def test_real_numbers_of_a_transform_become_the_models_type() -> None:
    data = dptrain.load((np.arange(60.0).reshape(20, 3), np.arange(20) % 2))

    def noisy(x: Any, rng: np.random.Generator) -> Any:
        return x + rng.standard_normal(x.shape)  # float64

    trained = dptrain.fit(TorchModel(nn.Linear(3, 2), transform=noisy), data, TrainConfig(steps=2))
    assert trained.params.dtype == np.float32


def test_a_transform_of_uneven_shapes_is_found_where_a_run_begins() -> None:
    data = dptrain.load((np.arange(60.0).reshape(20, 3), np.arange(20) % 2))
    model = TorchModel(nn.Linear(3, 2), transform=lambda x, rng: x[: rng.integers(2, 4)])
    with pytest.raises(InputError, match=r"rows of shape \(2,\) and of \(3,\); return one shape"):
        dptrain.check_model(model, data)


def test_a_transform_gets_random_numbers_by_the_seed_the_epoch_and_the_example() -> None:
    seen: list[tuple[bytes, float]] = []

    def look(x: Any, rng: np.random.Generator) -> Any:
        seen.append((x.tobytes(), rng.random()))
        return x

    data = dptrain.load((np.arange(60.0).reshape(20, 3), np.arange(20) % 2))
    runs = {}
    for shards, batch, seed in ((1, 20, 0), (3, 7, 0), (1, 20, 1)):
        seen.clear()
        config = TrainConfig(epochs=2, shards=shards, batch_size=batch, seed=seed)
        dptrain.fit(TorchModel(nn.Linear(3, 2), transform=look), data, config)
        runs[shards, batch, seed] = [sorted(seen[-40:-20]), sorted(seen[-20:])]  # after the trial
    first = runs[1, 20, 0]
    assert first == runs[3, 7, 0] != runs[1, 20, 1]
    assert len({number for epoch in first for _, number in epoch}) == 40


def test_statistics_predict_as_in_a_run_of_pytorch_itself() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
    ).double()
    data, own = dptrain.load((), DataConfig(scale="standard")), copy.deepcopy(net)
    config = TrainConfig(batch_size=64, shards=1, steps=100, optimizer="sgd", learning_rate=0.1)
    trained = dptrain.fit(TorchModel(net), data, config)
    rule = torch.optim.SGD(own.parameters(), lr=0.1)
    order = dptrain.order.Order(len(data.train), 64, 1, 0)
    for step in range(100):
        (batch,) = [b for b in order.steps(step // order.steps_per_epoch) if b.step == step]
        x, y = data.train.gather(batch.rows, Flat(np.float64))
        rule.zero_grad()
        functional.cross_entropy(own(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        rule.step()
    values = dptrain.arrays.views(TorchModel(net).layout, trained.params)
    for name, array in own.state_dict().items():
        if "num_batches" not in name:
            np.testing.assert_allclose(values[name], array, rtol=0, atol=1e-9)


class Tied(nn.Module):
    """An array that is used twice, one that is not used, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64, bias=False)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(2, 2)
        self.fixed = nn.Parameter(torch.ones(64), requires_grad=False)

    def forward(self, x: Any) -> Any:
        return self.second(torch.tanh(self.first(x * self.fixed)))[:, :10]


def test_a_sparse_gradient_is_that_of_the_dense_one() -> None:
    x, y = np.arange(12).reshape(4, 3) % 5, np.arange(4) % 2
    found = []
    for sparse in (True, False):
        net = nn.EmbeddingBag(6, 2, sparse=sparse)
        nn.init.ones_(net.weight)
        found.append(sums(TorchModel(net), x, y)[1])
    np.testing.assert_array_equal(*found)
    assert found[0].any()
    assert not found[0][10:].any()


def test_tied_arrays_count_once_and_unused_ones_get_zeros() -> None:
    model = TorchModel(Tied())
    assert [param.name for param in model.layout] == [
        "fixed", "first.weight", "second.bias", "unused.weight", "unused.bias",
    ]  # fmt: skip
    assert [param.kind for param in model.layout][1:3] == ["weight", "bias"]
    gradient = sums(model, *digits(5, "float32"))[1]
    parts = dptrain.arrays.views(model.layout, gradient)
    assert not parts["fixed"].any()
    assert not parts["unused.weight"].any()
    assert parts["first.weight"].any()


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_what_requires_no_gradient_stays_as_it_is(rule: Rule) -> None:
    data = dptrain.load(config=DataConfig(scale="standard"))
    net = perceptron()
    net[0].weight.requires_grad_(False)
    config = TrainConfig(steps=3, optimizer=rule, learning_rate=0.1, weight_decay=0.1, clip_norm=1)
    trained = dptrain.fit(TorchModel(net), data, config)
    for name, array in dptrain.arrays.views(trained.model.layout, trained.params).items():
        same = np.array_equal(array, net.state_dict()[name])
        assert same == (name == "0.weight"), name
    assert TorchModel(net).fingerprint() != TorchModel(net.requires_grad_(True)).fingerprint()


class Kept(nn.Sequential):
    """Has a normalisation whose statistics it keeps, as people do who train a network further."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self[1].eval()
        return self


def test_what_train_of_ones_own_keeps_in_evaluation_stays_there() -> None:
    """Of the module itself or of one within it, beside parts that a person has set so."""
    data = dptrain.load(config=DataConfig(scale="standard"))
    for within in (False, True):
        torch.manual_seed(0)
        kept = Kept(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 10))
        kept[2].eval()
        model = TorchModel(nn.Sequential(kept) if within else kept)
        trained = dptrain.fit(model, data, TrainConfig(steps=2))
        kept[2] = nn.Identity()
        again = dptrain.fit(TorchModel(kept), data, TrainConfig(steps=2))
        found = dptrain.arrays.views(model.layout, trained.params)
        assert not any(found[name].any() for name in found if name.endswith("running_mean"))
        assert np.array_equal(trained.params, again.params)
        assert kept[1].training


def test_the_module_is_left_as_it_was() -> None:
    net = perceptron()
    assert net.training
    before, pointers = copy.deepcopy(net.state_dict()), [p.data_ptr() for p in net.parameters()]
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    dptrain.fit(
        TorchModel(net), dptrain.load(config=DataConfig(scale="standard")), TrainConfig(steps=2)
    )
    assert net.training
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert pointers == [p.data_ptr() for p in net.parameters()]
    assert all(torch.equal(before[name], array) for name, array in net.state_dict().items())


def test_a_module_computes_with_the_threads_of_its_run() -> None:
    seen = set()

    class Asks(nn.Linear):
        def forward(self, x: Any) -> Any:
            seen.add((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
            return super().forward(x)

    for threads in (1, 2):
        dptrain.fit(
            TorchModel(Asks(64, 10)),
            dptrain.load(config=DataConfig(scale="standard")),
            TrainConfig(steps=1, threads=threads),
        )
        assert seen == {(threads, True)}
        seen.clear()


def test_a_shard_holds_its_weight_times_its_updated_statistics() -> None:
    net = nn.Sequential(nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 10)).double()
    own, model = copy.deepcopy(net), TorchModel(net)
    kinds = {param.name: param.kind for param in model.layout}
    assert kinds["1.running_var"] == "statistic"
    assert (kinds["1.weight"], kinds["1.bias"]) == ("norm", "bias")
    x, y = digits(20)
    params = model.initial_params(no_rng())
    before = params.copy()
    (_, weight, _), gradient = sums(model, x, y, np.full(20, 0.5), params)
    own(torch.from_numpy(x))
    parts = dptrain.arrays.views(model.layout, gradient)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(parts[f"1.{name}"], weight * getattr(own[1], name), rtol=1e-13)
    assert np.array_equal(params, before)
    assert net[1].num_batches_tracked == 0
    outputs = model.outputs(params, x)
    np.testing.assert_array_equal(outputs, net.eval()(torch.from_numpy(x)).detach().numpy())
    assert np.array_equal(params, before)


class Counts(nn.Linear):
    """A layer that also counts in evaluation."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.running_calls: Any
        self.register_buffer("running_calls", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.running_calls += 1
        return super().forward(x)


def test_pytorchs_compiler_is_not_imported_where_nothing_is_compiled(tmp_path: Path) -> None:
    text = (
        "import sys, dptrain, torch; config = dptrain.TrainConfig(steps=1)\n"
        "data = dptrain.load(config=dptrain.DataConfig(scale='standard'))\n"
        "net = torch.nn.Sequential(torch.nn.Linear(64, 10), torch.nn.Dropout(0.1))\n"
        "dptrain.fit(dptrain.TorchModel(net), data, config)\n"
        "print([name for name in ('sympy', 'torch._inductor') if name in sys.modules])"
    )
    assert start("python", "-c", text, cwd=tmp_path).stdout == "[]\n"


def test_evaluation_changes_nothing_for_the_shards_after_it() -> None:
    """Neither statistics, nor which parts are in evaluation while the module trains."""
    net = nn.Sequential(nn.Linear(64, 6), nn.BatchNorm1d(6), Counts(), nn.Linear(6, 10))
    net[1].eval()
    model = TorchModel(net)
    x, y = digits(20, "float32")
    params = model.initial_params(no_rng())
    before, first = params.copy(), sums(model, x, y, None, params)[1]
    model.outputs(params, x)
    np.testing.assert_array_equal(params, before)
    np.testing.assert_array_equal(sums(model, x, y, None, params)[1], first)
    assert [part.training for part in net] == [True, False, True, True]
    statistics = dptrain.arrays.views(model.layout, first)
    assert statistics["2.running_calls"].item() == 20  # examples, times 1 call
    assert not statistics["1.running_mean"].any()
    frozen = model.fingerprint()
    assert TorchModel(net.train()).fingerprint() != frozen


class Odd(nn.Linear):
    """A layer of which one thing is as it should not be."""

    def __init__(self, fault: str) -> None:
        super().__init__(64, 10)
        self.fault, self.calls, self._calls = fault, 0, 0
        self.count: Any
        self.register_buffer("count", torch.zeros(3, dtype=torch.int64))

    def forward(self, x: Any) -> Any:
        self._calls += 1  # which nothing depends on
        self.calls += self.fault == "number"
        if self.fault == "buffer":
            self.count += 1
        if self.fault == "replaced":
            self.count = self.count + 1
        if self.fault == "fixed":
            self.weight.requires_grad_(False)
        if self.fault == "params":
            with torch.no_grad():
                self.weight.clamp_(-1, 1)
        z = super().forward(x)
        found = {"rows": z[1:], "wide": z[:, :9], "list": [z], "whole": z.long(), "half": z.half()}
        return found.get(self.fault, z)


def holding(name: str, buffer: Any) -> Any:
    """Return a layer with a buffer that never changes."""
    found = nn.Linear(64, 10)
    found.register_buffer(name, buffer)
    return found


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(64, 10).half(), "weight is float16; give float32"),
        (lambda: nn.Linear(64, 10, device="meta"), "weight is on meta; bring it to the CPU"),
        (
            lambda: nn.Sequential(nn.Linear(64, 9), nn.Linear(9, 10).double()),
            "1.weight is float64",
        ),
        (lambda: nn.Sequential(nn.Linear(64, 9), nn.Linear(9, 10).half()), "1.weight is float16"),
        (
            lambda: holding("brain", torch.ones(3).bfloat16()),
            "brain can't be stored: .*BFloat16; .*",
        ),
        (lambda: holding("sparse", torch.eye(3).to_sparse()), "sparse can't be stored: "),
        (lambda: holding("here", torch.ones(3, device="meta")), "here is on meta; bring it to"),
        (lambda: Odd("whole"), "the network returns int64; give float32 or float64"),
        (lambda: Odd("half"), "the network returns float16; give float32 or float64"),
        (lambda: nn.ReLU(), "no parameters"),
        (
            lambda: nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10, momentum=None)),
            "1.running_mean is an average over all steps",
        ),
        (lambda: Odd("number"), "changes calls as it computes; .* numbers named _... that nothing"),
        (lambda: Odd("buffer"), "changes count"),
        (lambda: Odd("replaced"), "changes count"),
        (lambda: Odd("params"), "changes weight"),
        (lambda: Odd("fixed"), "changes weight"),
        (
            lambda: holding("phase", torch.zeros(3, dtype=torch.complex64)),
            "phase is complex64, which can't be stored; give float32",
        ),
        (lambda: Odd("rows"), r"shape \[36, 10\] for 37 examples"),
        (lambda: Odd("list"), "returns a list for 37 examples"),
        (lambda: nn.LazyLinear(10), "weight has no shape yet: call the module once"),
        (lambda: nn.Linear, "torch.nn.Module, such as net()"),
        (lambda: Odd("wide"), r"shape \[37, 9\]; return \[m, 10\], a score for each class"),
    ],
)
def test_a_module_that_does_not_fit_is_refused(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        dptrain.fit(
            TorchModel(build()),
            dptrain.load(config=DataConfig(scale="standard")),
            TrainConfig(steps=1, batch_size=37),
        )


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (
            lambda x, _: x + np.random.default_rng().random(),
            "transform, called twice with the same inputs",
        ),
        (lambda x, _: None, "transform returns object; return an array of numbers"),  # noqa: ARG005
        (lambda x, rng: x[: rng.integers(1, 60)], r"rows of shape \(\d+,\) and of \(\d+,\)"),
    ],
)
def test_a_transform_keeps_to_its_generator_and_to_one_shape(transform: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dptrain.fit(
            TorchModel(WholeNumbers(64, 10), transform=transform),
            dptrain.load(),
            TrainConfig(steps=1),
        )


def test_what_a_transform_makes_is_tried_before_a_run_begins() -> None:
    model = TorchModel(WholeNumbers(64, 10), transform=lambda x, _: x[:60])
    with pytest.raises(InputError, match=r"the model's code failed: .*cannot be multiplied"):
        dptrain.check_model(model, dptrain.load())


def test_what_is_no_model_data_or_config_is_refused() -> None:
    model, data = TorchModel(WholeNumbers(64, 10)), dptrain.load()
    for given, words in (
        ((model.module, data), r"the model is WholeNumbers.*; give an MLP, a TorchModel\(module\)"),
        ((TorchModel, data), "the model is <class 'dptrain"),
        ((model, digits(3)), "data is of type tuple; give what dptrain.load returns"),
        ((model, data, {"steps": 1}), "config is of type dict; give a dptrain.TrainConfig"),
    ):
        with pytest.raises(InputError, match=words):
            dptrain.fit(*given)
    with pytest.raises(InputError, match="the model is WholeNumbers"):
        dptrain.check_model(model.module, data)


class Ended(nn.Sequential):
    """A deep network whose outputs are changed once more at its end; all start near its bias."""

    def __init__(self, end: Callable[[Any], Any], outputs: int, bias: float) -> None:
        layers = [part for _ in range(6) for part in (nn.Linear(64, 64), nn.ReLU())]
        super().__init__(*layers, nn.Linear(64, outputs))
        self.end = end
        nn.init.constant_(self[-1].bias, bias)

    def forward(self, x: Any) -> Any:
        return self.end(super().forward(x))


@pytest.mark.parametrize(
    ("end", "classes", "outputs", "told"),
    [
        (lambda z: z.softmax(1), 10, 10, True),
        (torch.sigmoid, 10, 10, True),
        (torch.sigmoid, 2, 1, True),
        (torch.sigmoid, 0, 1, False),
        (lambda z: z.log_softmax(1), 10, 10, False),  # which softmax leaves as it is
        (lambda z: z, 10, 10, False),
        (lambda z: z, 2, 1, False),
    ],
)
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_probabilities_before_the_loss_are_told_of(
    end: Any, classes: int, outputs: int, told: bool, bias: float,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    torch.manual_seed(3)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 64)), np.arange(200) % (classes or 2)
    data = dptrain.load((x, y if classes else y + 0.5))
    dptrain.fit(TorchModel(Ended(end, outputs, bias)), data, TrainConfig(steps=1))
    assert ("outputs look like probabilities" in capfd.readouterr().err) == told


def test_a_module_that_takes_no_whole_numbers_is_told_how_they_become_real() -> None:
    words = r"failed: .*Inputs are uint8, as they are stored: .* x.float\(\), or give --scale"
    with pytest.raises(InputError, match=words):
        dptrain.fit(TorchModel(nn.Linear(64, 10)), dptrain.load(), TrainConfig(steps=1))
    dptrain.fit(TorchModel(WholeNumbers(64, 10)), dptrain.load(), TrainConfig(steps=1))


@pytest.mark.parametrize(
    "found", [3.0, {"loss": 3.0}, {"v": None}, {"v": (1,)}, {"v": torch.ones(2)}, {"v": 10**400}]
)
def test_metrics_are_sums_by_names_of_their_own(found: Any) -> None:
    model = TorchModel(nn.Linear(64, 10), metrics=lambda *_: found)
    data = dptrain.load(config=DataConfig(scale="standard", validation=0.1))
    with pytest.raises(InputError, match=r"metrics returns .*; return sums by name"):
        dptrain.fit(model, data, TrainConfig(steps=1))


@pytest.mark.parametrize("pair", [False, True])
def test_metrics_that_are_means_are_refused(pair: bool) -> None:
    def metrics(z: Any, y: Any) -> Any:
        found = (z.argmax(1) == y).float().mean()
        return {"right": (found, 1) if pair else found}

    model = TorchModel(nn.Linear(64, 10), metrics=metrics)
    with pytest.raises(InputError, match=r"metrics' right, .* of two shards .* return sums"):
        dptrain.fit(model, dptrain.load(config=DataConfig(scale="standard")), TrainConfig(steps=1))


def test_metrics_that_write_to_outputs_change_no_loss() -> None:
    data = dptrain.load(config=DataConfig(scale="standard", validation=0.1))
    torch.manual_seed(0)
    net, found = nn.Linear(64, 10), []
    for metrics in (lambda z, _: {"sum": z.zero_().sum()}, lambda z, _: {"sum": z.sum()}):
        model = TorchModel(copy.deepcopy(net), metrics=metrics)
        found.append(dptrain.fit(model, data, TrainConfig(steps=1)).history[0]["validation_loss"])
    assert found[0] == found[1]


def test_items_that_change_are_refused() -> None:
    class Changes(list[Any]):
        def __getitem__(self, row: Any) -> Any:
            return torch.rand(3), row % 2

    with pytest.raises(
        InputError, match=r"data\[0\] is another each time it is asked for; .* transf"
    ):
        dptrain.load(Changes(range(9)))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(3, requires_grad=True), "x of data.0. can't be made an array: .* grad"),
        (torch.ones(3).bfloat16(), "x of data.0. can't be made an array: .*BFloat16"),
        ([1.0, [2.0, 3.0]], "x of data.0. can't be made an array"),
    ],
)
def test_items_that_are_no_arrays_are_named(x: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dptrain.load([(x, 0), (x, 1)])


class WholeNumbers(nn.Linear):
    """A layer that makes real numbers of what it is given."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.float())


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (nn.CrossEntropyLoss(), r'one number for 64 examples; .* reduction="none"'),
        (lambda z, _: z.mean(0), r"shape \[10\] for 64 examples"),
        (lambda z, _: (z[:, 0], z), r"losses \(64,\) and weights \(64, 10\)"),
        (lambda z, _: z.detach()[:, 0], "does not depend on any parameter"),
        (lambda z, _: z.detach().numpy()[:, 0], "does not depend on any parameter"),
        (lambda *_: 1.0, "the loss returns a float; return an array of real numbers"),
        (nn.CrossEntropyLoss, "loss is <class 'torch.*CrossEntropyLoss'>; give a function, or"),
        ("mse", "loss is 'mse'; give a function, or leave it out"),
        (nn.PReLU(), "the loss has weight to be trained; let the module have that"),
        (lambda z, _: (z[:, 0], z[:, 0], 1), "the loss returns a tuple; return an array"),
        (lambda z, _: (z[:, 0], 1.0), "the loss returns a float; return an array"),
        (lambda z, _: z[:, 0].bfloat16(), "the loss returns bfloat16; .* float32 or float64"),
        (lambda z, _: z[:, 0] * 1j, "the loss returns complex64; return an array of real"),
        (lambda z, y: (z[:, 0] ** 2, y - 1.0), "the loss returns -1 for how much an example count"),
        (lambda z, _: z[:, 0] * math.nan, r"the loss of step 1 \(epoch 1\), shard 0 is nan, as is"),
        (
            lambda z, _: z[:, 0] * z[:, 0] * math.inf,
            r"of step 1 \(epoch 1\), shard 0 is inf, as is",
        ),
    ],
)
def test_a_loss_that_is_not_one_an_example_is_refused(loss: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dptrain.fit(
            TorchModel(nn.Linear(64, 10), loss),
            dptrain.load(config=DataConfig(scale="standard")),
            TrainConfig(steps=1),
        )


def test_the_usual_losses_are_those_of_the_numpy_perceptron() -> None:
    rng = np.random.default_rng(0)
    cases: Any = (
        ("regression", "mean-squared-error", rng.standard_normal((5, 3))),
        ("regression", "mean-squared-error", rng.standard_normal(15).reshape(5, 3)[:, :1]),
        ("multilabel", "binary-cross-entropy", rng.integers(0, 2, (5, 3)).astype(float)),
        ("classification", "binary-cross-entropy", rng.integers(0, 2, 5)),
    )
    for task, kind, y in cases:
        width = y.shape[1] if y.ndim > 1 else 1
        z = rng.standard_normal((5, width))
        model = TorchModel(nn.Linear(1, width).double())
        model.check(task, 1, width, 2 if task == "classification" else 0)
        wanted = dptrain.MLP([1, width], loss=kind, dtype="float64").loss_sum(z, y, None)
        assert model.loss_sum(z, y, None)[:2] == pytest.approx(wanted[:2], rel=1e-14)


class Draws(nn.Linear):
    """A layer that seldom does something by a number that it draws, or is asked to."""

    def __init__(self, draw: Callable[[], float], often: float = 1e-9) -> None:
        super().__init__(64, 10)
        self.draw, self.often = draw, often

    def extra_repr(self) -> str:
        return f"{self.draw}"

    def forward(self, x: Any) -> Any:
        return super().forward(x) * (2 if self.draw() < self.often else 1)


@pytest.mark.parametrize("draw", [random.random, np.random.random])
def test_a_draw_from_another_generator_is_found_though_it_seldom_decides(draw: Any) -> None:
    data, config = dptrain.load(config=DataConfig(scale="standard")), TrainConfig(steps=1)
    drawn = TorchModel(nn.Linear(64, 10), transform=lambda x, _: x * (1 + (draw() < 1e-9)))
    for model in (drawn, TorchModel(Draws(draw))):
        with pytest.raises(InputError, match="draws from Python's or NumPy's own generator"):
            dptrain.fit(model, data, config)
    dptrain.fit(TorchModel(Draws(lambda: float(torch.rand(())))), data, config)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_module_is_known_by_its_settings_and_not_by_where_it_lies() -> None:
    def mark(often: float) -> str:
        return TorchModel(Draws(lambda: 1.0, often)).fingerprint()

    assert mark(0.1) == mark(0.1) != mark(0.2)
    script: Any = torch.jit.script
    drops = [script(nn.Sequential(nn.Linear(3, 2), nn.Dropout(p))) for p in (0.1, 0.3)]
    assert len({TorchModel(net).fingerprint() for net in drops}) == 2


def test_settings_of_a_loss_belong_to_the_model() -> None:
    entropy = functional.cross_entropy

    def made(number: float) -> list[dict[str, Any]]:
        losses = (
            functools.partial(entropy, label_smoothing=number),
            nn.CrossEntropyLoss(label_smoothing=number),
            nn.CrossEntropyLoss(weight=torch.tensor([number, 1.0])),
        )
        return [described(TorchModel(perceptron(), loss)) for loss in losses]

    one, same, other = made(0.1), made(0.1), made(0.2)
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert described(TorchModel(perceptron(), entropy))["spec"] == {"loss": "cross_entropy"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_module_in_torchscript_is_trained_as_it_is_without() -> None:
    found = []
    for make in (torch.jit.script, lambda net: net):
        torch.manual_seed(0)
        net = make(nn.Sequential(nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 10)))
        model = TorchModel(net)
        found.append(([*model.layout], sums(model, *digits(20, "float32"))[1].tobytes()))
    assert found[0] == found[1]


def test_a_gradient_that_is_meant_to_be_another_gets_a_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As of what is rounded, with the gradient of what is not."""
    net = Ended(lambda z: z + (z.sign() - z).detach(), 10, 0.0).double()
    data = dptrain.load(config=DataConfig(scale="standard"))
    dptrain.fit(TorchModel(net), data, TrainConfig(steps=1))
    assert "0 times as fast as it says; detached parts, or a back" in capfd.readouterr().err


def test_outputs_may_have_a_gradient_in_evaluation() -> None:
    class Slope(nn.Linear):
        def forward(self, x: Any) -> Any:
            with torch.enable_grad():
                return super().forward(x)

    model = TorchModel(Slope(64, 10))
    x, _ = digits(5, "float32")
    assert model.outputs(model.initial_params(no_rng()), x).shape == (5, 10)


def test_a_run_is_stored_and_known_again(tmp_path: Path) -> None:
    run, data = tmp_path / "run", dptrain.load(config=DataConfig(scale="standard"))
    torch.manual_seed(0)
    trained = dptrain.fit(TorchModel(perceptron()), data, TrainConfig(steps=3), out=run)
    first = json.loads((run / "receipt.jsonl").read_text().splitlines()[0])
    assert str(torch.__version__) in str(first)
    assert first["settings"]["cpu-level"] == NATIVE  # which a replay from the command line takes
    x = data.test.raw_x(slice(0, 50)) if data.test else None
    found = dptrain.load_trained(run, TorchModel(perceptron()))
    np.testing.assert_array_equal(found.outputs(x), trained.outputs(x))
    np.testing.assert_allclose(found.probabilities(x).sum(axis=1), 1, rtol=1e-6)
    torch.manual_seed(0)
    verdict = dptrain.verify(run, "1:3", model=TorchModel(perceptron()))
    assert verdict.verdict == "identical"
    other = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    with pytest.raises(InputError, match="fingerprint"):
        dptrain.load_trained(run, TorchModel(other))
    longer = dptrain.fit(TorchModel(perceptron()), data, TrainConfig(steps=6), out=run, resume=True)
    torch.manual_seed(0)
    whole = dptrain.fit(TorchModel(perceptron()), data, TrainConfig(steps=6))
    assert longer.summary.params_sha256 == whole.summary.params_sha256
    assert ModelConfig().dtype == "float32"


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_a_run_with_the_usual_loss_is_replayed_by_a_model_made_anew(
    task: Any, tmp_path: Path
) -> None:
    """Which learns what is usual from the data, as it does where it trains."""
    x = np.arange(120.0).reshape(40, 3) / 120
    np.savez(tmp_path / "data.npz", x=x, y=(x > 0.5) * 1.0)
    data = dptrain.load(tmp_path / "data.npz", DataConfig(task=task, scale="none"))
    net, run = nn.Linear(3, 3), tmp_path / "run"
    dptrain.fit(TorchModel(net), data, TrainConfig(steps=4), out=run)
    assert dptrain.verify(run, "all", model=TorchModel(net)).verdict == "identical"


def test_a_model_is_for_one_task() -> None:
    """Or what it came to would mean something else, and JAX has compiled the loss of that."""
    x, model = np.arange(60.0).reshape(20, 3), TorchModel(nn.Linear(3, 3).double())
    values, classes = (dptrain.load((x, y)) for y in (x + 0.5, np.arange(20) % 3))
    dptrain.fit(model, values, TrainConfig(steps=1))
    dptrain.fit(model, values, TrainConfig(steps=1))
    with pytest.raises(InputError, match="is one for regression, and this is classification: make"):
        dptrain.fit(model, classes, TrainConfig(steps=1))


ASKS = """
import torch
from torch import nn

SEEN = [torch.get_num_threads()]

def build(inputs, outputs):
    SEEN.append(torch.get_num_threads())
    net = nn.Linear(inputs[0], outputs)
    nn.init.orthogonal_(net.weight)
    return net

def transform(x, rng):
    SEEN.append(torch.get_num_threads())
    return x

def metrics(outputs, targets):
    SEEN.append(torch.get_num_threads())
    return {"drawn": torch.rand(()) * len(targets)}
"""


def test_all_code_of_a_models_file_has_the_threads_of_a_run(tmp_path: Path) -> None:
    """As their number decides bits, such as those of nn.init.orthogonal_; and draws by a seed."""
    (tmp_path / "asks.py").write_text(ASKS)
    torch.set_num_threads(2)
    data = dptrain.load(config=DataConfig(scale="standard", validation=0.1))
    drawn = set()
    for _ in range(2):
        before = torch.random.get_rng_state()
        model: Any = build(ModelFile(model=f"{tmp_path}/asks.py:build"), (64,), 10, seed=0)
        found = dptrain.fit(model, data, TrainConfig(steps=1))
        drawn.add((found.summary.params_sha256, found.history[0]["validation_drawn"]))
        assert {*model.metrics.__globals__["SEEN"]} == {1}
        assert torch.get_num_threads() == 2
        assert torch.random.get_rng_state().equal(before)
    assert len(drawn) == 1


EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.append(str(EXAMPLES))


def test_the_convolutional_network_learns_digits(tmp_path: Path, quick: Start) -> None:
    model = ("--model", f"{EXAMPLES / 'cnn.py'}:build", "--model-arg", "width=8")
    line = ("--epochs", "2", "--learning-rate", "0.01", "--scale", "standard", "--out", "run")
    more = ("--ema", "0.9", "--no-decay", "bias,norm*")
    trained = quick(*model, *line, *more, "--json", "--quiet").json
    assert trained["test_accuracy"] > 0.8
    found = quick("evaluate", "run", *model[:2], "--json", cwd=tmp_path).json
    assert found["accuracy"] == trained["test_accuracy"]
    found = quick("verify", "run", "--replay", ":4", *model[:2], "--json", ranks=2).json
    assert found["verdict"] == "identical"


def test_a_module_with_named_inputs_learns_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comments = importlib.import_module("comments")
    monkeypatch.setattr(comments, "MOST", 200)
    monkeypatch.setattr(sys, "argv", ["comments.py", str(tmp_path / "lines.npz")])
    comments.main()
    data = dptrain.load(tmp_path / "lines.npz", DataConfig(validation=0.2))
    torch.manual_seed(0)
    model = TorchModel(comments.build(data.encoding.shape, 2, width=8))
    config = TrainConfig(batch_size=32, epochs=4, learning_rate=0.02)
    assert dptrain.fit(model, data, config).summary.metrics["validation_accuracy"] > 0.75


def test_the_transformer_learns_letters_that_count(tmp_path: Path) -> None:
    letters = importlib.import_module("letters")
    x, y = letters.rows("def f(x):\n    return x\n\n" * 60)
    assert (y[-1] == -1).any()
    np.savez(tmp_path / "few.npz", x=x, y=y.astype(np.float32))
    config = DataConfig(task="regression", scale="none", validation=0.2)
    data = dptrain.load(tmp_path / "few.npz", config)
    torch.manual_seed(0)
    net = letters.build(x.shape[1:], 0, width=32, layers=1)
    model = TorchModel(net, letters.loss, metrics=letters.metrics)
    dptrain.check_model(model, data)
    params, other = model.initial_params(np.random.default_rng(0)), x[:9].copy()
    other[:, 40] += 1
    differs = (model.outputs(params, x[:9]) != model.outputs(params, other)).any(axis=(0, 2))
    assert np.flatnonzero(differs).min() == 40  # no place looks ahead
    settings = TrainConfig(batch_size=8, epochs=40, learning_rate=0.01)
    history = dptrain.fit(model, data, settings).history
    assert history[0]["train_loss"] > 2.5
    assert history[-1]["validation_right"] > 0.8


def test_a_stored_module_is_read_by_pytorch_alone(tmp_path: Path) -> None:
    """All of its state, with second names, counters and constants, none missing and none more."""
    data = dptrain.load(config=DataConfig(scale="standard"))

    def build() -> Any:
        net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64), Scale())
        net[2].weight = net[0].weight
        return net

    net = build()
    trained = dptrain.fit(TorchModel(net), data, TrainConfig(steps=3), out=tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    stored = safetensors.torch.load_file(path)
    other = build().eval()
    assert other.load_state_dict(stored).missing_keys == []
    assert stored["2.weight"].equal(stored["0.weight"])
    x, _ = data.train.gather(slice(0, 9), TorchModel(net))
    wanted = trained.model.outputs(trained.params, x)
    torch.set_num_threads(1)  # of more the last bits are others
    np.testing.assert_array_equal(other(torch.from_numpy(x)).detach().numpy(), wanted)
    dptrain.load_trained(tmp_path / "run", TorchModel(net))
    edit_tensors(path, lambda arrays, _: arrays["3.mask"].__setitem__(0, False))
    with pytest.raises(InputError, match=r"3\.mask is not the model's"):
        dptrain.load_trained(tmp_path / "run", TorchModel(net))


class Scale(nn.Module):
    """One number that is learned, and a constant that is no number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("mask", torch.arange(64) < 10)
        self.register_buffer("left_out", torch.ones(3), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.scale * x[:, self.mask]


def test_the_model_that_contributing_shows_is_trained(tmp_path: Path, quick: Start) -> None:
    apply(patches()[0], tmp_path)
    line = ["--model", "line.py:build", "--scale", "standard", "--steps", "2"]
    assert quick("train", *line, "--json", cwd=tmp_path).json["num_params"] == 64 * 10 + 10


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch has no MKL here")
def test_products_before_what_has_them_alike_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = "import torch; torch.ones(8, 8) @ torch.ones(8, 8)"
    then = "import dptrain; dptrain.TorchModel(torch.nn.Linear(3, 2))"
    done = start("python", "-c", f"{first}; {then}", cwd=tmp_path, env={"MKL_CBWR": ""})
    assert "warning: PyTorch has multiplied before dptrain was imported" in done.stderr
    TorchModel(nn.Linear(3, 2))
    assert capsys.readouterr().err == ""
