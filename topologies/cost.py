"""What a topology costs and draws: its ports, cables, optics and switches, counted from the graph.

What a link is made of follows from what it joins and whether that is in one place:

==========================  =========================  ======================================
link                        in one place               between places
==========================  =========================  ======================================
a device and a switch       a copper cable             two transceivers and a fibre
two devices                 a trace of their board     two transceivers and a fibre
two switches                a copper cable             two transceivers and a fibre
a device, its node switch   a scale-up port
a circuit                   at each end a transceiver, a fibre and an optical switch port
==========================  =========================  ======================================

``parameters["place"]`` [nodes] says where nodes are: a node of several devices, a dragonfly's group
or a board is one place. Without it copper reaches from a device to its switch and to other devices,
and switches are apart. An end at a device is a port of its NIC, an end at a switch one of the
switch; the device's end of a scale-up link is the accelerator's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from topomoe.topologies.prices import ITEMS, Price, load_prices
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray, Topology

_GBPS = 8e-9  # Gbit/s in a byte/s


@dataclass(frozen=True)
class Row:
    """One item of a bill: how many units of it at which price."""

    item: str
    count: float  # Gbit/s or ports, as ``unit`` says
    unit: str
    unit_dollars: float
    unit_watts: float
    source: str

    @property
    def dollars(self) -> float:
        """What all units cost."""
        return self.count * self.unit_dollars

    @property
    def watts(self) -> float:
        """What all units draw."""
        return self.count * self.unit_watts


@dataclass(frozen=True)
class Bill:
    """A network's bill of materials."""

    rows: tuple[Row, ...]  # items that there are any of
    num_devices: int

    @cached_property
    def dollars(self) -> float:
        """What the network costs."""
        return sum(row.dollars for row in self.rows)

    @cached_property
    def watts(self) -> float:
        """What the network draws."""
        return sum(row.watts for row in self.rows)


# An item, how many pieces of it there are, and their rates all together in bytes/s.
_Part = tuple[str, float, float]


def bill_of_materials(topology: Topology, prices: str | Mapping[str, Price] = "") -> Bill:
    """Return what the topology is made of and what that costs and draws.

    ``prices`` is a TOML file ("" for the one that is shipped) or what ``load_prices`` returned. A
    cable or port is as fast as the faster of its two directions; rates are summed, so that parallel
    links cost as much as one of their capacity. Circuits are billed by the ports that hold them: a
    fabric's ``degree`` ports a device, lit or not, if any circuit is. Raises InputError for prices
    that cannot be read.
    """
    price = load_prices(prices) if isinstance(prices, str) else prices
    on_circuits = _circuit_rate(topology)
    parts = _cables(topology, topology.capacity - on_circuits) + _circuits(topology, on_circuits)
    rows = []
    for item in ITEMS:
        cost = price[item]
        rate = _GBPS * sum(part[2] for part in parts if part[0] == item)
        count = rate if cost.per == "Gbps" else sum(part[1] for part in parts if part[0] == item)
        if count:
            rows.append(Row(item, count, cost.per, cost.dollars, cost.watts, cost.source))
    return Bill(tuple(rows), topology.num_devices)


def costs(topology: Topology, prices: str | Mapping[str, Price] = "") -> dict[str, float]:
    """Return a network's dollars and watts, in all and a device."""
    bill = bill_of_materials(topology, prices)
    return {
        "dollars": bill.dollars,
        "watts": bill.watts,
        "dollars_per_device": bill.dollars / topology.num_devices,
        "watts_per_device": bill.watts / topology.num_devices,
    }


def _circuit_rate(topology: Topology) -> FloatArray:
    """Return the bytes/s of each link that are circuits, [L]; a base's link may lie beside one."""
    rate = np.where(topology.optical, topology.capacity, 0.0)
    base = topology.parameters.get("base")
    if isinstance(base, Topology):
        at = base.link_ids(*topology.links.T)
        rate -= np.where(topology.optical & (at >= 0), base.capacity[at], 0.0)
    return np.maximum(rate, 0.0)


def _cables(topology: Topology, capacity: FloatArray) -> list[_Part]:
    """Return the electrical links: each cable's two ends and what lies between them."""
    there = capacity > 0
    pairs, member = np.unique(np.sort(topology.links[there], axis=1), axis=0, return_inverse=True)
    rate = np.zeros(len(pairs))
    np.maximum.at(rate, member.reshape(-1), capacity[there])
    device = pairs < topology.num_devices
    kinds = _kinds(topology, pairs, device)
    fibre, outside = kinds["fibre"], ~kinds["scale_up_port"]
    parts = [(item, float(mask.sum()), float(rate[mask].sum())) for item, mask in kinds.items()]
    parts.append(("transceiver", 2.0 * float(fibre.sum()), 2.0 * float(rate[fibre].sum())))
    for item, side in (("nic_port", device), ("switch_port", ~device)):
        ends = (side & outside[:, None]).sum(axis=1)
        parts.append((item, float(ends.sum()), float(ends @ rate)))
    return parts


def _kinds(topology: Topology, pairs: IntArray, device: BoolArray) -> dict[str, BoolArray]:
    """Return which of the cables [X, 2] are copper, fibre, board traces or scale-up links."""
    both = device.all(axis=1)
    place = topology.parameters.get("place")
    near, trace = device.any(axis=1), np.zeros_like(both)
    if place is not None:
        near = np.asarray(place[pairs[:, 0]] == place[pairs[:, 1]], dtype=np.bool_)
        trace = np.asarray(both & near)
    scale_up = np.zeros(len(pairs), dtype=np.bool_)
    if topology.parameters.get("kind") == "rails":
        first, last = topology.parameters["switches"][:2]
        scale_up = ((pairs >= first) & (pairs < last)).any(axis=1)
    return {
        "scale_up_port": scale_up,
        "board_trace": trace,
        "copper_cable": near & ~trace & ~scale_up,
        "fibre": ~near & ~scale_up,
    }


def _circuits(topology: Topology, rate: FloatArray) -> list[_Part]:
    """Return the optical fabric: a port has a transceiver, a fibre and a port of the switch."""
    lit = rate > 0
    if not lit.any():
        return []
    circuits = topology.parameters.get("circuits")
    if circuits is not None:  # a fixed number of ports of one rate, dark ones too
        ports = float(topology.num_devices * topology.parameters["degree"])
        return _port_parts("nic_port", ports, ports * float(rate.sum()) / len(circuits))
    nodes, devices = topology.num_nodes, topology.num_devices
    tail, head = topology.links[lit].T
    used = np.maximum(np.bincount(tail, minlength=nodes), np.bincount(head, minlength=nodes))
    fast = np.maximum(
        np.bincount(tail, rate[lit], nodes), np.bincount(head, rate[lit], nodes)
    )  # a port sends and receives at once
    return [
        *_port_parts("nic_port", float(used[:devices].sum()), float(fast[:devices].sum())),
        *_port_parts("switch_port", float(used[devices:].sum()), float(fast[devices:].sum())),
    ]


def _port_parts(end: str, ports: float, rate: float) -> list[_Part]:
    return [(item, ports, rate) for item in (end, "transceiver", "fibre", "ocs_port")]
