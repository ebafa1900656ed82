"""Link-level topologies and the routings over them; knows nothing of Mixture-of-Experts.

>>> from topomoe import topologies
>>> topologies.make("mesh", grid=(4, 4)).num_links
48
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topomoe.topologies.custom import from_edge_list, from_links, from_networkx
    from topomoe.topologies.errors import InputError
    from topomoe.topologies.registry import make, names
    from topomoe.topologies.routing import policies, route
    from topomoe.topologies.routing.routing import Routing
    from topomoe.topologies.topology import Topology

__all__ = [
    "InputError",
    "Routing",
    "Topology",
    "from_edge_list",
    "from_links",
    "from_networkx",
    "make",
    "names",
    "policies",
    "route",
]

# What loads scipy or numba is imported when first used.
_HOME = {
    "InputError": "errors",
    "Routing": "routing.routing",
    "Topology": "topology",
    "from_edge_list": "custom",
    "from_links": "custom",
    "from_networkx": "custom",
    "make": "registry",
    "names": "registry",
    "policies": "routing",
    "route": "routing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
