"""Shows that a statement is of one run alone, can be signed, and that forgeries are found."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start
from forgery import cover, edit_tensors, lines_of, rechain, write_run
from tiny import ALONE

from dptrain import InputError
from dptrain.run.check import Verdict
from dptrain.run.statement import stated
from dptrain.run.verify import verify

Forge = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and its statement beside it."""
    folder = tmp_path_factory.mktemp("made")
    run = write_run(folder)
    (folder / "statement.json").write_text(json.dumps(stated(run)))
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be forged, and of its data and its statement."""
    shutil.copytree(made.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def check(run: Path, *args: Any) -> Verdict:
    return verify(run, *args, statement=run.parent / "statement.json", world=ALONE)


def test_a_statement_says_what_was_trained_from_what_by_what(run: Path) -> None:
    found = stated(run)
    end = lines_of(run)[-1]
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["subject"] == [{"name": "model.safetensors", "digest": {"sha256": end["model"]}}]
    said = found["predicate"]
    first = lines_of(run)[0]
    assert said["data"] == first["data"]
    assert said["program"]["cpu_level"] == first["cpu_level"]
    assert said["result"] == end["end"]
    assert said["receipt"]["lines"] == len(lines_of(run))
    assert "checkpoint-every" not in said["settings"]
    assert len(json.dumps(found)) < 5000
    verdict = check(run, "all", [str(run.parent / "data.npz")])
    assert verdict.verdict == "identical"
    assert any("states what the receipt says" in line for line in verdict.fine)
    assert not any("without --replay" in note for note in verdict.notes)


def test_receipt_model_and_statement_are_enough_and_the_rest_is_named(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    for name in ("config.toml", "summary.json", "metrics.jsonl", "seconds.json"):
        (run / name).unlink()
    found = check(run)
    assert (found.verdict, len(found.fine)) == ("whole", 3)
    for name in ("config.toml", "summary.json", "no checkpoint", "neither data nor steps"):
        assert any(name in note for note in found.notes), name
    assert check(run, "all", [str(run.parent / "data.npz")]).verdict == "identical"
    (run / "model.safetensors").unlink()
    assert any("model.safetensors is not there" in note for note in check(run).notes)


def better_losses(run: Path) -> None:
    lines = lines_of(run)
    lines[1]["loss"] = (0.5).hex()
    rechain(run, lines)


def another_model(run: Path) -> None:
    def edit(arrays: dict[str, Any], _: object) -> None:
        arrays["layers.0.weight"] = arrays["layers.0.weight"] + np.float32(1)

    edit_tensors(run / "model.safetensors", edit)
    cover(run)


def other_config(run: Path) -> None:
    path = run / "config.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1"))


def other_settings(run: Path) -> None:
    other_config(run)
    lines = lines_of(run)
    lines[0]["settings"]["seed"] = 1
    rechain(run, lines)


def cut_off(run: Path) -> None:
    rechain(run, lines_of(run)[:-3])


def end_cut_off(run: Path) -> None:
    rechain(run, lines_of(run)[:-1])


def other_statement(run: Path) -> None:
    path = run.parent / "statement.json"
    found = json.loads(path.read_text())
    found["predicate"]["receipt"]["sha256"] = 64 * "0"
    path.write_text(json.dumps(found))


FORGERIES: dict[str, tuple[Forge, str]] = {
    "a rehashed chain": (better_losses, "predicate.receipt.sha256"),
    "another model with a right chain": (another_model, "subject"),
    "an edited config": (other_config, "config.toml: not as in the receipt: seed"),
    "edited settings with a right chain": (other_settings, "predicate.settings.seed"),
    "a truncated run": (cut_off, "the run has not ended"),
    "a run without its end": (end_cut_off, "the run has not ended"),
    "a statement of another run": (other_statement, "predicate.receipt.sha256"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_run_is_not_what_was_stated(name: str, run: Path) -> None:
    forge, words = FORGERIES[name]
    forge(run)
    found = check(run)
    assert found.verdict == "damaged"
    assert any(words in line for line in found.wrong), found.wrong


def test_swapped_data_are_found_by_a_replay(run: Path) -> None:
    path = run.parent / "data.npz"
    arrays = dict(np.load(path))
    arrays["x"] = arrays["x"][::-1].copy()
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"data.train is .*; a replay needs the run's rows"):
        check(run, "all", [str(path)])


def test_every_value_of_a_statement_counts(run: Path) -> None:
    path = run.parent / "statement.json"
    whole = json.loads(path.read_text())
    predicate = whole["predicate"]
    assert predicate["result"]["stopped"] is None
    predicates = (whole, predicate, predicate["result"], predicate["receipt"])
    for inner, name in [(each, name) for each in predicates for name in each]:
        kept = inner.pop(name)  # to be lacking, to be another, to be as large but of another type
        for other in (..., "another", *([float(kept)] if type(kept) is int else [])):
            inner |= {} if other is ... else {name: other}
            path.write_text(json.dumps(whole))
            assert check(run).verdict == "damaged", (name, other)
        inner[name] = kept
    for text in ("", "[]", "{"):
        path.write_text(text)
        with pytest.raises(InputError, match="is no statement that can be read"):
            check(run)


def test_what_is_not_whole_or_not_over_is_not_stated(run: Path, dptrain: Start) -> None:
    printed = dptrain("receipt", run).json
    assert printed == stated(run)
    other_config(run)
    done = dptrain("receipt", run)
    assert (done.status, done.stdout) == (2, "")
    assert "is not whole: config.toml: not as in the receipt: seed" in done.stderr


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")
def test_a_statement_is_signed_and_a_changed_one_is_not(run: Path) -> None:
    def keygen(*line: str, stdin: bytes = b"") -> int:
        line = ("ssh-keygen", *line)
        done = subprocess.run(line, cwd=run.parent, input=stdin, capture_output=True, check=False)
        return done.returncode

    assert keygen("-q", "-t", "ed25519", "-N", "", "-f", "ann") == 0
    assert keygen("-Y", "sign", "-f", "ann", "-n", "dptrain", "statement.json") == 0
    (run.parent / "signers").write_text("ann@lab.org " + (run.parent / "ann.pub").read_text())
    who = ("-f", "signers", "-I", "ann@lab.org", "-n", "dptrain")
    line = ("-Y", "verify", *who, "-s", "statement.json.sig")
    content = (run.parent / "statement.json").read_bytes()
    assert keygen(*line, stdin=content) == 0
    assert keygen(*line, stdin=content.replace(b"v1", b"v2", 1)) != 0
