"""How skewed, how correlated and how steady expert loads are.

The first half works on any array of loads ``[..., E]`` and reduces its last axis; the second half
takes a routing trace. An idle layer (no load at all) counts as balanced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
STICKINESS_LAGS = (1, 2, 4, 8, 16, 64)


def gini(load: ArrayLike) -> FloatArray:
    """Gini coefficient over the last axis, [..., E] -> [...]: 0 even, 1 - 1/E one expert only.

    G = 2 sum_i i x_i / (E sum_i x_i) - (E + 1) / E, with x ascending and i = 1..E.
    """
    ordered = np.sort(_checked(load), axis=-1)
    count = ordered.shape[-1]
    rank = np.arange(1, count + 1)
    weighted = _ratio(2.0 * (ordered * rank).sum(axis=-1), count * ordered.sum(axis=-1))
    value = np.asarray(weighted - (count + 1) / count)
    return np.where(ordered[..., -1] > 0, np.maximum(value, 0.0), 0.0)


def coefficient_of_variation(load: ArrayLike) -> FloatArray:
    """Standard deviation (of the population) over mean, [..., E] -> [...]."""
    array = _checked(load)
    return _ratio(array.std(axis=-1), array.mean(axis=-1))


def max_over_mean(load: ArrayLike) -> FloatArray:
    """Largest load over the mean, [..., E] -> [...]: 1 even, E one expert only."""
    array = _checked(load)
    return _ratio(array.max(axis=-1), array.mean(axis=-1), idle=1.0)


def entropy(load: ArrayLike, normalised: bool = False) -> FloatArray:
    """Shannon entropy of the load shares in nats, [..., E] -> [...]; over ln E if normalised."""
    array = _checked(load)
    count = array.shape[-1]
    share = _ratio(array, array.sum(axis=-1, keepdims=True), idle=1.0 / count)
    nats = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=-1)
    return np.asarray(nats / np.log(count) if normalised and count > 1 else nats)


def top_share(load: ArrayLike, k: int) -> FloatArray:
    """Share of all load that the k hottest experts carry, [..., E] -> [...]."""
    array = _checked(load)
    count = array.shape[-1]
    if not 1 <= k <= count:
        raise InputError(f"k must be in 1..experts, got k={k} and {count} experts")
    hottest = np.sort(array, axis=-1)[..., count - k :].sum(axis=-1)
    return _ratio(hottest, array.sum(axis=-1), idle=k / count)


def log_spread(load: ArrayLike) -> FloatArray:
    """Return the standard deviation of ln(load) over experts with any load, [..., E] -> [...]."""
    array = _checked(load)
    log = np.log(np.where(array > 0, array, 1.0))
    used = np.maximum((array > 0).sum(axis=-1, keepdims=True), 1)
    centred = np.where(array > 0, log - log.sum(axis=-1, keepdims=True) / used, 0.0)
    return np.asarray(np.sqrt((centred**2).sum(axis=-1) / used[..., 0]))


def autocorrelation(series: ArrayLike, lags: Sequence[int]) -> FloatArray:
    """Autocorrelation over time of the load shares in ``series`` [B, ..., E] -> [lags].

    Each expert's share is centred on its mean over time; numerator and denominator are summed over
    all experts (and layers) before the division, so that idle experts weigh nothing.
    """
    loads = _checked(series)
    share = _ratio(loads, loads.sum(axis=-1, keepdims=True), idle=1.0 / loads.shape[-1])
    steps = share.shape[0]
    if any(not 0 <= lag < steps for lag in lags):
        raise InputError(f"lags must be in 0..{steps - 1}, got {list(lags)}")
    centred = (share - share.mean(axis=0)).reshape(steps, -1)
    variance = (centred**2).mean(axis=0).sum()
    product = [(centred[lag:] * centred[: steps - lag]).mean(axis=0).sum() for lag in lags]
    return _ratio(np.array(product), np.asarray(variance), idle=1.0)


def co_activation(trace: RoutingTrace, layer: int) -> tuple[FloatArray, FloatArray]:
    """Return how often two experts of a layer serve the same token: (counts, lift), both [E, E].

    ``counts[i, j]`` is the number of tokens that chose both, by the trace's weight; the diagonal
    holds each expert's own tokens c_i. ``lift[i, j]`` is counts[i, j] over a c_i c_j, where the
    factor a makes the expected pairs as many as the observed ones: independence given the marginal
    loads, no expert twice. It is NaN on the diagonal and where an expert is never chosen.
    """
    chosen = trace.experts[trace.layer_indices([layer])[0]].astype(np.int64) + 1
    bins = trace.num_experts + 1  # the first for what is no expert
    weight = None if trace.weight is None else np.repeat(trace.weight, trace.top_k)
    counts = np.zeros(bins * bins)
    for k in range(trace.top_k):
        pair = (chosen[:, k, None] * bins + chosen).ravel()
        counts += np.bincount(pair, weight, minlength=bins * bins)
    table = np.ascontiguousarray(counts.reshape(bins, bins)[1:, 1:])
    tokens = np.diagonal(table).copy()
    expected = np.outer(tokens, tokens)
    np.fill_diagonal(expected, 0.0)
    if np.count_nonzero(table) > np.count_nonzero(tokens):  # some token has two experts
        expected *= (table.sum() - tokens.sum()) / expected.sum()
    lift = np.full(table.shape, np.nan)
    np.divide(table, expected, out=lift, where=expected > 0)
    return table, lift


def successor_predictability(trace: RoutingTrace) -> tuple[float, float]:
    """Return how well an expert predicts the next layer's: (by successors, by load alone).

    The first is the share of (expert, next layer's expert) pairs of a token whose second is one of
    the K most frequent successors of the first; the second the share of load on the K hottest
    experts of a layer. Means over layers; the trace itself is both counted and predicted. K is what
    tokens have on average where they have different numbers of experts.
    """
    if trace.num_layers < 2:
        raise InputError("successors need at least 2 layers, the trace has 1")
    bins, top_k = trace.num_experts + 1, trace.usual_top_k
    hits = []
    for here, after in zip(trace.experts[:-1], trace.experts[1:], strict=True):
        counts = np.zeros(bins * bins, dtype=np.int64)
        for k in range(trace.top_k):
            pair = (here[:, k, None].astype(np.int64) + 1) * bins + after + 1
            counts += np.bincount(pair.ravel(), minlength=bins * bins)
        table = counts.reshape(bins, bins)[1:, 1:]
        best = np.sort(table, axis=-1)[:, trace.num_experts - top_k :]
        hits.append(best.sum() / max(table.sum(), 1))
    return float(np.mean(hits)), float(top_share(trace.load()[1:], top_k).mean())


def drift(trace: RoutingTrace, window: int) -> FloatArray:
    """Total variation between the load shares of consecutive windows of requests, [W - 1, M].

    A window is ``window`` requests in the trace's order; a shorter last one is left out. Total
    variation is half the sum of absolute differences: 0 the same, 1 disjoint.
    """
    windows = trace.num_requests // window if window >= 1 else 0
    if windows < 2:
        raise InputError(
            f"window must be in 1..requests/2, got {window} and {trace.num_requests} requests"
        )
    load = np.stack(
        [trace.select(range(w * window, (w + 1) * window)).load() for w in range(windows)]
    )
    share = load / load.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(np.diff(share, axis=0)).sum(axis=-1) / 2)


def domain_cosine(trace: RoutingTrace) -> FloatArray:
    """Cosine between the expert loads of every two domains, mean over layers, [D, D].

    A domain without requests has cosine 0 with all others.
    """
    load = trace.domain_load()
    unit = _ratio(load, np.linalg.norm(load, axis=-1, keepdims=True))
    return np.asarray(np.einsum("dme,fme->df", unit, unit) / trace.num_layers)


def stickiness(
    trace: RoutingTrace, lags: Sequence[int] = STICKINESS_LAGS
) -> tuple[FloatArray, float]:
    """Return how much a token's experts resemble those a few positions before it: ([lags], chance).

    The mean over tokens and layers of |A ∩ B| over that of |A|, A the token's experts and B those
    of the token ``lag`` positions earlier in the same request; NaN where no request is that long.
    ``chance`` is what two unrelated tokens of the trace share: the mean over layers of sum_e p_e^2,
    over that of |A|, with p_e the share of tokens that choose expert e.
    """
    if any(lag < 1 for lag in lags):
        raise InputError(f"lags must be >= 1, got {list(lags)}")
    request = trace.position_request
    later = []
    for lag in lags:
        same = request[lag:] == request[:-lag]
        gap = trace.position[lag:] - trace.position[:-lag]
        later.append(np.flatnonzero(same & (gap == lag)) + lag)
    shared, pairs = np.zeros((2, len(lags)))
    chance = 0.0
    for layer in trace.experts:
        ids = layer.astype(np.int64)
        # A column more, which -1 finds as the last one: it is no expert and never shared.
        chosen = np.zeros((trace.num_positions, trace.num_experts + 1), dtype=np.bool_)
        np.put_along_axis(chosen, ids, True, axis=1)
        chosen[:, -1] = False
        chance += float((chosen[:, :-1].mean(axis=0) ** 2).sum())
        for i, lag in enumerate(lags):
            shared[i] += chosen[(later[i] - lag)[:, None], ids[later[i]]].sum()
            pairs[i] += np.count_nonzero(ids[later[i]] >= 0)
    overlap = np.full(len(lags), np.nan)
    np.divide(shared, pairs, out=overlap, where=pairs > 0)
    all_pairs = trace.num_layers * trace.pairs_per_token
    return overlap, chance / all_pairs if all_pairs else 0.0


def summary(trace: RoutingTrace) -> dict[str, NDArray[Any]]:
    """Return a table of every layer's load balance: name of the measure -> [M]."""
    load = trace.load()
    return {
        "layer": np.arange(trace.num_layers),
        "gini": gini(load),
        "coefficient_of_variation": coefficient_of_variation(load),
        "max_over_mean": max_over_mean(load),
        "log_spread": log_spread(load),
        "normalised_entropy": entropy(load, normalised=True),
        "hottest_expert_share": top_share(load, 1),
        "top_eighth_share": top_share(load, max(trace.num_experts // 8, 1)),
        "idle_experts": (load == 0).sum(axis=-1),
        "tokens": np.full(trace.num_layers, round(trace.tokens)),
    }


def _checked(load: ArrayLike) -> FloatArray:
    array = np.asarray(load, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InputError(f"load must have a last axis of experts, got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise InputError("load must be finite and >= 0")
    return array


def _ratio(above: FloatArray, below: FloatArray, idle: float = 0.0) -> FloatArray:
    """Divide, with ``idle`` where the denominator is zero."""
    above, below = np.broadcast_arrays(above, below)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, idle), where=below > 0))
