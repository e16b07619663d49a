"""Shows that minibatches partition the epoch, shards the minibatch, and ranks the shards."""

import functools
import itertools
import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dptrain import order
from dptrain.config.names import Shuffle
from dptrain.data.split import HeldOut, Kept
from dptrain.keys import Permutation, Purpose, draw_below, generator
from dptrain.order import Blocks, Order
from dptrain.world import World, cut

SIZES = st.integers(1, 200)


@given(n=st.integers(0, 300), parts=SIZES)
def test_pieces_of_a_cut_are_contiguous_and_at_most_one_apart(n: int, parts: int) -> None:
    pieces = [cut(n, parts, part) for part in range(parts)]
    assert [number for piece in pieces for number in piece] == list(range(n))
    sizes = {len(piece) for piece in pieces}
    assert max(sizes) - min(sizes) <= 1


class FakeWorld(World):
    """A rank among others, without MPI: which shards it holds is arithmetic."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size = rank, size


KINDS: list[Shuffle] = [*get_args(Shuffle)]


@given(
    n=SIZES,
    m=SIZES,
    v=st.integers(1, 40),
    p=st.integers(1, 12),
    epoch=st.integers(0, 3),
    shuffle=st.sampled_from(KINDS),
)
def test_every_example_is_computed_once_an_epoch(
    n: int, m: int, v: int, p: int, epoch: int, shuffle: Shuffle
) -> None:
    order = Order(n, m, v, 0, shuffle)
    batches = list(order.steps(epoch))
    assert len(batches) == order.steps_per_epoch
    assert [batch.size for batch in batches[:-1]] == [m] * (len(batches) - 1)
    assert 1 <= batches[-1].size <= m
    assert [batch.step for batch in batches] == [
        epoch * len(batches) + number for number in range(len(batches))
    ]
    computed = [
        example
        for batch in batches
        for rank in range(p)
        for shard in FakeWorld(rank, p).mine(v)
        for example in batch.shard(shard)
    ]
    assert sorted(computed) == list(range(n))


@given(m=SIZES, v=st.integers(1, 40))
def test_shards_are_contiguous_in_the_minibatch(m: int, v: int) -> None:
    (batch,) = Order(m, m, v, seed=0).steps(0)
    assert np.array_equal(np.concatenate([batch.shard(s) for s in range(v)]), batch.rows)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def rows(seed: int, epoch: int) -> list[int]:
        order = Order(50, 8, 4, seed)
        return [int(row) for batch in order.steps(epoch) for row in batch.rows]

    assert rows(0, 1) == rows(0, 1)
    assert rows(0, 1) != rows(0, 2)
    assert rows(0, 1) != rows(1, 1)
    assert rows(0, 1) != list(range(50))


def test_an_order_of_today_is_the_order_of_ten_years_hence() -> None:
    """Stored runs depend on these numbers; a new NumPy must not change them."""
    assert Permutation(8, 0, Purpose.ORDER, 0)[:].tolist() == [6, 4, 0, 3, 7, 5, 1, 2]
    assert Permutation(10**10, 0, Purpose.ORDER, 0)[5:7].tolist() == [8442434470, 7295971934]
    assert HeldOut(100, 7, 0)[:].tolist() == [5, 29, 33, 56, 66, 72, 93]


def test_a_shards_random_numbers_are_its_own() -> None:
    first, second = list(Order(6, 3, 2, seed=0).steps(0))
    draws = {float(b.rng(s).random()) for b in (first, second) for s in (0, 1)}
    assert len(draws) == 4
    assert float(first.rng(1).random()) in draws


def test_the_purpose_is_part_of_the_key() -> None:
    draws = [generator(0, purpose, 1).random() for purpose in Purpose]
    assert len(set(draws)) == len(draws)


# ---- an order is a function of the position


@given(n=st.integers(0, 2500), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_a_permutation_has_every_number_once(n: int, seed: int, epoch: int) -> None:
    found = Permutation(n, seed, Purpose.ORDER, epoch)
    assert len(found) == n
    assert sorted(found[:].tolist()) == list(range(n))


@given(n=st.integers(1, 2500), data=st.data())
def test_any_positions_can_be_asked_for(n: int, data: st.DataObject) -> None:
    found = Permutation(n, 1, Purpose.ORDER, 2)
    whole = found[:]
    asked = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=30)), np.intp)
    assert np.array_equal(found[asked], whole[asked])


@pytest.mark.parametrize("shuffle", KINDS)
@pytest.mark.parametrize("size", [256, 5000, 20_000])
def test_an_epoch_goes_on_at_any_step(shuffle: Shuffle, size: int) -> None:
    """However many steps' examples are found at once."""
    order = Order(200_003, size, 3, 4, shuffle)
    whole = list(order.steps(2))
    for done in (0, 1, 7, order.steps_per_epoch - 1):
        first = 2 * order.steps_per_epoch + done
        for found, expected in zip(order.steps(2, first), whole[done:], strict=True):
            assert found.step == expected.step
            assert np.array_equal(found.rows, expected.rows)


@pytest.mark.parametrize("shuffle", KINDS)
def test_ten_thousand_million_examples_need_no_memory(shuffle: Shuffle) -> None:
    num = 10**10
    order = Order(num, 256, 4, 0, shuffle)
    tracemalloc.start()
    for first in (0, 10**6, order.steps_per_epoch - 1):
        batch = next(order.steps(0, first))
        assert batch.step == first
        assert len(np.unique(batch.rows)) == batch.size == 256
        assert 0 <= batch.rows.min() <= batch.rows.max() < num
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


# ---- it looks random: chi-squared of counts, as standard deviations from its mean

Counts = NDArray[Any]


def deviation(counts: Counts, cells: int = 0) -> float:
    """Return how far from equal counts are, of so many degrees of freedom, one less than counts."""
    free = cells or counts.size - 1
    expected = counts.sum() / counts.size
    chi = float(np.square(counts - expected).sum() / expected)
    # Wilson and Hilferty: the cube root is nearly normal
    return float(((chi / free) ** (1 / 3) - 1 + 2 / (9 * free)) / (2 / (9 * free)) ** 0.5)


@functools.cache
def streams(rounds: int) -> NDArray[np.uint64]:
    """Return the words of the first 20,000 epochs' orders, [rounds, epochs, 1]."""
    found = [generator(0, Purpose.ORDER, k).bit_generator.random_raw(rounds) for k in range(20_000)]
    return np.array(found).T[:, :, None]


def orders(num: int, positions: list[int], rounds: int) -> NDArray[np.intp]:
    """Return what stands at some positions in the first epochs, [epochs, positions]."""
    whole = Permutation(num, 0, Purpose.ORDER, 0)
    of_first, words = whole[positions], streams(16)[: rounds or len(whole._draws)]
    draws = zip(itertools.cycle(whole._sides), words)
    whole._draws = [functools.partial(draw_below, *each) for each in draws]
    found = whole[np.tile(positions, (words.shape[1], 1))]  # no number goes through again
    assert rounds or np.array_equal(found[0], of_first)
    return found


def oddest(num: int, rounds: int = 0) -> float:
    """Return the largest deviation of positions and of pairs, over keys."""
    left = np.sqrt(num)
    positions = sorted({0, 1, 2, int(left), int(left) + 1, num // 2, num - 1})
    found = orders(num, positions, rounds)
    seen = [np.bincount(column, minlength=num) for column in found.T]
    for first in range(len(positions)):
        for second in range(first):
            apart = (found[:, first] - found[:, second]) % num
            seen.append(np.bincount(apart, minlength=num)[1:])
    return max(abs(deviation(counts)) for counts in seen)


WHOLE = [12, 90, 1056]
"""Numbers a * b, of which no position goes through the network again."""


@pytest.mark.parametrize("num", WHOLE)
def test_over_the_epochs_positions_are_uniform_and_pairs_unrelated(num: int) -> None:
    assert oddest(num) < 4.5
    assert oddest(num, rounds=4) > 6  # such a test finds what there is to find


def grid(first: Counts, second: Counts) -> Counts:
    """Return how often numbers below 16 come together, [16, 16]."""
    return np.bincount(first * 16 + second, minlength=256)


@pytest.mark.parametrize("num", [60_000, 10**10])
@pytest.mark.parametrize("part", ["high", "low"])
def test_within_an_epoch_neighbours_seeds_and_epochs_are_unrelated(num: int, part: str) -> None:
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    whole = [
        Permutation(num, seed, Purpose.ORDER, epoch)[: min(num, 2**17)] for seed, epoch in keys
    ]
    cells = [rows * 16 // num if part == "high" else rows % 16 for rows in whole]
    seen = [grid(row[:-lag], row[lag:]) for row in cells for lag in (1, 2, 64, 255)]
    seen += [grid(cells[a], cells[b]) for a in range(4) for b in range(a)]
    assert max(abs(deviation(counts)) for counts in seen) < 4.5


def test_minibatches_are_as_even_as_drawn_ones() -> None:
    """Counts of sixteenths of the data in each minibatch, as draws without replacement have."""
    num, size = 10**6, 500
    rows = Permutation(num, 3, Purpose.ORDER, 0)[: 500 * size].reshape(-1, size)
    counts = np.array([np.bincount(row * 16 // num, minlength=16) for row in rows])
    assert abs(deviation(counts, cells=15 * len(counts))) < 4.5


# ---- blocks


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "STRETCH", 4)
    monkeypatch.setattr(order, "STRETCHES", 3)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("num", [*range(1, 15), 23, 24, 25, 131])
def test_blocks_have_every_example_once_wherever_they_are_asked(num: int) -> None:
    found = Blocks(num, 5, 1)
    whole = found[:num]
    assert sorted(whole.tolist()) == list(range(num))
    for start in range(num):
        for stop in {start + 1, min(start + 13, num)}:
            assert np.array_equal(found[start:stop], whole[start:stop])


def stretches(rows: NDArray[np.intp]) -> int:
    """Return from how many places rows come: those less than a stretch apart are one."""
    return 1 + int(np.sum(np.diff(np.sort(rows)) >= order.STRETCH))


def test_a_minibatch_comes_from_64_places_and_a_window_is_read_once() -> None:
    num, window = 10**7, order.STRETCH * order.STRETCHES
    found = Blocks(num, 0, 0)
    first = found[:window]
    assert stretches(first) <= order.STRETCHES
    assert stretches(found[5 * window : 6 * window]) <= order.STRETCHES
    for start in range(0, window, 256 * 16):
        assert 50 <= stretches(found[start : start + 256]) <= order.STRETCHES
    assert np.intersect1d(first, found[window : 2 * window]).size == 0
    assert stretches(found[num - 256 : num]) > 50  # no small rest is left for the end


def test_blocks_are_others_each_epoch_and_of_other_rows() -> None:
    num, window = 10**6, order.STRETCH * order.STRETCHES
    epochs = [Blocks(num, 0, epoch)[:window] for epoch in range(4)]
    shares = [
        len(np.intersect1d(epochs[a], epochs[b])) / window for a in range(4) for b in range(a)
    ]
    assert max(shares) < 3 * window / num
    assert len({Blocks(num, 0, epoch)._begin % order.STRETCH for epoch in range(20)}) > 15


def test_a_window_is_as_mixed_as_can_be() -> None:
    found, num = Blocks(10**7, 2, 0), 10**7
    rows = found[: order.STRETCH * order.STRETCHES]
    numbers = (rows - found._begin) % num // order.STRETCH
    cells = np.unique(numbers, return_inverse=True)[1] * 16 // order.STRETCHES
    seen = [grid(cells[:-lag], cells[lag:]) for lag in (1, 2, 64, 255)]
    assert max(abs(deviation(counts)) for counts in seen) < 4.5


# ---- what is held out


@given(n=st.integers(2, 400), data=st.data(), seed=st.integers(0, 2))
def test_a_row_is_held_out_or_kept(n: int, data: st.DataObject, seed: int) -> None:
    held_out = HeldOut(n, data.draw(st.integers(1, n - 1)), seed)
    kept = Kept(held_out)
    for rows in (held_out, kept):
        assert np.all(np.diff(rows[:]) > 0)
        asked = np.arange(len(rows))[::-2]
        assert np.array_equal(rows[asked], rows[:][asked])
        assert len(rows[:]) == len(rows)
    assert sorted([*held_out[:], *kept[:]]) == list(range(n))


def test_which_rows_are_held_out_is_drawn() -> None:
    counts = np.zeros(60, int)
    neighbours = np.zeros((10, 10), int)
    for seed in range(1000):
        rows = HeldOut(60, 6, seed)[:]
        counts[rows] += 1
        np.add.at(neighbours, (rows[:-1] % 10, rows[1:] % 10), 1)
    assert abs(deviation(counts, cells=54)) < 4
    assert abs(deviation(neighbours)) < 4


def test_of_ten_thousand_million_rows_some_are_held_out_at_once() -> None:
    num, num_held_out = 10**10, 10**9 + 7
    held_out = HeldOut(num, num_held_out, 0)
    kept = Kept(held_out)
    for part, start in ((num_held_out // 3, 3 * num // 10), (num_held_out - 2, num - 30)):
        out = held_out[part : part + 2]
        between = np.arange(out[0] + 1, out[1])
        first = int(out[0]) - part  # so many kept rows stand before it
        assert start - 10 <= out[0] <= start + num // 10
        assert np.array_equal(kept[first : first + len(between)], between)
