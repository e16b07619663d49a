"""Collects, deals and compares vectors and saves runs on pretended nodes; started with ranks.

    mpirun -n 4 python state_runs.py 1 turn      each name is a world of node_runs.py

One start of MPI for many worlds: a line of JSON each, printed by rank 0.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from node_runs import worlds
from short_runs import CONFIG, HIDDEN

import dptrain
from dptrain import DataConfig, World
from dptrain.reduce import REDUCERS
from dptrain.reduce.digest import HASHED, digest, first_difference
from dptrain.run.fit import fit, load, mlp_for
from dptrain.train.control import Control
from dptrain.train.loop import begin, train_epoch
from dptrain.train.state import State, forms, restore, snapshot


def dealt_and_collected(world: World) -> bool:
    """Deal vectors and matrices of one block up to many, and collect them, by both reducers."""
    found = []
    for kind in REDUCERS.values():
        for n in (1, 1024, 5000):
            reducer = kind(world, n, 4, np.float32)
            own = reducer.own_slice
            for shape in ((n,), (2, n)):
                size = int(np.prod(shape))
                whole = np.arange(size, dtype=np.float32).reshape(shape)
                part = np.zeros((*shape[:-1], own.stop - own.start), np.float32)
                reducer.scatter(whole if world.rank == 0 else None, part)
                found.append(part.tobytes() == whole[..., own].tobytes())
                back = reducer.gather(part)
                part[:] = -1  # what was collected is a copy
                found.append((back is not None) == (world.rank == 0))
                found.append(back is None or back.tobytes() == whole.tobytes())
            reducer.close()
    return all(ok for oks in world.allgather(found) for ok in oks)


def differences(world: World) -> dict[str, Any]:
    """Compare copies of a vector, and then with bits flipped in the second copy."""
    reducer = REDUCERS["tree"](world, 3 * HASHED + 1, 4, np.float32)
    vector = np.arange(3 * HASHED + 1, dtype=np.float32)
    copies = reducer.copies
    reducer.close()
    equal = first_difference(world, vector, copies)
    if len(copies) > 1 and world.rank in copies[1]:
        for entry in (HASHED + 7, 2 * HASHED + 3):
            vector.view(np.uint32)[entry] ^= 1
    different = first_difference(world, vector, copies)
    assert world.allgather(different) == [different] * world.size
    return {"copies": [[*ranks] for ranks in copies], "equal": equal, "different": different}


def restored(world: World) -> bool:
    """Take a run's state in the middle of an epoch, go on, go back, and go on once more."""
    data = load("data.npz", DataConfig(validation=0.2), world=world)
    run = begin(mlp_for(data, HIDDEN), data, CONFIG, world)
    run.num_steps = 1
    train_epoch(run, CONFIG, world, Control())
    ends = []
    arrays, state = snapshot(run)
    if world.rank == 0:
        assert {name: (a.dtype.name, a.shape) for name, a in arrays.items()} == forms(run)
        assert State.read(state.plain()).plain() == state.plain()
    for _ in range(2):
        run.num_steps = 2
        train_epoch(run, CONFIG, world, Control())
        after, reached = snapshot(run)
        ends.append((reached.plain(), {name: array.tobytes() for name, array in after.items()}))
        restore(run, arrays, state, [])
        again, back = snapshot(run)
        assert back.plain() == state.plain()
        assert all(again[name].tobytes() == arrays[name].tobytes() for name in arrays)
    run.reducer.close()
    return all(world.allgather(ends[0] == ends[1] and ends[0][0] != state.plain()))


def checkpoints(world: World, name: str) -> list[str]:
    """Return the SHA-256 of each checkpoint of a run."""
    data = load("data.npz", DataConfig(validation=0.2), world=world)
    out = Path(f"run-{world.size}-{name}")
    fit(mlp_for(data, HIDDEN), data, replace(CONFIG, keep_checkpoints=99), out=out, world=world)
    files = sorted((out / "checkpoints").iterdir()) if world.rank == 0 else []
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def main(names: list[str]) -> None:
    """Say what is found in each world."""
    for name, world in worlds(names):
        vectors = {n: np.arange(n, dtype=np.float32) for n in (1, HASHED, 3 * HASHED + 1)}
        found = {
            "world": name,
            "digests": {n: digest(world, vector) for n, vector in vectors.items()},
            **differences(world),
            "same": dealt_and_collected(world),
            "restored": restored(world),
            "checkpoints": checkpoints(world, name),
        }
        if world.rank == 0:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    dptrain.connect()  # from here on one rank's failed assertion ends them all
    main(sys.argv[1:])
