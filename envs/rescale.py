"""The same timeline where switches take longer or shorter: nothing is priced anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import RECENT, CoDesignProblem, moving_cost
from topomoe.envs.migration import Migration
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario import Problems

FAST, SLOW = 1e-6, 1e6
"""Migration scales at which no move and any move lasts longer than an epoch, see ``migrating``."""


def calibrated(
    training: SwitchingProblem,
    validation: SwitchingProblem,
    tests: Mapping[int, SwitchingProblem],
) -> tuple[SwitchingProblem, SwitchingProblem, dict[int, SwitchingProblem]]:
    """Return the three with what is expected of them taken from the training timeline."""
    training = training.calibrated(training)
    held_out = {seed: test.calibrated(training) for seed, test in tests.items()}
    return training, validation.calibrated(training), held_out


def rewiring(problem: SwitchingProblem, seconds: float) -> SwitchingProblem:
    """Return the problem with every change of wiring taking ``seconds``; calibrate it anew."""
    return replace(problem, switch_cost=np.where(problem.switch_cost > 0, seconds, 0.0))


def full_migration(fast: Problems) -> float:
    """Return the mean epochs that moving between two placements lasts, at migration scale 1.

    ``fast`` was built at scale ``FAST``; the mean is over training epochs and ordered pairs.
    """
    problem = fast.training.switching
    if problem.migration is None or problem.num_placements < 2:
        return 0.0
    apart = ~np.eye(problem.num_placements, dtype=np.bool_)
    return float(problem.migration.lag[:, apart].mean() / FAST)


def migrating(
    fast: CoDesignProblem, slow: CoDesignProblem, share: float, scale: float
) -> SwitchingProblem:
    """Return the timeline at migration scale ``scale``; calibrate it anew.

    The placement ``recent`` is served by what was before while it is made anew, so that its costs
    depend on the scale: they are linear in the share of the epoch that this takes, which two
    timelines fix.

    Args:
        fast: built at scale ``FAST``.
        slow: the same timeline at scale ``SLOW``.
        share: the scenario's ``migration_share``.
        scale: what to return; 1 is the scenario itself.
    """
    near, far = fast.switching, slow.switching
    assert near.migration is not None
    seconds = near.migration.lag * fast.epoch_seconds * (scale / FAST)
    stall, lag = moving_cost(seconds, fast.epoch_seconds, share)
    migration = Migration(stall, lag, near.migration.slowdown)
    if RECENT not in near.placements:
        return replace(near, migration=migration)
    at = near.placements.index(RECENT)
    own = np.arange(near.num_configurations) % near.num_placements == at
    # How much of each epoch the one before serves: none of it on the fast timeline.
    renewed = lag[:, at, at][:, None] * own

    def between(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        weight = renewed if a.ndim == renewed.ndim else renewed[:, None]
        return np.asarray(a + weight * (b - a))

    parts = {name: between(part, far.components[name]) for name, part in near.components.items()}
    return replace(
        near,
        cost=np.sum(list(parts.values()), axis=0),
        components=parts,
        steps=between(near.steps, far.steps) if near.steps.size else near.steps,
        migration=migration,
    )
