"""Makes a data set larger than most memories: x.npy and y.npy, block by block, in constant memory.

    python examples/large_data.py big --gigabytes 12
    dptrain data convert big/x.npy big/y.npy big/converted
    mpirun -n 2 dptrain train big/converted --hidden 512,512 --steps 1000 --out runs/big

The rows are 784 float32 inputs and one of ten classes, which a network can learn.
"""

import argparse
from pathlib import Path

import numpy as np

INPUTS, CLASSES, BLOCK = 784, 10, 2**14


def make(folder: Path, num_rows: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    centers = np.random.default_rng(0).standard_normal((CLASSES, INPUTS), np.float32)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (num_rows, INPUTS))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (num_rows,))
    for start in range(0, num_rows, BLOCK):
        rng = np.random.default_rng((1, start))
        rows = slice(start, min(start + BLOCK, num_rows))
        y[rows] = rng.integers(0, CLASSES, rows.stop - start)
        noise = rng.standard_normal((rows.stop - start, INPUTS), np.float32)
        x[rows] = centers[y[rows]] + 4 * noise
        if start % (64 * BLOCK) == 0:
            x.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=12)
    options = parser.parse_args()
    make(options.folder, int(options.gigabytes * 1e9 / (4 * INPUTS + 8)))
