"""The scale study: orderings that must hold, the closed form of its table, and its figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from topomoe.commands.scales import AGENTS, PUBLISHED, routing_table, scale_rows, scale_table
from topomoe.envs.pattern_scale_settings import ScaleSettings
from topomoe.plots import decision_scale
from topomoe.plots.style import look
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SMALL = ScaleSettings(
    devices=(16, 24),
    phases=8,
    episode_phases=4,
    phase_iterations=4,
    seeds=2,
    delays=(0.0, 25e-6, 5.739),
    optimal_devices=16,
)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return scale_rows(SMALL)


def of_agents(rows: pd.DataFrame) -> pd.DataFrame:
    return (
        rows[rows["record"] == "agent"]
        .set_index(["accounting", "devices", "delay_s", "agent"])
        .sort_index()
    )


def test_every_accounting_size_delay_and_agent_has_a_row(rows: pd.DataFrame) -> None:
    agents = of_agents(rows)
    assert agents.index.is_unique
    assert len(agents) == 3 * 2 * 3 * len(AGENTS)
    assert (rows["switching"] == "hypothetical").all()


def test_nobody_beats_the_clairvoyant_and_free_switches_cost_it_nothing(rows: pd.DataFrame) -> None:
    ratio = of_agents(rows)["ratio"].unstack("agent")
    assert (ratio["clairvoyant"].to_numpy()[:, None] <= ratio.to_numpy() + 1e-12).all()
    free = ratio.xs(0.0, level="delay_s")["clairvoyant"]
    assert (free <= 1 + 1e-12).all()


def test_at_equal_injection_there_is_nothing_to_gain(rows: pd.DataFrame) -> None:
    ratio = of_agents(rows).loc["iso-injection", "ratio"].unstack("agent")
    np.testing.assert_allclose(ratio[["clairvoyant", "never-switch", "static-best"]], 1.0)


def test_with_a_nics_bring_up_the_clairvoyant_never_switches(rows: pd.DataFrame) -> None:
    agents = of_agents(rows).xs(5.739, level="delay_s")
    assert (agents.xs("clairvoyant", level="agent")["switches_per_100_epochs"] == 0).all()
    assert (agents.xs("never-switch", level="agent")["reconfiguration_s"] == 0).all()


def test_the_gain_over_the_mean_is_that_over_the_best_times_the_bests(rows: pd.DataFrame) -> None:
    agents = of_agents(rows)
    quotient = (agents["ratio_to_mean"] / agents["ratio"]).unstack("agent")
    np.testing.assert_allclose(quotient.to_numpy(), quotient.to_numpy()[:, :1].repeat(6, axis=1))
    assert (quotient <= 1).all(axis=None)


def test_intervals_hold_their_estimate(rows: pd.DataFrame) -> None:
    agents = of_agents(rows)
    for name in ("ratio", "ratio_to_mean"):
        assert (agents[f"{name}_low"] <= agents[name] + 1e-12).all()
        assert (agents[name] <= agents[f"{name}_high"] + 1e-12).all()


def test_optimal_routing_is_no_slower_than_the_default(rows: pd.DataFrame) -> None:
    routing = rows[rows["record"] == "routing"]
    cost = routing[routing["devices"] == 16].pivot_table(
        index=["accounting", "pattern", "agent"], columns="routing", values="cost_s"
    )
    assert len(cost) == 2 * 4 * 3
    assert (cost["optimal"] <= cost["default"]).all()
    assert set(routing.loc[routing["devices"] == 24, "routing"]) == {"default"}


def test_the_table_has_the_published_gains_beside_ours(rows: pd.DataFrame) -> None:
    table = scale_table(rows)
    assert len(table.rows) == 3 * 2 * 3
    assert all(len(row) == len(table.columns) == len(table.numeric) for row in table.rows)
    published = {row[1].text: row[-1].text for row in table.rows}
    assert published == {"16": "13.9 %", "24": "n/a"}
    assert {row[2].text for row in table.rows} == {"not charged", "25 us", "5.7 s"}
    assert not any(cell.text == "-0.0 %" for row in table.rows for cell in row)
    assert {d: round(100 * (1 - b / a), 1) for d, (a, b) in PUBLISHED.items()} == {
        16: 13.9,
        32: 19.2,
        64: 27.3,
        128: 34.0,
    }


def test_progress_counts_to_its_end() -> None:
    seen: list[tuple[int, int]] = []
    settings = ScaleSettings(
        devices=(16,),
        phases=4,
        episode_phases=4,
        phase_iterations=2,
        seeds=1,
        delays=(0.0,),
        accountings=("path-latency",),
    )
    scale_rows(settings, lambda _, done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


def test_the_figure_shows_the_gains_at_the_least_delay_charged(rows: pd.DataFrame) -> None:
    with look():
        figure = decision_scale.draw(rows, {16: 0.139})
        later = decision_scale.draw(rows, delay=5.739)
    over_mean, over_best = figure.axes[2], figure.axes[5]
    expected = of_agents(rows).loc["iso-cost"].xs(25e-6, level="delay_s")
    for axis, column in ((over_mean, "ratio_to_mean"), (over_best, "ratio")):
        lines = {line.get_label(): line.get_ydata() for line in axis.lines}
        own = 100 * (1 - expected[column].xs("clairvoyant", level="agent"))
        np.testing.assert_allclose(lines["clairvoyant"], own)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"OptiMoE's rule", "the best static", "published by OptiMoE"} <= set(labels)
    assert later.legends[0].get_title().get_text() == "a switch takes 5.7 s"


def test_a_figure_of_no_such_delay_or_without_a_column_says_so(rows: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="delay must be one of"):
        decision_scale.draw(rows, delay=1.0)
    with pytest.raises(InputError, match="lacks column ratio_to_mean"):
        decision_scale.draw(rows.drop(columns="ratio_to_mean"))


def test_free_switching_gains_nothing_where_one_fabric_is_best_throughout(
    rows: pd.DataFrame,
) -> None:
    table = routing_table(rows)
    assert all(len(row) == len(table.columns) == len(table.numeric) for row in table.rows)
    for row in table.rows:
        same = len({cell.text for cell in row[5:-1]}) == 1
        assert same == (row[-1].text == "0.0 %"), row
    assert {row[2].text for row in table.rows} == {"default", "optimal"}
    assert {row[3].text for row in table.rows if row[0].text == "iso-injection"} == {"fat-tree"}
