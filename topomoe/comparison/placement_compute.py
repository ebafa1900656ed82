"""What each placement method takes to compute a batch, by batch size.

Batches are drawn from the loads, each token's pairs independently: the best case for balance, as
tokens of a request like the same experts. ``topomoe simulate`` runs batches of a trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.compute import device_seconds
from topomoe.demand import replica_tables
from topomoe.model import Device, MoEModel, device_preset, model_preset
from topomoe.placement import Placement, PlacementOptions, place
from topomoe.placement.apportion import active_replicas
from topomoe.placement.timing.time_bounds import expected_seconds, expected_tokens, time_lower_bound

if TYPE_CHECKING:
    import pandas as pd

BY_BATCH_SIZE = ("exact-time",)  # methods that are placed anew for each batch size


def compute_rows(
    load: ArrayLike,
    devices: int,
    slots: int,
    methods: Sequence[str],
    tokens: Sequence[int] = (1024, 4096, 16384, 65536),
    model: str | MoEModel = "deepseek-v3",
    device: str | Device = "h100",
    batches: int = 32,
    seed: int = 0,
    options: PlacementOptions | None = None,
    served: ArrayLike | None = None,
    placements: Mapping[str, Placement] | None = None,
) -> pd.DataFrame:
    """Return a row for each method and batch size: the routed experts' seconds on the worst device.

    Columns: method, batch_tokens (over all devices), compute_s (mean over ``batches`` sampled
    batches and all layers of the worst device's seconds), compute_p99_s, nominal_s (the same for
    the expected tokens), bound_s (of ``time_lower_bound``), active_slots (with a share, a layer)
    and shared_replicas (of the shared expert, where it is routed, else 0). Replicas are used by
    share. ``load`` [M, E] or [M, E+1] is what is placed on; batches are drawn from ``served``,
    ``load`` by default, in the same unit. ``placements`` are those of methods already run, which
    are not run again unless they depend on the batch size.

    All methods run the same batches. A local shared expert, the same for all, is left out.
    """
    import pandas as pd

    shape, accelerator = model_preset(model), device_preset(device)
    loads = np.atleast_2d(np.asarray(load, dtype=np.float64))
    drawn = loads if served is None else np.atleast_2d(np.asarray(served, dtype=np.float64))
    given = options or PlacementOptions()
    routed = loads.shape[1] - shape.num_experts
    rows = []
    made = dict(placements or {})
    for batch in tokens:
        counts = sampled_counts(drawn, shape, batch, batches, np.random.default_rng(seed))
        bound = time_lower_bound(drawn, devices, slots, shape, accelerator, batch)
        for method in methods:
            if method in BY_BATCH_SIZE or method not in made:
                sized = replace(
                    given,
                    batch_tokens=int(batch),
                    device=accelerator.name,
                    timed_model=shape.name,
                )
                made[method] = place(loads, devices, slots, method, seed=seed, options=sized)
            placement = made[method]
            worst = batch_seconds(placement, counts, shape, accelerator, seed).max(axis=2)
            nominal = expected_seconds(placement, drawn, shape, accelerator, batch).max(axis=1)
            active = active_replicas(placement)
            rows.append(
                {
                    "method": method,
                    "batch_tokens": int(batch),
                    "compute_s": float(worst.mean()),
                    "compute_p99_s": float(np.percentile(worst, 99)),
                    "nominal_s": float(nominal.mean()),
                    "bound_s": float(bound.mean()),
                    "active_slots": float(active.sum(axis=1).mean()),
                    "shared_replicas": float(active[:, -1].mean()) if routed else 0.0,
                }
            )
    return pd.DataFrame(rows)


def sampled_counts(
    load: NDArray[np.float64],
    model: MoEModel,
    batch_tokens: int,
    batches: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return token counts [B, M, E] of sampled batches; a routed shared expert gets every token."""
    expected = expected_tokens(load, model, batch_tokens)
    routed = expected[:, : model.num_experts]
    counts = np.rint(np.broadcast_to(expected, (batches, *expected.shape))).astype(np.int64)
    for layer, row in enumerate(routed / routed.sum(axis=1, keepdims=True)):
        drawn = rng.multinomial(batch_tokens * model.top_k, row, size=batches)
        counts[:, layer, : model.num_experts] = drawn
    return counts


def batch_seconds(
    placement: Placement,
    counts: NDArray[np.int64],
    model: MoEModel,
    device: Device,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the seconds [B, M, N] of each device's routed experts for ``counts`` [B, M, E].

    Each expert's tokens are apportioned to its replicas in whole numbers by share, as in dispatch.
    """
    from topomoe.dispatching.replica_dealing import apportion

    tables = replica_tables(placement, "weighted")
    keys = np.random.default_rng(seed).integers(2**63, size=counts.shape[:2]).astype(np.uint64)
    slot_load = np.zeros((*counts.shape[:2], placement.num_slots), dtype=np.int64)
    quota = np.empty(placement.num_slots, dtype=np.int64)
    for m in range(placement.num_layers):
        used = tables.start[m, -1]
        for b in range(len(counts)):
            apportion(counts[b, m], tables.start[m], tables.share[m], keys[b, m], quota)
            slot_load[b, m, tables.slot[m, :used]] = quota[:used]
    return device_seconds(
        slot_load,
        np.zeros(placement.num_devices, dtype=np.int64),
        placement.num_devices,
        model,
        device,
        shared_routed=True,
    )
