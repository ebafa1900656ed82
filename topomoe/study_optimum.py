"""How far each routing of a study is from the best one: its mean demand on the LP's scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from topomoe.step import SimulationResult
from topomoe.study_networks import StudyNetwork

if TYPE_CHECKING:
    import pandas as pd


def optimum_rows(
    networks: Sequence[StudyNetwork],
    results: Sequence[SimulationResult],
    progress: Callable[[str, int, int], None],
) -> pd.DataFrame:
    """Return a row a network: seconds of its mean dispatch and combine, and their bounds.

    All are transfer times of a layer's mean demand without latency or packets, dispatch plus
    combine. Because the optimum is convex in the demand, that of the mean is at most the mean of
    the optima: no routing, not even one chosen anew for every batch, takes less on average.
    """
    import pandas as pd

    from topomoe.network import bounds
    from topomoe.topologies.routing.deadlock import virtual_channels

    rows = []
    solved: dict[str, dict[str, float]] = {}
    for number, (network, result) in enumerate(zip(networks, results, strict=True)):
        demands = result.dispatch_demand, result.combine_demand
        if network.name not in solved:
            both = [bounds(network.topology, demand) for demand in demands]
            for found in both:
                found["cut"] = max(found["node_cut"], found["place_cut"])
            solved[network.name] = {name: both[0][name] + both[1][name] for name in both[0]}
        seconds = [
            float(routing.transfer_time(demand[None])[0])
            for routing, demand in zip(network.parts, demands, strict=True)
        ]
        channels = [virtual_channels(routing).count for routing in dict.fromkeys(network.parts)]
        rows.append(
            {
                "record": "optimum",
                "topology": network.name,
                "routing": network.routing_name,
                "time_s": sum(seconds),
                "optimum_s": solved[network.name]["optimal"],
                "cut_s": solved[network.name]["cut"],
                "volume_bound_s": solved[network.name]["capacity_bound"],
                "virtual_channels": max(channels),
            }
        )
        progress("optimum", number + 1, len(networks))
    return pd.DataFrame(rows)
