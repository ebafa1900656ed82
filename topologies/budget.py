"""Fair comparison: topologies built to the same budget of bandwidth or ports a device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.optical import BASES
from topomoe.topologies.registry import EDGE_LIST_ENDINGS, make
from topomoe.topologies.topology import Topology

NORMALISATIONS = ("iso-injection", "iso-port")


def build(
    name: str,
    grid: tuple[int, int],
    injection: float,
    latency: float,
    normalise: str = "iso-injection",
    base_share: float = 0.5,
    ports: int = 4,
    **options: Any,
) -> Topology:
    """Return the named topology at the same budget a device as every other.

    ``iso-injection``: ``injection`` bytes/s leave a device; a link gets injection / max degree (a
    mesh's edge ports stay dark) and an optical fabric gives ``base_share`` of it to the base and
    the rest to its ``ports`` circuits. ``iso-port``: a device has ``ports`` ports of injection /
    ports each; unused ones stay dark, a switched fabric bundles them all, and an optical fabric
    gives round(base_share * ports) of them to the base. An edge-list file keeps its proportions:
    its capacities are scaled to the budget; its devices lie on the grid, if they are as many.
    """
    if normalise not in NORMALISATIONS:
        raise unknown("normalisation", normalise, NORMALISATIONS)
    if not 0 < base_share < 1:
        raise InputError(f"base_share must be in (0, 1), got {base_share}")
    if ports < 1:
        raise InputError(f"ports must be >= 1, got {ports}")
    if name == "optical":
        return _optical(grid, injection, latency, normalise, base_share, ports, options)
    topology = make(name, grid, injection, latency, **options)
    if name.endswith(EDGE_LIST_ENDINGS):
        if topology.num_devices == grid[0] * grid[1]:
            topology = replace(topology, grid=grid)
        scale = injection / float(topology.injection.max())
        scaled = _scaled(topology, scale)
        return replace(scaled, parameters={**scaled.parameters, "scale": scale})
    degree = int(topology.device_degree.max())
    if normalise == "iso-injection":
        return _scaled(topology, 1.0 / degree)
    if degree > ports:
        raise InputError(f"{name} needs {degree} ports a device, iso-port gives {ports}")
    return topology if degree == 1 else _scaled(topology, 1.0 / ports)


def _optical(
    grid: tuple[int, int],
    injection: float,
    latency: float,
    normalise: str,
    base_share: float,
    ports: int,
    options: dict[str, Any],
) -> Topology:
    if normalise == "iso-port":
        if ports < 2:
            raise InputError(f"optical needs ports >= 2 (circuits and base), got {ports}")
        base_ports = min(max(1, round(base_share * ports)), ports - 1)
        base_share, ports = base_ports / ports, ports - base_ports
    base = options.pop("base", "leaf-spine")
    if isinstance(base, str) and base != "none":
        if base not in BASES:
            raise unknown("optical base", base, [*BASES, "none"])
        unit = make(base, grid, 1.0, latency)
        base = _scaled(unit, base_share * injection / float(unit.injection.max()))
    return make(
        "optical",
        grid,
        (1.0 - base_share) * injection / ports,
        latency,
        base=base,
        degree=ports,
        **options,
    )


def _scaled(topology: Topology, factor: float) -> Topology:
    return replace(topology, capacity=topology.capacity * factor)
