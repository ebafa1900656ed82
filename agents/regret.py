"""Rewards for training: what an epoch cost beyond its cheapest configuration."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from topomoe.envs.sb3 import SB3VecEnv


class EpochRegret(VecEnvWrapper):
    """Rewards measured from the cheapest configuration of each epoch, in units of the mean regret.

    What is added depends on the epoch alone, not on the action, so the best policy stays the best;
    the luck of a cheap or dear epoch is gone from the returns (an input-dependent baseline: Mao et
    al. 2019). Whatever a switch costs, migration included, stays in the reward. The division only
    sets the step size.
    """

    def __init__(self, venv: SB3VecEnv) -> None:
        super().__init__(venv)
        self.copies = venv
        problem = venv.problem
        relative = problem.cost / problem.scale
        self.cheapest = relative.min(axis=1).astype(np.float32)
        self.cheapest.flags.writeable = False
        self.unit = max(float((relative - relative.min(axis=1)[:, None]).mean()), 1e-3)

    def reset(self) -> VecEnvObs:
        """Start all copies."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and take the epoch's cheapest cost out of the reward."""
        observation, reward, done, infos = self.venv.step_wait()
        return observation, (reward + self.cheapest[self.copies.epochs]) / self.unit, done, infos
