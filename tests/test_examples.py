"""Shows that the examples run and say what their stories claim."""

import re
from pathlib import Path

import numpy as np
from conftest import start

EXAMPLES = Path(__file__).parent.parent / "examples"


def numbers(line: str) -> list[float]:
    """Return the numbers with four decimals in a line."""
    return [float(text) for text in re.findall(r"-?\d+\.\d{4}", line)]


def test_the_scalar_example_computes_what_it_prints(tmp_path: Path) -> None:
    done = start("python", EXAMPLES / "scalar_minibatch.py", cwd=tmp_path)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.count("equal: True") == 2
    assert max(map(len, done.stdout.splitlines())) <= 80
    lines = {line.split("  ")[0].strip(): numbers(line) for line in done.stdout.splitlines()[:26]}
    x1, x2 = np.array(lines["x1"]), np.array(lines["x2"])
    w11, w12, _, _, b1, *_ = lines["start"]
    z1 = np.array(lines["z1 = w11*x1 + w12*x2 + b1"])
    a1 = np.array(lines["a1 = z1 / (1 + |z1|)"])
    assert np.allclose(z1, w11 * x1 + w12 * x2 + b1)
    assert np.allclose(a1, z1 / (1 + abs(z1)), atol=5e-5)
    *gradients, mean = lines["dL/dw11 = delta1*x1"]
    assert np.allclose(
        gradients, np.array(lines["delta1 = delta3*v1*(1 - |a1|)^2"]) * x1, atol=2e-4
    )
    assert np.isclose(mean, np.mean(gradients), atol=1e-4)


def test_the_scalar_example_imports_nothing() -> None:
    assert "import" not in (EXAMPLES / "scalar_minibatch.py").read_text()
