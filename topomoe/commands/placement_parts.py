"""The parts of ``topomoe placements`` beside the table of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.placement import Placement, place

if TYPE_CHECKING:
    import pandas as pd

    from topomoe.commands.placements import PlacementsInput, Progress
    from topomoe.place_settings import PlacementsSettings
    from topomoe.routing_trace import RoutingTrace

MOVES = (0, 1, 2, 4, 8, 16, 32, 64, -1)  # copies a layer; -1: any number
BLIND = ("contiguous", "random", "round-robin")  # look at no load
COMPUTE_BATCHES, FRONT_BATCHES = 16, 8
MOST_BATCHES, LEAST_BATCHES, BATCH_TOKENS = 64, 8, 8192  # fewer batches of more tokens a device


def place_by(
    settings: PlacementsSettings,
    given: PlacementsInput,
    method: str,
    previous: Placement,
    trace: RoutingTrace | None = None,
    **changed: Any,
) -> Placement:
    """Return a method's placement of ``trace``, the training requests by default.

    ``changed`` are the options that differ from the settings'.
    """
    return place(
        given.train if trace is None else trace,
        given.devices,
        given.slots,
        method=method,
        grid=given.grid,
        seed=settings.seed,
        previous=previous,
        options=replace(settings.placement_options(), **changed),
    )


def compute_part(
    settings: PlacementsSettings,
    given: PlacementsInput,
    placements: Mapping[str, Placement],
    incumbent: Placement,
    progress: Progress,
) -> pd.DataFrame:
    """Return expert seconds by method and batch size, of batches from either part's loads."""
    import pandas as pd

    from topomoe.comparison.placement_compute import compute_rows

    frames = []
    parts = {"training": given.train.load(), "held-out": given.test.load()}
    for number, (name, served) in enumerate(parts.items()):
        rows = compute_rows(
            given.train.load(),
            given.devices,
            given.slots,
            settings.methods,
            settings.tokens,
            given.model,
            settings.step.device,
            batches=COMPUTE_BATCHES,
            seed=settings.seed,
            options=settings.placement_options(),
            served=served,
            placements=placements,
        )
        frames.append(rows.assign(served=name))
        progress("compute", number + 1, len(parts))
    return pd.concat(frames, ignore_index=True)


def batch_part(
    settings: PlacementsSettings,
    given: PlacementsInput,
    placements: Mapping[str, Placement],
    incumbent: Placement,
    progress: Progress,
) -> pd.DataFrame:
    """Return the balance of single batches by placement, replica routing and batch size."""
    import pandas as pd

    from topomoe.comparison.batch_balance import batch_balance_rows

    layers = np.unique(
        np.linspace(0, given.train.num_layers - 1, settings.batch_layers).astype(int)
    )
    chosen = {}
    for method in settings.batch_methods:
        made = placements.get(method) or place_by(settings, given, method, incumbent)
        chosen[method] = Placement(
            made.slot_expert[layers], made.slot_share[layers], made.num_devices, made.num_experts
        )
    frames = []
    for number, size in enumerate(settings.device_tokens):
        frames.append(
            batch_balance_rows(
                chosen,
                load=given.train.load()[layers],
                trace=given.test.filter(layers=layers.tolist()),
                tokens_per_device=(size,),
                batches=int(np.clip(BATCH_TOKENS // size, LEAST_BATCHES, MOST_BATCHES)),
                top_k=given.train.usual_top_k,
                seed=settings.seed,
                columns=given.grid[1],
                spill=settings.dispatch.spill,
            )
        )
        progress("batches", number + 1, len(settings.device_tokens))
    return pd.concat(frames, ignore_index=True)


def front_part(
    settings: PlacementsSettings,
    given: PlacementsInput,
    placements: Mapping[str, Placement],
    incumbent: Placement,
    progress: Progress,
) -> pd.DataFrame:
    """Return balance, bytes between rows and migration of candidates, and which are undominated."""
    from topomoe.comparison.placement_front import candidates, front_rows

    options = settings.placement_options()
    tried = [
        replace(
            candidate,
            options=replace(
                options,
                least_balancedness=candidate.options.least_balancedness,
                moves=candidate.options.moves,
            ),
        )
        for candidate in candidates()
    ]
    progress("front", 0, 1)
    rows = front_rows(
        given.train,
        given.test,
        given.grid,
        given.slots,
        given.model,
        tried,
        batches=min(settings.workload.batches, FRONT_BATCHES),
        batch_tokens=settings.workload.batch_tokens,
        origins=options.origins,
        copies=settings.dispatch.copies,
        topology=options.topology,
        bandwidth=settings.bandwidth,
        device=settings.step.device,
        seed=settings.seed,
        previous=incumbent,
    )
    progress("front", 1, 1)
    return rows


def shift_part(
    settings: PlacementsSettings,
    given: PlacementsInput,
    placements: Mapping[str, Placement],
    incumbent: Placement,
    progress: Progress,
) -> pd.DataFrame:
    """Return balance on each domain, or synthetic workload, that a placement was not made from."""
    import pandas as pd

    from topomoe.comparison.load_shift import DEFAULT_METHODS, leave_one_out_rows

    loads, names = shift_loads(settings, given)
    frames = []
    for number, method in enumerate(DEFAULT_METHODS):
        frames.append(
            leave_one_out_rows(
                loads, names, given.devices, given.slots, (method,), seed=settings.seed
            )
        )
        progress("shift", number + 1, len(DEFAULT_METHODS))
    return pd.concat(frames, ignore_index=True)


def shift_loads(
    settings: PlacementsSettings, given: PlacementsInput
) -> tuple[NDArray[np.float64], list[str]]:
    """Return loads [D, M, E] to leave out one by one: of the trace's domains, else synthetic."""
    if not settings.trace:
        from topomoe.synthetic_domains import calibrated_domain_loads

        made = calibrated_domain_loads(given.model.name, settings.shift_workloads, settings.seed)
        return made, [f"workload {number}" for number in range(len(made))]
    loads = given.train.domain_load() + given.test.domain_load()
    served: NDArray[np.bool_] = np.asarray(loads.sum(axis=2).min(axis=1) > 0)
    names = [
        name for name, is_served in zip(given.train.domain_names, served, strict=True) if is_served
    ]
    return loads[served], names


def moves_part(
    settings: PlacementsSettings,
    given: PlacementsInput,
    placements: Mapping[str, Placement],
    incumbent: Placement,
    progress: Progress,
) -> pd.DataFrame:
    """Return balance by the copies that may move, from the incumbent; and of placing anew."""
    import pandas as pd

    from topomoe.placement.shift.rebalance import relabelled

    layers = given.train.num_layers
    rows = []

    def score(name: str, placement: Placement, limit: float) -> None:
        moved = int(placement.migration_slots(incumbent).sum())
        row = {"candidate": name, "most_moves": limit, "copies_a_layer": moved / layers}
        row["migration_bytes"] = moved * given.model.expert_weight_bytes
        for part, load in (("train", given.train.load()), ("test", given.test.load())):
            worst = 1.0 / placement.balancedness(load)
            row[f"{part}_max_over_mean"] = float(worst.mean())
            row[f"{part}_max_over_mean_worst"] = float(worst.max())
        rows.append(row)

    score("stay", incumbent, 0)
    for number, limit in enumerate(MOVES):
        made = place_by(settings, given, "rebalance", incumbent, moves=limit)
        score("rebalance", made, limit if limit >= 0 else np.inf)
        progress("moves", number + 1, len(MOVES))
    for method, made in placements.items():
        if method not in (*BLIND, "rebalance"):
            # Which device holds a group of experts matters to those that look at the grid alone.
            anew = made if method in ("locality", "genetic") else relabelled(made, incumbent)
            score(method, anew, np.inf)
    return pd.DataFrame(rows)


PARTS: Mapping[str, Callable[..., pd.DataFrame]] = {
    "compute": compute_part,
    "batch": batch_part,
    "front": front_part,
    "shift": shift_part,
    "moves": moves_part,
}
