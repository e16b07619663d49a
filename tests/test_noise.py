"""Shows that the noise scale is estimated without bias, from even, uneven and empty shards."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dptrain
from dptrain import InputError, TrainConfig, World
from dptrain.keys import Purpose, generator
from dptrain.order import Batch, Order
from dptrain.train.noise import Noise, noise
from dptrain.world import cut

TRUE = np.array([0.5, -1.0, 0.0])
SPREAD = np.array([1.0, 2.0, 3.0])
VARIANCE, SQUARE_NORM = 14.0, 1.25


def estimate(gradients: NDArray[np.float64], sizes: list[int]) -> Noise | None:
    """Return the estimate from examples' gradients [m, n], cut into shards of these sizes."""
    sums = [part.sum(axis=0) for part in np.split(gradients, np.cumsum(sizes)[:-1])]
    return noise([float(s @ s) for s in sums], sizes, float(np.sum(gradients.sum(axis=0) ** 2)))


@pytest.mark.parametrize("sizes", [[8, 8, 8], [1, 2, 21], [0, 5, 0, 7], [1, 1]])
def test_both_estimates_are_unbiased(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    draws = TRUE + SPREAD * rng.standard_normal((5_000, sum(sizes), 3))
    found = [estimate(gradients, sizes) for gradients in draws]
    values = np.array([(one.variance, one.square_norm) for one in found if one])
    assert len(values) == len(draws)
    error = values.std(axis=0) / math.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - (VARIANCE, SQUARE_NORM)) < 4 * error)
    assert np.all(error < 0.3)  # or the line above would show nothing


def test_even_shards_give_the_formulas_of_the_paper() -> None:
    gradients = TRUE + SPREAD * np.random.default_rng(1).standard_normal((24, 3))
    small = np.mean([np.sum(part.mean(axis=0) ** 2) for part in np.split(gradients, 4)])
    big = np.sum(gradients.mean(axis=0) ** 2)
    found = estimate(gradients, [6] * 4)
    assert found is not None
    assert found.variance == pytest.approx((small - big) / (1 / 6 - 1 / 24))
    assert found.square_norm == pytest.approx((24 * big - 6 * small) / (24 - 6))
    assert found.scale == pytest.approx(found.variance / found.square_norm)


def test_the_trainers_cut_of_any_size_gives_the_variance_between_shards() -> None:
    rng = np.random.default_rng(2)
    for size, parts in [(2, 5), (7, 3), (64, 7)]:
        gradients, pieces = (
            rng.standard_normal((size, 3)),
            [cut(size, parts, p) for p in range(parts)],
        )
        mean = gradients.mean(axis=0)
        held = [gradients[p.start : p.stop] for p in pieces if len(p)]
        between = sum(len(g) * np.sum((g.mean(axis=0) - mean) ** 2) for g in held)
        found = estimate(gradients, [len(p) for p in pieces])
        assert found is not None
        assert found.variance == pytest.approx(between / (len(held) - 1))


def test_equal_gradients_have_no_noise() -> None:
    found = estimate(np.tile([0.1, 0.7, -0.3], (7, 1)), [1, 2, 4])
    assert found is not None
    assert found.variance == pytest.approx(0, abs=1e-15)
    assert found.variance >= 0
    assert found.square_norm == pytest.approx(0.59)


def test_noise_that_hides_the_gradient_has_an_infinite_scale() -> None:
    found = estimate(np.array([[1.0], [-1.0]]), [1, 1])
    assert found == Noise(2.0, -1.0)
    assert found.scale == math.inf


@pytest.mark.parametrize("sizes", [[], [3], [0, 3, 0]])
def test_one_shard_says_nothing(sizes: list[int]) -> None:
    assert noise([2.0] * len(sizes), sizes, 2.0) is None


def test_a_size_must_stand_beside_each_norm() -> None:
    with pytest.raises(ValueError, match="shorter"):
        noise([1.0, 2.0], [1], 3.0)


def test_training_writes_the_scale_of_its_own_gradients(tmp_path: Path) -> None:
    """Two minibatches, one of them small: the column is what the shards' gradients say, worked out
    here. The rate is so small that no parameter changes: epochs differ by their order alone.
    """
    data = dptrain.load(world=World())
    model = dptrain.mlp_for(data, dptrain.ModelConfig(hidden=(7,), dtype="float64"))
    rows = len(data.train)
    size = 2 * rows // 3
    config = TrainConfig(shards=5, batch_size=size, epochs=2, noise_scale=True, learning_rate=1e-99)
    trained = dptrain.fit(model, data, config, out=tmp_path / "run", world=World())
    params = model.initial_params(generator(0, Purpose.PARAMS))
    np.testing.assert_allclose(trained.params, params, rtol=0, atol=1e-90)
    stored = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(stored) == len(trained.history) == 2
    for epoch, line in enumerate(trained.history):
        found = [
            noise_of(batch, data, model, params) for batch in Order(rows, size, 5, 0).steps(epoch)
        ]
        assert len(found) == 2
        scale = sum(one.variance for one in found) / sum(one.square_norm for one in found)
        assert line["noise_scale"] == pytest.approx(scale, rel=1e-9)
        assert json.loads(stored[epoch])["noise_scale"] == line["noise_scale"]


def noise_of(batch: Batch, data: dptrain.Data, model: dptrain.MLP, params: NDArray[Any]) -> Noise:
    """Return what the gradients of a minibatch's shards say."""
    shards = [batch.shard(shard) for shard in range(batch.num_shards)]
    sums = np.empty((len(shards), model.num_params))
    for shard, out in zip(shards, sums, strict=True):
        x, y = data.train.gather(shard, model)
        model.loss_and_grad_sum(params, x, y, None, out, lambda: np.random.default_rng(0))
    squares = np.square(sums).sum(axis=1).tolist()
    found = noise(squares, [*map(len, shards)], float(np.square(sums.sum(axis=0)).sum()))
    assert found is not None
    return found


def test_one_shard_has_no_noise_to_compare() -> None:
    data = dptrain.load(world=World())
    model = dptrain.mlp_for(data)
    with pytest.raises(InputError, match="needs --shards 2 or more"):
        dptrain.fit(model, data, TrainConfig(shards=1, noise_scale=True), world=World())
    with pytest.raises(InputError, match="a --batch-size of 2 or more"):
        dptrain.fit(model, data, TrainConfig(shards=2, batch_size=1, noise_scale=True))
