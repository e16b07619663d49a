"""Shows that rows read ahead by a thread are those asked for, and that its mistakes are told."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dptrain
from dptrain import DataConfig, InputError, ModelConfig, TrainConfig, World
from dptrain.data import feed
from dptrain.data.feed import Feed
from dptrain.order import Order
from dptrain.reduce.memory import shared_rows

ALONE = World()
NUM = 300
ORDER = Order(NUM, 64, 3, seed=1)
SHARDS = [range(number, number + 1) for number in range(3)]


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two files of which no rows are kept, on a machine with a core to spare."""
    monkeypatch.setattr(feed, "LARGEST_OF_FILES", 0)
    monkeypatch.setattr(feed, "usable_cores", lambda: {0, 1})
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((NUM, 5), np.float32))
    np.save(tmp_path / "y.npy", rng.integers(0, 3, NUM))
    return [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]


def feed_of(data: Any) -> Feed:
    loaded = dptrain.load(data, DataConfig(scale="standard"), world=ALONE)
    model = dptrain.mlp_for(loaded)
    return Feed(loaded.train, model, ALONE, partial(shared_rows, None))


def test_what_is_read_ahead_is_what_is_asked_for(mapped: list[str]) -> None:
    found = feed_of(mapped)
    plain, read = feed_of(mapped), 0
    plain._thread = None
    for batch in found.ahead(ORDER.steps(0), SHARDS):
        for number in range(3):
            rows = batch.shard(number)
            read += rows.tobytes() in found._read
            for a, b in zip(found[rows], plain[rows], strict=True):
                assert (a is None) == (b is None)
                assert a is None or b is None or np.array_equal(a, b)
    assert read == 3 * (ORDER.steps_per_epoch - 1)
    assert not found._read


def test_nothing_is_left_of_an_epoch_that_ended_early(mapped: list[str]) -> None:
    found = feed_of(mapped)
    next(iter(found.ahead(ORDER.steps(0), SHARDS)))
    assert len(found._read) == 3
    steps = [batch.step for batch in found.ahead(ORDER.steps(1, first=7), SHARDS)]
    assert steps == [7, 8, 9]


def test_runs_have_the_same_bytes_with_and_without_a_thread(
    mapped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest() -> str:
        data = dptrain.load(mapped, world=ALONE)
        model = dptrain.mlp_for(data, ModelConfig(hidden=(8,)))
        config = TrainConfig(epochs=2, batch_size=50, shards=2)
        return dptrain.fit(model, data, config, world=ALONE).params.tobytes().hex()

    with_thread = digest()
    monkeypatch.setattr(feed, "usable_cores", lambda: {0})
    alone = digest()
    monkeypatch.setattr(feed, "LARGEST_OF_FILES", 2**28)
    assert with_thread == alone == digest()


def fail(_: Any) -> Any:
    raise InputError("the rows are gone")


def test_a_mistake_of_the_thread_is_that_of_the_step(
    mapped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = feed_of(mapped)

    batches = iter(found.ahead(ORDER.steps(0), SHARDS))
    first = next(batches)
    found[first.shard(0)]
    monkeypatch.setattr(found, "_three", fail)
    second = next(batches)
    third = next(batches)
    assert {first.step, second.step} == {0, 1}
    with pytest.raises(InputError, match="gone"):
        found[third.shard(1)]


def test_what_is_in_memory_needs_no_thread(mapped: list[str]) -> None:
    x, y = (np.load(path) for path in mapped)
    assert feed_of((x, y))._thread is None
    assert feed_of(mapped)._thread is not None
