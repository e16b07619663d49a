"""Shows that minibatches partition the epoch, shards the minibatch, and ranks the shards."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dptrain.keys import Purpose, generator, permutation
from dptrain.order import Order
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


@given(n=SIZES, m=SIZES, v=st.integers(1, 40), p=st.integers(1, 12), epoch=st.integers(0, 3))
def test_every_example_is_computed_once_an_epoch(
    n: int, m: int, v: int, p: int, epoch: int
) -> None:
    order = Order(n, m, v, seed=0)
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
    assert permutation(8, 0, Purpose.ORDER, 0).tolist() == [7, 6, 3, 2, 4, 1, 5, 0]


def test_a_shards_random_numbers_are_its_own() -> None:
    first, second = list(Order(6, 3, 2, seed=0).steps(0))
    draws = {float(b.rng(s).random()) for b in (first, second) for s in (0, 1)}
    assert len(draws) == 4
    assert float(first.rng(1).random()) in draws


def test_the_purpose_is_part_of_the_key() -> None:
    draws = [generator(0, purpose, 1).random() for purpose in Purpose]
    assert len(set(draws)) == len(draws)
