"""Tables of the ranking of routers, of whether it is significant, and of how far it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.moe.ranking import pair_rows, rank_rows, seed_losses, stability_rows
from topomoe.moe.seed_tests import friedman
from topomoe.router_front import losses_by_capacity, reference_of, size_losses
from topomoe.router_results import (
    NOT_CAUSAL,
    PERPLEXITY,
    RouterResults,
    capacity_text,
    comparable,
    seed_ranks,
)
from topomoe.table_columns import Column, table_of, text_column
from topomoe.table_text import Table
from topomoe.tables_routers_columns import UNKNOWN, known_column
from topomoe.tables_routers_sweeps import SIZE

if TYPE_CHECKING:
    from typing import Any

    from topomoe.moe.ranking import FloatArray


def ranking_tables(results: RouterResults) -> list[Table]:
    """Return the ranking at the reference capacity factor, and every pair with its significance.

    The reference is the capacity factor that most routers have, of those the largest.
    """
    by_capacity = losses_by_capacity(results)
    if not by_capacity:
        return []
    factors = sorted(by_capacity, key=lambda factor: (factor == 0, factor))
    reference = reference_of(by_capacity)
    names, loss, tokens = by_capacity[reference]
    pairs = pair_rows(names, loss, tokens)
    means = {factor: (own[0], seed_losses(*own[1:])) for factor, own in by_capacity.items()}
    tables = [_ranking_table(means, factors, reference, pairs)]
    return [*tables, _pair_table(pairs, reference)] if pairs else tables


def _ranking_table(
    means: dict[float, tuple[tuple[str, ...], FloatArray]],
    factors: list[float],
    reference: float,
    pairs: list[dict[str, Any]],
) -> Table:
    rows = rank_rows(*means[reference])
    at = capacity_text(reference)
    beaten = {
        row["router"]: [
            pair["worse"]
            for pair in pairs
            if pair["better"] == row["router"] and pair["significant"]
        ]
        for row in rows
    }
    columns: list[Column] = [
        text_column("rank", [row["rank"] for row in rows], True),
        text_column("router", [row["router"] for row in rows]),
        text_column("seeds", [row["seeds"] for row in rows], True),
        known_column("perplexity", [row["perplexity"] for row in rows]),
        known_column("loss (nats)", [row["loss"] for row in rows]),
        known_column("its SD", [row["loss_sd"] for row in rows], 2),
        text_column(
            "rank in single seeds",
            [_range(row["best_rank"], row["worst_rank"]) for row in rows],
            True,
        ),
        text_column(
            "significantly better than",
            [", ".join(beaten[row["router"]]) or "none" for row in rows],
        ),
    ]
    for factor in factors:
        if factor == reference:
            continue
        ranks = {row["router"]: str(row["rank"]) for row in rank_rows(*means[factor])}
        header = f"rank at {capacity_text(factor)}"
        columns.append(text_column(header, [ranks.get(row["router"], "") for row in rows], True))
    test = friedman(means[reference][1])
    alike = (
        "Friedman's test needs three routers and two seeds."
        if np.isnan(test.p_shuffled)
        else f"Friedman's test that all routers rank alike: p = {test.p_shuffled:.3g} by shuffling "
        f"(chi-squared {test.statistic:.2f}, p = {test.p:.2g})."
    )
    return table_of(
        "ranking",
        f"Ranking of the routers at capacity factor {at}",
        "By the loss of held-out text, all tokens of a seed and seeds alike, of predictions that "
        f"see no later token ({', '.join(NOT_CAUSAL)} only where that was measured). SD: over "
        "seeds. Significantly: at 5 %, paired t over seeds, Holm's correction for all pairs. "
        f"{alike}",
        columns,
    )


def _pair_table(pairs: list[dict[str, Any]], reference: float) -> Table:
    columns: list[Column] = [
        text_column("better", [row["better"] for row in pairs]),
        text_column("worse", [row["worse"] for row in pairs]),
        text_column("difference (nats)", [_number(row["difference"]) for row in pairs], True),
        text_column("95 % t interval", [_interval(row, "low", "high") for row in pairs], True),
        text_column(
            "bootstrap",
            [_interval(row, "bootstrap_low", "bootstrap_high") for row in pairs],
            True,
        ),
        text_column("p", [_p(row["p"]) for row in pairs], True),
        text_column("p (Holm)", [_p(row["p_holm"]) for row in pairs], True),
        text_column("significant", ["yes" if row["significant"] else "" for row in pairs]),
        text_column("pooled p (Holm)", [_p(row["p_pooled_holm"]) for row in pairs], True),
        text_column(
            "significant, pooled", ["yes" if row["significant_pooled"] else "" for row in pairs]
        ),
    ]
    return table_of(
        "ranking_pairs",
        f"Pairs of routers at capacity factor {capacity_text(reference)}",
        "Held-out loss of the worse less that of the better, paired by seed; the t interval and p "
        "are over seeds, which train a router from scratch. Bootstrap: 95 % of seeds and requests "
        "drawn anew; with few seeds it is too narrow. Holm: corrected for all pairs; significant "
        "at 5 %. Pooled: the error over seeds is taken to be the same for all routers, which has "
        "more degrees of freedom and is right only as far as that holds.",
        columns,
    )


def stability_tables(results: RouterResults) -> list[Table]:
    """Return how alike routers rank at every two numbers of experts; none of a single number."""
    quality = results.rows("quality", SIZE, "size")
    if quality.empty:
        return []
    routers, losses = size_losses(
        seed_ranks(comparable(quality).dropna(subset=[PERPLEXITY]), "experts")
    )
    if len(losses) < 2 or len(routers) < 2:
        return []
    rows = stability_rows(losses)
    columns = [
        text_column("experts", [row["experts"] for row in rows], True),
        text_column("against", [row["other_experts"] for row in rows], True),
        text_column("Kendall's tau", [_number(row["kendall"], 2) for row in rows], True),
        text_column("Spearman's rho", [_number(row["spearman"], 2) for row in rows], True),
        text_column("tau of single seeds", [_number(row["kendall_mean"], 2) for row in rows], True),
        text_column(
            "its range", [_interval(row, "kendall_low", "kendall_high", 2) for row in rows]
        ),
        text_column(
            "tau at one size", [_number(row["kendall_same_size"], 2) for row in rows], True
        ),
    ]
    return [
        table_of(
            "size_stability",
            "Whether the ranking holds as experts are added",
            f"Rank correlation over {len(routers)} routers ({', '.join(routers)}) of their mean "
            "losses; 1 is the same ranking. Single seeds: each seed at the one number of experts "
            "against each at the other. At one size: between seeds at the same number of experts, "
            "as much as seeds alone let rankings agree.",
            columns,
        )
    ]


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _number(value: float, places: int = 4) -> str:
    return UNKNOWN if np.isnan(value) else f"{round(value, places) + 0.0:.{places}f}"


def _interval(row: dict[str, Any], low: str, high: str, places: int = 4) -> str:
    if np.isnan(row[low]):
        return UNKNOWN
    return f"{_number(row[low], places)} to {_number(row[high], places)}"


def _p(value: float) -> str:
    if np.isnan(value):
        return UNKNOWN
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
