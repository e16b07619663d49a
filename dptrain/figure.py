"""What all figures share: matplotlib, set up alike on every machine, and the file they end in."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dptrain.record.files import check_writable, write_whole
from dptrain.words import InputError, install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000"
)  # fmt: skip
"""The colours by Okabe and Ito, which the colour-blind can tell apart; their yellow is too pale."""

SETTINGS: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "figure.dpi": 150,
    "figure.constrained_layout.w_pad": 0.08,
    "agg.path.chunksize": 10_000,  # else curves of very many points can't be drawn
    "pdf.fonttype": 42,  # letters that can be searched and copied
    "svg.hashsalt": "dptrain",  # else the names in the file differ each time
}

UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""What leaves the date out of a file, where its format has one."""


def check(path: Path, *, force: bool = True) -> None:
    """Raise InputError where nothing could be drawn to this file, before the work.

    Without `force` it must be new.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out is {path}; name a file that ends in {', '.join(SUFFIXES)}")
    check_writable(path, "--out", force=force)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(f"--out needs matplotlib ({error}): {install('plot')}") from None
    except ValueError as error:  # of a variable, such as MPLBACKEND
        raise InputError(f"matplotlib does not start: {error}") from None


@contextlib.contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """Yield a figure, sizes in inches, and write what the block drew to a file; see `check`.

    The same drawing gives the same bytes: a person's matplotlibrc and the date have no part in it.
    A file that exists is replaced. Raises InputError where the file can't be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name: a box stands for it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        content, kind = io.BytesIO(), path.suffix.lower()[1:]
        figure.savefig(content, format=kind, metadata=UNDATED.get(kind))
    write_whole(path, content.getvalue(), shared=True)
