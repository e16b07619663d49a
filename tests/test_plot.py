"""Shows that `plot` draws what the runs hold, that all of it can be read, and what it refuses."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start, start
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dptrain import InputError, plot_runs
from dptrain.plot.curves import COLUMNS
from dptrain.plot.runs import read_runs


def write_run(path: Path, epochs: int, **more: float) -> Path:
    """Write a run's metrics as training does: a line every 10 steps, and one an epoch."""
    lines: list[dict[str, Any]] = []
    for step in range(1, 60 * epochs + 1):
        where = {"epoch": 1 + (step - 1) // 60, "step": step, "examples": 64 * step}
        rates = {"learning_rate": 0.001, "gradient_norm": 5 / step}
        if step % 10 == 0:
            lines.append(where | rates | {"loss": 2 / step + 0.3 * math.sin(step) ** 2})
        if step % 60 == 0:
            found = {"train_loss": 3 / step, "seconds": step / 7, "validation_loss": 4 / step}
            lines.append(where | rates | found | more)
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


Texts = list[tuple[str, Bbox]]
Draw = Callable[..., tuple[Figure, Texts]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draw runs to a .png file; return the figure and each text in it with the place it took."""

    def run(*args: Any, **options: Any) -> tuple[Figure, Texts]:
        texts: dict[int, Text] = {}

        def draw(text: Text, renderer: Any) -> None:
            if text.get_visible() and text.get_text():
                texts[id(text)] = text
            original(text, renderer)

        original = Text.draw
        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", draw)
            plot_runs(*args, **options)
        figure = next(iter(texts.values())).get_figure(root=True)
        assert figure is not None
        return figure, [(text.get_text(), text.get_window_extent()) for text in texts.values()]

    return run


MANY = {"validation_accuracy": 0.9, "validation_label_accuracy": 0.95, "noise_scale": 1234567.0}
LONG = "2026-11-22-momentum-0.9-learning-rate-0.001-batch-size-512-hidden-512-512-clip-norm-1-" * 2
NAMES = ("plain", f"{LONG}x", "_under", "costs $5 and $6", "validation")


@pytest.mark.parametrize(("width", "num_runs"), [(3.0, 1), (3.0, 5), (12.0, 2), (12.0, 5)])
def test_no_text_overlaps_or_is_cut(
    width: float, num_runs: int, tmp_path: Path, drawn: Draw
) -> None:
    names = NAMES[1:2] if num_runs == 1 else NAMES[:num_runs]
    runs = [
        write_run(tmp_path / name, epochs=3**number // 2 + 1, **MANY)
        for number, name in enumerate(names)
    ]
    figure, texts = drawn(runs, tmp_path / "a.png", width=width)
    assert figure.get_figwidth() == width
    for words, box in texts:
        assert box.x0 >= 0, words
        assert box.y0 >= 0, words
        assert box.x1 <= figure.bbox.width, words
        assert box.y1 <= figure.bbox.height, words
    for (words, box), (others, other) in itertools.combinations(texts, 2):
        assert not box.overlaps(other), (words, others)
    shown = "".join(words for words, _ in texts).replace("\n", "").replace("\\$", "$")
    assert all(name in shown for name in names)
    assert len(figure.axes) == 6
    for axes in figure.axes:
        assert axes.bbox.height > 1.2 * figure.dpi
        for legend in figure.legends:
            assert legend.get_window_extent().y0 > axes.bbox.y1


def test_curves_are_of_steps_or_of_epochs_never_of_both(tmp_path: Path, drawn: Draw) -> None:
    run = write_run(tmp_path / "a", epochs=2)
    steps, epochs = [*range(10, 121, 10)], [60, 120]
    found = {
        line.get_marker(): np.asarray(line.get_xdata()).tolist() for line in lines_of(drawn, run)
    }
    assert found == {"^": steps, "s": epochs, "o": epochs, "D": steps}
    curves = read_runs([run])[0].curves("examples", COLUMNS)
    assert curves["train_loss"] == [(64 * 60, 3 / 60), (64 * 120, 3 / 120)]
    assert curves["gradient_norm"] == [(64 * step, 5 / step) for step in steps]
    over_time = read_runs([run])[0].curves("seconds", COLUMNS)
    assert "loss" not in over_time
    assert over_time["learning_rate"] == [(60 / 7, 0.001), (120 / 7, 0.001)]


def lines_of(drawn: Draw, *runs: Path) -> list[Line2D]:
    """Return the curves of a drawing of runs."""
    figure, _ = drawn(runs, runs[0] / "a.png")
    return [line for axes in figure.axes for line in axes.get_lines()]


def test_a_single_point_is_visible(tmp_path: Path, drawn: Draw) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 1, "train_loss": 2}\n')
    figure, texts = drawn([tmp_path / "a"], tmp_path / "a.png")
    assert [axes.get_title("left") for axes in figure.axes] == ["loss"]
    (line,) = figure.axes[0].get_lines()
    assert line.get_marker() == "s"
    assert line.get_markevery() == (0, 1)
    assert {"0", "1", "steps"} <= {words for words, _ in texts}


def test_many_runs_all_look_different(tmp_path: Path, drawn: Draw) -> None:
    runs = [write_run(tmp_path / str(number), epochs=1) for number in range(12)]
    figure, _ = drawn(runs, tmp_path / "a.png")
    rates = figure.axes[1].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in rates}) == 12


def test_loss_is_logarithmic_where_it_falls_tenfold(tmp_path: Path, drawn: Draw) -> None:
    for name, last, scale in (("a", 0.2, "linear"), ("b", 0.02, "log"), ("c", -0.1, "linear")):
        lines = [{"step": 1, "train_loss": 1.0}, {"step": 2, "train_loss": last}]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        figure, _ = drawn([tmp_path / name], tmp_path / "a.png")
        assert figure.axes[0].get_yscale() == scale


def test_names_are_the_shortest_that_differ(tmp_path: Path) -> None:
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    for path in paths:
        write_run(path, epochs=1)
    again = tmp_path / "y" / ".." / "x" / "run"
    assert [run.name for run in read_runs([*paths, again])] == ["x/run", "y/run"]
    assert [run.name for run in read_runs(paths[:1])] == ["run"]


def test_labels_are_what_differs(tmp_path: Path, drawn: Draw) -> None:
    runs = [write_run(tmp_path / name, epochs=1) for name in "abc"]
    for run, rate in zip(runs, ("0.1", "0.01", "0.01"), strict=True):
        (run / "config.toml").write_text(f'learning-rate = {rate}\noptimizer = "adam"\n')
    _, texts = drawn(runs, tmp_path / "a.png")
    told = {"learning-rate 0.1", "b: learning-rate 0.01", "c: learning-rate 0.01"}
    assert told <= {words for words, _ in texts}
    _, texts = drawn(runs[:1], tmp_path / "a.png")
    assert "a" in {words for words, _ in texts}


def test_any_name_and_any_size_of_numbers_can_be_drawn(tmp_path: Path, drawn: Draw) -> None:
    names = ("\u8fd0\u884c", "two\nlines", "\udcff", "$")
    for name, loss in zip(names, (5e-324, 1e99, -1e99, 0), strict=True):
        write_run(tmp_path / name, epochs=1, train_loss=loss)
    _, texts = drawn([tmp_path / name for name in names], tmp_path / "a.png")
    assert {"\u8fd0\u884c", "two?lines", "?", r"\$"} <= {words for words, _ in texts}


def test_a_line_being_written_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", epochs=1) / "metrics.jsonl"
    whole = read_runs([path.parent])
    content = path.read_bytes()
    for length in range(1, 60):
        path.write_bytes(content + content[:length])
        assert read_runs([path.parent]) == whole
    path.write_bytes(content.rstrip(b"\n"))
    assert read_runs([path.parent]) == whole


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no line yet"),
        (b'{"step": 1', "has no line yet"),
        (b'{"step": 1, "train_loss": 1}\n{"step": \n{}\n', "line 2 is no line of metrics"),
        (b"[1, 2]\n", "line 1 is no line of metrics"),
        (b"\xff\xfe\x00\n", "line 1 is no line of metrics"),
        (b"[" * 100_000 + b"\n", "line 1 is no line of metrics"),
        (b'{"step": 1' + b"0" * 400 + b"}\n", "line 1 is no line of metrics"),
        (b'{"step": 1, "train_loss": NaN}\n', "nothing to draw over steps"),
        (b'{"step": 1, "train_loss": 1e200}\n', "nothing to draw over steps"),
        (b'{"step": 1, "train_loss": "low"}\n', "nothing to draw over steps"),
        (b'{"train_loss": 1}\n', "nothing to draw over steps; try --x examples or --x seconds"),
    ],
)
def test_what_is_no_run_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=words):
        plot_runs([tmp_path], tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("run", "out", "words"),
    [
        ("nowhere", "a.png", "nowhere/metrics.jsonl: No such file"),
        ("a/metrics.jsonl", "a.png", "name the directory of a run"),
        ("a", "a.gif", "ends in .png, .svg, .pdf"),
        ("a", "no/a.png", "there is no directory .*/no"),
        ("a", "d.png", "is no plain file"),
    ],
)
def test_wrong_paths_are_refused(run: str, out: str, words: str, tmp_path: Path) -> None:
    write_run(tmp_path / "a", epochs=1)
    (tmp_path / "d.png").mkdir()
    with pytest.raises(InputError, match=words):
        plot_runs([tmp_path / run], tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d.png"]


def test_without_matplotlib_the_extra_is_named(dptrain: Start, tmp_path: Path) -> None:
    write_run(tmp_path / "a", epochs=1)
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not installed')")
    done = dptrain("plot", "a", env={"PYTHONPATH": str(tmp_path)}, ranks=2)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.count("dptrain: ") == 1
    assert "pip install 'matplotlib>=" in done.stderr


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever settings a person has, and in another process."""
    run, begins = write_run(tmp_path / "a", epochs=2), {"png": b"\x89PNG", "svg": b"<?xml"}
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: none\n")
    env = {"PYTHONHASHSEED": "5", "SOURCE_DATE_EPOCH": "5", "MATPLOTLIBRC": str(tmp_path)}
    outs = [tmp_path / f"a.{suffix}" for suffix in (*begins, "PDF")]
    for out in outs:
        out.write_bytes(b"what stood there")
    done = start("python", "-c", DRAW, *(out.name for out in outs), cwd=tmp_path, env=env)
    assert (done.status, done.stdout) == (0, "")
    panels, lines = "loss, learning rate, gradient norm", done.stderr.splitlines()
    for out, line in zip(outs, lines, strict=True):
        first = out.read_bytes()
        assert line == f"dptrain: wrote {out.name}: {panels}, {len(first):,} bytes"
        plot_runs([run], out)
        assert first == out.read_bytes()
        assert first.startswith(begins.get(out.suffix[1:], b"%PDF"))
    names = [path.name for path in tmp_path.iterdir()]
    assert sorted(names) == sorted(["a", "matplotlibrc", *(out.name for out in outs)])


DRAW = """
import sys
from dptrain.cli import main as cli
for out in sys.argv[1:]:
    sys.argv = ["dptrain", "plot", "a", "--out", out, "--force"]
    assert cli._run() == 0
"""


def test_what_train_writes_can_be_drawn_under_mpirun(quick: Start, tmp_path: Path) -> None:
    args = ("--epochs", "2", "--validation", "0.1", "--log-every", "20", "--clip-norm", "1")
    assert quick("--out", "runs/a", "--quiet", *args).status == 0
    done = quick("plot", "runs/a", "--x", "examples", ranks=2)
    assert (done.status, done.stdout) == (0, "")
    panels = "loss, accuracy, learning rate, gradient norm"
    assert f"dptrain: wrote curves.png: {panels}, " in done.stderr
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
