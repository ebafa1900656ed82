"""What ``topomoe evaluate`` prints: a table a scenario, a row an agent."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from topomoe.agents.bootstrap import Estimate
from topomoe.commands.evaluate import ScenarioResult


def summary_tables(results: list[ScenarioResult]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield a title and the summary as text for every scenario."""
    for result in results:
        summary = result.evaluation.summary
        first = summary[0]
        best = [
            f"best {kind} {name}"
            for kind, name in (
                ("online rule in hindsight", first.best_online),
                ("without queue features", first.best_blind),
            )
            if name
        ]
        title = ", ".join(
            [f"{result.scenario}: held-out episodes, {first.switching} configurations", *best]
        )
        yield title, _rows(result)


def _rows(result: ScenarioResult) -> list[dict[str, str]]:
    rows = []
    for row in result.evaluation.summary:
        cpu, deciding = result.times[row.agent]
        times = (row.step_p50_s, row.step_p95_s, row.step_p99_s)
        rows.append(
            {
                "agent": row.agent,
                "cost / never-switch": _estimate(row.ratio_to_never_switch),
                "cost / clairvoyant": _estimate(row.ratio_to_clairvoyant),
                "cost / bound": _number(row.ratio_to_bound.value, "{:.3f}"),
                "over best online, %": _estimate(row.difference_to_best_online, 100, "{:+.2f}"),
                "regret closed": _estimate(row.regret_closed, 1, "{:.2f}"),
                "of blind": _estimate(row.regret_closed_blind, 1, "{:.2f}"),
                "topology / 100": f"{row.topology_switches_per_100_epochs:.1f}",
                "placement / 100": f"{row.placement_switches_per_100_epochs:.1f}",
                "step p50/p95/p99 ms": "/".join(_number(1e3 * t, "{:.2f}") for t in times),
                "decision us": f"{1e6 * deciding:.0f}",
                "training CPU s": f"{cpu:.1f}",
                "seeds x episodes": f"{row.seeds} x {row.episodes}",
            }
        )
    return rows


def _estimate(given: Estimate, scale: float = 1.0, form: str = "{:.3f}") -> str:
    if isnan(given.value):
        return "n/a"
    value, low, high = (
        form.format(scale * part + 0.0)  # no sign on a zero
        for part in (given.value, given.low, given.high)
    )
    return f"{value} [{low}, {high}]"


def _number(value: float, form: str) -> str:
    return "n/a" if isnan(value) else form.format(value)
