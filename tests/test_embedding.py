"""Shows that categories too many for an input each become numbers that are learned, and stay so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dptrain
from dptrain import MLP, DataConfig, InputError, ModelConfig, TrainConfig, World
from dptrain.arrays import views
from dptrain.data.encode import Encoding
from dptrain.data.field import field_of
from dptrain.data.prepare import Data
from dptrain.model.embedding import width

pytest.importorskip("pyarrow")
ALONE = World()
MODEL = ModelConfig(hidden=(7,), activation="tanh", dtype="float64")
FEW = DataConfig(target=("y",), one_hot=3, validation=0.25)


def rows(num: int = 400) -> str:
    """Return a table whose values depend on which of 40 words a row has, or on that it has none."""
    rng = np.random.default_rng(0)
    places, x = rng.integers(0, 41, num), rng.standard_normal(num).round(3)
    worth = rng.standard_normal(41)
    words = ["", *(f"w{n}" for n in range(40))]
    lines = [f"{words[p]},{v},{'pqr'[n % 3]},{worth[p] + v / 9:.4f}"
             for n, (p, v) in enumerate(zip(places, x, strict=True))]  # fmt: skip
    return "\n".join(["b,a,c,y", *lines])


@pytest.fixture
def data(tmp_path: Path) -> Data:
    (tmp_path / "d.csv").write_text(rows())
    return dptrain.load(tmp_path / "d.csv", FEW, world=ALONE)


def test_what_becomes_of_the_words_is_said(data: Data) -> None:
    assert data.encoding.categories == (("b", 0, 42),)
    assert "categories: b (41 learned), c (3)" in data.told
    assert data.encoding.shape == (1 + 1 + 4,)
    assert [width(n) for n in (5, 42, 1000, 10**6)] == [4, 13, 50, 50]


def test_the_gradient_is_the_losses_change(data: Data) -> None:
    dptrain.check_model(dptrain.mlp_for(data, MODEL), data)


def test_a_table_does_what_rows_of_one_1_times_the_table_do(data: Data) -> None:
    model = dptrain.mlp_for(data, MODEL)
    params = model.initial_params(np.random.default_rng(0))
    x, y = data.train.gather(slice(0, 50), model)
    table = views(model.layout, params)["embedding.b"]
    wide = np.hstack([x[:, 1:], np.eye(len(table))[x[:, 0].astype(int)] @ table])
    plain = MLP([wide.shape[1], 7, 1], activation="tanh", loss=model.loss, dtype="float64")
    start = params[: plain.num_params]
    np.testing.assert_allclose(model.outputs(params, x), plain.outputs(start, wide), rtol=1e-12)
    out, other = np.full(len(params), 9.0), np.empty(plain.num_params)
    rng = np.random.default_rng
    found = model.loss_and_grad_sum(params, x, y, None, out, rng)
    sums = plain.loss_and_grad_sum(start, wide, y, None, other, rng)
    assert tuple(found) == pytest.approx(tuple(sums), nan_ok=True)
    np.testing.assert_allclose(out[: len(other)], other, rtol=1e-10, atol=1e-12)


def test_a_model_with_tables_is_stored_gone_on_with_and_replayed(
    data: Data, tmp_path: Path
) -> None:
    model, config = dptrain.mlp_for(data, MODEL), TrainConfig(steps=12, batch_size=50)
    whole = dptrain.fit(model, data, config, out=tmp_path / "whole", world=ALONE)
    out = tmp_path / "run"
    dptrain.fit(model, data, replace(config, steps=5), out=out, world=ALONE)
    again = dptrain.fit(model, data, config, out=out, resume=True, world=ALONE)
    assert again.params.tobytes() == whole.params.tobytes()
    assert dptrain.verify(out, "all", world=ALONE).verdict == "identical"
    stored = dptrain.load_trained(out)
    names = {"b": ["w1", "w2"], "a": [0.5, 0.5], "c": ["p", "p"]}
    assert stored.predict(names).tolist() == again.predict(names).tolist()
    assert len({*stored.predict(names).tolist()}) == 2


def test_a_word_never_seen_has_its_own_place_and_so_has_a_gap(data: Data) -> None:
    found = dptrain.fit(dptrain.mlp_for(data, MODEL), data, TrainConfig(steps=50), world=ALONE)
    words = ["w1", None, "new", "newer"]
    first, gap, new, newer = found.predict({"b": words, "a": [0.5] * 4, "c": ["p"] * 4})
    assert len({first, gap, new}) == 3
    assert new == newer
    table = views(found.model.layout, found.params)["embedding.b"]
    assert not table[-1].any()
    assert table[:-1].any(axis=1).all()
    assert found.summary.metrics["validation_r2"] > 0.2


def test_models_are_for_one_kind_of_categories(data: Data) -> None:
    with pytest.raises(InputError, match="other categories"):
        dptrain.fit(
            MLP([6, 7, 1], loss="mean-squared-error"), data, TrainConfig(steps=1), world=ALONE
        )
    for wrong in ((("b", 9, 4),), (("b", 0, 4), ("c", 0, 4)), (("b", 0, 2**25),)):
        with pytest.raises(InputError):
            MLP([6, 7, 1], categories=wrong)
    with pytest.raises(ValueError, match="no input"):
        field_of({"name": "a", "kind": "numbers", "coded": True})
    spec = data.encoding.spec()
    same = Encoding.from_spec(spec)
    assert same.categories == data.encoding.categories
