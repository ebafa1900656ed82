"""Tables of a bench of routers, from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from topomoe.router_front import front, pareto_points
from topomoe.router_results import (
    NOT_CAUSAL,
    PERPLEXITY,
    POINT,
    RouterResults,
    capacities,
    capacity_text,
    comparable,
    read_routers,
)
from topomoe.run_folder import RunFolder
from topomoe.table_columns import Column, table_of, text_column
from topomoe.table_files import titled_rows, write_each
from topomoe.table_text import Table
from topomoe.tables_routers_balance import assignment_tables, layer_tables, loss_tables
from topomoe.tables_routers_columns import INTERVAL_NOTE, mean_column, percent_column
from topomoe.tables_routers_ranking import ranking_tables, stability_tables
from topomoe.tables_routers_sweeps import (
    adapter_tables,
    capacity_tables,
    size_tables,
    throughput_tables,
    tuning_tables,
)

if TYPE_CHECKING:
    import pandas as pd

QUALITY = (
    *("router", "capacity_factor", "seed", "perplexity", "token_drop_rate"),
    *("assignment_drop_rate", "load_cv", "gate_entropy"),
)
STEP = ("router", "capacity_factor", "seed", "topology", "moe_p99_s")
_CAUSAL_NOTE = (
    "Held-out perplexity, and what it is where no later token is seen (causal perplexity; n/a: "
    f"not measured, and then on no front): they differ for {', '.join(NOT_CAUSAL)} alone. "
)


def write_router_tables(folder: RunFolder) -> list[Path]:
    """Write tables/*.md and tables/*.tex; InputError where the results are missing or damaged."""
    return write_each(folder.path, router_tables(folder))


def printed_tables(folder: RunFolder) -> list[tuple[str, list[dict[str, str]]]]:
    """Return the tables as titled rows of text."""
    return titled_rows(router_tables(folder))


def router_tables(folder: RunFolder) -> list[Table]:
    """Return the tables of what the run has results of; InputError names a missing column."""
    results = read_routers(folder)
    return [
        table
        for tables in (
            pareto_tables,
            ranking_tables,
            layer_tables,
            loss_tables,
            assignment_tables,
            capacity_tables,
            size_tables,
            stability_tables,
            adapter_tables,
            tuning_tables,
            throughput_tables,
        )
        for table in tables(results)
    ]


def pareto_tables(results: RouterResults) -> list[Table]:
    """Return a row a router and capacity factor: perplexity, drops, balance, time, on the front."""
    quality = results.rows("quality", QUALITY, "pareto")
    if quality.empty:
        return []
    quality = comparable(quality)
    points = [
        (router, factor)
        for router in dict.fromkeys(quality["router"])
        for factor in capacities(quality[quality["router"] == router])
    ]
    of_point = dict(iter(quality.groupby(POINT, sort=False)))
    groups = [of_point[point] for point in points]
    sighted = [router for router in NOT_CAUSAL if router in set(quality["router"])]
    causal = mean_column("causal perplexity", [own[PERPLEXITY] for own in groups], best=True)
    columns = [
        text_column("router", [router for router, _ in points]),
        text_column("capacity", [capacity_text(factor) for _, factor in points], True),
        text_column("seeds", [len(own) for own in groups], True),
        mean_column("perplexity", [own["perplexity"] for own in groups], best=not sighted),
        *([causal] if sighted else []),
        percent_column("tokens dropped (%)", [own["token_drop_rate"] for own in groups]),
        percent_column("assignments dropped (%)", [own["assignment_drop_rate"] for own in groups]),
        mean_column("load CV", [own["load_cv"] for own in groups], best=True, digits=3),
        mean_column("gate entropy", [own["gate_entropy"] for own in groups], digits=3),
    ]
    steps = results.rows("step", STEP, "pareto")
    if len(steps):
        for network, own in pareto_points(quality, steps).groupby("network", sort=False):
            columns += _network_columns(str(network), own, points)
    return [
        table_of(
            "pareto",
            "Perplexity against step time",
            f"{_CAUSAL_NOTE if sighted else 'Held-out perplexity. '}"
            "Dropped: assignments (a token and one of its experts) that found their expert full, "
            "and tokens all of whose assignments did. Load CV: of experts before any drop, mean "
            "over layers; gate entropy: over ln E. p99: time of the MoE layers of a step, over "
            "batches; front: no other router and capacity factor is better in both perplexity and "
            "that time, means over seeds, and in how many bootstrap samples of the seeds that is "
            f"so. {INTERVAL_NOTE} Bold: the least of a column.",
            columns,
        )
    ]


def _network_columns(
    network: str, rows: pd.DataFrame, points: list[tuple[str, float]]
) -> list[Column]:
    """Return the time on one network, and how surely each point is on its front."""
    times = {key: 1e3 * own["moe_p99_s"] for key, own in rows.groupby(POINT)}
    found = front(rows)
    share, best = dict(found["share"].items()), dict(found["front"].items())
    on_front = [
        f"{'yes' if best[point] else 'no'}, {100 * share[point]:.0f} %"
        if share.get(point, 0.0) > 0
        else "yes" * bool(best.get(point))
        for point in points
    ]
    return [
        mean_column(
            f"{network} p99 (ms)", [times.get(point, []) for point in points], best=True, digits=3
        ),
        text_column(f"{network} front", on_front),
    ]
