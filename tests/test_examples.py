"""Shows that the examples run and say what their stories claim."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Finished, start

EXAMPLES = Path(__file__).parent.parent / "examples"


def numbers(line: str) -> list[float]:
    """Return the numbers with four decimals in a line."""
    return [float(text) for text in re.findall(r"-?\d+\.\d{4}", line)]


def run(name: str, folder: Path, ranks: int | None = None) -> Finished:
    """Run an example in a folder; it must end well and say nothing of errors."""
    done = start("python", EXAMPLES / name, cwd=folder, ranks=ranks)
    assert (done.status, done.stderr) == (0, "")
    return done


def rows(text: str) -> dict[str, list[float]]:
    """Return the rows of nine numbers that a text has, by their labels; the first of each."""
    found = [(line.split()[0], numbers(line)) for line in text.splitlines() if line]
    return {label: row for label, row in reversed(found) if len(row) == 9}


def test_the_scalar_example_computes_what_it_prints(tmp_path: Path) -> None:
    done = run("scalar_minibatch.py", tmp_path)
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


@pytest.fixture(scope="module")
def scalar(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What step 1 prints."""
    return run("scalar_minibatch.py", tmp_path_factory.mktemp("scalar")).stdout


def test_numpy_has_the_numbers_of_the_scalar_example(scalar: str, tmp_path: Path) -> None:
    text = run("numpy_minibatch.py", tmp_path).stdout
    expected = rows(scalar)
    assert rows(text) == {label: expected[label] for label in ("start", "sum", "mean", "new")}
    columns = [numbers(line)[-4:] for line in scalar.splitlines() if re.match(r"(a1|a2|y) =", line)]
    (gradients,) = [numbers(line) for line in scalar.splitlines() if line.startswith("dL/dw11")]
    examples = [numbers(line) for line in text.splitlines() if line.startswith("row")]
    assert examples == [list(row) for row in zip(*columns, gradients[:4], strict=True)]
    assert losses(text) == losses(scalar)


def losses(text: str) -> list[float]:
    """Return the mean losses before and after the update that an example prints."""
    if "mean loss" in text:
        return numbers(text.split("mean loss")[1])
    table = text.split("The loss of each example")[1].splitlines()[2:4]
    return [numbers(line)[-1] for line in table]


@pytest.mark.parametrize(("ranks", "counts"), [(1, "4"), (2, "2 2"), (3, "1 1 2")])
def test_mpi_has_the_same_numbers_on_any_ranks(
    ranks: int, counts: str, scalar: str, tmp_path: Path
) -> None:
    text = run("mpi_minibatch.py", tmp_path, ranks).stdout
    expected, found = rows(scalar), rows(text.replace("rank ", "rank"))
    for label in ("sum", "mean", "new"):
        assert found.pop(label) == expected[label]
    assert len(found) == ranks
    assert np.allclose(np.sum(list(found.values()), axis=0), expected["sum"], atol=2e-4)
    assert f"examples on each rank: {counts}\n" in text
    assert "all have the same new parameters: True" in text
    if ranks == 3:
        workers = rows(scalar.split("3 workers")[1])  # worker 2 has two rows there
        assert [found["rank0"], found["rank1"]] == [workers["w0"], workers["w1"]]


def test_dptrain_has_the_same_numbers_and_bits_on_any_ranks(scalar: str, tmp_path: Path) -> None:
    texts = {run("dptrain_minibatch.py", tmp_path, ranks).stdout for ranks in (None, 3)}
    assert len(texts) == 1
    (text,) = texts
    expected = rows(scalar)
    assert rows(text) == {label: expected[label] for label in ("start", "mean", "new")}
    assert losses(text) == losses(scalar)


def test_a_model_of_ones_own_has_the_same_bits_on_any_ranks(tmp_path: Path) -> None:
    alone, three = (run("own_model.py", tmp_path, ranks).stdout for ranks in (None, 3))
    assert alone == three
    assert numbers(alone)[0] > 0.9


def test_the_learning_curves_fall_behind_with_larger_batches(tmp_path: Path) -> None:
    text = run("learning_curve.py", tmp_path, ranks=2).stdout
    small, middle, large = numbers(text)
    assert small > middle > large
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curve.png"]


def test_the_four_steps_lead_from_one_to_the_next() -> None:
    names = [f"{kind}_minibatch.py" for kind in ("scalar", "numpy", "mpi", "dptrain")]
    for number, name in enumerate(names):
        story = (EXAMPLES / name).read_text().split('"""')[1]
        assert story.startswith(f"Step {number + 1} of 4")
        assert all(other in story for other in names[number + 1 : number + 2])
