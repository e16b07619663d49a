"""So that all peers learn from the same rows: makes data from a seed, stored as x and y in .npz.

Classes are clouds around random centres, of an image of one colour with cnn.py; values are what a
small random network returns; letters of letters.py follow from those before. All can be learned, so
that the losses printed at the end show whether a peer has trained.

    python make_data.py FILE.npz classification INPUTS OUTPUTS ROWS
    python make_data.py FILE.npz cnn.py ROWS
"""

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def clouds(inputs: int, classes: int, rows: int) -> tuple[Floats, Ints]:
    """Return x [rows, inputs] and labels [rows], every class as often as any other."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, inputs), np.float32) * 3 / np.sqrt(np.float32(inputs))
    y = rng.permutation(np.arange(rows) % classes)
    return centres[y] + rng.standard_normal((rows, inputs), np.float32), y


def values(inputs: int, _: int, rows: int) -> tuple[Floats, Floats]:
    """Return x [rows, inputs] and y [rows] of mean 0 and variance 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, inputs), np.float32)
    weight = rng.standard_normal((inputs, 16), np.float32) / np.sqrt(np.float32(inputs))
    y = np.tanh(x @ weight) @ rng.standard_normal(16, np.float32)
    return x, (y - y.mean()) / y.std()


def images(rows: int) -> tuple[Floats, Ints]:
    """Return x [rows, 28, 28] and labels [rows] of 10 classes."""
    x, y = clouds(28 * 28, 10, rows)
    return x.reshape(-1, 28, 28), y


def letters(rows: int) -> tuple[Ints, Floats]:
    """Return letters [rows, 64], each the one before plus 0 to 2, and those that follow them."""
    rng = np.random.default_rng(0)
    text = np.cumsum(rng.integers(0, 3, (rows, 65)), axis=1) % 96
    return text[:, :-1], text[:, 1:].astype(np.float32)


KINDS: dict[str, Callable[..., tuple[Floats | Ints, Floats | Ints]]] = {
    "classification": clouds,
    "regression": values,
    "peers/perceptron.py": clouds,
    "cnn.py": images,
    "letters.py": letters,
}


def main() -> None:
    file, kind, *sizes = sys.argv[1:]
    x, y = KINDS[kind](*map(int, sizes))
    np.savez(file, x=x, y=y)


if __name__ == "__main__":
    main()
