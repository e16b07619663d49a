"""So that all peers learn from the same rows: makes data from a seed, stored as x and y in .npz.

Classes are clouds around random centres; values are what a small random network returns. Both can
be learned, so that the losses printed at the end show whether a peer has trained.

    python make_data.py FILE.npz INPUTS OUTPUTS ROWS classification
"""

import sys

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def clouds(inputs: int, classes: int, rows: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return x [rows, inputs] and labels [rows], every class as often as any other."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, inputs), np.float32) * 3 / np.sqrt(np.float32(inputs))
    y = rng.permutation(np.arange(rows) % classes)
    return centres[y] + rng.standard_normal((rows, inputs), np.float32), y


def values(inputs: int, rows: int) -> tuple[Floats, Floats]:
    """Return x [rows, inputs] and y [rows] of mean 0 and variance 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, inputs), np.float32)
    weight = rng.standard_normal((inputs, 16), np.float32) / np.sqrt(np.float32(inputs))
    y = np.tanh(x @ weight) @ rng.standard_normal(16, np.float32)
    return x, (y - y.mean()) / y.std()


def main() -> None:
    file, inputs, outputs, rows, task = sys.argv[1:]
    if task == "classification":
        x, y = clouds(int(inputs), int(outputs), int(rows))
        np.savez(file, x=x, y=y)
    else:
        x, targets = values(int(inputs), int(rows))
        np.savez(file, x=x, y=targets)


if __name__ == "__main__":
    main()
