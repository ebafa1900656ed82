"""The stages of dispatch, layer by layer; each is compiled when it is first needed.

The tokens' picks within the experts' capacity, how many tokens each replica gets, the device of
every pair, and the copies that cross from device to device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import COPIES, Dispatched, DispatchSettings, ReplicaTables
from topomoe.dispatching.capacity import limit_experts
from topomoe.dispatching.dispatch_kernel import (
    count_copies,
    gather,
    least_largest,
    near_quota,
    spill_cap,
)
from topomoe.dispatching.replica_dealing import (
    apportion,
    deal_by_load,
    deal_by_quota,
    deal_by_share,
)
from topomoe.dispatching.replica_flow import device_sums, drop_slivers
from topomoe.model import expert_capacity

SLIVER = 16  # a replica with less than 1/16 of a device's load is emptied where another has room


def dispatch_layers(
    experts: NDArray[np.int16],
    positions: NDArray[np.int64],
    origin: NDArray[np.int32],
    tables: ReplicaTables,
    settings: DispatchSettings,
    row_of: NDArray[np.int64],
    seed: NDArray[np.uint64],
    shared_expert: int,
) -> Dispatched:
    """Return what one batch sends and computes, by true token counts; see ``dispatch_batch``."""
    layers, _, top_k = experts.shape
    num_experts, devices = tables.num_experts, tables.num_devices
    routed = num_experts - (shared_expert >= 0)
    copies = np.zeros((layers, devices, devices), dtype=np.float32)
    slot_load = np.zeros((layers, tables.num_slots), dtype=np.int64)
    wanted = np.zeros((layers, num_experts), dtype=np.int64)
    dropped, rerouted = np.zeros((2, layers), dtype=np.int64)
    picks = np.empty((len(positions), top_k + (shared_expert >= 0)), dtype=np.uint16)
    chosen = np.empty(picks.shape, dtype=np.int32)
    for m in range(layers):
        start, used = tables.start[m], tables.start[m, -1]
        device, share = tables.device[m, :used], tables.share[m, :used]
        count, quota = wanted[m], np.empty(used, dtype=np.int64)
        gather(experts[m], positions, shared_expert, picks, count)
        if settings.limits:
            pairs = int(count[:routed].sum())  # T * K where all tokens have K experts
            capacity = expert_capacity(settings.capacity_factor, pairs, 1, routed)
            count = count.copy()
            reroute = settings.overflow == "reroute-to-next-expert"
            dropped[m], rerouted[m] = limit_experts(picks, count, top_k, routed, capacity, reroute)
        if settings.replica_routing == "least-loaded":
            deal_by_load(picks, origin, start, device, devices, quota, chosen)
        elif settings.replica_routing in ("lp", "local-first"):
            largest = 0
            if settings.replica_routing == "lp" or np.isfinite(settings.spill):
                largest = least_largest(count, start, device, share, seed[m], devices, quota)
            if settings.replica_routing == "lp":
                load = device_sums(quota, device, devices)
                drop_slivers(largest, largest // SLIVER, quota, load, start, device)
            else:
                cap = spill_cap(largest, settings.spill)
                near_quota(picks, origin, start, device, row_of, cap, quota)
            deal_by_quota(picks, origin, start, device, row_of, quota, chosen)
        else:
            apportion(count, start, share, seed[m], quota)
            deal_by_share(picks, count, origin, start, device, quota, seed[m], chosen)
        slot_load[m, tables.slot[m, :used]] = quota
        count_copies(chosen, origin, COPIES.index(settings.copies), settings.node_size, copies[m])
    return Dispatched(copies, slot_load, wanted[:, :routed], dropped, rerouted)
