"""Shows that PyTorch's and JAX's networks are trained to the same bytes on any number of ranks."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import HERE, Start, check_mistake, start

for library in ("torch", "jax"):
    pytest.importorskip(library, reason=f"{library} is not here: make test-frameworks")

Came = dict[str, dict[str, str]]


def came(folder: Path, ranks: int | None) -> Came:
    """Return what `framework_runs.py` says each training came to, by its name and how it went."""
    folder.mkdir()
    script = HERE / "framework_runs.py"
    done = start("python", script, ranks=ranks, cwd=folder, timeout=290)
    assert done.status == 0, done.stderr
    found: Came = {}
    for line in done.stdout.splitlines():
        name, how, what = json.loads(line)
        found.setdefault(name, {})[how] = what
    return found


@pytest.mark.timeout(420)  # six processes load both libraries
def test_one_result_on_any_number_of_ranks(tmp_path: Path) -> None:
    alone, found = came(tmp_path / "alone", None), came(tmp_path / "six", 6)
    results: set[Any] = set()
    for name, ways in found.items():
        replays = [ways.pop(how) for how in list(ways) if "replayed" in how]
        assert replays == ["identical"] * 2, name
        assert {*ways} == {*(f"on {n}" for n in (1, 2, 3, 4, 6))} | {
            "on 1, then 2", "on 3, then 4", "on 2, then 6",
        }  # fmt: skip
        (expected,) = alone[name].values()
        for how, what in ways.items():
            assert what == (expected[:64] if "then" in how else expected), (name, how)
        results.add(expected)
    assert len(results) == len(found) == len(alone) == 3  # each trains, and otherwise


BAD = """
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional

def build(inputs, outputs, fault=""):
    net = Net(inputs[0], outputs, fault)
    fault == "large" and torch.empty(99999999999999999999)
    fault == "seed" and net.weight.data.fill_(float(os.environ["PMI_RANK"]))
    return net.half() if fault == "half" else net.to("meta") if fault == "meta" else net

class Net(nn.Linear):
    def __init__(self, inputs, outputs, fault):
        super().__init__(inputs, outputs)
        self.fault, self._calls = fault, 0

    def forward(self, x):
        self._calls += self.training
        z = super().forward(x)
        late = self.fault == "late" and self._calls > 2 and os.environ["PMI_RANK"] == "1"
        if late or self.fault == "raises":
            raise KeyError("no such letter")
        if self.fault == "nan" and self._calls > 30:
            z = z * float("nan")
        if self.fault == "numpy":
            z = z + torch.from_numpy(np.random.default_rng().random(z.shape, np.float32))
        if self.fault == "own":
            z = z + torch.rand(z.shape, generator=torch.Generator().manual_seed(self._calls))
        return z[:, :9] if self.fault == "wide" else z
"""
MEAN = (
    BAD
    + """
def loss(outputs, targets):
    return functional.cross_entropy(outputs, targets)
"""
)


METRICS = BAD + "def metrics(outputs, targets): return {}['right']"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("half", "weight is float16; give float32 for all arrays, or float64: module.float"),
        ("meta", r"weight is on meta; bring it to the CPU: module.cpu\(\)"),
        ("large", r'in build: TypeError: .* unpacking long(?: long|")$'),
        ("seed", r"initial parameters is \w+ on rank 1 and \w+ on rank 0; seed on every rank what"),
        ("raises", r"bad.py, line 25, in forward: KeyError: 'no such letter'"),
        ("wide", r"outputs have shape \[64, 9\]; return \[m, 10\], a score for each class"),
        ("nan", r"loss of step \d+ \(epoch 1\), shard \d is nan, as is .*, first in weight: stop"),
        ("numpy", "differs from itself in the gradient of weight: a random number that is not"),
        ("own", "differs from itself in the gradient of weight: a random number that is not"),
        ("metrics", r"^dptrain: the model's code failed: .*, in metrics: KeyError: 'right'"),
        ("mean", r'one number for 64 examples; return one an example: .*reduction="none"'),
    ],
)
def test_mistakes_end_with_one_message(
    fault: str, words: str, quick: Start, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text({"mean": MEAN, "metrics": METRICS}.get(fault, BAD))
    given = ("--model", "bad.py:build", "--model-arg", f"fault={fault}", "--scale", "standard")
    check_mistake(quick(*given, "--out", "run", "--epochs", "1", "--quiet", ranks=2), words)


def test_a_rank_that_fails_shows_the_traceback_of_its_file_alone(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    given = ("--model", "bad.py:build", "--model-arg", "fault=late", "--scale", "standard")
    done = start("dptrain", *given, "--steps", "9", "--quiet", ranks=2, cwd=tmp_path)
    assert done.status == 2
    shown = [line for line in done.stderr.splitlines() if line.startswith((" ", "Tr", "Key"))]
    assert shown[0] == "Traceback (most recent call last):"
    assert 'bad.py", line 25, in forward' in shown[1]
    assert len(shown) <= 5
    assert shown[-1] == "KeyError: 'no such letter'"
    first = next(line for line in done.stderr.splitlines() if "ends the run" in line)
    assert first.startswith("dptrain: rank 1 of 2 on ")
