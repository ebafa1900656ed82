"""UGAL at flow level: each pair split between its minimal route and Valiant's, for one demand.

Singh, "Load-balanced routing in interconnection networks" (2005) and Kim et al., "Technology-
driven, highly-scalable dragonfly topology" (ISCA 2008) send a packet over an intermediate where the
queues on the way, times hops, are shorter. In the fluid limit each pair moves towards the route of
the lower price, a link's price growing with its load, until no pair gains.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from topomoe.topologies.checked import numbers, whole
from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.mixture import MixtureRouting
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.routing.valiant import valiant
from topomoe.topologies.topology import FloatArray, Topology

_LEAST = 1e-9  # smaller shares are the search's rounding


def ugal(
    topology: Topology, demand: Any, base: str | None = None, iterations: int = 200
) -> MixtureRouting:
    """Return the split for ``demand`` [N, N] bytes; it carries any other demand too.

    ``base`` is the minimal routing, by default the topology's. Starts from the best split that is
    the same for all pairs, so that the busiest link is never busier than under either; each of at
    most ``iterations`` steps moves all pairs towards their cheaper route (see ``_steps``), and the
    best split met is kept. Deadlock-free with Valiant's virtual channels: a minimal route is a
    second phase alone. Raises InputError for a demand of another shape, negative or not finite.
    """
    amount = _checked(topology, demand)
    steps = whole(iterations, "ugal: iterations", least=0)
    spread = valiant(topology, base)
    minimal = spread.base
    share = _steps(minimal, spread, amount, steps)
    # What the search leaves of a route it gave up is no traffic, but the pair would wait for it.
    share = np.where(share < _LEAST, 0.0, np.where(share > 1.0 - _LEAST, 1.0, share))
    return MixtureRouting("ugal", [(minimal, share), (spread, 1.0 - share)])


def _checked(topology: Topology, demand: Any) -> FloatArray:
    amount = numbers(demand, "ugal: demand").copy()
    devices = topology.num_devices
    if amount.shape != (devices, devices):
        raise InputError(
            f"ugal: demand must have shape [{devices}, {devices}] on {topology.name}, "
            f"got {list(amount.shape)}"
        )
    if not (np.isfinite(amount).all() and (amount >= 0).all()):
        raise InputError("ugal: demand must be finite and >= 0 bytes")
    np.fill_diagonal(amount, 0)
    return amount


def _steps(minimal: Routing, spread: Routing, demand: FloatArray, steps: int) -> FloatArray:
    """Return the minimal route's share of each pair, [N, N].

    Frank and Wolfe's steps on the soft maximum of the links' busy times: a link's price is the soft
    maximum's slope, a route's price the sum over its links, and the step is as long as the soft
    maximum falls. It sharpens from step to step. Ends once the busiest link is within .5 % of what
    the prices prove to be the least of any split.
    """
    capacity = minimal.topology.capacity

    def use_of(routing: Routing, share: FloatArray) -> FloatArray:
        return np.asarray(routing.link_load((demand * share)[None])[0] / capacity)

    whole_share = np.ones(demand.shape)
    direct, detour = use_of(minimal, whole_share), use_of(spread, whole_share)
    level = _best_level(direct, detour)
    share = np.full(demand.shape, level)
    use = level * direct + (1.0 - level) * detour
    best, best_share = float(use.max()), share
    bound = 0.0
    for step in range(steps):
        if best <= bound * 1.005:
            break
        sharpness = min(20.0 * 2.0 ** (step // 10), 2000.0) / use.max()
        price = np.exp(sharpness * (use - use.max()))
        per_byte = price / (capacity * price.sum())
        on_minimal, on_spread = minimal.path_sum(per_byte), spread.path_sum(per_byte)
        bound = max(bound, float((demand * np.minimum(on_minimal, on_spread)).sum()))
        cheaper = (on_minimal <= on_spread).astype(np.float64)
        change = use_of(minimal, cheaper) + use_of(spread, 1.0 - cheaper) - use
        part = _step_length(use, change, sharpness)
        use, share = use + part * change, share + part * (cheaper - share)
        if use.max() < best * (1.0 - 1e-9):  # not for a rounding error: detours take hops
            best, best_share = float(use.max()), share
    return best_share


def _step_length(use: FloatArray, change: FloatArray, sharpness: float) -> float:
    """Return the part of ``change`` in 0..1 at which the soft maximum is least, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(30):
        part = (low + high) / 2
        moved = use + part * change
        rises = float((np.exp(sharpness * (moved - moved.max())) * change).sum()) > 0
        low, high = (low, part) if rises else (part, high)
    return (low + high) / 2


def _best_level(direct: FloatArray, detour: FloatArray) -> float:
    """Return the share a in 0..1 with the least max(a * direct + (1-a) * detour), the largest."""
    low, high = 0.0, 1.0
    for _ in range(60):  # a convex function of a: thirds close in on its least
        left, right = low + (high - low) / 3, high - (high - low) / 3
        at_left = (left * direct + (1 - left) * detour).max()
        at_right = (right * direct + (1 - right) * detour).max()
        low, high = (left, high) if at_right <= at_left else (low, right)
    levels = (1.0, high, 0.0)
    return min(levels, key=lambda a: float((a * direct + (1 - a) * detour).max()))
