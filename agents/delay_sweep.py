"""Policies that rewire, scored against never switching at one reconfiguration delay after another.

What a policy needs to know comes from the training timeline; which policy is best at a delay is
decided there too. Held-out steps only score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from topomoe.agents.bootstrap import interval
from topomoe.agents.layer_schedule import (
    Collectives,
    FloatArray,
    IntArray,
    best_actions,
    best_cycle,
    run_actions,
)
from topomoe.agents.step_rules import GREEDY, Rules, follow, hysteresis_rules
from topomoe.envs.delay_timeline import Timeline

NEVER = "never-switch"
# Simplest first: of two that are equally fast in training, the earlier is chosen.
ONLINE = (
    NEVER,
    "hysteresis",
    "queue",
    "greedy",
    "layer-wirings",
    "rotor",
    "birkhoff",
    "mixnet",
    "layer-plan",
)
HINDSIGHT = ("static-best", "clairvoyant")
UNROUTED = "never-switch-default"  # what never-switch would be under default routings
LEAST_GAIN = 1e-2  # share of never-switch's training time that another policy must save
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True, eq=False)
class Score:
    """Seconds of a policy's steps at each delay, [D, B], and of them the exposed rewirings."""

    seconds: FloatArray
    rewiring: FloatArray


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What the policies came to on one workload.

    Attributes:
        delays: [D] seconds.
        training, held_out: each policy's score by name.
        best: the online policy that was fastest in training, one a delay.
        bound: [B] seconds of the held-out steps if only the devices' ports took time.
        rest: [B] seconds of the held-out steps off the network.
        never: name of the wiring that never-switch keeps.
        never_routing: how that wiring is routed.
        block: neighbouring steps that are resampled together.
    """

    delays: FloatArray
    training: Mapping[str, Score]
    held_out: Mapping[str, Score]
    best: tuple[str, ...]
    bound: FloatArray
    rest: FloatArray
    never: str
    never_routing: str
    block: int

    def ratio(self, policy: str, network: bool = False) -> FloatArray:
        """Return held-out seconds over never-switch's, [D]; ``network``: of the collectives."""
        rest = self.rest if network else 0.0
        own, base = self.held_out[policy].seconds - rest, self.held_out[NEVER].seconds - rest
        return np.asarray(own.sum(axis=1) / base.sum(axis=1))

    def intervals(self, policy: str, seed: int) -> FloatArray:
        """Return 95 % intervals of ``ratio``, [D, 2], over blocks of held-out steps."""
        own, base = self.held_out[policy].seconds, self.held_out[NEVER].seconds
        steps = own.shape[1]
        rng = np.random.default_rng(seed)
        first = rng.integers(steps, size=(DRAWS, -(-steps // self.block), 1))
        drawn = ((first + np.arange(self.block)) % steps).reshape(DRAWS, -1)[:, :steps]
        times = np.zeros((DRAWS, steps))
        np.add.at(times, (np.arange(DRAWS)[:, None], drawn), 1.0)
        return np.array([interval(row) for row in ((times @ own.T) / (times @ base.T)).T])

    def never_wins_from(self) -> float:
        """Return the least delay from which on never-switch is chosen; infinite if never."""
        others = [d for d, name in enumerate(self.best) if name != NEVER]
        after = others[-1] + 1 if others else 0
        return float(self.delays[after]) if after < len(self.delays) else np.inf


def sweep(training: Timeline, held_out: Timeline, delays: FloatArray) -> SweepResult:
    """Score every policy at every delay on both timelines."""
    start = int(training.cost.sum(axis=(0, 1)).argmin())
    unrouted = int(training.usual.sum(axis=(0, 1)).argmin())
    lines = training, held_out
    tables = [_collectives(timeline, timeline.cost, delays) for timeline in lines]
    seen = [_collectives(timeline, timeline.least, delays) for timeline in lines]
    cycles = _cycles(training, tables[0])
    rules = _tuned_rules(training, tables[0], start)
    scores = []
    for timeline, table, foreseen in zip(lines, tables, seen, strict=True):
        actions = {
            **_constant(timeline, table, start),
            **{name: np.tile(cycle, len(timeline.rest)) for name, cycle in cycles.items()},
            **{
                name: _follow(rule, training, timeline, tables[0], start, name == "queue")[
                    chosen, np.arange(len(delays))
                ].repeat(timeline.window.shape[1], axis=1)
                for name, (rule, chosen) in rules.items()
            },
        }
        best = best_actions(foreseen, start)
        scores.append(
            {
                **{
                    name: _score(run_actions(table, actions[name], start), timeline)
                    for name in (*ONLINE, *HINDSIGHT)
                    if name in actions
                },
                "clairvoyant": _score(run_actions(foreseen, best, start), timeline),
                UNROUTED: _unchanging(timeline.usual[:, :, unrouted], timeline, delays),
            }
        )
    return SweepResult(
        delays=delays,
        training=scores[0],
        held_out=scores[1],
        best=tuple(_chosen(scores[0], d) for d in range(len(delays))),
        bound=held_out.bound.sum(axis=1) + held_out.rest,
        rest=held_out.rest,
        never=training.names[start],
        never_routing=training.routings[start],
        block=held_out.block,
    )


def _constant(timeline: Timeline, table: Collectives, start: int) -> dict[str, IntArray]:
    """Return the actions [D, T] of the policies that always do the same."""
    shape = table.exposed.shape
    names = [*timeline.names, *_others(timeline)]
    actions = {name: np.full(shape, names.index(name)) for name in _others(timeline)}
    wirings = [np.full(shape, k) for k in range(len(timeline.names))]
    totals = [run_actions(table, each, start)[0].sum(axis=1) for each in wirings]
    best = np.argmin(totals, axis=0)[:, None]
    return {**actions, NEVER: wirings[start], "static-best": np.broadcast_to(best, shape)}


def _cycles(training: Timeline, table: Collectives) -> dict[str, IntArray]:
    """Return the plans of a step's collectives, [D, P], on the mean of the training steps."""
    if training.cost.shape[1] == 1:
        return {}  # one decision a step has no order to plan
    mean = _mean_step(table, len(training.rest))
    wirings = len(training.names)
    plans = {"layer-wirings": wirings, "layer-plan": wirings + len(_others(training))}
    return {name: best_cycle(_some(mean, np.arange(count))) for name, count in plans.items()}


def _tuned_rules(
    training: Timeline, table: Collectives, start: int
) -> dict[str, tuple[Rules, IntArray]]:
    """Return the rules that choose a wiring a step, and which is fastest in training at each D."""
    rules = {"greedy": GREEDY, "hysteresis": hysteresis_rules()}
    if training.queue is not None:
        rules["queue"] = hysteresis_rules()
    length = training.window.shape[1]
    tuned = {}
    for name, rule in rules.items():
        totals = [
            run_actions(table, followed.repeat(length, axis=1), start)[0].sum(axis=1)
            for followed in _follow(rule, training, training, table, start, name == "queue")
        ]
        tuned[name] = rule, np.argmin(totals, axis=0)
    return tuned


def _follow(
    rules: Rules,
    training: Timeline,
    timeline: Timeline,
    table: Collectives,
    start: int,
    queue: bool,
) -> IntArray:
    """Return the steps' wirings by rules, [G, D, B]; ``table`` is the training timeline's."""
    length = timeline.window.shape[1]
    exposed = table.exposed.reshape(len(table.exposed), -1, length)[:, :, 0].mean(axis=1)
    prior = training.cost.sum(axis=1).mean(axis=0)
    newest = np.concatenate([[prior], timeline.cost[:-1].sum(axis=1)])
    if queue:
        newest = _from_queue(training, timeline)
    return follow(newest, exposed, start, rules)


def _from_queue(training: Timeline, timeline: Timeline) -> FloatArray:
    """Return the seconds [B, K] that a straight line through training expects of each queue."""
    if training.queue is None or timeline.queue is None:
        raise ValueError("a timeline without a queue shows none")
    known = np.stack([np.ones_like(training.queue), training.queue], axis=1)
    line = np.linalg.lstsq(known, training.cost.sum(axis=1), rcond=None)[0]
    return np.asarray(line[0] + timeline.queue[:, None] * line[1])


def _chosen(training: Mapping[str, Score], d: int) -> str:
    """Return the policy that is fastest in training; never-switch if it saves next to nothing."""
    total = {name: float(training[name].seconds[d].sum()) for name in ONLINE if name in training}
    best = min(total, key=lambda name: total[name])
    return best if total[best] < (1.0 - LEAST_GAIN) * total[NEVER] else NEVER


def _others(timeline: Timeline) -> tuple[str, ...]:
    """Return the actions beside the wirings, in the order of ``_collectives``."""
    return (*timeline.scheduled, *(("mixnet",) if timeline.redrawn is not None else ()))


def _collectives(timeline: Timeline, cost: FloatArray, delays: FloatArray) -> Collectives:
    """Return what each action costs: wirings, schedules, redrawn circuits, schedules foreseen.

    cost [B, P, K] is that of the wirings.
    """
    steps, length, wirings = cost.shape
    shape = (len(delays), steps * length)
    fixed = cost.reshape(1, -1, wirings)
    parts = [np.broadcast_to(fixed, (*shape, wirings))]
    parts += [seconds.reshape(*shape, 1) for seconds in timeline.scheduled.values()]
    own = [False] * wirings + [True] * len(timeline.scheduled)
    if timeline.redrawn is not None:
        parts.append(np.broadcast_to(timeline.redrawn.reshape(1, -1, 1), (*shape, 1)))
        own.append(False)
    parts.append(timeline.foreseen.reshape(*shape, 1))
    own.append(True)
    redraws = np.zeros((shape[1], len(own)), dtype=np.bool_)
    if timeline.redrawn is not None:
        redraws[:, -2] = np.tile(timeline.redraws, steps)
    exposed = timeline.exposed(delays).reshape(shape)
    return Collectives(np.concatenate(parts, axis=2), exposed, redraws, np.array(own))


def _mean_step(table: Collectives, steps: int) -> Collectives:
    delays, _, actions = table.cost.shape
    cost = table.cost.reshape(delays, steps, -1, actions).mean(axis=1)
    exposed = table.exposed.reshape(delays, steps, -1).mean(axis=1)
    return Collectives(cost, exposed, table.redraws[: cost.shape[1]], table.own)


def _some(table: Collectives, actions: IntArray) -> Collectives:
    return Collectives(
        table.cost[:, :, actions], table.exposed, table.redraws[:, actions], table.own[actions]
    )


def _unchanging(seconds: FloatArray, timeline: Timeline, delays: FloatArray) -> Score:
    """Return the score of collectives [B, P] that no rewiring precedes."""
    steps = seconds.sum(axis=1) + timeline.rest
    shape = (len(delays), len(steps))
    return Score(np.broadcast_to(steps, shape), np.zeros(shape))


def _score(ran: tuple[FloatArray, FloatArray], timeline: Timeline) -> Score:
    seconds, rewiring = (
        part.reshape(len(part), len(timeline.rest), -1).sum(axis=2) for part in ran
    )
    return Score(seconds + timeline.rest, rewiring)
