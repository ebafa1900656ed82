"""What ``topomoe network`` runs: one demand on one topology under several routings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topomoe.demand_file import make_demand
from topomoe.inputs import build_topology, check_circuits
from topomoe.network import bottleneck, capacity_bound, max_min, node_cut, optimal, place_cut
from topomoe.network.place_cut import places
from topomoe.network_settings import NetworkSettings
from topomoe.run_folder import RunFolder
from topomoe.settings import to_dict
from topomoe.step import FloatArray
from topomoe.topologies.cost import bill_of_materials
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.exporters import export, formats
from topomoe.topologies.failed_parts import surviving
from topomoe.topologies.failure_scenarios import failure_scenarios
from topomoe.topologies.failures import fail
from topomoe.topologies.files import write_atomic
from topomoe.topologies.prices import load_prices
from topomoe.topologies.registry import parse_grid
from topomoe.topologies.routing import route_for
from topomoe.topologies.routing.deadlock import virtual_channels
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """What the settings come to."""

    topology: Topology
    demand: FloatArray
    routings: tuple[Routing, ...]
    notes: tuple[str, ...] = ()


def prepare_network(settings: NetworkSettings, out: str) -> NetworkInput:
    """Build topology, demand and routings; InputError for what does not fit."""
    for name in settings.export:
        if name not in formats():
            raise unknown("export format", name, formats())
    if settings.export and not out:
        raise InputError("--export needs a folder: --out DIR")
    grid = parse_grid(settings.grid)
    check_circuits(settings.circuits, grid, chosen=True)
    load_prices(settings.prices)
    demand = make_demand(
        settings.demand, grid, settings.bytes_per_pair, settings.level, settings.seed
    )
    topology = build_topology(
        settings.topology,
        grid,
        settings,
        demand=demand,
        node_size=settings.node_size,
    )
    notes: list[str] = []
    if settings.failures:
        scenario = failure_scenarios([settings.failures], draws=1, seed=settings.seed)[0]
        topology = fail(topology, scenario.failures)
        alive = np.zeros(topology.num_devices, dtype=np.bool_)
        alive[surviving(topology)] = True
        lost = float(np.where(alive[:, None] & alive, 0.0, demand).sum())
        if lost:
            notes.append(f"{lost:.4g} bytes from or to failed devices are left out of the demand")
        demand = np.where(alive[:, None] & alive, demand, 0.0)
    policies = settings.routings or (topology.default_routing,)
    routings = tuple(route_for(topology, p, demand, settings.seed) for p in policies)
    if "simgrid" in settings.export and not _is_single_path(routings[0]):
        notes.append(
            f"simgrid: {routings[0].name} splits pairs, which a platform cannot hold: exported "
            "with one path a pair"
        )
    return NetworkInput(topology, demand, routings, tuple(notes))


def _is_single_path(routing: Routing) -> bool:
    return bool((routing.matrix.data == 1.0).all())


def run_network(settings: NetworkSettings, given: NetworkInput) -> pd.DataFrame:
    """Return rows of records ``bound``, ``routing`` and, with max-min, ``flow``; seconds."""
    import pandas as pd

    topology, demand = given.topology, given.demand
    bill = bill_of_materials(topology, settings.prices)
    bounds = {"node_cut": node_cut(topology, demand), "volume": capacity_bound(topology, demand)}
    if places(topology) is not None:
        bounds["place_cut"] = place_cut(topology, demand)
    if settings.optimum:
        bounds["optimal"] = optimal(topology, demand)
    frames = [
        pd.DataFrame(
            {
                "record": "bound",
                "bound": list(bounds),
                "time_s": [float(t) for t in bounds.values()],
            }
        )
    ]
    sent = demand * ~np.eye(topology.num_devices, dtype=np.bool_)
    for routing in given.routings:
        channels = virtual_channels(routing)
        row: dict[str, Any] = {
            "record": "routing",
            "topology": topology.name,
            "routing": routing.name,
            "transfer_s": float(routing.transfer_time(sent[None])[0]),
            "bottleneck_s": bottleneck(topology, routing, demand, settings.mtu or None),
            "mean_hops": float((routing.hops * sent).sum() / sent.sum()) if sent.any() else 0.0,
            "virtual_channels": channels.count,
            "dollars": bill.dollars,
            "watts": bill.watts,
        }
        if settings.optimum:
            row["optimum_s"] = float(bounds["optimal"])
        if settings.max_min:
            flows = max_min(
                topology, routing, demand, settings.max_min_rtol, mtu=settings.mtu or None
            )
            p50, p99 = np.percentile(flows.fct, [50, 99]) if len(flows.fct) else (0.0, 0.0)
            row |= {"max_min_s": flows.makespan, "fct_p50_s": p50, "fct_p99_s": p99}
            frames.append(
                pd.DataFrame(
                    {
                        "record": "flow",
                        "routing": routing.name,
                        "source": flows.source,
                        "target": flows.destination,
                        "bytes": demand[flows.source, flows.destination],
                        "fct_s": flows.fct,
                    }
                )
            )
        frames.append(pd.DataFrame([row]))
    return pd.concat(frames, ignore_index=True)


def network_tables(results: pd.DataFrame) -> list[tuple[str, list[dict[str, str]]]]:
    """Return titled tables of text: the routings, and what bounds them; microseconds."""

    def us(seconds: float) -> str:
        return f"{seconds * 1e6:.2f}"

    rows = []
    for _, row in results[results["record"] == "routing"].iterrows():
        line = {"routing": str(row["routing"]), "transfer us": us(row["transfer_s"])}
        if "optimum_s" in results:
            over = row["transfer_s"] / row["optimum_s"] if row["optimum_s"] else 1.0
            line["/ optimum"] = f"{over:.4f}"
        line["with latency us"] = us(row["bottleneck_s"])
        if "max_min_s" in results:
            line |= {"max-min us": us(row["max_min_s"])}
            line |= {"FCT p50 us": us(row["fct_p50_s"]), "p99 us": us(row["fct_p99_s"])}
        line |= {"hops": f"{row['mean_hops']:.3f}", "channels": f"{row['virtual_channels']:.0f}"}
        rows.append(line)
    bounds = results[results["record"] == "bound"]
    names = {
        "node_cut": "node cut us",
        "place_cut": "place cut us",
        "volume": "volume us",
        "optimal": "optimum us",
    }
    first = results[results["record"] == "routing"].iloc[0]
    limits = {names[str(b)]: us(t) for b, t in zip(bounds["bound"], bounds["time_s"], strict=True)}
    cost = {"dollars": f"{first['dollars']:,.0f}", "watts": f"{first['watts']:,.0f}"}
    return [("Routings", rows), ("No routing is faster than", [limits]), ("Equipment", [cost])]


def write_network(
    settings: NetworkSettings, given: NetworkInput, results: pd.DataFrame, out: str, overwrite: bool
) -> RunFolder:
    """Write results, config and exports into a run folder."""
    files: dict[str, str] = {}
    first = given.routings[0]
    # A platform file holds one path a pair; without a routing it gets the shortest.
    single_path = first if settings.export and _is_single_path(first) else None
    for name in settings.export:
        files |= export(given.topology, name, routing=single_path, demand=given.demand)
    folder = RunFolder.start(out, "network", to_dict(settings), False, overwrite)
    for name, text in files.items():
        write_atomic(folder.path / "export" / name, text)
    folder.finish(results)
    return folder
