"""Shows that shards computed in one go have the bytes of each alone, and that it is tried first."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import dptrain
from dptrain.config import Activation, DType, LossChoice, ModelConfig, TrainConfig
from dptrain.config.names import ClassWeight
from dptrain.keys import Purpose, generator
from dptrain.model import Shards, products
from dptrain.model.mlp import MLP
from dptrain.model.products import at_a_time, multiply, near_rows, same_in_one_go
from dptrain.reduce.tree import times_added, tree_sum
from dptrain.world import World

ALONE = World()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("sizes", "activation", "loss", "rows"),
    [
        ((784, 96, 96, 10), "relu", "cross-entropy", (32, 32, 33, 31)),
        ((5, 7, 3), "tanh", "cross-entropy", (1, 2, 1, 5, 1)),
        ((64, 300, 40, 1), "gelu", "huber", (64, 64)),
        ((20, 3), "sigmoid", "binary-cross-entropy", (8, 9, 8)),
    ],
)
def test_shards_in_one_go_have_the_bytes_of_each_alone(
    sizes: tuple[int, ...],
    activation: Activation,
    loss: LossChoice,
    rows: tuple[int, ...],
    dtype: DType,
) -> None:
    model = MLP(sizes, activation=activation, loss=loss, dropout=0.25, dtype=dtype)
    rng = np.random.default_rng(3)
    params = model.initial_params(rng)
    x = rng.standard_normal((sum(rows), sizes[0])).astype(dtype)
    y: Any = rng.integers(0, sizes[-1], sum(rows))
    if loss != "cross-entropy":
        y = rng.integers(0, 2, (sum(rows), sizes[-1])).astype(dtype)
    weights = rng.random(sum(rows))
    ends = np.cumsum(rows).tolist()
    places = tuple(zip([0, *ends], ends, strict=False))
    rngs = [partial(generator, 1, Purpose.DROPOUT, 0, 0, shard) for shard in range(len(rows))]
    out, alone = np.empty_like(params), [np.empty_like(params) for _ in rows]
    stack = Shards(places, times_added(range(len(rows)), len(rows)))
    sums = model.of_shards(params, x, y, weights, out, stack, rngs)
    for (start, stop), make, found, into in zip(places, rngs, sums, alone, strict=True):
        here = slice(start, stop)
        known = model.loss_and_grad_sum(params, x[here], y[here], weights[here], into, make)
        assert found[:2] == known[:2]
    assert out.tobytes() == tree_sum(alone).tobytes()
    assert len(model._spare) == 1


def test_a_run_computes_shards_in_one_go_with_the_bytes_of_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    data = dptrain.load((rng.random((150, 12)), rng.integers(0, 3, 150)), world=ALONE)
    calls: list[int] = []
    real = MLP.of_shards

    def counted(self: MLP, *args: Any) -> Any:
        calls.append(len(args[5].adds))
        return real(self, *args)

    def digest(config: TrainConfig) -> bytes:
        model = dptrain.mlp_for(data, ModelConfig(hidden=(40, 30), dropout=0.1))
        return dptrain.fit(model, data, config, world=ALONE).params.tobytes()

    monkeypatch.setattr(MLP, "of_shards", counted)
    config = TrainConfig(batch_size=40, shards=7, epochs=2)
    in_one_go = digest(config)
    assert set(calls) == {7}
    monkeypatch.setattr("dptrain.train.loop.together", lambda *_: 1)
    calls.clear()
    assert digest(config) == in_one_go
    assert set(calls) == {1}
    monkeypatch.setattr("dptrain.train.loop.together", lambda *_: 3)
    calls.clear()
    assert digest(config) == in_one_go
    assert set(calls) == {2, 3}  # whole subtrees


def test_a_library_that_adds_in_another_order_for_more_rows_is_asked_shard_by_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, parts = np.random.default_rng(1), ((0, 4), (4, 8))
    rows, matrix = rng.standard_normal((8, 30)), rng.standard_normal((30, 5))
    alone = np.concatenate([rows[:4] @ matrix, rows[4:] @ matrix])
    real = np.matmul

    def other(a: Any, b: Any, out: Any) -> Any:
        if len(a) > 4:
            return np.add(real(a[:, :9], b[:9]), real(a[:, 9:], b[9:]), out=out)
        return real(a, b, out=out)

    monkeypatch.setattr(products, "product", other)
    same_in_one_go.cache_clear()
    out = np.empty((8, 5))
    multiply(Shards(parts, ()), rows, matrix, out)
    same_in_one_go.cache_clear()
    assert out.tobytes() == alone.tobytes()
    other(rows, matrix, out)
    assert out.tobytes() != alone.tobytes()


def test_a_gradient_is_written_whole_where_a_product_of_fewer_rows_has_other_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, real = near_rows(1000, "float32"), np.matmul
    ask = partial(at_a_time, (3, 40), (2 * few, 1000), np.dtype("float32"))

    def other(a: Any, b: Any) -> Any:
        return real(a, b) if len(a) > few else real(a[:, 20:], b[20:]) + real(a[:, :20], b[:20])

    assert ask(-1) in (few, 2 * few)
    monkeypatch.setattr(np, "matmul", other)
    assert ask(-2) == 2 * few
    monkeypatch.setattr(np, "matmul", real)
    assert near_rows(10**6, "float32") == 16


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_shards_without_an_example_add_nothing(
    class_weight: ClassWeight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 33 rows in minibatches of 10, in 7 shards, the last has 3."""
    rng = np.random.default_rng(0)
    data = dptrain.load(
        (rng.random((33, 12)), rng.integers(0, 3, 33)),
        dptrain.DataConfig(validation=0, class_weight=class_weight),
        world=ALONE,
    )
    found = set()
    for most in (1, 2, 7):
        monkeypatch.setattr("dptrain.train.loop.together", lambda *_, most=most: most)
        model = dptrain.mlp_for(data, ModelConfig(hidden=(40, 30), dropout=0.1))
        config = TrainConfig(batch_size=10, shards=7, epochs=2)
        found.add(dptrain.fit(model, data, config, world=ALONE).params.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_product_has_the_bytes_of_numpys_own(dtype: str) -> None:
    """Of whole rows, wherever they stand: what a network multiplies, one unit or row included."""
    rng = np.random.default_rng(3)
    for number in range(300):
        m, k, n = (int(size) if rng.random() < 0.8 else 1 for size in rng.integers(1, 90, 3))
        first = int(rng.integers(0, 9))
        rows = rng.standard_normal((m + 9, k)).astype(dtype)[first : first + m]
        delta = rng.standard_normal((m + 9, n)).astype(dtype)[first : first + m]
        matrix = rng.standard_normal((k, n)).astype(dtype)
        pairs = (rows, matrix), (delta, matrix.T), (rows.T, delta), (np.ones(m, dtype), delta)
        for left, right in pairs:
            out = np.empty(left.shape[:-1] + right.shape[1:], dtype)
            products.product(left, right, out)
            assert out.tobytes() == np.matmul(left, right).tobytes(), (number, m, k, n)


def test_shards_without_an_example_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor those that hold as many elsewhere: else thousands of shards take minutes to begin."""
    calls: list[int] = []
    real = products.product

    def counted(rows: Any, matrix: Any, out: Any) -> None:
        calls.append(len(rows))
        real(rows, matrix, out)

    monkeypatch.setattr(products, "product", counted)
    rows, matrix, out = np.ones((5, 3)), np.ones((3, 2)), np.empty((5, 2))
    same_in_one_go.cache_clear()
    multiply(Shards(((0, 0), (0, 5), (5, 5)), ()), rows, matrix, out)
    assert calls == [5]
    multiply(Shards(((0, 2), (2, 2), (2, 5)), ()), rows, matrix, out)
    assert len(calls) > 2
    assert 0 not in calls
    calls.clear()
    multiply(Shards(((0, 0), (0, 2), (2, 5)), ()), rows, matrix, out)
    assert calls == [5]
