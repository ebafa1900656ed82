"""Which problem an environment runs: one given, one stored, or the built-in one."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from topomoe.envs.cluster import CoDesignProblem
from topomoe.envs.problem import SwitchingProblem

Given: TypeAlias = SwitchingProblem | CoDesignProblem | str | Path | None


def resolve(problem: Given) -> SwitchingProblem | CoDesignProblem:
    """Return a problem given as itself, as the path of a stored one, or None for the built-in."""
    if problem is None:
        from topomoe.envs.tiny_cluster import tiny_problem  # loads the compiler

        return tiny_problem()
    if isinstance(problem, SwitchingProblem | CoDesignProblem):
        return problem
    return SwitchingProblem.load(problem)


def library_table(problem: Given) -> SwitchingProblem:
    """Return what is to be switched: of a problem whose placements move freely, its library."""
    resolved = resolve(problem)
    return resolved.switching if isinstance(resolved, CoDesignProblem) else resolved
