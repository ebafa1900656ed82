"""Network models: from demand on a topology to seconds."""

from topomoe.network.bottleneck import bottleneck
from topomoe.network.capacity_bound import capacity_bound
from topomoe.network.fair_sharing import completion_times
from topomoe.network.flow_times import MaxMin, max_min
from topomoe.network.node_cut import node_cut
from topomoe.network.optimum import bounds, optimal
from topomoe.network.place_cut import place_cut

__all__ = [
    "MaxMin",
    "bottleneck",
    "bounds",
    "capacity_bound",
    "completion_times",
    "max_min",
    "node_cut",
    "optimal",
    "place_cut",
]
