"""Where a co-design episode stands: a line of text, or the grid with its loads and circuits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS
from topomoe.envs.cluster_picture import cluster_picture
from topomoe.envs.codesign_state import CoDesignState
from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.codesign_transition import CoDesignOutcome


def as_text(task: CoDesignTask, state: CoDesignState, outcome: CoDesignOutcome | None) -> str:
    """Return the last epoch, or the start, of the first copy as a line."""
    cluster = task.problem.cluster
    said = " (hypothetical)" if cluster.hypothetical else ""
    if outcome is None:
        name = f"{cluster.topologies[state.topology[0]]}/{cluster.placements[state.base[0]]}"
        return f"epoch {state.start[0]}: starts in {name}{said}"
    name = f"{cluster.topologies[outcome.topology[0]]}/{cluster.placements[outcome.base[0]]}"
    if outcome.moved[0] > 0:
        name += f" with {outcome.moved[0]:.0%} of the slots moved"
    parts = ", ".join(f"{part} {outcome.components[part][0]:.4g} s" for part in PARTS)
    return (
        f"epoch {outcome.epoch[0]}: {name}{said}, cost {outcome.cost[0]:.4g} s ({parts}, "
        f"reconfiguration {outcome.reconfiguration[0]:.4g} s, "
        f"migration {outcome.migration[0]:.4g} s)"
    )


def as_picture(
    task: CoDesignTask, state: CoDesignState, outcome: CoDesignOutcome | None
) -> NDArray[np.uint8]:
    """Return the grid of the first copy: loads of the last epoch's steps under what is set now.

    Before the first epoch, and where the layout has changed since, there are no loads.
    """
    problem = task.problem
    steps = np.zeros(0, dtype=np.int32)
    if outcome is not None and task.of_epoch[outcome.epoch[0]] == state.layout[0]:
        steps = problem.steps[outcome.epoch[0]]
    return cluster_picture(
        problem.cluster, problem.pool, steps, int(state.topology[0]), state.slot_expert[0]
    )
