"""What `bench` found, for people: a table in text, and a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dptrain.checked import Plain
from dptrain.figure import BLUE, ORANGE, SKY, VERMILION, drawing
from dptrain.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = Plain

BESIDE: Any = {"textcoords": "offset points", "va": "center"}
"""How a bar's numbers stand beside it."""


def text(found: Found) -> str:
    """Return the tables."""
    return "\n".join(
        [_head(found), "", *_part_lines(found), "", *_run_lines(found), "", _foot(found)]
    )


def _head(found: Found) -> str:
    """Return what was measured, in two lines."""
    return f"{_model(found)}\n{_place(found)}"


def _model(found: Found) -> str:
    return (
        f"{found['model']}, {counted(len(found['shapes']), 'array')}: {found['num_params']:,} "
        f"parameters ({found['dtype']}), batch {found['batch_size']}, {found['optimizer']}"
    )


def _place(found: Found) -> str:
    counts = [(found[f"{noun}s"], noun) for noun in ("rank", "node", "shard", "core")]
    words = [f"{number} {noun}{'s' * (number != 1)}" for number, noun in counts]
    threads = found["threads"]
    return ", ".join([*words, f"{threads} thread{'s' * (threads != 1)} a rank"])


def _floors(found: Found) -> dict[str, str]:
    """Return what each part's floor is."""
    return {
        "data": "rows read and written once",
        "model": f"its products at {found['products_gflop_per_s']:.3g} GFLOP/s a rank",
        "reducing": f"{found['reducing_memory_mb']:.3g} MB a rank in memory",
        "optimizer": "parameters and state read and written once",
        "rest": "",
    }


def _part_lines(found: Found) -> list[str]:
    """Return the table of a step's parts."""
    lines = [f"{'a step':<18}{'ms':>9}{'share':>8}{'floor ms':>10}   floor", "-" * 98]
    for name, why in _floors(found).items():
        part = found["parts"][name]
        floor, why = (f"{part['floor_ms']:.3f}", why) if part["floor_ms"] else ("", "")
        lines.append(
            f"{name.replace('_', ' '):<18}{part['time_ms']:>9.3f}{part['share_ratio']:>8.1%}"
            f"{floor:>10}   {why}".rstrip()
        )
    if found["network_gb_per_s"]:
        lines.insert(
            1 + next(n for n, line in enumerate(lines) if line.startswith("reducing")),
            f"{'':<47} and {found['reducing_network_mb']:.3g} MB a rank between nodes at "
            f"{found['network_gb_per_s']:.3g} GB/s",
        )
    spread = f"{found['fastest_round_step_ms']:.4g} to {found['slowest_round_step_ms']:.4g}"
    floors = sum(part["floor_ms"] or 0 for part in found["parts"].values())
    lines.append(
        f"{'whole step':<18}{found['step_ms']:>9.3f}{1:>8.1%}{floors:>10.3f}   rounds {spread}; "
        f"its parts alone {found['parts_sum_ms']:.4g}"
    )
    return lines


def _name(run: Found) -> str:
    return f"{run['reduce']}, {counted(run['shards'], 'shard')}"


def _run_lines(found: Found) -> list[str]:
    """Return the table of the tree beside Allreduce, and of numbers of shards."""
    head = f"{'':<22}{'reduce and update, ms':>22}{'whole step, ms':>18}"
    lines = [
        f"{_name(run):<22}{run['reduce_and_update_ms']:>22.3f}{run['step_ms']:>18.3f}"
        for run in found["runs"]
    ]
    few, many = found["ranks"], 4 * found["ranks"]
    ratios = [
        f"MPI's Allreduce, with every rank updating all, takes "
        f"{found['allreduce_to_tree_ratio']:.2f} times as long as the tree",
        f"a step with {many} shards takes {found['fourfold_shards_step_ratio']:.2f} times as long "
        f"as one with {counted(few, 'shard')}",
    ]
    return [head, "-" * 62, *lines, *ratios]


def _foot(found: Found) -> str:
    return (
        f"medians of {found['rounds']} rounds of {found['steps_per_round']} steps, means over "
        f"ranks\nmemory: {found['memory_gb_per_s']:.1f} GB/s a rank, all ranks at once, adding "
        f"arrays of {found['memory_array_mb']:.1f} MB\n{found['software']}"
    )


def draw(found: Found, path: Path) -> None:
    """Draw each part beside its floor, and below it the runs compared; see `figure.check`."""
    heights = [len(found["parts"]) + 1, len(found["runs"]) + 1.5]
    with drawing(path, 9, 7) as figure:
        parts, runs = figure.subplots(2, 1, height_ratios=heights)
        figure.suptitle(f"{_model(found)}\n{_place(found)}", fontsize=11)
        _draw_parts(found["parts"], parts)
        _draw_runs(found["runs"], runs)
        runs.set_xlabel(
            f"ms a step: medians of {found['rounds']} rounds of {found['steps_per_round']} steps, "
            "means over ranks"
        )


def _draw_parts(parts: dict[str, Found], axes: "Axes") -> None:
    """Draw a bar for each part of a step, and a mark at its floor."""
    names = [name.replace("_", " ") for name in parts]
    axes.barh(
        names, [part["time_ms"] for part in parts.values()], 0.55, color=BLUE, label="measured"
    )
    for number, part in enumerate(parts.values()):
        text, end = f"{_ms(part['time_ms'])} ({part['share_ratio']:.1%})", part["time_ms"]
        if part["floor_ms"] is not None:
            text, end = f"{text}, floor {_ms(part['floor_ms'])}", max(end, part["floor_ms"])
            ends = (number - 0.42, number + 0.42)
            label = "" if number else "floor"
            axes.vlines(part["floor_ms"], *ends, colors=ORANGE, linewidth=2.5, label=label)
        axes.annotate(text, (end, number), (6, 0), **BESIDE)
    _tidy(axes, "where a step's time goes, ms")


def _draw_runs(runs: list[Found], axes: "Axes") -> None:
    """Draw each run's step as a bar, the time that reducing and updating take alone at its left."""
    names = [_name(run) for run in runs]
    exchange = [min(run["reduce_and_update_ms"], run["step_ms"]) for run in runs]
    rest = [run["step_ms"] - part for run, part in zip(runs, exchange, strict=True)]
    axes.barh(names, exchange, 0.55, color=VERMILION, label="to reduce and update")
    axes.barh(names, rest, 0.55, left=exchange, color=SKY, label="the rest of a step")
    for number, run in enumerate(runs):
        text = f"{_ms(run['step_ms'])}, {_ms(run['reduce_and_update_ms'])} of it"
        axes.annotate(text, (run["step_ms"], number), (6, 0), **BESIDE)
    _tidy(axes, "whole steps, ms")


def _ms(time: float) -> str:
    return f"{time:.3f} ms" if time < 10 else f"{time:.1f} ms"


def _tidy(axes: "Axes", title: str) -> None:
    """Give a panel its title and legend, the first bar on top, and room for the numbers."""
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * axes.get_xlim()[1])
    axes.set_title(title)
    above: Any = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "borderaxespad": 0}
    axes.legend(**above, ncols=2)
    axes.tick_params("y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
