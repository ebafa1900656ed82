"""What ``topomoe trace`` prints: the shape of a routing trace and its statistics."""

from __future__ import annotations

import numpy as np

from topomoe import stats
from topomoe.trace import RoutingTrace

LAGS = (1, 2, 4, 8, 16, 64)
Rows = list[dict[str, str]]


def describe(trace: RoutingTrace) -> list[tuple[str, Rows]]:
    """Return titled tables: requests by domain, load by layer, stickiness, domain likeness."""
    several = f" ({trace.pairs_per_token:.3g} on average)" if trace.has_absent else ""
    return [
        (
            f"{trace.num_requests} requests, {trace.num_positions} positions, "
            f"{trace.num_layers} MoE layers, {trace.num_experts} experts, "
            f"top-{trace.top_k}{several}",
            _domains(trace),
        ),
        ("Load over layers", _load(trace)),
        ("Shared experts of a token and one earlier in its request", _stickiness(trace)),
        ("Cosine of domain loads, mean over layers", _cosine(trace)),
    ]


def _domains(trace: RoutingTrace) -> Rows:
    requests = np.bincount(trace.request_domain, minlength=len(trace.domain_names))
    positions = np.bincount(trace.position_domain, minlength=len(trace.domain_names))
    return [
        {"domain": name, "requests": str(q), "positions": str(p)}
        for name, q, p in zip(trace.domain_names, requests, positions, strict=True)
    ]


def _load(trace: RoutingTrace) -> Rows:
    rows = []
    for name, values in stats.summary(trace).items():
        if name in ("layer", "tokens"):  # the same in every layer, or its number
            continue
        rows.append(
            {
                "figure": name.replace("_", " "),
                "mean": f"{np.mean(values):.4g}",
                "min": f"{np.min(values):.4g}",
                "max": f"{np.max(values):.4g}",
            }
        )
    return rows


def _stickiness(trace: RoutingTrace) -> Rows:
    overlap, chance = stats.stickiness(trace, LAGS)
    row = {f"lag {lag}": f"{value:.3f}" for lag, value in zip(LAGS, overlap, strict=True)}
    return [{**row, "by chance": f"{chance:.3f}"}]


def _cosine(trace: RoutingTrace) -> Rows:
    cosine = stats.domain_cosine(trace)
    return [
        {"domain": name, **{n: f"{v:.2f}" for n, v in zip(trace.domain_names, row, strict=True)}}
        for name, row in zip(trace.domain_names, cosine, strict=True)
    ]
