"""Fit values to a training timeline, and choose how on validation episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.backward_induction import (
    Timeline,
    horizon_of,
    migration_cost,
    opening_of,
    solve,
)
from topomoe.agents.rollout import rollout
from topomoe.agents.static import Fixed
from topomoe.agents.value_features import FeatureMap, fit_features, inputs_of, observations
from topomoe.agents.value_origin import Origin
from topomoe.agents.value_policy import QPolicy
from topomoe.agents.value_settings import Choice, FullInformationSettings
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
MOST_TRIED = 2048  # epochs that policies are fitted to while choosing; in the end: all
OVERLAP = 4  # validation episodes begin this many times an episode's length


@dataclass(frozen=True, eq=False)
class Inputs:
    """A timeline before the choice of features: inputs by age, and costs / scale."""

    inputs: tuple[FloatArray, ...]
    cost: FloatArray
    migration: FloatArray
    known: FloatArray


def learn(
    algorithm: str,
    training: SwitchingProblem,
    settings: FullInformationSettings,
    targets: Sequence[str],
    seed: int,
    validation: SwitchingProblem | None,
    progress: Progress | None,
) -> QPolicy:
    """Return the policy that costs least on validation episodes, fitted to all episodes.

    Args:
        algorithm: its name, as agents keep it.
        training: the timeline learned from.
        settings: what is tried.
        targets: kinds of values, of ``backward_induction``.
        seed: of the random features.
        validation: episodes that choose; None: the last quarter of ``training``.
        progress: called as ``progress(policies tried, policies in all)``.

    Raises:
        InputError: the two problems are of different environments.
    """
    training = training.calibrated(training)
    pairs, everything = _split(training, validation)
    folds = [
        (Learner(algorithm, settings, seed, training, fitted), Judge(judged, settings.observe))
        for fitted, judged in pairs
    ]
    kinds = settings.features
    if not folds[0][0].layout.sizes["queue"]:
        kinds = tuple(kind for kind in kinds if not kind.startswith("queue")) or ("linear",)
    total = len(kinds) * len(settings.ridge) * len(targets)
    total += len(settings.horizons) + len(settings.margins) - 2
    tried: list[tuple[float, Choice]] = []

    def measure(choice: Choice) -> FloatArray:
        return np.asarray(np.mean([judge(each.fit(choice)) for each, judge in folds], axis=0))

    def attempt(choices: Sequence[Choice]) -> Choice:
        for choice in choices:
            tried.append((float(measure(choice)[0]), choice))
            if progress is not None:
                progress(len(tried), total)
        return min(tried, key=lambda pair: pair[0])[1]

    best = attempt(
        [
            Choice(kind, ridge, settings.horizons[0], settings.margins[0], target)
            for kind in kinds
            for target in targets
            for ridge in settings.ridge
        ]
    )
    best = attempt([replace(best, horizon=horizon) for horizon in settings.horizons[1:]])
    best = attempt([replace(best, margin=margin) for margin in settings.margins[1:]])
    gain, error = measure(best)[1:]
    curve = tuple(
        (horizon, float(measure(replace(best, horizon=horizon))[0]))
        for horizon in (
            *(2**n for n in range(best.horizon.bit_length()) if 2**n < best.horizon),
            best.horizon,
        )
    )
    policy = Learner(algorithm, settings, seed, training, everything).fit(best)
    switches = bool(gain > settings.proof * error)
    origin = replace(policy.origin, switches=switches, curve=curve)
    return QPolicy(origin, policy.features, policy.values, policy.switch_cost, policy.metric)


class Learner:
    """Fits policies to the same timelines, with whatever they share computed once.

    Args:
        algorithm: its name, as agents keep it.
        settings: what is observed, and what agents keep.
        seed: of the random features.
        training: what the timelines are calibrated to.
        problems: the timelines.
    """

    def __init__(
        self,
        algorithm: str,
        settings: FullInformationSettings,
        seed: int,
        training: SwitchingProblem,
        problems: Sequence[SwitchingProblem],
    ) -> None:
        self.algorithm, self.settings, self.seed, self.training = (
            algorithm,
            settings,
            seed,
            training,
        )
        self.layout = ObservationLayout.of(training, settings.observe, settings.queue)
        self.length = training.episode_length
        self.epochs = max(problem.num_epochs for problem in problems)
        opening = opening_of(self.length, self.epochs)
        self.parts = [_inputs(problem, self.layout, opening) for problem in problems]
        self.features = lru_cache(maxsize=1)(self._features)

    def fit(self, choice: Choice) -> QPolicy:
        """Return the policy of one combination of settings."""
        features, timelines = self.features(choice.features)
        training = self.training
        switch = training.switch_cost / training.scale
        metric = training.metric / training.scale
        metric = metric - np.diag(np.diag(metric))
        values = solve(
            timelines,
            switch,
            (choice.margin - 1.0) * metric,
            horizon_of(self.length, choice.horizon, self.epochs),
            choice.ridge,
            choice.target,
        )
        origin = Origin(
            algorithm=self.algorithm,
            settings=self.settings,
            choice=choice,
            switches=True,
            seed=self.seed,
            episode_length=self.length,
            names=training.names,
            feature_names=training.feature_names,
            demand_names=training.demand_names,
            placements=training.num_placements,
            hypothetical=training.hypothetical,
        )
        return QPolicy(
            origin, features, values, switch.astype(np.float32), metric.astype(np.float32)
        )

    def _features(self, kind: str) -> tuple[FeatureMap, tuple[Timeline, ...]]:
        together = np.concatenate([part.inputs[-1] for part in self.parts])
        features = fit_features(together, self.layout, kind, self.settings.units, self.seed)
        return features, tuple(
            Timeline(part.cost, part.migration, part.known, tuple(features(x) for x in part.inputs))
            for part in self.parts
        )


class Judge:
    """Measures policies on the same validation episodes, which overlap."""

    def __init__(self, problem: SwitchingProblem, observe: str) -> None:
        self.problem = problem
        stride = max(problem.episode_length // OVERLAP, 1)
        last = problem.num_epochs - problem.episode_length
        self.starts = np.unique(np.append(np.arange(0, last + 1, stride), last))
        self.apart = max(problem.num_epochs / problem.episode_length, 1.0)
        stay = Fixed(ObservationLayout.of(problem, observe), problem.start)
        self.never = rollout(stay, problem, self.starts).cost.sum(axis=1)

    def __call__(self, policy: QPolicy) -> tuple[float, float, float]:
        """Return the cost relative to never switching, the mean gain and its standard error."""
        cost = rollout(policy, self.problem, self.starts).cost.sum(axis=1)
        gain = self.never - cost
        error = float(gain.std() / np.sqrt(self.apart))
        return float(cost.sum() / max(self.never.sum(), 1e-300)), float(gain.mean()), error


def _split(
    training: SwitchingProblem, validation: SwitchingProblem | None
) -> tuple[
    list[tuple[tuple[SwitchingProblem, ...], SwitchingProblem]], tuple[SwitchingProblem, ...]
]:
    """Return pairs of what is fitted and what judges it, and what is fitted in the end.

    Placements are made from training requests, so held-out requests cost otherwise. Each half of
    the validation timeline is judged by what was fitted to the other half beside the training.
    """
    length, epochs = training.episode_length, training.num_epochs
    if validation is None:
        whole = len(training.episodes())
        cut = (whole - whole // 4) * length
        if whole < 4:
            return [((training,), training)], (training,)
        return [((training.part(0, cut),), training.part(cut, epochs))], (training,)
    if validation.episode_length != length:
        raise InputError(
            f"validation must have episodes of {length} epochs, got {validation.episode_length}"
        )
    judged = validation.calibrated(training)
    recent = training.part(max(epochs - MOST_TRIED, 0), epochs)
    half = judged.num_epochs // 2
    if half < 2 * length:
        return [((recent,), judged)], (training, judged)
    halves = judged.part(0, half), judged.part(half, judged.num_epochs)
    pairs: list[tuple[tuple[SwitchingProblem, ...], SwitchingProblem]] = [
        ((recent, halves[0]), halves[1]),
        ((recent, halves[1]), halves[0]),
    ]
    return pairs, (training, judged)


def _inputs(problem: SwitchingProblem, layout: ObservationLayout, opening: int) -> Inputs:
    cost = problem.cost / problem.scale
    return Inputs(
        tuple(
            inputs_of(observations(problem, layout, age), layout) for age in (*range(opening), None)
        ),
        cost,
        migration_cost(problem),
        cost if layout.observe == "after" else np.zeros_like(cost),
    )
