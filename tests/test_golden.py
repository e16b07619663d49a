"""Pins the bits that comparisons can't see, as both of their sides share them.

Equal on any ranks, equal once resumed: that holds as well where a number is wrong everywhere. What
`python tests/test_golden.py` prints is pinned here, for three levels of CPU; for a lower one than
the CPU has, after what this prints:

    python -c "from dptrain.level import variables; print(variables('x86-64-v2'))"

A commit that changes these bits does so on purpose, says so, and pins the new ones.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import dptrain
from dptrain import MLP, DataConfig, ModelConfig, TrainConfig, World
from dptrain.config import DType
from dptrain.keys import Purpose, generator
from dptrain.level import in_use
from dptrain.order import Batch, Order

ALONE = World()


def sha(*arrays: NDArray[Any]) -> str:
    """Return the first 16 digits of the SHA-256 of arrays' bytes."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


# ---- what is random: the same on every CPU


def initial(init: Any, dtype: DType) -> str:
    model = MLP([64, 24, 16, 10], init=init, dtype=dtype)
    return sha(model.initial_params(generator(5, Purpose.PARAMS)))


def epochs_order() -> str:
    """Return the rows of each minibatch of the second epoch, and where its shards end."""
    batches = list(Order(1000, 64, 7, seed=5).steps(1))
    ends = np.cumsum([[len(batch.shard(k)) for k in range(7)] for batch in batches])
    return sha(*(batch.rows.astype("<i8") for batch in batches), ends.astype("<i8"))


def held_out_rows() -> str:
    data = dptrain.load(config=DataConfig(validation=0.1), seed=5, world=ALONE)
    assert data.validation is not None
    chosen = [rows.chosen for rows in (data.train, data.validation)]
    return sha(*(rows[:].astype("<i8") for rows in chosen if rows is not None))


def dropout_masks() -> str:
    """Return which units of two layers are kept, for each shard of a step and of the next."""
    model = MLP([1, 40, 30, 2], activation="identity", dropout=0.3)
    params = np.zeros(model.num_params, np.float32)
    for _, bias in model.layers(params):
        bias[:] = 1  # a unit that is kept is not 0
    kept = []
    for step in (6, 7):
        batch = Batch(5, 1, step, np.arange(12), 3)
        for shard in range(3):
            x, y = np.zeros((4, 1), np.float32), np.zeros(4, np.int64)
            out = np.empty_like(params)
            model.loss_and_grad_sum(params, x, y, None, out, partial(batch.rng, shard))
            kept += [keep[:4] != 0 for keep in model._spare[-1].keep]
    assert 0.6 < np.mean([keep.mean() for keep in kept]) < 0.8
    return sha(*(np.packbits(keep) for keep in kept))


RANDOM: dict[str, Callable[[], str]] = {
    "he float32": partial(initial, "he", "float32"),
    "he float64": partial(initial, "he", "float64"),
    "glorot float32": partial(initial, "glorot", "float32"),
    "glorot float64": partial(initial, "glorot", "float64"),
    "order": epochs_order,
    "held-out rows": held_out_rows,
    "dropout masks": dropout_masks,
}

# ---- three steps: their last bits depend on what NumPy and OpenBLAS take the CPU for

ADAM = TrainConfig(steps=3, batch_size=100, learning_rate=0.001, seed=5)
RUNS = {
    "adam": (ModelConfig(hidden=(24, 16), dropout=0.3), ADAM),
    "momentum": (
        ModelConfig(hidden=(24, 16), activation="tanh"),
        replace(ADAM, optimizer="momentum", learning_rate=0.05, clip_norm=0.5, weight_decay=0.01),
    ),
}
KINDS: dict[str, tuple[str, DType, int]] = {
    f"{rule} {dtype} {shards}": (rule, dtype, shards)
    for rule in RUNS
    for dtype in get_args(DType)
    for shards in (1, 3, 7)
}


def three_steps(rule: str, dtype: DType, shards: int) -> str:
    """Return the parameters after three steps, their losses and the held-out rows' loss."""
    model_config, config = RUNS[rule]
    data = dptrain.load(config=DataConfig(validation=0.1), seed=5, world=ALONE)
    model = dptrain.mlp_for(data, replace(model_config, dtype=dtype))
    trained = dptrain.fit(model, data, replace(config, shards=shards), world=ALONE)
    losses = [trained.summary.plain()[name] for name in ("train_loss", "validation_loss")]
    return sha(trained.params, np.array(losses))


def level() -> str:
    """Return what computes here."""
    return in_use().text


# ---- what they are

PINNED: dict[str, dict[str, str]] = {
    "x86-64-v4": {
        "adam float32 1": "5b301e784d0b3f66",
        "adam float32 3": "208fde00ba3d46c5",
        "adam float32 7": "7c11c83f041faa86",
        "adam float64 1": "a9698ce9e1e7fbb1",
        "adam float64 3": "3bb088b8c72cdeb8",
        "adam float64 7": "57b5914a828ce2dd",
        "momentum float32 1": "b8025b59cb0f4792",
        "momentum float32 3": "8fc1b5b269f5e2a8",
        "momentum float32 7": "52aaf98ad4d8636c",
        "momentum float64 1": "27998b3cbfa3ba48",
        "momentum float64 3": "6b3792eaa2aed43b",
        "momentum float64 7": "1dcf2736d9d5303c",
    },
    "x86-64-v3": {
        "adam float32 1": "d4de795d923c0e8e",
        "adam float32 3": "1b644ab6c8a77bd6",
        "adam float32 7": "c4b47b8e5167dbe0",
        "adam float64 1": "b7ea47c58adcdaed",
        "adam float64 3": "58911666f473e0f4",
        "adam float64 7": "30cb5c005053adea",
        "momentum float32 1": "dc3106764e998927",
        "momentum float32 3": "fe04299fe615ef5b",
        "momentum float32 7": "5b50ee22c2d6c59d",
        "momentum float64 1": "014166e9c90ca998",
        "momentum float64 3": "791c19b33da85a11",
        "momentum float64 7": "bc9a16667a169604",
    },
    "x86-64-v2": {
        "adam float32 1": "a33651833be85f51",
        "adam float32 3": "d9e8ba1d81f2b460",
        "adam float32 7": "e18c9250756bba64",
        "adam float64 1": "7e6337a03b853641",
        "adam float64 3": "b12c92a6a8772583",
        "adam float64 7": "56e3f8347b09d540",
        "momentum float32 1": "3c503e155e395e4c",
        "momentum float32 3": "e565994e0cff7246",
        "momentum float32 7": "f4f936b680007cb6",
        "momentum float64 1": "05f7e919c99316c2",
        "momentum float64 3": "b86c06913cfbad04",
        "momentum float64 7": "75813f806bd0f713",
    },
    "random": {
        "he float32": "38a3b7d4cb71a45d",
        "he float64": "be3f98dfb294f477",
        "glorot float32": "2c12808683f5c94b",
        "glorot float64": "f721cfe33e3e7875",
        "order": "aca74cd194ee0adf",
        "held-out rows": "4f9fba103dbbbf23",
        "dropout masks": "03d8d1e54ee9b790",
    },
}


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_is_as_it_was(name: str) -> None:
    assert RANDOM[name]() == PINNED["random"][name]


@pytest.mark.parametrize("kind", KINDS)
def test_three_steps_give_the_bits_that_they_gave(kind: str) -> None:
    if level() not in PINNED:
        pytest.skip(f"of a CPU that counts as {level()} no bits are pinned")
    assert three_steps(*KINDS[kind]) == PINNED[level()][kind]


if __name__ == "__main__":
    found = {name: make() for name, make in RANDOM.items()}
    steps = {kind: three_steps(*case) for kind, case in KINDS.items()}
    print(json.dumps({level(): steps, "random": found}, indent=4))
