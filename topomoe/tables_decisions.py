"""Tables of a study of decisions, from its folder alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from topomoe.commands.scales import routing_table, scale_table
from topomoe.durations import duration_text
from topomoe.run_folder import RunFolder
from topomoe.table_files import titled_rows, write_each
from topomoe.table_text import Cell, Table
from topomoe.tables_decisions_gains import RATIO_NOTE, by_agent_of, gains_tables, ratio_cell
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

NEVER, CLAIRVOYANT = "never-switch", "clairvoyant"


def write_decision_tables(folder: RunFolder) -> list[Path]:
    """Write tables/*.md and tables/*.tex; InputError where the results are missing or damaged."""
    return write_each(folder.path, decision_tables(folder))


def printed_tables(folder: RunFolder) -> list[tuple[str, list[dict[str, str]]]]:
    """Return the tables as titled rows of text."""
    return titled_rows(decision_tables(folder))


def decision_tables(folder: RunFolder) -> list[Table]:
    """Return the tables of the parts that the run has."""
    results = folder.results()
    tables: list[Table] = []
    try:
        for part, rows in results.groupby("part", sort=False):
            if part not in _TABLES:
                raise InputError(f"{folder.path}: results.parquet holds the unknown part {part}")
            tables += _TABLES[str(part)](rows)
    except KeyError as error:
        raise InputError(f"{folder.path}: results.parquet lacks column {error.args[0]}") from None
    return tables


def boundary_tables(rows: pd.DataFrame) -> list[Table]:
    """Return two tables a scenario: the map, and a row a cell of it."""
    tables = []
    for scenario, own in rows.groupby("scenario", sort=False):
        lines = []
        in_epochs = own["delay_epochs"].notna().any() if "delay_epochs" in own else False
        delay = "delay_epochs" if in_epochs else "delay_s"
        tables.append(map_table(str(scenario), own, delay))
        for key, cell in own.groupby(["redundancy", "phase_epochs", delay], sort=True):
            redundancy, phase, at = cast("tuple[float, float, float]", key)
            by_agent = by_agent_of(cell)
            chosen = str(cell.loc[cell["chosen"].eq(True), "agent"].iloc[0])
            lines.append(
                (
                    Cell(f"{redundancy:g}"),
                    Cell(f"{phase:g}"),
                    Cell(f"{at:g}" if in_epochs else duration_text(at)),
                    Cell(chosen),
                    ratio_cell(by_agent[chosen]),
                    Cell(str(by_agent["best rule"]["rule"])),
                    *(ratio_cell(by_agent[name]) for name in ("best rule", "fitted-q")),
                    Cell(f"{by_agent[CLAIRVOYANT]['ratio']:.3f}"),
                )
            )
        tables.append(
            Table(
                name=f"boundary_{scenario}",
                title=f"Where switching pays: {scenario}",
                note=f"{RATIO_NOTE} The chosen agent and the best rule are those that cost least "
                "on validation episodes.",
                columns=(
                    "redundancy",
                    "phase (epochs)",
                    "migration (epochs)" if in_epochs else "delay",
                    "chosen",
                    "its ratio",
                    "best rule",
                    "its ratio ",
                    "fitted-q",
                    CLAIRVOYANT,
                ),
                numeric=(True, True, True, False, True, False, True, True, True),
                rows=tuple(lines),
            )
        )
    return tables


def map_table(scenario: str, rows: pd.DataFrame, delay: str) -> Table:
    """Return a row a redundancy and phase length, a column a delay."""
    delays = sorted(rows[delay].unique())
    lines = []
    for key, own in rows.groupby(["redundancy", "phase_epochs"], sort=True):
        redundancy, phase = cast("tuple[float, float]", key)
        cells = []
        for at in delays:
            cell = own[own[delay] == at]
            best = dict(cell[cell["chosen"].eq(True)].iloc[0])
            stays = best["agent"] == NEVER or not best["high"] < 1
            text = "never" if stays else f"{best['ratio']:.3f}"
            bound = float(cell.loc[cell["agent"] == CLAIRVOYANT, "ratio"].iloc[0])
            cells.append(Cell(f"{text} ({bound:.3f})", not stays))
        lines.append((Cell(f"{redundancy:g}"), Cell(f"{phase:g}"), *cells))
    in_epochs = delay == "delay_epochs"
    return Table(
        name=f"map_{scenario}",
        title=f"Where switching pays: {scenario}",
        note="Held-out cost over never-switch's of the agent chosen on validation episodes, and in "
        "brackets the clairvoyant's; never: never-switch was chosen, or the 95 % interval reaches "
        "1. Columns: "
        + ("epochs that a migration lasts." if in_epochs else "the delay of a reconfiguration."),
        columns=(
            "redundancy",
            "phase (epochs)",
            *(f"{at:g}" if in_epochs else duration_text(at) for at in delays),
        ),
        numeric=(True, True, *(True,) * len(delays)),
        rows=tuple(lines),
    )


def queue_tables(rows: pd.DataFrame) -> list[Table]:
    """Return agents with and without queue features, beside those that never look at it."""
    lines = []
    for key, own in rows.groupby(["scenario", "agent"], sort=False):
        scenario, agent = cast("tuple[str, str]", key)
        found = {bool(row["queue"]): ratio_cell(dict(row)) for _, row in own.iterrows()}
        none = Cell("")
        lines.append((Cell(scenario), Cell(agent), found.get(True, none), found.get(False, none)))
    return [
        Table(
            name="queue",
            title="With and without queue features",
            note=f"{RATIO_NOTE} Queue features: what is known of admitted requests before their "
            "epoch runs. Hysteresis and work function never look at them; the clairvoyant sees "
            "more.",
            columns=("scenario", "agent", "with", "without"),
            numeric=(False, False, True, True),
            rows=tuple(lines),
        )
    ]


def size_tables(rows: pd.DataFrame) -> list[Table]:
    """Return a row a scenario and number of devices."""
    agents = [name for name in dict.fromkeys(rows["agent"]) if name != NEVER]
    lines = []
    for key, own in rows.groupby(["scenario", "devices"], sort=False):
        scenario, devices = cast("tuple[str, int]", key)
        by_agent = by_agent_of(own)
        bound = by_agent[CLAIRVOYANT]
        lines.append(
            (
                Cell(scenario),
                Cell(f"{int(devices)}"),
                Cell(duration_text(bound["epoch_s"])),
                *(ratio_cell(by_agent[name]) for name in agents),
                Cell(f"{bound['topology_switches_per_100_epochs']:.1f}"),
                Cell(f"{bound['placement_switches_per_100_epochs']:.1f}"),
            )
        )
    return [
        Table(
            name="size",
            title="Gain by devices",
            note=f"{RATIO_NOTE} Tokens a device are the same throughout; an epoch's seconds are "
            "never-switch's.",
            columns=(
                "scenario",
                "devices",
                "epoch",
                *agents,
                "its topology switches / 100",
                "its placement switches / 100",
            ),
            numeric=(False, True, True, *(True,) * len(agents), True, True),
            rows=tuple(lines),
        )
    ]


def scale_tables(rows: pd.DataFrame) -> list[Table]:
    """Return OptiMoE's table, computed."""
    rows = rows.assign(devices=rows["devices"].astype(int))  # beside parts that have none: floats
    tables = [scale_table(rows)]
    if (rows["record"] == "routing").any():
        tables.append(routing_table(rows))
    return tables


_TABLES: Mapping[str, Callable[[pd.DataFrame], list[Table]]] = {
    "boundary": boundary_tables,
    "gains": gains_tables,
    "queue": queue_tables,
    "size": size_tables,
    "scale": scale_tables,
}
