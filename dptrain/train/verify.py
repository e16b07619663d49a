"""Checks what a run says it did: its receipt and its files, and steps by doing them once more."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dptrain.config import (
    DataConfig,
    InputError,
    ModelConfig,
    TrainConfig,
    data_files,
    from_settings,
)
from dptrain.model import Model
from dptrain.model.mlp import MLP
from dptrain.order import Batch
from dptrain.record import checkpoint, receipt, rundir
from dptrain.record.files import TEXT, open_plain, read_object
from dptrain.record.progress import Silence, progress
from dptrain.record.receipt import Receipt
from dptrain.reduce.digest import digest
from dptrain.train.fit import load, mlp_for
from dptrain.train.identity import FREE, LENGTH, identity
from dptrain.train.loop import Recorder, Training, begin, train_epoch
from dptrain.train.resume import check_lines, find
from dptrain.train.state import forms, restore
from dptrain.train.threads import blas_threads
from dptrain.world import World, collective, connect


@dataclass
class Verdict:
    """What has been checked of a run, and what was found."""

    run: str
    ranks: int
    steps: int = 0
    """How many steps the receipt has."""
    wrong: list[str] = field(default_factory=list)
    """What is not as it should be."""
    fine: list[str] = field(default_factory=list)
    """What is."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing."""
    replayed: tuple[int, int] | None = None
    """The first and last step that were done once more."""
    replayed_from: int = 0
    """The step of the checkpoint that this began with; 0 for the run's own beginning."""
    digests: dict[int, str] = field(default_factory=dict)
    """The parameters' hashes in the checkpoints that are whole, by step."""
    first_difference: dict[str, Any] | None = None
    """The first of these that came out otherwise, with what is in the receipt and what was found"""

    @property
    def verdict(self) -> str:
        """In a word: identical (replayed), whole (checked), or not."""
        if self.first_difference is not None:
            return "different"
        if self.wrong:
            return "damaged"
        return "identical" if self.replayed else "whole"

    def values(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"verdict": self.verdict, **asdict(self)}


@collective
def verify(
    run: str | Path,
    replay: str | None = None,
    data: Sequence[str] = (),
    *,
    model: Model | None = None,
    quiet: bool = True,
    world: World | None = None,
) -> Verdict:
    """Check a run: the receipt's chain, checkpoints and model against it, and steps replayed.

    Parameters
    ----------
    run
        The run directory, which only rank 0 needs to see.
    replay
        Steps to do once more, such as "100:200", counted from 1, of which either may be left out;
        or "all". They start from the newest checkpoint before them.
    data
        Where the run's data is now; where it was, unless given.
    model
        For a run with a model of one's own; else it is made from the run's settings.
    quiet
        Show no progress.
    world
        The ranks, as many as one likes; all that MPI started unless given.

    Collective: every rank must call this.

    Raises
    ------
    InputError
        There is no run, the steps are not in it, or the data can't be read.
    """
    world, path = world or connect(), Path(run)
    found = Receipt()
    verdict = Verdict(str(run), world.size)
    with world.together():
        if data and replay is None:
            raise InputError(f"{data[0]} is given as data, which only --replay looks at")
        if world.rank == 0:
            found = check_files(path, verdict)
            if replay is not None and found.num_lines:
                verdict.replayed = _range(replay, found)
    shared: tuple[Verdict, Receipt] = world.broadcast((verdict, found))
    verdict, found = shared
    if verdict.replayed is not None:
        _replay(path, found, verdict, data, model, quiet, world)
    return verdict


def check_files(run: Path, verdict: Verdict) -> Receipt:
    """Check the files of a run against each other; what is found goes to `verdict`. Local."""
    config = rundir.read_config(run)
    kept = _checkpoints(run, verdict)
    try:
        found = receipt.read(run, marks=[state["receipt_lines"] for _, state in kept.values()])
    except InputError as error:
        verdict.wrong.append(str(error))
        return Receipt()
    if not found.num_lines:
        verdict.wrong.append(f"{rundir.RECEIPT} has no line: the run has hardly begun")
        return found
    verdict.steps = len(found.steps)
    verdict.fine.append(f"{rundir.RECEIPT}: {len(found.steps)} steps, each line follows its past")
    known = {line["params"] for line in found.steps if "params" in line}
    for step, (params, state) in kept.items():
        name = checkpoint.path_of(Path(), step).name
        line = found.steps[step - 1] if 0 < step <= len(found.steps) else {}
        if found.heads.get(state["receipt_lines"]) != state["receipt_sha256"]:
            verdict.wrong.append(f"{name}: the receipt is not the one it was written with")
        elif line.get("params", params["params"]) != params["params"]:
            verdict.wrong.append(f"{name}: its parameters are not those of the receipt")
        elif params.get("best", params["params"]) not in known | {params["params"]}:
            verdict.wrong.append(f"{name}: its best parameters are of no epoch of the receipt")
        else:
            verdict.fine.append(f"{name}: every byte, and the receipt up to it")
            verdict.digests[step] = params["params"]
    known |= set(verdict.digests.values())
    stored = found.run_before(len(found.steps) + 2)["settings"]
    other = [k for k in {**stored, **config} if k not in FREE and stored.get(k) != config.get(k)]
    if other:
        verdict.wrong.append(f"{rundir.CONFIG}: not as in the receipt: {', '.join(other)}")
    _end(run, found, known, verdict)
    return found


def _checkpoints(run: Path, verdict: Verdict) -> dict[int, tuple[dict[str, str], dict[str, Any]]]:
    """Return the digests of parameters, and the state, of each checkpoint that is whole."""
    found = {}
    for step in checkpoint.steps_of(run):
        path = checkpoint.path_of(run, step)
        try:
            arrays, state = checkpoint.read(path)
            digests = {
                name: digest(World(), array)
                for name, array in arrays.items()
                if name == "params" or (name == "best" and state.get("best_loss") != "inf")
            }
            found[step] = digests, check_lines(state, step)
        except FileNotFoundError:  # by the run, which goes on
            continue
        except (checkpoint.DamagedError, OSError, ValueError) as error:
            verdict.wrong.append(f"{path.name}: damaged: {error}")
    return found


def _end(run: Path, found: Receipt, known: set[str], verdict: Verdict) -> None:
    """Check what a run has written at its end: summary and model."""
    try:
        with open_plain(run / rundir.SUMMARY, TEXT) as file:
            summary = read_object(file.read())
        tensors, about = rundir.read_tensors(run / rundir.MODEL)
        params = MLP(**about["mlp"]).params_from(tensors) if about["mlp"] else tensors["params"]
        params_digest = digest(World(), params)
    except FileNotFoundError:
        verdict.notes.append("the run has not ended: what follows its last checkpoint may still go")
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        verdict.wrong.append(f"{rundir.SUMMARY} or {rundir.MODEL}: damaged: {error}")
        return
    if summary.get("receipt_sha256") in found.tail:
        verdict.fine.append(f"{rundir.SUMMARY}: names the receipt's last line")
    elif isinstance(summary.get("steps"), int) and summary["steps"] < len(found.steps):
        verdict.notes.append("the run has gone on since its summary was written")
        return
    else:
        verdict.wrong.append(f"{rundir.SUMMARY}: names another last line of the receipt")
    if params_digest in known:
        verdict.fine.append(f"{rundir.MODEL}: parameters that the receipt names")
    else:
        verdict.wrong.append(f"{rundir.MODEL}: parameters that the receipt does not name")


def _range(text: str, found: Receipt) -> tuple[int, int]:
    """Return the first and last step of "A:B", each of which may be left out, or of "all"."""
    parts = ["", ""] if text == "all" else text.split(":")
    last = len(found.steps)
    if len(parts) != 2 or not all(p == "" or (p.isdecimal() and len(p) < 17) for p in parts):
        raise InputError(f"replay is {text!r}; needed are two steps, such as 1:{last}, or all")
    ends = int(parts[0] or 1), int(parts[1] or last)
    if not 1 <= ends[0] <= ends[1] <= last:
        raise InputError(
            f"replay is {text!r}; the receipt has the steps 1 to {last}, and the first comes first"
        )
    return ends


class Replay(Recorder):
    """Compares steps with the lines of a receipt, on every rank alike, in place of writing them."""

    def __init__(
        self, run: Training, lines: list[dict[str, Any]], digests: dict[int, str], world: World
    ) -> None:
        self._run, self._lines, self._digests, self._world = run, lines, digests, world
        self.progress = Silence()
        self.first_difference: dict[str, Any] | None = None

    def step(self, batch: Batch, loss: float, asked: int) -> None:  # noqa: ARG002
        """See `Recorder.step`: ends the run at the first difference."""
        line = self._lines[batch.step]
        found = {"rows": receipt.rows_digest(batch.rows), "loss": loss.hex()}
        if "params" in line or self._run.step in self._digests:
            found["params"] = digest(self._world, self._run.reducer.params)
            line = {"params": self._digests.get(self._run.step), **line}
        wrong = {name: value for name, value in found.items() if line.get(name) != value}
        if wrong:
            stored = {name: line.get(name) for name in wrong}
            self.first_difference = {"step": self._run.step, "receipt": stored, "found": wrong}
            self._run.stopped = "different"
        self.progress.step(self._run.step, loss)


def _replay(
    path: Path,
    found: Receipt,
    verdict: Verdict,
    paths: Sequence[str],
    model: Model | None,
    quiet: bool,
    world: World,
) -> None:
    """Do steps of a run once more and compare. Collective."""
    assert verdict.replayed is not None  # noqa: S101 (for the type checker)
    first, last = verdict.replayed
    before = found.run_before(first)
    settings = before["settings"]
    with world.together():
        if model is None and "hidden" not in settings:
            raise InputError(
                f"{path} has a model of one's own: give it to dptrain.verify, in Python"
            )
    config = from_settings(TrainConfig, settings)
    data = load(
        paths or data_files(settings),
        from_settings(DataConfig, settings),
        seed=config.seed,
        world=world,
    )
    with world.together():
        model = model or mlp_for(data, from_settings(ModelConfig, settings))
    if model.num_params != before.get("num_params"):  # before there is memory for them
        had = before.get("num_params")
        verdict.wrong.append(f"the model has {model.num_params} parameters; the run had {had}")
        verdict.replayed = None
        return
    with blas_threads(config.threads), np.errstate(all="ignore"):
        run = begin(model, data, config, world)
        try:
            now = identity(settings, data, run, config, world)
            if _comparable(before, now, verdict):
                _go_to(run, path, first, world)
                verdict.replayed_from = run.step
                _check_unchanged(found, run.step, last)
                run.num_steps = last
                replay = Replay(run, found.steps, verdict.digests, world)
                replay.progress = progress(last, run.step, quiet=quiet or world.rank > 0)
                while run.step < last and not run.stopped:
                    train_epoch(run, config, world, replay)
                    run.next_epoch()
                replay.progress.close()
                verdict.first_difference = replay.first_difference
        except InputError as error:
            if error.everywhere:  # all give their memory back; of one rank's, all end
                run.reducer.close()
            raise
        run.reducer.close()


def _check_unchanged(found: Receipt, start: int, last: int) -> None:
    """Raise InputError where the run went on otherwise within the steps to be replayed."""
    for note in found.notes:
        settings = note["changed"].get("settings", {})
        only_longer = {*note["changed"]} == {"settings"} and {*settings} <= {*LENGTH}
        rate_follows = found.run_before(note["step"])["settings"].get("schedule") == "cosine"
        if start < note["step"] < last and (rate_follows or not only_longer):
            changed = ", ".join(dict.fromkeys([*settings, *note["changed"]]))
            raise InputError(
                f"after step {note['step']} the run went on changed ({changed}), and the replay "
                f"would go from step {start} to {last}; replay to {note['step']}, or from a "
                "checkpoint after it",
                everywhere=True,
            )


def _comparable(before: dict[str, Any], now: dict[str, Any], verdict: Verdict) -> bool:
    """Return whether steps can be compared; note what differs, as it may change bits."""
    if before.get("data") != now["data"]:
        verdict.wrong.append(f"data: {now['data']}; the run had {before.get('data')}")
        verdict.replayed = None
    for name in ("dptrain", "numpy", "blas", "cpu", "ranks"):
        if before.get(name) != now.get(name):
            here, there = now.get(name), before.get(name)
            verdict.notes.append(f"{name}: {here} here, {there} in the run: bits may differ by it")
    return verdict.replayed is not None


def _go_to(run: Training, path: Path, step: int, world: World) -> None:
    """Set a run to its newest checkpoint before a step, or leave it at its start. Collective."""
    arrays: dict[str, NDArray[Any]] = {}
    state: dict[str, Any] | None = None
    wanted = forms(run)
    with world.together():
        if world.rank == 0:
            start = find(path, wanted, lambda _: None, Silence().warn, before=step - 1)
            arrays, state = start.arrays, start.state
    state = world.broadcast(state)
    if state:
        restore(run, arrays, state, [])
