"""Shows that a level's bytes are the same on every kind of CPU that has it: CPUs are emulated.

    python tests/travel.py

trains a little in many ways, on this CPU at each level that it has and on emulated CPUs, pinned to
the same level, and prints a table: 'same', or what differs. Five minutes on one core; the suite has
a short form of it. It needs qemu-user.

    python tests/travel.py --library torch

does so for PyTorch's operations, or for those of jax.
"""

import argparse
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from dptrain import level as levels

EMULATOR = shutil.which("qemu-x86_64")

CPUS = {
    "Nehalem": "x86-64-v2",
    "Haswell": "x86-64-v3",
    "Broadwell": "x86-64-v3",
    "Skylake-Client": "x86-64-v3",
    "EPYC-Milan": "x86-64-v3",
}
"""Emulated CPUs, and the highest level that each has."""


def write_table(path: str, sizes: Any, mixed: Any) -> None:
    """Write rows with a category, a date, a number, a gap, a price, a class and a weight."""
    begin = datetime.datetime(2024, 1, 1)
    lines = ["colour,when,size,gaps,price,sort,w"]
    for row, (size, values) in enumerate(zip(sizes, mixed, strict=True)):
        colour = ("red", "green", "Z\u00fcrich", "")[row * row % 11 % 4]
        when = begin + datetime.timedelta(minutes=row * 5003)
        gap = "" if row % 7 == 0 else f"{values[1]:.4f}"
        own = f"{2e5 + 900 * values[0]:.2f},{'abc'[values.argmax()]},{1 + row % 3}"
        lines.append(f"{colour},{when.isoformat()},{size:.5f},{gap},{own}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def cases() -> dict[str, Callable[[], str]]:
    """Return trainings by name, each of which returns a hash of what it comes to."""
    import numpy as np

    import dptrain
    from dptrain import DataConfig, ModelConfig, TrainConfig, World
    from dptrain.config import Activation, DType, Rule, Scale

    alone, rng = World(), np.random.default_rng(7)
    x = (rng.standard_normal((300, 13)) * rng.uniform(0.1, 90, 13)).astype(np.float32)
    mixed = x @ rng.standard_normal((13, 3))
    targets: dict[str, Any] = {
        "cross-entropy": mixed.argmax(1),
        "binary-cross-entropy": (mixed > 0).astype(np.int64),
        "mean-squared-error": mixed[:, 0] / 50,
        "huber": mixed / 50,
    }
    base = TrainConfig(steps=6, batch_size=90, shards=3, seed=3)

    def run(loss: str, model: Any, config: Any, scale: Any = "standard") -> str:
        folder = os.environ["DPTRAIN_TRAVEL"]
        path = f"{folder}/{loss}-{os.getpid()}.npz"
        np.savez(path, x=x, y=targets[loss])
        return fitted(path, DataConfig(scale=scale), replace(model, loss=loss), config)

    def table(target: str, dtype: Any) -> str:
        """Train on a text with categories, gaps, dates, numbers and weights of rows."""
        path = f"{os.environ['DPTRAIN_TRAVEL']}/{target}-{os.getpid()}.csv"
        write_table(path, x[:, 0], mixed)
        config = DataConfig(target=(target,), weight="w")
        return fitted(path, config, ModelConfig(hidden=(24, 16), dtype=dtype), base)

    def fitted(path: str, of_data: DataConfig, of_model: ModelConfig, config: TrainConfig) -> str:
        data = dptrain.load(path, replace(of_data, validation=0.2), seed=3, world=alone)
        model = dptrain.mlp_for(data, of_model)
        trained = dptrain.fit(model, data, config, world=alone)
        found = hashlib.sha256(trained.params.tobytes())
        rows = data.train.inputs(slice(0, len(data.train)), model)
        found.update(rows.tobytes() + model.outputs(trained.params, rows).tobytes())
        losses = [trained.summary.metrics[name] for name in ("train_loss", "validation_loss")]
        return hashlib.sha256(found.digest() + np.array(losses).tobytes()).hexdigest()[:12]

    found: dict[str, Callable[[], str]] = {}
    for dtype in get_args(DType):
        model = ModelConfig(hidden=(24, 16), dtype=dtype)
        for name in get_args(Activation):
            own = replace(model, activation=name)
            found[f"{name} {dtype}"] = partial(run, "cross-entropy", own, base)
        found |= {f"{n} {dtype}": partial(run, n, model, base) for n in targets}
        for name in get_args(Rule):
            changed = replace(base, optimizer=name, learning_rate=0.01, weight_decay=0.01)
            found[f"{name} {dtype}"] = partial(run, "huber", model, changed)
        for name in get_args(Scale):
            found[f"scale {name} {dtype}"] = partial(run, "cross-entropy", model, base, name)
        others = {
            "dropout": (replace(model, dropout=0.3), base),
            "clip-norm": (model, replace(base, clip_norm=0.1)),
            "clip-value": (model, replace(base, clip_value=0.01)),
            "cosine": (model, replace(base, schedule="cosine", warmup=2)),
            "noise-scale": (model, replace(base, noise_scale=True)),
        }
        found |= {
            f"{n} {dtype}": partial(run, "cross-entropy", *both) for n, both in others.items()
        }
        found |= {f"table's {n} {dtype}": partial(table, n, dtype) for n in ("sort", "price")}
    return found


def cases_of(library: str) -> dict[str, Callable[[], str]]:
    """Return the same for models of PyTorch or JAX: one for each kind of operation."""
    import numpy as np

    import dptrain

    alone, rng = dptrain.World(), np.random.default_rng(7)
    x = rng.standard_normal((200, 16)).astype(np.float32)
    y = (x @ rng.standard_normal((16, 4))).argmax(1)
    config = dptrain.TrainConfig(steps=6, batch_size=90, shards=3, seed=3)

    def run(make: Callable[[], Any]) -> str:
        data = dptrain.load((x, y), dptrain.DataConfig(validation=0.2), seed=3, world=alone)
        trained = dptrain.fit(make(), data, config, world=alone)
        found = hashlib.sha256(trained.params.tobytes() + trained.outputs(x).tobytes())
        return found.hexdigest()[:12]

    makers = of_torch() if library == "torch" else of_jax()
    return {f"{library} {name}": partial(run, make) for name, make in makers.items()}


def of_torch() -> dict[str, Callable[[], Any]]:
    """Return what makes small PyTorch models by the operation that each has."""
    import torch
    from torch import nn

    import dptrain

    as_image, as_words = nn.Unflatten(1, (1, 4, 4)), nn.Unflatten(1, (4, 4))

    def one(name: str) -> list[Any]:
        return [getattr(nn, name)()]

    parts: dict[str, Callable[[], list[Any]]] = {
        "linear": list,
        **{name: partial(one, name) for name in ("ReLU", "Tanh", "GELU", "Sigmoid", "SiLU")},
        "softmax": lambda: [nn.Softmax(1)],
        "layer norm": lambda: [nn.LayerNorm(16)],
        "batch norm": lambda: [nn.BatchNorm1d(16)],
        "dropout": lambda: [nn.Dropout(0.2)],
        "convolution": lambda: [as_image, nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 16)],
        "pooling": lambda: [as_image, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 16)],
        "transformer": lambda: [as_words, nn.TransformerEncoderLayer(4, 2, 8), nn.Flatten()],
    }

    def make(name: str) -> Any:
        torch.manual_seed(3)
        inside = parts[name]()
        return dptrain.TorchModel(nn.Sequential(nn.Linear(16, 16), *inside, nn.Linear(16, 4)))

    return {name: partial(make, name) for name in parts}


def of_jax() -> dict[str, Callable[[], Any]]:
    """Return what makes small JAX models by the operation that each has."""
    import dptrain

    made = dptrain.JaxModel  # before JAX itself, which it tells how to compute
    import jax

    def init(rng: Any) -> Any:
        first, last = jax.random.split(rng)
        return {
            "first": jax.random.normal(first, (16, 16)) / 4,
            "last": jax.random.normal(last, (16, 4)) / 4,
        }

    def make(name: str) -> Any:
        inside = getattr(jax.nn, name)
        return made(init, lambda params, rows: inside(rows @ params["first"]) @ params["last"])

    return {n: partial(make, n) for n in ("identity", "relu", "tanh", "gelu", "sigmoid", "softmax")}


SHORT = ("gelu float32", "binary-cross-entropy float64", "table's price float32")


def main() -> None:
    """Print the hashes of cases, or run them everywhere and print how they compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--level")
    parser.add_argument("--case", action="append")
    parser.add_argument("--folder", default="/tmp")  # noqa: S108 (data that is made up)
    parser.add_argument("--library", choices=["torch", "jax"])
    asked = parser.parse_args()
    os.environ["DPTRAIN_TRAVEL"] = asked.folder
    if asked.level is None:
        table(*(("--library", asked.library) if asked.library else ()))
        return
    levels.use_cpu_level(asked.level)
    known = cases_of(asked.library) if asked.library else cases()
    found = {name: known[name]() for name in asked.case or known}
    print(json.dumps(found | {"": levels.in_use().text}))


def hashes(level: str, cpu: str | None = None, *options: str) -> dict[str, str]:
    """Return the hashes of cases at a level, on this CPU or on an emulated one."""
    own = {**os.environ}
    for name in ("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE"):
        own.pop(name, None)
    if level == levels.LOWEST:
        own["GLIBC_TUNABLES"] = levels.FMA  # an emulated program can't start itself again
    emulated = [] if cpu is None else [str(EMULATOR), "-cpu", cpu]
    line = [*emulated, sys.executable, __file__, "--level", level, *options]
    done = subprocess.run(line, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(*options: str) -> None:
    """Print for each level and each emulated CPU which cases differ from this CPU's."""
    here = {name: hashes(name, None, *options) for name in levels.LEVELS if levels.has(name)}
    for cpu, highest in CPUS.items():
        for level in ("x86-64-v2", "x86-64-v3", levels.NATIVE):
            if level == "x86-64-v3" and highest != level:
                continue
            try:
                found = hashes(level, cpu, *options)
            except RuntimeError as error:
                print(f"{cpu:15}{level:11}does not start: {str(error).splitlines()[-1]}")
                continue
            for own, expected in here.items():
                if level not in (own, levels.NATIVE):
                    continue
                wrong = [name for name in expected if name and found[name] != expected[name]]
                told = ", ".join(wrong) if 0 < len(wrong) < 9 else f"{len(wrong)} differ"
                told = told if wrong else "same"
                print(f"{cpu:15}{level:11}against {own} here: {len(found) - 1} cases, {told}")


if __name__ == "__main__":
    main()
