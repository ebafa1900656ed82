"""What placements are worth on loads that they were not made for, and what moving copies buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from topomoe.model import MoEModel, model_preset
from topomoe.placement import Placement, PlacementOptions, place
from topomoe.topologies.checked import numbers
from topomoe.topologies.errors import InputError, unknown

if TYPE_CHECKING:
    import pandas as pd


# name: (placement method, what it is given, its objective)
METHODS: Mapping[str, tuple[str, str, str]] = {
    "eplb on the mean": ("eplb", "mean", "shift"),
    "eplb on the maximum": ("eplb", "max", "shift"),
    "exact on the mean": ("exact", "mean", "shift"),
    "robust mixes": ("robust", "all", "mixes"),
    "robust shift": ("robust", "all", "shift"),
    "robust batch": ("robust", "all", "batch"),
    "hindsight": ("exact", "left out", "shift"),
} | {
    f"robust {objective}": ("robust", "all", objective)
    for objective in ("mean", "max", "regret", "cvar", "deviation")
}
DEFAULT_METHODS = tuple(METHODS)[:7]


def leave_one_out_rows(
    loads: ArrayLike,
    names: Sequence[str],
    devices: int,
    slots: int,
    methods: Sequence[str] = DEFAULT_METHODS,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a row for each load left out, method and routing.

    ``loads`` [D, M, E] with D >= 2 named by ``names``; each layer is scaled to mean 1. A placement
    is made from the other loads ("hindsight": from the one left out) and serves the one left out.
    Routing "static" keeps the placement's shares; "per batch" finds the best shares on its slots
    for the load served. Columns: left_out, method, routing, max_over_mean (mean of the layers),
    worst_layer. Raises InputError for shapes that do not fit and for an unknown method.
    """
    import pandas as pd

    from topomoe.placement.shift.share_program import best_shares

    given = numbers(loads, "loads")
    if given.ndim != 3 or len(given) < 2 or len(names) != len(given):
        raise InputError(
            f"loads must be [D, M, E] with D >= 2 and a name each, got shape {given.shape} "
            f"and {len(names)} names"
        )
    for method in methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    given = given / np.maximum(given.mean(axis=2, keepdims=True), 1e-300)
    mean = given.shape[2] / devices
    rows = []
    for left_out, name in enumerate(names):
        others = np.delete(given, left_out, axis=0)
        served = given[left_out]
        sources = {
            "mean": others.mean(axis=0),
            "max": others.max(axis=0),
            "all": others,
            "left out": served,
        }
        for method in methods:
            how, source, objective = METHODS[method]
            placement = place(
                sources[source],
                devices,
                slots,
                method=how,
                seed=seed,
                options=PlacementOptions(objective=objective),
            )
            static = placement.device_load(served).max(axis=1) / mean
            anew = best_shares(placement.slot_expert, served[None], devices).value / mean
            for routing, ratio in (("static", static), ("per batch", anew)):
                rows.append((name, method, routing, float(ratio.mean()), float(ratio.max())))
    columns = ["left_out", "method", "routing", "max_over_mean", "worst_layer"]
    return pd.DataFrame(rows, columns=columns)


def leave_one_out_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, for each method and routing, the mean, the worst load and the worst layer of any."""
    grouped = rows.groupby(["method", "routing"], sort=False)
    return grouped.agg(
        mean=("max_over_mean", "mean"),
        worst_load=("max_over_mean", "max"),
        worst_layer=("worst_layer", "max"),
    ).reset_index()


def rebalance_rows(
    previous: Placement,
    load: ArrayLike,
    moves: Sequence[int] = (0, 1, 2, 4, 8),
    model: str | MoEModel = "deepseek-v3",
    fresh: Sequence[str] = ("eplb", "exact"),
) -> pd.DataFrame:
    """Return balance against copies moved, from ``previous`` to ``load`` [M, E].

    A row for each number of ``moves`` a layer (-1: any), for the placement as it was ("as served")
    and for each method of ``fresh`` made anew, on the devices where it moves the fewest copies.
    Columns: method, moves (allowed), copies (new, of all layers), most_copies (of a layer), bytes
    (copies times an expert's weights), max_over_mean, worst_layer.
    """
    import pandas as pd

    from topomoe.placement.shift.rebalance import relabelled

    rows = numbers(load, "load").reshape(previous.num_layers, -1)
    devices, slots = previous.num_devices, previous.num_slots
    expert_bytes = model_preset(model).expert_weight_bytes
    made = [("as served", 0, previous)]
    for limit in moves:
        options = PlacementOptions(moves=limit)
        placement = place(
            rows, devices, slots, method="rebalance", previous=previous, options=options
        )
        made.append(("rebalance", limit, placement))
    for method in fresh:
        placement = place(rows, devices, slots, method=method)
        made.append((f"{method} afresh", -1, relabelled(placement, previous)))
    found = []
    for name, limit, placement in made:
        copies = placement.migration_slots(previous).sum(axis=1)
        ratio = 1 / placement.balancedness(rows)
        found.append(
            (
                name,
                limit,
                int(copies.sum()),
                int(copies.max()),
                float(copies.sum() * expert_bytes),
                float(ratio.mean()),
                float(ratio.max()),
            )
        )
    columns = ["method", "moves", "copies", "most_copies", "bytes", "max_over_mean", "worst_layer"]
    return pd.DataFrame(found, columns=columns)
