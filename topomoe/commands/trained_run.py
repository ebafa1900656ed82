"""Folders that ``topomoe train`` wrote, as ``topomoe evaluate`` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from topomoe.commands.settings import LEARNERS, TrainSettings
from topomoe.commands.train import TIMING, fingerprint, read_times, scenario_label
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.run_folder import CONFIG, RunFolder
from topomoe.settings import merge
from topomoe.topologies.errors import InputError, unknown


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A folder that topomoe train wrote: its agents by seed, and what they cost to train."""

    name: str
    settings: TrainSettings
    training_sha256: str
    agents: Mapping[int, Any]
    cpu_seconds: Mapping[int, float]


def open_trained(name: str) -> TrainedRun:
    """Return the trained folder at ``name``; InputError where it is none, or damaged."""
    from topomoe.agents.learned import load_agent

    folder = RunFolder.open(name)
    config = folder.config()
    if folder.kind != "train":
        raise InputError(f"{name}: a run of topomoe {folder.kind}, not of topomoe train")
    agent = str(config.get("agent"))
    if agent not in LEARNERS:
        raise InputError(f"{folder.path / CONFIG}: {unknown('agent', agent, LEARNERS)}")
    settings = merge(LEARNERS[agent], str(folder.path / CONFIG), {})
    homes = [folder.path / f"seed-{seed}" for seed in range(settings.seeds)]
    agents = {seed: load_agent(home) for seed, home in enumerate(homes)}
    spent = {seed: read_times(home / TIMING)[0] for seed, home in enumerate(homes)}
    digest = str(config["run"].get("training_sha256", ""))
    return TrainedRun(name, settings, digest, agents, spent)


def common_scenario(runs: list[TrainedRun]) -> tuple[str, ScenarioSettings]:
    """Return the scenario that all the folders were trained on; InputError where one differs."""
    first = runs[0].settings
    for run in runs[1:]:
        for field in fields(ScenarioSettings):
            here, there = (getattr(own.problem, field.name) for own in (first, run.settings))
            if here != there:
                raise InputError(
                    f"{field.name} is {here!r} in {runs[0].name} and {there!r} in {run.name}; "
                    "--scenario says what to evaluate on"
                )
    return scenario_label(first.scenario), first.problem


def fit_notes(
    run: TrainedRun,
    scenario: str,
    settings: ScenarioSettings,
    training: SwitchingProblem,
    tests: Mapping[int, SwitchingProblem],
) -> list[str]:
    """Return what to tell of a trained folder on a scenario; InputError where it does not fit."""
    notes = []
    for agent in run.agents.values():
        agent.check(next(iter(tests.values())))
    changed = [
        field.name
        for field in fields(ScenarioSettings)
        if getattr(run.settings.problem, field.name) != getattr(settings, field.name)
    ]
    if changed:
        trained = scenario_label(run.settings.scenario)
        notes.append(
            f"{run.name} was trained on scenario {trained}, which differs from {scenario} in "
            f"{', '.join(changed)}"
        )
    elif run.training_sha256 != fingerprint(training):
        raise InputError(
            f"the training problem is no longer that of {run.name}/{CONFIG} "
            "(run.training_sha256): another trace, or another version"
        )
    if len(tests) > len(run.agents):
        notes.append(
            f"{run.name} holds {len(run.agents)} trained seeds for {len(tests)} timelines: "
            "they take turns"
        )
    return notes
