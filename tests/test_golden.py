"""Pins the bits that comparisons can't see, as both of their sides share them.

Equal on any ranks, equal once resumed: that holds as well where a number is wrong everywhere. What
`python tests/test_golden.py` prints is pinned here, for three levels of CPU; one with more
instructions does as one with fewer after

    export NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" OPENBLAS_CORETYPE=Haswell
    export NPY_DISABLE_CPU_FEATURES="X86_V3 $NPY_DISABLE_CPU_FEATURES" OPENBLAS_CORETYPE=Nehalem

A commit that changes these bits does so on purpose, says so, and pins the new ones.
"""

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import threadpoolctl
from numpy.typing import NDArray

import dptrain
from dptrain import MLP, DataConfig, ModelConfig, TrainConfig, World
from dptrain.config import DType
from dptrain.keys import Purpose, generator
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
    return sha(*(rows.astype("<i8") for rows in chosen if rows is not None))


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
            kept += [slopes != 0 for slopes in model._spare[-1][4].slopes[:2]]
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
    losses = [trained.summary[name] for name in ("train_loss", "validation_loss")]
    return sha(trained.params, np.array(losses))


FEATURES = {"X86_V4": "AVX512_SKX", "X86_V3": "AVX2"}
"""NumPy's groups of instructions, the highest first, and what those before 2.4 call them."""

KERNELS = {"Zen": "Haswell", "Cooperlake": "SkylakeX", "SapphireRapids": "SkylakeX"}
"""Names of CPUs for which OpenBLAS has no products of their own in these precisions."""


def level() -> str:
    """Return what NumPy and OpenBLAS take the CPU for."""
    found = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    groups = [name for name, old in FEATURES.items() if found.get(name, found.get(old))]
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    kernels = [str(pool.get("architecture")) for pool in pools]
    return " ".join([*groups, "X86_V2"][:1] + [KERNELS.get(name, name) for name in kernels])


# ---- what they are

PINNED: dict[str, dict[str, str]] = {
    "X86_V4 SkylakeX": {
        "adam float32 1": "bb0ab07cd83c88dd",
        "adam float32 3": "047738cb438c16ff",
        "adam float32 7": "501bd584c29df4c5",
        "adam float64 1": "bc3d531a24a702bd",
        "adam float64 3": "2e13ac8a1bbd1604",
        "adam float64 7": "25f85aaa084b7277",
        "momentum float32 1": "9263e81a99d5c4ad",
        "momentum float32 3": "d075f495cfd7983b",
        "momentum float32 7": "ecd852beb0df9681",
        "momentum float64 1": "01ba8dfefefd273a",
        "momentum float64 3": "29e4489e1444af93",
        "momentum float64 7": "2f3fe927879bda8a",
    },
    "X86_V3 Haswell": {
        "adam float32 1": "0ca04fb89623e9fa",
        "adam float32 3": "3fce1140fd1a8d3d",
        "adam float32 7": "3f29297c953cfe2a",
        "adam float64 1": "de6aef2958b10e28",
        "adam float64 3": "2e496dd88bcb01c5",
        "adam float64 7": "f2be26a57356b035",
        "momentum float32 1": "1373db530105cd2c",
        "momentum float32 3": "888a3252a65050e0",
        "momentum float32 7": "0cc8978a9f9e33af",
        "momentum float64 1": "7d8c69d543a99b28",
        "momentum float64 3": "393b936014e16d02",
        "momentum float64 7": "b38112028ae60988",
    },
    "X86_V2 Nehalem": {
        "adam float32 1": "8f36531031787f3f",
        "adam float32 3": "8e99dcd24c50b3c8",
        "adam float32 7": "b8cd8ba4c525ec34",
        "adam float64 1": "5bc19348956a79f4",
        "adam float64 3": "4b9198ebb35610e1",
        "adam float64 7": "4d87bb2c01e1cb4e",
        "momentum float32 1": "efb5638a6162b227",
        "momentum float32 3": "4dd7ba3c8b972202",
        "momentum float32 7": "c6e90dff3605db9c",
        "momentum float64 1": "3ff0f6c1f4920e19",
        "momentum float64 3": "1273292c3af6928c",
        "momentum float64 7": "399b172c6618be25",
    },
    "random": {
        "he float32": "38a3b7d4cb71a45d",
        "he float64": "be3f98dfb294f477",
        "glorot float32": "2c12808683f5c94b",
        "glorot float64": "f721cfe33e3e7875",
        "order": "640ba6a91932235b",
        "held-out rows": "da04cd36ba00535a",
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
