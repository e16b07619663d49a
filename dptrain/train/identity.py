"""What decides a run's bytes: who goes on with a run, or replays it, must have the same."""

import hashlib
import json
from typing import Any

import numpy as np

from dptrain.config import InputError, TrainConfig
from dptrain.data.prepare import Data, Rows
from dptrain.record.receipt import differences
from dptrain.reduce.digest import HASHED, root
from dptrain.reduce.sums import gather_leaves
from dptrain.train.loop import Training
from dptrain.version import __version__, cpu, linear_algebra
from dptrain.world import World

LENGTH = ("epochs", "steps")
"""Settings that a run that goes on may change; the receipt notes it."""

FREE = ("data", "test-data", "checkpoint-every", "keep-checkpoints", "audit-every", "stall-timeout")
"""Settings that change no byte of the result: where files are, and what guards the run."""


def fingerprint(rows: Rows, world: World) -> str:
    """Return a hash over the raw rows of a table, in blocks that the ranks share.

    Of all its rows: which of them are trained on follows from the seed. Collective: every rank
    must call this.
    """
    whole = Rows(rows.table, rows.encoding)
    own = []
    for block in whole.blocks(world):
        parts = (np.ascontiguousarray(array) for array in (whole.raw_x(block), whole.raw_y(block)))
        own.append(hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest())
    digests = np.frombuffer(b"".join(own), np.uint8).reshape(-1, 32)
    return root(gather_leaves(world, digests, whole.num_blocks))


def identity(
    settings: dict[str, Any], data: Data, run: Training, config: TrainConfig, world: World
) -> dict[str, Any]:
    """Return what decides the bytes of a run, as plain values, the same on every rank.

    Free of the number of ranks, but for `--reduce allreduce`, whose bits depend on it. Collective:
    every rank must call this.
    """
    tables = {"train": data.train} | ({} if data.test is None else {"test": data.test})
    machines = sorted({*world.allgather((cpu(), tuple(linear_algebra())))})
    numpy_and_blas = sorted({name for _, names in machines for name in names})
    found = {
        "dptrain": __version__,
        "numpy": np.__version__,
        "blas": numpy_and_blas,
        "cpu": sorted({name for name, _ in machines}),
        "data": {
            name: f"{rows.table.shapes()}: {fingerprint(rows, world)}"
            for name, rows in tables.items()
        },
        "shards": run.order.num_shards,
        "threads": config.threads,
        "num_params": len(run.reducer.params),
        "hash_every": config.steps_between_hashes,
        "hash_block": HASHED,
        **({"ranks": world.size} if config.reduce == "allreduce" else {}),
        "settings": {k: v for k, v in settings.items() if v is not None},
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))  # as it will be read again
    return plain


def changes(stored: dict[str, Any], now: dict[str, Any], *, force: bool) -> dict[str, Any]:
    """Return what has changed since a run began, to be noted; nothing where nothing counts.

    Raises
    ------
    InputError
        What has changed can't be, or changes the bytes and `force` is not given.
    """
    found = differences(stored, now)
    settings = {k: v for k, v in found.pop("settings", {}).items() if k not in FREE}
    for name, value in settings.items():
        if name not in (*LENGTH, "shards", "threads"):  # the latter are said below
            raise InputError(
                f"{name} is {value}; the run has {stored['settings'].get(name)} and goes on with "
                "its own settings: leave it out, or start a new run"
            )
    if "num_params" in found:
        raise InputError(
            f"the model has {now['num_params']} parameters; that of the run "
            f"{stored.get('num_params')}: another DATA?"
        )
    if found and not force:
        told = "; ".join(f"{name} is {now[name]}, was {stored.get(name)}" for name in found)
        raise InputError(
            f"{told}. The result would not be that of the undisturbed run; go on where it is as it "
            "was, or take --force to go on all the same, noted in the receipt"
        )
    return found | ({"settings": settings} if settings else {})
