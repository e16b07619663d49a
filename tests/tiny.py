"""Runs that last a twentieth of a second: for tests, and for the ranks that they start."""

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dptrain import MLP, Data, DataConfig, ModelConfig, Param, TrainConfig, World
from dptrain.arrays import Sums
from dptrain.record.receipt import Receipt, follow
from dptrain.run.fit import fit
from dptrain.run.ready import load, mlp_for
from dptrain.run.trained import Trained

ALONE = World()
CONFIG = TrainConfig(
    epochs=2,
    batch_size=120,
    shards=4,
    hash_every=2,
    log_every=2,
    patience=2,
    checkpoint_every="1 step",
    keep_checkpoints=2,
)
NUM_STEPS = 4
HIDDEN = ModelConfig(hidden=(4,))


def write_data(path: Path, seed: int = 0) -> Path:
    """Write 300 examples of three classes, of which 240 are trained on, as a .npz file."""
    x = np.random.default_rng(seed).standard_normal((300, 5)).round(2)
    np.savez(path, x=x, y=(x[:, 0] > 0).astype(int) + (x[:, 1] > 0))
    return path


@functools.cache
def load_once(data: Path) -> Data:
    """Return what many runs read."""
    return load(data, DataConfig(validation=0.2), world=ALONE)


def train(data: Path, out: Path | None, *, resume: bool = False, **settings: Any) -> Trained:
    """Train on a file of `write_data`, with `CONFIG` but for some settings."""
    config = replace(CONFIG, **settings)
    loaded = load_once(data)
    return fit(mlp_for(loaded, HIDDEN), loaded, config, out=out, resume=resume, world=ALONE)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run without its times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def bytes_of(run: Path) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """Return what two runs with the same result have in common: model, receipt, metrics."""
    model = (run / "model.safetensors").read_bytes()
    return model, (run / "receipt.jsonl").read_bytes(), metrics_of(run)


def receipt_of(run: Path) -> Receipt:
    """Return what the receipt of a run says, but for the steps."""
    found = Receipt()
    for _ in follow(run, found):
        pass
    return found


class RunningMean(MLP):
    """A model of one's own that keeps a running mean of the inputs beside what it learns."""

    def __init__(self, sizes: Sequence[int], **options: Any) -> None:
        super().__init__(sizes, **options)
        self.layout = (*self.layout, Param("mean", (sizes[0],), "statistic"))

    def loss_and_grad_sum(
        self, params: Any, x: Any, y: Any, weights: Any, out: Any, rng: Any
    ) -> Sums:
        """Write the new mean, times the weight sum, where the gradient of the mean would be."""
        sums = super().loss_and_grad_sum(params, x, y, weights, out, rng)
        n = self.sizes[0]
        mean = x.mean(axis=0) if weights is None else weights @ x / sums[1]
        out[-n:] = sums[1] * (0.9 * params[-n:] + 0.1 * mean)
        return sums
