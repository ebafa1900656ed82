"""What ``topomoe evaluate`` does: every agent on the same held-out episodes, into one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topomoe.agents.baselines import BASELINES, TUNED, baseline
from topomoe.agents.evaluate import Evaluation, evaluate
from topomoe.agents.experience import joined
from topomoe.agents.policy import Policy
from topomoe.agents.rollout import rollout
from topomoe.commands.settings import DEFAULT_SCENARIO, EvaluateRequest
from topomoe.commands.train import EXPERIENCED, TIMING, scenario_label
from topomoe.commands.trained_run import TrainedRun, common_scenario, fit_notes, open_trained
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario import build_problems
from topomoe.envs.scenario_presets import load_scenario
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.run_folder import RunFolder
from topomoe.settings import to_dict
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

TIMELINE_EPISODES = 1  # of each seed, whose every epoch goes into the table
# Policies that look at the held-out timeline, or draw: made anew for every seed.
BY_SEED = ("static-best", "clairvoyant", "random", "lazy-experts")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class EvaluateInput:
    """What is compared: agents by name (None: built in), scenarios by name, held-out timelines."""

    agents: Mapping[str, TrainedRun | None]
    scenarios: Mapping[str, ScenarioSettings]
    seeds: int
    settings: Mapping[str, Any]

    @property
    def runs(self) -> tuple[TrainedRun, ...]:
        """The trained folders."""
        return tuple(run for run in self.agents.values() if run is not None)


@dataclass(frozen=True, eq=False)
class ScenarioResult:
    """One scenario's comparison.

    Attributes:
        scenario: its name.
        evaluation: agents on its held-out timelines.
        tests: those timelines, by seed.
        times: by agent, seconds of CPU its tuning or training took (mean over seeds) and seconds
            that one decision takes.
        notes: what to tell of it.
    """

    scenario: str
    evaluation: Evaluation
    tests: Mapping[int, SwitchingProblem]
    times: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...]

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the rows of the table; see ``write_evaluation``."""
        yield self.evaluation.to_frame().assign(record="episode", scenario=self.scenario)
        yield self.evaluation.summary_frame().assign(record="summary", scenario=self.scenario)
        timeline = self.evaluation.timeline_frame(TIMELINE_EPISODES)
        yield timeline.assign(record="timeline", scenario=self.scenario)
        yield from (_traffic(self.scenario, *item) for item in self.tests.items())


def prepare_evaluation(request: EvaluateRequest) -> EvaluateInput:
    """Return what is compared; InputError for unknown names, and folders that hold no agent."""
    settings = request.settings
    names = settings.agents or BASELINES
    agents: dict[str, TrainedRun | None] = {}
    for name in names:
        if name not in BASELINES and not Path(name).is_dir():
            raise unknown("agent or folder of topomoe train", name, BASELINES)
        agents[name] = None if name in BASELINES else open_trained(name)
    runs = [run for run in agents.values() if run is not None]
    scenarios: dict[str, ScenarioSettings] = {}
    if runs and not settings.scenario:
        label, stored = common_scenario(runs)
        scenarios[label] = request.changed(stored)
    for name in settings.scenario or (() if runs else (DEFAULT_SCENARIO,)):
        label = scenario_label(name)
        if label in scenarios:
            raise InputError(f"scenario must not name anything twice, got {label} again")
        scenarios[label] = request.changed(load_scenario(name))
    written = {**to_dict(settings), "problem": dict(request.changes)}
    return EvaluateInput(agents, scenarios, settings.seeds, written)


def evaluate_agents(given: EvaluateInput, progress: Progress) -> list[ScenarioResult]:
    """Run every agent through the held-out episodes of every scenario that it fits.

    Raises:
        InputError: an agent that was asked for fits no scenario; the message says why.
    """
    results = []
    refused: dict[str, list[str]] = {name: [] for name in given.agents}
    steps = len(given.agents) + 1
    for scenario, settings in given.scenarios.items():
        problems = build_problems(settings, seeds=range(given.seeds))
        tests = {seed: problem.switching for seed, problem in problems.tests.items()}
        training = problems.training.switching
        # Rules are tuned on what learners see: a lead must not come from more data.
        seen_by_rules = joined(training, problems.validation.switching, alike=False)
        notes = list(problems.notes)
        policies: dict[str, Mapping[int, Policy]] = {}
        times: dict[str, tuple[float, float]] = {}
        for number, (name, run) in enumerate(given.agents.items()):
            progress(scenario, number + 1, steps)
            try:
                if run is None:
                    seen = seen_by_rules if name in TUNED else training
                    policies[name], spent = _tuned(name, seen, tests)
                else:
                    notes += fit_notes(run, scenario, settings, training, tests)
                    policies[name], spent = run.agents, float(np.mean([*run.cpu_seconds.values()]))
            except InputError as error:
                said = f"{name} on scenario {scenario}: {error}"
                refused[name].append(said)
                if given.settings["agents"] and len(refused[name]) == len(given.scenarios):
                    raise InputError(refused[name][0]) from None
                notes.append(f"left out: {said}")
                continue
            times[name] = spent, _decision_seconds(policies[name], tests)
        if not policies:
            raise InputError(f"no agent fits scenario {scenario}: {notes[-1]}")
        evaluation = evaluate(policies, tests)
        progress(scenario, steps, steps)
        results.append(
            ScenarioResult(scenario, evaluation, tests, times, tuple(dict.fromkeys(notes)))
        )
    return results


def _tuned(
    name: str, training: SwitchingProblem, tests: Mapping[int, SwitchingProblem]
) -> tuple[dict[int, Policy], float]:
    """Return a built-in policy for every held-out timeline, and the CPU seconds of its tuning."""
    began = time.process_time()
    policies: dict[int, Policy] = {}
    for seed, test in tests.items():
        if policies and name not in BY_SEED:
            policies[seed] = next(iter(policies.values()))
        else:
            policies[seed] = baseline(name, training, test, seed=seed)
    return policies, time.process_time() - began


def _decision_seconds(
    policies: Mapping[int, Policy], tests: Mapping[int, SwitchingProblem]
) -> float:
    """Return the seconds of one decision for one cluster, the mean over an episode."""
    test = next(iter(tests.values()))
    first = rollout(next(iter(policies.values())), test, test.episodes()[:1])
    return first.deciding / test.episode_length


def _traffic(scenario: str, seed: int, test: SwitchingProblem) -> pd.DataFrame:
    """Return the queue features of a timeline's first episodes, a row an epoch and feature."""
    import pandas as pd

    epochs = TIMELINE_EPISODES * test.episode_length
    count = len(test.feature_names)
    return pd.DataFrame(
        {
            "record": "traffic",
            "scenario": scenario,
            "seed": seed,
            "episode": np.repeat(np.arange(epochs) // test.episode_length, count),
            "epoch": np.repeat(np.arange(epochs), count),
            "feature": np.tile(np.array(test.feature_names, dtype=object), epochs),
            "value": test.features[:epochs].ravel().astype(np.float64),
            "switching": test.switching,
        }
    )


def write_evaluation(
    given: EvaluateInput, results: list[ScenarioResult], out: str, overwrite: bool
) -> RunFolder:
    """Write config, results and times into a run folder.

    ``record`` says what a row of the results is: episode (an agent, seed and episode), summary (an
    agent over all of them), timeline (an agent's choice in an epoch of a seed's first episode),
    traffic (a queue feature of such an epoch) or curve (a point of a training). Costs are seconds.
    What differs from run to run is in ``timing.csv``: CPU seconds of tuning or training, and
    microseconds of a decision.
    """
    import pandas as pd

    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    facts = {"scenarios": {name: to_dict(own) for name, own in given.scenarios.items()}}
    folder = RunFolder.start(out, "evaluate", dict(given.settings), False, overwrite, notes, facts)
    frames = [frame for result in results for frame in result.frames()]
    for run in given.runs:
        if run.settings.agent in EXPERIENCED:
            frames += _curves(run)
    times = pd.DataFrame(
        [
            (result.scenario, agent, cpu, 1e6 * deciding)
            for result in results
            for agent, (cpu, deciding) in result.times.items()
        ],
        columns=["scenario", "agent", "training_cpu_s", "decision_us"],
    )
    write_atomic(folder.path / TIMING, times.to_csv(index=False, lineterminator="\n"))
    folder.finish(pd.concat(frames, ignore_index=True))
    return folder


def _curves(run: TrainedRun) -> Iterator[pd.DataFrame]:
    import pandas as pd

    for seed, agent in run.agents.items():
        points = pd.DataFrame(agent.curve, columns=["timesteps", "cost_relative_to_never_switch"])
        yield points.assign(
            record="curve",
            agent=run.name,
            scenario=scenario_label(run.settings.scenario),
            seed=seed,
            switching="hypothetical" if agent.hypothetical else "reachable",
        )
