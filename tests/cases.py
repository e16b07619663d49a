"""What tests have ranks do, each case by its name, and print: a line of JSON each, by rank 0.

    mpirun -n 5 python cases.py fits 0 2      0: the real nodes; 2: two ranks a node, pretended

One start of MPI for many runs. Several cases in one start: fits,sums. Of fewer ranks, and others
for these: fits 5:0 5:2 and sums 3:0.
"""

import contextlib
import errno
import functools
import hashlib
import io
import json
import operator
import os
import pickle
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from tiny import CONFIG, RunningMean
from tiny import HIDDEN as TINY

import dptrain
from dptrain import DataConfig, ModelConfig, TrainConfig, World
from dptrain.arrays import Param, Sums
from dptrain.bench import measure
from dptrain.config import DType, Rule
from dptrain.config.tools import BenchConfig
from dptrain.reduce import REDUCERS, wire
from dptrain.reduce.digest import HASHED, digest, first_difference
from dptrain.reduce.memory import NodeMemory
from dptrain.reduce.segments import Segments
from dptrain.reduce.tree import tree_sum
from dptrain.reduce.tree_reduce import TreeReduce
from dptrain.run import convert
from dptrain.train.control import Control
from dptrain.train.loop import begin, train_epoch
from dptrain.train.state import State, forms, restore, snapshot

SHARDS = (1, 4, 7, 16)
HIDDEN = ModelConfig(hidden=(100,), dropout=0.1)
"""With the digits 7510 parameters: 7 blocks of 1024 and a third."""

TRAINING = TrainConfig(
    batch_size=60, steps=5, clip_norm=0.5, weight_decay=0.01, schedule="cosine", warmup=2
)
SIZES = (1, 1023, 1024, 5000, 70001)
SMALL = ModelConfig(hidden=(24, 16))
Floats = NDArray[np.floating]


class RoundRobin(MPI.Intracomm):
    """A communicator whose ranks are dealt to two nodes in turn, as `mpirun --map-by node` does."""

    def Split_type(self, split_type: int, key: int = 0, info: Any = None) -> Any:  # noqa: ARG002, N802
        """Return the ranks of this rank's node."""
        return self.Split(self.rank % 2, key)


def worlds(names: list[str]) -> Iterator[tuple[str, World]]:
    """Make the worlds that are asked for, one after the other."""
    everyone = MPI.COMM_WORLD
    for asked in names:
        size, _, name = asked.rpartition(":")
        among = everyone.rank < int(size or everyone.size)
        comm = everyone.Split(0 if among else MPI.UNDEFINED) if size else everyone
        if not among:
            pass
        elif name == "turn":
            yield name, World(RoundRobin(comm.Dup()))
        elif name == "turn2":
            yield name, World(RoundRobin(comm.Dup()), ranks_per_node=2)
        elif name == "reversed":
            yield name, World(comm.Split(0, key=-comm.rank), ranks_per_node=2)
        else:
            yield name, World(comm, ranks_per_node=int(name) or None)
        done = everyone.Ibarrier()
        while not done.Test():  # what waits in MPI keeps a core busy
            time.sleep(0.01)


def say(world: World, /, **found: Any) -> None:
    """Print a line of JSON, once."""
    if world.rank == 0:
        print(json.dumps({"nodes": [len(ranks) for ranks in world.nodes], **found}), flush=True)


def fits(names: list[str], shards: tuple[int, ...] = SHARDS) -> None:
    """Train with each number of shards, validation on, in each of the worlds."""
    for name, world in worlds(names):
        data = dptrain.load(config=DataConfig(validation=0.2), world=world)
        for v in shards:
            model = dptrain.mlp_for(data, HIDDEN)
            trained = dptrain.fit(model, data, replace(TRAINING, shards=v), world=world)
            digest = hashlib.sha256(trained.params.data).hexdigest()
            assert {digest} == set(world.allgather(digest))
            assert digest == trained.summary.params_sha256
            (line,) = trained.history
            del line["seconds"]
            say(world, world=name, shards=v, digest=digest, metrics=line)


@functools.cache
def leaves_of(v: int, n: int) -> Floats:
    """Return shards' gradients of very different sizes: their sum shows every change of order."""
    rng = np.random.default_rng((v, n))
    numbers = rng.standard_normal((v, n), np.float32)
    numbers *= 10.0 ** rng.integers(-4, 5, (v, 1)).astype(np.float32)
    return numbers


@functools.cache
def sum_of(v: int, n: int) -> Floats:
    """Return what the tree is defined to make of these gradients."""
    return tree_sum(leaves_of(v, n))


def step_of(tree: TreeReduce, world: World, v: int, ask: bool) -> float:
    """Do a step with shards' gradients that are known, and check what each part of it returns."""
    leaves, expected, own = (
        leaves_of(v, tree.num_params),
        sum_of(v, tree.num_params),
        tree.own_slice,
    )
    losses = []
    for stack in tree.stacks:
        with tree.writes[stack] as out:
            assert out.shape == leaves[stack.start].shape
            out[:] = tree_sum(leaves[stack.start : stack.stop])  # a subtree's shape is the tree's
        losses += [float(shard + 1) for shard in stack]
    asks = [ask << rank % 4 for rank in range(world.size)]  # some ask for other things than others
    sums = [Sums(loss, 2 * loss, 3 * loss) for loss in losses]
    all_sums, asked = tree.allgather_sums(sums, asks[world.rank])
    assert [*map(list, all_sums)] == [[k * n for n in range(1, v + 1)] for k in (1, 2, 3)]
    assert asked == functools.reduce(operator.or_, asks)
    total = tree.reduce_scatter()
    assert total.tobytes() == expected[own].tobytes(), (world.nodes, leaves.shape)
    layout = [Param("a", (tree.num_params // 3,)), Param("b", (-(-2 * tree.num_params // 3),))]
    norm = tree.norm(total, Segments(layout))
    tree.params[own] += total
    assert tree.allgather()
    return norm


def sums(names: list[str]) -> None:
    """Send random gradients through the tree and compare with its definition, on every rank."""
    few = [(n, v) for n in SIZES for v in ((*SHARDS, 31) if n == 5000 else (3, 31))]
    for name, world in worlds(names):
        for n, v in few:
            tree = TreeReduce(world, n, v, np.float32, 1 + 3 * (n % 2))
            tree.start(lambda n=n: np.arange(n, dtype=np.float32))  # type: ignore[misc]
            owned = sorted((own.start, own.stop) for own in world.allgather(tree.own_slice))
            owned = [ends for ends in owned if ends[1] > ends[0]]
            assert [start for start, _ in owned] == [0, *(stop for _, stop in owned[:-1])]
            assert owned[-1][1] == n
            norms = {step_of(tree, world, v, ask) for ask in (False, True)}
            expected = np.arange(n, dtype=np.float32) + sum_of(v, n) + sum_of(v, n)
            assert tree.params.tobytes() == expected.tobytes()
            (norm,) = {norm for found in world.allgather(norms) for norm in found}
            digest = hashlib.sha256(tree.params.data).hexdigest()
            sizes = world.allgather(tree.own_slice.stop - tree.own_slice.start)
            at_fault = [rank for rank, size in enumerate(sizes) if size][v % 3 - 1 :][0]
            world.allgather(None)  # all have looked
            assert not tree.allgather(finite=world.rank != at_fault)
            tree.close()
            say(world, world=name, shards=v, n=n, digest=digest, norm=norm.hex())
        meetings(world)


def meetings(world: World) -> None:
    """Meet many times, as those do who have nothing to do between: each rank hears all bits."""
    memory = NodeMemory(world if len(world.ranks_here) > 1 else None, 0)
    for turn in range(300):
        bits = {rank: (turn % (rank + 2) == 0) << rank % 32 for rank in world.ranks_here}
        heard = memory.barrier(bits[world.rank])
        assert heard == functools.reduce(operator.or_, bits.values()), (turn, heard)
    memory.free()


def copies(names: list[str]) -> None:
    """Write to the parameters on one rank and look on all: on those of its node, and after."""
    for name, world in worlds(names):
        tree = TreeReduce(world, 3000, 2, np.float32)
        tree.start(lambda: np.zeros(3000, np.float32))
        world.allgather(None)
        if world.rank == 0:
            tree.params[2999] = 5
        world.allgather(None)
        seen = world.allgather(float(tree.params[2999]))
        params = tree.close()
        params[0] = world.rank
        world.allgather(None)
        private = world.allgather(float(params[0]))
        params[0] = 0
        say(world, world=name, seen=seen, private=private, here=list(world.ranks_here))


class Counted:
    """A window that counts how often it is synchronised."""

    def __init__(self, window: Any) -> None:
        self.window, self.syncs = window, 0

    def Sync(self) -> None:  # noqa: N802
        """Count, and do it."""
        self.syncs += 1
        self.window.Sync()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.window, name)


def first(names: list[str]) -> None:
    """Say who writes to the parameters before they are initial, and if they are synchronised."""
    for name, world in worlds(names):
        tree = TreeReduce(world, 3000, 2, np.float32)
        tree.params[:] = 7
        world.allgather(None)
        tree.start(lambda: tree.params.copy())  # noqa: B023
        written = bool((tree.params == 0).all())
        memory: Any = tree._within.params_memory
        memory._window = memory._window and Counted(memory._window)
        assert tree.allgather()
        syncs = memory._window and memory._window.syncs
        say(world, world=name, written=written, syncs=world.allgather(syncs))
        tree.close()


def waits(names: list[str]) -> None:
    """Say who took a core while rank 0 had the others wait for 0.6 s."""
    for name, world in worlds(names):
        begin = time.process_time()
        world.first(lambda: time.sleep(0.6))
        took = world.allgather(time.process_time() - begin)
        say(world, world=name, awake=[rank for rank, some in enumerate(took) if some > 0.1])


def shared_memory() -> tuple[int, int]:
    """Return how many shared mappings this process has, and how many bytes of memory they are."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    shared = [line for line in lines if re.match(r"\S+ ...s ", line)]
    ends = [line.split()[0].split("-") for line in shared]
    return len(shared), sum(int(stop, 16) - int(start, 16) for start, stop in ends)


def leaks(names: list[str]) -> None:
    """Train again and again, and say what memory is shared before and after."""
    for name, world in worlds(names):
        data = dptrain.load(world=world)
        without = shared_memory()
        tree = TreeReduce(world, 100_000, 1, np.float32)
        found, inside = [], shared_memory()
        tree.close()
        for number in range(33):
            model = dptrain.mlp_for(data, HIDDEN)
            dptrain.fit(model, data, TrainConfig(steps=1, shards=4, batch_size=20), world=world)
            if number in (2, 32):
                found.append(shared_memory())
        say(world, world=name, before=found[0], after=found[1], seen=(without, inside))


def refuse(*_: object) -> None:
    """Be a file system without room."""
    raise OSError(errno.ENOSPC, "no room")


def both(names: list[str]) -> None:
    """Do a step in each of two trees that both would fit into 45 MB alone."""
    for name, world in worlds(names):
        trees = [TreeReduce(world, n, 2, np.float32) for n in (2_000_000, 2_000_000)]
        for tree in trees:
            tree.start(lambda n=tree.num_params: np.zeros(n, np.float32))  # type: ignore[misc]
            step_of(tree, world, 2, ask=False)
        say(world, world=name, copies=[len(tree.copies) for tree in trees])


def short(names: list[str]) -> None:
    """Train where the world's last rank is refused memory to share."""
    if MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
        vars(os)["posix_fallocate"] = refuse
    fits(names, (4,))


def cut_messages(names: list[str]) -> None:
    """Train and add with messages of at most 1000 entries."""
    wire.LARGEST = 1000
    fits(names, (4, 7))
    sums(names)


def large(names: list[str]) -> None:
    """Train with more parameters than a /dev/shm of 16 MB has room for."""
    for name, world in worlds(names):
        data = dptrain.load(world=world)
        model = dptrain.mlp_for(data, ModelConfig(hidden=(1400, 1400)))
        trained = dptrain.fit(model, data, TrainConfig(steps=2, shards=2), world=world)
        say(world, world=name, digest=trained.summary.params_sha256, n=model.num_params)


def after(_: list[str]) -> None:
    """Train, and copy the model with all that it holds."""
    world = World(MPI.COMM_WORLD)
    data = dptrain.load(world=world)
    model = dptrain.mlp_for(data, HIDDEN)
    trained = dptrain.fit(model, data, TrainConfig(steps=2, shards=2), world=world)
    copied = pickle.loads(pickle.dumps(trained.model))  # noqa: S301 (made here)
    inputs = np.ones((3, 64), np.float32)
    outputs = [own.outputs(trained.params, inputs).tobytes() for own in (copied, model)]
    say(world, equal=outputs[0] == outputs[1])


def state(_: list[str]) -> None:
    """Say how much state each rank's optimizer has."""
    world = World(MPI.COMM_WORLD)
    data = dptrain.load(world=world)
    for rule in get_args(Rule):
        model = dptrain.mlp_for(data, HIDDEN)
        run = begin(model, data, TrainConfig(optimizer=rule), world)
        sizes = world.allgather(sum(piece.size for piece in run.optimizer.state))
        slots = sum(piece.num_slots for piece in run.optimizer.transforms)
        run.reducer.close()
        say(world, rule=rule, sizes=sizes, slots=slots, num_params=model.num_params)


# ---- command lines


def ended(args: list[str], cwd: str, env: dict[str, str]) -> tuple[int, str, str]:
    """Run `dptrain ARGS`; return its status and what this rank printed."""
    from dptrain.cli import main as cli

    out, err, sys.argv = io.StringIO(), io.StringIO(), ["dptrain", *args]
    os.chdir(cwd)
    before = dict(os.environ)
    os.environ.update(env)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli._run()
    os.environ.clear()
    os.environ.update(before)
    return status, out.getvalue(), err.getvalue()


def commands(_: list[str]) -> None:
    """Run the command lines that standard input has, on all ranks; say how each rank ended."""
    from dptrain.doctor import examine  # which takes a while, and the other cases do without

    measure.ROUND = examine.ROUND = 0.001  # by which bench and doctor take their time
    measure.MADE_UP = 2**10
    vars(os)["fsync"] = os.fstat  # no power is cut while this runs
    comm = MPI.COMM_WORLD
    pipe = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None) + "/rank"
    if comm.rank > 0:  # what waits in MPI keeps a core busy
        os.mkfifo(f"{pipe}{comm.rank}")
    comm.Barrier()
    with contextlib.ExitStack() as opened:
        ranks = range(1, comm.size) if comm.rank == 0 else ()
        others = [opened.enter_context(Path(f"{pipe}{rank}").open("w")) for rank in ranks]
        own = opened.enter_context(Path(f"{pipe}{comm.rank}").open()) if comm.rank else sys.stdin
        for line in own:
            for other in others:
                print(line, end="", file=other, flush=True)
            asked = json.loads(line)
            odd = asked.pop("last", {})
            if comm.rank == comm.size - 1:
                asked |= odd
            found = comm.gather(ended(**asked))
            if found:
                print(json.dumps(found), flush=True)


def benches(names: list[str]) -> None:
    """Measure a step of a small model in each world."""
    measure.ROUND, measure.MADE_UP = 0.001, 2**10
    for _, world in worlds(names):
        config, model = TrainConfig(batch_size=80), dptrain.MLP([20, 16, 8, 3])
        settings = BenchConfig(inputs=20, outputs=3)
        found = measure.bench(model, settings, config, world=world, say=lambda _: None)
        if world.rank == 0:
            print(json.dumps(found), flush=True)


def converts(names: list[str]) -> None:
    """Convert a table in parts of one block each."""
    convert.PART = 1
    world = dptrain.connect()
    target = DataConfig(target=("label",))
    convert.convert(["t.csv"], Path(f"by {names[0]}"), target, world, lambda *_: None)


# ---- runs of every kind


def kinds_of_runs() -> dict[str, tuple[Any, DataConfig, TrainConfig]]:
    """Return a name, and a model's settings (None: a model of one's own), data's, training's."""
    uneven = TrainConfig(shards=7, batch_size=250, steps=20)
    table: dict[str, tuple[Any, DataConfig, TrainConfig]] = {
        rule: (SMALL, DataConfig(), replace(uneven, optimizer=rule, weight_decay=0.01))
        for rule in get_args(Rule)
    }
    everything = replace(
        uneven, clip_norm=0.5, clip_value=0.1, schedule="cosine", warmup=4, log_every=3
    )
    for dtype in get_args(DType):
        model = ModelConfig(hidden=(24, 16), dropout=0.3, activation="gelu", dtype=dtype)
        table[f"everything {dtype}"] = (model, DataConfig(scale="minmax"), everything)
    table["three examples on four shards"] = (
        SMALL,
        DataConfig(),
        TrainConfig(shards=4, batch_size=3, steps=10),
    )
    table["blocks"] = (
        SMALL,
        DataConfig(),
        TrainConfig(shards=4, batch_size=300, epochs=1, shuffle="blocks"),
    )
    table["early stopping"] = (
        SMALL,
        DataConfig(validation=0.2),
        TrainConfig(shards=3, batch_size=300, epochs=9, learning_rate=0.2, patience=1),
    )
    for loss in ("mean-squared-error", "huber", "binary-cross-entropy"):
        table[loss] = (
            replace(SMALL, activation="tanh", loss=loss, dtype="float64"),
            DataConfig(validation=0.1),
            TrainConfig(shards=5, batch_size=300, epochs=2, schedule="step", decay_epochs=1),
        )
    table["one's own model"] = (None, DataConfig(), replace(uneven, clip_norm=0.5))
    return table


def kinds(_: list[str]) -> None:
    """Train every kind of run, writing nothing, and say its digest and metrics."""
    world = dptrain.connect()
    for name, (model_config, data_config, config) in kinds_of_runs().items():
        files = {"mean-squared-error": "regression.npz", "huber": "regression.npz"}
        files["binary-cross-entropy"] = "multilabel.npz"
        data = dptrain.load(files.get(name, ()), data_config)
        if model_config is None:
            model: dptrain.Model = RunningMean([64, 10])
        else:
            model = dptrain.mlp_for(data, model_config)
        trained = dptrain.fit(model, data, config)
        history = [{k: v for k, v in line.items() if k != "seconds"} for line in trained.history]
        found = trained.summary.covered()
        assert np.isfinite(trained.params).all()
        if world.rank == 0:
            print(json.dumps({"name": name, **found, "history": history}))


# ---- vectors that are dealt, collected and compared, and runs that are saved


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
    data = dptrain.load("data.npz", DataConfig(validation=0.2), world=world)
    run = begin(dptrain.mlp_for(data, TINY), data, CONFIG, world)
    run.num_steps = 1
    train_epoch(run, Control())
    ends = []
    arrays, state = snapshot(run)
    if world.rank == 0:
        assert {name: (a.dtype.name, a.shape) for name, a in arrays.items()} == forms(run)
        assert State.read(state.plain()).plain() == state.plain()
    for _ in range(2):
        run.num_steps = 2
        train_epoch(run, Control())
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
    data = dptrain.load("data.npz", DataConfig(validation=0.2), world=world)
    out = Path(f"run-{world.size}-{name}")
    config = replace(CONFIG, keep_checkpoints=99)
    dptrain.fit(dptrain.mlp_for(data, TINY), data, config, out=out, world=world)
    files = sorted((out / "checkpoints").iterdir()) if world.rank == 0 else []
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def states(names: list[str]) -> None:
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


WAYS: dict[str, Callable[[list[str]], None]] = {
    "fits": fits,
    "sums": sums,
    "copies": copies,
    "first": first,
    "waits": waits,
    "leaks": leaks,
    "both": both,
    "short": short,
    "cut": cut_messages,
    "large": large,
    "after": after,
    "state": state,
    "commands": commands,
    "benches": benches,
    "converts": converts,
    "kinds": kinds,
    "states": states,
}

if __name__ == "__main__":
    dptrain.connect()  # from here on one rank's failed assertion ends them all
    for part in " ".join(sys.argv[1:]).split(" and "):
        ways, *worlds_asked = part.split()
        for way in ways.split(","):
            WAYS[way](worlds_asked)
