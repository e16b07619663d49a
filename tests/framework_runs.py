"""Trains networks of PyTorch and JAX on many numbers of ranks in one start, and says what came.

    mpirun -n 6 python tests/framework_runs.py         some of each, as the suite does it
    mpirun -n 6 python tests/framework_runs.py long    all of each, as a table

Minibatches of 61 in 7 shards are uneven, those of 3 in 4 leave a shard empty. A run is begun on
some ranks, goes on in mid-epoch on others, and is replayed on others again.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax_models
import numpy as np
import torch_models
from mpi4py import MPI

import dptrain
from dptrain import Data, DataConfig, Model, TrainConfig, World

import jax  # isort: skip

TURNS = (1, 2, 3), (2, 4), (6,)
"""How many ranks there are in the worlds that compute at once."""

BEGUN = {2: 1, 4: 3, 6: 2}
"""On how many ranks a run was begun that so many go on with."""

SHARDS = (7, 61), (4, 3)
"""Numbers of shards, and the examples of a minibatch."""

SOME = {
    "torch convolutions float32, 7 shards",
    "torch letters float64, 4 shards",
    "jax dropout float64, 7 shards",
}
STEPS = 4
IMAGES = DataConfig(scale="standard", validation=0.1)
LETTERS = DataConfig(task="regression", scale="none", validation=0.1)

Came = tuple[str, str, str]
"""What was trained, how, and what it came to: its parameters, and if at once, its losses."""


def write_images(path: Path) -> None:
    """Write the first of the digits."""
    rows = dptrain.load(world=World()).train
    np.savez(path, x=rows.raw_x(slice(0, 300)), y=rows.targets(slice(0, 300), np.int64))


def worlds() -> Iterator[World]:
    """Yield this rank's world in each turn; alone, its only one. Collective."""
    if MPI.COMM_WORLD.size == 1:
        yield World()
        return
    for sizes in TURNS:
        homes = [number for number, size in enumerate(sizes) for _ in range(size)]
        yield World(MPI.COMM_WORLD.Split(homes[MPI.COMM_WORLD.rank]))
        MPI.COMM_WORLD.Barrier()


def cases(*, long: bool) -> Iterator[tuple[str, Model, int, int]]:
    """Yield a name, a model, a number of shards and a minibatch's size."""
    for name, model in [*torch_models.models(), *jax_models.models()]:
        for shards, size in SHARDS:
            case = f"{name}, {shards} shards"
            if long or case in SOME:
                yield case, model, shards, size


def runs(
    name: str, model: Model, data: Data, config: Any, turn: int, world: World
) -> Iterator[Came]:
    """Yield what a training came to on a world's ranks, also of runs that others have begun."""

    def fit(steps: int, out: Path | None, *, resume: bool = False) -> str:
        settings = TrainConfig(steps=steps, **config)
        found = dptrain.fit(model, data, settings, out=out, resume=resume, world=world).summary
        losses = (found.metrics["train_loss"], found.metrics["validation_loss"])
        return f"{found.params_sha256} {'' if out else losses}".strip()

    ranks, other = world.size, BEGUN.get(world.size)
    yield name, f"on {ranks}", fit(STEPS, None)
    if turn == 0:
        fit(STEPS // 2, Path(f"{name}, {ranks}"))
    elif other:
        run = Path(f"{name}, {other}")
        yield name, f"on {other}, then {ranks}", fit(STEPS, run, resume=True)
    if ranks == 6:
        for first, then in ((1, 2), (3, 4)):
            found = dptrain.verify(f"{name}, {first}", "all", model=model, world=world)
            yield name, f"on {first}, then {then}, replayed on 6", found.verdict


def train(*, long: bool) -> list[Came]:
    """Return what all trainings came to, on the first rank of all. Collective."""
    said, trained = list[Came](), [*cases(long=long)]
    for turn, world in enumerate(worlds()):
        images = dptrain.load("images.npz", IMAGES, world=world)
        letters = dptrain.load("letters.npz", LETTERS, world=world)
        for name, model, shards, size in trained:
            data = letters if "letters" in name else images
            config = {"shards": shards, "batch_size": size}
            found = [*runs(name, model, data, config, turn, world)]
            said += found if world.rank == 0 else []
    return [came for each in MPI.COMM_WORLD.allgather(said) for came in each]


def table(found: list[Came]) -> Iterator[str]:
    """Yield a line for each training, in Markdown; SystemExit where one depends on the ranks."""
    yield "| network | SHA-256 | trained |"
    yield "|---|---|---|"
    for name in dict.fromkeys(name for name, _, _ in found):
        ways = {how: came for other, how, came in found if other == name}
        results = {came[:64] for how, came in ways.items() if "replayed" not in how}
        replays = {came for how, came in ways.items() if "replayed" in how}
        if len(results) > 1 or replays != {"identical"}:
            raise SystemExit(f"{name}: {ways}")
        yield f"| {name} | {results.pop()[:12]} | {'; '.join(ways)} |"


def main() -> None:
    """Train in a folder that is left empty, and print a line of JSON each, or a table."""
    long = sys.argv[1:] == ["long"]
    jax.config.update("jax_enable_x64", True)
    first = MPI.COMM_WORLD.rank == 0
    with tempfile.TemporaryDirectory() as own:
        os.chdir(MPI.COMM_WORLD.bcast(own))
        if first:
            torch_models.write_letters(Path("letters.npz"))
            write_images(Path("images.npz"))
        MPI.COMM_WORLD.Barrier()
        found = train(long=long)
        os.chdir("/")  # what one stands in can't be removed everywhere
    if first:
        print("\n".join(table(found) if long else map(json.dumps, found)))


if __name__ == "__main__":
    main()
