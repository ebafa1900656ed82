"""What routing alone brings on a scenario: mean demands by default and by optimal routing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.group_layout import Layout, parse_layout
from topomoe.envs.scenario import Problems, build_topologies
from topomoe.envs.traffic import received_tokens
from topomoe.network.optimum import optimal
from topomoe.topologies.registry import parse_grid
from topomoe.topologies.routing import route

FloatArray = NDArray[np.float64]


def routing_rows(problems: Problems) -> list[dict[str, Any]]:
    """Return a row a layout, topology and routing: time of the mean dispatch, latency left out.

    ``ratio`` is over the best single topology routed by default, which ``keeps`` names, both summed
    over layouts as often as they come; ``weight`` is a layout's share of the epochs. The demand is
    the mean of the training steps under never-switch's placement, and circuits are fitted to it.
    ``network_share`` is that of dispatch and combine in never-switch's time.
    """
    settings, problem = problems.settings, problems.training.switching
    grid = parse_grid(settings.grid)
    rng = np.random.default_rng([settings.seed, 0])  # as the scenario's own layouts are drawn
    layouts = tuple(parse_layout(text, grid[0] * grid[1], rng) for text in settings.layouts)
    placement = int(problem.placement_of(problem.start))
    demands = mean_demands(problems, layouts, placement)
    both = [demand + demand.T for demand in demands]
    names, topologies, _ = build_topologies(settings, grid, layouts, both)
    at = problems.training.pool.layout[problems.training.steps[:, 0]]
    weight = np.bincount(at, minlength=len(layouts)) / len(at)
    seconds: dict[str, FloatArray] = {
        "default": np.array([route(t).transfer_time(np.array(demands)) for t in topologies]),
        "optimal": np.array([[optimal(t, demand) for demand in demands] for t in topologies]),
    }
    alone = seconds["default"] @ weight
    network = problem.network[:, problem.start].mean() / problem.cost[:, problem.start].mean()
    return [
        {
            "record": "routing",
            "routing": routing,
            "topology": name,
            "layout": layout.name,
            "weight": float(weight[v]),
            "ratio": float(table[a, v] / alone.min()),
            "keeps": names[int(alone.argmin())],
            "network_share": float(network),
        }
        for routing, table in seconds.items()
        for a, name in enumerate(names)
        for v, layout in enumerate(layouts)
    ]


def mean_demands(
    problems: Problems, layouts: tuple[Layout, ...], placement: int
) -> list[FloatArray]:
    """Return each layout's mean token copies from device to device in dispatch, [N, N]."""
    cluster, pool = problems.training.cluster, problems.training.pool
    received = received_tokens(pool, layouts, cluster.slot_device, cluster.slot_expert[placement])
    demands = []
    for v, layout in enumerate(layouts):
        same = (layout.group_of[:, None] == layout.group_of) & (layout.group_of >= 0)
        np.fill_diagonal(same, False)
        mean = received[pool.layout == v].mean(axis=0, dtype=np.float64)
        demands.append(np.asarray(same * (mean / (same.sum(axis=0) + 1))))
    return demands
