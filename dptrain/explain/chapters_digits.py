"""Chapters 6 and 7, which measure the gradients of the embedded digits."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

from dptrain.explain import trainer_digits
from dptrain.explain.blocks import Block, Curve, Series, Table, Text
from dptrain.explain.problem import digits
from dptrain.train.noise import Noise

PER_WORKER = 16
"""Examples that each worker of chapter 7 takes from a minibatch."""

WORKERS = [2**k for k in range(9)]


def _is_full(parts: Sequence[Sequence[Sequence[float]]], full: Sequence[Fraction]) -> int:
    """Return in how many entries the mean of minibatches' means, each by its size, is exact."""
    count = sum(map(len, parts))
    mean = [Fraction()] * len(full)
    for part in parts:
        weight = Fraction(len(part), count)
        mean = [m + weight * g for m, g in zip(mean, _mean(part), strict=True)]
    return sum(a == b for a, b in zip(mean, full, strict=True))


def _mean(gradients: Sequence[Sequence[float]]) -> list[Fraction]:
    """Return the mean without rounding: every float is a fraction."""
    columns = zip(*gradients, strict=True)
    return [
        sum(map(Fraction, map(float, column)), Fraction()) / len(gradients) for column in columns
    ]


def minibatch(gradients: Sequence[Sequence[float]], seed: int) -> list[Block]:
    """Return chapter 6; `gradients` are those of chapter 2's examples."""
    found = trainer_digits.chapter6(digits(seed))
    count, spread, variances = len(digits(seed).x), found["spread"], found["variances"]
    law = {m: spread / m * (count - m) / (count - 1) for m in variances}
    pairs, full = list(combinations(gradients, 2)), _mean(gradients)
    of_pairs, of_epoch = (
        f"{_is_full(parts, full)} of {len(full)}"
        for parts in (pairs, (gradients[:-1], gradients[-1:]))
    )
    off = abs(found["epoch mean"] - found["full gradient"]).max()
    largest = abs(found["full gradient"]).max()
    return [
        Text(
            "A minibatch's gradient stands for the gradient of all examples, at a fraction of the "
            "cost. It is right on average: unbiased. Take chapter 2's examples as all there are, "
            f"and each of the {len(pairs)} minibatches of two of them. The mean of their gradients "
            "is the full gradient, computed in fractions from chapter 2's numbers, so without "
            f"rounding: equal in {of_pairs} entries. So is the mean over an epoch of "
            f"two minibatches, of {len(gradients) - 1} and 1, each counted by its size: {of_epoch}."
        ),
        Text(
            f"Now {count:,} of the digits that come with dptrain, and a network of "
            f"{'-'.join(map(str, digits(seed).model.sizes))} units before training. In floating "
            "point 'exactly' means but for rounding: the mean over an epoch of minibatches of "
            f"{trainer_digits.EPOCH_BATCH}, the last one smaller, each counted by its size, "
            f"differs from the full gradient by at most {off:.1e} in any entry, where the largest "
            f"entry is {largest:.2g}."
        ),
        Text(
            "How far off is one minibatch? The variance of its gradient, summed over the "
            f"parameters, is S/m * (N - m)/(N - 1), with N = {count:,} examples and S = "
            f"{spread:.4f}, the variance of one example's gradient. The last factor is there "
            "because an epoch draws without replacement: with m = N nothing is left to chance, "
            "and the variance is 0."
        ),
        Curve(
            "Variance of a minibatch's gradient, measured and by the law",
            "examples in the minibatch, m",
            "variance",
            [
                Series("S/m * (N - m)/(N - 1)", list(law.items()), "line"),
                Series("S/m", [(m, spread / m) for m in law], "broken"),
                Series("measured", list(variances.items()), "marks"),
            ],
        ),
        Table(
            "Measured over minibatches of one epoch or more, beside the law",
            ["m", "measured", "law", "ratio"],
            [
                [str(m), f"{v:.6f}", f"{law[m]:.6f}", f"{v / law[m]:.4f}"]
                for m, v in variances.items()
            ],
        ),
        Text(
            "The slope of log variance against log m, freed of the factor (N - m)/(N - 1), is "
            f"{found['slope']:.4f}; the law says -1. Four times the examples cost four times the "
            "work and halve the error, its root. So a step takes as many examples as it needs to "
            "point the way, and no more. How many that is, chapter 7 estimates."
        ),
    ]


def noise(seed: int) -> list[Block]:
    """Return chapter 7."""
    found = trainer_digits.chapter7(digits(seed))
    size, shards = trainer_digits.BATCH_SIZE, trainer_digits.SHARDS
    clear = {epochs: one for epochs, one in found.items() if one.scale < math.inf}
    return [
        Text(
            "Chapter 6's variance needs every example's gradient. A step has something cheaper: "
            "the gradients of its shards. A shard's mean of n examples has E |g_n|^2 = |G|^2 + "
            "S/n, the whole minibatch's of m has |G|^2 + S/m, so the two give |G|^2, the square "
            "norm of the true gradient, and S, the variance of one example's. Their ratio S/|G|^2 "
            "is the gradient noise scale (McCandlish, Kaplan, Amodei and others, 2018): the batch "
            "size at which noise and gradient are equally large."
        ),
        Text(
            f"Measured on the digits, minibatches of {size} in {shards} shards of uneven size, "
            "means over an epoch of them; before training and after some epochs of it:"
        ),
        Table(
            "The noise scale grows as the gradient fades",
            ["epochs", "S", "|G|^2", "S/|G|^2"],
            [
                [str(epochs), f"{one.variance:.4f}", f"{one.square_norm:.4f}", _scale(one)]
                for epochs, one in found.items()
            ],
        ),
        Text(
            "With R = S/|G|^2, a batch of B examples needs 1 + R/B times the fewest steps, and 1 + "
            "B/R times the fewest examples. At B = R both are 2: a good batch size, or, where "
            "workers are many and time is short, some times more. Far below it, twice the workers "
            "halve the steps; far above it they change nothing and burn twice the power."
        ),
        Curve(
            f"Times fewer steps than one worker, {PER_WORKER} examples a worker",
            "workers",
            "times",
            [
                Series("as many as workers", [(w, float(w)) for w in WORKERS], "broken"),
                *(
                    Series(_after(epochs), [(w, speedup(one, w)) for w in WORKERS], "line")
                    for epochs, one in clear.items()
                ),
            ],
        ),
        Table(
            f"Times fewer steps than one worker, {PER_WORKER} examples a worker",
            ["workers", "batch", *map(_after, clear)],
            [
                [str(w), str(w * PER_WORKER), *(f"{speedup(one, w):.1f}" for one in clear.values())]
                for w in WORKERS
            ],
        ),
        Text(_advice(clear)),
    ]


def _scale(one: Noise) -> str:
    """Return the noise scale as printed; where noise hides the gradient there is none to give."""
    return f"{one.scale:,.1f}" if one.scale < math.inf else "too noisy"


def _after(epochs: int, word: str = "") -> str:
    return "at first" if epochs == 0 else f"{word}{epochs} epoch{'s' * (epochs > 1)}"


def speedup(one: Noise, workers: int) -> float:
    """Return how many times fewer steps so many workers need than one."""
    return (1 + one.scale / PER_WORKER) / (1 + one.scale / (PER_WORKER * workers))


def _advice(clear: dict[int, Noise]) -> str:
    parts = [
        f"{max(1, round(one.scale / PER_WORKER)):,} {_after(epochs, 'after ')}"
        for epochs, one in clear.items()
    ]
    return (
        f"So with {PER_WORKER} examples a worker, R/{PER_WORKER} workers are worth it: "
        f"{', '.join(parts)}. Few at first, more as training goes on. dptrain lets a run change "
        "its number of workers without changing its result, but not its batch size, which belongs "
        "to the run. This is a guide, not a law: learning rate and optimizer matter too. Of your "
        "own data and network, dptrain train --noise-scale estimates R as it goes."
    )
