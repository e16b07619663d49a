"""A chapter's curve as a figure."""

from pathlib import Path

from dptrain.explain.blocks import Curve
from dptrain.figure import BLUE, ORANGE, VERMILION, drawing


def draw(curve: Curve, path: Path) -> None:
    """Draw a curve of up to three series to a file; see `dptrain.figure.drawing`."""
    with drawing(path, 7, 4.8) as figure:
        axes = figure.subplots()
        for series, colour in zip(curve.series, (BLUE, ORANGE, VERMILION), strict=False):
            style = {"marks": "o", "line": "-", "broken": "--"}[series.kind]
            axes.plot(*zip(*series.points, strict=True), style, color=colour, label=series.label)
        if curve.log:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set(title=curve.caption, xlabel=curve.x_label, ylabel=curve.y_label)
        axes.grid()
        axes.legend()
