"""``topomoe network`` as a user types it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from topomoe.demand_file import make_demand
from topomoe.network import bottleneck, max_min
from topomoe.topologies import choose_circuits, make, route

Call = Callable[..., tuple[int | str | None, str, str]]
SMALL = "network --grid 4x4 --latency 0us --mtu 0"


def run(topomoe: Call, words: str, out: Path) -> pd.DataFrame:
    status, _, err = topomoe(*shlex.split(f"{words} --out {out}"))
    assert status == 0, err
    return pd.read_parquet(out / "results.parquet")


def test_what_is_printed_and_written_is_what_the_library_computes(
    topomoe: Call, tmp_path: Path
) -> None:
    policies = ("dimension-order", "valiant", "optimal")
    results = run(topomoe, f"{SMALL} --routings {','.join(policies)}", tmp_path / "run")
    torus = make("torus", (4, 4), "100Gbps", 0)
    demand = make_demand("zipf", (4, 4))
    rows = results[results["record"] == "routing"].set_index("routing")
    assert len(rows) == 3
    for policy in policies[:2]:
        routing = route(torus, policy)
        row = rows.loc[routing.name]
        assert row["bottleneck_s"] == pytest.approx(bottleneck(torus, routing, demand), rel=1e-12)
        flows = max_min(torus, routing, demand)
        assert row["max_min_s"] == pytest.approx(flows.makespan, rel=1e-12)
        own = results[(results["record"] == "flow") & (results["routing"] == routing.name)]
        np.testing.assert_array_equal(own["fct_s"], flows.fct)
    assert rows.loc["optimal", "transfer_s"] == pytest.approx(
        rows.loc["optimal", "optimum_s"], rel=1e-6
    )
    assert (tmp_path / "run" / "figures" / "flow_time.png").is_file()
    status, out, _ = topomoe(*shlex.split(f"{SMALL} --routings dimension-order"))
    assert status == 0
    assert f"{rows['optimum_s'].iloc[0] * 1e6:.2f}" in out


def test_stored_numbers_of_the_16x8_torus_come_out(topomoe: Call) -> None:
    words = "network --grid 16x8 --latency 0us --mtu 0 --no-max-min --routings dimension-order"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert "8106.91" in out
    assert "3916.74" in out


def test_circuits_are_chosen_for_the_demand_or_read_from_a_file(
    topomoe: Call, tmp_path: Path
) -> None:
    words = f"{SMALL} --topology optical --no-optimum"
    chosen = run(topomoe, f"{words} --circuits b-matching", tmp_path / "chosen")
    pairs = choose_circuits(make_demand("zipf", (4, 4)), 4)
    file = tmp_path / "mine.csv"
    file.write_text("# transmitter, receiver\n" + "\n".join(f"{a},{b}" for a, b in pairs))
    read = run(topomoe, f"{words} --circuits {file}", tmp_path / "read")
    for column in ("transfer_s", "max_min_s"):
        np.testing.assert_array_equal(chosen[column].dropna(), read[column].dropna())


def test_a_failed_device_neither_sends_nor_receives(topomoe: Call, tmp_path: Path) -> None:
    results = run(topomoe, f"{SMALL} --failures device:5+links:1 --no-optimum", tmp_path / "run")
    flows = results[results["record"] == "flow"]
    assert len(flows) == 15 * 14
    assert not ((flows["source"] == 5) | (flows["target"] == 5)).any()


def test_exports_are_written_beside_the_results(topomoe: Call, tmp_path: Path) -> None:
    words = f"{SMALL} --latency 1us --topology leaf-spine --export simgrid,htsim,graphml"
    run(topomoe, words, tmp_path / "run")
    files = {path.suffix: path for path in (tmp_path / "run" / "export").iterdir()}
    assert {".xml", ".cm", ".topo", ".graphml"} <= set(files)
    assert nx.read_graphml(files[".graphml"]).number_of_nodes() == 16 + 4 + 4
    connections = files[".cm"].read_text().splitlines()
    assert connections[0].split() == ["Nodes", "16"]


def test_a_demand_from_a_file_is_the_one_that_is_timed(topomoe: Call, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("source,destination,bytes\n0,1,12500000000\n")
    results = run(
        topomoe,
        f"{SMALL} --topology mesh --demand {tmp_path / 'one.csv'} --bandwidth 100Gbps",
        tmp_path / "run",
    )
    row = results[results["record"] == "routing"].iloc[0]
    assert row["transfer_s"] == pytest.approx(1.0)
    assert row["max_min_s"] == pytest.approx(1.0)
    # Corner device 0 has two links, and so has the way around: half the time.
    assert row["optimum_s"] == pytest.approx(0.5, rel=1e-6)
