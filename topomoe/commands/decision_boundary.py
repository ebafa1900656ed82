"""The part ``boundary`` of ``topomoe decisions``: where switching pays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from topomoe.commands.decision_scores import (
    CLAIRVOYANT,
    QUICK,
    RULE,
    Timelines,
    cheapest,
    clairvoyant,
    contenders,
    score,
)
from topomoe.commands.decision_tasks import Progress, Rows, Task, scenario_of, seeds_of
from topomoe.commands.decisions_settings import DecisionsSettings
from topomoe.envs.rescale import FAST, SLOW, full_migration, migrating, rewiring
from topomoe.envs.scenario import build_problems, load_scenario
from topomoe.envs.scenario_settings import ScenarioSettings


def boundary_rows(settings: DecisionsSettings, task: Task, progress: Progress) -> Rows:
    """Return a row an agent and delay; ``chosen`` is the one that validation prefers."""
    usual = load_scenario(task.scenario)
    longer = task.phase_epochs / usual.phase_epochs
    scenario = scenario_of(
        settings,
        task.scenario,
        phase_epochs=task.phase_epochs,
        layout_epochs=max(1.0, usual.layout_epochs * longer),
        redundancy=task.redundancy,
    )
    rows: Rows = []
    delayed = _migrations if task.scenario == "default" else _rewirings
    for done, (delay, given) in enumerate(delayed(settings, scenario)):
        agents, best = contenders(given, QUICK, settings.seed)
        chosen = cheapest(agents, given.halves()[1])
        scores = score({**agents, CLAIRVOYANT: clairvoyant(given)}, given)
        rows += [
            {
                "scenario": task.scenario,
                "phase_epochs": task.phase_epochs,
                "redundancy": task.redundancy,
                **delay,
                **row,
                "rule": best if row["agent"] == RULE else "",
                "chosen": row["agent"] == chosen,
            }
            for row in scores.rows()
        ]
        progress(done + 1, task.steps)
    return rows


def _migrations(
    settings: DecisionsSettings, scenario: ScenarioSettings
) -> Iterator[tuple[dict[str, float], Timelines]]:
    """Yield timelines on which a move between placements lasts so many epochs on average."""
    fast, slow = (
        build_problems(replace(scenario, migration_scale=scale), seeds_of(settings))
        for scale in (FAST, SLOW)
    )
    usual = full_migration(fast) * scenario.migration_scale
    share = scenario.migration_share
    for epochs in settings.migrations:
        scale = epochs / usual if usual > 0 else 1.0
        given = Timelines.made(
            migrating(fast.training, slow.training, share, scale * scenario.migration_scale),
            migrating(fast.validation, slow.validation, share, scale * scenario.migration_scale),
            {
                seed: migrating(
                    fast.tests[seed], slow.tests[seed], share, scale * scenario.migration_scale
                )
                for seed in fast.tests
            },
        )
        yield {"delay_epochs": epochs, "usual_delay_epochs": usual}, given


def _rewirings(
    settings: DecisionsSettings, scenario: ScenarioSettings
) -> Iterator[tuple[dict[str, float], Timelines]]:
    """Yield timelines on which a change of wiring takes so many seconds."""
    built = Timelines.of(build_problems(scenario, seeds_of(settings)))
    for seconds in settings.switch_delays:
        given = Timelines.made(
            rewiring(built.training, seconds),
            rewiring(built.validation, seconds),
            {seed: rewiring(test, seconds) for seed, test in built.tests.items()},
        )
        yield {"delay_s": seconds, "epoch_s": built.training.scale}, given
