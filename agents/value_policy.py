"""A policy that takes the configuration of least predicted cost, and the folder it is kept in.

Nothing in the folder is code: ``agent.json``, ``policy.safetensors`` and a curve are JSON, plain
arrays and text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from topomoe.agents.backward_induction import Values
from topomoe.agents.policy import BatchPolicy
from topomoe.agents.value_features import FeatureMap, input_size, inputs_of, pairs_of, units_of
from topomoe.agents.value_origin import Origin, read_origin
from topomoe.agents.value_settings import MOST_EPOCHS, FullInformationSettings
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

CONFIG, WEIGHTS, CURVE = "agent.json", "policy.safetensors", "learning_curve.csv"
CURVE_HEAD = "horizon,cost_relative_to_never_switch"
FloatArray = NDArray[np.float64]


class QPolicy(BatchPolicy):
    """Take the configuration of least Q: epoch, what follows it, and the switch to it.

    It has no state: an observation alone decides.

    Args:
        origin: where it comes from.
        features: the map that values are linear in.
        values: the weights.
        switch_cost: float32 [K, K], reconfiguration / scale.
        metric: float32 [K, K], expected cost of each switch / scale; the chosen margin less 1 times
            this is what a switch has to gain beyond its cost.
    """

    def __init__(
        self,
        origin: Origin,
        features: FeatureMap,
        values: Values,
        switch_cost: NDArray[np.float32],
        metric: NDArray[np.float32],
    ) -> None:
        super().__init__(origin.layout)
        self.origin, self.features, self.values = origin, features, values
        self.switch_cost, self.metric = switch_cost, metric

    @property
    def algorithm(self) -> str:
        """``fitted-q`` or ``hindsight``."""
        return self.origin.algorithm

    @property
    def settings(self) -> FullInformationSettings:
        """How it was trained."""
        return self.origin.settings

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return self.origin.seed

    @property
    def names(self) -> tuple[str, ...]:
        """The configurations it chooses among."""
        return self.origin.names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The queue features it knows."""
        return self.origin.feature_names

    @property
    def hypothetical(self) -> bool:
        """Trained on fabrics that no switch turns into each other."""
        return self.origin.hypothetical

    @property
    def curve(self) -> tuple[tuple[int, float], ...]:
        """(horizon, validation cost relative to never switching)."""
        return self.origin.curve

    def q_values(self, observation: NDArray[np.float32]) -> FloatArray:
        """Return predicted cost to go / scale, [n, K], the switch included, for [n, size]."""
        batch = np.atleast_2d(np.asarray(observation, dtype=np.float32))
        count = self.layout.num_configurations
        stage, kind = self._stage(batch)
        features = self.features(inputs_of(batch, self.layout))
        current = self.current(batch)
        place = current % self.origin.placements
        cost = np.zeros((len(batch), count))
        if self.layout.observe == "after":
            cost += batch[:, self.layout["coming"]]
        for which in np.unique(stage):
            rows = np.flatnonzero(stage == which)
            cost[rows] += _linear(features[rows], self.values.weight[which])
            shift = _linear(features[rows], self.values.migration[kind[rows[0]]])
            cost[rows] += shift.reshape(len(rows), -1, count)[np.arange(len(rows)), place[rows]]
        excess = self.switch_cost + (self.origin.choice.margin - 1.0) * self.metric
        return np.asarray(cost + excess[current])

    def action_logits(
        self, observation: NDArray[np.float32], temperature: float = 0.05
    ) -> NDArray[np.float32]:
        """Return log-probabilities [n, K] that a learner may imitate: softmax of -Q / temperature.

        Args:
            observation: float32 [n, size].
            temperature: cost / scale by which an action may be worse and still be likely.

        Raises:
            InputError: temperature is not > 0.
        """
        if not temperature > 0:
            raise InputError(f"temperature must be > 0, got {temperature}")
        batch = np.atleast_2d(np.asarray(observation, dtype=np.float32))
        if self.origin.switches:
            score = -self.q_values(batch) / temperature
        else:
            score = np.where(batch[:, self.layout["current"]] > 0, 0.0, -30.0)
        score -= score.max(axis=1, keepdims=True)
        score -= np.log(np.exp(score).sum(axis=1, keepdims=True))
        return score.astype(np.float32)

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the configurations of least Q; the current one in a tie."""
        current = self.current(observation)
        if not self.origin.switches:
            return current, state
        value = self.q_values(observation)
        copies = np.arange(len(value))
        best = value.argmin(axis=1)
        better = value[copies, best] < value[copies, current]
        return np.where(better, best, current).astype(np.int64), state

    def check(self, problem: SwitchingProblem) -> None:
        """Raise InputError unless the problem has the agent's configurations and features."""
        self.origin.check(problem)

    def save(self, folder: str | Path) -> None:
        """Write the agent's folder."""
        target = Path(folder)
        weights = save_arrays(_arrays(self))
        config = self.origin.as_config() | {
            "weights_sha256": sha256(weights).hexdigest(),
            "versions": {name: version(name) for name in ("topomoe", "numpy", "safetensors")},
        }
        rows = [f"{horizon},{ratio!r}" for horizon, ratio in self.curve]
        write_atomic(target / WEIGHTS, weights)
        write_atomic(target / CURVE, "\n".join([CURVE_HEAD, *rows]) + "\n")
        write_atomic(target / CONFIG, json.dumps(config, indent=2) + "\n")

    def _stage(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        length, opening = self.origin.episode_length, len(self.values.migration) - 1
        left = np.rint(batch[:, self.layout["left"]][:, 0].astype(np.float64) * length)
        left = np.clip(left, 1, length).astype(np.int64)
        age = length - left
        late = opening - 1 + np.minimum(left, len(self.values.weight) - opening)
        return np.where(age < opening, age, late), np.minimum(age, opening)


def load(folder: str | Path, config: Mapping[str, Any]) -> QPolicy:
    """Read the policy that ``QPolicy.save`` wrote; ``config`` is what its agent.json holds.

    Raises:
        InputError: a file is missing or damaged, or does not belong to the others.
    """
    source = Path(folder)
    curve = _read_curve(source / CURVE)
    try:
        origin = read_origin(config, curve)
    except InputError as error:
        raise InputError(f"{source / CONFIG}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = _one_line(error)
        raise InputError(f"{source / CONFIG}: not an agent's configuration ({why})") from None
    arrays = _read_weights(source / WEIGHTS, origin, str(config.get("weights_sha256")))
    features = FeatureMap(
        pairs=pairs_of(origin.layout, origin.choice.features),
        **{field.name: arrays[field.name] for field in fields(FeatureMap) if field.name != "pairs"},
    )
    values = Values(arrays["weight"], arrays["migration"])
    return QPolicy(origin, features, values, arrays["switch_cost"], arrays["metric"])


def _arrays(policy: QPolicy) -> dict[str, NDArray[np.float32]]:
    features = {
        field.name: getattr(policy.features, field.name)
        for field in fields(FeatureMap)
        if field.name != "pairs"
    }
    own = {
        "weight": policy.values.weight,
        "migration": policy.values.migration,
        "switch_cost": policy.switch_cost,
        "metric": policy.metric,
    }
    return {name: np.ascontiguousarray(array) for name, array in (features | own).items()}


def _read_weights(path: Path, origin: Origin, digest: str) -> dict[str, NDArray[np.float32]]:
    try:
        content = path.read_bytes()
        arrays = load_arrays(content)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None
    layout, choice = origin.layout, origin.choice
    inputs, pairs = input_size(layout), len(pairs_of(layout, choice.features))
    units = units_of(choice.features, origin.settings.units)
    count, size = layout.num_configurations, inputs + pairs + units + 1
    # -1: any size that is not zero; the stages are checked below.
    wanted = {
        "centre": (inputs,),
        "spread": (inputs,),
        "pair_centre": (pairs,),
        "pair_spread": (pairs,),
        "projection": (inputs, units),
        "offset": (units,),
        "random_centre": (units,),
        "random_spread": (units,),
        "weight": (-1, size, count),
        "migration": (-1, -1, origin.placements * count),
        "switch_cost": (count, count),
        "metric": (count, count),
    }
    if arrays.keys() != wanted.keys():
        odd = sorted(arrays.keys() ^ wanted.keys())
        raise InputError(f"{path}: weights of another network: {odd[0]} is missing or extra")
    for key, value in arrays.items():
        shape = wanted[key]
        fits = value.ndim == len(shape) and all(
            own == need or (need == -1 and own)
            for own, need in zip(value.shape, shape, strict=True)
        )
        if not fits or value.dtype != np.float32:
            raise InputError(
                f"{path}: {key} must be float32 of shape {list(shape)}, "
                f"got {value.dtype} of {list(value.shape)}"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {key} must be finite, got NaN or infinity")
    opening, stages = len(arrays["migration"]) - 1, len(arrays["weight"])
    later = stages - opening
    if (
        not 1 <= opening <= min(origin.episode_length, stages)
        or later > MOST_EPOCHS
        or (not later and opening < origin.episode_length)
    ):
        raise InputError(f"{path}: weight must have a stage for every epoch of an episode")
    if arrays["migration"].shape[1] not in (1, size):
        raise InputError(f"{path}: migration must have 1 or {size} rows a stage")
    if sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: the contents are not those that {CONFIG} names by SHA-256")
    return arrays


def _read_curve(path: Path) -> tuple[tuple[int, float], ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if not lines or lines[0] != CURVE_HEAD:
            raise ValueError(f"the first line must be {CURVE_HEAD}")
        return tuple((int(a), float(b)) for a, b in (line.split(",") for line in lines[1:]))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None


def _linear(features: FloatArray, weight: NDArray[np.float32]) -> FloatArray:
    if len(weight) == 1:
        return np.tile(weight[0].astype(np.float64), (len(features), 1))
    return np.asarray(features @ weight[:-1] + weight[-1])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
