"""What decides a run's bytes: ranks, who goes on with it and who replays it must have the same."""

import hashlib
import itertools
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dptrain.checked import Plain
from dptrain.data.feed import Rows, blocks
from dptrain.data.prepare import Data
from dptrain.data.table import Table
from dptrain.level import LEVELS, MKL, NATIVE, highest, in_use, one_level
from dptrain.model import Model, described, is_own
from dptrain.record.receipt import differences, places
from dptrain.record.rundir import FREE
from dptrain.reduce.digest import HASHED, root
from dptrain.run.config import Identity, settings
from dptrain.streams import warn
from dptrain.train.state import Training
from dptrain.version import __version__, cpu, known_blas, linear_algebra
from dptrain.words import InputError, listed
from dptrain.world import World

LENGTH = ("epochs", "steps")
"""Settings that a run that goes on may change; the receipt notes it."""

NOTED = ("cpu",)
"""What is noted of a run and decides nothing."""

WHOLE = 2**26
"""Bytes of rows that are compared in whole by each rank; of more, `SAMPLES` pieces are. Measured:
0.05 s for so many, 0.02 s for the pieces."""

SAMPLES, PIECE = 256, 2**16
"""How many pieces, evenly spread, and their bytes."""


def content(table: Table | None) -> str | None:
    """Return a hash by which ranks see whether they have read the same rows; None for no table.

    Of all of them where they are few; else of the same pieces on every rank. Local.
    """
    if table is None:
        return None
    names = [(column.name, column.kind) for column in table.every()]
    digest = hashlib.sha256(f"{table.shapes()} {names}".encode(errors="surrogatepass"))
    digest.update(table.texts())
    rows = max(1, PIECE // max(1, table.nbytes // len(table)))
    starts: Sequence[int] = range(0, len(table), rows)
    if table.nbytes > WHOLE:
        last = max(0, len(table) - rows)
        starts = [last * n // (SAMPLES - 1) for n in range(SAMPLES)]
    for start in starts:
        digest.update(table.content(slice(start, start + rows)))
    return digest.hexdigest()


def check_equal(world: World, own: Mapping[str, Any], needed: str = "") -> None:
    """Raise InputError, on every rank, where some ranks have something else than the others.

    Names what, and which ranks, and what is `needed`. Collective: every rank must call this.
    """
    everyone = world.allgather(dict(own))
    for name in dict.fromkeys(name for found in everyone for name in found):
        kinds: dict[str, list[str]] = {}
        for rank, found in enumerate(everyone):
            kinds.setdefault(str(found.get(name)), []).append(str(rank))
        told = [f"{k} on rank{'s' * (len(r) > 1)} {listed(r)}" for k, r in kinds.items()]
        if len(kinds) > 1:
            same = needed or "start all ranks with the same settings and files"
            raise InputError(f"{name} is {' and '.join(told[::-1])}; {same}", everywhere=True)


def libraries_of(model: Model | None) -> list[str]:
    """Return what a model says it computes with: each name, version and, in brackets, how."""
    ask: Callable[[], list[str]] = getattr(model, "software", list)
    return ask()


def check_programs(world: World, model: Model | None = None) -> None:
    """Raise InputError where ranks have other versions of what computes; names which.

    Before anything else is exchanged, as another version may exchange something else. Collective.
    """
    if world.size > 1:
        versions = {"dptrain": __version__, "NumPy": np.__version__}
        for text in libraries_of(model):
            name, _, versions[name] = text.partition(" (")[0].partition(" ")
        check_equal(world, versions | {"BLAS": sorted({name for name, _ in known_blas()})})


def warn_of_machines(world: World, model: Model) -> None:
    """Say, once, where nodes compute at other levels, and where the BLAS is not known.

    Collective: every rank must call this.
    """
    used = in_use()
    own = socket.gethostname(), ", ".join([used.text, *libraries_of(model)]), used, highest()
    hosts, kinds, every, tops = zip(*world.allgather(own), strict=True)
    if world.rank > 0:
        return
    if not all(used.kernels for used in every):
        warn(
            f"NumPy's BLAS ({', '.join(linear_algebra())}) is none that threadpoolctl knows: "
            "--threads can't set its threads, and the last bits may depend on their number"
        )
    where: dict[str, dict[str, None]] = {}
    for host, kind in zip(hosts, kinds, strict=True):
        where.setdefault(kind, {})[host] = None
    told = ", ".join(f"{listed([*found])} with {kind}" for kind, found in where.items())
    if len(where) > 1:
        mend = one_level(tops)
        warn(f"not all ranks compute alike: {told}; bits depend on which has which shard; {mend}")
    elif len({used.libm for used in every}) > 1:
        warn("not all ranks have the same libm: bits depend on which has which shard")


def fingerprint(rows: Rows, world: World) -> str:
    """Return shapes and a hash of the raw rows of a table, in blocks that the ranks share.

    Of all its rows: which of them are trained on follows from the seed. Collective: every rank
    must call this.
    """
    table = rows.table
    if table.facts is not None:
        return f"{table.shapes()}: {table.facts.sha256}"
    own = [leaf(table, b.start, table.content(b)) for b in blocks(len(table), world)]
    digests = np.frombuffer(b"".join(own), np.uint8).reshape(-1, 32)
    return f"{table.shapes()}: {root(np.concatenate(world.allgather(digests)))}"


def contents(data: Data, world: World) -> dict[str, str]:
    """Return `fingerprint` of each table of some data. Collective."""
    tables = {"train": data.train} | ({} if data.test is None else {"test": data.test})
    return {name: fingerprint(rows, world) for name, rows in tables.items()}


def leaf(table: Table, start: int, content: bytes) -> bytes:
    """Return the hash of a block's rows, of which the first is number `start`."""
    return hashlib.sha256((b"" if start else table.texts()) + content).digest()


def identity(run: Training, data: dict[str, str] | None = None) -> Identity:
    """Return what decides the bytes of a run, the same on every rank.

    Free of the number of ranks, but for `--reduce allreduce`. Where a library computes, MKL's
    products are of a level only if told so. `data`: its `contents`, where they are known.
    Collective: every rank must call this.
    """
    used = in_use()
    own = linear_algebra(), libraries_of(run.model), [used.text], [used.libm], [cpu()]
    kinds = zip(*run.world.allgather(own), strict=True)
    blas, libraries, levels, libm, cpus = (sorted({*itertools.chain(*kind)}) for kind in kinds)
    kept = not libraries or run.world.first(lambda: os.environ.get("MKL_CBWR") == MKL)
    level = levels[0] if kept and len(levels) == 1 and levels[0] in LEVELS else NATIVE
    return Identity(
        dptrain=__version__,
        numpy=np.__version__,
        blas=blas,
        cpu_level=levels,
        libm=libm,
        cpu=cpus,
        data=data or contents(run.data, run.world),
        shards=run.order.num_shards,
        threads=run.config.threads,
        model=described(run.model),
        num_params=len(run.reducer.params),
        hash_every=run.config.steps_between_hashes,
        hash_block=HASHED,
        settings=settings(run.data, run.config, run.model) | {"cpu-level": level},
        ranks=run.world.size if run.config.reduce == "allreduce" else None,
        libraries=libraries or None,
    )


def changes(stored: Identity, now: Identity, *, force: bool) -> Plain:
    """Return what has changed since a run began, to be noted; nothing where nothing counts.

    Raises InputError where it can't change, or changes the bytes and `force` is not given.
    """
    old, new = stored.plain(), now.plain()
    found = differences(old, new)
    told = {k: v for k, v in found.pop("settings", {}).items() if k not in FREE}
    noted = {name: found.pop(name) for name in NOTED if name in found}
    another = "model" in found and not (is_own(stored.model) and is_own(now.model))
    alike = is_own(stored.model) == is_own(now.model)  # the settings say what differs
    for name, value in told.items() if alike else ():
        if name not in (*LENGTH, "shards", "threads", "cpu-level"):  # the latter are said below
            raise InputError(
                f"{name} is {value}; the run has {stored.settings.get(name)} and goes on with "
                "its own settings: leave it out, or start a new run"
            )
    told_of = (each for name in found for each in places(old.get(name), new.get(name), name))
    others = "; ".join(f"{place} is {here}, was {there}" for place, there, here in told_of)
    if "num_params" in found and alike:
        raise InputError(f"{others}: give the run's own DATA and model")
    if another:
        raise InputError(f"{others}: go on with the run's own model, or start a new run")
    if found and not force:
        raise InputError(
            f"{others}. The result would not be that of the undisturbed run; go on where it is as "
            "it was, or take --force to go on all the same, noted in the receipt"
        )
    return noted | found | ({"settings": told} if told else {})
