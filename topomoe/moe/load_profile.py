"""How evenly each layer's experts are loaded, in a trained router's trace and in real models'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe import stats
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.checked import whole, whole_numbers
from topomoe.topologies.errors import InputError
from topomoe.trace import load_trace

ALL = "all"  # domains together
TRAINED = "trained"  # source of a trace from a router that was trained here


def layer_rows(trace: RoutingTrace, source: str = TRAINED) -> list[dict[str, Any]]:
    """Return a row of record "layer" for each layer, domains together and each domain by itself.

    ``gini``, ``load_cv``, ``max_over_mean`` and ``max_over_min`` (inf where an expert is idle) are
    of the layer's token-expert pairs, every position counted once. ``uniform_gini`` is what a
    router that picks evenly at random has on average with as many ``tokens``: a Gini no larger
    says nothing of the router. Domains without a token are left out.
    """
    trace = replace(trace, weight=None)
    picks = (trace.experts >= 0).sum(axis=2)  # [M, P]
    tables = [(ALL, trace.load(), np.ones(trace.num_positions, dtype=np.bool_))]
    if len(trace.domain_names) > 1:
        domain = trace.position_domain
        tables += [
            (name, load, domain == d)
            for d, (name, load) in enumerate(
                zip(trace.domain_names, trace.domain_load(), strict=True)
            )
            if (domain == d).any()
        ]
    rows = []
    uniform: dict[tuple[int, ...], float] = {}  # most layers have as many picks a token
    for name, load, inside in tables:
        gini, cv = stats.gini(load), stats.coefficient_of_variation(load)
        most = stats.max_over_mean(load)
        for m in range(trace.num_layers):
            by_picks = tuple(np.bincount(picks[m, inside]).tolist())
            if by_picks not in uniform:
                uniform[by_picks] = uniform_gini(trace.num_experts, by_picks)
            rows.append(
                {
                    "record": "layer",
                    "source": source,
                    "layer": m,
                    "domain": name,
                    "gini": float(gini[m]),
                    "load_cv": float(cv[m]),
                    "max_over_mean": float(most[m]),
                    "max_over_min": max_over_min(load[m]),
                    "uniform_gini": uniform[by_picks],
                    "tokens": int(inside.sum()),
                    "experts": trace.num_experts,
                }
            )
    return rows


def real_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return ``layer_rows`` of a recorded trace (a folder or file), its source the folder's name.

    Raises InputError as ``load_trace`` does.
    """
    return layer_rows(load_trace(path), source=Path(path).resolve().stem)


def max_over_min(load: ArrayLike) -> float:
    """Return the largest over the smallest load of one layer [E]: inf with an idle expert.

    A layer without any load counts as even: 1.
    """
    loads = np.asarray(load, dtype=np.float64)
    if not loads.max() > 0:
        return 1.0
    return float(loads.max() / loads.min()) if loads.min() > 0 else float("inf")


def uniform_gini(num_experts: int, tokens_by_picks: ArrayLike) -> float:
    """Return the mean Gini coefficient of E experts that tokens pick evenly and independently.

    ``tokens_by_picks`` [K + 1] counts the tokens that pick 0, 1, ..., K different experts. Exact:
    the Gini is the mean difference of two experts' loads over twice the mean load, times 1 - 1/E.
    A token of k picks adds 1 to the difference D of two loads with probability
    q = k (E - k) / (E (E - 1)), and -1 with as much, so that D has the characteristic function
    f(t) = prod (1 - 2 q (1 - cos t)). |D| is the mean over t of (1 - cos D t) / (1 - cos t), whose
    cosines are of whole multiples of t up to the number of tokens: a sum over more points than
    that, evenly spaced, is the integral. Beyond 2**16 tokens D is taken as normal, which is off by
    less than 1e-5 of it. Real tokens resemble their neighbours, so that the same sample says less
    of a router than independent ones would; expert choice is even by its rule.
    """
    experts = whole(num_experts, "num_experts", 1)
    count: NDArray[np.int64] = np.atleast_1d(whole_numbers(tokens_by_picks, "tokens_by_picks"))
    if count.ndim != 1 or (count < 0).any() or count[experts + 1 :].any():
        raise InputError(f"tokens_by_picks must count tokens of 0..{experts} picks, got {count}")
    k = np.flatnonzero(count)
    pairs = float((count[k] * k).sum())
    if experts == 1 or pairs == 0:
        return 0.0
    q = k * (experts - k) / (experts * (experts - 1))
    variance, steps = float(2 * (count[k] * q).sum()), int(count[k].sum())
    if steps > 1 << 16:
        difference = np.sqrt(2 * variance / np.pi)
    else:
        fall = 1 - np.cos(2 * np.pi * np.arange(1, steps + 1) / (steps + 1))
        f = np.prod((1 - 2 * np.outer(fall, q)) ** count[k], axis=1)
        difference = (variance + ((1 - f) / fall).sum()) / (steps + 1)
    return float((experts - 1) * difference / (2 * pairs))


def summary_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a source and domain: least, mean and largest over layers of each measure."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["source"], row["domain"]), []).append(row)
    found = []
    for (source, domain), layers in groups.items():
        out: dict[str, Any] = {"source": source, "domain": domain, "layers": len(layers)}
        for name in ("gini", "load_cv", "max_over_mean", "max_over_min", "uniform_gini"):
            values = [layer[name] for layer in layers]
            out |= {
                f"{name}_least": min(values),
                name: float(np.mean(values)),
                f"{name}_largest": max(values),
            }
        found.append(out)
    return found
