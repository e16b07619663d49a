"""Shows that a run starts from another's weights by names, and is only redone with the same."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Mistake, Start
from safetensors.numpy import load_file, save_file
from tiny import ALONE, HIDDEN, bytes_of, load_once, train, write_data

import dptrain
from dptrain import InputError, ModelConfig, TrainConfig
from dptrain.arrays import views
from dptrain.config import DType
from dptrain.run.weights import with_weights

NAMES = [f"layers.{number}.{kind}" for number in (0, 1) for kind in ("weight", "bias")]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a folder with data and a finished run."""
    train(write_data(tmp_path / "data.npz"), tmp_path / "first")
    return tmp_path


def start_of(path: Path, data: Path, dtype: DType = "float32", hidden: int = 4) -> Any:
    """Return a model, the parameters that it has alone, those of a file, and what is said of it."""
    model = dptrain.mlp_for(load_once(data), ModelConfig(hidden=(hidden,), dtype=dtype))
    own = model.initial_params(np.random.default_rng(7))
    _, weights = with_weights(TrainConfig(init_from=str(path)), model)
    assert weights is not None
    return model, own, weights.initial(model, own), weights.told


def test_a_run_is_taken_up_whole(made: Path) -> None:
    """By its directory or by its file: the parameters are those that it ended with."""
    stored = load_file(made / "first" / "model.safetensors")
    for path in (made / "first", made / "first" / "model.safetensors"):
        model, own, params, told = start_of(path, made / "data.npz")
        found = views(model.layout, params)
        for name in NAMES:
            np.testing.assert_array_equal(found[name].T, stored[name], strict=True)
        assert params.tobytes() != own.tobytes()
        assert told == [f"from {made}/first/model.safetensors: 4 arrays, {', '.join(NAMES)}"]


def test_what_does_not_fit_starts_as_without_and_is_said(made: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "layers.0.weight": rng.normal(size=(4, 5)).astype(np.float16),
        "layers.0.bias": rng.normal(size=4),
        "layers.1.weight": rng.normal(size=(10, 4)).astype(np.float32),
        "extra": np.zeros(2),
        "input.shift": np.zeros(5),
    }
    path = made / "w.safetensors"
    save_file(arrays, path)
    model, own, params, told = start_of(path, made / "data.npz")
    found, before = views(model.layout, params), views(model.layout, own)
    np.testing.assert_array_equal(found["layers.0.weight"].T, arrays["layers.0.weight"])
    np.testing.assert_array_equal(found["layers.0.bias"], arrays["layers.0.bias"].astype("f4"))
    for name in ("layers.1.weight", "layers.1.bias"):
        assert found[name].tobytes() == before[name].tobytes()
    assert told == [
        f"from {path}: 2 arrays, layers.0.weight, layers.0.bias",
        "not taken from it, layers.1.weight: found float32 [10, 4], needed float32 [3, 4]",
        "not in it, and so as without it: layers.1.bias",
        "not used: extra",
    ]
    arrays["layers.0.bias"] = np.arange(4)
    save_file(arrays, path)
    _, _, _, told = start_of(path, made / "data.npz", "float64")
    assert told[1] == "not taken from it, layers.0.bias: found I64 [4], needed float64 [4]"


def test_such_a_run_goes_on_and_is_replayed_with_the_same_file_only(made: Path) -> None:
    data, run, path = made / "data.npz", made / "second", made / "w.safetensors"
    shutil.copy(made / "first" / "model.safetensors", path)
    trained = train(data, run, init_from=str(path), keep_checkpoints=99)
    plain = train(data, made / "plain")
    assert trained.params.tobytes() != plain.params.tobytes()
    settings = json.loads((run / "receipt.jsonl").read_text().splitlines()[0])["settings"]
    assert settings["init-sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert dptrain.verify(run, "all", [str(data)], world=ALONE).verdict == "identical"
    whole = bytes_of(run)
    for step in (3, 4):  # in the middle of an epoch
        (run / "checkpoints" / f"step-{step:010}.safetensors").unlink()
    train(data, run, resume=True, init_from=str(path), keep_checkpoints=99)
    assert bytes_of(run) == whole
    moved = path.rename(made / "moved.safetensors")
    for again in (
        lambda: dptrain.verify(run, "all", [str(data)], world=ALONE),
        lambda: train(data, run, resume=True, init_from=str(path), epochs=3),
    ):
        with pytest.raises(InputError, match=r"init-from: .*w\.safetensors can't be read: No such"):
            again()
    found = dptrain.verify(run, "all", [str(data)], init_from=str(moved), world=ALONE)
    assert found.verdict == "identical"
    train(data, made / "other", epochs=1)
    other = str(made / "other")
    with pytest.raises(InputError, match=r"has the SHA-256 .*, and the run started from one with"):
        dptrain.verify(run, "all", [str(data)], init_from=other, world=ALONE)
    with pytest.raises(InputError, match=r"init-sha256 is .*; the run has"):
        train(data, run, resume=True, init_from=other, epochs=3)


def test_the_line_says_it_and_ranks_agree(made: Path, quick: Start) -> None:
    found = []
    for ranks in (None, 1, 3):
        out = made / f"run{ranks}"
        done = quick("train", "data.npz", "--init-from", "first", "--hidden", "4", "--steps", "3",
                     "--freeze", "layers.0.*", "--validation", "0.2", "--out", out,
                     ranks=ranks)  # fmt: skip
        assert done.status == 0, done.stderr
        assert "first/model.safetensors: 4 arrays, layers.0.weight, " in done.stderr
        found.append(bytes_of(out))
    assert found[0] == found[1] == found[2]
    frozen, before = (load_file(made / name / "model.safetensors") for name in ("run3", "first"))
    assert frozen["layers.0.weight"].tobytes() == before["layers.0.weight"].tobytes()
    (made / "first").rename(made / "elsewhere")
    done = quick("verify", "run3", "--replay", "all", "--init-from", "elsewhere", ranks=2)
    assert done.stdout.splitlines()[-1] == "identical", done.stderr
    done = quick("train", "--resume", "run3", "--steps", "4", "--init-from", "elsewhere")
    assert done.status == 0, done.stderr


def test_mistakes_with_weights(mistake: Mistake, tmp_path: Path) -> None:
    save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors")
    save_file({"layers.0.bias": np.zeros(3)}, tmp_path / "b.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"layers.0.bias": np.full(128, 1e300)}, tmp_path / "far.safetensors")
    for name, words in {
        "nothing": "init-from: .*nothing can't be read: No such file or directory; give a",
        "text.safetensors": "init-from: .*text.safetensors is no safetensors file: ",
        "a.safetensors": r"nothing that fits the model. Found: a; needed: layers.0.weight, layers",
        "b.safetensors": r"layers.0.bias: found float64 \[3\], needed float32 \[128\]; needed: ",
        "far.safetensors": "not finite as float32, in layers.0.bias; give weights of",
        "/dev/zero": "init-from: /dev/zero can't be read",
        "x" * 5000: "init-from: .* can't be read: File name too long",
    }.items():
        mistake("train", "--init-from", name, words=words)
    mistake("train", "--init-sha256", "00", words="from a file with the SHA-256 00: name it by")
    model = dptrain.mlp_for(load_once(write_data(tmp_path / "data.npz")), HIDDEN)
    with pytest.raises(InputError, match="and the run started from one with 00: it has changed"):
        with_weights(
            TrainConfig(init_from=str(tmp_path / "b.safetensors"), init_sha256="00"), model
        )
