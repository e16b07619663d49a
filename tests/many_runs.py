"""Trains many small runs and prints what each came to; started by test_bytes.py with ranks.

One start of MPI for all of them: a line of JSON each, metrics without times.
"""

import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from own_model import SoftmaxRegression

import dptrain
from dptrain import DataConfig, ModelConfig, TrainConfig
from dptrain.config import DType, Rule

HIDDEN = ModelConfig(hidden=(24, 16))


def runs() -> dict[str, tuple[Any, DataConfig, TrainConfig]]:
    """Return a name, and a model's settings (None: a model of one's own), data's, training's."""
    uneven = TrainConfig(shards=7, batch_size=250, steps=20)
    table: dict[str, tuple[Any, DataConfig, TrainConfig]] = {
        rule: (HIDDEN, DataConfig(), replace(uneven, optimizer=rule, weight_decay=0.01))
        for rule in get_args(Rule)
    }
    everything = replace(
        uneven, clip_norm=0.5, clip_value=0.1, schedule="cosine", warmup=4, log_every=3
    )
    for dtype in get_args(DType):
        model = ModelConfig(hidden=(24, 16), dropout=0.3, activation="gelu", dtype=dtype)
        table[f"everything {dtype}"] = (model, DataConfig(scale="minmax"), everything)
    table["three examples on four shards"] = (
        HIDDEN,
        DataConfig(),
        TrainConfig(shards=4, batch_size=3, steps=10),
    )
    table["early stopping"] = (
        HIDDEN,
        DataConfig(validation=0.2),
        TrainConfig(shards=3, batch_size=300, epochs=9, learning_rate=0.2, patience=1),
    )
    for loss in ("mean-squared-error", "huber", "binary-cross-entropy"):
        table[loss] = (
            replace(HIDDEN, activation="tanh", loss=loss, dtype="float64"),
            DataConfig(validation=0.1),
            TrainConfig(shards=5, batch_size=300, epochs=2, schedule="step", decay_epochs=1),
        )
    table["one's own model"] = (None, DataConfig(), TrainConfig(epochs=1, shards=4))
    return table


def main() -> None:
    """Train every run, writing nothing, and print its digest and metrics on rank 0."""
    world = dptrain.connect()
    for name, (model_config, data_config, config) in runs().items():
        files = {"mean-squared-error": "regression.npz", "huber": "regression.npz"}
        files["binary-cross-entropy"] = "multilabel.npz"
        data = dptrain.load(files.get(name, ()), data_config)
        if model_config is None:
            model: dptrain.Model = SoftmaxRegression(64, 10)
        else:
            model = dptrain.mlp_for(data, model_config)
        trained = dptrain.fit(model, data, config)
        history = [{k: v for k, v in line.items() if k != "seconds"} for line in trained.history]
        found = {k: v for k, v in trained.summary.items() if "second" not in k and k != "ranks"}
        assert np.isfinite(trained.params).all()
        if world.rank == 0:
            print(json.dumps({"name": name, **found, "history": history}))


if __name__ == "__main__":
    main()
