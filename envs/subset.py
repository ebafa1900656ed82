"""A switching problem whose choice is narrowed to some topologies and placements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from topomoe.envs.migration import Migration
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import unknown


def restrict(
    problem: SwitchingProblem,
    topologies: Sequence[str] | None = None,
    placements: Sequence[str] | None = None,
) -> SwitchingProblem:
    """Return the problem with these topologies and placements alone, in the problem's order.

    None keeps all of them. Epochs, features and bounds stay as they are; episodes start in the same
    configuration, or where it is left out in the one that is expected to be cheapest.

    Raises:
        InputError: a name is none of the problem's.
    """
    kept_topologies = _kept("topology", topologies, problem.topologies)
    kept = _kept("placement", placements, problem.placements or ("",))
    chosen = (kept_topologies[:, None] * problem.num_placements + kept).ravel()
    pairs = np.ix_(chosen, chosen)
    migration = problem.migration
    if migration is not None:
        stall, lag = (array[:, kept[:, None], kept] for array in (migration.stall, migration.lag))
        migration = Migration(stall, lag, migration.slowdown)
    here = np.flatnonzero(chosen == problem.start)
    return replace(
        problem,
        names=tuple(problem.names[k] for k in chosen),
        cost=problem.cost[:, chosen],
        switch_cost=problem.switch_cost[pairs],
        components={name: part[:, chosen] for name, part in problem.components.items()},
        placements=tuple(problem.placements[p] for p in kept) if problem.placements else (),
        migration=migration,
        steps=problem.steps[..., chosen] if problem.steps.size else problem.steps,
        metric=problem.metric[pairs],
        prior=problem.prior[chosen],
        start=int(here[0]) if len(here) else int(problem.prior[chosen].argmin()),
    )


def _kept(what: str, wanted: Sequence[str] | None, names: tuple[str, ...]) -> np.ndarray:
    """Return the places of the wanted names, ascending."""
    if wanted is None:
        return np.arange(len(names))
    for name in wanted:
        if name not in names:
            raise unknown(what, name, names)
    return np.array([place for place, name in enumerate(names) if name in wanted], dtype=np.int64)
