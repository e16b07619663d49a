"""Shows that verify says identical on any number of ranks, and finds any bit that is not."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start, start
from forgery import lines_of, rechain
from tiny import ALONE, NUM_STEPS, bytes_of, train, write_data

from dptrain.guard import GUARD, Ask
from dptrain.level import in_use
from dptrain.optim.schedule import OF_LENGTH
from dptrain.record import checkpoint
from dptrain.record.receipt import head_at, head_of
from dptrain.record.rundir import as_json
from dptrain.run import identity
from dptrain.run.check import Difference, Verdict
from dptrain.run.ready import load
from dptrain.run.verify import verify
from dptrain.train.state import State
from dptrain.words import InputError
from dptrain.world import World


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run on it, with a checkpoint after each step but the first."""
    folder = tmp_path_factory.mktemp("made")
    train(write_data(folder / "data.npz"), folder / "run", keep_checkpoints=NUM_STEPS - 1)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return shutil.copytree(made / "run", tmp_path / "run")


def check(run: Path, replay: str | None = None, *data: Path) -> Verdict:
    return verify(run, replay, [str(path) for path in data], world=ALONE)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_run_as_it_was_written_is_whole_and_identical(run: Path) -> None:
    found = check(run)
    assert (found.verdict, found.wrong, found.notes) == ("whole", [], [])
    assert len(found.fine) == 1 + (NUM_STEPS - 1) + 2
    for replay, replayed, begin in (
        ("all", (1, NUM_STEPS), 0),
        (":", (1, NUM_STEPS), 0),
        ("3:", (3, NUM_STEPS), 2),
        (":2", (1, 2), 0),
        ("4:4", (4, 4), 3),
    ):
        found = check(run, replay)
        assert (found.verdict, found.wrong, found.first_difference) == ("identical", [], None)
        assert (found.replayed, found.replayed_from) == (replayed, begin)
    assert found.values()["verdict"] == "identical"


@pytest.mark.parametrize(
    "replay",
    ["", "1", "0:2", "2:1", "1:9", "a:b", "1:2:3", "-1:2", "²:", "1: 2", "9" * 5000 + ":"],
)
def test_steps_that_the_run_has_not_are_a_mistake(replay: str, run: Path) -> None:
    with pytest.raises(InputError, match="replay is "):
        check(run, replay)


def test_a_run_that_ended_before_its_first_step_has_none_to_be_replayed(run: Path) -> None:
    receipt = run / "receipt.jsonl"
    receipt.write_bytes(receipt.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(InputError, match="the receipt has no step yet"):
        check(run, "all")


def test_what_nobody_would_look_at_is_a_mistake(run: Path, made: Path) -> None:
    with pytest.raises(InputError, match="DATA is given, which only --replay looks at"):
        check(run, None, made / "data.npz")
    with pytest.raises(InputError, match="--model is given, which only --replay looks at"):
        verify(run, world=ALONE, file="net.py:build")
    with pytest.raises(InputError, match="--init-from is given, which only --replay looks at"):
        verify(run, world=ALONE, init_from="weights.safetensors")


def test_a_run_on_what_python_gave_is_replayed_on_it(run: Path, made: Path) -> None:
    with np.load(made / "data.npz") as held:
        arrays = held["x"], held["y"]
    assert verify(run, "all", arrays, world=ALONE).verdict == "identical"
    with pytest.raises(InputError, match="data is of type Data; give files, arrays"):
        verify(run, "all", load(arrays, world=ALONE), world=ALONE)


def test_a_run_of_2_ranks_is_replayed_on_1_and_3(quick: Start, tmp_path: Path) -> None:
    write_data(tmp_path / "data.npz")
    args = ("data.npz", "--epochs", "2", "--hidden", "30", "--dropout", "0.1", "--clip-norm", "1")
    more = ("--checkpoint-every", "3", "--hash-every", "2", "--out", "run", "--quiet")
    parts = ("--batch-size", "64", "--shards", "4")
    assert quick("train", *args, *more, *parts, ranks=2).status == 0
    for ranks, steps in ((None, "all"), (3, "2:9")):
        done = quick("verify", "run", "--replay", steps, "--quiet", "--json", ranks=ranks)
        assert done.json["verdict"] == "identical"
        assert done.json["ranks"] == (ranks or 1)
        assert done.stdout.count("\n") == 1
    path = tmp_path / "run" / "checkpoints" / "step-0000000006.safetensors"
    flip(path, 8 * path.stat().st_size - 1)
    done = quick("verify", "run", ranks=2)
    assert done.status == 1
    assert done.stdout.count("wrong  step-0000000006.safetensors: damaged: its SHA-256") == 1
    assert done.stdout.endswith("\ndamaged\n")


# ---- a bit that is not as it was


def test_a_bit_of_a_checkpoint(run: Path) -> None:
    rng = np.random.default_rng(0)
    path = checkpoint.path_of(run, 3)
    content = path.read_bytes()
    for bit in rng.integers(0, 8 * len(content), 10):
        flip(path, int(bit))
        found = check(run)
        assert found.verdict == "damaged"
        (wrong,) = found.wrong
        assert wrong.startswith("step-0000000003.safetensors: damaged: ")
        path.write_bytes(content)


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("name", ["params", "optimizer.0"])
def test_a_bit_of_a_checkpoint_under_a_right_checksum(step: int, name: str, run: Path) -> None:
    """The receipt hashes the parameters after steps 2 and 4: after 3 step 4 shows it."""
    path = checkpoint.path_of(run, step)
    arrays, state = checkpoint.read(path)
    arrays[name].view(np.uint32).reshape(-1)[0] ^= 1 << 22
    checkpoint.write(path, arrays, state)
    found = check(run)
    if (step, name) == (2, "params"):
        assert found.wrong == [f"{path.name}: its parameters are not those of the receipt"]
    else:
        assert found.verdict == "whole"
    found = check(run, f"{step + 1}:")
    assert found.verdict == "different"
    assert found.first_difference is not None
    assert found.first_difference.step == step + 1  # a checkpoint's parameters are compared too
    assert found.first_difference.found.keys() <= {"loss", "params", "optimizer.0"}
    found = check(run, "all")  # which passes the checkpoint on its way from the beginning
    assert found.verdict in ("different", "damaged")
    if found.first_difference is not None:
        assert found.first_difference.step == step
        assert found.first_difference.found.keys() == {name}


def test_a_value_of_a_checkpoint_under_a_right_checksum(run: Path) -> None:
    """Each that its run goes on with: a replay that passes it finds that one and no other."""
    path = checkpoint.path_of(run, 3)
    arrays, state = checkpoint.read(path)
    names = {*State._fields} - {"step", "kept"}  # which others are held to
    for name in sorted(names):
        value = state[name]
        if isinstance(value, dict):
            other: Any = {key: number + 1 for key, number in value.items()}
        else:
            other = value + 1 if isinstance(value, int) else (1.5).hex()
        checkpoint.write(path, arrays, state | {name: other})
        difference = check(run, "all").first_difference
        assert difference is not None, name
        assert difference == Difference(3, {name: other}, {name: value})


def test_a_bit_of_the_model(run: Path) -> None:
    rng = np.random.default_rng(0)
    path = run / "model.safetensors"
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:header])
    for name in tensors.keys() - {"__metadata__"}:
        start, stop = tensors[name]["data_offsets"]
        flip(path, 8 * header + int(rng.integers(8 * start, 8 * stop)))
        wanted = "damaged: its SHA-256 is not the one it was written with"
        assert check(run).wrong[-1] == f"model.safetensors: {wanted}"
        path.write_bytes(content)


@pytest.mark.parametrize("step", [2, 3, 4])
def test_the_best_parameters_of_a_checkpoint(step: int, run: Path) -> None:
    """Under a right checksum: they are those of an epoch that the receipt hashes."""
    path = checkpoint.path_of(run, step)
    arrays, state = checkpoint.read(path)
    arrays["best"].view(np.uint32)[0] ^= 1
    checkpoint.write(path, arrays, state)
    (wrong,) = check(run).wrong
    assert wrong.startswith(f"{path.name}: its best parameters")


def test_a_checkpoint_of_another_receipt(run: Path) -> None:
    path = checkpoint.path_of(run, 3)
    arrays, state = checkpoint.read(path)
    for changed in ({"receipt_sha256": "0" * 64}, {"receipt_lines": 3}, {"receipt_lines": 99}):
        checkpoint.write(path, arrays, state | changed)
        assert check(run).wrong == [f"{path.name}: the receipt is not the one it was written with"]


def test_a_replay_passes_over_a_damaged_checkpoint_and_leaves_it(run: Path) -> None:
    path = checkpoint.path_of(run, 3)
    flip(path, 8 * path.stat().st_size - 1)
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    found = check(run, "4:4")
    assert (found.verdict, found.replayed_from, found.first_difference) == ("damaged", 2, None)
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before


def test_a_checkpoint_under_another_steps_name(run: Path) -> None:
    old, new = checkpoint.path_of(run, 4), checkpoint.path_of(run, 1)
    old.rename(new)
    (wrong,) = check(run).wrong
    assert wrong == f"{new.name}: damaged: it is of step 4"


def test_a_summary_that_names_an_earlier_line(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    lines = (run / "receipt.jsonl").read_bytes().splitlines()
    for line in lines[:-1]:
        changed = summary | {"receipt_sha256": head_of(line)}
        (run / "summary.json").write_text(json.dumps(changed))
        (wrong,) = check(run).wrong
        assert wrong.startswith("summary.json")


def test_a_bit_of_any_line_of_the_receipt(run: Path) -> None:
    rng = np.random.default_rng(0)
    path = run / "receipt.jsonl"
    content = path.read_bytes()
    for number in range(content.count(b"\n")):
        before = b"\n".join(content.split(b"\n")[:number])
        for place in rng.integers(len(before) + 1, len(before) + 40, 3):
            flip(path, 8 * int(place))
            found = check(run)
            assert found.verdict == "damaged"
            assert "receipt" in found.wrong[0] or "summary" in found.wrong[0]
            path.write_bytes(content)


Change = Callable[[list[dict[str, Any]]], object]

LIES: dict[str, tuple[Change, str]] = {
    "loss": (lambda lines: lines[2].update(loss=(0.25).hex()), "loss"),
    "rows": (lambda lines: lines[2].update(rows="0" * 64), "rows"),
    "params": (lambda lines: lines[2].update(params="0" * 64), "params"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_receipt_that_lies_under_right_hashes_is_found_by_a_replay(lie: str, run: Path) -> None:
    change, name = LIES[lie]
    lines = lines_of(run)
    change(lines)
    rechain(run, lines)
    found = check(run, ":")
    assert found.verdict == "different"
    assert found.first_difference is not None
    assert found.first_difference.step == 2
    assert found.first_difference.found.keys() == {name}
    assert found.first_difference.receipt[name] == lines[2][name]


def test_the_data(run: Path, made: Path, tmp_path: Path) -> None:
    """A bit of the file is an archive that is damaged; one of a value, stored anew, other data."""
    content = dict(np.load(made / "data.npz"))
    moved = Path(shutil.copy(made / "data.npz", tmp_path / "moved.npz"))
    assert check(run, ":", moved).verdict == "identical"
    flip(moved, 8 * 2000)
    with pytest.raises(InputError, match=r"moved\.npz can't be read: Bad CRC-32"):
        check(run, ":", moved)
    for name, place in (("x", 7), ("y", 3)):
        array = content[name].copy()
        array.view(np.uint64).reshape(-1)[place] ^= 1
        np.savez(moved, **{**content, name: array})
        with pytest.raises(InputError, match=r"moved\.npz: data.train is .*, was "):
            check(run, ":", moved)
        assert check(run).verdict == "whole"


def test_before_an_epoch_has_ended_no_parameters_are_the_best(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(made / "data.npz", run, keep_checkpoints=NUM_STEPS)
    found = check(run)
    assert (found.verdict, found.wrong) == ("whole", [])
    assert len(found.fine) == 1 + NUM_STEPS + 2


def test_line_ends_that_were_changed_on_the_way_are_said(run: Path) -> None:
    """As git's core.autocrlf changes them where a run is kept in a repository."""
    for name in ("summary.json", "receipt.jsonl"):
        path = run / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        assert "git's core.autocrlf" in check(run).wrong[0], name
    with pytest.raises(InputError, match=r"git's core.autocrlf.*; put it back whole"):
        head_at(run, 3)


def test_other_rows_say_what_a_replay_needs(run: Path, made: Path, tmp_path: Path) -> None:
    content = dict(np.load(made / "data.npz"))
    np.savez(tmp_path / "order.npz", x=content["x"][::-1], y=content["y"][::-1])
    with pytest.raises(InputError, match="needs the run's rows and columns, in their order: give"):
        check(run, ":", tmp_path / "order.npz")


def test_data_of_another_width_is_said_before_there_is_memory_for_it(
    run: Path, made: Path, tmp_path: Path
) -> None:
    """And by its width, not by how many parameters a model of it would have."""
    content = dict(np.load(made / "data.npz"))
    np.savez(tmp_path / "wide.npz", x=np.tile(content["x"], 2), y=content["y"])
    shapes = [re.escape(f"x ({len(content['x'])}, {width})") for width in (10, 5)]
    with pytest.raises(InputError, match="wide.npz: data.train is {}.*, was {}".format(*shapes)):
        check(run, ":", tmp_path / "wide.npz")


def test_the_settings(run: Path) -> None:
    path = run / "config.toml"
    text = path.read_text()
    for old, new in (("seed = 0", "seed = 1"), ("adam", "sgd"), ("shards = 4", "shards = 3")):
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        found = check(run)
        assert found.verdict == "damaged"
        assert found.wrong == [f"config.toml: not as in the receipt: {WORDS[old]}"]
    path.write_text(text.replace("keep-checkpoints = 3", "keep-checkpoints = 4"))
    assert check(run).verdict == "whole"


WORDS = {"seed = 0": "seed", "adam": "optimizer", "shards = 4": "shards"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("in_use", in_use()._replace(libm="another"), "libm: ['another'] here"),
        ("linear_algebra", ["another blas"], "blas: ['another blas'] here"),
        ("__version__", "99", "dptrain: 99 here"),
    ],
)
def test_another_machine_is_noted(
    name: str, value: Any, said: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, name, value if name == "__version__" else lambda: value)
    found = check(run, ":")
    assert found.verdict == "identical"
    (note,) = found.notes
    assert note.startswith(said)


def test_a_summary_from_before_the_run_went_on(run: Path, made: Path) -> None:
    """Killed before its new end, the run has the old summary and model."""
    old = {name: (run / name).read_bytes() for name in ("summary.json", "model.safetensors")}
    train(made / "data.npz", run, resume=True, epochs=3)
    for name, content in old.items():
        (run / name).write_bytes(content)
    found = check(run)
    assert found.wrong == []
    (note,) = found.notes
    assert "the run has gone on since its model and its summary, of step 4, were written" in note
    assert check(run, "all").verdict == "identical"
    flip(run / "model.safetensors", 8 * (len(old["model.safetensors"]) - 1))
    assert check(run, "all").verdict == "damaged"


# ---- runs that are no whole


def without(run: Path, *names: str) -> None:
    for name in names:
        if name == "the end":
            lines = (run / "receipt.jsonl").read_bytes().splitlines(keepends=True)
            (run / "receipt.jsonl").write_bytes(b"".join(lines[:-1]))
        else:
            (run / name).unlink()


BETWEEN: dict[str, tuple[tuple[str, ...], str, str]] = {
    "the last checkpoint and the end": (
        ("the end", "model.safetensors", "summary.json"),
        "whole",
        "the run has not ended",
    ),
    "the end and the model": (
        ("model.safetensors", "summary.json"),
        "whole",
        "the run has ended, and its model is not written yet: --resume does it",
    ),
    "the model and the summary": (
        ("summary.json",),
        "damaged",
        "model.safetensors is there alone, of two files; --resume writes both again",
    ),
    "two ends of one run": (("the end",), "damaged", "no line of the end that summary.json tells"),
}


@pytest.mark.parametrize("moment", BETWEEN)
def test_a_run_that_was_killed_at_its_end(moment: str, made: Path, run: Path) -> None:
    """What verify says in between, and that the run goes on to the same bytes."""
    gone, verdict, words = BETWEEN[moment]
    without(run, *gone)
    found = check(run)
    assert found.verdict == verdict
    (said,) = found.notes + found.wrong
    assert words in said
    assert check(run, "all").verdict == {"whole": "identical"}.get(verdict, verdict)
    train(made / "data.npz", run, resume=True, keep_checkpoints=NUM_STEPS - 1)
    assert bytes_of(run) == bytes_of(made / "run")
    assert check(run, "all").verdict == "identical"


def test_a_run_with_other_threads_is_identical(made: Path, tmp_path: Path) -> None:
    train(made / "data.npz", tmp_path / "run", threads=2)
    assert check(tmp_path / "run", "all").verdict == "identical"


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal be heard in some step."""
    beats = iter(range(1, 1000))

    def beat(_: World) -> None:
        GUARD.asked = Ask.SIGTERM if next(beats) == step else Ask(0)

    monkeypatch.setattr(World, "beat", beat)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_run_that_a_signal_ended_and_that_goes_on(
    step: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model is the receipt's until it goes on, and a replay's from then on."""
    run, data = tmp_path / "run", made / "data.npz"
    stop_at(step, monkeypatch)
    summary = train(data, run, keep_checkpoints=NUM_STEPS - 1).summary
    assert (summary.stopped, summary.steps, summary.saved) == ("SIGTERM", step, step)
    assert (check(run).verdict, check(run).notes) == ("whole", [])
    assert check(run, "all").verdict == "identical"
    path = checkpoint.path_of(run, step)  # of before the epoch was measured, if it was over
    content, (arrays, state) = path.read_bytes(), checkpoint.read(path)
    checkpoint.write(path, arrays, state | {"loss_sum": (1.5).hex()})
    difference = check(run, "all").first_difference
    assert difference is not None
    assert (difference.step, [*difference.found]) == (step, ["loss_sum"])
    path.write_bytes(content)
    ended = [(run / name).read_bytes() for name in ("model.safetensors", "summary.json")]
    train(data, run, resume=True, keep_checkpoints=NUM_STEPS - 1)
    assert bytes_of(run) == bytes_of(made / "run")
    if step == NUM_STEPS:
        return
    without(run, "the end")  # as if it were killed before this one
    for name, content in zip(("model.safetensors", "summary.json"), ended, strict=True):
        (run / name).write_bytes(content)
    found = check(run, "all")
    assert found.verdict == "identical"
    assert f"gone on since its model and its summary, of step {step}, were" in found.notes[0]
    flip(run / "model.safetensors", 8 * (len(ended[0]) - 1))
    assert check(run).verdict == "damaged"
    forged = summary.plain() | {"train_loss": 0.5}
    (run / "model.safetensors").write_bytes(ended[0])
    (run / "summary.json").write_bytes(as_json(forged))
    assert check(run, "all").verdict == "different"


def test_a_run_that_has_not_ended(run: Path) -> None:
    lines = (run / "receipt.jsonl").read_bytes().splitlines(keepends=True)
    (run / "receipt.jsonl").write_bytes(b"".join(lines[:-1]))
    for name in ("summary.json", "model.safetensors"):
        (run / name).unlink()
    found = check(run, ":")
    assert found.verdict == "identical"
    assert found.notes == ["the run has not ended: what follows its last checkpoint may still go"]


def test_a_run_that_has_written_nothing_yet(run: Path) -> None:
    (run / "receipt.jsonl").write_bytes(b"")
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert check(run).verdict == "damaged"
    assert check(run, ":").verdict == "damaged"


def test_a_run_that_has_gone_on_changed(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(made / "data.npz", run, keep_checkpoints=9)
    train(made / "data.npz", run, resume=True, epochs=3, keep_checkpoints=9)
    assert check(run).verdict == "whole"
    assert check(run, "1:4").verdict == check(run, "5:6").verdict == "identical"
    assert check(run, "3:5").verdict == "identical"  # more epochs change no step
    for schedule in OF_LENGTH:
        run = tmp_path / schedule
        train(made / "data.npz", run, schedule=schedule, keep_checkpoints=1)
        train(made / "data.npz", run, resume=True, epochs=3, schedule=schedule, keep_checkpoints=1)
        assert check(run).verdict == "whole"
        assert check(run, "1:4").verdict == "identical"
        with pytest.raises(InputError, match=r"after step 4 the run went on changed \(epochs"):
            check(run, "5:6")


def test_a_run_whose_length_was_said_otherwise(made: Path, tmp_path: Path) -> None:
    """Epochs at first, then steps in their place: what is gone is gone from the receipt too."""
    run = tmp_path / "run"
    train(made / "data.npz", run)
    train(made / "data.npz", run, resume=True, epochs=None, steps=6)
    assert check(run).verdict == "whole"
    assert check(run, "5:6").verdict == "identical"
    with pytest.raises(InputError, match=r"clip-norm is 3\.0; the run has"):
        train(made / "data.npz", run, resume=True, epochs=None, steps=6, clip_norm=3.0)
    with pytest.raises(InputError, match="shuffle is blocks; the run has rows"):
        train(made / "data.npz", run, resume=True, epochs=None, steps=6, shuffle="blocks")


def test_what_is_no_run(tmp_path: Path) -> None:
    done = start("dptrain", "verify", "nothing", ranks=2, cwd=tmp_path)
    assert (done.status, done.stderr.count("dptrain: "), done.stdout) == (2, 1, "")
    assert "name the directory of a run" in done.stderr
