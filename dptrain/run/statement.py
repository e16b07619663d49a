"""What a run states of itself, short enough to be signed and handed over: in the in-toto form."""

from pathlib import Path

from dptrain.checked import Plain
from dptrain.record.files import TEXT, open_plain, read_object
from dptrain.record.receipt import Receipt, places
from dptrain.record.rundir import FREE, MODEL
from dptrain.run.check import Verdict, check_files
from dptrain.words import InputError

KIND = "urn:dptrain:training:v1"
"""What says how the predicate is to be read; in-toto wants a URI."""

PROGRAM = ("dptrain", "numpy", "blas", "libraries", "cpu_level", "libm", "threads")
"""What of a run's identity says by which program it was computed."""


def statement(found: Receipt) -> Plain:
    """Return what a finished run was trained from, by what, and what it came to.

    Raises InputError where the receipt has no end.
    """
    run, end = found.run, found.end
    if end is None:
        raise InputError("the run has not ended: go on with it by dptrain train --resume")
    settings = {name: value for name, value in run["settings"].items() if name not in FREE}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": MODEL, "digest": {"sha256": end.model}}],
        "predicateType": KIND,
        "predicate": {
            "program": {name: run[name] for name in PROGRAM if name in run},
            "data": run["data"],
            "model": run["model"],
            "settings": settings,
            "result": end.end,
            "receipt": {"lines": found.num_lines, "sha256": found.head},
        },
    }


def stated(run: Path) -> Plain:
    """Return the statement of a run, whose files are checked first.

    Raises InputError where there is no run, it has not ended, or its files are not whole.
    """
    verdict = Verdict(str(run), 1)
    found = check_files(run, verdict)
    if verdict.wrong:
        raise InputError(f"{run} is not whole: {'; '.join(verdict.wrong)}")
    return statement(found.receipt)


def compare(path: Path, found: Receipt, verdict: Verdict) -> None:
    """Compare a statement with a run's receipt; what is found goes to `verdict`.

    InputError where it can't be read.
    """
    try:
        with open_plain(path, TEXT) as file:
            given = read_object(file.read())
    except (OSError, ValueError) as error:
        text = f"{path} is no statement that can be read: {getattr(error, 'strerror', error)}"
        raise InputError(text) from None
    try:
        other = [place for place, *_ in places(statement(found), given)]
    except InputError as error:
        verdict.wrong.append(str(error))
        return
    if other:
        verdict.wrong.append(f"{path}: states otherwise than the run: {', '.join(other)}")
    else:
        verdict.fine.append(f"{path}: states what the receipt says, up to its last line")
