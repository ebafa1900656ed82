"""The study of decisions: its parts agree with what they are made of, and its files with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from topomoe.commands.decision_parts import share_rows
from topomoe.commands.decision_scores import Scores
from topomoe.commands.decision_tasks import Task, pool_layouts, scenario_of, tasks_of
from topomoe.commands.decisions_settings import DecisionsSettings
from topomoe.envs.group_layout import parse_layout
from topomoe.run_folder import RunFolder
from topomoe.tables_decisions import decision_tables
from topomoe.tables_decisions_gains import routing_gain_table

Call = Callable[..., tuple[int | str | None, str, str]]
SMALL = (
    "--model mixtral-8x7b --grid 4x4 --epochs 40 --test-epochs 20 --episode-length 10 "
    "--timelines 2 --pool 2 --layers 2 --decode-tokens 32 --prefill-tokens 32 "
    "--synthetic-requests 40 --phase-lengths 4 --redundancies 1 --migrations 0.1,20 "
    "--switch-delays 10us,1000s --devices 16 --processes 1"
)
NOTE = "note: synthetic: drawn with seed 0, not captured from a model\n"
PARTS = "gains,queue,size"
FIGURES = {
    "map": {
        f"{name}_{scenario}"
        for name in ("where_switching_pays", "cost_by_delay")
        for scenario in ("default", "pools")
    },
    "parts": {"gains_apart", "queue_features", "gain_by_devices"},
}


def decide(topomoe: Call, out: Path, *words: str) -> Path:
    """Run the command on a small cluster."""
    status, _, err = topomoe("decisions", *SMALL.split(), *words, "--out", out)
    assert (status, err) == (0, NOTE)
    return out


@pytest.fixture(scope="module")
def runs(topomoe: Call, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("decisions")
    return {
        "map": decide(topomoe, folder / "map", "--parts", "boundary"),
        "parts": decide(topomoe, folder / "parts", "--parts", PARTS, "--scenarios", "pools"),
    }


@pytest.fixture(scope="module")
def results(runs: dict[str, Path]) -> pd.DataFrame:
    return pd.concat([RunFolder.open(path).results() for path in runs.values()])


def test_every_part_has_its_rows_tables_and_figures(
    runs: dict[str, Path], results: pd.DataFrame
) -> None:
    assert list(dict.fromkeys(results["part"])) == ["boundary", *PARTS.split(",")]
    for name, run in runs.items():
        tables = {table.name for table in decision_tables(RunFolder.open(run))}
        assert tables == {path.stem for path in (run / "tables").glob("*.md")}
        assert tables == {path.stem for path in (run / "tables").glob("*.tex")}
        assert {path.stem for path in (run / "figures").glob("*.png")} == FIGURES[name]


def test_nobody_undercuts_the_clairvoyant(results: pd.DataFrame) -> None:
    keys = ["part", "scenario", "delay_s", "delay_epochs", "switches"]
    rows = results[results["record"].isin(["boundary", "gain", "queue", "size"])]
    for _, cell in rows.groupby(keys, dropna=False):
        bound = float(cell.loc[cell["agent"] == "clairvoyant", "ratio"].iloc[0])
        assert (cell["ratio"] >= bound - 1e-9).all()
        assert bound <= 1 + 1e-9


def test_one_agent_is_chosen_in_a_cell_and_rewiring_for_a_quarter_of_an_hour_is_not(
    results: pd.DataFrame,
) -> None:
    rows = results[results["part"] == "boundary"]
    for _, cell in rows.groupby(["scenario", "delay_s", "delay_epochs"], dropna=False):
        assert cell["chosen"].eq(True).sum() == 1
    bound = rows[(rows["agent"] == "clairvoyant") & (rows["scenario"] == "pools")]
    cheap, dear = (dict(row) for _, row in bound.sort_values("delay_s").iterrows())
    assert dear["topology_switches_per_100_epochs"] == 0 < cheap["topology_switches_per_100_epochs"]
    assert cheap["ratio"] < dear["ratio"]


def test_what_may_not_be_switched_is_not(results: pd.DataFrame) -> None:
    gains = results[results["record"] == "gain"]
    alone = {"topology": "placement", "placement": "topology"}
    for kind, other in alone.items():
        rows = gains[gains["switches"] == kind]
        assert (rows[f"{other}_switches_per_100_epochs"] == 0).all()
    never = gains[gains["agent"] == "never-switch"]
    assert (never["ratio"] == 1).all()


def test_shares_of_the_gain_sum_to_it(results: pd.DataFrame) -> None:
    gains = results[results["part"] == "gains"]
    shares = gains[gains["record"] == "share"]
    both = gains[gains["switches"] == "both"]
    for (scenario, agent), own in shares.groupby(["scenario", "agent"]):
        of = both[(both["scenario"] == scenario) & (both["agent"] == agent)]
        assert own["ratio"].sum() == pytest.approx(1 - float(of["ratio"].iloc[0]), abs=1e-12)


def test_a_share_is_the_mean_of_both_orders() -> None:
    def scores(cost: float) -> Scores:
        each = np.full((1, 2), cost)
        return Scores(
            dict.fromkeys(("best rule", "fitted-q", "clairvoyant"), each),
            {},
            {},
            np.full((1, 2), 10.0),
        )

    rows = list(share_rows({"topology": scores(9), "placement": scores(8), "both": scores(6)}))
    found = {row["switches"]: row["ratio"] for row in rows if row["agent"] == "fitted-q"}
    # Topologies save 1 first and 2 last, placements 2 first and 3 last, of 10.
    assert found == pytest.approx({"topology": 0.15, "placement": 0.25})


def test_optimal_routing_is_never_slower_and_the_static_it_is_over_is_one(
    results: pd.DataFrame,
) -> None:
    rows = results[results["record"] == "routing"]
    table = rows.pivot(index=["scenario", "topology", "layout"], columns="routing", values="ratio")
    assert (table["optimal"] <= table["default"] * (1 + 1e-6)).all()
    default = rows[rows["routing"] == "default"]
    for _, own in default.groupby("scenario"):
        assert own.groupby("layout")["weight"].first().sum() == pytest.approx(1.0)
        alone = (own["ratio"] * own["weight"]).groupby(own["topology"]).sum()
        assert alone.min() == pytest.approx(1.0)
        assert alone.idxmin() == own["keeps"].iloc[0]


def test_the_table_of_routings_keeps_the_best_and_switches_by_layout() -> None:
    ratios = {"default": ((2.0, 1.0), (1.0, 3.0)), "optimal": ((1.0, 1.0), (0.5, 2.0))}
    rows = [
        {
            "scenario": "s",
            "routing": routing,
            "layout": f"l{v}",
            "topology": f"t{a}",
            "weight": 0.5,
            "ratio": ratio,
            "keeps": "t0",
            "network_share": 0.5,
        }
        for routing, table in ratios.items()
        for v, by_topology in enumerate(table)
        for a, ratio in enumerate(by_topology)
    ]
    cells = [cell.text for cell in routing_gain_table(pd.DataFrame(rows)).rows[0]]
    assert cells == ["s", "t0", "0.750", "t0", "0.750", "1.000", "0.750", "50 %"]


def test_any_number_of_processes_gives_the_same_bytes(topomoe: Call, tmp_path: Path) -> None:
    words = "--parts", "boundary", "--scenarios", "default", "--processes", "2"
    two = decide(topomoe, tmp_path / "two", *words, "--phase-lengths", "4,6")
    one = decide(topomoe, tmp_path / "one", *words, "--phase-lengths", "4,6", "--processes", "1")
    for name in ("results.csv", "results.parquet", "tables/boundary_default.md"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_pools_divide_any_grid_as_they_divide_their_own() -> None:
    own = scenario_of(DecisionsSettings(), "pools")
    assert pool_layouts(8, 8) == own.layouts
    rng = np.random.default_rng(0)
    for rows, columns in ((4, 4), (4, 8), (8, 16)):
        for text in pool_layouts(rows, columns):
            assert (parse_layout(text, rows * columns, rng).group_of >= 0).all()


def test_tasks_cover_the_grid_of_each_part() -> None:
    settings = DecisionsSettings(phase_lengths=(4.0, 8.0), scenarios=("pools",))
    found: dict[str, list[Task]] = {}
    for task in tasks_of(settings):
        found.setdefault(task.part, []).append(task)
    count: dict[str, Any] = {part: len(own) for part, own in found.items()}
    assert count == {"boundary": 4, "gains": 1, "queue": 1, "size": 4, "scale": 1}
