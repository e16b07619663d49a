"""What a run's files say of each other: receipt, checkpoints, settings, model and summary."""

import hashlib
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dptrain.checked import Plain
from dptrain.record import checkpoint, receipt, rundir
from dptrain.record.files import TEXT, open_plain, read_object
from dptrain.record.receipt import End, Receipt
from dptrain.record.rundir import FREE
from dptrain.reduce.digest import digest
from dptrain.run.config import Saved
from dptrain.run.outcome import UNCOVERED
from dptrain.run.trained import params_in
from dptrain.words import InputError
from dptrain.world import World

Checkpoints = dict[int, tuple[dict[str, str], Saved]]
"""Of each checkpoint by step: digests of its parameters and of its best, and what it says."""


@dataclass(frozen=True)
class Difference:
    """Where something came out otherwise: what is in the run, and what was found."""

    step: int
    receipt: Plain
    found: Plain


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
    first_difference: Difference | None = None

    @property
    def verdict(self) -> str:
        """In a word: identical (replayed), whole (checked), or not."""
        if self.first_difference is not None:
            return "different"
        if self.wrong:
            return "damaged"
        return "identical" if self.replayed else "whole"

    def values(self) -> Plain:
        """Return it as plain values."""
        return {"verdict": self.verdict, **asdict(self)}


@dataclass
class Found:
    """What is known of a run by its files: what a replay compares with, beside the steps' lines."""

    receipt: Receipt
    within: dict[int, bool] = field(default_factory=dict)
    """Of each checkpoint that is whole, by step, whether its epoch has yet to be measured."""
    ends: list[End] = field(default_factory=list)
    """What the run says it came to, by its receipt and by its summary."""


class StoredModel(NamedTuple):
    """Hashes of a model's file, and of its parameters as receipt and summary have them."""

    file: str
    params: str
    params_sha256: str


class Lines(NamedTuple):
    """What was looked for in a receipt, while all of it was read."""

    marks: dict[int, tuple[str, int, Plain]]
    """By the number of a line that a checkpoint names: its hash, its step, what the run was."""
    params: dict[int, str | None]
    """The digest of the parameters after the steps of checkpoints."""
    known: set[str]
    """Those of the digests that were looked for which some step has."""


def check_files(run: Path, verdict: Verdict, *, handed: bool = False) -> Found:
    """Check the files of a run against each other; what is found goes to `verdict`. Local.

    `handed`: of a run that was handed over some may be missing, which is noted.
    """
    if not os.path.lexists(run / rundir.RECEIPT):
        rundir.read_config(run)  # or there is no run
    kept, model, found = _checkpoints(run, verdict), _model(run, verdict), Receipt()
    try:
        lines = _read(run, found, kept, model)
    except InputError as error:
        verdict.wrong.append(str(error))
        return Found(Receipt())
    if not found.num_lines:
        verdict.wrong.append(f"{rundir.RECEIPT} has no line: the run has hardly begun")
        return Found(found)
    verdict.steps = found.num_steps
    verdict.fine.append(f"{rundir.RECEIPT}: {found.num_steps} steps, each line follows its past")
    within = _check_checkpoints(kept, lines, verdict)
    if handed:
        _note_missing(run, kept, verdict)
    if not handed or os.path.lexists(run / rundir.CONFIG):
        _check_config(run, found, verdict)
    digests = {step: digests["params"] for step, (digests, _) in kept.items()}
    right: set[str | None] = {found.last_params, digests.get(found.num_steps)}
    if "patience" in found.run["settings"]:  # then they are of the best epoch
        right = {*lines.known, *digests.values()}
    if "ema" in found.run["settings"] and model is not None:  # the receipt knows its file alone
        last = kept[found.num_steps][0] if found.num_steps in kept else {"ema": model.params}
        right = {last.get("best", last.get("ema"))}
    if not handed or os.path.lexists(run / rundir.SUMMARY):
        return Found(found, within, _check_end(run, found, model, right, verdict))
    if found.end is not None and model is not None:
        _check_model(found.end.model, model, right, verdict)
    return Found(found, within, [] if found.end is None else [found.end])


def _checkpoints(run: Path, verdict: Verdict) -> Checkpoints:
    """Return what is needed of each checkpoint that is whole."""
    found = {}
    for step in checkpoint.steps_of(run):
        path = checkpoint.path_of(run, step)
        try:
            arrays, values = checkpoint.read(path)
            saved = Saved.read(values, step)
            names = ["params", *(["best"] if saved.state.best_value < math.inf else [])]
            names += ["ema"] if "ema" in saved.run.settings else []
            found[step] = {name: digest(World(), arrays[name]) for name in names}, saved
        except FileNotFoundError:  # by the run, which goes on
            continue
        except (OSError, ValueError, KeyError) as error:
            verdict.wrong.append(f"{path.name}: damaged: {error}")
    return found


def _model(run: Path, verdict: Verdict) -> StoredModel | None:
    """Return what is stored as the run's model; None where there is none, or it is damaged."""
    path = run / rundir.MODEL
    if not os.path.lexists(path):
        return None
    try:
        params = params_in(*checkpoint.read(path))
        with open_plain(path) as file:
            whole = hashlib.file_digest(file, "sha256")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        verdict.wrong.append(f"{rundir.MODEL}: damaged: {error}")
        return None
    plain = hashlib.sha256(params.data).hexdigest()
    return StoredModel(whole.hexdigest(), digest(World(), params), plain)


def _read(run: Path, known: Receipt, kept: Checkpoints, model: StoredModel | None) -> Lines:
    """Read a receipt from its first line to its last; InputError where its chain does not hold."""
    found = Lines({}, {}, set())
    marked = {saved.files.receipt_lines for _, saved in kept.values()}
    wanted = {digest for digests, _ in kept.values() for digest in digests.values()}
    wanted |= set() if model is None else {model.params}
    for step in receipt.follow(run, known):
        if step is not None and step.params in wanted:
            found.known.add(step.params)
        if step is not None and step.step in kept:
            found.params[step.step] = step.params
        if known.num_lines in marked:
            found.marks[known.num_lines] = known.head, known.num_steps, known.run
    return found


def _check_checkpoints(kept: Checkpoints, lines: Lines, verdict: Verdict) -> dict[int, bool]:
    """Check checkpoints against the receipt; see `Found.within` for what is returned."""
    within = {}
    for step, (digests, saved) in kept.items():
        name = checkpoint.path_of(Path(), step).name
        named = saved.files.receipt_sha256, step, saved.run.plain()
        best = None if "ema" in saved.run.settings else digests.get("best")  # no average's is known
        if lines.marks.get(saved.files.receipt_lines) != named:
            verdict.wrong.append(f"{name}: the receipt is not the one it was written with")
        elif lines.params.get(step) not in (None, digests["params"]):
            verdict.wrong.append(f"{name}: its parameters are not those of the receipt")
        elif best not in {None, digests["params"], *lines.known}:
            verdict.wrong.append(f"{name}: its best parameters are of no epoch of the receipt")
        else:
            verdict.fine.append(f"{name}: every byte, and the receipt up to it")
            within[step] = saved.state.seen != 0
    return within


def _check_config(run: Path, found: Receipt, verdict: Verdict) -> None:
    try:
        differs = receipt.places(found.run["settings"], rundir.read_config(run))
    except InputError as error:
        verdict.wrong.append(f"{error}; --resume writes it again")
        return
    if other := [name for name, *_ in differs if name not in FREE]:
        verdict.wrong.append(f"{rundir.CONFIG}: not as in the receipt: {', '.join(other)}")


def _check_end(
    run: Path, found: Receipt, model: StoredModel | None, right: set[str | None], verdict: Verdict
) -> list[End]:
    """Check what a run has written at its end, model and summary, against its receipt's last line.

    `right` are the digests that the model's parameters can have. See `Found.ends` for what is
    returned.
    """
    said = [] if found.end is None else [found.end]
    stored = _stored_end(run, found, model, verdict)
    if stored is None:
        return said
    end, receipt_sha256 = stored
    if type(end.step) is int and 0 < end.step < found.num_steps:
        verdict.notes.append(
            f"the run has gone on since its model and its summary, of step {end.step}, were "
            "written: only a replay of that step checks them"
        )
        return [end, *said]
    if found.end is None:
        verdict.wrong.append(
            f"{rundir.RECEIPT}: no line of the end that {rundir.SUMMARY} tells of, after step "
            f"{end.step}; --resume writes both again"
        )
        return said
    other = [name for name, *_ in receipt.places(found.end.end, end.end)]
    if other:
        verdict.wrong.append(f"{rundir.SUMMARY}: not as in the receipt: {', '.join(other)}")
    elif receipt_sha256 != found.head:
        verdict.wrong.append(f"{rundir.SUMMARY}: names another last line of the receipt")
    else:
        verdict.fine.append(f"{rundir.SUMMARY}: as the receipt's last line says")
    _check_model(found.end.model, model, right, verdict)
    return said


def _check_model(
    named: str, model: StoredModel | None, right: set[str | None], verdict: Verdict
) -> None:
    """Check a model's hash against that which the receipt names, and its parameters."""
    if model is None or named != model.file:
        verdict.wrong.append(f"{rundir.MODEL}: not the file of the receipt's last line")
    elif model.params not in right:
        verdict.wrong.append(f"{rundir.MODEL}: parameters that the receipt does not name")
    else:
        verdict.fine.append(f"{rundir.MODEL}: every byte, as the receipt's last line says")


def _note_missing(run: Path, kept: Checkpoints, verdict: Verdict) -> None:
    """Note what could not be checked of a run that was handed over."""
    for name in (rundir.CONFIG, rundir.SUMMARY, rundir.MODEL):
        if not os.path.lexists(run / name):
            verdict.notes.append(f"{name} is not there, and so not checked")
    if not kept:
        verdict.notes.append("no checkpoint is there: a replay would begin with the first step")


def _stored_end(
    run: Path, found: Receipt, model: StoredModel | None, verdict: Verdict
) -> tuple[End, Any] | None:
    """Return what model and summary say of a run's end, and of the receipt; None if not whole."""
    there = [name for name in (rundir.MODEL, rundir.SUMMARY) if os.path.lexists(run / name)]
    if not there:
        verdict.notes.append(
            "the run has not ended: what follows its last checkpoint may still go"
            if found.end is None
            else "the run has ended, and its model is not written yet: --resume does it"
        )
    elif len(there) == 1:
        verdict.wrong.append(f"{there[0]} is there alone, of two files; --resume writes both again")
    if model is None or len(there) < 2:
        return None
    try:
        with open_plain(run / rundir.SUMMARY, TEXT) as file:
            text = file.read()
        summary = read_object(text)
        if rundir.as_json(summary) != text:  # such as a name that stands there twice
            raise ValueError(receipt.OTHERWISE)
        head = [summary.pop(name) for name in (*UNCOVERED, "receipt_sha256")][-1]
        end = End(summary["steps"], summary, model.file)
    except (OSError, ValueError, KeyError) as error:
        verdict.wrong.append(f"{rundir.SUMMARY}: damaged: {error!r}")
        return None
    if summary.get("params_sha256") != model.params_sha256:
        verdict.wrong.append(f"{rundir.SUMMARY}: params_sha256 is not that of {rundir.MODEL}")
    return end, head
