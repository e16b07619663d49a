"""Draws runs: a panel for each quantity that they have, and one legend above all of them.

A curve can be told by its colour, and on grey paper by its marker (which run) and its line (which
loss).
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dptrain.config.names import Over
from dptrain.config.tools import PlotConfig
from dptrain.figure import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, check, drawing
from dptrain.plot.runs import Curves, read_runs
from dptrain.words import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """A quantity: its title, its unit, its columns, and its axis.

    That is "plain", "zero" where it begins there, or "log" where values may differ tenfold.
    """

    title: str
    unit: str
    columns: tuple[str, ...]
    axis: Literal["plain", "zero", "log"]


PANELS = (
    Panel("loss", "mean over examples", ("loss", "train_loss", "validation_loss"), "log"),
    Panel("accuracy", "share of examples", ("train_accuracy", "validation_accuracy"), "plain"),
    Panel("validation label accuracy", "share of labels", ("validation_label_accuracy",), "plain"),
    Panel("validation RMSE", "unit of the target", ("validation_rmse",), "log"),
    Panel("validation MAE", "unit of the target", ("validation_mae",), "log"),
    Panel("validation R²", "share of variance", ("validation_r2",), "plain"),
    Panel("learning rate", "", ("learning_rate",), "zero"),
    Panel("gradient norm", "before clipping", ("gradient_norm",), "log"),
    Panel("gradient noise scale", "examples", ("noise_scale",), "log"),
)
COLUMNS = [column for panel in PANELS for column in panel.columns]

AXES: dict[Over, tuple[str, str]] = {
    "steps": ("step", "steps"),
    "examples": ("examples", "examples seen"),
    "seconds": ("seconds", "seconds of training"),
}
"""What curves can stand over: the column, and what the axis says."""

LOSSES = {
    "loss": "training, single minibatches",
    "train_loss": "training, mean over an epoch",
    "validation_loss": "validation",
}
LINES: dict[str, Any] = {
    "loss": {"linewidth": 0.8, "markersize": 3, "alpha": 0.5},
    "train_loss": {"linestyle": "--"},
    "train_accuracy": {"linestyle": "--"},
}
"""How the lines of some columns differ from the others'."""

ALONE = {"loss": (ORANGE, "^"), "train_": (VERMILION, "s"), "validation": (BLUE, "o")}
"""Colour and marker where there is one run, by how the column begins; the rest is black."""

COLORS = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK)
MARKERS = "osD^vPX*<>"
"""Those of several runs. 7 and 10 have no common factor, so 70 runs all look different."""

PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.3
"""In inches: the least that a panel with its labels may have of the width, and its height."""


def plot_runs(
    runs: str | Path | Sequence[str | Path],
    out: str | Path = "curves.png",
    *,
    x: Over = "steps",
    width: float = 9.0,
) -> list[str]:
    """Draw the learning curves of stored runs, and return the titles of the panels.

    Parameters
    ----------
    runs
        Their directories, or one; they may still be training.
    out
        A .png, .svg or .pdf file; one that exists is replaced. The same runs give the same bytes.
    x
        What the curves stand over: "steps", "examples" or "seconds" of training.
    width
        Of the figure, in inches; the height follows.

    Local: under MPI let one rank call it.

    Raises
    ------
    InputError
        A run can't be read, or has nothing to draw; matplotlib is not there; the file can't be
        written.
    """
    config = PlotConfig(x, width)
    check(Path(out))
    curves = {}
    for run in read_runs(runs):
        own = curves[run.label] = run.curves(AXES[x][0], COLUMNS)
        if not own:
            others = " or ".join(f"--x {other}" for other in AXES if other != x)
            raise InputError(f"{run.name}: its metrics have nothing to draw over {x}; try {others}")
    there = {column for own in curves.values() for column in own}
    panels = [panel for panel in PANELS if there.intersection(panel.columns)]
    with drawing(Path(out), width, PANEL_HEIGHT) as figure:
        draw(figure, panels, curves, config)
    return [panel.title for panel in panels]


def draw(
    figure: "Figure", panels: Sequence[Panel], curves: dict[str, Curves], config: PlotConfig
) -> None:
    """Draw the panels in rows, as many as the width holds in each, and set the figure's height.

    `curves` are each run's, under its label.
    """
    rows = math.ceil(len(panels) / max(1, int(config.width / PANEL_WIDTH)))
    grid = figure.subplots(rows, math.ceil(len(panels) / rows), squeeze=False)
    right = max(x for own in curves.values() for points in own.values() for x, _ in points)
    for number, axes in enumerate(grid.flat):
        if number >= len(panels):
            axes.remove()
            continue
        _draw_panel(axes, panels[number], list(curves.values()))
        axes.xaxis.get_major_locator().set_params(integer=config.x != "seconds")
        axes.set_xlim(0, 1.04 * right or 1)
        if number + grid.shape[1] >= len(panels):
            axes.set_xlabel(AXES[config.x][1])
    height = _draw_legend(figure, curves, config.width)
    figure.set_figheight(rows * PANEL_HEIGHT + height)


def _draw_panel(axes: "Axes", panel: Panel, runs: Sequence[Curves]) -> None:
    """Draw a quantity of all runs that have it, with ticks that keep apart."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    for column in panel.columns:
        for number, own in enumerate(runs):
            if column in own:
                every = math.ceil(len(own[column]) / 12)
                marked = (number * every // len(runs), every)
                look = _look(column, number, alone=len(runs) == 1)
                axes.plot(*zip(*own[column], strict=True), **look, markevery=marked)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.unit)
    axes.grid()
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    values = [y for own in runs for column in panel.columns for _, y in own.get(column, [])]
    if panel.axis == "zero":
        axes.set_ylim(bottom=0)
    if panel.axis == "log" and 0 < 10 * min(values) <= max(values):
        axes.set_yscale("log")
        few = max(values) < 100 * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """Return a tick's number: 0.05, 200, 12.5k, 3M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if max(factor, 1e4) <= abs(value) < 1e12:
            return f"{value / factor:.10g}{letter}"
    return f"{value:.10g}"


def _look(column: str, number: int, *, alone: bool) -> dict[str, Any]:
    """Return how a column of a run is drawn."""
    color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    if alone:
        looks = (look for start, look in ALONE.items() if column.startswith(start))
        color, marker = next(looks, (BLACK, "D"))
    look = {"color": color, "marker": marker, "linewidth": 1.5, "markersize": 4}
    return {**look, **LINES.get(column, {})}


def _draw_legend(figure: "Figure", curves: dict[str, Curves], width: float) -> float:
    """Draw the legend, with as many columns as there is room for; return its height in inches.

    One run's name is its title; what sets several apart stands beside their markers.
    """
    from matplotlib.lines import Line2D

    alone = len(curves) == 1
    names = [_wrapped(figure, name, width - 0.7) for name in curves]
    title, several = (names[0], []) if alone else (None, names)
    handles = [
        Line2D([], [], label=name, **_look("", number, alone=False))
        for number, name in enumerate(several)
    ]
    for column, label in LOSSES.items():
        if any(column in own for own in curves.values()):
            look = _look(column, 0, alone=True)
            shown = look if alone else look | {"color": BLACK, "marker": ""}
            handles.append(Line2D([], [], label=label, **shown))
    for columns in range(max(1, len(handles)), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside upper left", ncols=columns, title=title, alignment="left"
        )
        extent = legend.get_window_extent()
        if columns == 1 or extent.width < (width - 0.1) * figure.dpi:
            break
        legend.remove()
    return float(extent.height / figure.dpi)


def _wrapped(figure: "Figure", name: str, width: float) -> str:
    """Return a run's name in lines of at most so many inches, with nothing in it that means more.

    Matplotlib takes what stands between two dollars for a formula.
    """
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    text = figure.text(0, 0, "")
    for letters in range(len(plain), 0, -1):
        lines = textwrap.wrap(plain, letters)
        text.set_text("\n".join(lines).replace("$", r"\$"))
        if text.get_window_extent().width < width * figure.dpi:
            break
    text.remove()
    return text.get_text()
