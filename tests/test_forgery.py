"""Shows that no field of a run can be changed so that a replay still says identical.

Some of what forgery.py tries, chosen at random, and what matters most.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forgery import (
    Forge,
    Place,
    cover,
    earlier_parameters,
    edit_summary,
    edit_tensors,
    forgeries,
    in_summary,
    in_text,
    put,
    verdict_of,
    write_run,
)
from tiny import ALONE

from dptrain.record import checkpoint
from dptrain.run.verify import verify

KINDS: dict[str, dict[str, Any]] = {
    "the best epoch": {},
    "the last epoch": {"patience": None, "log_every": None, "optimizer": "sgd"},
}


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with test rows and validation rows."""
    return write_run(tmp_path_factory.mktemp("made"), **KINDS[request.param])


def test_a_run_that_nobody_changed_is_identical(made: Path, tmp_path: Path) -> None:
    assert verdict_of(made, tmp_path, Path.exists) == "identical"


def test_changes_at_random_are_found(made: Path, tmp_path: Path) -> None:
    everything = [*forgeries(made)]
    assert len(everything) > 1000
    for what, forge in random.Random(0).sample(everything, 40):  # noqa: S311 (no secret)
        found = verdict_of(made, tmp_path, forge)
        assert found.startswith(("damaged", "different", "refused: ")), (what, found)


def test_what_only_python_reads_alike_is_found(made: Path, tmp_path: Path) -> None:
    """A name that stands twice in a summary, of which others may take the first."""
    for what, forge in in_text(made):
        assert verdict_of(made, tmp_path, forge) == "damaged", what


def test_each_field_of_a_summary_is_covered_by_the_receipt(made: Path, tmp_path: Path) -> None:
    """Without a replay; all but how long the run took, on what, and where it is."""
    covered: dict[str, Forge] = {}
    for what, forge in in_summary(made):
        covered.setdefault(what.split(" is ")[0], forge)
    assert len(covered) > 15
    for what, forge in covered.items():
        run = shutil.copytree(made, tmp_path / "forged", dirs_exist_ok=True)
        forge(run)
        assert verify(run, world=ALONE).verdict == "damaged", what


def without(name: str) -> Callable[[dict[str, Any], object], object]:
    return lambda arrays, _: arrays.pop(name)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_checkpoint_without_its_parameters_is_damaged(ema: float | None, tmp_path: Path) -> None:
    """Whether they, their average or those of the best epoch are gone."""
    made = write_run(tmp_path, ema=ema)
    last = checkpoint.path_of(Path(), checkpoint.steps_of(made)[-1])
    for name in ("params", "best", *["ema"] * (ema is not None)):
        run = shutil.copytree(made, tmp_path / name)
        edit_tensors(run / last, without(name))
        assert f"{last.name}: damaged: '{name}'" in verify(run, world=ALONE).wrong


def about(*place: Any, value: Any) -> Forge:
    """Return what changes a value beside the model's arrays, and lets the receipt cover it."""

    def forge(run: Path) -> None:
        edit_tensors(run / "model.safetensors", lambda _, about: put(about, place, value))
        cover(run)

    return forge


def shift(run: Path) -> None:
    def edit(_: object, about: dict[str, Any]) -> None:
        about["encoding"]["shift"][0] += 1e-9

    edit_tensors(run / "model.safetensors", edit)
    cover(run)


def summary(*place: Any, value: Any) -> Forge:
    way: Place = place
    return lambda run: edit_summary(run, lambda found: put(found, way, value))


LIES: dict[str, Forge] = {
    "another activation": about("model", "spec", "activation", value="tanh"),
    "other classes": about("encoding", "classes", value=[0, 1, 3]),
    "another shift": shift,
    "parameters of an earlier epoch": lambda run: earlier_parameters(run, 2, "params"),
    "another accuracy": summary("test_accuracy", value=1.0),
    "another loss": summary("train_loss", value=0.0),
    "another hash": summary("params_sha256", value=64 * "0"),
    "other steps": summary("steps", value=2),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_model_or_summary_that_is_not_the_run_s(lie: str, made: Path, tmp_path: Path) -> None:
    assert verdict_of(made, tmp_path, LIES[lie]) in ("damaged", "different")
