"""Reinforcement learning on the switching problem: PPO, MaskablePPO and DQN, resumable."""

from __future__ import annotations

from pathlib import Path

import torch

from topomoe.agents.checkpoint import CHECKPOINT
from topomoe.agents.imitation import Teacher
from topomoe.agents.learned import ALGORITHMS, CONFIG, LearnedPolicy, Settings, load_agent
from topomoe.agents.settings import PPOSettings
from topomoe.agents.training_run import Progress, TrainingRun
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError, unknown


def train(
    algorithm: str,
    training: SwitchingProblem,
    settings: Settings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    validation: SwitchingProblem | None = None,
    warm_start: Teacher | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    log: bool = True,
    observe: str = "before",
    queue: bool = True,
) -> LearnedPolicy:
    """Train on a training problem and return the policy, with its learning curve.

    The same problem, settings and seed give the same weights on the same machine: one torch
    thread, and all draws from ``seed`` (Stable-Baselines3 seeds the global generators with it).
    With a folder, the training can be killed at any moment and resumed there, and ends with the
    same bytes; only its logs, which hold times of day, differ.

    Args:
        algorithm: ppo, maskable-ppo or dqn.
        training: episodes are drawn from it, and start in its best single configuration.
        settings: PPOSettings or DQNSettings; None for the defaults.
        seed: of the weights, the exploration and the episodes.
        progress: called as ``progress(timesteps done, timesteps in all)`` after every update.
        validation: episodes by which the policy is chosen among those of the second half of the
            training, and how readily it switches; None: the last policy, as it is.
        warm_start: a policy that PPO imitates first; None: the one that the settings name, if any.
        folder: where checkpoints, logs and, at the end, the agent are written; None: nowhere.
        resume: go on from the folder's checkpoint, or return the agent that is there already.
        log: write progress.csv and TensorBoard events into the folder.
        observe: whether the coming epoch's costs are observed: before (no) or after (yes).
        queue: whether queue features are observed.

    Raises:
        InputError: there is no such algorithm, the settings are another's, or the folder's
            checkpoint is of another training.
    """
    if algorithm not in ALGORITHMS:
        raise unknown("algorithm", algorithm, ALGORITHMS)
    training = training.calibrated(training)
    chosen = settings or ALGORITHMS[algorithm][0]()
    if not isinstance(chosen, ALGORITHMS[algorithm][0]):
        raise InputError(f"settings must be {ALGORITHMS[algorithm][0].__name__} for {algorithm}")
    if warm_start is not None and algorithm == "dqn":
        raise InputError("warm_start is for ppo and maskable-ppo, not dqn")
    home = None if folder is None else Path(folder)
    if home is not None and resume and (home / CONFIG).is_file():
        _tidy(home)
        finished = load_agent(home, training)
        if not isinstance(finished, LearnedPolicy):
            raise InputError(f"{home}: holds an agent of {finished.algorithm}, not {algorithm}")
        return finished
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = TrainingRun(algorithm, training, validation, chosen, seed, observe, queue)

        def teacher() -> Teacher | None:
            if warm_start is not None or not isinstance(chosen, PPOSettings):
                return warm_start
            return _teacher(chosen.warm_start, training, validation, observe, queue, seed)

        run.learn(teacher, progress, home, resume, log)
        agent = run.policy()
    finally:
        torch.set_num_threads(threads)
    if home is not None:
        agent.save(home)
        _tidy(home)
    return agent


def _teacher(
    name: str,
    training: SwitchingProblem,
    validation: SwitchingProblem | None,
    observe: str,
    queue: bool,
    seed: int,
) -> Teacher | None:
    from topomoe.agents import fitted_q, hindsight
    from topomoe.agents.value_settings import FittedQSettings, HindsightSettings

    if name == "fitted-q":
        chosen = FittedQSettings(observe=observe, queue=queue)
        return fitted_q.train(training, chosen, seed, validation)
    if name == "hindsight":
        other = HindsightSettings(observe=observe, queue=queue)
        return hindsight.train(training, other, seed, validation)
    return None


def _tidy(home: Path) -> None:
    """Remove the checkpoint of a training that is over, and files that a kill left half-written."""
    (home / CHECKPOINT).unlink(missing_ok=True)
    for part in home.glob(".*.part"):
        part.unlink(missing_ok=True)
