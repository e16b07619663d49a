"""Shows that each rule is its formula, in the right order, whatever slice of the vector it gets."""

import itertools
import math
from collections.abc import Callable
from typing import Any, get_args
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from owners import Owners

from dptrain.arrays import CACHED, Kind, Param, views
from dptrain.config import DType, Rule, TrainConfig
from dptrain.optim import optimizer as module
from dptrain.optim.make import make_optimizer
from dptrain.optim.named import Part
from dptrain.optim.optimizer import Optimizer
from dptrain.optim.rules import ClipValue, Momentum, Transform, WeightDecay
from dptrain.optim.schedule import learning_rate
from dptrain.reduce.layout import BLOCK, block_slices
from dptrain.reduce.segments import Segments
from dptrain.words import InputError

Vector = NDArray[np.float64]
Steps = list[Vector]

RULES: tuple[Rule, ...] = get_args(Rule)
DTYPES: tuple[DType, ...] = get_args(DType)

PLAIN: tuple[Rule, ...] = RULES[: RULES.index("lars")]
"""Those that treat all arrays alike."""

plain_rules = pytest.mark.parametrize("rule", PLAIN)
every_rule = pytest.mark.parametrize("rule", RULES)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def optimizer(config: TrainConfig, size: int, dtype: DType = "float64") -> Optimizer:
    """Return the optimizer of a model of one array."""
    layout, whole = [Param("w", (size,))], slice(0, size)
    segments = Segments(layout)

    def measure(vector: Any) -> list[float]:
        return segments.square_norms(segments.square_sums(vector, whole))

    return make_optimizer(config, layout, whole, learning_rate(config, 1), dtype, measure)


def one_step(config: TrainConfig, params: list[float], gradient: list[float]) -> list[float]:
    """Return the parameters after the first step."""
    after, update = np.array(params, np.float64), np.array(gradient, np.float64)
    norm = float(np.linalg.norm(update))
    optimizer(config, len(after)).update(after, update, 0, norm, 1.0)
    return [float(value) for value in after]


# ---- the rules, against references that keep the whole history and no state


def weighted(history: Steps, factor: float) -> Vector:
    """Return the sum of factor^age * vector over the history, the last one's age being 0."""
    total = np.zeros_like(history[-1])
    for age, vector in enumerate(reversed(history)):
        total = total + factor**age * vector
    return total


def corrected_mean(history: Steps, beta: float) -> Vector:
    """Return the running mean that starts at 0, divided by what corrects for that."""
    return (1 - beta) * weighted(history, beta) / (1 - beta ** len(history))


def squares(history: Steps) -> Steps:
    return [v**2 for v in history]


def sgd(g: Steps) -> Vector:
    return g[-1]


def momentum(g: Steps) -> Vector:
    return weighted(g, 0.8)


def nesterov(g: Steps) -> Vector:
    return g[-1] + 0.8 * weighted(g, 0.8)


def adam(g: Steps) -> Vector:
    return corrected_mean(g, 0.9) / (np.sqrt(corrected_mean(squares(g), 0.999)) + 1e-8)


def rmsprop(g: Steps) -> Vector:
    return g[-1] / (np.sqrt(0.01 * weighted(squares(g), 0.99)) + 1e-8)


REFERENCE: dict[Rule, Callable[[Steps], Vector]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adam,
    "rmsprop": rmsprop,
}


@plain_rules
@both_dtypes
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_rule_is_its_formula(rule: Rule, dtype: DType, decay: float) -> None:
    config = TrainConfig(optimizer=rule, learning_rate=0.05, momentum=0.8, weight_decay=decay)
    rng = np.random.default_rng(0)
    params = rng.normal(size=50).astype(dtype)
    expected = params.astype(np.float64)
    tested = optimizer(config, 50, dtype)
    history: Steps = []
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for step in range(6):
        gradient = rng.normal(size=50).astype(dtype)
        gradient[:5] = 0  # such as a dead unit's: never 0 / 0
        gradient[5:10] *= 1e-7  # small enough for epsilon to show
        penalty = decay * expected
        history.append(gradient.astype(np.float64) + (0 if rule == "adamw" else penalty))
        update = REFERENCE[rule](history) + (penalty if rule == "adamw" else 0)
        expected = expected - 0.05 * update
        tested.update(params, gradient, step, math.nan, 1.0)
        np.testing.assert_allclose(params, expected, rtol=tolerance, atol=tolerance)
    assert params.dtype == dtype
    assert all(state.dtype == dtype for state in tested.state)


def lars(w: Any, gradients: list[Any], kind: Kind) -> Any:
    """Return an array after LARS's steps, by its formula; the rate is 0.5, the decay 0.2."""
    velocity = np.zeros_like(w)
    for g in gradients:
        local = 0.001 * norm_of(w) / (norm_of(g) + 0.2 * norm_of(w))
        trust = local if kind == "weight" and norm_of(w) > 0 < norm_of(g) else 1.0
        velocity = 0.8 * velocity + trust * (g + 0.2 * w)
        w = w - 0.5 * velocity
    return w


def lamb(w: Any, gradients: list[Any], kind: Kind) -> Any:
    """Return an array after LAMB's steps, by its formula; the rate is 0.5, the decay 0.2."""
    for step in range(1, len(gradients) + 1):
        g = gradients[:step]
        update = corrected_mean(g, 0.9) / (np.sqrt(corrected_mean(squares(g), 0.999)) + 1e-6)
        update = update + 0.2 * w
        trusts = kind == "weight" and norm_of(w) > 0 < norm_of(update)
        w = w - 0.5 * (norm_of(w) / norm_of(update) if trusts else 1.0) * update
    return w


def norm_of(vector: Vector) -> float:
    return math.sqrt(math.fsum(vector**2))


@pytest.mark.parametrize(("rule", "formula"), [("lars", lars), ("lamb", lamb)])
def test_lars_and_lamb_are_their_formulas_array_by_array(
    rule: Rule, formula: Callable[[Any, list[Any], Kind], Any]
) -> None:
    """Arrays that span slices, one that starts at 0, one of no gradient; biases are not scaled."""
    layout = [
        Param("weight", (2500,)), Param("bias", (30,), "bias"), Param("scale", (30,), "norm"),
        Param("zero", (700,)), Param("dead", (40,)),
    ]  # fmt: skip
    size = sum(param.size for param in layout)
    config = TrainConfig(optimizer=rule, momentum=0.8, weight_decay=0.2)
    rng = np.random.default_rng(3)
    params, steps = rng.normal(size=size), list(rng.normal(size=(4, size)))
    views(layout, params)["zero"][:] = 0
    for gradient in steps:
        views(layout, gradient)["dead"][:] = 0
    start = params.copy()
    owners = Owners(config, layout, block_slices(0, size, 3), "float64", lambda _: 0.5)
    for step, gradient in enumerate(steps):
        assert owners.update(params, gradient * 7, step, math.nan, 7.0) == [None] * 3
    owners.close()
    for param in layout:
        own = [views(layout, gradient)[param.name] for gradient in steps]
        expected = formula(views(layout, start)[param.name], own, param.kind)
        np.testing.assert_allclose(
            views(layout, params)[param.name], expected, rtol=1e-12, atol=1e-13, err_msg=param.name
        )


@pytest.mark.parametrize(("size", "gradient"), [(1e200, 1e160), (1.0, 1e160), (1e200, 1.0)])
@pytest.mark.parametrize("rule", ["lars", "lamb"])
def test_a_norm_that_overflows_is_found_not_taken_for_infinity(
    rule: Rule, size: float, gradient: float
) -> None:
    """What is divided by infinity is 0, and the array would stay where it is, without a word."""
    tested = optimizer(TrainConfig(optimizer=rule, weight_decay=0.5), 4)
    with np.errstate(all="ignore"):
        assert tested.update(np.full(4, size), np.full(4, gradient), 0, math.nan, 1.0) == 0


def test_nesterov_is_momentum_that_looks_ahead() -> None:
    """In Sutskever's form the gradient is taken where the momentum leads: the same points."""
    config = TrainConfig(optimizer="nesterov", learning_rate=0.1, momentum=0.8)
    curvature = np.array([0.5, 1.0, 3.0])
    params = np.array([1.0, -2.0, 3.0])
    tested = optimizer(config, 3)
    place, velocity = params.copy(), np.zeros(3)
    for step in range(8):
        ahead = place + 0.8 * velocity
        np.testing.assert_allclose(params, ahead, rtol=1e-12, atol=1e-14)
        velocity = 0.8 * velocity - 0.1 * curvature * ahead
        place = place + velocity
        tested.update(params, curvature * params, step, math.nan, 1.0)


def test_first_step_of_adam_is_the_learning_rate_against_the_gradients_sign() -> None:
    config = TrainConfig(optimizer="adam", learning_rate=0.25)
    assert one_step(config, [1, 1, 1], [1e3, -1e-3, 0]) == pytest.approx([0.75, 1.25, 1], rel=1e-5)


@every_rule
@both_dtypes
def test_rule_minimises_a_quadratic(rule: Rule, dtype: DType) -> None:
    rate = 10.0 if rule == "lars" else 0.05
    config = TrainConfig(optimizer=rule, learning_rate=rate, epochs=600, schedule="cosine")
    curvature = np.array([0.5, 1, 2, 4], dtype)
    goal = np.array([1, -1, 0.5, 2], dtype)
    params = np.zeros(4, dtype)
    tested = optimizer(config, 4, dtype)
    for step in range(600):
        tested.update(params, curvature * (params - goal), step, math.nan, 1.0)
    np.testing.assert_allclose(params, goal, atol=0.01)


# ---- slices

FEW = 4 * BLOCK
"""So many entries are updated at a time here, in place of CACHED: so that vectors can be short."""


def bytes_by_slices(config: TrainConfig, dtype: DType, size: int, slices: list[slice]) -> bytes:
    """Return parameters and state after 3 steps, each slice updated by an optimizer of its own."""
    rng = np.random.default_rng(1)
    params = rng.normal(size=size).astype(dtype)
    layout = [Param("w", (size,))]
    owners = Owners(config, layout, slices, dtype, learning_rate(config, 1))
    for step in range(3):
        gradient = rng.normal(0, 3, size).astype(dtype)
        norm = float(np.linalg.norm(gradient.astype(np.float64)))
        owners.update(params, gradient, step, norm)
    owners.close()
    return b"".join(v.tobytes() for v in (params, *owners.state()))


@every_rule
@both_dtypes
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    cuts=st.sets(st.integers(1, 2 * FEW // BLOCK + 2), max_size=6),
    ranks=st.integers(2, 14),
    tail=st.integers(1, BLOCK),
)
def test_update_has_the_same_bytes_however_the_vector_is_cut(
    rule: Rule, dtype: DType, cuts: set[int], ranks: int, tail: int
) -> None:
    config = TrainConfig(
        optimizer=rule, weight_decay=0.1, clip_norm=50.0, clip_value=0.7, warmup=2, epochs=9
    )
    size = 2 * FEW + 2 * BLOCK + tail
    edges = [0, *sorted(BLOCK * cut for cut in cuts), size]
    slices = [slice(a, b) for a, b in itertools.pairwise(edges)]
    with mock.patch.object(module, "CACHED", FEW):
        whole = bytes_by_slices(config, dtype, size, [slice(0, size)])
        assert bytes_by_slices(config, dtype, size, slices) == whole
        # as the ranks own them, some of them none
        assert bytes_by_slices(config, dtype, size, block_slices(0, size, ranks)) == whole


def test_every_entry_is_updated_once_across_cached_blocks() -> None:
    size = 2 * CACHED + 3
    params, gradient = np.zeros(size), np.arange(1.0, size + 1)
    optimizer(TrainConfig(optimizer="sgd", learning_rate=0.5), size).update(
        params, gradient, 0, math.nan, 1.0
    )
    np.testing.assert_array_equal(params, -0.5 * np.arange(1, size + 1))


# ---- what is not finite


@every_rule
@pytest.mark.parametrize("clip", [{}, {"clip_value": 0.5}, {"clip_norm": 0.5}], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_found_at_its_first_entry(
    rule: Rule, clip: dict[str, Any], value: float
) -> None:
    size = CACHED + 9
    params, gradient = np.zeros(size, np.float32), np.ones(size, np.float32)
    tested = optimizer(TrainConfig(optimizer=rule, weight_decay=0.1, **clip), size, "float32")
    assert tested.update(params, gradient, 0, math.sqrt(size), 1.0) is None
    gradient[CACHED + 3 :: 2] = value
    with np.errstate(invalid="ignore"):
        assert tested.update(params, gradient, 1, abs(value), 1.0) == CACHED + 3


@pytest.mark.parametrize("rule", ["adam", "adamw", "rmsprop"])
def test_a_square_that_overflows_is_found(rule: Rule) -> None:
    """The entry would never move again: anything over infinity is 0."""
    tested = optimizer(TrainConfig(optimizer=rule), 3, "float32")
    gradient = np.array([1, 2e19, 1], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(3):
            found = tested.update(np.ones(3, np.float32), gradient, step, math.nan, 1.0)
            assert found == (1 if np.isinf(tested.state[0][-1]).any() else None)
            gradient[1] *= 10
    assert found == 1


@plain_rules
def test_parameters_that_overflow_are_found_and_large_ones_are_not(rule: Rule) -> None:
    large = TrainConfig(optimizer=rule, learning_rate=1e18)
    params, gradient = np.full(5, 1e25, np.float32), np.full(5, 1e15, np.float32)
    tested = optimizer(large, 5, "float32")
    with np.errstate(over="ignore"):
        for step in range(3):
            assert tested.update(params, gradient, step, math.nan, 1.0) is None
    assert np.abs(params).max() > 1e20  # squares of these do overflow
    endless = optimizer(TrainConfig(optimizer=rule, learning_rate=1e300), 5, "float32")
    with np.errstate(over="ignore", invalid="ignore"):
        assert endless.update(params, gradient, 0, math.nan, 1.0) == 0


def test_a_norm_that_overflows_does_not_make_the_update_zero() -> None:
    params = np.ones(2)
    tested = optimizer(TrainConfig(clip_norm=1.0, optimizer="sgd"), 2)
    assert tested.update(params, np.full(2, 1e200), 0, math.inf, 1.0) == 0


# ---- clipping and the order of the pieces


def test_what_follows_momentum_leaves_its_velocity_alone() -> None:
    pieces: list[Transform] = [Momentum(0.5), WeightDecay(0.5), ClipValue(0.1)]
    tested = Optimizer(pieces, lambda _: 0.1, 2, np.float64, [Part(slice(0, 2), 0)])
    for step in range(2):
        tested.update(np.array([4.0, 8.0]), np.ones(2), step, math.nan, 1.0)
    assert tested.state[0].tolist() == [[0.75, 0.75]]  # half of it


SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1.0}


def test_clip_by_norm_scales_the_whole_gradient_to_the_limit() -> None:
    after = one_step(TrainConfig(clip_norm=2.5, **SGD), [0, 0], [3, -4])
    assert after == pytest.approx([-1.5, 2], rel=1e-15)


@pytest.mark.parametrize("limit", [5.0, 6.0])
def test_clip_by_norm_leaves_a_gradient_up_to_the_limit(limit: float) -> None:
    assert one_step(TrainConfig(clip_norm=limit, **SGD), [0, 0], [3, -4]) == [-3, 4]


def test_clip_by_norm_goes_by_the_whole_vectors_norm_not_the_slices() -> None:
    params = np.zeros(1)
    tested = optimizer(TrainConfig(clip_norm=1.0, **SGD), 1)
    tested.update(params, np.array([3.0]), 0, 5.0, 1.0)
    assert params.tolist() == pytest.approx([-0.6], rel=1e-15)


def test_clip_by_value_cuts_each_entry() -> None:
    after = one_step(TrainConfig(clip_value=0.5, **SGD), [0, 0, 0], [0.25, 3, -4])
    assert after == [-0.25, -0.5, 0.5]


def test_clip_by_norm_comes_before_clip_by_value() -> None:
    after = one_step(TrainConfig(clip_norm=1.0, clip_value=0.7, **SGD), [0, 0], [3, 4])
    assert after == pytest.approx([-0.6, -0.7], rel=1e-15)


def test_clip_comes_before_decay() -> None:
    by_value = TrainConfig(clip_value=0.5, weight_decay=0.25, **SGD)
    assert one_step(by_value, [4, 4], [3, -3]) == [4 - (0.5 + 1), 4 - (-0.5 + 1)]
    by_norm = TrainConfig(clip_norm=0.5, weight_decay=0.25, **SGD)
    assert one_step(by_norm, [4], [3]) == [4 - (0.5 + 1)]


def test_clip_comes_before_the_rule() -> None:
    config = TrainConfig(optimizer="momentum", learning_rate=1, momentum=0.5, clip_value=1)
    params = np.zeros(1)
    tested = optimizer(config, 1)
    for step in range(2):
        tested.update(params, np.array([10.0]), step, math.nan, 1.0)
    # velocities 1 and 1.5; were the update cut in place of the gradient, they would be 1 and 1
    assert params.tolist() == [-2.5]


@pytest.mark.parametrize("rule", ["momentum", "nesterov", "adam", "rmsprop"])
def test_decay_comes_before_the_rule_as_a_penalty(rule: Rule) -> None:
    decayed, penalised = np.array([4.0, -2.0]), np.array([4.0, -2.0])
    first = optimizer(TrainConfig(optimizer=rule, weight_decay=0.5), 2)
    second = optimizer(TrainConfig(optimizer=rule), 2)
    for step in range(3):
        first.update(decayed, np.array([1.0, 1.0]), step, math.nan, 1.0)
        second.update(penalised, 1.0 + 0.5 * penalised, step, math.nan, 1.0)
    assert decayed.tobytes() == penalised.tobytes()


def test_decay_of_adam_is_normalised_and_that_of_adamw_is_not() -> None:
    settings: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.01}
    # no gradient but the penalty's: adam takes a full step whatever the decay is
    adam_after = one_step(TrainConfig(optimizer="adam", **settings), [4, -2], [0, 0])
    assert adam_after == pytest.approx([3.9, -1.9], rel=1e-5)
    adamw_after = one_step(TrainConfig(optimizer="adamw", **settings), [4, -2], [0, 0])
    assert adamw_after == pytest.approx([4 * (1 - 0.001), -2 * (1 - 0.001)], rel=1e-15)


def test_decay_of_adamw_leaves_the_moments_alone() -> None:
    with_decay = optimizer(TrainConfig(optimizer="adamw", weight_decay=0.5), 2)
    without = optimizer(TrainConfig(optimizer="adamw"), 2)
    for step in range(3):
        for tested in (with_decay, without):
            tested.update(np.array([4.0, -2.0]), np.array([1.0, -3.0]), step, math.nan, 1.0)
    assert with_decay.state[0].tobytes() == without.state[0].tobytes()


# ---- schedules

FULL = 0.5
"""The learning rate of the tables below, exact in binary."""


def cosine(share: float) -> float:
    return FULL * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("options", "steps_per_epoch", "expected"),
    [
        ({"epochs": 4}, 5, {0: FULL, 7: FULL, 19: FULL}),
        (
            {"schedule": "step", "epochs": 6, "decay_epochs": 2, "decay_factor": 0.25},
            5,
            {0: FULL, 9: FULL, 10: FULL / 4, 19: FULL / 4, 20: FULL / 16, 29: FULL / 16},
        ),
        (
            {"schedule": "step", "epochs": 30},
            3,
            {29: FULL, 30: FULL / 10, 59: FULL / 10, 60: FULL / 100, 89: FULL / 100},
        ),
        (
            {"schedule": "cosine", "epochs": 4},
            5,
            {0: FULL, 5: cosine(1 / 4), 10: FULL / 2, 15: cosine(3 / 4), 19: cosine(19 / 20)},
        ),
        ({"schedule": "cosine"}, 15, {0: FULL, 225: FULL / 2, 449: cosine(449 / 450)}),
        ({"schedule": "cosine", "steps": 8}, 5, {0: FULL, 4: FULL / 2, 7: cosine(7 / 8)}),
        ({"warmup": 4}, 5, {0: FULL / 4, 1: FULL / 2, 2: 3 * FULL / 4, 3: FULL, 4: FULL, 9: FULL}),
        ({"warmup": 1}, 5, {0: FULL, 1: FULL}),
        (
            {"schedule": "cosine", "steps": 24, "warmup": 4},
            5,
            {0: FULL / 4, 3: FULL, 4: FULL, 9: cosine(1 / 4), 14: FULL / 2, 23: cosine(19 / 20)},
        ),
        (
            {"schedule": "step", "steps": 20, "warmup": 3, "decay_epochs": 1, "decay_factor": 0.5},
            5,
            {0: FULL / 3, 2: FULL, 7: FULL, 8: FULL / 2, 12: FULL / 2, 13: FULL / 4},
        ),
        ({"schedule": "cosine", "steps": 3, "warmup": 8}, 5, {0: FULL / 8, 2: 3 * FULL / 8}),
        (
            {"schedule": "cosine", "steps": 8, "min_learning_rate": 0.25},
            5,
            {0: FULL, 2: 0.25 + cosine(1 / 4) / 2, 4: 0.375, 6: 0.25 + cosine(3 / 4) / 2},
        ),
        ({"schedule": "polynomial", "epochs": 4}, 5, {0: FULL, 5: 0.375, 15: 0.125, 19: 0.025}),
        (
            {"schedule": "polynomial", "steps": 10, "power": 2.0, "min_learning_rate": 0.1},
            5,
            {0: FULL, 5: 0.1 + 0.4 / 4, 9: 0.1 + 0.4 / 100},
        ),
        (
            {"schedule": "one-cycle", "steps": 100},
            5,
            {0: FULL / 25, 15: FULL * 0.52, 30: FULL, 65: FULL / 2, 99: cosine(69 / 70)},
        ),
        (
            {"schedule": "one-cycle", "steps": 100, "min_learning_rate": 0.125},
            5,
            {0: FULL / 25, 10: FULL * (0.04 + 0.96 / 4), 30: FULL, 65: 0.3125},
        ),
    ],
    ids=[
        "constant",
        "step",
        "step by default",
        "cosine",
        "cosine by default",
        "cosine by steps",
        "warm-up",
        "warm-up of one step",
        "warm-up and cosine",
        "warm-up and step",
        "warm-up longer than the run",
        "cosine that ends above 0",
        "polynomial",
        "polynomial of the second degree that ends above 0",
        "one-cycle",
        "one-cycle that ends above 0",
    ],
)
def test_schedule_gives_these_learning_rates(
    options: dict[str, Any], steps_per_epoch: int, expected: dict[int, float]
) -> None:
    config = TrainConfig(learning_rate=FULL, **options)
    rate = learning_rate(config, steps_per_epoch)
    assert {step: rate(step) for step in expected} == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(steps=st.integers(2, 200), data=st.data())
def test_cosine_falls_from_the_full_rate_to_almost_nothing(steps: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, steps - 2))
    config = TrainConfig(learning_rate=FULL, schedule="cosine", steps=steps, warmup=warmup)
    rate = learning_rate(config, 7)
    rates = [rate(step) for step in range(steps)]
    rise, fall = rates[:warmup], rates[warmup:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)
    assert max(rates) == fall[0] == FULL
    assert 0 < fall[-1] < FULL * 2.5 / len(fall) ** 2  # 1 + cos(pi - x) is x^2 / 2 at the most


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_learning_rate": 0.6}, "min-learning-rate is 0.6, above the learning-rate, 0.5"),
        ({"schedule": "one-cycle", "warmup": 3}, "warmup is 3; one-cycle rises by itself"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainConfig(learning_rate=FULL, **options)


def test_update_takes_the_rate_of_its_step() -> None:
    config = TrainConfig(optimizer="sgd", learning_rate=FULL, warmup=4)
    params = np.zeros(1)
    tested = optimizer(config, 1)
    for step in (0, 1, 3):
        tested.update(params, np.array([1.0]), step, math.nan, 1.0)
    assert params.tolist() == [-(FULL / 4 + FULL / 2 + FULL)]
