"""Compares how running statistics predict: dptrain's, and those of PyTorch's own way on ranks.

    python tests/batch_norm.py

A convolutional network with batch normalisation learns the digits in minibatches of 256, cut into
shards of 64 and of 16, from three seeds. PyTorch DDP's way is done here in one process: each shard
is normalised by itself, gradients are averaged, and the statistics that are kept are those of the
first rank. dptrain keeps the mean over all shards.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch_models
from torch.nn import functional

import dptrain
from dptrain import Data, DataConfig, TorchModel, TrainConfig
from dptrain.order import Order

EPOCHS, BATCH, RATE = 10, 256, 0.1


def own_way(net: Any, data: Data, shards: int, seed: int) -> Any:
    """Train as DDP does with a shard a rank, in the order that dptrain has, and return the net."""
    order = Order(len(data.train), BATCH, shards, seed)
    rule, model = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9), TorchModel(net)
    for epoch in range(EPOCHS):
        for batch in order.steps(epoch):
            rule.zero_grad()
            kept = None
            for shard in range(shards):
                rows = batch.shard(shard)
                x, y = map(torch.from_numpy, data.train.gather(rows, model))
                functional.cross_entropy(net(x), y, reduction="sum").div(batch.size).backward()
                kept = kept or {name: b.clone() for name, b in net.named_buffers()}
            for name, buffer in net.named_buffers():
                buffer.copy_((kept or {})[name])
            rule.step()
    return net.eval()


def found(shards: int, seed: int, data: Data) -> Iterator[tuple[str, float, float]]:
    """Yield who has trained, and loss and accuracy on the test images."""
    assert data.test
    config = TrainConfig(
        batch_size=BATCH,
        shards=shards,
        epochs=EPOCHS,
        seed=seed,
        optimizer="momentum",
        learning_rate=RATE,
    )
    torch.manual_seed(seed)
    net = torch_models.Network()
    net.drop.p = 0.0  # whose random numbers are each one's own
    summary = dptrain.fit(TorchModel(net), data, config).summary
    yield "dptrain", summary.metrics["test_loss"], summary.metrics["test_accuracy"]
    x, y = map(torch.from_numpy, data.test.gather(slice(None), TorchModel(net)))
    trained = own_way(net, data, shards, seed)
    with torch.no_grad():
        scores = trained(x)
    right = (scores.argmax(1) == y).double().mean()
    yield "PyTorch's way", float(functional.cross_entropy(scores, y)), float(right)


def main() -> None:
    data = dptrain.load(config=DataConfig(scale="standard"))
    torch.set_num_threads(1)
    print("| shards of | trained by | test loss | test accuracy |\n|---|---|---|---|")
    for shards in (4, 16):
        rows = [line for seed in range(3) for line in found(shards, seed, data)]
        for who in dict.fromkeys(name for name, *_ in rows):
            own = np.array([numbers for name, *numbers in rows if name == who])
            losses, right = own.T
            print(f"| {BATCH // shards} | {who} | {losses.mean():.4f} ({losses.min():.4f} to "
                  f"{losses.max():.4f}) | {right.mean():.4f} |")  # fmt: skip


if __name__ == "__main__":
    main()
