"""Link-level topologies and the routings over them; knows nothing of Mixture-of-Experts.

>>> from topomoe import topologies
>>> topologies.make("mesh", grid=(4, 4)).num_links
48
"""

from topomoe.topologies.custom import from_edge_list, from_links, from_networkx
from topomoe.topologies.errors import InputError
from topomoe.topologies.make import make, names
from topomoe.topologies.routing import Routing, policies, route
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
