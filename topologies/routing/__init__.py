"""Routing policies by name; each is one file of this folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.routing.circuit import circuit_direct, circuit_relay, hybrid
from topomoe.topologies.routing.d_mod_k import d_mod_k
from topomoe.topologies.routing.dimension_order import dimension_order
from topomoe.topologies.routing.ecmp import ecmp
from topomoe.topologies.routing.ecmp_hash import ecmp_hash
from topomoe.topologies.routing.o1turn import o1turn
from topomoe.topologies.routing.optimal import optimal
from topomoe.topologies.routing.pxn import pxn
from topomoe.topologies.routing.routing import Routing, check_reachable
from topomoe.topologies.routing.shortest import shortest
from topomoe.topologies.routing.ugal import ugal
from topomoe.topologies.routing.valiant import valiant
from topomoe.topologies.topology import FloatArray, Topology

POLICIES: Mapping[str, Callable[..., Routing]] = {
    "dimension-order": dimension_order,
    "o1turn": o1turn,
    "valiant": valiant,
    "ugal": ugal,
    "ecmp": ecmp,
    "ecmp-hash": ecmp_hash,
    "d-mod-k": d_mod_k,
    "shortest": shortest,
    "optimal": optimal,
    "circuit-relay": circuit_relay,
    "circuit-direct": circuit_direct,
    "hybrid": hybrid,
    "pxn": pxn,
}


def policies() -> tuple[str, ...]:
    """Return the names that ``route`` knows."""
    return tuple(POLICIES)


def is_fitted(policy: str) -> bool:
    """Return whether the policy makes its splits for a demand."""
    return policy in POLICIES and "demand" in inspect.signature(POLICIES[policy]).parameters


def route_for(topology: Topology, policy: str, demand: FloatArray | None, seed: int) -> Routing:
    """Return ``route`` with the demand [N, N] bytes or the seed where the policy takes one."""
    given: Mapping[str, Any] = {"demand": demand, "seed": seed}
    taken = inspect.signature(POLICIES[policy]).parameters if policy in POLICIES else ()
    return route(topology, policy, **{name: given[name] for name in given if name in taken})


def route(topology: Topology, policy: str | None = None, **options: Any) -> Routing:
    """Return the routing of that policy over the topology; None takes the topology's default.

    Options: ``dimension-order(tie="balanced" | "plus", first="rows" | "columns")``,
    ``o1turn(tie=)``, ``valiant(base=)``, ``ugal(demand=, base=, iterations=)``,
    ``optimal(demand=)``, ``ecmp-hash(seed=)``, ``hybrid(base_fraction=)``. Raises InputError for an
    unknown policy or option, a policy that the topology does not suit, and pairs of devices without
    a path.

    >>> from topomoe import topologies
    >>> torus = topologies.make("torus", grid=(16, 8))
    >>> print(round(topologies.route(torus, "dimension-order").hops.sum() / (128 * 127), 6))
    6.047244
    """
    name = topology.default_routing if policy is None else policy
    if name not in POLICIES:
        raise unknown("routing", name, POLICIES)
    parameters = list(inspect.signature(POLICIES[name]).parameters.values())[1:]
    allowed = [parameter.name for parameter in parameters]
    for option in options:
        if option not in allowed:
            raise unknown(f"option of {name}", option, allowed or ["none"])
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise InputError(f"{name} needs {parameter.name}=, none given")
    return check_reachable(POLICIES[name](topology, **options))
