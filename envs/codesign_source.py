"""Which co-design problem an environment runs: one given, a scenario's, or the built-in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from topomoe.envs.cluster import RECENT, CoDesignProblem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.resolve import Given, resolve
from topomoe.envs.subset import restrict
from topomoe.topologies.errors import InputError, unknown

PARTS_OF_SCENARIO = ("training", "validation", "test")


def given_or_scenario(
    problem: Given, scenario: str | Path | None, trace: str, seed: int, part: str
) -> SwitchingProblem | CoDesignProblem:
    """Return the problem of an environment of configurations: given, a scenario's, or built in.

    Raises:
        InputError: both are given, or the arguments are wrong; see ``resolve_codesign``.
    """
    if scenario is None:
        return resolve(problem)
    if problem is not None:
        raise InputError("a problem or a scenario must be given, got both")
    return topologies_alone(resolve_codesign(None, scenario, trace, seed, part))


def topologies_alone(problem: CoDesignProblem) -> CoDesignProblem:
    """Return the problem with one placement, the best in training of those that stay as they are.

    What is left to choose is the topology.
    """
    prior = problem.switching.prior.reshape(-1, problem.switching.num_placements).min(axis=0)
    names = problem.switching.placements
    best = min((p for p, name in enumerate(names) if name != RECENT), key=lambda p: prior[p])
    cluster = replace(
        problem.cluster,
        placements=(names[best],),
        slot_expert=problem.cluster.slot_expert[best : best + 1],
    )
    alone = restrict(problem.switching, placements=(names[best],))
    return replace(problem, cluster=cluster, switching=alone, recent=problem.recent[:0])


def resolve_codesign(
    problem: CoDesignProblem | None = None,
    scenario: str | Path | None = None,
    trace: str = "",
    seed: int = 0,
    part: str = "training",
) -> CoDesignProblem:
    """Return the problem given, else a part of a scenario, else a small built-in one.

    Args:
        problem: the problem itself.
        scenario: a scenario's name or TOML file.
        trace: the folder of routing traces the scenario is built on; by default its own.
        seed: of the scenario; a held-out timeline is drawn with it too.
        part: training, validation, or test: timelines that share no request.

    Raises:
        InputError: the arguments contradict each other, or are wrong.
    """
    if part not in PARTS_OF_SCENARIO:
        raise unknown("part of a scenario", part, PARTS_OF_SCENARIO)
    if problem is not None:
        if scenario is not None:
            raise InputError("a problem or a scenario must be given, got both")
        if not isinstance(problem, CoDesignProblem):
            raise InputError(f"problem must be a CoDesignProblem, got {type(problem).__name__}")
        return problem
    if scenario is None:
        from topomoe.envs.tiny_cluster import tiny_problem  # loads the compiler

        return tiny_problem(seed=seed)
    from topomoe.envs.scenario import build_problems  # loads the simulator
    from topomoe.envs.scenario_presets import load_scenario

    given = {"seed": seed, **({"trace": trace} if trace else {})}
    problems = build_problems(load_scenario(str(scenario), given), (seed,))
    return {
        "training": problems.training,
        "validation": problems.validation,
        "test": problems.tests[seed],
    }[part]
