"""What failures cost: rows of step times after failures, and their figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import topomoe as tm
from topomoe.degradation import COLUMNS, INTACT, degraded_topologies, failure_rows
from topomoe.plots import degradation
from topomoe.plots.style import look
from topomoe.topologies import InputError, Topology, make
from topomoe.topologies.failure_scenarios import failure_scenarios
from topomoe.trace import RoutingTrace
from topomoe.workload import WorkloadSettings

GRID = (2, 4)
WORKLOAD = WorkloadSettings(batches=3, batch_tokens=512)


@pytest.fixture(scope="module")
def trace() -> RoutingTrace:
    return tm.synthetic_trace("mixtral-8x7b", requests=8, positions=16).filter(layers=(0, 1))


def rows_of(
    trace: RoutingTrace, topologies: list[str], texts: list[str], slots: int = 16, **options: object
) -> pd.DataFrame:
    made: list[tuple[str, Topology]] = [(n, make(n, GRID, "50Gbps")) for n in topologies]
    given: dict[str, object] = {"model": "mixtral-8x7b", "workload": WORKLOAD, **options}
    return failure_rows(
        trace,
        trace.load(),
        made,
        failure_scenarios(texts, draws=2),
        slots=slots,
        **given,  # type: ignore[arg-type]
    )


def test_the_intact_rows_are_what_simulate_says(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["leaf-spine", "torus"], ["links:1"])
    intact = rows[rows["scenario"] == INTACT].drop_duplicates("topology").set_index("topology")
    placement = tm.place(trace.load(), 8, 16, "exact", GRID)
    for name in ("leaf-spine", "torus"):
        result = tm.simulate(
            trace, make(name, GRID, "50Gbps"), placement, "mixtral-8x7b", workload=WORKLOAD
        )
        assert intact.loc[name, "moe_s"] == pytest.approx(result.moe_time.mean, rel=1e-12)
        assert intact.loc[name, "ratio"] == 1.0


def test_rows_name_every_scenario_and_draw_that_a_topology_can_suffer(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["torus", "optical"], ["links:1", "2", "circuits:2", "device:3"])
    assert list(rows.columns) == list(COLUMNS)
    assert set(rows["record"]) == {"failure"}
    counts = rows.groupby(["topology", "scenario"]).size()
    assert counts["torus", "links:2"] == 2
    assert counts["torus", "device:3"] == 1
    assert counts["optical", "circuits:2"] == 2
    assert ("torus", "circuits:2") not in counts.index  # it has none
    assert rows["moe_s"].notna().all()


def test_a_change_of_routing_stands_apart_from_the_loss_of_links(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["torus"], ["links:1"])
    intact = rows[rows["scenario"] == INTACT].set_index("routing")
    own = float(intact.loc["dimension-order-balanced", "moe_s"])
    other = float(intact.loc["ecmp", "moe_s"])
    failed = rows[rows["scenario"] == "links:1"]
    assert set(failed["routing"]) == {"ecmp"}
    assert failed["ratio"].to_numpy() == pytest.approx(failed["moe_s"] / own)
    assert failed["same_routing_ratio"].to_numpy() == pytest.approx(failed["moe_s"] / other)


def test_survivors_hold_all_experts_and_all_tokens(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["torus", "leaf-spine"], ["device:3"]).set_index(["topology", "scenario"])
    failed = rows.xs("device:3", level="scenario")
    assert (failed["devices"] == 7).all()
    assert (failed["parts"] == 1).all()
    intact = rows.xs(INTACT, level="scenario").groupby("topology").first()
    for name in ("torus", "leaf-spine"):  # seven devices do the work of eight
        assert failed.loc[name, "compute_s"] > 0.99 * intact.loc[name, "compute_s"]
        assert failed.loc[name, "ratio"] > 1.0


def test_losing_more_links_of_a_mesh_is_never_faster_for_the_same_draw(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["torus"], ["links:1", "3"], routing="ecmp")
    failed = rows[rows["scenario"] != INTACT]
    bound = failed.pivot(index="draw", columns="scenario", values="dispatch_s")
    assert (bound["links:3"] >= bound["links:1"] * 0.999).all()


def test_a_partition_is_marked_and_the_largest_part_goes_on(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["leaf-spine"], ["link:2-8"])
    failed = rows[rows["scenario"] == "link:2-8"].iloc[0]
    assert (failed["parts"], failed["devices"]) == (2, 7)
    gone = rows_of(trace, ["leaf-spine"], ["device:2"]).iloc[-1]
    assert failed["moe_s"] == gone["moe_s"]


def test_experts_that_no_longer_fit_give_no_time(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["torus"], ["device:3"], slots=8)
    assert np.isnan(rows.iloc[-1]["moe_s"])
    assert rows.iloc[-1]["devices"] == 7
    assert rows.iloc[0]["moe_s"] > 0


def test_the_same_seed_gives_the_same_rows(trace: RoutingTrace) -> None:
    first, again = (rows_of(trace, ["torus"], ["links:2"]) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)


def test_no_two_devices_left_is_said() -> None:
    with pytest.raises(InputError, match="no two devices reach each other"):
        degraded_topologies(
            [("mesh", make("mesh", (1, 3)))], failure_scenarios(["link:0-1+link:1>2"])
        )


def test_unknown_names_are_said() -> None:
    with pytest.raises(InputError, match=r"devices of torus are 0\.\.7, got 8"):
        degraded_topologies([("torus", make("torus", GRID))], failure_scenarios(["device:8"]))


def test_the_figure_has_a_panel_a_kind_and_a_line_a_topology(trace: RoutingTrace) -> None:
    rows = rows_of(trace, ["leaf-spine", "torus"], ["links:2", "1", "switches:1", "device:3"])
    with look():
        figure = degradation.draw_rows(rows)
    assert isinstance(figure, Figure)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["random links", "random switches", "named failures"]
    links, switches, _ = figure.axes
    assert [label.get_text() for label in links.get_xticklabels()] == ["1", "2"]
    drawn = {line.get_label(): line for line in links.lines}
    mean = rows[(rows["topology"] == "torus")].groupby("scenario")["ratio"].mean()
    assert np.asarray(drawn["torus"].get_ydata()) == pytest.approx(
        [mean["links:1"], mean["links:2"]]
    )
    assert "torus" not in {line.get_label() for line in switches.lines}
