"""Files of serving engines and of other load balancers: traces, loads and placements.

`load_expert_loads` reads whatever holds counts; ``topomoe.load_trace`` and
``topomoe.placement.load_placement`` read the other two kinds by the modules here. Nothing in a file
is ever executed.
"""

from topomoe.formats.loads import ExpertLoads, load_expert_loads
from topomoe.formats.physical_map import placement_formats

__all__ = ["ExpertLoads", "load_expert_loads", "placement_formats"]
