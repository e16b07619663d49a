"""Shows that options by array names reach the arrays that are meant, and no others."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Mistake, Start
from numpy.typing import NDArray
from tiny import CONFIG, HIDDEN, load_once, train, write_data

from dptrain import InputError, Param, TrainConfig
from dptrain.arrays import views
from dptrain.keys import Purpose, generator
from dptrain.optim.named import Treatment, parts, told, treatments
from dptrain.optim.optimizer import Optimizer
from dptrain.optim.rules import transforms
from dptrain.reduce.segments import Segments
from dptrain.run.ready import mlp_for

LAYOUT = (
    Param("encoder.0.weight", (3, 4)),
    Param("encoder.0.bias", (4,), "bias"),
    Param("encoder.1.weight", (4,), "norm"),
    Param("encoder.1.running_mean", (4,), "statistic"),
    Param("head.weight", (4, 2)),
    Param("head.bias", (2,), "bias"),
)
SIZE = sum(param.size for param in LAYOUT)


def names(chosen: Sequence[bool]) -> list[str]:
    return [param.name for param, one in zip(LAYOUT, chosen, strict=True) if one]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("bias", ["encoder.0.bias", "head.bias"]),
        ("norm*", ["encoder.1.weight"]),
        ("bias,norm*", ["encoder.0.bias", "encoder.1.weight", "head.bias"]),
        ("head.*", ["head.weight", "head.bias"]),
        ("weight", ["encoder.0.weight", "head.weight"]),
        ("*.weight", ["encoder.0.weight", "encoder.1.weight", "head.weight"]),
        ("encoder.*", [param.name for param in LAYOUT[:4]]),
        ("head.bias , encoder.0.bias", ["encoder.0.bias", "head.bias"]),
    ],
)
def test_a_pattern_is_of_whole_names_or_of_kinds(pattern: str, expected: list[str]) -> None:
    decays = treatments(LAYOUT, TrainConfig(no_decay=(pattern,)))
    assert names([not each.decays for each in decays]) == expected
    frozen = treatments(LAYOUT, TrainConfig(freeze=(pattern,)))
    assert names([each.frozen for each in frozen]) == expected


def test_of_several_learning_rates_the_last_counts() -> None:
    config = TrainConfig(learning_rate=0.5, learning_rate_of=("head*=0.25,bias=2", "*=1", "bias=3"))
    factors = [each.factor for each in treatments(LAYOUT, config)]
    assert factors == [2, 6, 2, 2, 2, 6]


def test_what_options_come_to_is_said() -> None:
    config = TrainConfig(no_decay=("norm",), learning_rate_of=("bias=0.01",), freeze=("encoder*",))
    assert told(LAYOUT, config) == [
        "no weight decay: 1 array, encoder.1.weight",
        "learning rate 0.01: 2 arrays, encoder.0.bias, head.bias",
        "frozen: 4 arrays, encoder.0.weight, encoder.0.bias, encoder.1.weight, "
        "encoder.1.running_mean",
    ]
    assert told(LAYOUT, TrainConfig()) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"no_decay": ("biass",)}, "no-decay is 'biass', which fits no array; valid: encoder.0.w.*"
         "head.bias, weight, bias, norm; did you mean 'bias'"),
        ({"freeze": ("encodr.0.bias",)}, "did you mean 'encoder.0.bias'"),
        ({"learning_rate_of": ("body*=1",)}, r"learning-rate-of is 'body\*', which fits no array"),
        ({"freeze": ("statistic",)}, "fits no array"),
        ({"freeze": ("*.weight", "bias")}, r"freeze is \*.weight, bias, and so nothing is left"),
    ],
)  # fmt: skip
def test_a_pattern_that_fits_nothing_is_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        treatments(LAYOUT, TrainConfig(**option))


@pytest.mark.parametrize("text", ["head", "head=", "=1", "head=0", "head=-1", "head=nan", "a=inf"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"learning-rate-of is '{text}'; give a pattern"):
        TrainConfig(learning_rate_of=("bias=0.1", text))


def adamw(params: Any, gradients: list[Any], rate: float, decay: float) -> NDArray[np.float64]:
    """Return an array after AdamW's steps, by its formula (Loshchilov and Hutter, 2019)."""
    m = v = np.zeros_like(params)
    for step, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        params = params - rate * (update + decay * params)
    return np.asarray(params)


def test_each_array_goes_its_own_way() -> None:
    config = TrainConfig(
        optimizer="adamw", learning_rate=0.1, weight_decay=0.3, no_decay=("bias", "norm"),
        learning_rate_of=("head.*=0.02",), freeze=("encoder.0.*",)
    )  # fmt: skip
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=SIZE), list(rng.normal(size=(5, SIZE)))
    places = parts(LAYOUT, treatments(LAYOUT, config), slice(0, SIZE))
    tested = Optimizer(transforms(config), lambda _: 0.1, SIZE, "float64", *places)
    params = start.copy()
    for step, gradient in enumerate(gradients):
        assert tested.update(params, gradient, step, math.nan, 1.0) is None
    found, before = views(LAYOUT, params), views(LAYOUT, start)
    each = [views(LAYOUT, gradient) for gradient in gradients]
    expected: dict[str, NDArray[Any]] = {
        name: adamw(before[name], [one[name] for one in each], rate, decay)
        for name, rate, decay in [
            ("encoder.1.weight", 0.1, 0), ("head.weight", 0.02, 0.3), ("head.bias", 0.02, 0)
        ]
    }  # fmt: skip
    expected |= {name: before[name] for name in ("encoder.0.weight", "encoder.0.bias")}
    expected["encoder.1.running_mean"] = each[-1]["encoder.1.running_mean"]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12, err_msg=name)
    assert found["encoder.0.weight"].tobytes() == before["encoder.0.weight"].tobytes()


def test_what_is_frozen_does_not_count_in_the_gradients_norm() -> None:
    gradient = np.arange(1.0, SIZE + 1)
    frozen = [param.name.startswith("head") for param in LAYOUT]
    expected = np.square(gradient[:20]).sum()
    assert Segments(LAYOUT, frozen).square_norm(gradient) == pytest.approx(expected, rel=1e-14)


def test_parts_that_are_alike_are_updated_at_once() -> None:
    """Without options there is one part, as there is between statistics: nothing gets slower."""
    plain = LAYOUT[:3]
    (part,), statistics = parts(plain, [Treatment()] * 3, slice(0, 20))
    assert (part.place, part.array, statistics) == (slice(0, 20), 0, [])
    found, statistics = parts(LAYOUT, [Treatment()] * 6, slice(2, SIZE))
    assert [(part.place, part.array) for part in found] == [(slice(0, 18), 0), (slice(22, 32), 4)]
    assert statistics == [slice(18, 22)]


def test_a_frozen_array_stays_and_the_others_learn(tmp_path: Path) -> None:
    data = load_once(write_data(tmp_path / "data.npz"))
    model = mlp_for(data, HIDDEN)
    before = views(model.layout, model.initial_params(generator(CONFIG.seed, Purpose.PARAMS)))
    trained = train(tmp_path / "data.npz", None, freeze=("layers.0.*",))
    found = views(model.layout, np.asarray(trained.params))
    same = {name: array.tobytes() == before[name].tobytes() for name, array in found.items()}
    assert same == {name: name.startswith("layers.0.") for name in found}


def test_the_line_a_file_and_a_variable_say_the_same(quick: Start, tmp_path: Path) -> None:
    write_data(tmp_path / "data.npz")
    settings = [
        "--steps",
        "2",
        "--hidden",
        "4",
        "--weight-decay",
        "0.1",
        "--schedule",
        "polynomial",
    ]
    settings += ["--power", "2", "--min-learning-rate", "0.001"]
    (tmp_path / "a.toml").write_text(
        'no-decay = ["bias", "layers.1.*"]\nlearning-rate-of = "bias=0.1"\nfreeze = []\n'
    )
    variables = {"DPTRAIN_NO_DECAY": "bias,layers.1.*", "DPTRAIN_LEARNING_RATE_OF": "bias=0.1"}
    line = ["--no-decay", "bias", "--no-decay", "layers.1.*", "--learning-rate-of", "bias=0.1"]
    for number, (options, env) in enumerate(
        [(line, {}), (["--config", "a.toml"], {}), ([], variables), ([], {})]
    ):
        out = f"run{number}"
        done = quick("train", "data.npz", *settings, *options, "--out", out, env=env)
        assert done.status == 0, done.stderr
        assert ("no weight decay: 3 arrays, layers.0.bias, layers.1.weight, layers.1.bias"
                in done.stderr) == (number < 3)  # fmt: skip
    receipts = [(tmp_path / f"run{n}" / "receipt.jsonl").read_bytes() for n in range(4)]
    assert receipts[0] == receipts[1] == receipts[2] != receipts[3]
    settings_of = json.loads(receipts[0].splitlines()[0])["settings"]
    assert settings_of["no-decay"] == ["bias", "layers.1.*"]
    assert settings_of["freeze"] == []


def test_a_pattern_that_fits_nothing_ends_the_run_before_it_begins(mistake: Mistake) -> None:
    mistake("train", "--freeze", "layer.0.*",
            words=r"freeze is 'layer.0.\*', which fits no array; valid: layers.0.weight, .*"
            "did you mean 'layers.0.")  # fmt: skip
    mistake("train", "--learning-rate-of", "bias", words="learning-rate-of is 'bias'; give")
