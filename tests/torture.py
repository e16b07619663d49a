"""Kills a run at random moments, and shows that it ends with the bytes of the undisturbed one.

    python tests/torture.py --moments 100

Each time it goes on on a random number of ranks. Some three seconds a moment on two cores.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from disturb import MAX_RANKS, PHASES, Marks

from dptrain.record import checkpoint

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent

SETTINGS = "--shards 4 --hidden 512,128 --dropout 0.1 --validation 0.4 --patience 9999"
SETTINGS += " --clip-norm 1 --log-every 5 --checkpoint-every 7 --keep-checkpoints 2 --quiet"
"""Everything that has a state; where nothing ends the run but its steps."""

STEPS_A_MOMENT = 40
"""How long the run is: enough to be disturbed so often before it ends."""

LIMIT = 60.0
"""Seconds in which any start must reach what it is to be disturbed in, and end when it is."""

Kind = tuple[str, str]
KINDS: list[Kind] = [
    (name, whom)
    for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGUSR1")
    for whom in ("rank", "mpirun")
]

FATAL = [("SIGKILL", "rank"), ("SIGKILL", "mpirun"), ("SIGHUP", "mpirun")]
"""Those that no rank hears of: MPICH's mpirun dies of SIGHUP, and its ranks are killed."""


@contextlib.contextmanager
def started(run: Path, ranks: int, steps: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Start a run, or go on with it; all output goes to a file beside it. Ended with the block."""
    options = f"train --out {run} --continue --steps {steps} {SETTINGS}"
    line: list[str | Path] = [BIN / "mpirun", "-n", str(ranks)]
    line += [sys.executable, HERE / "disturb.py", "marked", marks_of(run), *options.split()]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as job scripts say
    with log_of(run).open("ab") as log:
        mpirun = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    try:
        yield mpirun
    finally:
        mpirun.kill()
        mpirun.wait()


def finish(run: Path, ranks: int, steps: int) -> None:
    """Start a run, or go on with it, to its end."""
    with started(run, ranks, steps) as mpirun:
        assert mpirun.wait(10 * LIMIT) == 0, log_of(run).read_text()


def log_of(run: Path) -> Path:
    """Return the file of all that a run's starts print."""
    return run.with_suffix(".log")


def marks_of(run: Path) -> Path:
    """Return the file in which a run's ranks mark what they do."""
    return run.with_suffix(".marks")


def wait_for(
    phase: str, marks: Marks, mpirun: "subprocess.Popen[bytes]", dice: random.Random
) -> None:
    """Wait until the first rank is in a phase, and a random moment longer.

    There must be a rank: what MPICH's mpirun is sent before, while it starts them, it may lose.
    """
    deadline = time.monotonic() + LIMIT
    while marks.phase != phase or not any(marks.ranks):
        if mpirun.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"{phase} was not reached within {LIMIT:g} s")
        time.sleep(0.0005)
    time.sleep(dice.choice((0, dice.uniform(0, 0.005), dice.uniform(0, 0.3))))
    if phase == "starting":
        time.sleep(dice.uniform(0, 1))


def disturb(kind: Kind, marks: Marks, mpirun: int, dice: random.Random) -> None:
    """Send a signal to mpirun or to a rank."""
    name, whom = kind
    target = dice.choice([*filter(None, marks.ranks)]) if whom == "rank" else mpirun
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(target, signal.Signals[name])


def check_checkpoints(run: Path) -> int:
    """Return how many checkpoints a run has; each must be whole."""
    num = 0
    for step in checkpoint.steps_of(run):
        path = checkpoint.path_of(run, step)
        try:
            checkpoint.read(path)
            num += 1
        except checkpoint.DamagedError:
            if path.exists():  # else a rank that has yet to end has removed it
                raise
    assert not [*(run / checkpoint.FOLDER).glob("*.damaged")]
    return num


def evidence(run: Path) -> dict[str, Any]:
    """Return what must not depend on how often a run was disturbed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "params_sha256": json.loads((run / "summary.json").read_text())["params_sha256"],
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
        "receipt": (run / "receipt.jsonl").read_text(),
        "model": (run / "model.safetensors").read_bytes(),
    }


def torture(folder: Path, moments: int, seed: int) -> Counter[tuple[str, ...]]:
    """Disturb a run so often, and return how often each kind came in each phase.

    AssertionError where anything differs from the undisturbed run, a checkpoint is not whole, or
    a start ends with a status that it should not have.
    """
    dice = random.Random(seed)  # noqa: S311 (no secret)
    calm, run, steps = folder / "calm", folder / "disturbed", moments * STEPS_A_MOMENT
    finish(calm, 1, steps)
    counts: Counter[tuple[str, ...]] = Counter()
    deck = [(kind, phase) for kind in KINDS for phase in PHASES]
    dice.shuffle(deck)
    num_read = 0
    for moment in range(1, moments + 1):
        marks_of(run).unlink(missing_ok=True)
        marks = Marks(marks_of(run))
        ranks = dice.randint(1, MAX_RANKS)
        with started(run, ranks, steps) as mpirun:
            kind, phase = deck[moment % len(deck)]
            wait_for(phase, marks, mpirun, dice)
            phase = marks.phase
            print(
                f"{moment:4}  {' '.join(kind):15} in {phase:11} on {ranks} ranks:",
                end=" ",
                flush=True,
            )
            disturb(kind, marks, mpirun.pid, dice)
            status = mpirun.wait(LIMIT)
        num_read += check_checkpoints(run)
        saved = max(checkpoint.steps_of(run), default=0)
        print(f"status {status:3}, {saved:5} steps saved", flush=True)
        if kind in FATAL or phase == "starting":
            assert status not in (0, 2), log_of(run).read_text()
        else:
            assert status == 75, log_of(run).read_text()
        counts[(*kind, phase)] += 1
    finish(run, dice.randint(1, MAX_RANKS), steps)
    assert evidence(run) == evidence(calm)
    print(f"{num_read} checkpoints read, all whole")
    return counts


def main() -> None:
    """Disturb a run, and print how often each kind of moment came."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="decides kinds, phases and ranks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = torture(Path(folder), options.moments, options.seed)
    print(" " * 15, *(f"{phase:>11}" for phase in PHASES))
    for kind in KINDS:
        row = (counts[(*kind, phase)] for phase in PHASES)
        print(f"{' '.join(kind):15}", *(f"{number:11}" for number in row))
    print(f"{counts.total()} moments: the same parameters, metrics, receipt and model")


if __name__ == "__main__":
    main()
