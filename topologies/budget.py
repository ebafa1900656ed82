"""Fair comparison: topologies built to the same budget of bandwidth, ports, dollars or watts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from topomoe.topologies.cost import costs
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.optical import BASES
from topomoe.topologies.registry import EDGE_LIST_ENDINGS, make
from topomoe.topologies.topology import Topology

# What the last two make equal, by the name that ``costs`` gives it.
_COSTS = {"iso-cost": "dollars_per_device", "iso-power": "watts_per_device"}
NORMALISATIONS = ("iso-injection", "iso-port", *_COSTS)
REFERENCE = "leaf-spine"
_ROUNDING = 1e-12


def build(
    name: str,
    grid: tuple[int, int],
    injection: float,
    latency: float,
    normalise: str = "iso-injection",
    base_share: float = 0.5,
    ports: int = 4,
    prices: str = "",
    per_device: float | None = None,
    **options: Any,
) -> Topology:
    """Return the named topology at the same budget a device as every other.

    ``iso-injection``: ``injection`` bytes/s leave a device; a link gets injection / max degree (a
    mesh's edge ports stay dark) and an optical fabric gives ``base_share`` of it to the base and
    the rest to its ``ports`` circuits. ``iso-port``: a device has ``ports`` ports of injection /
    ports each; unused ones stay dark, a switched fabric bundles them all, and an optical fabric
    gives round(base_share * ports) of them to the base. On ``rails`` the budget is the NIC's: the
    scale-up links inside a node (``node_bandwidth``) come on top, and the other topologies have
    nothing like them. An edge-list file keeps its proportions: its capacities are scaled to the
    budget; its devices lie on the grid, if they are as many.

    ``iso-cost``: the topology of ``iso-injection`` at whatever bandwidth costs ``per_device``
    dollars a device at ``prices`` (a TOML file, "" for the one shipped), by default what a
    full-bisection leaf-spine with ``injection`` costs. Prices are linear in bandwidth but for parts
    priced by the port and links inside a node, so one division finds it:
    ``parameters["injection"]``. ``iso-power`` does the same in watts. Raises InputError where the
    budget is too small.
    """
    if normalise not in NORMALISATIONS:
        raise unknown("normalisation", normalise, NORMALISATIONS)
    if not 0 < base_share < 1:
        raise InputError(f"base_share must be in (0, 1), got {base_share}")
    if ports < 1:
        raise InputError(f"ports must be >= 1, got {ports}")
    if normalise in _COSTS:
        at = partial(_at_injection, name, grid, latency, base_share, ports, options)
        if per_device is None:
            per_device = costs(make(REFERENCE, grid, injection, latency), prices)[_COSTS[normalise]]
        return _bought(name, at, injection, _COSTS[normalise], per_device, prices)
    if name == "optical":
        return _optical(grid, injection, latency, normalise, base_share, ports, options)
    topology = make(name, grid, injection, latency, **options)
    if name.endswith(EDGE_LIST_ENDINGS):
        if topology.num_devices == grid[0] * grid[1]:
            topology = replace(topology, grid=grid)
        scale = injection / float(topology.injection.max())
        scaled = _scaled(topology, scale)
        return replace(scaled, parameters={**scaled.parameters, "scale": scale})
    if topology.parameters["kind"] == "rails":
        return topology
    # Ports, not links: on thin boards of a hamming-mesh one link holds two.
    degree = round(float(topology.injection.max()) / injection)
    if normalise == "iso-injection":
        return _scaled(topology, 1.0 / degree)
    if degree > ports:
        raise InputError(f"{name} needs {degree} ports a device, iso-port gives {ports}")
    return topology if degree == 1 else _scaled(topology, 1.0 / ports)


def _at_injection(
    name: str,
    grid: tuple[int, int],
    latency: float,
    base_share: float,
    ports: int,
    options: dict[str, Any],
    injection: float,
) -> Topology:
    share = (base_share, ports)
    return build(name, grid, injection, latency, "iso-injection", *share, **options)


def _bought(
    name: str,
    at: Callable[[float], Topology],
    injection: float,
    what: str,
    budget: float,
    prices: str,
) -> Topology:
    """Return the topology ``at`` the injection that costs ``budget``, from what two others cost."""
    one, two = (costs(at(speed), prices)[what] for speed in (injection, 2.0 * injection))
    slope, fixed = two - one, 2.0 * one - two
    unit = what.split("_")[0]
    if not slope > _ROUNDING * one:
        raise InputError(f"{name}: prices must rise with bandwidth to spend {budget:g} {unit}")
    if not budget - fixed > _ROUNDING * one:
        raise InputError(
            f"{name}: a device must be allowed more than the {fixed:.6g} {unit} that it takes at "
            f"any bandwidth, got {budget:.6g}"
        )
    speed = injection * (budget - fixed) / slope
    topology = at(speed)
    return replace(topology, parameters={**topology.parameters, "injection": speed})


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
