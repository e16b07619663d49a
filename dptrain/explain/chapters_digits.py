"""What fills the words of chapters 6 and 7, which measure the gradients of the embedded digits."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

from dptrain.explain import plain, trainer
from dptrain.explain.found import Numbers
from dptrain.explain.letters import Letters
from dptrain.explain.problem import DIGITS
from dptrain.plot.drawing import Curve, Series, curve
from dptrain.plot.formulas import small
from dptrain.plot.words import Drawings, Fields, code, conditions, table
from dptrain.train.noise import Noise
from dptrain.words import counted

PER_WORKER = 16
"""Examples that each worker of chapter 7 takes from a minibatch."""

WORKERS = [2**k for k in range(9)]


def _mean(gradients: Sequence[Sequence[float | Fraction]]) -> list[Fraction]:
    """Return the mean without rounding: every float is a fraction."""
    rows = [[Fraction(number) for number in row] for row in gradients]
    return [sum(column, Fraction()) / len(rows) for column in zip(*rows, strict=True)]


def _is_full(parts: Sequence[Sequence[Numbers]], full: Sequence[Fraction]) -> str:
    """Return in how many entries the mean of minibatches' means, each by its size, is exact."""
    mean = _mean([_mean(part) for part in parts for _ in part])
    return f"{sum(a == b for a, b in zip(mean, full, strict=True))} of {len(full)}"


def minibatch(letters: Letters, seed: int) -> tuple[Fields, Drawings]:
    """Return chapter 6's fields."""
    gradients = [one.gradient for one in plain.run(letters.problem)]
    found, count = trainer.minibatch(seed), trainer.SHOWN.num_digits
    spread, variances = found.spread, found.variances
    law = {m: spread / m * (count - m) / (count - 1) for m in variances}
    pairs, full = list(combinations(gradients, 2)), _mean(gradients)
    off = max(abs(a - b) for a, b in zip(found.epoch_mean, found.full_gradient, strict=True))
    fields = {
        "pairs": str(len(pairs)),
        "of pairs": _is_full(pairs, full),
        "all but one": str(len(gradients) - 1),
        "of epoch": _is_full((gradients[:-1], gradients[-1:]), full),
        "count": f"{count:,}",
        "units": "-".join(map(str, DIGITS.sizes)),
        "epoch batch": str(trainer.SHOWN.epoch_batch),
        "off": f"{off:.1e}",
        "largest": f"{max(map(abs, found.full_gradient)):.2g}",
        "spread": f"{spread:.4f}",
        "slope": f"{found.slope:.4f}",
        "variances": table(
            ["m", "measured", "law", "ratio"],
            [
                [str(m), f"{v:.6f}", f"{law[m]:.6f}", f"{v / law[m]:.4f}"]
                for m, v in variances.items()
            ],
        ),
    }
    drawing = Curve(
        "Variance of a minibatch's gradient",
        "examples in the minibatch, m",
        "variance",
        [
            Series(small("S/m * (N - m)/(N - 1)"), list(law.items()), "line"),
            Series("S/m", [(m, spread / m) for m in law], "broken"),
            Series("measured", list(variances.items()), "marks"),
        ],
    )
    return fields, {"variance": curve(drawing)}


def noise(_: Letters, seed: int) -> tuple[Fields, Drawings]:
    """Return chapter 7's fields."""
    pairs = zip(trainer.EPOCHS, trainer.noises(seed), strict=True)
    found = {epochs: Noise(*pair) for epochs, pair in pairs}
    clear = {epochs: one for epochs, one in found.items() if one.scale < math.inf}
    worth = [
        f"{max(1, round(one.scale / PER_WORKER)):,} {_after(epochs, 'after ')}"
        for epochs, one in clear.items()
    ]
    fields = conditions(clear=bool(clear)) | {
        "batch size": str(trainer.SHOWN.batch_size),
        "shards": str(trainer.SHARDS),
        "per worker": str(PER_WORKER),
        "worth": ", ".join(worth),
        "scales": table(
            ["epochs", "S", *map(code, ("|G|^2", "S/|G|^2"))],
            [[str(epochs), *_shown(one)] for epochs, one in found.items()],
        ),
        "speedups": table(
            ["workers", "batch", *map(_after, clear)],
            [
                [str(w), str(w * PER_WORKER), *(f"{speedup(one, w):.1f}" for one in clear.values())]
                for w in WORKERS
            ],
        ),
    }
    lines = [
        Series(_after(epochs), [(w, speedup(one, w)) for w in WORKERS], "line")
        for epochs, one in clear.items()
    ]
    ideal = Series("as many as workers", [(w, float(w)) for w in WORKERS], "broken")
    drawing = Curve("Times fewer steps than one worker", "workers", "times", [ideal, *lines])
    return fields, {"speedup": curve(drawing)}


def _shown(one: Noise) -> list[str]:
    scale = f"{one.scale:,.1f}" if one.scale < math.inf else "too noisy"
    return [f"{one.variance:.4f}", f"{one.square_norm:.4f}", scale]


def _after(epochs: int, word: str = "") -> str:
    return "at first" if epochs == 0 else f"{word}{counted(epochs, 'epoch')}"


def speedup(one: Noise, workers: int) -> float:
    """Return how many times fewer steps so many workers need than one."""
    return (1 + one.scale / PER_WORKER) / (1 + one.scale / (PER_WORKER * workers))
