"""So that dptrain's speed stands beside its peers': the same training, in turn, on this machine.

Each network is trained on the same data by dptrain, by PyTorch DDP (gloo, also for one rank) and,
in one process, by scikit-learn's MLP, one after the other, several rounds long, each time in fresh
processes with one thread a rank. What counts is the time of the training steps alone; the first
epoch is a warm-up. SGD with momentum, float32, relu, the same minibatches' size, the same rate.
A perceptron, a convolutional network and a transformer are PyTorch's with both, each from one file.

    python examples/peers/compare.py
    python examples/peers/compare.py --rounds 2 --networks 64-128-10 cnn --ranks 1 2 --json out.json

Any Python 3.11 or later will do: dptrain as it stands in this checkout and its peers go into
`.venv` beside this file. On Linux pip may bring torch's GPU libraries along, some GB that are not
used; pip's own settings choose where torch is from.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
BIN = VENV / "bin"
INSTALLED = ("torch==2.13.0", "scikit-learn", "--editable", f"{HERE.parents[1]}[mpi]")
NAMED = ("dptrain", "numpy", "mpich", "torch", "scikit-learn")

DPTRAIN, DDP, SKLEARN = "dptrain", "PyTorch DDP", "scikit-learn"
DEFAULT = "dptrain, default shards"
"""With a shard for each 64 examples; else it has one for each rank, as DDP has."""


@dataclass(frozen=True)
class Network:
    """What is trained, and for how long: `rows` and `epochs` make a measurement 1 or 2 s long."""

    batch_size: int
    learning_rate: float
    rows: int
    epochs: int
    """The first, which is the warm-up, included."""
    ranks: tuple[int, ...] = (1, 2, 4)
    sizes: tuple[int, ...] = ()
    """Of a perceptron's layers."""
    task: str = "classification"
    file: str = ""
    """Of examples/, with a module of PyTorch's and its loss."""

    @property
    def name(self) -> str:
        """Its file's name, or its layers' sizes, as in 64-128-10."""
        return Path(self.file).stem or "-".join(map(str, self.sizes))

    def job(self, data: Path) -> str:
        """Return what each of the run_*.py is told, as JSON."""
        job = {
            "data": str(data),
            "task": self.task,
            "file": self.file and str(HERE.parent / self.file),
            "hidden": self.sizes[1:-1],
            "outputs": self.sizes[-1] if self.sizes else 0,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "momentum": 0.9,
            "epochs": self.epochs,
        }
        return json.dumps(job)

    def peers(self, ranks: int) -> tuple[str, ...]:
        """Return who trains it on so many ranks."""
        alone = (SKLEARN,) if ranks == 1 and not self.file else ()
        return (DPTRAIN, DEFAULT, DDP, *alone)


NETWORKS = (
    Network(256, 0.01, rows=8192, epochs=4, sizes=(784, 512, 512, 10)),
    Network(256, 0.01, rows=8192, epochs=4, sizes=(784, 512, 512, 10), file="peers/perceptron.py"),
    Network(64, 0.01, rows=6400, epochs=11, sizes=(64, 128, 10)),
    Network(512, 0.1, rows=2560, epochs=3, ranks=(1, 2), sizes=(1024, 2048, 2048, 1000)),
    Network(
        1024, 0.001, rows=16384, epochs=5, sizes=(32, 256, 256, 256, 256, 1), task="regression"
    ),
    Network(128, 0.01, rows=768, epochs=3, file="cnn.py"),
    Network(64, 0.01, rows=256, epochs=3, task="regression", file="letters.py"),
)


@dataclass(frozen=True)
class Measurement:
    """What one start of one peer came to."""

    network: str
    ranks: int
    round: int
    peer: str
    ms: float
    """Of a step, the mean over `steps`."""
    steps: int
    first_loss: float
    """The mean training loss of the first epoch."""
    loss: float
    """The mean training loss of the last epoch."""


def prepare_venv() -> None:
    """Make the virtual environment, where it does not yet hold what is needed."""
    stamp = VENV / "installed"
    if stamp.exists() and stamp.read_text() == "\n".join(INSTALLED):
        return
    print(f"installing dptrain, PyTorch and scikit-learn into {VENV}", file=sys.stderr)
    venv.create(VENV, with_pip=True, clear=True)
    subprocess.run([BIN / "pip", "install", "--quiet", *INSTALLED], check=True)
    stamp.write_text("\n".join(INSTALLED))


def started(peer: str, ranks: int) -> list[str]:
    """Return the command that starts a peer, but for its job."""
    python, number = str(BIN / "python"), str(ranks)
    if peer in (DPTRAIN, DEFAULT):
        script = [python, str(HERE / "run_dptrain.py"), *(["--default"] * (peer == DEFAULT))]
        return [str(BIN / "mpirun"), "-n", number, *script]
    if peer == DDP:
        return [
            *(str(BIN / "torchrun"), "--standalone", f"--nproc-per-node={number}"),
            str(HERE / "run_torch.py"),
        ]
    return [python, str(HERE / "run_sklearn.py")]


def output_of(command: list[str]) -> str:
    """Run a command with one thread a process, gloo on loopback, and return what it prints."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {**os.environ, **threads, "GLOO_SOCKET_IFNAME": loopback}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nstatus {done.returncode}: {' '.join(command)}")
    return done.stdout


def measure(network: Network, data: Path, ranks: list[int], rounds: int) -> Iterator[Measurement]:
    """Yield what each peer came to, the peers in turn in every round."""
    kind = network.file or network.task
    sizes = (str(size) for size in (*network.sizes[:: len(network.sizes) - 1], network.rows))
    output_of([str(BIN / "python"), str(HERE / "make_data.py"), str(data), kind, *sizes])
    for number in (ranks_ for ranks_ in network.ranks if ranks_ in ranks):
        for turn in range(1, rounds + 1):
            for peer in network.peers(number):
                found = json.loads(output_of([*started(peer, number), network.job(data)]))
                yield Measurement(network.name, number, turn, peer, **found)


def table(found: list[Measurement]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown: a line for each network and number of ranks.

    "Its default" is dptrain's time with its default number of shards.

    A ratio is a peer's time divided by dptrain's: of the medians, and the median of the rounds'.
    The losses are the peers' in their order; each starts from weights of its own.
    """
    yield (
        "| network, batch | ranks | dptrain, ms a step | its default | PyTorch DDP | ratio "
        "| by rounds | scikit-learn | ratio | last training losses |"
    )
    yield "|---" * 10 + "|"
    for network in NETWORKS:
        for ranks in network.ranks:
            times: dict[str, list[float]] = {DPTRAIN: [], DEFAULT: [], DDP: [], SKLEARN: []}
            losses = {}
            for item in found:
                if (item.network, item.ranks) == (network.name, ranks):
                    times[item.peer].append(item.ms)
                    losses[item.peer] = f"{item.loss:.3g}"
            if not losses:
                continue
            middle = {peer: median(ms) for peer, ms in times.items() if ms}
            rounds = [ddp / own for own, ddp in zip(times[DPTRAIN], times[DDP], strict=True)]
            cells = [f"{network.name}, {network.batch_size}", str(ranks)]
            cells += [f"{middle[peer]:.3g}" for peer in (DPTRAIN, DEFAULT, DDP)]
            cells += [f"{middle[DDP] / middle[DPTRAIN]:.2f}", f"{median(rounds):.2f}"]
            if SKLEARN in middle:
                cells += [f"{middle[SKLEARN]:.3g}", f"{middle[SKLEARN] / middle[DPTRAIN]:.2f}"]
            else:
                cells += ["", ""]
            yield "| " + " | ".join([*cells, " / ".join(losses.values())]) + " |"


def about(rounds: int) -> str:
    """Return when, where and with what this was measured."""
    packages = json.loads(output_of([str(BIN / "pip"), "list", "--format=json"]))
    versions = {package["name"]: package["version"] for package in packages}
    named = ", ".join(f"{name} {versions[name]}" for name in NAMED if name in versions)
    processor, listed = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
    return (
        f"{datetime.date.today()}; {processor}, {os.cpu_count()} cores, {platform.system()}; "
        f"Python {platform.python_version()}, {named}; medians of {rounds} rounds"
    )


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    names, numbers = [network.name for network in NETWORKS], [1, 2, 4]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--ranks", nargs="+", type=int, choices=numbers, default=numbers)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write each measurement")
    return parser.parse_args()


def main() -> None:
    asked = options()
    prepare_venv()
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            if network.name in asked.networks:
                data = Path(folder) / f"{network.name}.npz"
                for item in measure(network, data, asked.ranks, asked.rounds):
                    print(
                        f"{item.network}, ranks {item.ranks}, round {item.round}: "
                        f"{item.peer} {item.ms:.3g} ms a step, {item.steps} steps, "
                        f"loss {item.first_loss:.3g} to {item.loss:.3g}",
                        file=sys.stderr,
                        flush=True,
                    )
                    found.append(item)
    print(f"{about(asked.rounds)}\n")
    print("\n".join(table(found)))
    if asked.json:
        content = {"about": about(asked.rounds), "measurements": [asdict(item) for item in found]}
        asked.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
