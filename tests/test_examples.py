"""Shows that the examples run and say what their stories claim."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Finished, start

from dptrain.config.tools import ExplainConfig
from dptrain.explain import plain
from dptrain.explain.problem import problems

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
    w11, _, w21, _, b1, *_ = lines["start"]
    z1 = np.array(lines["z1 = w11*x1 + w21*x2 + b1"])
    a1 = np.array(lines["a1 = tanh(z1)"])
    assert np.allclose(z1, w11 * x1 + w21 * x2 + b1)
    assert np.allclose(a1, np.tanh(z1), atol=5e-5)
    *gradients, mean = lines["dL/dw11 = delta_1*x1"]
    assert np.allclose(
        gradients, np.array(lines["delta_1 = delta_out*v1*(1 - a1^2)"]) * x1, atol=2e-4
    )
    assert np.isclose(mean, np.mean(gradients), atol=1e-4)


def test_the_scalar_example_imports_no_tensors() -> None:
    imports = re.findall(
        r"^.*import .*", (EXAMPLES / "scalar_minibatch.py").read_text(), re.MULTILINE
    )
    assert imports == ["from math import tanh", "from os import environ"]


@pytest.mark.parametrize("name", ["scalar_minibatch.py", "numpy_minibatch.py"])
def test_what_needs_one_process_prints_once_under_mpirun(name: str, tmp_path: Path) -> None:
    assert run(name, tmp_path, ranks=2).stdout == run(name, tmp_path).stdout


def test_the_examples_have_the_numbers_of_explain(scalar: str) -> None:
    problem = problems(ExplainConfig())[0]
    batch, averaging = plain.batch(problem), plain.averaging(problem)
    workers = plain.workers(problem)
    found, names = rows(scalar), problem.names
    for label, values in (("start", problem.params), ("sum", batch.sum), ("mean", batch.mean)):
        assert found[label] == [round(value, 4) for value in values]
    assert "".join(f"{name:>8}" for name in names) in scalar
    mistakes = rows(scalar.split("4. Mistake")[1]), rows(scalar.split("5. Mistake")[1])
    assert mistakes[0]["wrong"] == [round(value, 4) for value in averaging.tanh.averaged]
    assert mistakes[1]["wrong"] == [round(value, 4) for value in workers.mean_of_means]
    for name, tree, line in zip(names, workers.mean, workers.one_by_one, strict=True):
        assert re.search(rf"^{name} +{tree!r} +{line!r} ", scalar, re.MULTILINE)  # to the last bit
    columns = zip(*(one.gradient for one in batch.examples), batch.mean, strict=True)
    for name, column in zip(names, columns, strict=True):
        (printed,) = re.findall(rf"^dL/d{name} = .*", scalar, re.MULTILINE)
        assert numbers(printed) == [round(value, 4) for value in column]


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
    examples = [numbers(line) for line in text.splitlines() if line.startswith("ex.")]
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
    texts = {run("dptrain_minibatch.py", folder(tmp_path, ranks), ranks).stdout for ranks in (1, 3)}
    assert len(texts) == 1
    (text,) = texts
    expected = rows(scalar)
    assert rows(text) == {label: expected[label] for label in ("start", "mean", "new")}
    assert losses(text) == losses(scalar)


def test_a_model_of_ones_own_has_the_same_bits_on_any_ranks(tmp_path: Path) -> None:
    alone, three, again = (
        run("own_model.py", folder(tmp_path, ranks), ranks).stdout for ranks in (1, 3, 1)
    )
    assert alone == three == again
    assert (tmp_path / "3" / "runs" / "own_model" / "model.safetensors").exists()
    assert numbers(alone)[0] > 0.9


def folder(parent: Path, ranks: int) -> Path:
    """Return a folder for each number of ranks: a run that is there is not made anew."""
    (parent / str(ranks)).mkdir(exist_ok=True)
    return parent / str(ranks)


def test_the_learning_curves_fall_behind_with_larger_batches(tmp_path: Path) -> None:
    text = run("learning_curve.py", tmp_path, ranks=2).stdout
    small, middle, large = numbers(text)
    assert small > middle > large
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning_curve.png", "runs"]
    made = (tmp_path / "learning_curve.png").read_bytes()
    assert run("learning_curve.py", tmp_path).stdout == text  # from the runs that were kept
    assert (tmp_path / "learning_curve.png").read_bytes() == made


def test_what_an_example_needs_is_said_once_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "no.py").write_text(
        "import sys, runpy\nsys.modules['matplotlib'] = None\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        f"runpy.run_path({str(EXAMPLES / 'learning_curve.py')!r}, run_name='__main__')\n"
    )
    done = start("python", "no.py", cwd=tmp_path, ranks=2)
    assert (done.status != 0, done.stdout) == (True, "")
    assert done.stderr.count("pip install matplotlib") == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["no.py"]


def test_the_four_steps_lead_from_one_to_the_next() -> None:
    names = [f"{kind}_minibatch.py" for kind in ("scalar", "numpy", "mpi", "dptrain")]
    for number, name in enumerate(names):
        story = (EXAMPLES / name).read_text().split('"""')[1]
        assert story.startswith(f"Step {number + 1} of 4")
        assert all(other in story for other in names[number + 1 : number + 2])
