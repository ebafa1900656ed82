"""OptiMoE's scale table, computed: rule, best static and clairvoyant on 16 to 128 devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.baselines import baseline
from topomoe.agents.bootstrap import sample_index, share_estimate
from topomoe.agents.evaluate import evaluate
from topomoe.agents.policy import Policy
from topomoe.durations import duration_text
from topomoe.envs.pattern_scale import (
    HELD_OUT,
    TRAINING,
    PatternTimeline,
    charged,
    fabric_routings,
    iteration_cost,
    mean_demand,
    pattern_timeline,
)
from topomoe.envs.pattern_scale_settings import PATH_LATENCY, ScaleSettings
from topomoe.envs.problem import SwitchingProblem
from topomoe.patterns import PATTERNS
from topomoe.table_text import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

AGENTS = ("never-switch", "static-best", "rule", "greedy", "hysteresis", "clairvoyant")
DRAWS = 2000
# OptiMoE's table: baseline and own latency in microseconds, by devices.
PUBLISHED: Mapping[int, tuple[float, float]] = {
    16: (5.82, 5.01),
    32: (4.73, 3.82),
    64: (4.17, 3.03),
    128: (3.91, 2.58),
}


def scale_rows(settings: ScaleSettings, progress: Progress | None = None) -> pd.DataFrame:
    """Return the whole study as a table; ``record`` says what a row is.

    ``agent``: a policy on the held-out timelines at one accounting, number of devices and delay:
    ``cost_s`` an iteration; ``ratio`` of its cost to the best static's, and ``ratio_to_mean`` to
    the mean of the statics', each with ``_low`` and ``_high`` of a 95 % bootstrap over seeds and
    episodes. The statics pay for no switch. ``static``: a fabric over the held-out timelines
    (``pattern`` is ``all``) or one pattern's iterations, ``ratio`` to the best there. ``routing``:
    a fabric under a pattern's mean demand, its routing default or optimal.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    steps = len(settings.devices) * (settings.seeds + 1)
    done = 0
    for devices in settings.devices:
        pairs = []
        for seed in range(settings.seeds):
            pairs.append(
                tuple(
                    pattern_timeline(settings, devices, seed, side) for side in (TRAINING, HELD_OUT)
                )
            )
            done += 1
            if progress is not None:
                progress("timelines", done, steps)
        for accounting in settings.accountings:
            shared = {"accounting": accounting, "devices": devices, "switching": "hypothetical"}
            held_out = [test for _, test in pairs]
            rows += [shared | row for row in _static_rows(accounting, held_out)]
            problems = [(a.problems[accounting], b.problems[accounting]) for a, b in pairs]
            for delay in settings.delays:
                rows += [shared | row for row in _agent_rows(problems, delay)]
        rows += _routing_rows(settings, devices)
        done += 1
        if progress is not None:
            progress("timelines", done, steps)
    return pd.DataFrame(rows)


def _agent_rows(
    problems: list[tuple[SwitchingProblem, SwitchingProblem]], delay: float
) -> Iterator[dict[str, Any]]:
    """Yield a row an agent, over all pairs of a training and a held-out problem."""
    policies: dict[str, dict[int, Policy]] = {agent: {} for agent in AGENTS}
    tests: dict[int, SwitchingProblem] = {}
    best, mean = [], []
    for seed, (free_training, free_test) in enumerate(problems):
        training = charged(free_training, delay)
        training = training.calibrated(training)
        tests[seed] = test = charged(free_test, delay).calibrated(training)
        whole = test.cost[test.episodes()[:, None] + np.arange(test.episode_length)].sum(axis=1)
        best.append(whole[:, whole.sum(axis=0).argmin()])
        mean.append(whole.mean(axis=1))
        for agent in AGENTS:
            policies[agent][seed] = baseline(agent, training, test)
    runs = evaluate(policies, tests).runs
    picks = sample_index(len(best), len(best[0]), DRAWS, np.random.default_rng(0), shared=False)
    for agent in AGENTS:
        own = [runs[agent, seed] for seed in tests]
        cost = np.stack([run.cost for run in own])
        rewiring = np.mean([run.rollout.reconfiguration for run in own])
        yield {
            "record": "agent",
            "delay_s": delay,
            "agent": agent,
            "pattern": "all",
            "cost_s": float(np.mean([run.rollout.cost.mean() for run in own])),
            "reconfiguration_s": float(rewiring),
            "switches_per_100_epochs": 100 * float(np.mean([run.rollout.switched for run in own])),
            **share_estimate(cost, np.stack(best), picks).columns("ratio"),
            **share_estimate(cost, np.stack(mean), picks).columns("ratio_to_mean"),
        }


def _static_rows(accounting: str, held_out: list[PatternTimeline]) -> Iterator[dict[str, Any]]:
    """Yield a row a fabric and pattern, and of all patterns."""
    pattern = np.concatenate([timeline.pattern for timeline in held_out])
    cost = np.concatenate([timeline.problems[accounting].cost for timeline in held_out])
    names = held_out[0].problems[accounting].names
    for place, name in enumerate(("all", *PATTERNS)):
        chosen = cost if name == "all" else cost[pattern == place - 1]
        if len(chosen):
            yield from _fabric_rows(name, names, chosen.mean(axis=0))


def _routing_rows(settings: ScaleSettings, devices: int) -> Iterator[dict[str, Any]]:
    """Yield a row a fabric and pattern for its mean demand, by default and by optimal routing."""
    from topomoe.network.optimum import optimal

    for accounting, routings in fabric_routings(settings, devices).items():
        if accounting == PATH_LATENCY:  # has no load to spread
            continue
        shared = {
            "record": "routing",
            "accounting": accounting,
            "devices": devices,
            "switching": "hypothetical",
        }
        for pattern in PATTERNS:
            demand = mean_demand(settings, devices, pattern)[None]
            cost = {
                "default": [float(iteration_cost(accounting, r, demand)[0]) for r in routings],
            }
            if devices <= settings.optimal_devices:
                cost["optimal"] = [optimal(r.topology, demand[0]) for r in routings]
            for routing, seconds in cost.items():
                for row in _fabric_rows(pattern, settings.fabrics, np.array(seconds)):
                    yield row | shared | {"routing": routing}


def _fabric_rows(
    pattern: str, names: tuple[str, ...], cost: FloatArray
) -> Iterator[dict[str, Any]]:
    for name, seconds in zip(names, cost.tolist(), strict=True):
        yield {
            "record": "static",
            "agent": name,
            "pattern": pattern,
            "cost_s": seconds,
            "ratio": seconds / float(cost.min()),
            "ratio_to_mean": seconds / float(cost.mean()),
        }


_GAINS = (
    ("ratio_to_mean", "rule"),
    ("ratio_to_mean", "clairvoyant"),
    ("ratio", "rule"),
    ("ratio", "hysteresis"),
    ("ratio", "clairvoyant"),
)


def scale_table(frame: pd.DataFrame) -> Table:
    """Return gains by accounting, devices and delay, beside the published ones, as text."""
    rows = []
    agents = frame[frame["record"] == "agent"]
    statics = frame[(frame["record"] == "static") & (frame["pattern"] == "all")]
    for key, group in agents.groupby(["accounting", "devices", "delay_s"], sort=False):
        accounting, devices, delay = cast("tuple[str, int, float]", key)
        own: dict[str, dict[str, Any]] = {
            str(row["agent"]): dict(row) for _, row in group.iterrows()
        }
        fabrics = statics[(statics["accounting"] == accounting) & (statics["devices"] == devices)]
        best = dict(fabrics.sort_values("cost_s", kind="stable").iloc[0])
        before, after = PUBLISHED.get(int(devices), (np.nan, np.nan))
        rows.append(
            (
                Cell(accounting),
                Cell(f"{devices}"),
                Cell("not charged" if delay == 0 else duration_text(delay)),
                Cell(str(best["agent"])),
                _percent(1 - best["ratio_to_mean"]),
                *(_percent(1 - own[agent][column]) for column, agent in _GAINS),
                Cell(f"{own['rule']['switches_per_100_epochs']:.1f}"),
                _percent(1 - after / before),
            )
        )
    return Table(
        name="scale",
        title="Switching fabrics by pattern: gain by scale",
        note="Gain: time saved on held-out iterations, reconfigurations included; negative where "
        "slower. The mean is that of the statics, which OptiMoE compares with; the best static is "
        "the best single fabric in hindsight. Hypothetical: no switch turns these fabrics into "
        "each other.",
        columns=(
            "accounting",
            "devices",
            "delay",
            "best static",
            "its gain over the mean",
            "rule over the mean",
            "clairvoyant over the mean",
            "rule over the best static",
            "hysteresis over the best static",
            "clairvoyant over the best static",
            "rule's switches / 100",
            "published, over the mean",
        ),
        numeric=(False, True, True, False, *(True,) * 8),
        rows=tuple(rows),
    )


def _percent(gain: float) -> Cell:
    """Return a gain in percent; never minus nothing."""
    return Cell("n/a" if np.isnan(gain) else f"{round(100 * gain, 1) + 0.0:.1f} %")


def routing_table(frame: pd.DataFrame) -> Table:
    """Return what free switching between fabrics gains by routing, as text.

    The best fabric for each pattern's mean time, against the best single one.
    """
    rows = []
    own = frame[frame["record"] == "routing"]
    for key, group in own.groupby(["accounting", "devices", "routing"], sort=False):
        accounting, devices, routing = cast("tuple[str, int, str]", key)
        table = group.pivot(index="pattern", columns="agent", values="cost_s")
        cost = table.loc[list(PATTERNS)].to_numpy(dtype=np.float64)
        fabrics = [str(name) for name in table.columns]
        alone = cost.mean(axis=0)
        rows.append(
            (
                Cell(accounting),
                Cell(f"{devices}"),
                Cell(routing),
                Cell(fabrics[int(alone.argmin())]),
                Cell(f"{1e6 * alone.min():.4g}"),
                *(Cell(fabrics[best]) for best in cost.argmin(axis=1)),
                _percent(1 - float(cost.min(axis=1).mean() / alone.min())),
            )
        )
    return Table(
        name="scale_routing",
        title="The best fabric for each pattern, by routing",
        note="Mean microseconds over the patterns; the gain is that of the best fabric for each "
        "pattern over the best static, switches free. For each pattern's mean demand; "
        "optimal: splits fitted to it by linear programming, latency left out.",
        columns=(
            "accounting",
            "devices",
            "routing",
            "best static",
            "us",
            *PATTERNS,
            "gain of switching",
        ),
        numeric=(False, True, False, False, True, *(False,) * len(PATTERNS), True),
        rows=tuple(rows),
    )
