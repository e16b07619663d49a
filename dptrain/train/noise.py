"""The gradient noise scale, from the shards that a step has anyway: how large a batch is worth it.

Pure arithmetic on square norms; no rank needs to know who holds which shard.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Noise(NamedTuple):
    """Two estimates, each unbiased; their ratio is not: average each over steps, then divide.

    `variance` is S = tr(Sigma), the variance of one example's gradient summed over parameters, at
    least 0; `square_norm` is |G|^2 of the true gradient, below 0 where the noise hides it.
    """

    variance: float
    square_norm: float

    @property
    def scale(self) -> float:
        """The noise scale S / |G|^2, in examples; infinite where the noise hides the gradient."""
        return self.variance / self.square_norm if self.square_norm > 0 else math.inf


def noise(
    shard_square_norms: Sequence[float], shard_sizes: Sequence[float], square_norm: float
) -> Noise | None:
    """Return a minibatch's estimate of the gradient noise, or None where it has no two shards.

    McCandlish, Kaplan, Amodei and others, An Empirical Model of Large-Batch Training, 2018,
    appendix A.1: the mean gradient of b examples has E |g_b|^2 = |G|^2 + S / b, so two sizes b give
    both unknowns. Here the small size is that of the K shards with examples, possibly uneven. Each
    counts by its size n_k, so that the mean of 1 / n_k is K / m, and with s_k = |sum of shard k|^2
    and s = |sum of the minibatch|^2

        S = (sum over k of s_k / n_k - s / m) / (K - 1)        |G|^2 = (s / m - S) / m

    which for even shards is the paper's pair of formulas. The examples must be in random order, as
    the trainer's are. Drawn without replacement from a finite set, |G|^2 is that of the
    distribution that the set is a sample of. Raises ValueError where there is not one size for each
    norm.

    `shard_square_norms`: square norm of each shard's gradient sum over its examples, not of the
    mean. `shard_sizes`: examples in each shard, or what they weigh; shards of 0 don't count.
    `square_norm`: square norm of the sum of all shards' sums.
    """
    shards = [(s, n) for s, n in zip(shard_square_norms, shard_sizes, strict=True) if n > 0]
    if len(shards) < 2:
        return None
    size = sum(n for _, n in shards)
    between = math.fsum(s / n for s, n in shards) - square_norm / size
    variance = max(between, 0.0) / (len(shards) - 1)  # not below 0 but for rounding
    return Noise(variance, (square_norm / size - variance) / size)
