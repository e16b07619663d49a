"""Changes a run directory in thousands of ways, and shows what each command makes of it.

    python tests/mutated_runs.py --runs 2000

However it is changed, resume, verify, evaluate, predict and plot end within seconds, with little
memory, with one message that a terminal can show, or with warnings; and they touch no other file.
Some three changes a second on two cores.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401 (once, not in each process)
import numpy as np
from test_strangers import edit_receipt, join, split
from tiny import ALONE, train, write_data

from dptrain import world as worlds
from dptrain.cli import main as cli

SECONDS = 20
MEMORY = 2**30

FILES = ("config.toml", "metrics.jsonl", "receipt.jsonl", "summary.json", "model.safetensors")
CHECKPOINTS = [f"checkpoints/step-{step:010}.safetensors" for step in (3, 4)]
EVERY = [*FILES, *CHECKPOINTS]

TEXTS = ["", "x", "\x1b]0;evil\x07", "two\nlines", "\u202eevil", "\ud800", "\0", "é", "/dev/zero"]
TEXTS += ["[", "-1", "nan", "0x1p+9999", "9" * 5000, "a" * 2**20, "../" * 1000, "\udcff"]
NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**70, 10**400, 0.5, 1e308, -0.0]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [0] * 10**5,
    [[[[[[[[[]]]]]]]]],
]

Change = Callable[[Path, random.Random], object]


# ---- changes of bytes


def edit_bytes(path: Path, dice: random.Random) -> None:
    """Flip, cut, double, drop, repeat, zero or insert bytes somewhere."""
    content = bytearray(path.read_bytes())
    at, size = dice.randrange(len(content)), dice.choice((1, 4, 100, 10_000))
    part = content[at : at + size]
    how = dice.randrange(8)
    if how == 0:
        for _ in range(dice.choice((1, 1, 30))):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif how == 1:
        del content[at:]
    elif how == 2:
        content *= 2
    elif how == 3:
        del content[at : at + size]
    elif how == 4:
        content[at:at] = part * dice.choice((1, 50))
    elif how == 5:
        content[at : at + size] = bytes(len(part))
    elif how == 6:
        content[at:at] = dice.randbytes(size)
    else:
        content[at:at] = dice.choice((b"\n", b"\0", b'"', b"[", b"\xff", b"\x1b[2J", b"\r"))
    path.write_bytes(content)


def edit_lines(path: Path, dice: random.Random) -> None:
    """Drop, double, swap or move lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
    how = dice.randrange(4)
    if how == 0:
        del lines[one]
    elif how == 1:
        lines.insert(two, lines[one])
    elif how == 2:
        lines[one], lines[two] = lines[two], lines[one]
    else:
        lines = lines[one:] + lines[:one]
    path.write_bytes(b"".join(lines))


# ---- something else in the place of a file


def link(path: Path, dice: random.Random) -> None:
    """Put a link there: to another folder's file, to what has no end, or to nothing."""
    run = next(folder for folder in path.parents if folder.name == "run")
    precious = run.with_name("precious") / "file"
    precious.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(dice.choice((precious, "/dev/zero", "/dev/stdin", "/nothing", path.name, ".")))


def make_special(path: Path, dice: random.Random) -> None:
    """Put a pipe, a folder, a socket or nothing there."""
    path.unlink()
    how = dice.randrange(4)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.mkdir()
        (path / "file").touch()
    elif how == 2:
        with socket.socket(socket.AF_UNIX) as end, contextlib.chdir(path.parent):
            end.bind(path.name)


def make_immense(path: Path, dice: random.Random) -> None:
    """Let it have 8 to 12 GB, most of them a hole; or 40 MB in one line."""
    content, size = path.read_bytes(), dice.randrange(8 * 2**30, 12 * 2**30)
    how = dice.randrange(4)
    if how < 2:
        path.write_bytes(content if how else b"")
        os.truncate(path, size)
    elif how == 2:
        length = dice.choice((0, 10**9, size - 8, 2**62))
        path.write_bytes(length.to_bytes(8, "little") + content[8:])
        os.truncate(path, size)
    else:
        start = dice.choice((b"", content[: len(content) // 2], content))
        piece = dice.choice((b"a", b"[", b"9", b'{"a":', b"[],", b"\n", b"a.", b'"\\'))
        path.write_bytes(start + piece * (40 * 2**20 // len(piece)))


def edit_folder(run: Path, dice: random.Random) -> None:
    """Put something else in the place of the checkpoints' folder, or something beside them."""
    folder, precious = run / "checkpoints", run.with_name("precious")
    how = dice.randrange(6)
    if how == 0:
        shutil.copytree(folder, precious, dirs_exist_ok=True)
        (precious / ".step-0000000009.safetensors.tmp").touch()
        shutil.rmtree(folder)
        folder.symlink_to(precious)
    elif how == 1:
        shutil.rmtree(folder)
        dice.choice((os.mkfifo, Path.touch))(folder)
    elif how == 2:
        names = (".mine.tmp", "step-².safetensors", "step-9.safetensors", "\udcff", "\x1b[2J\n")
        for name in names:
            shutil.copy(run / CHECKPOINTS[0], folder / name)
    elif how == 3:
        (folder / "step-0000000009.safetensors").symlink_to(run / dice.choice(CHECKPOINTS))
    elif how == 4:
        number = dice.choice((5, 9, 10**10, 10**30))
        shutil.copy(run / dice.choice(CHECKPOINTS), folder / f"step-{number:010}.safetensors")
    else:
        (run / dice.choice(CHECKPOINTS)).unlink()


# ---- fields of other types, under hashes that are right


def some_value(old: Any, dice: random.Random) -> Any:
    """Return a value that is perhaps of another type, or enormous."""
    near = [[old], {"x": old}, str(old), -old if isinstance(old, int | float) else old]
    return dice.choice(dice.choice((TEXTS, NUMBERS, OTHERS, near)))


def edit_field(values: Any, dice: random.Random) -> None:
    """Set, remove or add a field somewhere within objects and lists."""
    while True:
        keys: list[Any] = [*values] if isinstance(values, dict) else [*range(len(values))]
        if not keys:
            return
        key = dice.choice(keys)
        inner = isinstance(values[key], dict | list) and len(values[key])
        if inner and dice.random() < 0.8:
            values = values[key]
            continue
        how = dice.randrange(10)
        if how == 0:
            del values[key]
        elif how == 1 and isinstance(values, dict):
            values[dice.choice(TEXTS)] = some_value(None, dice)
        else:
            values[key] = some_value(values[key], dice)
        return


def edit_json_line(path: Path, dice: random.Random) -> None:
    """Change a field of a file of JSON lines, or of one object."""
    whole = path.suffix == ".json"
    texts = [path.read_text()] if whole else path.read_text().splitlines()
    number = dice.randrange(len(texts))
    values = json.loads(texts[number])
    edit_field(values, dice)
    texts[number] = json.dumps(values)
    path.write_text("\n".join([*texts, ""]))


def edit_chained(run: Path, dice: random.Random) -> None:
    """Change a field of the receipt, of which all later hashes are then right."""
    edit_receipt(lambda lines: edit_field(lines[dice.choice((0, -1))], dice), run)


def edit_stored(path: Path, dice: random.Random) -> None:
    """Change a field of what stands before the arrays, and seal it anew."""
    header, data = split(path)
    if dice.random() < 0.3:
        edit_field(header, dice)
    else:
        values = json.loads(header["__metadata__"]["dptrain"])
        edit_field(values, dice)
        header["__metadata__"]["dptrain"] = json.dumps(values)
    join(path, header, data)


def edit_setting(path: Path, dice: random.Random) -> None:
    """Change a setting, or add one, as TOML."""
    values = [json.dumps(text, ensure_ascii=False) for text in (*TEXTS, "\\u0000e9", "\\u0000")]
    values += ["true", "1979-05-27", "{}", "{a = 1}", "[]", "[1]", '["x"]', "[[]]", "a.b", "1e400"]
    values += [*map(str, NUMBERS), "0x" + "f" * 5000, "9" * 5000, "[" * 5000, "'''\n\x1b'''"]
    keys = ["\x1b[2J", '"\\u001b[2J"', "[a.b.c.d]\nx", "a" + ".a" * 1000, "data.x", "out", "help"]
    lines = path.read_text().splitlines()
    keys += [line.split(" = ")[0] for line in lines if " = " in line]
    key = dice.choice(keys)
    kept = [line for line in lines if not line.startswith(f"{key} = ")]
    kept.insert(dice.choice((0, len(kept))), f"{key} = {dice.choice(values)}")
    path.write_bytes("\n".join(kept).encode("utf-8", "surrogatepass"))


def change(run: Path, dice: random.Random) -> str:
    """Change a run in one way, or in several; return how."""
    said = []
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        name = dice.choice(EVERY)
        ways: list[tuple[Change, Path]] = [
            (edit_bytes, run / name),
            (link, run / name),
            (make_special, run / name),
            (make_immense, run / name),
            (edit_folder, run),
            (edit_chained, run),
            (edit_stored, run / dice.choice((FILES[4], *CHECKPOINTS))),
            (edit_setting, run / "config.toml"),
            (edit_lines, run / dice.choice(FILES[:3])),
            (edit_json_line, run / dice.choice(FILES[1:4])),
        ]
        do, path = dice.choice(ways)
        with contextlib.suppress(Exception):  # an earlier change has left nothing to change
            do(path, dice)
        said.append(f"{do.__name__} {path.name}")
        if do in (link, make_special, make_immense, edit_folder):
            break  # what is there now can't be read to be changed
    return ", ".join(said)


# ---- what each command makes of it


def commands(run: Path) -> list[list[str]]:
    """Return the commands that read a run; the last one writes to it."""
    rows, out = str(run.parent / "x.npy"), str(run.parent / "curves.png")
    data = str(run.parent.parent / "data.npz")
    return [
        ["verify", str(run), "--replay", "all", "--quiet"],
        ["evaluate", str(run), data],
        ["predict", str(run), rows],
        ["plot", str(run), "--out", out],
        ["train", "--resume", str(run), "--epochs", "2", "--quiet"],
    ]


def check(args: list[str]) -> str:
    """Run a command in this process; AssertionError where it does not end as it should."""
    sys.argv = ["dptrain", *args]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = cli._run()
    lines = stderr.getvalue().splitlines()
    messages = [
        line for line in lines if not line.startswith(("dptrain: warning: ", "dptrain: wrote "))
    ]
    assert status in (0, 1, 2, 74), status
    assert all(line.isprintable() for line in lines), lines
    assert len(stderr.getvalue()) < 30_000
    assert len(messages) == (status == 2), lines
    assert all(line.startswith("dptrain: ") for line in lines), lines
    assert status != 2 or not stdout.getvalue()
    if args[0] != "predict":
        assert all(line.isprintable() for line in stdout.getvalue().splitlines())
    return f"{args[0]} {status}"


def check_all(run: Path, dice: random.Random, tell: Callable[[str, str], object]) -> None:
    """Change a run, let each command look at it, and tell how it ended, or what is wrong."""
    said = change(run, dice)
    tell("said", said)
    precious = run.with_name("precious")
    before = {path: path.read_bytes() for path in precious.iterdir()}
    for args in commands(run):
        if args[0] == "plot" and "metrics" not in said:
            continue  # which reads nothing else
        start = time.process_time()
        tell("begun", " ".join(args))
        try:
            tell("ended", check(args))
        except BaseException:
            tell("wrong", f"{' '.join(args)}\n{traceback.format_exc()[-3000:]}")
        took = time.process_time() - start
        if took > SECONDS:
            tell("wrong", f"{' '.join(args)}: {took:.1f} s")
    if {path: path.read_bytes() for path in precious.iterdir()} != before:
        tell("wrong", "another folder's files have changed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > MEMORY:
        tell("wrong", f"{peak / 1e6:.0f} MB of memory")


def check_one(folder: Path, base: Path, dice: random.Random) -> dict[str, list[str]]:
    """Return, from a process of its own, what `check_all` told of a changed copy of a run."""
    for name in ("run", "precious"):
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(base, folder / "run")
    (folder / "precious").mkdir()
    (folder / "precious" / ".mine.tmp").write_text("precious")
    told, report = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(4 * SECONDS)  # which ends it, whatever it waits for
        try:
            check_all(
                folder / "run",
                dice,
                lambda kind, text: os.write(report, json.dumps([kind, text]).encode() + b"\n"),
            )
        finally:
            os._exit(0)
    os.close(report)
    found: dict[str, list[str]] = {"said": [], "begun": [], "ended": [], "wrong": []}
    with os.fdopen(told, "rb") as file:
        for line in file:
            kind, text = json.loads(line)
            found[kind].append(text)
    if os.waitpid(child, 0)[1]:
        found["wrong"].append(f"{found['begun'][-1:]}: it hung, or crashed")
    return found


def mutate(folder: Path, runs: int, seed: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Change a run so often; return how often each command ended how, and all that went wrong."""
    base = folder / "base"
    train(write_data(folder / "data.npz"), base)
    np.save(folder / "x.npy", np.zeros((3, 5)))
    worlds.connect = functools.cache(lambda: ALONE)
    os.fsync = id  # type: ignore[assignment] # no power is cut while this runs
    (folder / "work").mkdir()
    shutil.copy(folder / "x.npy", folder / "work" / "x.npy")

    ends: Counter[str] = Counter()
    wrong = []
    for number in range(first, first + runs):
        found = check_one(folder / "work", base, random.Random(f"{seed} {number}"))  # noqa: S311
        ends.update(found["ended"])
        for text in found["wrong"]:
            wrong.append(f"change {number}: {found['said']}\n{text}")
            print(wrong[-1], flush=True)
    return ends, wrong


def main() -> int:
    """Change a run, and print how the commands ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="decides what is changed")
    parser.add_argument("--first", type=int, default=0, help="the number of the first change")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends, wrong = mutate(Path(folder), options.runs, options.seed, options.first)
    for end, number in sorted(ends.items()):
        print(f"{end:12}{number:7}")
    print(f"{options.runs} changed runs: {len(wrong)} faults")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
