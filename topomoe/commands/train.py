"""What ``topomoe train`` does: build the scenario's problems, train each seed, keep all of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.settings import DQNSettings
from topomoe.agents.value_settings import FittedQSettings, HindsightSettings
from topomoe.commands.processes import Progress, cores, run_seeds
from topomoe.commands.settings import (
    DQNTraining,
    FittedQTraining,
    HindsightTraining,
    PPOTraining,
    TrainSettings,
)
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario import build_problems
from topomoe.run_folder import HALF_WRITTEN, RunFolder
from topomoe.topologies.files import write_atomic

if TYPE_CHECKING:
    from topomoe.agents.value_policy import QPolicy

TIMING = "timing.csv"
TIMES = ("cpu_seconds", "wall_seconds")
EXPERIENCED = ("ppo", "maskable-ppo", "dqn")  # whose curves run over epochs experienced
_NOTED = 1.0  # seconds between two notes of the time that a training took


@dataclass(frozen=True, eq=False)
class TrainingInput:
    """The problems an agent is trained on and chosen by, and what to tell of them."""

    training: SwitchingProblem
    validation: SwitchingProblem
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return what the run's config says of the problems."""
        return {"training_sha256": fingerprint(self.training)}


def fingerprint(problem: SwitchingProblem) -> str:
    """Return the SHA-256 of all that a switching problem's numbers are."""
    digest = sha256(repr((problem.names, problem.feature_names, problem.demand_names)).encode())
    arrays: list[NDArray[Any]] = [problem.cost, problem.switch_cost, problem.features]
    arrays += [problem.demand, problem.steps, problem.bound]
    if problem.migration is not None:
        arrays += [problem.migration.stall, problem.migration.lag]
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def prepare_training(settings: TrainSettings) -> TrainingInput:
    """Return the scenario's training and validation problems."""
    problems = build_problems(settings.problem, seeds=())
    return TrainingInput(problems.training.switching, problems.validation.switching, problems.notes)


@dataclass(frozen=True, eq=False)
class SeedTraining:
    """The training of one seed, as a process of its own can run it."""

    settings: TrainSettings
    training: SwitchingProblem
    validation: SwitchingProblem
    folder: Path

    def __call__(self, seed: int, progress: Progress) -> None:
        """Train into folder/seed-S; what a killed training left there is taken up."""
        home = self.folder / f"seed-{seed}"
        clock = _Clock(home / TIMING)

        def tick(done: int, total: int) -> None:
            clock.note()
            progress(done, total)

        _learn(self.settings, self.training, self.validation, seed, home, tick)
        clock.note(last=True)
        for part in home.glob(HALF_WRITTEN):
            part.unlink(missing_ok=True)


def _learn(
    settings: TrainSettings,
    training: SwitchingProblem,
    validation: SwitchingProblem,
    seed: int,
    home: Path,
    progress: Progress,
) -> None:
    """Train one seed and write its folder."""
    if isinstance(settings, PPOTraining | DQNTraining):
        from topomoe.agents import rl

        seen = settings.observation
        rl.train(
            settings.agent,
            training,
            settings.learner,
            seed,
            progress,
            validation,
            _teacher(settings, training, validation, seed, home),
            folder=home,
            resume=True,
            observe=seen.observe,
            queue=seen.queue,
        )
        return
    from topomoe.agents import fitted_q, hindsight

    if isinstance(settings, FittedQTraining):
        fitted_q.train(training, settings.learner, seed, validation, progress).save(home)
    if isinstance(settings, HindsightTraining):
        hindsight.train(training, settings.learner, seed, validation, progress).save(home)


def _teacher(
    settings: PPOTraining | DQNTraining,
    training: SwitchingProblem,
    validation: SwitchingProblem,
    seed: int,
    home: Path,
) -> QPolicy | None:
    """Return the policy that PPO imitates first; None: no such, or it is past that."""
    learner, seen = settings.learner, settings.observation
    if isinstance(learner, DQNSettings) or not learner.warm_start:
        return None
    from topomoe.agents import fitted_q, hindsight
    from topomoe.agents.checkpoint import CHECKPOINT

    if (home / CHECKPOINT).is_file():
        return None
    if learner.warm_start == "fitted-q":
        own = FittedQSettings(observe=seen.observe, queue=seen.queue)
        return fitted_q.train(training, own, seed, validation)
    other = HindsightSettings(observe=seen.observe, queue=seen.queue)
    return hindsight.train(training, other, seed, validation)


class _Clock:
    """Counts the time that a training takes, over all the processes it took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = read_times(path)
        self.began = time.process_time(), time.monotonic()
        self.noted = time.monotonic()

    def note(self, last: bool = False) -> None:
        """Write the time so far, once a second and at the end."""
        now = time.process_time(), time.monotonic()
        if not last and now[1] - self.noted < _NOTED:
            return
        self.noted = now[1]
        spent = [
            old + here - began
            for old, here, began in zip(self.before, now, self.began, strict=True)
        ]
        write_atomic(self.path, f"{','.join(TIMES)}\n{spent[0]:.3f},{spent[1]:.3f}\n")


def read_times(path: Path) -> tuple[float, float]:
    """Return the CPU and wall seconds of a training; zeros where they are not known."""
    try:
        cpu, wall = path.read_text(encoding="utf-8").splitlines()[1].split(",")
        return float(cpu), float(wall)
    except (OSError, ValueError, IndexError):
        return 0.0, 0.0


def train_agents(
    settings: TrainSettings,
    given: TrainingInput,
    folder: RunFolder,
    processes: int,
    progress: Callable[[str, int, int], None],
) -> None:
    """Train what is not yet there into folder/seed-S, and write the results.

    ``record`` says what a row is: curve (a point of a training) or validation (a trained agent on
    the validation timeline).
    """
    import pandas as pd

    seeds = range(settings.seeds)
    missing = [s for s in seeds if not (folder.path / f"seed-{s}" / "agent.json").is_file()]
    work = SeedTraining(settings, given.training, given.validation, folder.path)
    run_seeds(
        work,
        missing,
        processes or cores(),
        lambda seed, done, total: progress(f"{settings.agent}, seed {seed}", done, total),
    )
    from topomoe.agents.evaluate import evaluate
    from topomoe.agents.learned import load_agent

    agents = {seed: load_agent(folder.path / f"seed-{seed}", given.training) for seed in seeds}
    common = {
        "agent": settings.agent,
        "scenario": scenario_label(settings.scenario),
        "switching": given.training.switching,
    }
    frames = [
        pd.DataFrame(agent.curve, columns=["timesteps", "cost_relative_to_never_switch"]).assign(
            record="curve", seed=seed, **common
        )
        for seed, agent in agents.items()
        if settings.agent in EXPERIENCED and len(agent.curve)
    ]
    validated = evaluate({settings.agent: agents}, given.validation).to_frame()
    frames.append(validated.assign(record="validation", scenario=common["scenario"]))
    folder.finish(pd.concat(frames, ignore_index=True))


def scenario_label(name: str) -> str:
    """Return what tables call a scenario: its name, or that of its file."""
    return Path(name).stem if name.endswith(".toml") else name


def training_rows(settings: TrainSettings, folder: RunFolder) -> list[dict[str, str]]:
    """Return what the trained agents do on the validation timeline as text, a row a seed."""
    results = folder.results()
    rows = results[results["record"] == "validation"]
    found = []
    for seed in range(settings.seeds):
        own = rows[rows["seed"] == seed]
        cpu, _ = read_times(folder.path / f"seed-{seed}" / TIMING)
        found.append(
            {
                "agent": settings.agent,
                "seed": str(seed),
                "validation cost / never-switch": f"{own['ratio_to_never_switch'].mean():.3f}",
                "validation cost / clairvoyant": f"{own['ratio_to_clairvoyant'].mean():.3f}",
                "training CPU s": f"{cpu:.1f}",
            }
        )
    return found
