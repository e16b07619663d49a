"""The level of CPU that a run was computed at: found before NumPy, which is to keep to it."""

from pathlib import Path

from dptrain.record.files import is_there, lines_of, read_object
from dptrain.record.rundir import RECEIPT


def level_of(run: Path, step: int | None = None) -> str | None:
    """Return the level that a run's receipt names, for a step or else for its last one.

    None where there is no receipt, or it names no single one: as damaged as it may be, what is
    wrong with it is said by who reads all of it.

    Raises
    ------
    InputError
        The receipt can't be read.
    """
    found = None
    if not is_there(run / RECEIPT):
        return None
    for number, line in enumerate(lines_of(run / RECEIPT)):
        if number and b'"changed"' not in line:
            continue
        try:
            values = read_object(line)
            if number and step is not None and values["step"] >= step:
                break
            settings = values["changed"].get("settings", {}) if number else values["settings"]
            found = settings.get("cpu-level", found)
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
    return found if isinstance(found, str) else None
