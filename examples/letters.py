"""A small transformer that learns to write Python, letter by letter, from Python's own library.

The library is on every machine that has Python. First its text becomes rows of letters, and of the
letters that follow; the last row of each file is short, and what fills it up counts nothing:

    python examples/letters.py letters.npz
    mpirun -n 4 dptrain train letters.npz --model examples/letters.py:build --task regression \\
        --scale none --validation 0.02 --epochs 2 --learning-rate 0.003

The loss returns a number for each letter and whether it counts. What divides is the number of
letters that count in the whole minibatch, on all ranks. Were it each rank's own number, ranks with
short rows would count too much, and the result would depend on who has which.
"""

import ast
import string
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = "\n" + string.printable[:95]
"""Anything else is left out. A letter is its place here; -1 fills rows up."""

PLACES, HEADS = 64, 4


def rows(text: str) -> tuple[Any, Any]:
    """Return letters [m, PLACES] and those that follow them, -1 where there is none."""
    codes = np.array([LETTERS.index(letter) for letter in text if letter in LETTERS])
    num = -(-(len(codes) - 1) // PLACES)
    padded = np.full(num * PLACES + 1, -1)
    padded[: len(codes)] = codes
    return np.maximum(padded[:-1], 0).reshape(num, -1), padded[1:].reshape(num, -1)


def main() -> None:
    """Write the rows of some modules of the standard library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_text(errors="ignore") for path in sorted(folder.glob("*.py"))[:60]]
    parts = [rows(text) for text in texts if len(text) > PLACES and ast.parse(text)]
    x, y = (np.concatenate(part).astype(np.int16) for part in zip(*parts, strict=True))
    np.savez(sys.argv[1], x=x, y=y.astype(np.float32))
    print(f"{len(x):,} rows of {PLACES} letters")


def build(shape: tuple[int, ...], _: int, width: int = 128, layers: int = 4) -> Any:
    """Return a decoder: letters [m, places] to scores [m, places, letters]."""
    from torch import nn
    from torch.nn.functional import relu, scaled_dot_product_attention

    class Layer(nn.Module):
        """Each place takes what it looks for from those before it, then computes by itself.

        Written out, as nn.TransformerEncoderLayer copies more: a step takes 0.85 of its time.
        """

        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
            self.look, self.take = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, z: Any) -> Any:
            parts = self.look(self.norms[0](z)).unflatten(2, (3, HEADS, -1))
            query, key, value = parts.permute(2, 0, 3, 1, 4)
            found = scaled_dot_product_attention(query, key, value, is_causal=True)
            z = z + self.take(found.transpose(1, 2).flatten(2))
            return z + self.narrow(relu(self.widen(self.norms[1](z))))

    class Decoder(nn.Module):
        """Letters are read and written by one array."""

        def __init__(self) -> None:
            super().__init__()
            self.letters = nn.Embedding(len(LETTERS), width)
            self.places = nn.Embedding(shape[0], width)
            self.layers = nn.Sequential(*(Layer() for _ in range(layers)))
            self.norm = nn.LayerNorm(width)
            nn.init.normal_(self.letters.weight, std=width**-0.5)

        def forward(self, x: Any) -> Any:
            z = self.letters(x.long()) + self.places.weight[: x.shape[1]]
            return self.norm(self.layers(z)) @ self.letters.weight.T

    return Decoder()


def loss(outputs: Any, targets: Any) -> tuple[Any, Any]:
    """Return the loss of each letter [m, places], and 1 where it counts."""
    from torch.nn import functional

    wanted = targets.long()
    losses = functional.cross_entropy(outputs.movedim(2, 1), wanted.clamp(min=0), reduction="none")
    return losses, wanted >= 0


def metrics(outputs: Any, targets: Any) -> dict[str, tuple[Any, Any]]:
    """Return how many letters are guessed right, and out of how many."""
    counts = targets >= 0
    return {"right": (((outputs.argmax(2) == targets) & counts).sum(), counts.sum())}


if __name__ == "__main__":
    main()
