"""Loads of several workloads of one model, as far apart as measured ones are.

Four ways in which workloads differ, each scaled until the pairwise cosines of their loads fill the
wanted range:

- ``factors``: the log of a load is the base load's plus a few factors that all workloads share,
  at coordinates of their own, plus a little drawn for itself; hot experts vary more. A quarter of
  the workloads lie together, far from the others (as decode does from prefill). With a range of
  cosines up to .99, the greedy of ``eplb`` comes within .15 of its figures on real DeepSeek-V3
  workloads, one left out (mean / worst: 1.39 / 1.78 made for the mean of the others, 1.34 / 1.42
  for their maximum). Up to .96 all workloads are apart, which is harder than that.
- ``topics``: a few topics each raise some experts a lot and most hardly (specialists: the log of
  the factor is a normal draw to the power 3), and every workload is one topic or halves of two,
  with a tenth of the spread drawn for itself. Harder still.
- ``lognormal``: every expert of every workload has its own factor. Nothing seen tells of the next.
- ``dirichlet``: shares ~ Dirichlet(concentration * base load), likewise independent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from topomoe.synthetic import calibrated_loads
from topomoe.topologies.errors import InputError, unknown

KINDS = ("factors", "topics", "lognormal", "dirichlet")

_STREAM = {"topics": 0, "lognormal": 1, "dirichlet": 2, "factors": 3}  # of each kind's draws
_HEAVY = 0.75  # power of the base load in an expert's factors
_OWN = 0.03  # standard deviation of what a workload of kind factors draws for itself
_LAYOUTS, _CANDIDATES = 30, 64
_TAIL = 3  # power of the normal draws of topics
_MOST_LOG_FACTOR = 3.0
_HALVINGS = 30

Floats = NDArray[np.float64]


def calibrated_domain_loads(
    preset: str = "deepseek-v3",
    workloads: int = 8,
    seed: int = 0,
    cosine: tuple[float, float] = (0.83, 0.96),
    kind: str = "factors",
    layers: int | None = None,
) -> Floats:
    """Return loads [D, M, E] of ``workloads`` workloads around ``calibrated_loads(preset, seed)``.

    Every layer's mean is 1. The cosine of the loads of any two workloads, averaged over layers,
    lies in ``cosine`` (lowest, highest); the default is what DeepSeek-V3 shows between prefill and
    decode. The same arguments give the same bytes.

    Raises InputError for an unknown preset or kind, fewer than two workloads, and a range that the
    draws cannot meet.
    """
    if kind not in KINDS:
        raise unknown("kind of workloads", kind, KINDS)
    if workloads < 2:
        raise InputError(f"workloads must be >= 2, got {workloads}")
    low, high = cosine
    if not 0 < low < high < 1:
        raise InputError(f"cosine must be 0 < lowest < highest < 1, got {low} and {high}")
    base = calibrated_loads(preset, seed, layers)
    # The first of these that meets the range: what is drawn apart grows from one to the next.
    steps = [(3, own) for own in (0.1, 0.2, 0.3, 0.45, 0.7, 1.0)]
    if kind == "factors":
        steps = [(number, near) for number in (3, 4, 5) for near in (0.5, 0.75, 1.0, 1.25, 1.5)]
    for number, own in steps:
        if kind == "factors":
            make = _factors(base, workloads, seed, number, own)
        else:
            make = _maker(kind, base, workloads, seed, own, cosine)
        spread = _calibrate(make, low)
        loads = make(spread)
        apart = _pairs(loads)
        if low <= apart.min() and apart.max() <= high:
            return loads
    raise InputError(
        f"cosine {low}..{high} cannot be met by {workloads} workloads of kind {kind}: "
        f"the nearest draws span {apart.min():.3f}..{apart.max():.3f}"
    )


def _maker(
    kind: str, base: Floats, workloads: int, seed: int, own: float, cosine: tuple[float, float]
) -> Callable[[float], Floats]:
    """Return a function from the spread to loads [D, M, E], of the same draws each time."""
    layers, experts = base.shape
    rng = np.random.default_rng(np.random.SeedSequence([seed, _STREAM[kind]]))
    if kind == "topics":
        mix = rng.permutation(_mixes(workloads))[:workloads]
        shape = (mix.shape[1], layers, experts)
        topic, single = _tailed(rng, shape), _tailed(rng, (workloads, layers, experts))

        def topics(spread: float) -> Floats:
            loads = base * np.exp(np.clip(spread * topic, -_MOST_LOG_FACTOR, _MOST_LOG_FACTOR))
            loads = np.einsum("dt,tme->dme", mix, _scaled(loads))
            return _scaled(loads * np.exp(np.clip(own * spread * single, -1.0, 1.0)))

        return topics

    # 1/cosine - 1 is about the mean of the two workloads' variances, so these fill the range.
    ratio = np.sqrt((1 / cosine[1] - 1) / (1 / cosine[0] - 1))
    amount = np.linspace(min(1.0, ratio + own * (1 - ratio)), 1.0, workloads)[:, None, None]
    if kind == "lognormal":
        factor = rng.normal(size=(workloads, layers, experts))
        return lambda spread: _scaled(base * np.exp(spread * amount * factor))

    def dirichlet(spread: float) -> Floats:
        fresh = np.random.default_rng(np.random.SeedSequence([seed, _STREAM[kind], 1]))
        concentration = experts / (spread * amount) ** 2
        return _scaled(fresh.standard_gamma(concentration * base) + 1e-9 * base)

    return dirichlet


def _factors(
    base: Floats, workloads: int, seed: int, number: int, near: float
) -> Callable[[float], Floats]:
    """Return a function from the spread to loads [D, M, E] of ``number`` shared factors."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _STREAM["factors"]]))
    factor = rng.normal(size=(number, *base.shape)) * (base * base.shape[1]) ** _HEAVY
    own = _OWN * rng.normal(size=(workloads, *base.shape))
    place = _places(workloads, number, near / 2, rng)

    def make(spread: float) -> Floats:
        log = spread * np.einsum("dk,kme->dme", place, factor)
        return _scaled(base * np.exp(np.clip(log, -_MOST_LOG_FACTOR, _MOST_LOG_FACTOR) + own))

    return make


def _places(
    workloads: int, number: int, radius: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return coordinates [D, K] in a ball at 0, and of a quarter of them in one at distance 1.

    Each is the farthest from those before of some candidates; of several such layouts, the one
    with the largest ratio of its nearest pair's distance to its farthest pair's.
    """
    far, best, ratio = workloads // 4, np.zeros((workloads, number)), -1.0
    for _ in range(_LAYOUTS):
        found = np.zeros((workloads, number))
        for d in range(workloads):
            direction = rng.normal(size=(_CANDIDATES, number))
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            tried = radius * direction * rng.random((_CANDIDATES, 1)) ** (1 / number)
            tried[:, 0] += d < far
            apart = np.linalg.norm(tried[:, None] - found[None, :d], axis=2)
            found[d] = tried[np.argmax(apart.min(axis=1, initial=np.inf))]
        between = np.linalg.norm(found[:, None] - found[None], axis=2)
        pairs = between[np.triu_indices(workloads, 1)]
        if pairs.min() > ratio * pairs.max():
            best, ratio = found, pairs.min() / pairs.max()
    return best


def _calibrate(make: Callable[[float], Floats], low: float) -> float:
    """Return the largest spread, to 1e-4 of it, at which no cosine is below ``low``."""
    least, most = 0.0, 4.0
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if _pairs(make(middle) if middle else make(1e-6)).min() < low:
            most = middle
        else:
            least = middle
        if most - least <= 1e-4 * most:
            break
    return least


def _pairs(loads: Floats) -> Floats:
    """Return the cosine of every pair of workloads, averaged over layers."""
    unit = loads / np.linalg.norm(loads, axis=2, keepdims=True)
    cosine = np.einsum("dme,fme->df", unit, unit) / loads.shape[1]
    pairs: Floats = cosine[np.triu_indices(len(loads), 1)]
    return pairs


def _mixes(workloads: int) -> Floats:
    """Return the shares of topics of each pure workload and of each half-and-half one.

    Their squared distances are 1/2 to 2: as the range .83 to .96 of cosines wants it.
    """
    topics = 2
    while topics * (topics + 1) // 2 < workloads:
        topics += 1
    pure = np.eye(topics)
    one, other = np.triu_indices(topics)
    mixes: Floats = (pure[one] + pure[other]) / 2
    return mixes


def _tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    draws = rng.normal(size=shape) ** _TAIL
    return np.asarray(draws / np.sqrt(np.mean(draws**2)))


def _scaled(loads: Floats) -> Floats:
    scaled: Floats = loads / loads.mean(axis=2, keepdims=True)
    return scaled
