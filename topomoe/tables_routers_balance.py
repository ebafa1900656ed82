"""Tables of routers' balance: layers beside real models, balance losses, assignment changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.moe.published_loads import PUBLISHED
from topomoe.router_results import (
    ORIGINAL,
    TRAINED,
    UNIFORM,
    RouterResults,
    assignment_points,
    at_reference,
    capacities,
    capacity_text,
    layer_rows,
)
from topomoe.table_columns import Column, table_of, text_column
from topomoe.table_text import Cell, Table
from topomoe.tables_routers_columns import (
    INTERVAL_NOTE,
    UNKNOWN,
    known_column,
    mean_column,
    percent_column,
)

if TYPE_CHECKING:
    import pandas as pd

LOSS = (
    *("balance_loss", "weight", "seed", "perplexity_before", "perplexity_after"),
    *("gini_before", "gini_after"),
)


def layer_tables(results: RouterResults) -> list[Table]:
    """Return the Gini of every layer by router and real model, and a row each of their means."""
    rows = layer_rows(results)
    if rows.empty:
        return []
    return [_layer_table(rows), _balance_table(rows)]


def _layer_table(rows: pd.DataFrame) -> Table:
    trained, real = at_reference(rows[rows["source"] == TRAINED]), rows[rows["source"] != TRAINED]
    columns_of = [(name, own) for name, own in _named(trained, "router")]
    columns_of += [(name, own) for name, own in _named(real, "source")]
    layers = range(1 + int(rows["layer"].max()))
    columns: list[Column] = [text_column("layer", [*map(str, layers), "mean"], True)]
    for name, own in columns_of:
        means = own.groupby("layer")["gini"].mean().reindex(layers)
        texts = ["" if np.isnan(value) else f"{value:.3f}" for value in means]
        columns.append((name, True, [Cell(text) for text in (*texts, f"{means.mean():.3f}")]))
    factor = (
        f" Routers trained here: capacity factor "
        f"{capacity_text(trained['capacity_factor'].iloc[0])}."
        if len(trained)
        else ""
    )
    published = "; ".join(
        f"{own.model} {own.gini[0]:g}" + (f" to {own.gini[1]:g}" if np.ptp(own.gini) else "")
        for own in PUBLISHED
    )
    return table_of(
        "layers",
        "Gini coefficient of expert load by layer",
        "Before any drop, over all domains; 0 is even. Means over seeds; real models from their "
        f"captured routing.{factor} Published: {published} (means over layers, of "
        "switch-base-8 the mean and the greatest layer).",
        columns,
    )


def _balance_table(rows: pd.DataFrame) -> Table:
    trained, real = rows[rows["source"] == TRAINED], rows[rows["source"] != TRAINED]
    lines: list[tuple[str, str, pd.DataFrame]] = []
    for router, own in _named(trained, "router"):
        for factor in capacities(own):
            lines.append((router, capacity_text(factor), own[own["capacity_factor"] == factor]))
    lines += [(name, "", own) for name, own in _named(real, "source")]
    groups = [own for *_, own in lines]
    by_layer = [own.groupby("layer")["gini"].mean() for own in groups]
    columns: list[Column] = [
        text_column("router or model", [name for name, *_ in lines]),
        text_column("capacity", [factor for _, factor, _ in lines], True),
        text_column("layers", [own["layer"].nunique() for own in groups], True),
        mean_column("Gini", [_by_seed(own, "gini") for own in groups], digits=3),
        known_column("least layer", [layers.min() for layers in by_layer], 3),
        known_column("greatest layer", [layers.max() for layers in by_layer], 3),
        known_column("even at random", [own[UNIFORM].mean() for own in groups], 2),
    ]
    for header, column in (
        ("load CV", "load_cv"),
        ("max/mean", "max_over_mean"),
        ("max/min", "max_over_min"),
    ):
        if column in rows:
            values = [own[column].replace([np.inf], np.nan).mean() for own in groups]
            columns.append(known_column(header, values, 3))
    return table_of(
        "layer_balance",
        "Imbalance of trained routers and real models",
        "Of the load of experts before any drop, means over layers and seeds; least and greatest "
        "layer: of its mean Gini over seeds. Even at random: the Gini expected of a router that "
        f"picks evenly at random, on as many tokens. max/min: over layers without an idle expert. "
        f"{INTERVAL_NOTE}",
        columns,
    )


def _by_seed(rows: pd.DataFrame, column: str) -> list[float]:
    if "seed" not in rows or rows["seed"].isna().all():
        return [float(rows[column].mean())]
    return [float(mean) for mean in rows.groupby("seed")[column].mean()]


def _named(rows: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    if rows.empty:
        return []
    return [(str(name), own) for name, own in rows.groupby(column, sort=False)]


def loss_tables(results: RouterResults) -> list[Table]:
    """Return a row a balance loss and weight: Gini and perplexity before and after."""
    rows = results.rows("loss", LOSS)
    if rows.empty:
        return []
    groups = [own for _, own in rows.groupby(["balance_loss", "weight"], sort=False)]
    columns = [
        text_column("balance loss", [own["balance_loss"].iloc[0] for own in groups]),
        text_column("weight", [f"{own['weight'].iloc[0]:g}" for own in groups], True),
        text_column("seeds", [len(own) for own in groups], True),
        mean_column("Gini before", [own["gini_before"] for own in groups], digits=3),
        mean_column("Gini after", [own["gini_after"] for own in groups], best=True, digits=3),
        percent_column("its change (%)", [_change(own, "gini") for own in groups], sign=True),
        mean_column("perplexity before", [own["perplexity_before"] for own in groups]),
        mean_column("perplexity after", [own["perplexity_after"] for own in groups], best=True),
        percent_column("change (%)", [_change(own, "perplexity") for own in groups], sign=True),
    ]
    return [
        table_of(
            "losses",
            "Balance losses",
            "Fine-tuning with each balance loss; none is as much fine-tuning without one. Gini of "
            "the load of experts before any drop, mean over layers, and perplexity, both on "
            f"held-out text. Changes are of each seed. {INTERVAL_NOTE} Bold: the least of a "
            "column.",
            columns,
        )
    ]


def _change(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    return rows[f"{name}_after"] / rows[f"{name}_before"] - 1


def assignment_tables(results: RouterResults) -> list[Table]:
    """Return a row a router and assignment: true perplexity, balance, and time on each network."""
    points = assignment_points(results)
    if points.empty:
        return []
    keys = list(dict.fromkeys(zip(points["router"], points["assignment"], strict=True)))
    found = dict(iter(points.groupby(["router", "assignment", "network"])))
    all_networks = list(dict.fromkeys(points["network"]))
    groups = [found[*key, all_networks[0]] for key in keys]
    columns = [
        text_column("router", [router for router, _ in keys]),
        text_column("assignment", [assignment for _, assignment in keys]),
        text_column("seeds", [len(own) for own in groups], True),
        mean_column("perplexity", [own["perplexity"] for own in groups]),
        _but_original(
            keys,
            percent_column(
                "change (%)",
                [own["perplexity"] / own["original_perplexity"] - 1 for own in groups],
                sign=True,
            ),
        ),
    ]
    for header, column in (("load CV", "load_cv"), ("Gini", "gini")):
        if column in points:
            columns.append(mean_column(header, [own[column] for own in groups], places=3))
    for network in all_networks:
        own = [found.get((*key, network), points[:0]) for key in keys]
        times = [1e3 * rows["moe_p99_s"] for rows in own]
        saved = [1e3 * (rows["original_p99_s"] - rows["moe_p99_s"]) for rows in own]
        columns += [
            mean_column(f"{network} p99 (ms)", times, digits=3),
            _but_original(
                keys, mean_column(f"{network} saved (ms)", saved, sign=True, digits=3, beside=times)
            ),
            _but_original(
                keys,
                percent_column(
                    f"{network} saved (%)",
                    [1 - rows["moe_p99_s"] / rows["original_p99_s"] for rows in own],
                    sign=True,
                ),
            ),
        ]
    return [
        table_of(
            "assignments",
            "Assignment changes at inference",
            "Perplexity as measured on held-out text with the tokens assigned so; change against "
            "the router's original assignment, of each seed. p99: time of the MoE layers of a "
            "step; saved: less than the original's, below 0 it takes longer. Load CV and Gini: of "
            f"experts before any drop, mean over layers. {INTERVAL_NOTE}",
            columns,
        )
    ]


def _but_original(keys: list[tuple[str, str]], column: Column) -> Column:
    header, numeric, cells = column
    texts = [
        Cell("") if assignment == ORIGINAL and cell.text != UNKNOWN else cell
        for (_, assignment), cell in zip(keys, cells, strict=True)
    ]
    return header, numeric, texts
