"""A training under way: what happens between two rollouts, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from hashlib import sha256
from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from topomoe.agents.checkpoint import CHECKPOINT, FORMAT, capture, restore
from topomoe.agents.dqn import make_dqn
from topomoe.agents.experience import split
from topomoe.agents.features import FixedLinear, fit
from topomoe.agents.imitation import Teacher, imitate
from topomoe.agents.learned import LearnedPolicy, Settings
from topomoe.agents.networks import ActionValue, Network
from topomoe.agents.ppo import make_maskable_ppo, make_ppo
from topomoe.agents.regret import EpochRegret
from topomoe.agents.selection import Selection
from topomoe.agents.settings import PPOSettings
from topomoe.agents.training_log import open_log
from topomoe.checkpoint_file import Checkpoint
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.topologies.errors import InputError

Progress = Callable[[int, int], None]
MAKE: Mapping[str, Callable[..., BaseAlgorithm]] = {
    "ppo": make_ppo,
    "maskable-ppo": make_maskable_ppo,
    "dqn": make_dqn,
}
LOG_ROWS = 128  # a training's logs have about as many rows at most


class TrainingRun(BaseCallback):
    """A training under way: what Stable-Baselines3 calls between rollouts, and its results."""

    def __init__(
        self,
        algorithm: str,
        training: SwitchingProblem,
        validation: SwitchingProblem | None,
        settings: Settings,
        seed: int,
        observe: str,
        queue: bool,
    ) -> None:
        super().__init__()
        held_out = None if validation is None else validation.calibrated(training)
        self.validation = held_out
        described = json.dumps([algorithm, asdict(settings), seed, observe, queue])
        digest = sha256(described.encode())
        for problem in (training,) if held_out is None else (training, held_out):
            _describe(problem, digest)
        self.identity = digest.hexdigest()
        training, judged = split(training, held_out)
        self.algorithm, self.training_problem = algorithm, training
        self.settings, self.seed = settings, seed
        self.copies = EpochRegret(SB3VecEnv(_setting(settings, "copies"), training, observe, queue))
        self.layout = self.copies.copies.layout
        fixed = fit(training, self.layout, seed)
        self.algorithm_model = MAKE[algorithm](
            self.copies,
            settings,
            seed,
            {
                "net_arch": list(_setting(settings, "hidden")),
                "features_extractor_class": FixedLinear,
                "features_extractor_kwargs": {
                    "size": fixed.weight.shape[1],
                    "fixed": fixed,
                },
                "optimizer_class": torch.optim.AdamW,
                "optimizer_kwargs": {
                    "eps": 1e-5,
                    "weight_decay": _setting(settings, "weight_decay"),
                },
            },
        )
        self.round = self.copies.num_envs * int(_setting(settings, "rollout"))
        self.updates = ceil(_setting(settings, "timesteps") / self.round)
        self.selection = Selection(judged, _setting(settings, "candidates"), self.updates)
        staying = training.cost[:, training.start]
        self.never = np.concatenate([[0.0], np.cumsum(staying)])
        self.ratios: list[float] = []
        self.points: list[tuple[int, float]] = []
        self.progress: Progress | None = None
        self.home: Path | None = None

    def learn(
        self,
        teacher: Callable[[], Teacher | None] | None,
        progress: Progress | None,
        home: Path | None,
        resume: bool,
        log: bool,
    ) -> None:
        """Train to the end, from the checkpoint in ``home`` if there is one to resume.

        Args:
            teacher: makes the policy that is imitated first, where the training starts anew.
            progress: called after every update.
            home: where checkpoints and logs are written; None: nowhere.
            resume: whether to read a checkpoint.
            log: whether to write logs.
        """
        self.progress, self.home = progress, home
        model = self.algorithm_model
        checkpoint = (
            Checkpoint.read(home / CHECKPOINT, FORMAT) if home is not None and resume else None
        )
        total = self.updates * self.round
        if checkpoint is not None:
            self._resume(checkpoint)
        else:
            self._warm_up(teacher)
        done = model.num_timesteps
        model.set_logger(open_log(home if log else None, done))
        try:
            if done < total:
                model.learn(total - done, self, log_interval=None, reset_num_timesteps=not done)  # type: ignore[arg-type]
                self._updated()
        finally:
            model.logger.close()

    def _warm_up(self, make_teacher: Callable[[], Teacher | None] | None) -> None:
        settings = self.settings
        teacher = None if make_teacher is None else make_teacher()
        if teacher is None or not isinstance(settings, PPOSettings):
            return
        network = self._network
        assert not isinstance(network, ActionValue)
        imitate(network, teacher, self.training_problem, self.copies.unit, settings, self.seed)
        self.selection.consider(network, self._policy(0.0), 0)

    def policy(self) -> LearnedPolicy:
        """Return the policy that validation chooses."""
        self._network.load_state_dict(self.selection.weights)
        # All of validation: half of it would hold too few episodes to tell gain from luck.
        margin = self.selection.margin(self._policy, self.validation)
        return self._policy(margin, self.selection.timesteps)

    @property
    def _network(self) -> Network:
        return self.algorithm_model.policy  # type: ignore[return-value]

    def _policy(self, margin: float, selected: int = 0) -> LearnedPolicy:
        problem = self.training_problem
        return LearnedPolicy(
            network=self._network,
            layout=self.layout,
            algorithm=self.algorithm,
            settings=self.settings,
            seed=self.seed,
            names=problem.names,
            feature_names=problem.feature_names,
            hypothetical=problem.hypothetical,
            curve=tuple(self.points),
            margin=margin,
            selected=selected,
        )

    def _on_step(self) -> bool:
        dones = self.locals["dones"]
        if dones.any():
            problem = self.training_problem
            for copy in dones.nonzero()[0]:
                info = self.locals["infos"][copy]
                last = info["epoch"] + 1
                never = self.never[last] - self.never[last - problem.episode_length]
                cost = -info["episode"]["r"] * problem.scale
                self.ratios.append(float(cost / max(never, 1e-300)))
        return True

    def _on_rollout_end(self) -> None:
        if self.ratios:
            self.points.append((self.num_timesteps, float(np.mean(self.ratios))))
            self.ratios = []

    def _on_rollout_start(self) -> None:
        # The learning step after the last rollout is over by now.
        if self.num_timesteps > self.begun:
            self._updated()
            every = _setting(self.settings, "checkpoint_every")
            if self.home is not None and (self.num_timesteps // self.round) % every == 0:
                self._checkpoint(self.home)

    def _on_training_start(self) -> None:
        self.begun = self.num_timesteps = self.algorithm_model.num_timesteps

    def _updated(self) -> None:
        done = self.algorithm_model.num_timesteps
        update = done // self.round
        if update % max(self.updates // LOG_ROWS, 1) == 0:
            if self.points:
                self.logger.record("rollout/cost_relative_to_never_switch", self.points[-1][1])
            self.algorithm_model.dump_logs()
        if update in self.selection.tried:
            self.selection.consider(self._network, self._policy(0.0), done)
        if self.progress is not None:
            total = int(_setting(self.settings, "timesteps"))
            self.progress(min(done, total), total)

    def _checkpoint(self, home: Path) -> None:
        found = capture(self.algorithm_model, self.copies.copies)
        best = {f"best.{key}": value.numpy() for key, value in self.selection.weights.items()}
        values = {
            "identity": self.identity,
            "curve": self.points,
            "ratios": self.ratios,
            "selected": [self.selection.timesteps, _finite(self.selection.cost)],
        }
        Checkpoint({**found.arrays, **best}, {**found.values, **values}).write(
            home / CHECKPOINT, FORMAT
        )

    def _resume(self, checkpoint: Checkpoint) -> None:
        values = checkpoint.values
        if values.get("identity") != self.identity:
            raise InputError(
                f"{CHECKPOINT}: of a training with another problem, other settings or another seed"
            )
        restore(checkpoint, self.algorithm_model, self.copies.copies)
        try:
            self.points = [(int(done), float(ratio)) for done, ratio in values["curve"]]
            self.ratios = [float(ratio) for ratio in values["ratios"]]
            timesteps, cost = values["selected"]
            self.selection.timesteps = int(timesteps)
            self.selection.cost = inf if cost is None else float(cost)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{CHECKPOINT}: not a training's checkpoint ({error})") from None
        self.selection.weights = {
            key.removeprefix("best."): torch.from_numpy(array.copy())
            for key, array in checkpoint.arrays.items()
            if key.startswith("best.")
        }


def _setting(settings: Settings, name: str) -> Any:
    own = name if isinstance(settings, PPOSettings) else f"dqn_{name}"
    return getattr(settings, own)


def _finite(value: float) -> float | None:
    return None if value == inf else value


def _describe(problem: SwitchingProblem, digest: Any) -> None:
    """Add to ``digest`` all that a training takes from a problem."""
    arrays: list[NDArray[Any]] = [
        problem.cost,
        problem.switch_cost,
        problem.features,
        problem.demand,
        problem.prior,
    ]
    if problem.migration is not None:
        arrays += [problem.migration.stall, problem.migration.lag]
        arrays += [problem.network, np.array(problem.migration.slowdown)]
    digest.update(repr((problem.names, problem.start, problem.episode_length)).encode())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype)).encode())
        digest.update(np.ascontiguousarray(array))
