"""Which router is better, whether the seeds agree, and whether it stays so at another size.

Losses are in nats a token, lower is better; R routers, S seeds, Q requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import exp, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.moe.seed_tests import (
    DRAWS,
    LEVEL,
    hierarchical_interval,
    holm,
    pooled_p,
    ranks_of,
    seed_difference,
)
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]


def seed_losses(loss: FloatArray, tokens: FloatArray) -> FloatArray:
    """Return the loss a token of every router and seed, [R, S], from [R, S, Q] and [S, Q]."""
    return np.asarray((loss * tokens).sum(axis=2) / tokens.sum(axis=1))


def rank_rows(names: Sequence[str], loss: FloatArray) -> list[dict[str, Any]]:
    """Return a row a router, best first, from mean held-out losses [R, S].

    ``best_rank`` and ``worst_rank`` are the ranks it takes in single seeds (equals share a mean).
    """
    _check(names, loss)
    order = np.argsort(loss.mean(axis=1), kind="stable")
    ranks = ranks_of(loss)
    several = loss.shape[1] > 1
    return [
        {
            "rank": place + 1,
            "router": names[r],
            "loss": float(loss[r].mean()),
            "loss_sd": float(loss[r].std(ddof=1)) if several else nan,
            "perplexity": exp(float(loss[r].mean())),
            "best_rank": float(ranks[r].min()),
            "worst_rank": float(ranks[r].max()),
            "seeds": loss.shape[1],
        }
        for place, r in enumerate(order)
    ]


def pair_rows(
    names: Sequence[str],
    loss: FloatArray,
    tokens: FloatArray,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return a row a pair of routers, the better first, from losses [R, S, Q] and tokens [S, Q].

    ``difference`` is the worse one's loss minus the better one's, with the paired t interval over
    seeds (``low``, ``high``), its ``p``, ``p_holm`` over all pairs, and whether that is
    ``significant`` at 5 %; ``bootstrap_low`` and ``bootstrap_high`` are of the hierarchical
    bootstrap over seeds and requests. ``neighbours`` follow each other in the ranking. Three seeds
    leave a pair two degrees of freedom; ``p_pooled_holm`` and ``significant_pooled`` are of
    ``pooled_p``, which has more where seeds are as noisy for every router.
    """
    means = seed_losses(loss, tokens)
    _check(names, means)
    order = np.argsort(means.mean(axis=1), kind="stable")
    pooled = pooled_p(means)
    rows: list[dict[str, Any]] = []
    for i, j in combinations(range(len(order)), 2):
        better, worse = order[i], order[j]
        found = seed_difference(means[worse], means[better])
        rng = np.random.default_rng([seed, i, j])
        low, high = hierarchical_interval(loss[worse] - loss[better], tokens, draws, rng)
        rows.append(
            {
                "better": names[better],
                "worse": names[worse],
                "difference": found.mean,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "p_pooled": float(pooled[better, worse]),
                "bootstrap_low": low,
                "bootstrap_high": high,
                "neighbours": j == i + 1,
                "seeds": means.shape[1],
            }
        )
    for suffix in ("", "_pooled"):
        adjusted = holm([row[f"p{suffix}"] for row in rows])
        for row, p in zip(rows, adjusted, strict=True):
            row[f"p{suffix}_holm"] = float(p)
            row[f"significant{suffix}"] = bool(p < LEVEL)
    return rows


def stability_rows(losses: Mapping[int, FloatArray]) -> list[dict[str, Any]]:
    """Return a row a pair of sizes: how alike their rankings are; losses [R, S] by experts E.

    ``kendall`` (tau-b) and ``spearman`` are of the rankings by mean loss. One seed's ranking at the
    one size against any seed's at the other gives ``kendall_low``, ``kendall_mean`` and
    ``kendall_high``. ``kendall_same_size`` is the mean over pairs of seeds at one size: as much as
    seeds alone let rankings agree. NaN where a ranking is all ties or there is one seed.
    """
    from scipy.stats import kendalltau, spearmanr

    sizes = sorted(losses)
    shapes = {losses[size].shape[0] for size in sizes}
    if len(shapes) > 1:
        raise InputError(f"losses must be of the same routers at every size, got {sorted(shapes)}")

    def tau(x: FloatArray, y: FloatArray) -> float:
        return float(kendalltau(x, y).statistic) if np.ptp(x) and np.ptp(y) else nan

    def between(x: FloatArray, y: FloatArray) -> list[float]:
        return [tau(one, other) for one in x.T for other in y.T]

    def within(x: FloatArray) -> list[float]:
        return [tau(one, other) for one, other in combinations(x.T, 2)]

    rows = []
    for one, other in combinations(sizes, 2):
        x, y = losses[one], losses[other]
        mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
        tied = not (np.ptp(mean_x) and np.ptp(mean_y))
        single, same = between(x, y), [*within(x), *within(y)]
        rows.append(
            {
                "experts": one,
                "other_experts": other,
                "kendall": tau(mean_x, mean_y),
                "spearman": nan if tied else float(spearmanr(mean_x, mean_y).statistic),
                "kendall_low": min(single),
                "kendall_mean": float(np.mean(single)),
                "kendall_high": max(single),
                "kendall_same_size": float(np.mean(same)) if same else nan,
            }
        )
    return rows


def document_losses(
    rows: pd.DataFrame, name: str = "router"
) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Return names [R] (sorted), losses [R, S, Q] and tokens [S, Q] of rows of record "document".

    ``rows`` has a row a ``name``, ``seed`` and ``request`` with ``loss`` and ``tokens``. Raises
    InputError where one is missing, twice there, or its tokens differ between routers.
    """
    keys = [name, "seed", "request"]
    names = sorted(rows[name].unique())
    seeds, requests = rows["seed"].nunique(), rows["request"].nunique()
    expected = len(names) * seeds * requests
    if len(rows) != expected or rows.duplicated(keys).any():
        raise InputError(
            f"document rows must hold every {name}, seed and request once: "
            f"{len(names)} x {seeds} x {requests} = {expected}, got {len(rows)}"
        )
    ordered = rows.sort_values(keys)
    shape = len(names), seeds, requests
    loss = ordered["loss"].to_numpy(dtype=np.float64).reshape(shape)
    tokens = ordered["tokens"].to_numpy(dtype=np.float64).reshape(shape)
    if (tokens != tokens[0]).any():
        raise InputError(f"document rows must score the same tokens of a request for every {name}")
    return tuple(map(str, names)), loss, tokens[0]


def _check(names: Sequence[str], loss: FloatArray) -> None:
    if loss.ndim != 2 or loss.shape[0] != len(names) or not loss.size:
        raise InputError(
            f"losses must be [R, S] of {len(names)} routers and >= 1 seed, got {loss.shape}"
        )
    if not np.isfinite(loss).all():
        raise InputError("losses must be finite")
