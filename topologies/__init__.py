"""Link-level topologies and the routings over them; knows nothing of Mixture-of-Experts.

>>> from topomoe import topologies
>>> topologies.make("mesh", grid=(4, 4)).num_links
48
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topomoe.topologies.cost import Bill, bill_of_materials, costs
    from topomoe.topologies.custom import from_edge_list, from_links, from_networkx
    from topomoe.topologies.errors import InputError
    from topomoe.topologies.exporters import export
    from topomoe.topologies.failed_parts import Failures, surviving
    from topomoe.topologies.failures import components, fail
    from topomoe.topologies.matching import choose_circuits
    from topomoe.topologies.matching.schedule import CircuitSchedule
    from topomoe.topologies.matching.scheduling import schedule_circuits
    from topomoe.topologies.prices import load_prices
    from topomoe.topologies.registry import make, names
    from topomoe.topologies.routing import policies, route
    from topomoe.topologies.routing.deadlock import VirtualChannels, virtual_channels
    from topomoe.topologies.routing.routing import Routing
    from topomoe.topologies.topology import Topology

__all__ = [
    "Bill",
    "CircuitSchedule",
    "Failures",
    "InputError",
    "Routing",
    "Topology",
    "VirtualChannels",
    "bill_of_materials",
    "choose_circuits",
    "components",
    "costs",
    "export",
    "fail",
    "from_edge_list",
    "from_links",
    "from_networkx",
    "load_prices",
    "make",
    "names",
    "policies",
    "route",
    "schedule_circuits",
    "surviving",
    "virtual_channels",
]

# What loads scipy or numba is imported when first used.
_HOME = {
    "Bill": "cost",
    "CircuitSchedule": "matching.schedule",
    "Failures": "failed_parts",
    "InputError": "errors",
    "Routing": "routing.routing",
    "Topology": "topology",
    "VirtualChannels": "routing.deadlock",
    "bill_of_materials": "cost",
    "choose_circuits": "matching",
    "components": "failures",
    "costs": "cost",
    "export": "exporters",
    "fail": "failures",
    "from_edge_list": "custom",
    "from_links": "custom",
    "from_networkx": "custom",
    "load_prices": "prices",
    "make": "registry",
    "names": "registry",
    "policies": "routing",
    "route": "routing",
    "schedule_circuits": "matching.scheduling",
    "surviving": "failed_parts",
    "virtual_channels": "routing.deadlock",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
