"""What a bench found of assignment changes and placements: what each saves, at what perplexity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, cast

from topomoe.report.router_words import change_text, milliseconds, percent_text
from topomoe.router_results import (
    ORIGINAL,
    POINT,
    RouterResults,
    assignment_points,
    capacity_text,
)
from topomoe.tables_routers import STEP

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd

CHEAP = 0.01  # more perplexity up to which a change is called cheap
SAME = 5e-4  # share of the time below which nothing is saved, nor lost


def change_findings(results: RouterResults) -> list[str]:
    """Say what placement saves, what assignment changes save and cost, and which saves more."""
    return [
        *placement_findings(results),
        *assignment_findings(results),
        *against_findings(results),
    ]


def placement_findings(results: RouterResults) -> list[str]:
    """Say what the fastest placement saves over the slowest, of all routers on each topology."""
    steps = results.rows("step", STEP, "pareto")
    if steps.empty or "placement" not in steps or steps["placement"].nunique() < 2:
        return []
    sentences = []
    for topology, own in steps.groupby("topology", sort=False):
        means = own.pivot_table(index=POINT, columns="placement", values="moe_p99_s", sort=False)
        order = means.mean().sort_values(kind="stable")
        fast, slow = str(order.index[0]), str(order.index[-1])
        saved = (1 - means[fast] / means[slow]).dropna().sort_values(kind="stable")
        if saved.empty:
            continue
        ends = [percent_text(saved.iloc[place]) for place in (0, -1)]
        reach = (
            ends[0]
            if ends[0] == ends[1]
            else (
                f"{ends[0]} ({_point(steps, saved.index[0])}) to {ends[1]} "
                f"({_point(steps, saved.index[-1])})"
            )
        )
        sentences.append(
            f"On {topology}, placement by {fast} instead of {slow} saves {reach} of the p99 step "
            "time, and leaves the routers' choices and so the perplexity as they are."
        )
    return sentences


def _point(steps: pd.DataFrame, point: Hashable) -> str:
    router, factor = cast("tuple[str, float]", point)
    several = steps["capacity_factor"].nunique() > 1
    return f"{router} at {capacity_text(factor)}" if several else router


def assignment_findings(results: RouterResults) -> list[str]:
    """Say of each router what its assignment changes cost in perplexity, and save in time."""
    points = assignment_points(results)
    if points.empty:
        return []
    points = points.assign(
        change=points["perplexity"] / points["original_perplexity"] - 1,
        saved=1 - points["moe_p99_s"] / points["original_p99_s"],
    )
    sentences = []
    for router, own in points[points["assignment"] != ORIGINAL].groupby("router", sort=False):
        first = own[own["network"] == own["network"].iloc[0]]
        changes = {str(name): rows["change"] for name, rows in first.groupby("assignment")}
        order = sorted(changes, key=lambda name: (float(changes[name].mean()), name))
        named = ", ".join(f"{name} {change_text(changes[name])}" for name in order)
        cheap = {name for name in order if changes[name].mean() <= CHEAP}
        saving = [
            f"on {network} {_saving(rows, changes, cheap)}"
            for network, rows in own.groupby("network", sort=False)
        ]
        sentences.append(
            f"With {router}, true perplexity changes by {named}. The change that saves most of the "
            f"p99 step time: {'; '.join(saving)}."
        )
    return sentences


def _saving(rows: pd.DataFrame, changes: dict[str, pd.Series[float]], cheap: set[str]) -> str:
    """Say which assignment saves most on one network, and which of the cheap ones."""
    saved = {str(name): own["saved"] for name, own in rows.groupby("assignment")}
    order = sorted(saved, key=lambda name: (-float(saved[name].mean()), name))
    best = order[0]
    if saved[best].mean() < SAME:
        return "none saves anything"
    text = (
        f"{best} ({change_text(saved[best], sign=False)}, perplexity {change_text(changes[best])})"
    )
    if best in cheap:
        return text
    mild = next((name for name in order if name in cheap), "")
    limit = f"for at most {100 * CHEAP:g} % more perplexity"
    if not mild or saved[mild].mean() < SAME:
        return f"{text}, {limit} none"
    return f"{text}, {limit} {mild} ({change_text(saved[mild], sign=False)})"


@dataclass(frozen=True)
class Comparison:
    """Shares of a router's p99 step time on one topology that each kind of change saves.

    An assignment is a name and what it saves; the name is empty where none saves anything.
    """

    slow: str  # the slowest placement under the router's own assignment
    fast: str
    seconds: float  # of the slow one
    placement: float  # saved by the fast one
    assignment: tuple[str, float]  # what saves most under the slow one
    cheap: tuple[str, float]  # of those that cost at most CHEAP of perplexity
    beyond: tuple[str, float]  # what saves most under the fast one


def compare_changes(steps: pd.DataFrame, changes: Mapping[str, float]) -> Comparison | None:
    """Return what placements and assignments save, of the rows of one router and topology.

    ``changes`` are of perplexity, by assignment. None where there are not two placements under the
    original assignment.
    """
    times = steps.pivot_table(index="placement", columns="assignment", values="moe_p99_s")
    if ORIGINAL not in times or times[ORIGINAL].notna().sum() < 2:
        return None
    own = times[ORIGINAL].dropna().sort_values(kind="stable")
    fast, slow = str(own.index[0]), str(own.index[-1])

    def most(placement: str, limit: float) -> tuple[str, float]:
        saved = (1 - times.loc[placement] / own[placement]).drop(ORIGINAL).dropna()
        saved = saved[[changes.get(str(name), inf) <= limit for name in saved.index]]
        if saved.empty or saved.max() < SAME:
            return "", 0.0
        return str(saved.idxmax()), float(saved.max())

    return Comparison(
        slow,
        fast,
        float(own[slow]),
        1 - float(own[fast] / own[slow]),
        most(slow, inf),
        most(slow, CHEAP),
        most(fast, inf),
    )


def against_findings(results: RouterResults) -> list[str]:
    """Say whether placement or the best assignment change saves more, by router and topology."""
    columns = ("router", "seed", "assignment", "topology", "moe_p99_s")
    steps = results.rows("assignment_step", columns)
    quality = results.rows("assignment", ("router", "seed", "assignment", "perplexity"))
    if steps.empty or quality.empty or "placement" not in steps:
        return []
    sentences = []
    for (router, topology), own in steps.groupby(["router", "topology"], sort=False):
        table = quality[quality["router"] == router].pivot_table(
            index="seed", columns="assignment", values="perplexity"
        )
        if ORIGINAL not in table:
            continue
        changes = {str(name): float((table[name] / table[ORIGINAL] - 1).mean()) for name in table}
        found = compare_changes(own, changes)
        if found is not None:
            sentences.append(f"With {router} on {topology}, {_compared(found, changes)}")
    return sentences


def _compared(found: Comparison, changes: Mapping[str, float]) -> str:
    def named(change: tuple[str, float]) -> str:
        name, saved = change
        return f"{name} ({percent_text(saved)}, perplexity {change_text([changes[name]])})"

    def verdict(saved: float) -> str:
        if abs(found.placement - saved) < SAME:
            return "as much as"
        return "more than" if found.placement > saved else "less than"

    text = (
        f"placing by {found.fast} instead of {found.slow} saves {percent_text(found.placement)} of "
        f"the p99 step time ({milliseconds(found.seconds)}) at the same perplexity"
    )
    name, saved = found.assignment
    if not name:
        text += f"; no assignment change saves anything under {found.slow}"
    else:
        text += f": {verdict(saved)} the assignment change that saves most under {found.slow}, "
        text += named(found.assignment)
        limit = f"cost at most {100 * CHEAP:g} % of perplexity"
        if not found.cheap[0]:
            text += f"; none of those that {limit} saves anything"
        elif found.cheap != found.assignment:
            text += f", and {verdict(found.cheap[1])} the best of those that {limit}, "
            text += named(found.cheap)
    if found.beyond[0]:
        return f"{text}. On top of {found.fast}, the most that one saves is {named(found.beyond)}."
    return f"{text}. On top of {found.fast}, none saves anything."
