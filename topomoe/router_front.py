"""Routers' points of quality and time, which of them are on the front, and how they rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from topomoe.moe.pareto import front_rows, undominated
from topomoe.moe.ranking import document_losses
from topomoe.router_results import (
    NOT_CAUSAL,
    PERPLEXITY,
    POINT,
    RouterResults,
    comparable,
    networks,
)

if TYPE_CHECKING:
    import pandas as pd

    from topomoe.moe.ranking import FloatArray

DOCUMENT = ("router", "capacity_factor", "seed", "request", "loss", "tokens")
CAUSAL_LOSS = "causal_loss"


def pareto_points(quality: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Return a row a router, capacity factor, seed and network: both perplexities and moe_p99_s."""
    import pandas as pd

    sides = comparable(quality)[[*POINT, "seed", "perplexity", PERPLEXITY]]
    tables = []
    for network, own in networks(steps).items():
        time = own.groupby([*POINT, "seed"], sort=False)["moe_p99_s"].mean().reset_index()
        tables.append(sides.merge(time, on=[*POINT, "seed"]).assign(network=network))
    return pd.concat(tables, ignore_index=True)


def front(points: pd.DataFrame) -> pd.DataFrame:
    """Return, by router and capacity factor of one network, whether its mean is on the front.

    Columns ``front``, of means over seeds of the loss and of the time, and ``share``, in how many
    bootstrap samples of the seeds it is (NaN where points lack a seed). A point whose perplexity
    compares with none (``comparable``) is on no front.
    """
    import pandas as pd

    known = points.dropna(subset=[PERPLEXITY])
    loss, seconds = (
        known.assign(loss=np.log(known[PERPLEXITY])).pivot_table(
            index=POINT, columns="seed", values=column, sort=False
        )
        for column in ("loss", "moe_p99_s")
    )
    found = pd.DataFrame({"front": False, "share": np.nan}, index=loss.index)
    if len(found):
        found["front"] = undominated(loss.mean(axis=1).to_numpy(), seconds.mean(axis=1).to_numpy())
        if not (loss.isna().any(axis=None) or seconds.isna().any(axis=None)):
            names = [str(place) for place in range(len(loss))]
            for row in front_rows(names, loss.to_numpy(), seconds.to_numpy()):
                found.iloc[int(row["name"]), 1] = row["front_share"]
    every = pd.MultiIndex.from_frame(points[POINT].drop_duplicates())
    return found.reindex(every).fillna({"front": False}).astype({"front": bool})


def losses_by_capacity(
    results: RouterResults,
) -> dict[float, tuple[tuple[str, ...], FloatArray, FloatArray]]:
    """Return, by capacity factor, router names [R], losses [R, S, Q] and tokens [S, Q].

    A router that sees later tokens takes part by its loss without them (column causal_loss), and
    not at all where that is not known. Raises InputError where a request is missing or twice there.
    """
    rows = results.rows("document", DOCUMENT, "pareto")
    if rows.empty:
        return {}
    loss = rows["loss"].mask(rows["router"].isin(NOT_CAUSAL))
    if CAUSAL_LOSS in rows:
        loss = rows[CAUSAL_LOSS].fillna(loss)
    rows = rows.assign(loss=loss).dropna(subset=["loss"])
    found: dict[float, Any] = {}
    for factor, own in rows.groupby("capacity_factor"):
        found[float(str(factor))] = document_losses(own)
    return found


def reference_of(
    by_capacity: Mapping[float, tuple[tuple[str, ...], FloatArray, FloatArray]],
) -> float:
    """Return the capacity factor that most routers have, of those the largest, of these losses."""
    most = max(len(names) for names, *_ in by_capacity.values())
    having = [factor for factor, (names, *_) in by_capacity.items() if len(names) == most]
    return max(having, key=lambda factor: (factor == 0, factor))


def size_losses(ranked: pd.DataFrame) -> tuple[list[str], dict[int, FloatArray]]:
    """Return routers there are at all numbers of experts, and their losses [R, S] by that number.

    ``ranked`` has the comparable perplexity by router, experts and seed; a router that lacks one is
    left out.
    """
    table = ranked.assign(loss=np.log(ranked[PERPLEXITY])).pivot_table(
        index="router", columns=["experts", "seed"], values="loss", sort=True
    )
    table = table.dropna(axis=0)
    experts = table.columns.get_level_values("experts")
    return [str(name) for name in table.index], {
        int(count): table.loc[:, experts == count].to_numpy() for count in experts.unique()
    }
