"""Compare policies on a held-out problem, episode by episode, against the clairvoyant optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.agents.baselines import ONLINE
from topomoe.agents.bootstrap import interquartile_mean, interval, resample
from topomoe.agents.clairvoyant import plan
from topomoe.agents.policy import Policy
from topomoe.agents.rollout import Rollout, rollout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 2000


@dataclass(frozen=True)
class EpisodeRow:
    """One agent in one episode; seconds, and ratios of the episode's whole cost."""

    agent: str
    seed: int
    episode: int
    cost_s: float
    reconfiguration_s: float
    switches: int
    ratio_to_never_switch: float
    ratio_to_clairvoyant: float
    switching: str


@dataclass(frozen=True)
class SummaryRow:
    """One agent over all episodes and seeds.

    ``cost_s`` is the mean over episodes; ratios are interquartile means with 95 % bootstrap
    intervals over seeds and episodes. ``regret_closed`` = (best online - agent) / (best online -
    clairvoyant) in mean cost, None (n/a) where the two are equal or no online baseline took part.
    """

    agent: str
    seeds: int
    episodes: int
    cost_s: float
    ratio_to_never_switch: float
    ratio_to_never_switch_low: float
    ratio_to_never_switch_high: float
    ratio_to_clairvoyant: float
    ratio_to_clairvoyant_low: float
    ratio_to_clairvoyant_high: float
    regret_closed: float | None
    regret_closed_low: float | None
    regret_closed_high: float | None
    switches_per_100_epochs: float
    switching: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        rows: one an agent, seed and episode.
        summary: one an agent.
        rollouts: by (agent, seed): every epoch's choice and cost, [episodes, H].
        problem: what it was evaluated on.
    """

    rows: tuple[EpisodeRow, ...]
    summary: tuple[SummaryRow, ...]
    rollouts: Mapping[tuple[str, int], Rollout]
    problem: SwitchingProblem

    def to_frame(self) -> pd.DataFrame:
        """Return ``rows`` as a table."""
        import pandas

        return pandas.DataFrame([asdict(row) for row in self.rows])

    def summary_frame(self) -> pd.DataFrame:
        """Return ``summary`` as a table."""
        import pandas

        return pandas.DataFrame([asdict(row) for row in self.summary])

    def timeline_frame(self) -> pd.DataFrame:
        """Return every epoch of every agent as a table: what it chose and what that cost."""
        import pandas

        names = np.array(self.problem.names, dtype=object)
        tables = []
        for (agent, seed), run in self.rollouts.items():
            episodes, length = run.choice.shape
            parts = {f"{name}_s": part.ravel() for name, part in run.components.items()}
            tables.append(
                pandas.DataFrame(
                    {
                        "agent": agent,
                        "seed": seed,
                        "episode": np.arange(episodes).repeat(length),
                        "epoch": run.epoch.ravel(),
                        "choice": run.choice.ravel(),
                        "configuration": names[run.choice.ravel()],
                        "switched": run.switched.ravel(),
                        **parts,
                        "reconfiguration_s": run.reconfiguration.ravel(),
                        "cost_s": run.cost.ravel(),
                        "switching": self.problem.switching,
                    }
                )
            )
        return pandas.concat(tables, ignore_index=True)


def evaluate(
    policies: Mapping[str, Policy | Mapping[int, Policy]],
    test: SwitchingProblem,
    starts: ArrayLike | None = None,
    seed: int = 0,
) -> Evaluation:
    """Run every policy through the same episodes of a held-out problem.

    Args:
        policies: by name, one policy or one for each training seed, ``{"ppo": {0: a, 1: b}}``.
        test: the held-out problem, ``calibrated`` to the training problem, so that never-switch
            is staying in ``test.start``.
        starts: first epochs of the episodes; None: the timeline cut end to end.
        seed: of the bootstrap.

    Raises:
        InputError: no policies, a policy does not fit the problem, or some observe an epoch's
            costs beforehand and others do not.
    """
    runs: dict[tuple[str, int], Rollout] = {}
    seen: dict[str, str] = {}
    for name, given in policies.items():
        for number, policy in (given if isinstance(given, Mapping) else {0: given}).items():
            seen.setdefault(policy.layout.observe, name)
            runs[name, number] = rollout(policy, test, starts)
    if not runs:
        raise InputError("policies must name at least one policy")
    if len(seen) > 1:
        raise InputError(
            f"policies must observe alike: {seen['before']!r} observes before, "
            f"{seen['after']!r} after an epoch's costs are known"
        )
    epoch = next(iter(runs.values())).epoch
    optimum = plan(test, epoch[:, 0])[1]
    never = test.cost[epoch, test.start].sum(axis=1)
    rows = tuple(
        EpisodeRow(
            agent=name,
            seed=number,
            episode=episode,
            cost_s=float(cost),
            reconfiguration_s=float(run.reconfiguration[episode].sum()),
            switches=int(run.switched[episode].sum()),
            ratio_to_never_switch=_ratio(cost, never[episode]),
            ratio_to_clairvoyant=_ratio(cost, optimum[episode]),
            switching=test.switching,
        )
        for (name, number), run in runs.items()
        for episode, cost in enumerate(run.cost.sum(axis=1))
    )
    summary = _summarise(runs, optimum, never, test, np.random.default_rng(seed))
    return Evaluation(rows, summary, runs, test)


def _summarise(
    runs: Mapping[tuple[str, int], Rollout],
    optimum: NDArray[np.float64],
    never: NDArray[np.float64],
    test: SwitchingProblem,
    random: np.random.Generator,
) -> tuple[SummaryRow, ...]:
    names = list(dict.fromkeys(name for name, _ in runs))
    costs = {
        name: np.stack([run.cost.sum(axis=1) for (agent, _), run in runs.items() if agent == name])
        for name in names
    }
    online = [name for name in names if name in ONLINE]
    best = min(online, key=lambda name: float(costs[name].mean())) if online else None
    episodes = optimum.size
    rows = []
    for name in names:
        cost = costs[name]
        picks = resample(len(cost), episodes, DRAWS, random)
        to_never = _iqm(cost / np.maximum(never, 1e-300), picks)
        to_optimum = _iqm(cost / np.maximum(optimum, 1e-300), picks)
        regret: tuple[float | None, float | None, float | None] = (None, None, None)
        if best is not None:
            regret = _regret_closed(cost, costs[best].mean(axis=0), optimum, picks)
        switched = [run.switched.mean() for (agent, _), run in runs.items() if agent == name]
        rows.append(
            SummaryRow(
                name,
                len(cost),
                episodes,
                float(cost.mean()),
                *to_never,
                *to_optimum,
                *regret,
                switches_per_100_epochs=100.0 * float(np.mean(switched)),
                switching=test.switching,
            )
        )
    return tuple(rows)


def _iqm(
    ratio: NDArray[np.float64], picks: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[float, float, float]:
    drawn = ratio[picks[0][:, :, None], picks[1][:, None, :]].reshape(len(picks[0]), -1)
    return (float(interquartile_mean(ratio.ravel())), *interval(interquartile_mean(drawn)))


def _regret_closed(
    cost: NDArray[np.float64],
    online: NDArray[np.float64],
    optimum: NDArray[np.float64],
    picks: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[float | None, float | None, float | None]:
    gap = float((online - optimum).mean())
    if gap <= 1e-9 * float(optimum.mean()):
        return None, None, None
    point = float((online - cost.mean(axis=0)).mean()) / gap
    drawn = cost[picks[0][:, :, None], picks[1][:, None, :]].mean(axis=(1, 2))
    base = online[picks[1]].mean(axis=1)
    gaps = base - optimum[picks[1]].mean(axis=1)
    usable = gaps > 1e-9 * float(optimum.mean())
    return (point, *interval((base - drawn)[usable] / gaps[usable]))


def _ratio(cost: float, base: float) -> float:
    return float(cost / base) if base > 0 else (1.0 if cost == 0 else float("inf"))
