"""What sets runs apart: the settings that are not the same in all, of those that decide bytes."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dptrain.checked import Plain
from dptrain.config import TrainConfig
from dptrain.record import receipt, rundir
from dptrain.words import InputError


def apart(runs: Sequence[Path], left_out: Sequence[str] = ()) -> list[Plain]:
    """Return of each run the settings that differ, in the order of the file, but for some.

    What decides no byte, such as where data lies, does not count; other data does. Of a run that
    can't be read there are none. Local: reads only.
    """
    found = [_settings(run) for run in runs]
    known = [own for own in found if own]
    _name_data(known)
    if all(own.get("shards") == _usual_shards(own) for own in known):
        left_out = (*left_out, "shards")  # which follow from the batch size
    keys = dict.fromkeys(key for own in known for key in own if key not in left_out)
    differ = [key for key in keys if any(own.get(key) != known[0].get(key) for own in known)]
    return [{key: own.get(key) for key in differ if own} for own in found]


def labels(runs: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return what each run is called beside the others: what differs, and its name where needed."""
    told = ["; ".join(f"{key} {written(own[key])}" for key in own) for own in apart(runs)]
    return [
        label if label and told.count(label) == 1 else f"{name}: {label}" if label else name
        for name, label in zip(names, told, strict=True)
    ]


def written(value: Any) -> str:
    """Return a setting or a metric as people see it in a table or a legend."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _settings(run: Path) -> Plain:
    """Return the settings that decide a run's bytes; of data, its files' names and its hashes."""
    try:
        found = rundir.read_config(run)
    except InputError:
        return {}
    begun = None
    with contextlib.suppress(InputError):
        begun = receipt.first_line(run)
    files = found.get("data") or ["digits"]
    names = ", ".join(Path(str(file)).name for file in files) if isinstance(files, list) else ""
    content = str(begun.first.get("data")) if begun else names
    free = rundir.FREE
    return {"data": (names, content)} | {k: v for k, v in found.items() if k not in free}


def _name_data(settings: Sequence[Plain]) -> None:
    """Put in the place of names and contents of data: a name where contents differ, else nothing.

    Where contents that differ have one name, they are numbered.
    """
    every = [own["data"] for own in settings]
    contents = [*dict.fromkeys(content for _, content in every)]
    numbered = len({name for name, _ in every}) < len(contents)
    for own, (name, content) in zip(settings, every, strict=True):
        number = f" ({contents.index(content) + 1})" * numbered
        own["data"] = name + number if len(contents) > 1 else None


def _usual_shards(own: Mapping[str, Any]) -> int | None:
    with contextlib.suppress(InputError):
        return TrainConfig(batch_size=own.get("batch-size", 0)).num_shards
    return None
