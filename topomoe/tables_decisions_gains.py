"""Tables of what switching topologies, placements and routing gain apart; cells of such tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from topomoe.table_text import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

RATIO_NOTE = (
    "Ratios are held-out seconds over never-switch's, both summed over timelines and episodes; "
    "in brackets 95 % bootstrap intervals over both."
)
CLAIRVOYANT = "clairvoyant"


def gains_tables(rows: pd.DataFrame) -> list[Table]:
    """Return the gains apart, their shares, and routing."""
    return [
        _gain_table(rows[rows["record"] == "gain"]),
        _share_table(rows[rows["record"] == "share"]),
        routing_gain_table(rows[rows["record"] == "routing"]),
    ]


def _gain_table(rows: pd.DataFrame) -> Table:
    lines = []
    for key, own in rows.groupby(["scenario", "switches"], sort=False):
        scenario, switches = cast("tuple[str, str]", key)
        by_agent = by_agent_of(own)
        best = by_agent["best rule"]
        lines.append(
            (
                Cell(scenario),
                Cell(switches),
                Cell(str(best["keeps"])),
                Cell(str(best["rule"])),
                *(ratio_cell(by_agent[name]) for name in ("best rule", "fitted-q", CLAIRVOYANT)),
            )
        )
    return Table(
        name="gains",
        title="Switching topologies, placements, and both",
        note=f"{RATIO_NOTE} What is not switched is kept as never-switch keeps it: the "
        "configuration that is best in training.",
        columns=(
            "scenario",
            "switches",
            "never-switch keeps",
            "best rule",
            "its ratio",
            "fitted-q",
            CLAIRVOYANT,
        ),
        numeric=(False, False, False, False, True, True, True),
        rows=tuple(lines),
    )


def _share_table(rows: pd.DataFrame) -> Table:
    lines = []
    for key, own in rows.groupby(["scenario", "agent"], sort=False):
        scenario, agent = cast("tuple[str, str]", key)
        of = {str(row["switches"]): dict(row) for _, row in own.iterrows()}
        lines.append(
            (
                Cell(scenario),
                Cell(agent),
                *(points_cell(of[name]) for name in ("topology", "placement")),
                *(percent_cell(of[name]["share"]) for name in ("topology", "placement")),
            )
        )
    return Table(
        name="gain_shares",
        title="What part of the gain each kind of switch brings",
        note="Percent of never-switch's time that switching topologies and switching placements "
        "save: the mean of saving alone and saving beside the other (Shapley values, which sum to "
        "the gain of both); in brackets 95 % bootstrap intervals. Then as shares of that gain.",
        columns=(
            "scenario",
            "agent",
            "topology (%)",
            "placement (%)",
            "topology's share",
            "placement's share",
        ),
        numeric=(False, False, True, True, True, True),
        rows=tuple(lines),
    )


def routing_gain_table(rows: pd.DataFrame) -> Table:
    """Return a row a scenario: routing and wiring by layout, alone and together."""
    lines = []
    for scenario, own in rows.groupby("scenario", sort=False):
        time = {str(routing): _summed(part) for routing, part in own.groupby("routing", sort=False)}
        kept = str(own["keeps"].iloc[0])
        best = {routing: found[0] for routing, found in time.items()}
        switched = {routing: found[1] for routing, found in time.items()}
        at_best = best["optimal"]
        lines.append(
            (
                Cell(str(scenario)),
                Cell(kept),
                Cell(f"{time['optimal'][2][kept]:.3f}"),
                Cell(str(time["optimal"][3])),
                Cell(f"{at_best:.3f}"),
                Cell(f"{switched['default']:.3f}"),
                Cell(f"{switched['optimal']:.3f}"),
                percent_cell(float(own["network_share"].iloc[0])),
            )
        )
    return Table(
        name="gains_routing",
        title="Routing apart: time of the mean dispatch over the best static wiring's",
        note="Mean demand of the training steps under never-switch's placement, weighted by how "
        "often a layout comes; 1: the best single wiring routed by default. Optimal: splits fitted "
        "to the demand by linear programming, latency left out, every layout its own. Switched: "
        "the best wiring for each layout, switches free. Network share: dispatch and combine in "
        "never-switch's time.",
        columns=(
            "scenario",
            "best static",
            "it, optimal routing",
            "best static, optimal routing",
            "its ratio",
            "switched, default routing",
            "switched, optimal routing",
            "network share",
        ),
        numeric=(False, False, True, False, True, True, True, True),
        rows=tuple(lines),
    )


def _summed(rows: pd.DataFrame) -> tuple[float, float, dict[str, float], str]:
    """Return the best static, the best by layout, each static by name, and the best one's name."""
    table = rows.pivot(index="layout", columns="topology", values="ratio")
    weight = rows.groupby("layout")["weight"].first().loc[table.index]
    alone = table.mul(weight, axis=0).sum(axis=0)
    by_layout = float((table.min(axis=1) * weight).sum())
    return (
        float(alone.min()),
        by_layout,
        {str(k): float(v) for k, v in alone.items()},
        str(alone.idxmin()),
    )


def ratio_cell(row: Mapping[str, Any]) -> Cell:
    """Return a ratio and its interval."""
    if row["low"] == row["high"]:
        return Cell(f"{row['ratio']:.3f}")
    return Cell(f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})")


def points_cell(row: Mapping[str, Any]) -> Cell:
    """Return a share in percentage points, and its interval."""
    value, low, high = (round(100 * row[name], 1) + 0.0 for name in ("ratio", "low", "high"))
    return Cell(f"{value:.1f} ({low:.1f} to {high:.1f})")


def percent_cell(value: float) -> Cell:
    """Return a share in whole percent; n/a where it is not known."""
    return Cell("n/a" if value != value else f"{round(100 * value) + 0.0:.0f} %")


def by_agent_of(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the one row of each agent."""
    return {str(row["agent"]): dict(row) for _, row in rows.iterrows()}
