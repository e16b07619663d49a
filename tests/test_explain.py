"""Shows that `explain` answers the question by its names, in numbers that anyone can recompute."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Start
from numpy.typing import NDArray

import dptrain.cli.commands.explain as command
from dptrain.config.tools import ExplainConfig
from dptrain.explain import book, check, trainer
from dptrain.explain.book import NAMES, chosen
from dptrain.explain.plain import passed_on
from dptrain.model.activations import ACTIVATIONS
from dptrain.model.mlp import MLP
from dptrain.plot.page import Section, page
from dptrain.plot.terminal import text
from dptrain.plot.words import conditions, filled
from dptrain.reduce.tree import tree_sum
from dptrain.reduce.tree_reduce import TreeReduce
from dptrain.words import InputError
from dptrain.world import World

QUESTIONS = (
    "Do I average the activations?",
    "Is the mathematics different?",
    "Does the recursion for the error signal still hold?",
    "Is there a simple example without tensors?",
)
SHAPES = [ExplainConfig(), ExplainConfig(6, 4, 8, 3), ExplainConfig(2, 1, 2, 2**63 - 1)]
HALF = 0.50001e-4
"""How far a number printed to four decimals may be from what it stands for."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@cache
def chapter(config: ExplainConfig, number: int) -> Section:
    """Return a chapter, made once for all tests."""
    return book.chapter(config, number)


def caption(chapter: Section, start: str) -> str:
    """Return the whole caption of a table."""
    return next(line for line in chapter.words.splitlines() if line.startswith(f"**{start}"))


def cells(chapter: Section, start: str) -> dict[str, list[str]]:
    """Return the cells of a table's rows by the rows' names."""
    lines = chapter.words.split(caption(chapter, start))[1].split("\n\n")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    return {name.strip("`"): row for name, *row in rows}


def table(chapter: Section, start: str) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of a table's rows by the rows' names."""
    rows = cells(chapter, start).items()
    return {name: np.array([float(cell.replace(",", "")) for cell in row]) for name, row in rows}


def formulas(chapter: Section) -> list[list[str]]:
    """Return the sides of all formulas that stand by themselves: name, letters, numbers, value."""
    fences = re.findall(r"```formulas\n(.*?)\n```", chapter.words, re.DOTALL)
    return [line.split(" = ") for fence in fences for line in fence.splitlines()]


def stack(rows: dict[str, NDArray[np.float64]], *names: str) -> NDArray[np.float64]:
    return np.array([rows[name] for name in names])


class Network:
    """A network recomputed from what chapters 1 and 2 print, and from nothing else."""

    def __init__(self, config: ExplainConfig, bend: Callable[[Any], Any] = np.tanh) -> None:
        first, batch = chapter(config, 1), chapter(config, 2)
        params, values = table(first, "The parameters"), table(batch, "Forward")
        self.w = stack(params, "w1j: from x1", "w2j: from x2")
        self.b, self.v = params["bj: bias"], params["vj: to y"]
        self.c = float(caption(first, "The parameters").split()[-1].strip("`*"))
        self.x, self.t = stack(values, "x1", "x2").T, values["t"]
        self.z = self.x @ self.w + self.b
        self.a = bend(self.z)
        self.y = self.a @ self.v + self.c
        self.delta_out = 2 * (self.y - self.t)
        slope = 1 - self.a**2 if bend is np.tanh else np.ones_like(self.a)
        self.delta = np.outer(self.delta_out, self.v) * slope

    def gradients(self) -> NDArray[np.float64]:
        """Return the gradient of each example, in the order in which they are printed."""
        return np.array([
            [*np.outer(x, d).ravel(), *d, *(a * out), out]
            for x, a, d, out in zip(self.x, self.a, self.delta, self.delta_out, strict=True)
        ])  # fmt: skip

    def averaged(self, linear: bool) -> NDArray[np.float64]:
        """Return the gradient of the mistake, from the means of all activations."""
        x, a = self.x.mean(axis=0), self.a.mean(axis=0)
        out = 2 * (self.y.mean() - self.t.mean())
        d = out * self.v * (1 if linear else 1 - a**2)
        return np.array([*np.outer(x, d).ravel(), *d, *(a * out), out])


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_chapters_1_and_2_print_what_follows_from_the_inputs_they_print(
    config: ExplainConfig,
) -> None:
    net, batch = Network(config), chapter(config, 2)
    rows = table(batch, "Forward")
    units = range(1, config.hidden + 1)
    for letter, values in (("z", net.z), ("a", net.a), ("delta_", net.delta)):
        assert np.allclose(stack(rows, *(f"{letter}{j}" for j in units)), values.T, 0, HALF)
    for name, row in (("y", net.y), ("delta_out", net.delta_out), ("L", (net.y - net.t) ** 2)):
        assert np.allclose(rows[name], row, 0, HALF)
    gradients = net.gradients()
    printed = np.array(list(table(batch, "The gradients").values()))
    assert np.allclose(printed[:, :-2], gradients.T, 0, HALF)
    assert np.allclose(printed[:, -2], gradients.sum(axis=0), 0, HALF)
    assert np.allclose(printed[:, -1], gradients.mean(axis=0), 0, HALF)
    beside = np.array(list(table(batch, "The mean gradient beside").values()))
    assert np.allclose(beside[:, 0], gradients.mean(axis=0), 0, 1e-8)
    assert np.allclose(beside[:, 1], beside[:, 0], 0, 1e-6)
    assert not np.allclose(gradients, gradients.mean(axis=0), 0, 0.01)  # the examples do differ


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_formulas_come_to_what_they_say(config: ExplainConfig) -> None:
    for number in (1, 4, 8):
        found = formulas(chapter(config, number))
        assert len(found) > 2
        for _, _, *sides, value in found:
            for letters in sides:
                side = letters.replace("^", "**")
                assert re.fullmatch(r"(tanh|exp|log|[-+*/() \d.])+", side)
                names = {"tanh": np.tanh, "exp": np.exp, "log": np.log}
                result = eval(side, names)  # noqa: S307 (checked to be arithmetic)
                assert result == pytest.approx(float(value), abs=0.05)


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_chapter_3_prints_right_and_averaged_gradients(config: ExplainConfig) -> None:
    found, net = chapter(config, 3), Network(config)
    line = Network(config, bend=lambda z: z)
    for start, one, linear in (("With tanh", net, False), ("With linear units, ", line, True)):
        right, wrong = np.array(list(table(found, start).values())).T
        assert np.allclose(right, one.gradients().mean(axis=0), 0, HALF)
        assert np.allclose(wrong, one.averaged(linear), 0, HALF)
        cosine = right @ wrong / np.linalg.norm(right) / np.linalg.norm(wrong)
        angle = float(caption(found, start).split(": ")[1].split()[0])
        assert angle == pytest.approx(np.degrees(np.arccos(cosine)), abs=0.2)
    right, wrong = np.array(list(table(found, "With linear units and a linear loss").values())).T
    assert (right == wrong).all()
    line.delta_out = np.ones(len(line.t))
    line.delta = np.outer(line.delta_out, line.v)
    assert np.allclose(right, line.gradients().mean(axis=0), 0, HALF)
    bent = np.array(list(table(found, "f(mean)").values())).T
    mean_z = net.z.mean(axis=0)
    assert np.allclose(bent, [mean_z, np.tanh(mean_z), net.a.mean(axis=0)], 0, HALF)


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_chapter_4_prints_columns_and_every_entry_of_the_products(config: ExplainConfig) -> None:
    found, net = chapter(config, 4), Network(config)
    rows = table(found, "The recursion")
    for j, v in enumerate(net.v, 1):
        assert np.allclose(rows[f"v{j}*delta_out"], v * net.delta_out, 0, HALF)
        assert np.allclose(rows[f"1 - a{j}^2"], 1 - net.a[:, j - 1] ** 2, 0, HALF)
        assert np.allclose(rows[f"delta_{j}"], net.delta[:, j - 1], 0, HALF)
    entries = [float(value) for *_, value in formulas(found)]
    products = [*(net.x.T @ net.delta).ravel(), *(net.a.T @ net.delta_out)]
    assert np.allclose(entries, products, 0, HALF)


@pytest.mark.parametrize("config", [*SHAPES, ExplainConfig(workers=2)], ids=str)
def test_chapter_5_adds_sums_and_shows_the_mean_of_means(config: ExplainConfig) -> None:
    found, gradients = chapter(config, 5), Network(config).gradients()
    shards = [
        gradients[
            k * config.examples // config.workers : (k + 1) * config.examples // config.workers
        ]
        for k in range(config.workers)
    ]
    sums = np.array(list(table(found, "The sum of each").values()))
    assert np.allclose(sums, np.array([shard.sum(axis=0) for shard in shards]).T, 0, HALF)
    right, wrong = np.array(list(table(found, "The mistake").values())).T
    assert np.allclose(right, gradients.mean(axis=0), 0, HALF)
    means = [shard.mean(axis=0) for shard in shards if len(shard)]
    assert np.allclose(wrong, np.mean(means, axis=0), 0, HALF)
    uneven = len({len(shard) for shard in shards if len(shard)}) > 1
    assert uneven != np.allclose(right, wrong, 0, 2 * HALF)
    said = " ".join(text(found.words).split())
    assert ("what comes out is wrong" in said, "happens to be right" in said) == (
        uneven,
        not uneven,
    )
    rows = range(1, config.examples + 1)
    for k, (held,) in enumerate(cells(found, "Who takes").values()):
        first, stop = (n * config.examples // config.workers for n in (k, k + 1))
        assert held == (", ".join(map(str, rows[first:stop])) or "none")


def test_workers_who_pass_sums_on_add_as_the_trainers_tree_does() -> None:
    rng = np.random.default_rng(0)
    for count in range(1, 40):
        sums = rng.standard_normal((count, 3))
        total, messages = passed_on(sums.tolist())
        assert total == tree_sum(list(sums)).tolist()
        assert sorted(what for _, what in messages) == list(range(1, count))


@pytest.mark.parametrize("seed", [999, 1, 2])
def test_the_variance_falls_as_the_law_says(seed: int) -> None:
    found = chapter(ExplainConfig(seed=seed), 6)
    said = re.search(r"is (-\d\.\d{4}); the law says -1", " ".join(text(found.words).split()))
    assert said
    assert float(said[1]) == pytest.approx(-1, abs=0.05)
    rows = table(found, "Measured")
    sizes = np.array(list(map(int, rows)))
    assert sizes.tolist() == [2**k for k in range(11)]
    measured, law, ratio = np.array(list(rows.values())).T
    assert np.allclose(law, law[0] / sizes * (2000 - sizes) / 1999, 0, 2e-6)
    assert np.allclose(ratio, measured / law, 0, 1e-3)
    assert np.allclose(ratio, 1, 0, 0.35)
    corrected = np.log(measured * 1999 / (2000 - sizes))
    assert np.polyfit(np.log(sizes), corrected, 1)[0] == pytest.approx(float(said[1]), abs=1e-3)
    said_in_all = " ".join(text(found.words).split())
    assert said_in_all.count("9 of 9") == 2  # entries that are equal exactly


def test_the_noise_scale_grows_and_says_how_many_workers() -> None:
    found = chapter(ExplainConfig(), 7)
    rows = table(found, "The noise scale")
    scales = [variance / square for variance, square, _ in rows.values()]
    assert np.allclose(scales, [scale for *_, scale in rows.values()], rtol=0.01)
    assert scales == sorted(scales)
    speedups = table(found, "Times fewer")
    for workers, (batch, *times) in speedups.items():
        assert batch == 16 * int(workers)
        expected = [(1 + s / 16) / (1 + s / batch) for s in scales]
        assert np.allclose(times, expected, rtol=0.01, atol=0.051)


def test_where_noise_hides_the_gradient_no_batch_size_is_suggested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    estimates = [[64.0, 2.0], [1.0, 0.0], [2.0, -1.0], [10.0, -1.0]]
    monkeypatch.setattr(trainer, "noises", lambda _: estimates)
    words = " ".join(text(book.chapter(ExplainConfig(), 7).words).split())
    assert "5 10.0000 -1.0000 too noisy" in words
    assert "R/16 workers are worth it: 2 at first." in words
    monkeypatch.setattr(trainer, "noises", lambda _: [[1.0, -1.0]] * 4)
    none = book.chapter(ExplainConfig(), 7)
    assert "worth it:" not in none.words
    assert "<svg" in none.drawings["speedup"]


@pytest.mark.parametrize(
    ("hidden", "examples", "workers"), [(1, 2, 2), (4, 6, 8), (4, 6, 2), (1, 6, 5), (4, 2, 8)]
)
def test_all_that_is_allowed_fits_80_columns(hidden: int, examples: int, workers: int) -> None:
    config = ExplainConfig(examples, hidden, workers, 2**63 - 1)
    for number in (1, 2, 3, 4, 5, 8):
        lines = text(book.chapter(config, number).words).splitlines()
        assert max(map(len, lines)) <= 80
        assert "\n".join(lines).isascii()
        for line in lines:  # no formula breaks inside brackets
            assert line.count("(") == line.count(")") or not re.search("[=*^]", line)


@pytest.mark.parametrize("seed", range(20))
def test_loops_and_trainer_agree_for_every_shape(seed: int) -> None:
    config = ExplainConfig(2 + seed % 5, 1 + seed % 4, 2 + seed % 7, seed)
    for number in (1, 2, 3, 4, 5, 8):
        found = [*check.numbered("", *check.sides(config, number))]
        largest = max(abs(left) for _, left, _ in found if left is not None)
        for where, left, right in found:
            assert left == pytest.approx(right, rel=0, abs=check.LIMIT / 5 * largest), where


def test_check_agrees_and_prints_once(quick: Start) -> None:
    done = quick("explain", "--check", ranks=3)
    assert (done.status, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:9] for line in lines[:-3]] == [f"chapter {n}" for n in range(1, len(lines) - 2)]
    assert len(lines) == 3 + 8
    assert all("agree" in line for line in lines[:-3])
    assert all("the same bits" in line for line in lines[-3:-1])
    assert lines[-1] == "all agree"
    assert max(map(len, lines)) <= 80


def slightly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose result is off by 1e-11."""
    return lambda *args, **names: function(*args, **names) * (1 + 1e-11)


def tilted(z: Any, slope: Any) -> None:
    TANH(z, slope)
    if slope is not None:
        slope *= 1 + 1e-11


TANH = ACTIVATIONS["tanh"]


@pytest.mark.parametrize(
    ("number", "where", "name"),
    [
        (1, "slope[0]", "tanh"),
        (2, "sum[0]", "grad_sum of all"),
        (3, "tanh right[0]", "grad_sum of each"),
        (4, "sum[0]", "grad_sum of all"),
        (5, "sum[0]", "tree_sum"),
        (6, "full_gradient[", "tree_sum"),
        (7, "[0][0]", "grad_sum of all"),
        (8, "examples[0] slope[0]", "tanh"),
    ],
)
def test_check_finds_a_fault_in_each_chapter(
    number: int, where: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.grad_sum

    def off(model: Any, params: Any, x: Any, y: Any) -> Any:
        loss, gradient = real(model, params, x, y)
        return loss, gradient * (1 + 1e-11 * (len(x) > 1 or "each" in name))

    if name == "tanh":
        monkeypatch.setitem(ACTIVATIONS, "tanh", tilted)
    elif "grad_sum" in name:
        monkeypatch.setattr(trainer, "grad_sum", off)
    else:
        monkeypatch.setattr(trainer, "tree_sum", slightly(tree_sum))
    said: list[str] = []
    assert not check.check(ExplainConfig(), [number], World(), said.append)
    assert len(said) == 1
    assert said[0].startswith(f"differs: chapter {number}: {where}")
    assert max(map(len, said[0].splitlines())) <= 80


def test_check_finds_a_bit_that_depends_on_who_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    add = TreeReduce.reduce_scatter

    def one_bit_off(self: TreeReduce) -> Any:
        total = add(self)
        total[-1] = np.nextafter(total[-1], np.inf)
        return total

    monkeypatch.setattr(TreeReduce, "reduce_scatter", one_bit_off)
    said: list[str] = []
    assert not check.check(ExplainConfig(), [1], World(), said.append)
    assert said[-1].startswith("differs: the gradient of chapter 5's minibatch: its entry 8")
    assert "rank 0 of 1" in said[-1]
    assert max(len(line) for words in said for line in words.splitlines()) <= 80


def explain(*args: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """Run the command in this process, in a folder; return its exit status."""
    monkeypatch.setattr(command, "connect", World)
    monkeypatch.chdir(folder)
    return command.explain.main(list(args), standalone_mode=False)


def test_a_fault_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = MLP.loss_and_grad_sum

    def faulty(self: MLP, *args: Any) -> Any:
        sums = real(self, *args)
        return sums._replace(loss=sums.loss * (1 + 1e-11))

    monkeypatch.setattr(MLP, "loss_and_grad_sum", faulty)
    args = ("--check", "1", "--html", "a.html")
    assert explain(*args, monkeypatch=monkeypatch, folder=tmp_path) == 1
    assert capsys.readouterr().out.startswith("differs: chapter 1: loss is ")
    assert list(tmp_path.iterdir()) == []


def test_all_chapters_stand_in_the_terminal_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(monkeypatch=monkeypatch, folder=tmp_path) == 0
    said = capsys.readouterr().out
    for question in QUESTIONS:
        assert said.count(f"\n| {question}\n| ") == 1
    assert max(map(len, said.splitlines())) <= 80
    assert re.findall(r"^(\d)\. ", said, re.MULTILINE) == list("12345678")
    assert said.isascii()


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("workers 3 5", [3, 5]),
        ("Batch", [2]),
        ("activations", [3]),
        ("do I average the activations", [3]),
        ("mathematics", [2]),
        ("tensors", [1]),
        ("error signal", [4]),
        ("transposes", [4]),
        ("normalisation", [3]),
        ("cross-entropy", [8]),
        ("worker", [5]),
        ("6 activation", [3, 6]),
    ],
)
def test_chapters_are_asked_for_by_number_name_or_words(asked: str, numbers: list[int]) -> None:
    assert chosen(asked.split()) == numbers


def test_what_no_chapter_speaks_of_is_a_mistake() -> None:
    assert chosen(NAMES) == chosen([])
    with pytest.raises(InputError, match=r"no chapter 'averagin'.*did you mean 'averaging'"):
        chosen(["averagin"])


def test_a_field_that_a_teacher_misspelt_is_named() -> None:
    with pytest.raises(InputError, match=r"batch.md has \{sise\}.*did you mean 'size'"):
        filled("batch", "All {sise} examples.", {"size": "4"})
    with pytest.raises(InputError, match=r"batch.md: .*write a brace twice"):
        filled("batch", "All {size examples.", {"size": "4"})
    text = "Here.\n\n{even?}Even {{a}}.\n\n{odd?}Odd."
    assert filled("batch", text, conditions(even=True, odd=False)) == "Here.\n\nEven {a}."


def test_the_page_is_written_once_the_check_agrees(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.toml").write_text('check = true\nhtml = "a.html"\nhidden = 3\n')
    args = ("1", "--config", "e.toml")
    assert explain(*args, monkeypatch=monkeypatch, folder=tmp_path) == 0
    found, content = capsys.readouterr(), (tmp_path / "a.html").read_text()
    assert found.out.endswith("all agree\n")
    assert found.err == f"dptrain: wrote a.html: 1 chapter, {len(content.encode()):,} bytes\n"
    assert [content.count(words) for words in ("<h2>", "v<sub>3</sub>\N{MIDDLE DOT}a")] == [1, 1]


class Tags(HTMLParser):
    """Checks that tags open and close in pairs, and gathers what is said and linked."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.words: list[str] = []
        self.ids: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        values = dict(attrs)
        assert "src" not in values
        assert (values.get("href") or "#").startswith("#")
        if tag not in ("meta", "polyline", "circle", "rect", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_stands_by_itself_and_says_what_the_terminal_says() -> None:
    chapters = [chapter(ExplainConfig(), number) for number in range(1, 9)]
    content, tags = page(book.TITLE, book.LEAD, chapters), Tags()
    tags.feed(content)
    assert tags.open == []
    found = {name: tags.seen.count(name) for name in ("h1", "h2", "h3", "svg", "script", "section")}
    assert found == {"h1": 1, "h2": 8, "h3": 8, "svg": 5, "script": 0, "section": 8}
    assert not re.search(r"url\(|@import|https?:", content)
    assert "prefers-color-scheme: dark" in content
    assert "@media print" in content
    words = "".join(tags.words).replace("\N{MINUS SIGN}", "-")
    for question in QUESTIONS:
        assert words.count(question) == 1
    assert not re.search(r"[`{}]|\*\*|delta_", words.split("}\n\n")[-1])  # no Markdown is left
    for one in chapters:
        for line in re.findall(r"^\|.*", one.words, re.MULTILINE)[2:]:
            assert all(cell in words for cell in line.split(" | ")[1:-1] if cell[0] not in "`-")


def test_words_of_code_and_formulas_break_at_no_hyphen_and_in_no_bracket() -> None:
    write = Section("a", "# A\n\n`dptrain train --noise-scale` and `a = b*(c - d)` of length\n\n"
                    "`delta(l) = (W(l+1) delta(l+1)) * f'(z(l)) - p_t`", {})  # fmt: skip
    found = page("A", "", [write])
    parts = "(W(l+1) δ(l+1))", "\N{MINUS SIGN}", "p<sub>t</sub>"
    for unbroken in ("--noise-scale", "a = b·(c \N{MINUS SIGN} d)", *parts):
        assert f"<span>{unbroken}</span>" in found
    assert "span:not(.side), code span { white-space: nowrap; }" in found


@pytest.mark.parametrize("hidden", [1, 2, 3, 4])
def test_no_label_of_the_network_lies_on_a_line(hidden: int) -> None:
    drawing = chapter(ExplainConfig(hidden=hidden), 1).drawings["network"]
    pattern = r'<text x="([\d.]+)" y="([\d.]+)" class="\w*">([^<]+)<'
    texts = [(float(x), float(y), words) for x, y, words in re.findall(pattern, drawing)]
    lines = re.findall(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"', drawing)
    assert (len(texts), len(lines)) == (2 + 6 * hidden + hidden + 5, 3 * hidden)
    for line in lines:
        left, top, right, bottom = map(float, line)
        for share in np.linspace(0, 1, 200):
            x, y = left + share * (right - left), top + share * (bottom - top)
            for start, base, words in texts:
                inside = start - 1 < x < start + 6.5 * len(words) and base - 11 < y < base + 4
                assert not inside, words


def test_the_default_shows_as_many_points_as_examples() -> None:
    drawing = chapter(ExplainConfig(), 3).drawings["bend"]
    places = {(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawing)}
    assert len(places) == 4 + 1  # and that of the legend
    apart = [np.hypot(a - c, b - d) for a, b in places for c, d in places if (a, b) < (c, d)]
    assert min(apart) > 8  # the marks' diameter


LOOK = """<script>
const wrong = [], box = e => e.getBoundingClientRect(), root = document.scrollingElement;
if (root.scrollWidth > root.clientWidth) wrong.push(`the page is ${root.scrollWidth} wide`);
for (const e of document.querySelectorAll("main *:not(svg *)")) {
  const own = box(e), outer = box(e.parentElement), scroll = e.closest(".scroll");
  if (scroll && scroll !== e) continue;
  if (own.left < outer.left - 1 || own.right > outer.right + 1) wrong.push(e.outerHTML);
}
const meet = (a, b, room) => a.left < b.right && b.left < a.right
  && a.top + room < b.bottom && b.top + room < a.bottom;
const within = (a, b) => a.left >= b.left && a.right <= b.right
  && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
for (const svg of document.querySelectorAll("svg")) {
  const texts = [...svg.querySelectorAll("text")];
  texts.forEach((e, i) => {
    const a = box(e), name = e.textContent;
    if (!within(a, box(svg))) wrong.push("cut: " + name);
    for (const other of texts.slice(i + 1))
      if (meet(a, box(other), a.height / 4)) wrong.push(name + " over " + other.textContent);
    for (const rect of svg.querySelectorAll("rect"))
      if (meet(a, box(rect), 0) && !within(a, box(rect))) wrong.push("over a box: " + name);
  });
}
for (const e of document.querySelectorAll(".formula > span:not(.side), code span"))
  if (e.getClientRects().length > 1) wrong.push("broken: " + e.textContent);
const all = [...document.querySelectorAll("p, td, svg text")];
const tables = [...document.querySelectorAll(".scroll")];
parent.found.push({
  name, width: innerWidth, wrong, drawings: document.querySelectorAll("svg").length,
  small: all.filter(e => parseFloat(getComputedStyle(e).fontSize) < 10.5).length,
  scrolling: tables.filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel),
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_nothing_overflows_in_a_browser(tmp_path: Path) -> None:
    frames = ""
    for kind, config in (("default", SHAPES[0]), ("largest", SHAPES[1])):
        chapters = [chapter(config, number) for number in range(1, 9)]
        content = page(book.TITLE, book.LEAD, chapters)
        content = html.escape(content.replace("</body>", f"{LOOK}</body>"))
        for width in (360, 800, 1400) if kind == "largest" else (360,):
            frames += f'<iframe name="{kind} {width}" width="{width}" srcdoc="{content}"></iframe>'
    (tmp_path / "frames.html").write_text(
        f"<!doctype html><script>found = []</script>{frames}"
        "<script>onload = () => { document.body.textContent = JSON.stringify(found); }</script>"
    )
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            (tmp_path / "frames.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    body = re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)
    assert body
    found = {one.pop("name"): one for one in json.loads(html.unescape(body[1]))}
    assert len(found) == 4
    for name, one in found.items():
        scrolling = one.pop("scrolling")
        assert scrolling == [] or name == "largest 360"
        assert one == {"width": int(name.split()[1]), "wrong": [], "small": 0, "drawings": 5}
