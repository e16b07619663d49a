"""Starts jobs of which one rank is odd, and shows that they end soon, with that rank named, once.

    python tests/odd_ranks.py --starts 200

The odd rank leaves, in one way or another, at one moment or another, or was started otherwise.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dptrain.world import cut

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent

LIMIT = 15.0
"""Seconds in which a job with an odd rank must end, where nothing else uses the machine."""

MOMENTS = ("before", "connected", "loaded", "step", "evaluation", "trained")
"""When a rank of this script is odd: before MPI starts, between two calls, within one, at its end.
"""

WITHIN = ("step", "evaluation")

TEST_BLOCKS = 2
"""Blocks of the embedded test rows: a rank without one never gets to an evaluation's middle."""

UNNAMED = {"os._exit(0)", "os._exit(3)", "SIGKILL", "SIGSEGV", "SIGTERM", "SIGHUP"}
"""Ways to leave in which a process says nothing any more: launchers name its process, not its rank.
Where one rank calls os._exit(0), MPICH's mpirun may even return 0."""

WAYS = (
    *("raise", "sys.exit(0)", "sys.exit(3)", "sys.exit('no')", "quit", "argparse", "InputError"),
    *("another hook", "KeyboardInterrupt", "another call", "no call", *sorted(UNNAMED)),
)

OTHERWISE = (
    *("true", "dptrain --version", "dptrain --help", "dptrain doctor", "dptrain explain"),
    *("dptrain evaluate nowhere", "dptrain verify nowhere", "dptrain train --resume nowhere"),
    *("dptrain train --steps 3", "dptrain train --no-such-option", "dptrain train nowhere.csv"),
    *("dptrain train --config nowhere.toml", "python -c 1/0"),
)
"""Commands of an odd rank; those of the others are ORDINARY."""

ORDINARY = "dptrain train --shards 4 --steps 200 --quiet"


@dataclass(frozen=True)
class Start:
    """A job: how many ranks, which of them is odd, and how."""

    ranks: int
    odd: int
    how: str
    moment: str = ""

    @property
    def command(self) -> list[str]:
        """What to start."""
        mpirun, script = str(BIN / "mpirun"), str(HERE / "odd_ranks.py")
        if self.moment:
            words = [sys.executable, script, "--rank", str(self.odd), self.how, self.moment]
            return [mpirun, "-n", str(self.ranks), *words]
        parts = ((self.odd, ORDINARY), (1, self.how), (self.ranks - self.odd - 1, ORDINARY))
        groups = [["-n", str(n), *_found(line)] for n, line in parts if n]
        return [mpirun, *groups[0], *(word for group in groups[1:] for word in (":", *group))]

    @property
    def named(self) -> bool:
        """Whether the rank must be named in what is printed.

        A model is tried on rank 0 before the first step, for all: what it says is wrong is all's.
        So is what it says while rows are measured.
        """
        alls = self.moment == "evaluation" or (self.moment == "step" and self.odd == 0)
        tried = self.how == "InputError" and alls
        return not tried and self.how not in UNNAMED and self.how != "KeyboardInterrupt"

    @property
    def may_be_fine(self) -> bool:
        """Whether the status may be 0: the rank had done its part, or a launcher thinks so."""
        ends = self.moment == "trained" and self.how in ("sys.exit(0)", "quit", "no call")
        saved = self.moment in WITHIN and self.how in ("SIGTERM", "SIGHUP")
        return ends or saved or self.how == "os._exit(0)"


def _found(line: str) -> list[str]:
    """Return a command with the programs of this environment."""
    program, *rest = line.split()
    return [str(BIN / program) if (BIN / program).exists() else program, *rest]


def starts(seed: int) -> Iterator[Start]:
    """Yield jobs without end: every way at every moment, and every other command, in random order.

    The first ones are of as many kinds as there are.
    """
    dice = random.Random(seed)  # noqa: S311 (no secret)
    kinds = [*itertools.product(WAYS, MOMENTS), *((how, "") for how in OTHERWISE)]
    kinds = [(how, when) for how, when in kinds if when not in WITHIN or "call" not in how]
    while True:
        dice.shuffle(kinds)
        for how, moment in kinds:
            ranks = dice.randint(2, 4)
            held = [rank for rank in range(ranks) if cut(TEST_BLOCKS, ranks, rank)]
            odd = dice.choice(held if moment == "evaluation" else range(ranks))
            yield Start(ranks, odd, how, moment)


def check(start: Start, folder: Path, limit: float) -> tuple[int, float]:
    """Run a job; return its status and seconds. AssertionError where it does not end as it should.

    What is printed must name the odd rank, in one line of dptrain's.
    """
    began = time.monotonic()
    job = subprocess.Popen(
        start.command, cwd=folder, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True
    )
    try:
        stdout, stderr = job.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        job.kill()
        raise AssertionError(f"{start} has not ended within {limit:g} s") from None
    took, told = time.monotonic() - began, f"{start}: status {job.returncode}\n{stdout}\n{stderr}"
    assert job.returncode != 0 or start.may_be_fine, told
    reasons = [line for line in stderr.splitlines() if line.startswith("dptrain: ")]
    if start.named and job.returncode != 0:
        assert len(reasons) == 1, told
        assert f"rank {start.odd}" in reasons[0], told
    return job.returncode, took


def fail(kind: type[BaseException]) -> None:
    """Raise an exception."""
    raise kind("this rank only")


def fail_with_another_hook() -> None:
    """Raise an exception that another hook than dptrain's shows."""
    sys.excepthook = lambda kind, error, trace: print(kind, error, trace)
    fail(RuntimeError)


def signal_self(name: str) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(0.3)  # a run hears it between two instructions of Python


def leave(how: str) -> None:
    """Be odd."""
    import dptrain

    ways: dict[str, Callable[[], object]] = {
        "raise": lambda: fail(RuntimeError),
        "InputError": lambda: fail(dptrain.InputError),
        "KeyboardInterrupt": lambda: fail(KeyboardInterrupt),
        "another hook": fail_with_another_hook,
        "sys.exit(0)": lambda: sys.exit(0),
        "sys.exit(3)": lambda: sys.exit(3),
        "sys.exit('no')": lambda: sys.exit("no"),
        "quit": quit,
        "argparse": lambda: argparse.ArgumentParser().parse_args(["--wrong"]),
        "os._exit(0)": lambda: os._exit(0),
        "os._exit(3)": lambda: os._exit(3),
        "another call": dptrain.load,
        "no call": lambda: None,
    }
    ways.get(how, lambda: signal_self(how))()


def job(odd: int, how: str, moment: str) -> None:
    """Be a rank, perhaps the odd one."""
    import dptrain
    from dptrain.arrays import Floats
    from dptrain.launch import announced

    launch = announced()
    mine = launch is not None and launch.rank == odd

    def at(now: str) -> bool:
        """Return whether the rest is to be left out."""
        if mine and now == moment:
            leave(how)
            return how == "no call"
        return False

    class Odd(dptrain.MLP):
        steps = 0

        def loss_and_grad_sum(self, *args: Any) -> dptrain.Sums:
            self.steps += 1
            if self.steps == 3:
                at("step")
            return super().loss_and_grad_sum(*args)

        def outputs(self, params: Floats, x: Floats) -> Floats:
            at("evaluation")
            return super().outputs(params, x)

    if at("before"):
        return
    dptrain.connect()
    if at("connected"):
        return
    data = dptrain.load()
    if at("loaded"):
        return
    model = Odd(**dptrain.mlp_for(data).spec())
    dptrain.fit(model, data, dptrain.TrainConfig(shards=4, steps=10))
    if not at("trained"):
        dptrain.load()


def main() -> None:
    """Be a rank of a job, or start many jobs and print how each has ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--rank", type=int, help="be a rank of a job; which of them is odd")
    parser.add_argument("how", nargs="*")
    options = parser.parse_args()
    if options.rank is not None:
        job(options.rank, *options.how)
        return
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, start in enumerate(itertools.islice(starts(options.seed), options.starts), 1):
            status, took = check(start, Path(folder), options.limit)
            longest = max(longest, took)
            moment = start.moment or "start"
            print(
                f"{number:4}  rank {start.odd} of {start.ranks}, {start.how!r} at {moment}:",
                end=" ",
            )
            print(f"status {status}, {took:.1f} s", flush=True)
    print(f"{options.starts} starts, each ended within {longest:.1f} s")


if __name__ == "__main__":
    main()
