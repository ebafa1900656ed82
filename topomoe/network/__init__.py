"""Network models: from demand on a topology to seconds."""

from topomoe.network.bottleneck import bottleneck
from topomoe.network.capacity_bound import capacity_bound
from topomoe.network.node_cut import node_cut

__all__ = ["bottleneck", "capacity_bound", "node_cut"]
