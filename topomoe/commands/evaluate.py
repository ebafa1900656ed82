"""What ``topomoe evaluate`` does: every agent on the same held-out episodes, into one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from topomoe.agents.baselines import BASELINES, baseline
from topomoe.agents.evaluate import Evaluation, evaluate
from topomoe.agents.policy import Policy
from topomoe.commands.settings import EvaluateSettings, TrainSettings
from topomoe.commands.train import TEST, TRAINING
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario import build_problems
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.run_folder import CONFIG, RunFolder
from topomoe.settings import merge
from topomoe.topologies.errors import InputError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from topomoe.agents.learned import LearnedPolicy


@dataclass(frozen=True, eq=False)
class EvaluateInput:
    """The problems and, by name, the policies (learned ones by seed)."""

    training: SwitchingProblem
    test: SwitchingProblem
    policies: Mapping[str, Policy | Mapping[int, Policy]]
    learned: Mapping[str, Mapping[int, LearnedPolicy]]


def prepare_evaluation(settings: EvaluateSettings) -> tuple[EvaluateSettings, EvaluateInput]:
    """Load or build all that is compared; InputError for unknown names and unfit folders.

    Where a trained folder is among the agents its scenario holds, and is in the settings returned.
    """
    runs = [name for name in settings.agents if name not in BASELINES]
    for name in runs:
        if not name or not Path(name).is_dir():
            raise unknown("agent or folder of topomoe train", name, BASELINES)
    if runs:
        training = SwitchingProblem.load(Path(runs[0]) / TRAINING)
        test = SwitchingProblem.load(Path(runs[0]) / TEST)
        settings = replace(settings, problem=_stored_problem(runs, settings.problem))
    else:
        training, test = build_problems(settings.problem)
    learned = {_label(name): _load_seeds(Path(name), test) for name in runs}
    if len(learned) != len(runs) or learned.keys() & set(BASELINES):
        raise InputError(
            f"agents must differ in name (a folder's is its last part), got {','.join(runs)}"
        )
    policies: dict[str, Policy | Mapping[int, Policy]] = {}
    for name in settings.agents:
        if name in BASELINES:
            policies[name] = baseline(name, training, test)
        else:
            policies[_label(name)] = dict(learned[_label(name)])
    return settings, EvaluateInput(training, test, policies, learned)


def _stored_problem(runs: list[str], asked: ScenarioSettings) -> ScenarioSettings:
    """Return the scenario all the folders were trained on; InputError where one differs.

    What was asked for beside the defaults must be what is stored.
    """
    stored = [merge(TrainSettings, str(Path(run) / CONFIG), {}).problem for run in runs]
    for field in fields(ScenarioSettings):
        here = getattr(stored[0], field.name)
        for run, other in zip(runs[1:], stored[1:], strict=True):
            if getattr(other, field.name) != here:
                raise InputError(
                    f"{field.name} is {here!r} in {runs[0]} and "
                    f"{getattr(other, field.name)!r} in {run}"
                )
        wanted = getattr(asked, field.name)
        if wanted not in (here, getattr(ScenarioSettings(), field.name)):
            raise InputError(f"{field.name} is {here!r} in {runs[0]}, {wanted!r} was asked for")
    return stored[0]


def _label(folder: str) -> str:
    return Path(folder).resolve().name


def _load_seeds(folder: Path, test: SwitchingProblem) -> dict[int, LearnedPolicy]:
    from topomoe.agents.learned import load_agent

    seeds = sorted(folder.glob("seed-*"), key=lambda path: path.name)
    if not seeds:
        raise InputError(f"{folder}: holds no trained agent (seed-0, seed-1, ...)")
    agents = [load_agent(path, test) for path in seeds]
    return {agent.seed: agent for agent in agents}


def evaluate_agents(given: EvaluateInput, folder: RunFolder) -> Evaluation:
    """Run every agent through the held-out episodes and write the table.

    ``record`` says what a row is: episode (an agent, seed and episode), summary (an agent),
    timeline (an agent's choice in an epoch) or curve (a point of a training).
    """
    import pandas as pd

    result = evaluate(given.policies, given.test)
    frames: list[pd.DataFrame] = [
        result.to_frame().assign(record="episode"),
        result.summary_frame().assign(record="summary"),
        result.timeline_frame().assign(record="timeline"),
    ]
    for name, seeds in given.learned.items():
        for seed, agent in seeds.items():
            curve = pd.DataFrame(
                agent.curve, columns=["timesteps", "cost_relative_to_never_switch"]
            )
            frames.append(
                curve.assign(record="curve", agent=name, seed=seed, switching=given.test.switching)
            )
    folder.finish(pd.concat(frames, ignore_index=True))
    return result


def summary_rows(result: Evaluation) -> list[dict[str, str]]:
    """Return the summary as text, a row an agent."""

    def ratio(value: float, low: float, high: float) -> str:
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    return [
        {
            "agent": row.agent,
            "cost / never-switch": ratio(
                row.ratio_to_never_switch,
                row.ratio_to_never_switch_low,
                row.ratio_to_never_switch_high,
            ),
            "cost / clairvoyant": ratio(
                row.ratio_to_clairvoyant,
                row.ratio_to_clairvoyant_low,
                row.ratio_to_clairvoyant_high,
            ),
            "regret closed": "n/a" if row.regret_closed is None else f"{row.regret_closed:.2f}",
            "switches / 100 epochs": f"{row.switches_per_100_epochs:.1f}",
            "seeds": str(row.seeds),
            "episodes": str(row.episodes),
        }
        for row in result.summary
    ]
