"""Changes each field of each file of a run, and shows that a replay never takes it for the run.

    python tests/forgery.py

Every hash that a forger could make right again is made right again. A minute on one core; the
suite has a short form of it.
"""

import copy
import hashlib
import json
import shutil
import struct
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tiny import ALONE, CONFIG, HIDDEN

from dptrain import MLP, DataConfig, InputError
from dptrain.model import load as models
from dptrain.record import checkpoint, rundir
from dptrain.record.receipt import encode, head_of
from dptrain.record.rundir import FREE
from dptrain.run.fit import fit
from dptrain.run.outcome import UNCOVERED
from dptrain.run.ready import load, mlp_for
from dptrain.run.trained import params_in
from dptrain.run.verify import verify

Forge = Callable[[Path], object]
Place = tuple[Any, ...]
"""Keys and indices that lead to a value."""

GONE = object()
"""In the place of a value that is removed."""


def write_run(folder: Path, **settings: Any) -> Path:
    """Write data with test rows, and a run on it that has ended, checkpoints after each step."""
    rng = np.random.default_rng(0)
    x, more = rng.standard_normal((300, 5)).round(2), rng.standard_normal((90, 5)).round(2)
    y, other = ((x[:, 0] > 0).astype(int) + (x[:, 1] > 0) for x in (x, more))
    np.savez(folder / "data.npz", x=x, y=y, x_test=more, y_test=other)
    data = load(folder / "data.npz", DataConfig(validation=0.2), world=ALONE)
    config = replace(CONFIG, keep_checkpoints=3, **settings)
    fit(mlp_for(data, HIDDEN), data, config, out=folder / "run", world=ALONE)
    return folder / "run"


# ---- values


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all values within a value, itself aside."""
    inner = value.items() if isinstance(value, dict) else ()
    for key, part in enumerate(value) if isinstance(value, list) else inner:
        yield (*place, key)
        yield from places(part, (*place, key))


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def put(value: Any, place: Place, new: Any) -> None:
    """Set a value at a place, or remove it."""
    *way, last = place
    if new is GONE:
        del at(value, tuple(way))[last]
    else:
        at(value, tuple(way))[last] = new


def others(value: Any) -> Iterator[Any]:
    """Yield values that are not this one: of its type, of another, none at all."""
    yield from (new for new in _others(value) if type(new) is not type(value) or new != value)


def _others(value: Any) -> Iterator[Any]:
    if isinstance(value, bool) or value is None:
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1, 0, str(value))
    elif isinstance(value, float):
        yield from (float(np.nextafter(value, 9)), 2 * value + 1, str(value))
    elif isinstance(value, str) and value.startswith(("0x", "-0x")):
        yield from ((float.fromhex(value) + 1).hex(), float(np.nextafter(0, 1)).hex(), 5)
    elif isinstance(value, str) and len(value) == 64:
        yield from (f"{int(value[:2], 16) ^ 1:02x}{value[2:]}", 64 * "0", None)
    elif isinstance(value, str):
        yield from (f"{value}x", "", 5)
    elif isinstance(value, dict):
        yield from ({}, {**value, "more": 1})
    else:
        yield from ([], [*value, 1])
    yield GONE


# ---- files, with their hashes


def rechain(run: Path, lines: list[dict[str, Any]]) -> None:
    """Write a receipt whose chain holds, and let checkpoints and summary name it."""
    found = [b""]
    for line in lines:
        values = {key: value for key, value in line.items() if key != "previous"}
        found.append(encode(values, head_of(found[-1]) if found[-1] else ""))
    (run / "receipt.jsonl").write_bytes(b"\n".join([*found[1:], b""]))
    for step in checkpoint.steps_of(run):
        arrays, state = checkpoint.read(checkpoint.path_of(run, step))
        named = found[min(state["receipt_lines"], len(found) - 1)]
        state["receipt_sha256"] = head_of(named)
        checkpoint.write(checkpoint.path_of(run, step), arrays, state)
    edit_summary(run, lambda summary: summary.update(receipt_sha256=head_of(found[-1])))


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "receipt.jsonl").read_text().splitlines()]


def edit_summary(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    edit(summary)
    path.write_text(json.dumps(summary, indent=2) + "\n")


def cover(run: Path) -> None:
    """Let the receipt's last line and the summary name the model that is there."""
    lines, content = lines_of(run), (run / rundir.MODEL).read_bytes()
    lines[-1]["model"] = hashlib.sha256(content).hexdigest()
    try:
        tensors, about = checkpoint.read_model(run / rundir.MODEL)
        found = hashlib.sha256(params_in(tensors, about).data).hexdigest()
    except (InputError, TypeError, ValueError, KeyError):
        found = lines[-1]["end"]["params_sha256"]
    lines[-1]["end"]["params_sha256"] = found
    edit_summary(run, lambda summary: summary.update(params_sha256=found))
    rechain(run, lines)


def edit_tensors(path: Path, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Change arrays and values of a safetensors file, under a right checksum."""
    arrays, state = checkpoint.read(path)
    edit(arrays, state)
    checkpoint.write(path, {name: np.asarray(a, order="C") for name, a in arrays.items()}, state)


# ---- all that a forger could do


def in_receipt(run: Path) -> Iterator[tuple[str, Forge]]:
    lines = lines_of(run)
    for place in places(lines):
        if place[-1] == "previous" or len(place) == 1:
            continue
        for new in others(at(lines, place)):
            changed = copy.deepcopy(lines)
            put(changed, place, new)
            yield name_of("receipt", place, new), partial(rechain, lines=changed)
            if place[:2] == (len(lines) - 1, "end") and len(place) == 3:  # and so in the summary
                yield name_of("receipt and summary", place, new), both(changed, place[2], new)
    for number in range(len(lines)):
        left = [*lines[:number], *lines[number + 1 :]]
        yield f"receipt without line {number}", partial(rechain, lines=left)


def both(lines: list[dict[str, Any]], key: str, new: Any) -> Forge:
    def forge(run: Path) -> None:
        edit_summary(run, lambda summary: put(summary, (key,), new))
        rechain(run, lines)

    return forge


def in_summary(run: Path) -> Iterator[tuple[str, Forge]]:
    summary = json.loads((run / "summary.json").read_text())
    for key, value in summary.items():
        for new in others(value):
            if key in UNCOVERED and new is not GONE:
                continue

            def forge(run: Path, key: str = key, new: Any = new) -> None:
                edit_summary(run, lambda summary: put(summary, (key,), new))

            yield name_of("summary", (key,), new), forge


def in_text(run: Path) -> Iterator[tuple[str, Forge]]:
    """Yield changes after which Python still reads what the run came to, and others may not."""
    for name, old, new in (
        ("summary.json", "{", '{\n  "test_accuracy": 1.0,'),
        ("summary.json", '"threads": 1', '"threads": true'),
        ("summary.json", '"threads": 1', '"threads": 1.0'),
        ("summary.json", '"threads": 1', '"threads":  1'),
        ("config.toml", "threads = 1", "threads = true"),
        ("config.toml", "threads = 1", "threads = 1.0"),
    ):
        content = (run / name).read_text()
        assert old in content

        def forge(run: Path, name: str = name, text: str = content.replace(old, new, 1)) -> None:
            (run / name).write_text(text)

        yield f"{name}: {new!r}", forge


def write_config(run: Path, content: bytes) -> None:
    (run / rundir.CONFIG).write_bytes(content)


def in_config(run: Path) -> Iterator[tuple[str, Forge]]:
    config = tomllib.loads((run / "config.toml").read_text())
    for key, value in config.items():
        for new in others(value):
            if key not in FREE:
                changed = {k: v for k, v in {**config, key: new}.items() if v is not GONE}
                content = rundir.toml(changed, "")
                yield name_of("config", (key,), new), partial(write_config, content=content)


def in_tensors(run: Path, name: str, after: Forge) -> Iterator[tuple[str, Forge]]:
    """Yield changes of a safetensors file, each followed by what covers it."""
    arrays, state = checkpoint.read(run / name)
    for place in places(state):
        for new in others(at(state, place)):

            def forge(run: Path, place: Place = place, new: Any = new) -> None:
                edit_tensors(run / name, lambda _, state: put(state, place, new))
                after(run)

            yield name_of(name, place, new), forge
    for array in arrays:

        def flip(run: Path, array: str = array) -> None:
            def edit(arrays: dict[str, Any], _: object) -> None:
                arrays[array] = arrays[array].copy()
                arrays[array].reshape(-1).view(np.uint8)[-2] ^= 1

            edit_tensors(run / name, edit)
            after(run)

        def remove(run: Path, array: str = array) -> None:
            edit_tensors(run / name, lambda arrays, _: arrays.pop(array))
            after(run)

        yield f"{name}: a bit of {array}", flip
        yield f"{name}: no {array}", remove


def earlier_parameters(run: Path, step: int, key: str) -> None:
    """Store those of a checkpoint as the model's, covered by the receipt."""
    arrays, _ = checkpoint.read(checkpoint.path_of(run, step))

    def edit(tensors: dict[str, Any], about: dict[str, Any]) -> None:
        tensors.update(models.tensors(MLP(**about["model"]["spec"]), arrays[key]))

    edit_tensors(run / rundir.MODEL, edit)
    cover(run)


def header(run: Path) -> None:
    """Add to the metadata of the model, which no reader looks at; its checksum is left as it is."""
    path = run / rundir.MODEL
    content = path.read_bytes()
    size = 8 + int(struct.unpack("<Q", content[:8])[0])
    about = json.loads(content[8:size])
    about["__metadata__"]["more"] = "x"
    text = json.dumps(about).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[size:])
    cover(run)


def forgeries(run: Path) -> Iterator[tuple[str, Forge]]:
    """Yield all changes of a run, by name."""
    yield from in_receipt(run)
    yield from in_summary(run)
    yield from in_text(run)
    yield from in_config(run)
    yield from in_tensors(run, rundir.MODEL, lambda _: None)
    for name, forge in in_tensors(run, rundir.MODEL, cover):
        yield f"{name}, covered", forge
    for path in sorted((run / "checkpoints").iterdir()):
        yield from in_tensors(run, f"checkpoints/{path.name}", lambda _: None)
    for step in checkpoint.steps_of(run)[:-1]:
        yield f"parameters of step {step}", partial(earlier_parameters, step=step, key="params")
    yield "more in the model's header", header


def name_of(name: str, place: Place, new: Any) -> str:
    shown = "nothing" if new is GONE else repr(new)[:20]
    return f"{name}: {'.'.join(map(str, place))} is {shown}"


def verdict_of(made: Path, folder: Path, forge: Forge) -> str:
    """Return what a replay of all steps says of a copy of a run that was forged."""
    run = folder / "forged"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(made, run)
    forge(run)
    try:
        return verify(run, "all", world=ALONE).verdict
    except InputError as error:
        return f"refused: {error}"


def main() -> None:
    """Try all forgeries, and print what they came to, and each that was believed."""
    for settings in ({}, {"patience": None, "log_every": None, "optimizer": "sgd"}):
        counts: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run = write_run(folder, **settings)
            assert verdict_of(run, folder, Path.exists) == "identical"
            for what, forge in forgeries(run):
                found = verdict_of(run, folder, forge)
                counts[found.split(":")[0]] += 1
                if found in ("identical", "whole"):
                    print(f"{found}: {what}", flush=True)
        print(", ".join(f"{number} {found}" for found, number in counts.items()))


if __name__ == "__main__":
    main()
