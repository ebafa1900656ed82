"""Which problem an environment runs: one given, one stored, or the built-in one."""

from __future__ import annotations

from pathlib import Path

from topomoe.envs.problem import SwitchingProblem


def resolve(problem: SwitchingProblem | str | Path | None) -> SwitchingProblem:
    """Return a problem given as itself, as the path of a stored one, or None for the built-in."""
    if problem is None:
        from topomoe.envs.scenario import default_problem  # loads the simulator

        return default_problem()
    if isinstance(problem, SwitchingProblem):
        return problem
    return SwitchingProblem.load(problem)
