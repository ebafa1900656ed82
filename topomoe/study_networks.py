"""The networks of a study: every topology at the budget, under its default and other routings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from topomoe.clustering.home_rows import rows_for
from topomoe.inputs import check_circuits, placement_source, scale_note, topology_at_budget
from topomoe.model import MoEModel
from topomoe.placement import place
from topomoe.routed_network import Routings
from topomoe.simulation import simulate_networks
from topomoe.step import FloatArray
from topomoe.study_settings import StudySettings
from topomoe.topologies.errors import InputError
from topomoe.topologies.matching import METHODS
from topomoe.topologies.routing import POLICIES, is_fitted, route, route_for
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology
from topomoe.trace import RoutingTrace

TRAINING_BATCHES = 32  # behind the training demand that routings and circuits are fitted to


@dataclass(frozen=True, eq=False)
class StudyNetwork:
    """One topology under one routing, or one for dispatch and one for combine."""

    name: str
    topology: Topology
    routing: Routings

    @property
    def routing_name(self) -> str:
        """Name of the policy."""
        return self.parts[0].name

    @property
    def parts(self) -> tuple[Routing, Routing]:
        """The routing of dispatch and that of combine."""
        if isinstance(self.routing, tuple):
            return self.routing
        used = route(self.topology) if self.routing is None else self.routing
        return used, used


def build_networks(
    settings: StudySettings,
    grid: tuple[int, int],
    train: RoutingTrace,
    model: MoEModel,
    slots: int,
) -> tuple[tuple[StudyNetwork, ...], tuple[StudyNetwork, ...], tuple[str, ...]]:
    """Return the topologies under their defaults, under other routings, and notes on them.

    Routings that know a demand (``optimal``, ``ugal``) are fitted to the mean demand of training
    batches with the study's last placement, dispatch and combine apart; circuits that are chosen
    for a demand are chosen for the same, both ways together. Raises InputError for an unknown
    policy or topology, and where a topology does not fit the budget or the grid.
    """
    for policy in settings.routings:
        if policy not in POLICIES and policy != "none":
            route(topology_at_budget(settings, settings.topologies[0], grid), policy)
    demand: tuple[FloatArray, FloatArray] | None = None
    notes: tuple[str, ...] = ()
    chosen = settings.circuits in METHODS and "optical" in settings.topologies
    check_circuits(settings.circuits, grid, chosen=True)
    fitted = [policy for policy in settings.routings if is_fitted(policy)]
    if chosen or fitted:
        demand = training_demand(settings, grid, train, model, slots)
        made = [*fitted, settings.circuits] if chosen else fitted
        notes += (
            f"{', '.join(made)}: made for the mean demand of training requests placed by "
            f"{settings.placements[-1]}, scored on held-out ones",
        )
    usual, others = [], []
    unsuited: dict[str, list[str]] = {}
    for name in settings.topologies:
        wanted = demand[0] + demand[1] if chosen and demand is not None else None
        topology = topology_at_budget(settings, name, grid, wanted)
        notes += scale_note(settings, topology)
        default = route(topology)
        usual.append(StudyNetwork(name, topology, default))
        for policy in settings.routings:
            if policy != "none" and not default.name.startswith(policy + "-"):
                try:
                    routing = _route(topology, policy, settings.seed, demand)
                except InputError:
                    unsuited.setdefault(policy, []).append(name)
                    continue
                other = StudyNetwork(name, topology, routing)
                if other.routing_name != default.name:
                    others.append(other)
    notes += tuple(
        f"{policy} is left out where it does not suit: {', '.join(names)}"
        for policy, names in unsuited.items()
    )
    return tuple(usual), tuple(others), notes


def training_demand(
    settings: StudySettings,
    grid: tuple[int, int],
    train: RoutingTrace,
    model: MoEModel,
    slots: int,
) -> tuple[FloatArray, FloatArray]:
    """Return the mean bytes [N, N] of a layer's dispatch and combine on training requests."""
    placement = place(
        placement_source(train, settings.shared_expert),
        devices=grid[0] * grid[1],
        slots=slots,
        method=settings.placements[-1],
        grid=grid,
        seed=settings.seed,
        options=settings.placement_options(),
    )
    any_network = topology_at_budget(settings, "leaf-spine", grid)
    result = simulate_networks(
        train,
        [(any_network, None)],
        placement,
        model,
        replace(settings.workload, batches=min(settings.workload.batches, TRAINING_BATCHES)),
        replace(settings.dispatch, replica_routing=settings.replica_routings[0]),
        replace(settings.step, fidelity="bottleneck"),
        seed=settings.seed,
        home_rows=rows_for(settings.workload, train, train, placement, grid, settings.seed),
    )[0]
    return result.dispatch_demand, result.combine_demand


def _route(
    topology: Topology, policy: str, seed: int, demand: tuple[FloatArray, FloatArray] | None
) -> Routings:
    """Return the routing; InputError where the policy does not suit the topology."""
    if is_fitted(policy) and demand is not None:
        there, back = (route_for(topology, policy, part, seed) for part in demand)
        return there, back
    return route_for(topology, policy, None, seed)
