"""A perceptron as PyTorch's module, by which dptrain's adapter is timed, and no BLAS of NumPy's."""

from typing import Any

from torch import nn
from torch.nn import functional


def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Return the network 784-512-512-10 of 784 inputs and 10 outputs."""
    first, second, last = nn.Linear(inputs[0], 512), nn.Linear(512, 512), nn.Linear(512, outputs)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def loss(outputs: Any, targets: Any) -> Any:
    """Return the cross-entropy of each example, as both sides take it from here."""
    return functional.cross_entropy(outputs, targets, reduction="none")
