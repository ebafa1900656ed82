"""Timelines of a delay sweep: the same step times as a simulation, schedules, wirings, windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.envs.circuit_schedules import (
    Ports,
    birkhoff_prefixes,
    completion_seconds,
    rotor_prefixes,
)
from topomoe.envs.delay_sweep import (
    SweepInput,
    both_ways_demands,
    phase_timelines,
    prepare_sweep,
    step_traffic,
    sweep_job,
)
from topomoe.envs.delay_sweep_cluster import cluster_timelines
from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.envs.delay_timeline import BACK, Order, Timeline, collective_seconds, windows
from topomoe.envs.schedule_table import Fabric
from topomoe.envs.wiring_library import alike, wire, wiring_library
from topomoe.envs.wiring_routing import (
    RoutedSeconds,
    fitted_networks,
    network_of,
    worth_fitting,
)
from topomoe.pricing import Job, price
from topomoe.routed_network import Network
from topomoe.topologies.matching.scheduling import schedule_circuits
from topomoe.topologies.reconfiguration import DELAYS
from topomoe.topologies.routing import route
from topomoe.topologies.topology import Topology
from topomoe.workload import WorkloadSettings

SMALL = DelaySweepSettings(
    model="mixtral-8x7b",
    grid="2x4",
    synthetic_requests=8,
    layers=3,
    steps=2,
    pool=2,
    epochs=12,
    phase_epochs=4.0,
    prefill_tokens=512,
    decode_tokens=256,
    training_tokens=512,
    row_tokens=128,
    points_per_decade=1,
    clusters=2,
    methods=("b-matching",),
)
PORTS = Ports(degree=4, rate=10e9, base_rate=5e9, circuit_latency=0.0, base_latency=0.0)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Solved routings go into a folder of the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPOMOE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@lru_cache(maxsize=1)
def small() -> SweepInput:
    return prepare_sweep(SMALL)


def quiet(_what: str, _done: int, _of: int) -> None:
    return None


@lru_cache(maxsize=4)
def timelines(workload: str) -> tuple[Timeline, Timeline]:
    if workload == "cluster":
        return cluster_timelines(small(), quiet)
    return phase_timelines(small(), workload, quiet)


def jobs_of(phase: str) -> tuple[Job, Job]:
    """Return the jobs of the training and of the held-out timeline."""
    given_ = small()
    workload = WorkloadSettings(
        phase=phase,
        batches=SMALL.steps,
        batch_tokens=256 if phase == "decode" else 512,
        schedule="phases" if phase == "decode" else "trace",
        phase_batches=SMALL.phase_steps,
    )
    return (
        sweep_job(given_, given_.train, workload, 8),
        sweep_job(given_, given_.held_out, workload, 8),
    )


def training_mean(phase: str) -> np.ndarray:
    """Return the mean copies of a layer in the training steps, [8, 8]."""
    traffic = step_traffic(jobs_of(phase)[0], (2, 4), 0)
    return np.asarray(np.stack([step.copies for step in traffic]).mean(axis=0).mean(axis=0))


@pytest.mark.parametrize("routing", ["default", "optimal"])
@pytest.mark.parametrize("phase", ["decode", "training"])
def test_never_switching_takes_what_pricing_says_of_the_same_steps(
    phase: str, routing: str
) -> None:
    train, job = jobs_of(phase)
    line = timelines(phase)[1]
    if routing == "optimal":
        k = line.routings.index("optimal")
        library = {"wiring": library_of(phase)[line.names[k]]}
        network = fitted_networks(library, ["wiring"], train, training_mean(phase))[0]
        assert network is not None
        cost = line.cost[:, :, k]
    else:
        network = network_of(wire(SMALL, (2, 4), "torus"), job)
        cost = line.usual[:, :, line.names.index("torus")]
    job = replace(job, networks=(network,))
    ours = cost.sum(axis=1) + line.rest
    for b, traffic in enumerate(step_traffic(job, (2, 4), 1)):
        whole = price(job, traffic)
        layers = whole.dispatch[0] + whole.combine[0] + whole.backward[0] + whole.compute
        assert ours[b] == pytest.approx(layers.sum() + whole.other, rel=1e-6)


@pytest.mark.parametrize("phase", ["prefill", "training"])
def test_the_windows_of_a_step_are_all_that_it_computes(phase: str) -> None:
    given_ = small()
    workload = WorkloadSettings(phase=phase, batches=1, batch_tokens=512)
    job = sweep_job(given_, given_.train, workload, 8)
    traffic = step_traffic(job, (2, 4), 0)
    order = Order.of(3, phase == "training")
    passes = 3.0 if phase == "training" else 1.0
    expected = passes * traffic[0].compute.sum() + traffic[0].other
    assert windows(job, traffic, order).sum() == pytest.approx(expected)


def test_training_runs_back_through_the_layers() -> None:
    order = Order.of(2, training=True)
    assert order.layer.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert order.new_layer.tolist() == [True, False, True, False, False, False, True, False]
    assert order.announced.tolist() == [False, True, False, True, True, True, True, True]


@given(seed=st.integers(0, 1000), devices=st.integers(2, 9))
@settings(max_examples=20)
def test_a_decomposition_serves_everything_in_the_time_that_the_ports_need(
    seed: int, devices: int
) -> None:
    demand = np.random.default_rng(seed).integers(0, 100, (devices, devices)) * 1e6
    np.fill_diagonal(demand, 0.0)
    busiest = max(demand.sum(axis=0).max(), demand.sum(axis=1).max())
    one_at_a_time, _ = birkhoff_prefixes(demand, PORTS)
    assert one_at_a_time.lit[-1] == pytest.approx(busiest / (4 * 10e9))
    for prefixes in birkhoff_prefixes(demand, PORTS):
        assert prefixes.drain[0] == pytest.approx(busiest / 5e9)
        assert prefixes.drain[-1] == 0.0
        assert np.all(np.diff(prefixes.drain) <= 1e-12)
        assert np.all(np.diff(prefixes.lit) >= 0)


@pytest.mark.parametrize("delay", [1e-8, 1e-5, 1e-3])
def test_prefixes_take_no_less_than_the_schedule_of_the_same_matchings(delay: float) -> None:
    demand = np.random.default_rng(1).uniform(1e5, 1e7, (8, 8))
    np.fill_diagonal(demand, 0.0)
    theirs = schedule_circuits(
        demand, 40e9, delay, degree=1, method="birkhoff", base_bandwidth=5e9
    ).completion_time
    ours = completion_seconds(
        birkhoff_prefixes(demand, PORTS)[0], 1.0, np.array([delay]), np.array([delay]), PORTS
    )[0]
    # Circuits that stay lit between matchings carry on there, and go dark here.
    assert theirs * (1 - 1e-9) <= ours <= 1.15 * theirs


def test_a_rotor_serves_even_demand_in_one_turn() -> None:
    demand = 1e6 * (1.0 - np.eye(9))
    slot = 1e6 / PORTS.rate
    prefixes = rotor_prefixes(demand, slot, 1, replace(PORTS, base_rate=1.0))
    delays = np.array([0.0, 1e-6])
    seconds = completion_seconds(prefixes, 1.0, delays, delays, PORTS)
    np.testing.assert_allclose(seconds, 2 * (slot + delays))  # eight shifts, four at a time


def test_a_first_rewiring_that_is_hidden_saves_itself() -> None:
    demand = np.random.default_rng(2).uniform(1e6, 2e6, (6, 6))
    np.fill_diagonal(demand, 0.0)
    ports = replace(PORTS, base_rate=1.0)
    delays = np.array([1e-6])
    for prefixes in birkhoff_prefixes(demand, ports):
        shown = completion_seconds(prefixes, 1.0, delays, delays, ports)
        hidden = completion_seconds(prefixes, 1.0, delays, np.zeros(1), ports)
        assert shown - hidden == pytest.approx(1e-6)


def test_scaling_a_demand_scales_the_light_and_not_the_dark() -> None:
    demand = np.random.default_rng(3).uniform(1e6, 2e6, (6, 6))
    ports = replace(PORTS, base_rate=1.0)
    delays = np.array([0.0, 1e-6])
    for once, twice in zip(
        birkhoff_prefixes(demand, ports), birkhoff_prefixes(2 * demand, ports), strict=True
    ):
        np.testing.assert_allclose(
            completion_seconds(once, 2.0, delays, delays, ports),
            completion_seconds(twice, 1.0, delays, delays, ports),
        )


def test_a_transposed_demand_takes_as_long() -> None:
    demand = np.random.default_rng(4).uniform(1e6, 2e6, (6, 6))
    busy = [birkhoff_prefixes(d, PORTS)[0].lit[-1] for d in (demand, demand.T.copy())]
    assert busy[0] == pytest.approx(busy[1])


def test_alike_demands_share_a_group() -> None:
    near, far = np.zeros((4, 4)), np.zeros((4, 4))
    near[0, 1], far[3, 2] = 1.0, 1.0
    demands = np.stack([far, 5 * near, 2 * far, near])
    assert alike(demands, 2).tolist() == [0, 1, 0, 1]
    assert alike(demands, 1).tolist() == [0, 0, 0, 0]


def test_a_library_holds_each_wiring_once_and_only_wirings_of_one_fabric() -> None:
    demand = np.random.default_rng(0).uniform(1, 2, (3, 8, 8))
    twice = replace(SMALL, wirings=("torus", "torus-twist-2"))  # of two rows: the same
    library = wiring_library(twice, (2, 4), demand)
    assert "torus" in library
    assert "torus-twist-2" not in library
    assert any(name.startswith("b-matching") for name in library)
    for topology in library.values():
        assert topology.parameters["degree"] == SMALL.ports
        np.testing.assert_allclose(topology.capacity[topology.optical].min(), 0.9 * 50e9 / 4)


def test_every_technology_is_among_the_delays() -> None:
    for delay in DELAYS.values():
        assert delay.total in small().delays
    assert np.all(np.diff(small().delays) > 0)


def test_training_and_held_out_steps_share_no_request() -> None:
    given_ = small()
    assert not set(given_.train.request_ids) & set(given_.held_out.request_ids)


@pytest.mark.parametrize("workload", ["prefill", "decode", "training", "cluster"])
def test_schedules_slow_down_with_the_delay_and_nothing_beats_the_ports(workload: str) -> None:
    # A rotor's slot at each delay is the one that is fastest in training, as a whole: its single
    # steps may gain where the slot changes with the delay.
    training = timelines(workload)[0].scheduled["rotor"].sum(axis=(1, 2))
    assert np.all(np.diff(training) >= -1e-12)
    for line in timelines(workload):
        for name, seconds in {**line.scheduled, "foreseen": line.foreseen}.items():
            assert np.all(seconds >= line.bound - 1e-12)
            if name != "rotor":
                assert np.all(np.diff(seconds, axis=0) >= -1e-12)
        for seconds in line.scheduled.values():
            assert np.all(line.foreseen <= seconds + 1e-12)
        assert np.all(line.cost >= line.bound[:, :, None] - 1e-12)
        if line.redrawn is not None:
            assert np.all(line.redrawn >= line.bound - 1e-12)


def library_of(phase: str) -> dict[str, Topology]:
    train = jobs_of(phase)[0]
    traffic = step_traffic(train, (2, 4), 0)
    mean = np.stack([step.copies for step in traffic]).mean(axis=0)
    return wiring_library(SMALL, (2, 4), both_ways_demands(train, mean))


def test_optimal_splits_are_never_slower_for_the_demand_they_are_made_for() -> None:
    job, mean = jobs_of("decode")[0], training_mean("decode")
    library = library_of("decode")
    demand = both_ways_demands(job, mean[None])
    for name, network in zip(
        library, fitted_networks(library, tuple(library), job, mean), strict=True
    ):
        assert network is not None
        usual = network_of(library[name], job).routing.transfer_time(demand)
        there = network.routing.transfer_time(demand[:1])[0]
        back = network.combine.routing.transfer_time(demand[1:])[0]
        assert there <= usual[0] * (1 + 1e-6)
        assert back <= usual[1] * (1 + 1e-6)


def test_a_combine_takes_its_own_routing() -> None:
    job = jobs_of("decode")[0]
    topology = wire(SMALL, (2, 4), "torus")
    there, back = (route(topology, name) for name in ("hybrid", "circuit-relay"))
    copies = np.random.default_rng(0).uniform(1, 9, (2, 3, 8, 8)).astype(np.float32)
    order = Order.of(3, training=True)

    def seconds(routing: Any) -> np.ndarray:
        network = Network.of(topology, routing, job.tables.num_experts, job.step.mtu)
        return collective_seconds(job, network, copies, order)

    both = seconds((there, back))
    comes_back = order.kind == BACK
    np.testing.assert_array_equal(both[:, comes_back], seconds(back)[:, comes_back])
    np.testing.assert_array_equal(both[:, ~comes_back], seconds(there)[:, ~comes_back])
    assert not np.allclose(both, seconds(there))


def test_the_wirings_with_least_relaying_are_worth_fitting() -> None:
    library = {name: wire(SMALL, (2, 4), name) for name in ("mesh", "columns", "torus", "rows")}
    row = np.arange(8) // 4
    within = (row[:, None] == row) * 1e6
    even = np.full((8, 8), 1e6)
    names = worth_fitting(replace(SMALL, optimal_wirings=1), library, [within])
    assert names == ("rows",)
    assert "rows" in worth_fitting(replace(SMALL, optimal_wirings=2), library, [even, within])
    assert set(worth_fitting(replace(SMALL, optimal_wirings=0), library, [even])) == set(library)
    assert worth_fitting(replace(SMALL, wiring_routing="default"), library, [even]) == ()


def test_each_wiring_takes_the_routing_that_is_faster_overall() -> None:
    usual = np.array([[[2.0, 1.0, 5.0]], [[2.0, 1.0, 5.0]]])
    fitted = np.array([[[1.0, 3.0, np.inf]], [[2.5, 0.5, np.inf]]])
    routed = RoutedSeconds(usual, fitted)
    assert routed.choose(always=False).tolist() == [True, False, False]
    assert routed.choose(always=True).tolist() == [True, True, False]
    np.testing.assert_array_equal(
        routed.under(routed.choose(always=False)), [[[1.0, 1.0, 5.0]], [[2.5, 1.0, 5.0]]]
    )
    np.testing.assert_array_equal(routed.least, [[[1.0, 1.0, 5.0]], [[2.0, 0.5, 5.0]]])


@pytest.mark.parametrize("workload", ["decode", "cluster"])
def test_routing_is_chosen_in_training_and_gains_there(workload: str) -> None:
    training, held_out = timelines(workload)
    assert training.routings == held_out.routings
    assert any("optimal" in name for name in training.routings)
    assert training.cost.sum() < training.usual.sum()
    for line in (training, held_out):
        assert np.all(line.least <= line.cost + 1e-12)
        assert np.all(line.least <= line.usual + 1e-12)


@pytest.mark.parametrize("workload", ["prefill", "cluster"])
def test_held_out_requests_choose_nothing(workload: str) -> None:
    other = replace(small(), held_out=small().train)
    find = cluster_timelines if workload == "cluster" else partial(phase_timelines, phase=workload)
    changed = find(other, progress=quiet)
    before = timelines(workload)
    for name in ("cost", "usual", "least", "foreseen", "window"):
        np.testing.assert_array_equal(getattr(changed[0], name), getattr(before[0], name))
    assert not np.array_equal(changed[1].cost, before[1].cost)
    assert (changed[1].names, changed[1].routings) == (before[1].names, before[1].routings)


def test_counts_are_gathered_within_groups() -> None:
    given_ = small()
    wiring = wire(SMALL, (2, 4), "torus")
    workload = WorkloadSettings(phase="prefill", batches=1, batch_tokens=64)
    whole, row = (
        Fabric.of(SMALL, wiring, sweep_job(given_, given_.train, workload, size)) for size in (8, 4)
    )
    assert row.gather < whole.gather
    assert row.ports == whole.ports


def test_a_clusters_epochs_cost_more_with_more_steps() -> None:
    line = timelines("cluster")[1]
    assert line.cost.shape[:2] == (SMALL.epochs, 1)
    assert line.queue is not None
    assert np.all((line.queue >= 0) & (line.queue <= 1))
    assert line.block == 4
