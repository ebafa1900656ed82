"""The parts of ``topomoe decisions``: each turns one task into rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from topomoe.commands.decision_boundary import boundary_rows
from topomoe.commands.decision_routing import routing_rows
from topomoe.commands.decision_scores import (
    CLAIRVOYANT,
    FITTED,
    NEVER,
    RULE,
    THOROUGH,
    Scores,
    Timelines,
    clairvoyant,
    contenders,
    fitted,
    rule,
    score,
    share_columns,
)
from topomoe.commands.decision_tasks import Progress, Rows, Task, scenario_of, seeds_of
from topomoe.commands.decisions_settings import DecisionsSettings
from topomoe.envs.pattern_scale_settings import near_square
from topomoe.envs.scenario import build_problems
from topomoe.envs.subset import restrict

CHOICES = ("topology", "placement", "both")  # what may be switched


def gains_rows(settings: DecisionsSettings, task: Task, progress: Progress) -> Rows:
    """Return what switching topologies, placements, and both costs; shares of it; and routing."""
    problems = build_problems(scenario_of(settings, task.scenario), seeds_of(settings))
    whole = Timelines.of(problems)
    start = whole.training.start
    topology = whole.training.topologies[int(whole.training.topology_of(start))]
    placement = whole.training.placements[int(whole.training.placement_of(start))]
    kept: dict[str, tuple[list[str] | None, list[str] | None]] = {
        "topology": (None, [placement]),
        "placement": ([topology], None),
        "both": (None, None),
    }
    common = {"scenario": task.scenario, "keeps": f"{topology}/{placement}"}
    scores: dict[str, Scores] = {}
    rows: Rows = []
    for choice in CHOICES:
        given = Timelines.made(
            restrict(whole.training, *kept[choice]),
            restrict(whole.validation, *kept[choice]),
            {seed: restrict(test, *kept[choice]) for seed, test in whole.tests.items()},
        )
        agents, best = contenders(given, THOROUGH, settings.seed)
        scores[choice] = score({**agents, CLAIRVOYANT: clairvoyant(given)}, given)
        rows += [
            {**common, "record": "gain", "switches": choice, **row}
            | {"rule": best if row["agent"] == RULE else ""}
            for row in scores[choice].rows()
        ]
    rows += [{**common, **row} for row in share_rows(scores)]
    rows += [{"scenario": task.scenario, **row} for row in routing_rows(problems)]
    progress(1, 1)
    return rows


def share_rows(scores: dict[str, Scores]) -> Iterator[dict[str, Any]]:
    """Yield each kind of switch's part of the gain of both: its Shapley value.

    That is the mean of what it saves alone and of what it saves beside the other.
    """
    both = scores["both"]
    for agent in (RULE, FITTED, CLAIRVOYANT):
        for choice, other in (("topology", "placement"), ("placement", "topology")):
            alone = both.never - scores[choice].cost[agent]
            beside = scores[other].cost[agent] - both.cost[agent]
            part = 0.5 * (alone + beside)
            yield {
                "record": "share",
                "agent": agent,
                "switches": choice,
                **share_columns(part, both.never),
                "share": _share(part, both.never - both.cost[agent]),
            }


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else np.nan


def queue_rows(settings: DecisionsSettings, task: Task, progress: Progress) -> Rows:
    """Return agents with and without what is known of the queue."""
    given = Timelines.of(build_problems(scenario_of(settings, task.scenario), seeds_of(settings)))
    rows: Rows = []
    for queue in (True, False):
        agents = {"forecast": rule("forecast", given, queue)}
        agents[FITTED] = fitted(given, THOROUGH, settings.seed, queue)
        if not queue:  # they never look at it
            agents |= {name: rule(name, given) for name in ("hysteresis", "work-function")}
        scored = score(agents, given)
        if queue:
            bound = score({CLAIRVOYANT: clairvoyant(given)}, given)
            rows += [{**row, "queue": True} for row in bound.rows()]
        rows += [{**row, "queue": queue} for row in scored.rows()]
    progress(1, 1)
    return [{"scenario": task.scenario, **row} for row in rows]


def size_rows(settings: DecisionsSettings, task: Task, progress: Progress) -> Rows:
    """Return agents on a cluster of so many devices."""
    grid = "x".join(str(side) for side in near_square(task.devices))
    problems = build_problems(scenario_of(settings, task.scenario, grid), seeds_of(settings))
    given = Timelines.of(problems)
    agents = {
        NEVER: rule(NEVER, given),
        "hysteresis": rule("hysteresis", given),
        "forecast": rule("forecast", given),
        FITTED: fitted(given, THOROUGH, settings.seed),
    }
    scores = score({**agents, CLAIRVOYANT: clairvoyant(given)}, given)
    slots = int((problems.training.cluster.slot_device[0] >= 0).sum())
    progress(1, 1)
    return [
        {
            "scenario": task.scenario,
            "devices": task.devices,
            "slots": slots,
            "epoch_s": given.training.scale,
            **row,
        }
        for row in scores.rows()
    ]


def scale_part_rows(settings: DecisionsSettings, task: Task, progress: Progress) -> Rows:
    """Return OptiMoE's table, computed."""
    from topomoe.commands.scales import scale_rows

    frame = scale_rows(settings.scale, lambda what, done, of: progress(done, of))
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


ROWS: dict[str, Callable[[DecisionsSettings, Task, Progress], Rows]] = {
    "boundary": boundary_rows,
    "gains": gains_rows,
    "queue": queue_rows,
    "size": size_rows,
    "scale": scale_part_rows,
}
