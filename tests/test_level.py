"""Shows that a run keeps to a level of CPU, says so, goes on at it, and is refused where it can't.

An emulated CPU needs qemu-user; `python tests/travel.py` tries more of them, and everything else.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import travel
from conftest import Start, start

import dptrain as package
from dptrain import InputError, TrainConfig, World, level
from dptrain.cli.ranks import _asked
from dptrain.config.names import CpuLevel
from dptrain.level import LEVELS, LOWEST, InUse, has, in_use
from dptrain.record.rundir import level_of

HERE = [name for name in LEVELS if has(name)]
FEW = ("--steps", "4", "--hidden", "8", "--json")

needs_two = pytest.mark.skipif(len(HERE) < 2, reason="this CPU has one level only, or none")
needs_emulator = pytest.mark.skipif(travel.EMULATOR is None, reason="there is no qemu-x86_64")


def receipt_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "receipt.jsonl").read_text().splitlines()[0])
    return found


@needs_two
def test_a_run_keeps_to_its_level_wherever_it_goes_on(dptrain: Start, tmp_path: Path) -> None:
    """The lowest one, for which the program must start anew, on several ranks too."""
    asked = ("--cpu-level", LOWEST)
    alone = dptrain(*FEW, *asked, "--out", "a").json
    found = receipt_of(tmp_path / "a")
    assert (found["cpu_level"], found["settings"]["cpu-level"]) == ([LOWEST], LOWEST)
    variable = {"DPTRAIN_CPU_LEVEL": LOWEST}
    several = dptrain(*FEW, "--out", "b", ranks=2, env=variable).json
    assert several["params_sha256"] == alone["params_sha256"]
    whole = dptrain(*FEW, "--steps", "7", "--config", "a/config.toml", "--out", "c").json
    assert receipt_of(tmp_path / "c")["cpu_level"] == [LOWEST]
    for ranks, line, out in (
        (2, ("train", "--resume", "a", "--steps", "7", "--json"), whole["params_sha256"]),
        (None, ("verify", "a", "--replay", "all", "--json"), "identical"),
        (None, ("evaluate", "a", "--json"), None),
    ):
        done = dptrain(*line, ranks=ranks)
        assert f"dptrain: computing at {LOWEST}, as the run did\n" in done.stderr
        assert out is None or out in (done.json.get("params_sha256"), done.json.get("verdict"))
    replay = dptrain("verify", "a", "--replay", "all", "--json", "--cpu-level", HERE[-1])
    assert [note.split(":")[0] for note in json.loads(replay.stdout)["notes"]] == [
        *("blas", "cpu_level", "libm")
    ]
    other = dptrain("train", "--resume", "a", "--steps", "9", "--cpu-level", HERE[-1])
    assert other.status == 2
    assert f"cpu_level is ['{HERE[-1]}'], was ['{LOWEST}']" in other.stderr


@needs_two
def test_levels_differ_in_bits_and_native_is_the_highest(dptrain: Start, tmp_path: Path) -> None:
    if in_use().level != HERE[-1]:
        pytest.skip(f"the environment pins some of it: {in_use().text}")
    found = {
        name: dptrain(*FEW, "--cpu-level", name, "--out", name).json["params_sha256"]
        for name in (*HERE, level.NATIVE)
    }
    assert found[level.NATIVE] == found[HERE[-1]]
    assert len({*found.values()}) == len(HERE)
    assert receipt_of(tmp_path / level.NATIVE)["settings"]["cpu-level"] == HERE[-1]


def test_a_level_that_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level, "highest", lambda: LOWEST)
    assert [name for name in LEVELS if has(name)] == [LOWEST]
    with pytest.raises(InputError, match="is x86-64-v3, and the CPU here has x86-64-v2: give a"):
        level.use_cpu_level("x86-64-v3")
    monkeypatch.setattr(level, "highest", lambda: None)
    with pytest.raises(InputError, match="the CPU here has none that is known of"):
        level.use_cpu_level(LOWEST)
    with pytest.raises(InputError, match="valid: native, x86-64-v2, x86-64-v3, x86-64-v4"):
        level.use_cpu_level("x86-64-v5")


@needs_two
def test_once_numpy_is_loaded_the_variables_are_named() -> None:
    data = package.load(world=World())
    other = next(name for name in get_args(CpuLevel)[1:] if name in HERE and name != in_use().level)
    config = TrainConfig(steps=1, cpu_level=other)
    with pytest.raises(InputError) as error:
        package.fit(package.mlp_for(data), data, config, world=World())
    for name, value in level.variables(config.cpu_level).items():
        assert f"{name}='{value}'" in str(error.value)
    early = "libm looks only" if config.cpu_level == LOWEST else "before NumPy is imported"
    assert early in str(error.value)


PROGRAM = """
import sys, os
import dptrain
dptrain.use_cpu_level(sys.argv[1])
from dptrain.level import in_use
print(in_use().level, os.environ["XLA_FLAGS"], os.environ["MKL_CBWR"])
"""


@pytest.mark.parametrize("name", [name for name in HERE if name != LOWEST])
def test_a_program_of_one_s_own_pins_before_numpy(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PROGRAM)
    env = {"XLA_FLAGS": "--xla_a=1", "NPY_ENABLE_CPU_FEATURES": "AVX2"}
    done = start("python", "own.py", name, cwd=tmp_path, env=env)
    others = LEVELS[name].others
    expected = f"{name} --xla_a=1 {others['XLA_FLAGS']} {others['MKL_CBWR']}\n"
    assert done.stdout == expected, done.stderr


@pytest.mark.parametrize(
    ("used", "expected", "text"),
    [
        (InUse("x86-64-v3", ("Haswell",), True, "", False), "x86-64-v3", "x86-64-v3"),
        (InUse("x86-64-v3", ("Haswell",), None, "", False), "x86-64-v3", "x86-64-v3"),
        (InUse(LOWEST, ("Nehalem",), False, "", False), LOWEST, LOWEST),
        (InUse(LOWEST, ("Nehalem",), True, "", False), None, "Nehalem, libm with FMA"),
        (InUse("x86-64-v3", ("Haswell",), False, "", False), None, "libm without FMA"),
        (InUse("x86-64-v3", ("Haswell", "Nehalem"), True, "", False), None, "Haswell, Nehalem"),
        (InUse("x86-64-v3", ("COMPATIBLE",), True, "", False), "x86-64-v3", "x86-64-v3"),
        (InUse("x86-64-v3", (), True, "", False), None, "NumPy x86-64-v3, libm"),
        (InUse("x86-64-v3", ("Haswell",), True, "", True), None, "small numbers flushed to 0"),
        (InUse("ASIMD NEON", ("armv8",), None, "", False), None, "NumPy ASIMD NEON, armv8, libm"),
    ],
)
def test_what_is_of_no_one_level_is_said_part_by_part(
    used: InUse, expected: str | None, text: str
) -> None:
    assert used.level == expected
    assert text in used.text


def test_nodes_of_different_kinds_are_told_what_they_have_in_common() -> None:
    assert "--cpu-level x86-64-v2 makes" in level.one_level(["x86-64-v4", "x86-64-v2"])
    assert level.one_level(["x86-64-v4", None]) == "ask for one kind of node"


RECEIPTS: dict[str, tuple[list[Any], list[str | None]]] = {
    "one": ([{"settings": {"cpu-level": "a"}}], ["a", "a"]),
    "another later": (
        [
            {"settings": {"cpu-level": "a"}},
            {"step": 3, "changed": {"settings": {"epochs": 3}}},
            {"step": 5, "changed": {"settings": {"cpu-level": "b"}}},
        ],
        ["a", "b"],
    ),
    "none": ([{"settings": {}}], [None, None]),
    "of a stranger": ([{"settings": 5}], [None, None]),
    "a number": ([{"settings": {"cpu-level": 5}}], [None, None]),
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_the_level_is_found_in_a_receipt_before_numpy_is_there(name: str, tmp_path: Path) -> None:
    lines, expected = RECEIPTS[name]
    assert level_of(tmp_path) is None
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "receipt.jsonl").write_text(text)
    assert [level_of(tmp_path, 5), level_of(tmp_path)] == expected


@pytest.mark.parametrize("words", [["--cpu-level", "a"], ["--cpu-level=a"], []])
def test_what_the_line_asks_for_is_known_before_it_is_parsed(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["dptrain", "--resume", "x", *words])
    monkeypatch.setenv("DPTRAIN_CPU_LEVEL", "" if words else "a")
    assert _asked() == "a"


# ---- on other CPUs


@needs_emulator
@pytest.mark.timeout(600)
@pytest.mark.skipif("x86-64-v3" not in HERE, reason="this CPU has not even the level")
def test_emulated_cpus_give_the_bytes_of_this_one_at_their_level(tmp_path: Path) -> None:
    """And without a level another CPU gives others: so the comparison can fail."""
    options = ["--folder", str(tmp_path)]
    for case in travel.SHORT:
        options += ["--case", case]
    low, high = (travel.hashes(name, None, *options) for name in ("x86-64-v2", "x86-64-v3"))
    assert travel.hashes("x86-64-v3", "Haswell", *options) == high
    nehalem = travel.hashes(level.NATIVE, "Nehalem", *options)
    assert nehalem == low
    assert all(nehalem[case] != high[case] for case in travel.SHORT)


@needs_emulator
def test_an_emulated_cpu_is_refused_a_level_that_it_lacks(tmp_path: Path) -> None:
    line = [str(travel.EMULATOR), "-cpu", "Nehalem", sys.executable, "-m", "dptrain"]
    done = subprocess.run(
        [*line, "--cpu-level", "x86-64-v3", *FEW],
        cwd=tmp_path,
        env={**os.environ, "MPI4PY_LIBMPI": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cpu-level is x86-64-v3, and the CPU here has x86-64-v2" in done.stderr
