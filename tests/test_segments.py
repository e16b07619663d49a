"""Shows that what is computed an array, or for some arrays only, is free of how ranks cut them."""

import functools
import itertools
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from owners import Owners
from tiny import RunningMean

import dptrain
from dptrain import DataConfig, TrainConfig, World
from dptrain.arrays import Kind, Param
from dptrain.config import Reduction, Rule
from dptrain.data.encode import Flat
from dptrain.optim import optimizer
from dptrain.optim.optimizer import Optimizer
from dptrain.reduce import REDUCERS
from dptrain.reduce.layout import BLOCK, block_slices, rank_slices
from dptrain.reduce.segments import Segments
from dptrain.reduce.tree import tree_sum

SIZES = st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=6)
KINDS = st.lists(st.sampled_from(get_args(Kind)), min_size=6, max_size=6)
NODES = st.lists(st.integers(1, 4), min_size=1, max_size=4)
RULES: tuple[Rule, ...] = get_args(Rule)
ARRAYS = st.sets(st.integers(0, 5))


def layout_of(sizes: list[int], kinds: list[Kind] | None = None) -> list[Param]:
    kinds = kinds or ["weight"] * len(sizes)
    named = zip(sizes, kinds, strict=False)
    return [Param(f"a{number}", (size,), kind) for number, (size, kind) in enumerate(named)]


def arrays_in(vector: NDArray[Any], sizes: list[int]) -> list[NDArray[Any]]:
    return np.split(vector, np.cumsum(sizes)[:-1])


def random(size: int, dtype: Any = "float64") -> NDArray[Any]:
    """Return numbers of very different sizes, whose sum shows every change of order."""
    rng = np.random.default_rng(size)
    return (rng.standard_normal(size) * 10.0 ** rng.integers(-4, 5, size)).astype(dtype)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes=SIZES, nodes=NODES, dtype=st.sampled_from(["float32", "float64"]))
def test_square_norms_of_arrays_are_exact_and_the_same_bytes_on_any_ranks(
    sizes: list[int], nodes: list[int], dtype: str
) -> None:
    vector, segments = random(sum(sizes), dtype), Segments(layout_of(sizes))
    alone = segments.square_sums(vector, slice(0, len(vector)))
    norms = segments.square_norms(alone)
    exact = [math.fsum(float(v) ** 2 for v in array) for array in arrays_in(vector, sizes)]
    np.testing.assert_allclose(norms, exact, rtol=1e-12)
    stops = np.cumsum(nodes).tolist()
    ranks = [range(stop - size, stop) for stop, size in zip(stops, nodes, strict=True)]
    sums = np.full_like(alone, np.nan)
    for part in rank_slices(len(vector), ranks):
        own = segments.within(part)
        sums[own.start : own.stop] = segments.square_sums(vector[part], part)
    assert sums.tobytes() == alone.tobytes()
    assert segments.square_norm(vector) == tree_sum(norms)


def test_segments_are_blocks_of_1024_cut_where_arrays_end() -> None:
    """The number is part of what decides a run's bytes."""
    sizes = [1000, 0, 24, 1025, 5000]
    vector, segments = random(sum(sizes)), Segments(layout_of(sizes))
    stops = [1000, 1024, 2048, 2049, 3072, 4096, 5120, 6144, 7049]
    pieces = [vector[start:stop] for start, stop in itertools.pairwise([0, *stops])]
    expected = [math.fsum(float(value) ** 2 for value in piece) for piece in pieces]
    sums = segments.square_sums(vector, slice(0, 7049))
    np.testing.assert_allclose(sums, expected, rtol=1e-13)
    sums[4:] = 1e16, 1, 1, 1, 1  # of which another order makes another number
    one, none, two, three, four = segments.square_norms(sums)
    assert (one, none, two) == (sums[0], 0, sums[1])
    assert three == sums[2] + sums[3]
    assert four == ((sums[4] + sums[5]) + (sums[6] + sums[7])) + sums[8]
    assert segments.total([one, none, two, three, four]) == ((one + none) + (two + three)) + four


def test_a_statistic_counts_in_no_norm() -> None:
    sizes = [30, 2000, 7]
    vector, layout = random(sum(sizes)), layout_of(sizes, ["weight", "statistic", "bias"])
    first, _, last = arrays_in(vector, sizes)
    expected = math.fsum(float(v) ** 2 for v in (*first, *last))
    assert Segments(layout).square_norm(vector) == pytest.approx(expected, rel=1e-13)
    assert Segments(layout[1:2]).square_norm(vector[30:2030]) == 0


@pytest.mark.parametrize("name", REDUCERS)
def test_a_reducers_norm_is_the_root_of_the_sum_of_squares(name: Reduction) -> None:
    reducer = REDUCERS[name](World(), 3000, 1, "float32")
    gradient = random(3000, "float32")
    exact = math.sqrt(math.fsum(float(value) ** 2 for value in gradient))
    assert reducer.norm(gradient, Segments(layout_of([1300, 1700]))) == pytest.approx(exact, 1e-13)
    reducer.close()


# ---- the update of a vector that holds statistics


def updated(
    rule: Rule,
    layout: list[Param],
    slices: list[slice],
    weight_sums: tuple[float, ...] = (7, 5, 3),
    **named: Any,
) -> tuple[bytes, NDArray[Any]]:
    """Return the bytes of parameters and state after steps by one owner a slice, and the former."""
    size = sum(param.size for param in layout)
    rng = np.random.default_rng(2)
    params = rng.standard_normal(size).astype(np.float32)
    config = TrainConfig(
        optimizer=rule, weight_decay=0.1, clip_value=0.5, learning_rate=0.25, **named
    )
    owners = Owners(config, layout, slices, "float32")
    for step, weight_sum in enumerate(weight_sums):
        gradient = rng.standard_normal(size).astype(np.float32) * bool(weight_sum)
        assert {*owners.update(params, gradient, step, math.nan, weight_sum)} == {None}
    owners.close()
    return b"".join(array.tobytes() for array in (params, *owners.state())), params


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    sizes=SIZES,
    kinds=KINDS,
    cuts=st.sets(st.integers(1, 17), max_size=5),
    ranks=st.integers(1, 9),
    named=st.fixed_dictionaries(dict.fromkeys(["no_decay", "freeze", "learning_rate_of"], ARRAYS)),
)
def test_any_cut_of_the_vector_gives_the_same_bytes(
    rule: Rule,
    sizes: list[int],
    kinds: list[Kind],
    cuts: set[int],
    ranks: int,
    named: dict[str, set[int]],
) -> None:
    layout, size = layout_of(sizes, kinds), sum(sizes)
    chosen: dict[str, Any] = {
        key: [f"a{n}" for n in each if n < len(sizes)] for key, each in named.items()
    }
    chosen["learning_rate_of"] = [f"{name}=0.01" for name in chosen["learning_rate_of"]]
    assume(any(p.kind != "statistic" and p.name not in chosen["freeze"] for p in layout))
    run = functools.partial(updated, rule, layout, **chosen)
    whole, _ = run(slices=[slice(0, size)])
    edges = [0, *sorted(BLOCK * cut for cut in cuts if BLOCK * cut < size), size]
    slices = [slice(a, b) for a, b in itertools.pairwise(edges)]
    assert run(slices=slices)[0] == whole
    assert run(slices=block_slices(0, size, ranks))[0] == whole


@pytest.mark.parametrize("rule", RULES)
def test_a_statistic_is_the_minibatchs_mean_and_no_rule_touches_it(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "CACHED", 4)  # so that blocks end before it, in it and after it
    sizes = [10, 7, 10]
    layout = layout_of(sizes, ["weight", "statistic", "weight"])
    plain = layout_of(sizes)
    rng = np.random.default_rng(2)
    start, gradient = rng.standard_normal((2, 27)).astype(np.float32)
    (first, own, last), (before, _, after) = (
        arrays_in(updated(rule, each, [slice(0, 27)], (7,))[1], sizes) for each in (layout, plain)
    )
    assert own.tobytes() == (gradient[10:17] / np.float32(7)).tobytes()
    assert (first.tobytes(), last.tobytes()) == (before.tobytes(), after.tobytes())
    _, params = updated(rule, layout, [slice(0, 27)], (0,))
    assert params[10:17].tobytes() == start[10:17].tobytes()  # where nothing weighs anything


def test_a_statistic_that_is_not_finite_is_found() -> None:
    tested = Optimizer([], lambda _: 0.1, 5, "float32", [], [slice(2, 4)])
    params, gradient = np.ones((2, 5), np.float32)
    gradient[3] = math.inf
    assert tested.update(params, gradient, 0, math.nan, 1.0) == 3


def test_a_running_mean_is_the_weighted_mean_of_the_shards() -> None:
    """Uneven shards count by their examples: the mean of their means is another number."""
    data = dptrain.load(config=DataConfig(scale="none"), world=World())
    config = TrainConfig(shards=7, batch_size=250, steps=3, clip_norm=0.5, optimizer="adam")
    model = RunningMean([64, 10], dtype="float64")
    trained = dptrain.fit(model, data, config, world=World())
    expected = np.zeros(64)
    x = data.train.gather(slice(0, len(data.train)), Flat(np.float64))[0]
    order = dptrain.order.Order(len(x), 250, 7, config.seed)
    for batch in itertools.islice(order.steps(0), 3):
        expected = 0.9 * expected + 0.1 * x[batch.rows].mean(axis=0)
    np.testing.assert_allclose(trained.params[-64:], expected, rtol=1e-12)
