"""What a study says of routings, failures and cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from topomoe.run_folder import RunFolder
from topomoe.study import prepare
from topomoe.study_networks import StudyNetwork
from topomoe.study_settings import StudySettings
from topomoe.topologies import make, route
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings


@pytest.fixture(scope="module")
def table(small_study: RunFolder) -> pd.DataFrame:
    return small_study.results()


def rows(table: pd.DataFrame, record: str) -> pd.DataFrame:
    return table[table["record"] == record]


def test_no_routing_beats_its_optimum_nor_the_optimum_its_bounds(table: pd.DataFrame) -> None:
    optimum = rows(table, "optimum")
    assert (optimum["time_s"] >= optimum["optimum_s"] * (1 - 1e-6)).all()
    for bound in ("cut_s", "volume_bound_s"):
        assert (optimum["optimum_s"] >= optimum[bound] * (1 - 1e-6)).all()
    assert (optimum.groupby("topology")["optimum_s"].nunique() == 1).all()
    assert (optimum["virtual_channels"] >= 1).all()


def test_the_optimum_of_the_mean_is_below_the_mean_of_every_routing(table: pd.DataFrame) -> None:
    optimum = rows(table, "optimum").set_index(["topology", "routing"])
    layers = int(rows(table, "layer")["layer"].max()) + 1
    summary = rows(table, "summary").query("placement == 'exact'")
    summary = summary.set_index(["topology", "routing"]).loc[optimum.index]
    network = (summary["dispatch_s"] + summary["combine_s"]) / layers
    assert (optimum["optimum_s"] <= network).all()


def test_every_topology_is_under_its_default_and_the_routings_that_suit_it(
    table: pd.DataFrame,
) -> None:
    optimum = rows(table, "optimum")
    own = {name: set(part["routing"]) for name, part in optimum.groupby("topology")}
    assert own["mesh"] >= {"dimension-order", "ecmp", "valiant", "ugal", "optimal"}
    assert "ecmp" in own["leaf-spine"]
    assert set(rows(table, "summary").query("routing == 'optimal'")["topology"]) >= {"mesh"}


def test_splits_are_made_for_training_requests_dispatch_and_combine_apart() -> None:
    settings = StudySettings(
        model="mixtral-8x7b",
        grid="2x4",
        slots=16,
        topologies=("mesh",),
        placements=("contiguous",),
        routings=("optimal",),
        synthetic_requests=8,
        workload=WorkloadSettings(batches=4, batch_tokens=128),
    )
    given = prepare(settings)
    (network,) = given.others
    there, back = network.parts
    assert there is not back
    assert not np.allclose(there.matrix.toarray(), back.matrix.toarray())
    assert any("made for the mean demand of training requests" in note for note in given.notes)


def test_circuits_can_be_chosen_for_training_traffic(
    study_runner: Callable[..., RunFolder], tmp_path: Path
) -> None:
    common = {"topologies": ("optical",), "placements": ("eplb",), "failures": ()}
    chosen = study_runner(tmp_path / "a", circuits="b-matching", **common)
    fixed = study_runner(tmp_path / "b", circuits="columns", **common)
    lit = [
        set(zip(part["source"], part["target"], strict=True))
        for part in (rows(run.results(), "link") for run in (chosen, fixed))
    ]
    assert lit[0] != lit[1]
    assert any("b-matching" in note for note in chosen.config()["run"]["notes"])


def test_failures_never_speed_up_a_switched_network_much(table: pd.DataFrame) -> None:
    failed = rows(table, "failure")
    intact = failed.query("scenario == 'intact'").drop_duplicates("topology")
    assert intact["ratio"].tolist() == [1.0] * len(intact)
    assert set(intact["topology"]) == {"leaf-spine", "mesh", "twisted-torus", "optical"}
    mesh = failed.query("topology == 'mesh' and scenario == 'links:2'")
    assert (mesh["ratio"] > 1.0).all()
    # A mesh has no switches to lose.
    assert failed.query("topology == 'mesh' and scenario == 'switches:1'").empty


def test_cost_is_that_of_the_bill(table: pd.DataFrame) -> None:
    cost = rows(table, "cost").set_index("topology")
    assert (cost[["dollars", "watts"]] > 0).all().all()
    assert cost.loc["mesh", "dollars"] < cost.loc["leaf-spine", "dollars"]


def test_a_network_names_its_policy_and_both_ways() -> None:
    torus = make("torus", (4, 4))
    both = route(torus, "ecmp"), route(torus, "o1turn")
    assert StudyNetwork("torus", torus, both).parts == both
    assert StudyNetwork("torus", torus, both).routing_name == "ecmp"
    assert StudyNetwork("torus", torus, None).routing_name == route(torus).name


def test_iso_cost_spends_the_same_dollars_on_every_topology() -> None:
    settings = StudySettings(
        model="mixtral-8x7b",
        grid="4x4",
        slots=32,
        topologies=("leaf-spine", "torus", "fat-tree"),
        placements=("contiguous",),
        routings=("none",),
        normalise="iso-cost",
        synthetic_requests=4,
        workload=WorkloadSettings(batches=2, batch_tokens=64),
    )
    from topomoe.topologies.cost import costs

    dollars = [costs(network.topology)["dollars"] for network in prepare(settings).networks]
    assert dollars == pytest.approx([dollars[0]] * 3, rel=1e-9)


def test_a_node_limit_is_for_synthetic_traces(trace_folder: Callable[[str], Path]) -> None:
    settings = StudySettings(trace=str(trace_folder("deepseek-v2-lite")), node_limit=4)
    with pytest.raises(InputError, match="node_limit is for synthetic traces"):
        prepare(settings)


def test_relayed_copies_need_nodes_of_the_same_size() -> None:
    from topomoe.demand import DispatchSettings

    settings = StudySettings(
        model="mixtral-8x7b",
        grid="4x4",
        slots=32,
        topologies=("rails",),
        placements=("contiguous",),
        dispatch=DispatchSettings(copies="node-relay", node_size=1),
        synthetic_requests=4,
    )
    with pytest.raises(InputError, match="node_size must be that of rails"):
        prepare(settings)
