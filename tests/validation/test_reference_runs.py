"""The max-min and bottleneck models beside outside simulators (see README.md)."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from topomoe.network import bottleneck, completion_times, max_min, node_cut
from topomoe.topologies import Routing, Topology, from_links, make, route

SUMMARY = Path(__file__).with_name("summary.csv")
SHARED = Path(os.environ.get("TOPOMOE_SHARED", Path(__file__).parents[3] / "shared"))
CAPACITY, LATENCY, PACKET = 12.5e9, 1e-6, 4096
BYTES = 65536.0
CASE = re.compile(r"(torus|torusplus|mesh|leafspine)([\dx]+)_(?:(dmodk|ecmp)_)?(uni|zipf)")
COUNTEREXAMPLE = "counterexample_maxmin_gt_bound"


def summary(column: str, simulator: str) -> dict[str, float]:
    """Seconds by case."""
    with SUMMARY.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["simulator"] == simulator]
    return {row["case"]: float(row[column]) * 1e-6 for row in rows}


def makespans(simulator: str) -> dict[str, float]:
    return summary("makespan_us", simulator)


FIFO = makespans("htsim_fifo")
MAX_MIN = makespans("simgrid_maxmin")
# What SimGrid computed, by the latency of a link: with latency, a flow starts at its path's.
SIMGRID = {"simgrid_maxmin": 0.0, "simgrid_maxmin_hop_start": LATENCY}
SIMGRID_RUNS = [(case, name) for name in SIMGRID for case in makespans(name)]
OTHERS = ("htsim_dctcp", "htsim_ndp", "astra_4k", "astra_wholeflow")
Case = tuple[Topology, Routing, NDArray[np.float64]]


def demand_of(kind: str, devices: int) -> NDArray[np.float64]:
    other = 1.0 - np.eye(devices)
    if kind == "uni":
        return BYTES * other
    weight = np.empty(devices)
    weight[np.random.default_rng(0).permutation(devices)] = 1.0 / np.arange(1, devices + 1)
    share = weight * other
    return np.rint(share / share.sum(axis=1, keepdims=True) * (devices - 1) * BYTES)


def drawn_spines(topology: Topology, leaves: int, per_leaf: int, spines: int) -> Routing:
    """ECMP by a seeded draw of the spine of each ordered pair."""
    devices = topology.num_devices
    drawn = np.random.default_rng(0).integers(0, spines, size=(devices, devices))
    ptr, links = [0], []
    for source in range(devices):
        for destination in range(devices):
            up, down = devices + source // per_leaf, devices + destination // per_leaf
            spine = devices + leaves + drawn[source, destination]
            nodes = [source, up] if up == down else [source, up, spine, down]
            if source != destination:
                nodes = np.array([*nodes, destination])
                links.extend(topology.link_ids(nodes[:-1], nodes[1:]).tolist())
            ptr.append(len(links))
    return Routing.from_paths(topology, ptr, links)


def counterexample() -> Case:
    """Flows 0 and 1 cross links 1 and 0, 2 and 0; nine short flows each keep links 1 and 2 busy."""
    topology = from_links([(0, 1), (2, 3), (4, 5)], CAPACITY, 0.0, devices=40)
    flows = np.arange(20)
    ptr, links = np.concatenate([[0, 2], np.arange(4, 23)]), [1, 0, 2, 0] + [1] * 9 + [2] * 9
    demand = np.zeros((40, 40))
    demand[flows, 20 + flows] = np.where(flows < 2, 62.5e6, 6.25e6)
    return topology, Routing.from_paths(topology, ptr, links, flows, 20 + flows), demand


def rebuild(case: str, latency: float = LATENCY) -> Case:
    """Topology, routing and demand from a case's name."""
    if case == COUNTEREXAMPLE:
        return counterexample()
    match = CASE.fullmatch(case)
    assert match is not None, case
    kind, sizes, policy, pattern = match.groups()
    rows, columns, *spines = (int(size) for size in sizes.split("x"))
    demand = demand_of(pattern, rows * columns)
    if kind == "leafspine":
        topology = make("leaf-spine", (rows, columns), CAPACITY, latency, spines=spines[0])
        if policy == "dmodk":
            return topology, route(topology, "d-mod-k"), demand
        return topology, drawn_spines(topology, rows, columns, spines[0]), demand
    topology = make(kind.removesuffix("plus"), (rows, columns), CAPACITY, latency)
    tie = "plus" if kind == "torusplus" else "balanced"
    return topology, route(topology, "dimension-order", tie=tie), demand


def percent(value: float, reference: float | None) -> str:
    return f"{'-':>9s}" if reference is None else f"{100 * (value / reference - 1):+9.3f}"


def max_min_table(folder: Path) -> list[str]:
    """Max-min makespans, and how far the times are from SimGrid's: each flow's where stored."""
    lines = [
        "Max-min against SimGrid, largest relative error: of each flow where its time is stored "
        "(else -); of makespan, mean and p99 as in summary.csv (4 decimals of us); at rtol=1e-3, "
        "of each flow against its exact time",
        f"{'case':31s} {'start':>5s} {'makespan us':>12s} {'flow':>8s} {'digits':>8s} {'rtol':>8s}",
    ]
    worst = 0.0
    for case, name in SIMGRID_RUNS:
        network = rebuild(case, SIMGRID[name])
        fct = max_min(*network).fct
        fast = np.abs(max_min(*network, rtol=1e-3).fct / fct - 1).max()
        error = "-"
        if (folder / f"{case}.npz").is_file():
            flow = np.abs(fct / stored(folder, case)[f"fct_{name}"] - 1).max()
            error, worst = f"{flow:.1e}", max(worst, flow)
        digits = max(abs(ours / theirs - 1) for ours, theirs in in_summary(case, name, fct))
        start = "hops" if SIMGRID[name] else "0"
        lines.append(
            f"{case:31s} {start:>5s} {fct.max() * 1e6:12.4f} {error:>8s} {digits:8.1e} {fast:8.1e}"
        )
    largest = f"largest error of a flow {worst:.1e}" if worst else "no stored times by flow here"
    return [*lines, f"{largest}; {len(SIMGRID_RUNS)} runs"]


def in_summary(case: str, name: str, fct: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Makespan, mean and 99th percentile: ours and those of summary.csv."""
    columns = ("makespan_us", "mean_fct_us", "p99_fct_us")
    ours = (fct.max(), fct.mean(), float(np.percentile(fct, 99)))
    return [(value, summary(c, name)[case]) for value, c in zip(ours, columns, strict=True)]


def makespan_table() -> list[str]:
    """The makespan of each model beside the packet simulation's, case by case."""
    lines = [
        "Makespan against htsim's lossless FIFO (error %): bottleneck and max-min with 4096-byte "
        "packets, and the lower bound by node cut",
        f"{'case':31s} {'fifo us':>10s} {'bottleneck us':>13s} {'error %':>9s} {'max-min %':>9s} "
        f"{'bound %':>9s}",
    ]
    worst = 0.0
    for case, packets in FIFO.items():
        network = rebuild(case)
        time = bottleneck(*network, mtu=PACKET)
        fair = max_min(*network, mtu=PACKET).makespan
        worst = max(worst, abs(100 * (time / packets - 1)))
        lines.append(
            f"{case:31s} {packets * 1e6:10.4f} {time * 1e6:13.4f} {percent(time, packets)} "
            f"{percent(fair, packets)} {percent(node_cut(network[0], network[2]), packets)}"
        )
    return [*lines, f"largest error of the bottleneck {worst:.3f} % over {len(FIFO)} cases"]


def others_table() -> list[str]:
    """How much longer other simulators take than the models and than their own FIFO."""
    lines = [
        "For information, makespan over that of the bottleneck, of max-min (both with 4096-byte "
        "packets) and of htsim's FIFO, %",
        f"{'case':31s} {'simulator':15s} {'bottleneck':>10s} {'max-min':>9s} {'fifo':>9s}",
    ]
    for name in OTHERS:
        over = {}
        for case, time in makespans(name).items():
            network = rebuild(case)
            over[case] = 100 * (time / FIFO[case] - 1)
            lines.append(
                f"{case:31s} {name:15s}  {percent(time, bottleneck(*network, mtu=PACKET))} "
                f"{percent(time, max_min(*network, mtu=PACKET).makespan)} "
                f"{percent(time, FIFO.get(case))}"
            )
        least, most = min(over.values()), max(over.values())
        lines.append(f"{name}: {least:+.1f} to {most:+.1f} % over FIFO, {len(over)} cases")
    return lines


def error_table(folder: Path = SHARED / "validation") -> str:
    tables = [max_min_table(folder), makespan_table(), others_table()]
    return "\n\n".join("\n".join(lines) for lines in tables)


def stored(folder: Path, case: str) -> Mapping[str, Any]:
    with np.load(folder / f"{case}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("case", FIFO)
def test_bottleneck_is_within_three_percent_of_a_packet_simulation(case: str) -> None:
    assert bottleneck(*rebuild(case), mtu=PACKET) == pytest.approx(FIFO[case], rel=0.03)


@pytest.mark.parametrize(("case", "name"), SIMGRID_RUNS)
def test_max_min_has_the_summarys_makespan_mean_and_p99(case: str, name: str) -> None:
    fct = max_min(*rebuild(case, SIMGRID[name])).fct
    for ours, theirs in in_summary(case, name, fct):
        assert ours == pytest.approx(theirs, abs=5.1e-11, rel=1e-9)


@pytest.mark.parametrize(("case", "name"), SIMGRID_RUNS)
def test_every_flow_takes_what_simgrid_says(case: str, name: str, reference_runs: Path) -> None:
    file = stored(reference_runs, case)
    start = np.diff(file["ptr"]) * SIMGRID[name]
    fct = completion_times(file["cap"], file["ptr"], file["fl"], file["bytes"], start)
    assert fct == pytest.approx(file[f"fct_{name}"], rel=1e-9)
    assert max_min(*rebuild(case, SIMGRID[name])).fct == pytest.approx(fct, rel=1e-9)


@pytest.mark.parametrize(("case", "name"), SIMGRID_RUNS)
def test_fast_max_min_is_within_rtol_of_the_exact(case: str, name: str) -> None:
    network = rebuild(case, SIMGRID[name])
    for rtol in (1e-2, 1e-3):
        assert max_min(*network, rtol=rtol).fct == pytest.approx(max_min(*network).fct, rel=rtol)


@pytest.mark.parametrize("case", MAX_MIN)
def test_node_cut_bottleneck_and_max_min_are_in_order_without_latency(case: str) -> None:
    network = rebuild(case, latency=0.0)
    bound, time = node_cut(network[0], network[2]), bottleneck(*network)
    if case != COUNTEREXAMPLE:  # its flows cross links that do not touch their devices
        assert bound <= time * (1 + 1e-12)
    assert time <= max_min(*network).makespan * (1 + 1e-12)


@pytest.mark.parametrize("case", [c for c in MAX_MIN if c.endswith("uni") and "16x8" in c])
def test_uniform_traffic_on_the_large_grids_reaches_the_bound_under_max_min(case: str) -> None:
    network = rebuild(case, latency=0.0)
    assert bottleneck(*network) == pytest.approx(max_min(*network).makespan, rel=1e-9)


def test_congestion_control_is_slower_than_the_bottleneck_model() -> None:
    for simulator in ("htsim_dctcp", "htsim_ndp"):
        for case, seconds in makespans(simulator).items():
            assert seconds > bottleneck(*rebuild(case), mtu=PACKET)


def test_error_table_has_a_line_for_every_case() -> None:
    table = error_table()
    print(f"\n{table}")
    cases = [line.split()[0] for line in table.splitlines() if line]
    with SUMMARY.open(newline="") as file:
        for row in csv.DictReader(file):
            assert row["case"] in cases
    assert sum(case in MAX_MIN for case in cases) >= len(SIMGRID_RUNS) + len(FIFO)


@pytest.mark.parametrize("case", sorted({*FIFO, *MAX_MIN} - {COUNTEREXAMPLE}))
def test_rebuilt_cases_are_the_stored_ones(case: str, reference_runs: Path) -> None:
    file = stored(reference_runs, case)
    topology, routing, demand = rebuild(case)
    assert np.array_equal(demand, file["demand"])
    assert {*map(tuple, file["links"].tolist())} == {*map(tuple, topology.links.tolist())}
    assert np.all(file["cap"] == CAPACITY)
    assert np.all(file["lat"] == LATENCY)

    # Link ids of the file into ours, then the same pairs on the same links.
    own = topology.link_ids(*file["links"].T)
    given = from_links(file["links"], file["cap"], file["lat"], devices=topology.num_devices)
    ends = file["src"], file["dst"]
    routing_given = Routing.from_paths(given, file["ptr"], file["fl"], *ends)
    pair = file["src"] * topology.num_devices + file["dst"]
    assert (routing.matrix[own][:, pair] != routing_given.matrix[:, pair]).nnz == 0
    assert bottleneck(given, routing_given, file["demand"], mtu=PACKET) == pytest.approx(
        bottleneck(topology, routing, demand, mtu=PACKET), rel=1e-12
    )


@pytest.mark.parametrize("case", sorted(FIFO))
def test_stored_makespans_are_those_of_the_summary(case: str, reference_runs: Path) -> None:
    assert stored(reference_runs, case)["fct_htsim_fifo"].max() == pytest.approx(
        FIFO[case], rel=1e-5
    )


def test_counterexample_is_the_stored_one(reference_runs: Path) -> None:
    file = stored(reference_runs, COUNTEREXAMPLE)
    topology, routing, demand = counterexample()
    assert np.array_equal(file["links"], topology.links)
    assert np.array_equal(file["bytes"], demand[file["src"], file["dst"]])
    given = Routing.from_paths(topology, file["ptr"], file["fl"], file["src"], file["dst"])
    assert (given.matrix != routing.matrix).nnz == 0


def test_max_min_takes_longer_than_the_bottleneck_on_the_counterexample() -> None:
    network = counterexample()
    assert bottleneck(*network) == pytest.approx(0.010, rel=1e-12)
    assert max_min(*network).makespan == pytest.approx(0.014, rel=1e-12)


if __name__ == "__main__":
    print(error_table())
