"""PyTorch networks that tests train, each with what it can get wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dptrain import TorchModel

LETTERS = 9


class Network(nn.Module):
    """A convolutional network on 8x8 images; normalises, and drops some units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(8 * 16, 10)

    def forward(self, x: Any) -> Any:
        z = functional.relu(self.norm(self.conv(x.reshape(-1, 1, 8, 8))))
        return self.out(self.drop(functional.max_pool2d(z, 2)).flatten(1))


class Transformer(nn.Module):
    """Letters in, scores of the next letter at each place out; one array for both ways."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(LETTERS, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.1, batch_first=True)
        self.out = nn.Linear(width, LETTERS, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Any) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(
            x.shape[1], dtype=self.out.weight.dtype
        )
        return self.out(self.layer(self.embed(x.long()), src_mask=mask, is_causal=True))


def masked_loss(outputs: Any, targets: Any) -> Any:
    """Return a loss for each place, and 1 where it counts: targets below 0 fill the row up."""
    letters = targets.long()
    losses = functional.cross_entropy(outputs.movedim(2, 1), letters.clamp(min=0), reduction="none")
    return losses, letters >= 0


def count(outputs: Any, targets: Any) -> Any:
    """Return how many letters that count are right, and how many there are."""
    counts = targets >= 0
    return {"right": (((outputs.argmax(2) == targets) & counts).sum(), counts.sum())}


def mirror(x: Any, rng: np.random.Generator) -> Any:
    """Return an image, or its mirror image."""
    return x.reshape(8, 8)[:, ::-1].reshape(x.shape) if rng.random() < 0.5 else x


def write_letters(path: Path) -> None:
    """Write rows of letters, and of those that follow them, of uneven lengths."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, LETTERS, (300, 12))
    y = np.where(np.arange(12) < rng.integers(1, 13, (300, 1)), (x * 2 + 1) % LETTERS, -1)
    np.savez(path, x=x, y=y.astype(np.float32))


def perceptron() -> Any:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def models() -> Iterator[tuple[str, Any]]:
    """Yield models by name: in float32 and float64, without and with random numbers and masks."""
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(3)
        name = str(dtype).removeprefix("torch.")
        network, letters = Network().to(dtype), Transformer().to(dtype)
        yield f"torch perceptron {name}", TorchModel(perceptron().to(dtype))
        loss = functional.cross_entropy
        yield f"torch convolutions {name}", TorchModel(network, loss, transform=mirror)
        yield f"torch letters {name}", TorchModel(letters, masked_loss, metrics=count)
