"""What a piece of an expert costs: expected tokens, or the mean over batches with their spread.

Amounts are in tokens and costs in the seconds of one token, so that a piece of x tokens costs
max(x, knee): the knee is the number of tokens whose FLOPs take as long as the expert's weights.
"""

from __future__ import annotations

from math import erf, exp, sqrt

from topomoe.topologies.kernel import kernel

# Halvings of a share that levels two devices: to 1e-4 of it, or with a spread, which costs more
# and is an estimate, to 1e-3.
_HALVINGS, _HALVINGS_OF_SPREAD = 14, 10


@kernel
def plain_cost(tokens: float, knee: float) -> float:
    """Return the cost of exactly ``tokens``."""
    return max(tokens, knee) if tokens > 0.0 else 0.0


@kernel
def piece_cost(tokens: float, share: float, spread: float, knee: float) -> tuple[float, float]:
    """Return the mean and variance of the cost of a piece that expects ``tokens``.

    The expert's count has variance ``spread`` times its mean, and the piece gets ``share`` of it:
    X ~ N(tokens, spread * share * tokens) costs max(X, knee), or nothing where there is no token.
    The variance is that of max(X, knee): it stands for what a device may take longer.
    """
    if tokens <= 0.0:
        return 0.0, 0.0
    if spread <= 0.0:
        return max(tokens, knee), 0.0
    sd = sqrt(spread * share * tokens)
    z = (tokens - knee) / sd
    density = 0.3989422804014327 * exp(-0.5 * z * z)
    below = 0.5 * (1.0 + erf(0.7071067811865476 * z))
    excess = sd * (density + z * below)
    square = sd * sd * ((z * z + 1.0) * below + z * density)
    none = max(exp(-tokens / share), 1.0 - tokens)
    return knee * (1.0 - none) + excess, max(square - excess * excess, 0.0)


@kernel
def level_share(
    tokens: float,  # of the whole expert
    spread: float,
    both: float,  # share of the two pieces together
    knee: float,
    z: float,  # standard deviations that a device's score is above its mean
    mean: float,  # of the one device without its piece
    variance: float,
    other_mean: float,  # of the other device without its piece
    other_variance: float,
) -> float:
    """Return the share, 0..both, of the one device at which the two devices' scores are equal."""
    low, high = 0.0, both
    for _ in range(_HALVINGS_OF_SPREAD if spread > 0.0 else _HALVINGS):
        part = 0.5 * (low + high)
        m, v = piece_cost(tokens * part, part, spread, knee)
        om, ov = piece_cost(tokens * (both - part), both - part, spread, knee)
        one = mean + m + z * sqrt(variance + v)
        if one > other_mean + om + z * sqrt(other_variance + ov):
            high = part
        else:
            low = part
    return 0.5 * (low + high)
