"""What a bench of routers found, in sentences computed from its results: quality and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from topomoe.moe.ranking import pair_rows, rank_rows, seed_losses, stability_rows
from topomoe.moe.seed_tests import LEVEL, friedman
from topomoe.report.findings_network import listed
from topomoe.report.findings_routers_balance import balance_findings, loss_findings
from topomoe.report.findings_routers_changes import change_findings
from topomoe.report.findings_routers_sweeps import sweep_findings
from topomoe.report.router_words import at_capacity, counted_of, milliseconds, percent_text
from topomoe.report.write import Group
from topomoe.router_front import front, losses_by_capacity, pareto_points, reference_of, size_losses
from topomoe.router_results import (
    NOT_CAUSAL,
    PERPLEXITY,
    POINT,
    RouterResults,
    capacity_text,
    comparable,
    seed_ranks,
)
from topomoe.tables_routers import QUALITY, STEP
from topomoe.tables_routers_sweeps import SIZE

if TYPE_CHECKING:
    import pandas as pd

Point = tuple[str, float]  # router, capacity factor


def router_findings(results: RouterResults) -> tuple[Group, ...]:
    """Return the answer of the bench under headings: what each part that was run found.

    Raises InputError where the results lack a column.
    """
    fronts = front_findings(results)
    groups = (
        ("", fronts[:1]),
        ("Quality against time", fronts[1:]),
        ("Ranking", [*ranking_findings(results), *size_findings(results)]),
        ("Balance", [*balance_findings(results), *loss_findings(results)]),
        ("Placement and assignment", change_findings(results)),
        ("Capacity, adapters and speed", sweep_findings(results)),
    )
    return tuple((heading, tuple(sentences)) for heading, sentences in groups if sentences)


def front_findings(results: RouterResults) -> list[str]:
    """Say which routers are on the front of perplexity and time, over all networks and on each."""
    quality = results.rows("quality", QUALITY, "pareto")
    steps = results.rows("step", STEP, "pareto")
    if quality.empty or steps.empty:
        return []
    points = pareto_points(quality, steps)
    found = {str(name): _on_front(own) for name, own in points.groupby("network", sort=False)}
    return [
        _everywhere(points, found),
        *(_one_front(points, network, rows) for network, rows in found.items()),
        *_sighted(comparable(quality)),
    ]


def _on_front(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points on one network's front, fastest first: means over seeds, and the share."""
    means = points.groupby(POINT, sort=False)[[PERPLEXITY, "moe_p99_s"]].mean()
    means = means.join(front(points))
    return means[means["front"]].sort_values("moe_p99_s", kind="stable")


def _everywhere(points: pd.DataFrame, found: dict[str, pd.DataFrame]) -> str:
    """Say which points are on every front, which on some, and which routers on none."""
    every = list(dict.fromkeys(zip(points["router"], points["capacity_factor"], strict=True)))
    times = {point: sum(point in rows.index for rows in found.values()) for point in every}
    always = [point for point in every if times[point] == len(found)]
    some = [point for point in every if 0 < times[point] < len(found)]
    on_some = {router for point in every if times[point] for router in point[:1]}
    never = [router for router, _ in every if router not in on_some]
    networks = {1: "the network", 2: "both networks"}.get(len(found), f"all {len(found)} networks")
    several = points["capacity_factor"].nunique() > 1
    text = (
        f"{_points(always, several)} {'is' if len(always) == 1 else 'are'} on the Pareto front of "
        f"held-out perplexity and p99 step time on {networks}"
        if always
        else f"No router is on the Pareto front of perplexity and p99 step time on {networks}"
    )
    text += f"; on some of them {_points(some, several)}" if some else ""
    text += f"; on none {listed(list(dict.fromkeys(never)))}" if never else ""
    return (
        f"{text}. On the front is what no other router{' and capacity factor' if several else ''} "
        "beats in both."
    )


def _points(points: list[Point], several: bool) -> str:
    """Return the routers, each with its capacity factors where the run has several."""
    factors: dict[str, list[str]] = {}
    for router, factor in points:
        factors.setdefault(router, []).append(capacity_text(factor))
    if not several:
        return listed(list(factors))
    return listed([f"{router} (capacity {listed(own)})" for router, own in factors.items()])


def _one_front(points: pd.DataFrame, network: str, rows: pd.DataFrame) -> str:
    """Say what is on one network's front, and what quality costs in time along it."""
    if rows.empty:
        return f"On {network}, no router has a perplexity that compares."
    several = points["capacity_factor"].nunique() > 1
    named = []
    for key, row in rows.iterrows():
        router, factor = cast("Point", key)
        share = float(row["share"])
        sure = f", {100 * share:.0f} %" if share < 1 else ""
        point = f"{router} at {capacity_text(factor)}" if several else router
        named.append(
            f"{point} ({milliseconds(row['moe_p99_s'])}, perplexity {row[PERPLEXITY]:.1f}{sure})"
        )
    text = f"On {network}, the front from the fastest to the lowest perplexity: {listed(named)}"
    if len(rows) > 1:
        first, last = rows.iloc[0], rows.iloc[-1]
        text += (
            f"; from end to end the step takes {percent_text(_ratio(last, first, 'moe_p99_s') - 1)}"
            f" longer for {percent_text(1 - _ratio(last, first, PERPLEXITY))} less perplexity"
        )
    if (rows["share"] < 1).any():
        text += " (percentages of points: bootstrap samples of the seeds in which one is on it)"
    return f"{text}."


def _ratio(row: pd.Series[Any], other: pd.Series[Any], column: str) -> float:
    return float(row[column]) / float(other[column])


def _sighted(quality: pd.DataFrame) -> list[str]:
    """Say what perplexity counts of routers that see later tokens."""
    sentences = []
    for router in NOT_CAUSAL:
        own = quality[quality["router"] == router]
        if own.empty:
            continue
        means = own.groupby("capacity_factor")[["perplexity", PERPLEXITY]].mean()
        if means[PERPLEXITY].isna().all():
            sentences.append(
                f"{router} sees later tokens and was not measured without them: its perplexity "
                "compares with none, and it is on no front."
            )
            continue
        named = [
            f"{row[PERPLEXITY]:.1f} instead of {row['perplexity']:.1f} "
            f"{at_capacity(float(str(factor)))}"
            for factor, row in means.dropna().iterrows()
        ]
        sentences.append(
            f"{router} counts with the perplexity of predictions that see no later token: "
            f"{listed(named)}."
        )
    return sentences


def ranking_findings(results: RouterResults) -> list[str]:
    """Say how routers rank at the reference capacity factor, and which differences are sure."""
    by_capacity = losses_by_capacity(results)
    if not by_capacity:
        return []
    reference = reference_of(by_capacity)
    names, loss, tokens = by_capacity[reference]
    means = seed_losses(loss, tokens)
    ranked = [f"{row['router']} ({row['perplexity']:.1f})" for row in rank_rows(names, means)]
    text = f"Ranked by held-out perplexity {at_capacity(reference)}: {', '.join(ranked)}."
    if len(names) < 2:
        return [text]
    if means.shape[1] < 2:
        return [f"{text} Of a single seed, no difference can be called significant."]
    test = friedman(means)
    if not np.isnan(test.p_shuffled):
        verdict = "do not all rank alike" if test.p_shuffled < LEVEL else "may all rank alike"
        text += (
            f" Over {means.shape[1]} seeds the routers {verdict} "
            f"(Friedman's test, p = {test.p_shuffled:.3g})."
        )
    return [text, _significance(pair_rows(names, loss, tokens, draws=1), means.shape[1])]


def _significance(pairs: list[dict[str, Any]], seeds: int) -> str:
    """Say which pairs differ, by tests paired over seeds and by the pooled ones."""
    counts = [sum(pair[key] for pair in pairs) for key in ("significant", "significant_pooled")]
    text = (
        f"Paired over {seeds} seeds, {counted_of(counts[0], len(pairs))} differences between two "
        f"routers {'is' if counts[0] == 1 else 'are'} significant at {100 * LEVEL:g} % after "
        "Holm's correction"
    )
    text += f" ({_beaten(pairs, 'significant')})" if counts[0] else ""
    text += f"; with the error over seeds pooled over all routers, {counts[1]}"
    text += f" ({_beaten(pairs, 'significant_pooled')})" if counts[1] else ""
    even = [
        f"{pair['better']} and {pair['worse']}"
        for pair in pairs
        if pair["neighbours"] and not (pair["significant"] or pair["significant_pooled"])
    ]
    return f"{text}. Neighbours told apart by neither test: {'; '.join(even) or 'none'}."


def _beaten(pairs: list[dict[str, Any]], key: str) -> str:
    better: dict[str, list[str]] = {}
    for pair in pairs:
        if pair[key]:
            better.setdefault(pair["better"], []).append(pair["worse"])
    return "; ".join(f"{name} before {listed(worse)}" for name, worse in better.items())


def size_findings(results: RouterResults) -> list[str]:
    """Say who is best at each number of experts, and whether the ranking holds."""
    quality = results.rows("quality", SIZE, "size")
    if quality.empty:
        return []
    ranked = seed_ranks(comparable(quality).dropna(subset=[PERPLEXITY]), "experts")
    if ranked.empty:
        return []
    best: dict[str, list[str]] = {}
    for experts, own in ranked.groupby("experts"):
        for router in dict.fromkeys(own.loc[own["rank"] == 1, "router"]):
            best.setdefault(router, []).append(f"{experts:g}")
    named = [f"{router} at {listed(sizes)}" for router, sizes in best.items()]
    text = f"By number of experts, the lowest perplexity has {'; '.join(named)}"
    routers, losses = size_losses(ranked)
    if len(losses) < 2 or len(routers) < 2:
        return [f"{text}."]
    named = [
        f"{row['kendall']:.2f} between {row['experts']} and {row['other_experts']}"
        for row in stability_rows(losses)
        if np.isfinite(row["kendall"])
    ]
    if not named:
        return [f"{text}."]
    same = [row["kendall_same_size"] for row in stability_rows(losses)]
    text += f"; Kendall's tau of the rankings by mean loss is {listed(named)} (1: the same)"
    if np.isfinite(same).any():
        text += f", while single seeds at one number agree to {np.nanmean(same):.2f}"
    return [f"{text}."]
