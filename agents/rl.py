"""PPO on the switching problem, by Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from topomoe.agents.features import FixedLinear, fit
from topomoe.agents.learned import LearnedPolicy
from topomoe.agents.settings import PPOSettings
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.sb3 import SB3VecEnv

Progress = Callable[[int, int], None]


class EpochRegret(VecEnvWrapper):
    """Rewards measured from the cheapest configuration of each epoch, in units of the spread.

    What is added does not depend on the action, so the best policy stays the best; the luck of a
    cheap or dear epoch is gone from the returns (an input-dependent baseline: Mao et al. 2019).
    The division only sets the step size.
    """

    def __init__(self, venv: SB3VecEnv) -> None:
        super().__init__(venv)
        problem = venv.problem
        relative = problem.cost / problem.scale
        self.cheapest = relative.min(axis=1)
        regret = float((relative - self.cheapest[:, None]).mean())
        self.unit = max(regret, 1e-3)

    def reset(self) -> VecEnvObs:
        """Start all copies."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and take the epoch's cheapest cost out of the reward."""
        observation, reward, done, infos = self.venv.step_wait()
        epoch = [info["epoch"] for info in infos]
        return observation, (reward + self.cheapest[epoch]) / self.unit, done, infos


class Curve(BaseCallback):
    """Collect the learning curve, one point an update, and report progress."""

    def __init__(self, problem: SwitchingProblem, total: int, progress: Progress | None) -> None:
        super().__init__()
        self.problem, self.total, self.progress = problem, total, progress
        staying = problem.cost[:, problem.start]
        self.never = np.concatenate([[0.0], np.cumsum(staying)])
        self.ratios: list[float] = []
        self.points: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        length = self.problem.episode_length
        for info in self.locals["infos"]:
            if "episode" in info:
                last = info["epoch"] + 1
                never = self.never[last] - self.never[last - length]
                self.ratios.append(-info["episode"]["r"] * self.problem.scale / max(never, 1e-300))
        return True

    def _on_rollout_end(self) -> None:
        if self.ratios:
            self.points.append((self.num_timesteps, float(np.mean(self.ratios))))
            self.ratios = []
        if self.progress is not None:
            self.progress(min(self.num_timesteps, self.total), self.total)


def train(
    training: SwitchingProblem,
    settings: PPOSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LearnedPolicy:
    """Train PPO on a training problem and return the policy, with its learning curve.

    The same problem, settings and seed give the same weights on the same machine: one torch
    thread, and all draws from ``seed`` (Stable-Baselines3 seeds the global generators with it).

    Args:
        training: episodes are drawn from it, and start in its best single configuration.
        settings: None for the defaults.
        seed: of the weights, the exploration and the episodes.
        progress: called as ``progress(timesteps done, timesteps in all)`` after every rollout.
    """
    training = training.calibrated(training)
    chosen = settings or PPOSettings()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        copies = SB3VecEnv(chosen.copies, training, chosen.observe, chosen.queue)
        weight, bias = fit(training, copies.layout)
        features: dict[str, Any] = {"weight": weight, "bias": bias}
        model = PPO(
            "MlpPolicy",
            EpochRegret(copies),
            learning_rate=lambda left: chosen.learning_rate * left,
            n_steps=chosen.rollout,
            batch_size=min(chosen.batch_size, chosen.copies * chosen.rollout),
            n_epochs=chosen.passes,
            gamma=chosen.gamma,
            gae_lambda=chosen.gae_lambda,
            clip_range=chosen.clip_range,
            ent_coef=chosen.entropy,
            policy_kwargs={
                "net_arch": list(chosen.hidden),
                "features_extractor_class": FixedLinear,
                "features_extractor_kwargs": features,
            },
            seed=seed,
            device="cpu",
        )
        curve = Curve(training, chosen.timesteps, progress)
        model.learn(chosen.timesteps, callback=curve)
    finally:
        torch.set_num_threads(threads)
    return LearnedPolicy(
        network=model.policy,
        layout=copies.layout,
        settings=chosen,
        seed=seed,
        names=training.names,
        feature_names=training.feature_names,
        hypothetical=training.hypothetical,
        curve=tuple(curve.points),
    )
