"""A convolutional network on images of clothes, from a file that imports nothing of dptrain.

Fashion-MNIST's four files, as its page gives them, in a folder:

    mpirun -n 4 dptrain train fashion/ --model examples/cnn.py:build --epochs 8 \\
        --batch-size 128 --learning-rate 0.004 --schedule cosine
    dptrain evaluate runs/... --model examples/cnn.py:build

It tells 0.9136 of the 10,000 test images right then, with 32,730 parameters.

dptrain calls `build` with the shape of an image and the number of classes, and takes what stands
beside it. Group normalisation looks at one image at a time, so each example's loss is its own;
batch normalisation would look at a shard. `transform` gets random numbers that belong to the seed,
the epoch and the image: whoever computes it, an image is shifted and mirrored alike.
"""

from typing import Any

import numpy as np
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions with a way around them; half as many pixels each way in the end."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.around = nn.Conv2d(inputs, outputs, 1)
        self.norms = nn.ModuleList([nn.GroupNorm(4, outputs) for _ in range(2)])

    def forward(self, x: Any) -> Any:
        """Return [m, outputs, height / 2, width / 2]."""
        z = functional.relu(self.norms[0](self.first(x)))
        z = self.norms[1](self.second(z))
        return functional.max_pool2d(functional.relu(z + self.around(x)), 2)


class Network(nn.Module):
    """Blocks, then the mean over what pixels are left, then scores."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, dropout: float) -> None:
        super().__init__()
        side = int(np.prod(shape) ** 0.5)
        self.shape = shape if len(shape) == 2 else (side, side)  # of a row of pixels a square
        self.blocks = nn.Sequential(Block(1, width), Block(width, 2 * width))
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(2 * width * (self.shape[0] // 4) * (self.shape[1] // 4), classes)

    def forward(self, x: Any) -> Any:
        """Return scores [m, classes] of images [m, height, width], of whole numbers or scaled."""
        whole = not x.is_floating_point()
        z = x.reshape(len(x), 1, *self.shape).to(self.out.weight.dtype)
        return self.out(self.drop(self.blocks(z / 128 - 1 if whole else z)).flatten(1))


def build(shape: tuple[int, ...], classes: int, width: int = 16, dropout: float = 0.3) -> Network:
    return Network(shape, classes, width, dropout)


def transform(x: Any, rng: np.random.Generator) -> Any:
    """Return an image mirrored at random, and moved by a pixel or none."""
    if x.ndim < 2:  # the pixels have lost their places
        return x
    image = x[:, ::-1] if rng.random() < 0.5 else x
    return np.roll(image, rng.integers(-1, 2, 2), axis=(0, 1))


def loss(outputs: Any, targets: Any) -> Any:
    """Return one number an image, never their mean: dptrain divides once, over all ranks."""
    return functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.05)
