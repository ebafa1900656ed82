"""The simulator: what a step adds up to, by hand and by property, on small synthetic traces."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import topomoe as tm
from topomoe.compute import device_seconds, other_seconds
from topomoe.demand import DispatchSettings, all_gather_bytes
from topomoe.model import DEVICES, MODELS
from topomoe.network import bottleneck, capacity_bound, node_cut
from topomoe.simulation import LEAST_REQUESTS, simulate_networks, total_batches
from topomoe.step import SimulationResult, StepSettings
from topomoe.topologies import InputError, Routing, Topology, from_links, make, route
from topomoe.workload import WorkloadSettings, coverage, make_batches

GRID = (2, 4)
MODEL = MODELS["mixtral-8x7b"]
TRACE = tm.synthetic_trace(MODEL.name, requests=12, positions=24).filter(layers=(0, 9, 31))
REPLICATED = tm.place(TRACE, devices=8, slots=16, method="exact")
SINGLE = tm.place(TRACE, devices=8, method="contiguous")
BARE = StepSettings(collective_overhead=0.0, mtu=0.0)
PARTS = ("dispatch", "compute", "combine", "backward", "other", "bound")
TOPOLOGIES = ("mesh", "torus", "twisted-torus", "leaf-spine", "fat-tree", "optical")
every_topology = pytest.mark.parametrize("name", TOPOLOGIES)
every_phase = pytest.mark.parametrize("phase", ["decode", "prefill", "training"])


def network(name: str = "torus", bandwidth: float = 12.5e9, latency: float = 1e-6) -> Topology:
    return make(name, GRID, bandwidth, latency)


def simulate(topology: Topology | None = None, **changed: Any) -> SimulationResult:
    given: dict[str, Any] = {
        "trace": TRACE,
        "topology": topology or network(),
        "placement": REPLICATED,
        "model": MODEL,
        "batch_tokens": 128,
        "batches": 4,
    }
    return tm.simulate(**{**given, **changed})


def assert_same_bytes(first: SimulationResult, second: SimulationResult) -> None:
    for part in PARTS:
        one, other = getattr(first.times, part), getattr(second.times, part)
        assert one.tobytes() == other.tobytes(), part
    for field in ("tokens", "max_over_mean", "remote_bytes", "mean_demand", "device_load"):
        assert getattr(first, field).tobytes() == getattr(second, field).tobytes(), field
    assert first.cross_row_bytes.tobytes() == second.cross_row_bytes.tobytes()
    assert first.mean_interval == second.mean_interval
    assert (first.requests, first.positions) == (second.requests, second.positions)


# What a step adds up to.


@every_phase
def test_the_parts_of_a_step_add_up(phase: str) -> None:
    times = simulate(phase=phase).times
    layers = times.dispatch + times.compute + times.combine + times.backward
    np.testing.assert_array_equal(times.moe, layers.sum(axis=1))
    np.testing.assert_array_equal(times.step, times.moe + times.other)
    for part in PARTS[:3]:
        assert getattr(times, part).shape == (4, 3)
        assert (getattr(times, part) > 0).all()
    assert times.other.shape == (4,)
    assert (times.other > 0).all()
    assert (times.backward > 0).all() == (phase == "training")


@pytest.mark.parametrize("mtu", [0.0, 4096.0])
@every_topology
def test_a_batch_costs_what_its_dispatch_costs_by_hand(name: str, mtu: float) -> None:
    """Through public functions; without replicas, so that no draw is in the dispatch."""
    topology = network(name)
    routing = route(topology)
    overhead, seed = 5e-6, 3
    result = simulate(
        topology,
        placement=SINGLE,
        step=StepSettings(collective_overhead=overhead, mtu=mtu),
        seed=seed,
    )
    workload = WorkloadSettings(batches=4, batch_tokens=128)
    batches = make_batches(TRACE, 8, GRID, workload, np.random.default_rng(seed))
    ratio = MODEL.combine_bytes / MODEL.dispatch_bytes
    for b, batch in enumerate(batches):
        start = np.bincount(batch.origin, minlength=8)
        rest = other_seconds(float(start.max()), MODEL, DEVICES["h100"], "decode", 4096)
        whole = TRACE.num_layers / MODEL.num_layers  # the trace runs only some of the layers
        assert result.times.other[b] == pytest.approx(rest * whole, rel=1e-12)
        for m in range(TRACE.num_layers):
            there, load = tm.dispatch(
                TRACE.experts[m, batch.positions], batch.origin, SINGLE[m], MODEL
            )
            back = there.T * ratio
            for part, demand in (("dispatch", there), ("combine", back)):
                wanted = overhead + bottleneck(topology, routing, demand, mtu or None)
                assert getattr(result.times, part)[b, m] == pytest.approx(wanted, rel=1e-6)
            bound = sum(
                overhead + max(node_cut(topology, part), capacity_bound(topology, part))
                for part in (there, back)
            )
            assert result.times.bound[b, m] == pytest.approx(bound, rel=1e-6)
            compute = device_seconds(load[None], start, 8, MODEL, DEVICES["h100"]).max()
            assert result.times.compute[b, m] == pytest.approx(compute, rel=1e-12)
            assert result.max_over_mean[b, m] == load.max() / load.mean()
            assert result.remote_bytes[b, m] == pytest.approx((there + back).sum(), rel=1e-6)
            across = (there + back)[:4, 4:].sum() + (there + back)[4:, :4].sum()
            assert result.cross_row_bytes[b, m] == pytest.approx(across, rel=1e-6)
    assert (result.requests, result.positions) == coverage(TRACE, batches)


def test_a_combine_is_routed_anew_and_not_back_over_the_same_links() -> None:
    """On a mesh, rows first: what goes out by rows comes back by rows, over other links."""
    topology = make("mesh", (3, 3), 12.5e9, 0.0)
    trace = TRACE
    load = np.ones((3, 8))
    placement = tm.place(load, devices=9, slots=9, method="contiguous")
    result = simulate(topology, trace=trace, placement=placement, step=BARE, batches=8)
    routing = route(topology)
    batches = make_batches(
        trace, 9, (3, 3), WorkloadSettings(batches=8, batch_tokens=128), np.random.default_rng(0)
    )
    reversed_route, anew = [], []
    for batch in batches:
        there, _ = tm.dispatch(trace.experts[0, batch.positions], batch.origin, placement[0], MODEL)
        back = there.T * MODEL.combine_bytes / MODEL.dispatch_bytes
        anew.append(bottleneck(topology, routing, back))
        reversed_route.append(bottleneck(topology, routing, there) * 8192 / 4224)
    np.testing.assert_allclose(result.times.combine[:, 0], anew, rtol=1e-6)
    assert not np.allclose(anew, reversed_route, rtol=0.01)


@every_topology
def test_half_the_bandwidth_doubles_the_network_parts_exactly(name: str) -> None:
    fast, slow = (
        simulate(
            network(name, bandwidth, latency=0.0),
            step=BARE,
            phase="training",
            replica_routing="least-loaded",  # so that the all-gather of counts is in it
        ).times
        for bandwidth in (12.5e9, 6.25e9)
    )
    for part in ("dispatch", "combine", "bound"):
        np.testing.assert_array_equal(getattr(slow, part), 2 * getattr(fast, part))
    np.testing.assert_array_equal(slow.compute, fast.compute)
    np.testing.assert_array_equal(slow.other, fast.other)
    gradients = [times.backward - 2 * times.compute for times in (fast, slow)]
    np.testing.assert_allclose(gradients[1], 2 * gradients[0], rtol=1e-9)


@every_topology
@pytest.mark.parametrize("copies", ["device", "expert", "node-relay"])
def test_the_bound_is_never_above_the_network_time(name: str, copies: str) -> None:
    for seed in range(4):
        dispatch = DispatchSettings("local-first", copies, node_size=2)
        times = simulate(network(name), dispatch=dispatch, step=BARE, seed=seed).times
        assert (times.bound > 0).all()
        assert (times.bound <= (times.dispatch + times.combine) * (1 + 1e-6)).all()


def test_more_tokens_are_never_faster_on_average() -> None:
    means = [simulate(batch_tokens=tokens).step_time.mean for tokens in (16, 64, 256, 1024)]
    assert means == sorted(means)


def test_training_adds_two_all_to_alls_and_twice_the_compute() -> None:
    """The gradients of combine go out as dispatch did, in BF16; those of dispatch come back."""
    topology = network(latency=0.0)
    workload = WorkloadSettings(phase="training", batches=4, batch_tokens=128)
    overhead = 5e-6
    step = StepSettings(collective_overhead=overhead, mtu=0.0)
    times = simulate(topology, workload=workload, step=step).times
    bare = times.dispatch - overhead
    gradient = overhead + bare * MODEL.combine_bytes / MODEL.dispatch_bytes
    np.testing.assert_allclose(
        times.backward, gradient + times.combine + 2 * times.compute, rtol=1e-5
    )
    batches = make_batches(TRACE, 8, GRID, workload, np.random.default_rng(0))
    for b, batch in enumerate(batches):
        most = float(np.bincount(batch.origin, minlength=8).max())
        forward = other_seconds(most, MODEL, DEVICES["h100"], "training", 4096)
        share = TRACE.num_layers / MODEL.num_layers
        assert times.other[b] == pytest.approx(3 * forward * share, rel=1e-12)


@every_phase
def test_bytes_on_the_network_are_those_between_devices(phase: str) -> None:
    result = simulate(phase=phase)
    mean = result.remote_bytes.mean()
    assert result.mean_demand.sum() == pytest.approx(mean, rel=1e-6)
    assert not np.diagonal(result.mean_demand).any()
    assert (result.cross_row_bytes <= result.remote_bytes).all()
    forward = MODEL.dispatch_bytes + MODEL.combine_bytes
    copies = result.remote_bytes / (forward + 2 * MODEL.combine_bytes * (phase == "training"))
    np.testing.assert_allclose(copies, np.rint(copies), rtol=1e-6)


def test_device_load_counts_every_token_expert_pair() -> None:
    result = simulate(batches=5)
    np.testing.assert_allclose(result.device_load.sum(axis=1), 128 * TRACE.top_k)
    np.testing.assert_array_equal(result.tokens, 128)


@pytest.mark.parametrize("routing", ["local-first", "least-loaded"])
def test_replicas_by_load_are_charged_an_all_gather_of_counts(routing: str) -> None:
    """Without replicas the dispatch itself is the same; only the counts come on top."""
    topology = network()
    by_share = simulate(topology, placement=SINGLE, replica_routing="weighted").times
    by_load = simulate(topology, placement=SINGLE, replica_routing=routing).times
    counts = np.full((8, 8), float(all_gather_bytes(8)))
    gather = StepSettings().collective_overhead + bottleneck(
        topology, route(topology), counts, mtu=4096
    )
    np.testing.assert_allclose(by_load.dispatch - by_share.dispatch, gather, rtol=1e-9)
    np.testing.assert_array_equal(by_load.combine, by_share.combine)


def test_a_shared_expert_is_local_or_one_more_routed_expert() -> None:
    model = MODELS["deepseek-v2-lite"]
    trace = tm.synthetic_trace(model.name, requests=8, positions=16).filter(layers=(0, 1))
    load = trace.load()
    routed_load = np.concatenate([load, load.sum(axis=1, keepdims=True) / 6], axis=1)
    local, routed = (
        tm.simulate(
            trace, network(), tm.place(given, 8, slots=80), model, batch_tokens=256, batches=2
        )
        for given in (load, routed_load)
    )
    np.testing.assert_allclose(local.device_load.sum(axis=1), 256 * 6)
    np.testing.assert_allclose(routed.device_load.sum(axis=1), 256 * 7)
    assert (routed.remote_bytes > local.remote_bytes).all()


# Overlap.


@pytest.mark.parametrize("phase", ["decode", "training"])
def test_overlapped_halves_take_between_their_longest_resource_and_their_sum(phase: str) -> None:
    """The network carries both halves one after another, and so does the device."""
    result = simulate(phase=phase, step=StepSettings(overlap="two-batch"), batch_tokens=1024)
    times = result.times
    assert times.halves is not None
    first, second = times.halves
    network_time = sum((h.dispatch + h.combine).sum(axis=1) for h in (first, second))
    experts = sum(h.compute.sum(axis=1) for h in (first, second))
    backward = sum(h.backward.sum(axis=1) for h in (first, second))
    other = first.other + second.other
    tolerance = 1 + 1e-12
    for total, device in ((times.moe, experts), (times.step, experts + other)):
        assert (total * tolerance >= np.maximum(network_time, device) + backward).all()
        assert (total <= (network_time + device + backward) * tolerance).all()
    assert (times.step > times.moe).all()


def test_halves_of_a_batch_together_never_take_less_than_the_whole() -> None:
    """Without latency and overhead, and without replicas whose shares would be rounded twice."""
    overlap = StepSettings(collective_overhead=0.0, mtu=0.0, overlap="two-batch")
    whole, halved = (
        simulate(network(latency=0.0), batch_tokens=1024, placement=SINGLE, step=step).times
        for step in (BARE, overlap)
    )
    assert whole.halves is None
    assert halved.halves is not None
    np.testing.assert_array_equal(halved.dispatch, whole.dispatch)
    for part in ("dispatch", "combine"):
        total = getattr(whole, part)
        first, second = (getattr(half, part) for half in halved.halves)
        assert (first + second >= total * (1 - 1e-6)).all()
        assert (first < total).all()
        assert (second < total).all()


@pytest.mark.filterwarnings("error")
def test_a_batch_of_one_token_has_an_empty_half() -> None:
    result = simulate(batch_tokens=1, step=StepSettings(overlap="two-batch"))
    assert np.isfinite(result.step_time.samples).all()
    assert (result.max_over_mean >= 1).all()


def test_overlap_hides_the_network_where_compute_is_longer() -> None:
    """On a fast enough network nearly nothing of it is left."""
    fast = network(bandwidth=1e15, latency=0.0)
    step = StepSettings(collective_overhead=0.0, mtu=0.0, overlap="two-batch")
    times = simulate(fast, step=step).times
    assert times.halves is not None
    experts = sum(h.compute.sum(axis=1) for h in times.halves)
    np.testing.assert_allclose(times.moe, experts, rtol=1e-3)


# What does not change a number.


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (simulate(seed=seed, resamples=3) for seed in (4, 4, 5))
    assert_same_bytes(first, again)
    assert first.times.dispatch.tobytes() != other.times.dispatch.tobytes()


def test_a_network_does_not_depend_on_which_others_are_simulated_along() -> None:
    topologies = [network(name) for name in TOPOLOGIES]
    workload = WorkloadSettings(batches=4, batch_tokens=128)

    def run(chosen: list[Topology]) -> list[SimulationResult]:
        return simulate_networks(
            TRACE,
            [(topology, None) for topology in chosen],
            REPLICATED,
            MODEL,
            workload,
            DispatchSettings(),
            StepSettings(),
            resamples=2,
        )

    together, backwards = run(topologies), run(topologies[::-1])[::-1]
    for topology, result, turned in zip(topologies, together, backwards, strict=True):
        assert_same_bytes(result, turned)
        assert_same_bytes(result, run([topology])[0])
    assert len({result.moe_time.mean for result in together}) == len(TOPOLOGIES)


def test_numbers_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for count in (1, 3, None):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        results.append(simulate(batches=7, resamples=2))
    assert_same_bytes(results[0], results[1])
    assert_same_bytes(results[0], results[2])


def test_the_default_routing_may_be_named() -> None:
    topology = network()
    assert_same_bytes(simulate(topology), simulate(topology, routing=route(topology)))


def test_the_preset_of_a_whole_trace_is_found() -> None:
    trace = tm.synthetic_trace(MODEL.name, requests=4, positions=8)
    placement = tm.place(trace, devices=8, slots=16)
    named, found = (
        simulate(trace=trace, placement=placement, model=model, batches=1)
        for model in (MODEL.name, None)
    )
    assert_same_bytes(named, found)


def test_progress_is_told_of_every_batch() -> None:
    workload = WorkloadSettings(batches=3, batch_tokens=16)
    calls: list[None] = []
    simulate_networks(
        TRACE,
        [(network(), None)],
        REPLICATED,
        MODEL,
        workload,
        DispatchSettings(),
        StepSettings(),
        resamples=2,
        progress=lambda: calls.append(None),
    )
    assert len(calls) == total_batches(workload, 2) == 3 + 16
    assert total_batches(workload, 0) == 3


# Statistics.


def test_percentiles_are_ordered_and_lie_within_the_samples() -> None:
    for time in (simulate(batches=50).step_time, simulate(batches=50).moe_time):
        assert time.samples.min() <= time.p50 <= time.p95 <= time.p99 <= time.samples.max()
        assert time.samples.min() < time.mean < time.samples.max()
        assert time.percentile(0) == time.samples.min()
        assert time.percentile(100) == time.samples.max()


def test_the_interval_of_the_mean_holds_the_mean_of_many_batches() -> None:
    without = simulate()
    assert without.mean_interval is None
    result = simulate(resamples=20, seed=1)
    assert result.mean_interval is not None
    low, high = result.mean_interval
    mean = simulate(batches=200, seed=2).step_time.mean
    assert low < mean < high
    assert high - low < 0.5 * mean


def test_an_interval_over_fewer_requests_is_wider() -> None:
    """Six requests, or the same six and fifty-eight others."""
    many = tm.synthetic_trace(MODEL.name, requests=64, positions=24).filter(layers=(0, 9))
    width = []
    for trace in (many.select(range(6)), many):
        placement = tm.place(many, devices=8, slots=16)
        result = simulate(
            trace=trace,
            placement=placement,
            resamples=24,
            batch_tokens=8192,
            batches=1,
            origins="round-robin",  # attention takes equally long in all batches
        )
        assert result.mean_interval is not None
        width.append(result.mean_interval[1] - result.mean_interval[0])
    assert width[0] > 2 * width[1]


def test_too_few_requests_have_no_interval() -> None:
    few = TRACE.select(range(LEAST_REQUESTS - 1))
    assert simulate(trace=few, resamples=4).mean_interval is None


def test_the_frame_has_a_row_a_batch_and_layer() -> None:
    result = simulate(phase="training")
    frame = result.to_frame()
    assert frame.shape == (4 * 3, 14)
    assert not frame.isna().any().any()
    np.testing.assert_array_equal(frame["batch"], np.repeat(range(4), 3))
    np.testing.assert_array_equal(frame["layer"], np.tile(range(3), 4))
    parts = frame[["dispatch_s", "compute_s", "combine_s", "backward_s"]].sum(axis=1)
    np.testing.assert_allclose(parts.groupby(frame["batch"]).sum(), result.times.moe)
    row = frame[(frame["batch"] == 2) & (frame["layer"] == 1)].iloc[0]
    assert row["combine_s"] == result.times.combine[2, 1]
    assert row["remote_bytes"] == result.remote_bytes[2, 1]


# Errors.


def partial_routing(topology: Topology) -> Routing:
    return Routing.from_paths(topology, [0, 1], [0])


TORUS = network()


def islands() -> Topology:
    pairs = [(a, b) for a in range(8) for b in range(8) if a != b and a // 4 == b // 4]
    return from_links(np.array(pairs), 1e9, devices=8, name="islands")


def wrong_cases() -> dict[str, tuple[dict[str, Any], str]]:
    other_layers = tm.place(np.ones((2, 8)), devices=8)
    other_experts = tm.place(np.ones((3, 9)), devices=8, slots=16)
    without_shared = r"placement must hold the trace's 8 experts, holds 9"
    return {
        "layers": ({"placement": other_layers}, "placement must have the trace's 3 layers, has 2"),
        "devices": (
            {"topology": make("torus", (2, 2))},
            "torus has 4 devices, the placement 8",
        ),
        "experts": ({"placement": other_experts}, without_shared),
        "two experts more than the trace": (
            {
                "placement": tm.place(np.ones((3, 10)), devices=8, slots=16),
                "model": "deepseek-v2-lite",
            },
            r"8 experts \(one more: the shared expert, routed\), holds 10",
        ),
        "routing over another topology": (
            {"routing": route(network())},
            "routing is over another topology than torus",
        ),
        "routing that lacks pairs": (
            {"topology": TORUS, "routing": partial_routing(TORUS)},
            "torus: .* has no path from device 0 to device",
        ),
        "disconnected topology": (
            {"topology": islands()},
            "islands: ecmp has no path from device 0 to device 4",
        ),
        "unknown model": (
            {"model": "mixtral"},
            "unknown model 'mixtral'; did you mean 'mixtral-8x7b'",
        ),
        "no model of that shape": (
            {"model": None},
            "no model preset has 3 MoE layers, 8 experts and top-2",
        ),
        "phase": ({"phase": "decoding"}, "unknown phase 'decoding'; did you mean 'decode'"),
        "batches": ({"batches": 0}, "batches must be a whole number >= 1, got 0"),
        "batch_tokens": ({"batch_tokens": 0}, "batch_tokens must be a whole number >= 1, got 0"),
        "seed": ({"seed": -1}, "seed must be >= 0, got -1"),
        "copies": ({"copies": "experts"}, "unknown copies 'experts'; did you mean 'expert'"),
        "replica routing": ({"replica_routing": "lest-loaded"}, "did you mean 'least-loaded'"),
        "node_size": (
            {"dispatch": DispatchSettings(copies="node-relay", node_size=3)},
            "node_size must divide devices, got node_size=3 and devices=8",
        ),
    }


WRONG = wrong_cases()


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_together_is_refused_in_one_line(case: str) -> None:
    changed, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        simulate(**{"topology": network(), **changed})
    assert "\n" not in str(caught.value)


def test_no_topology_is_refused() -> None:
    with pytest.raises(InputError, match="simulate needs at least one topology"):
        simulate_networks(
            TRACE, [], REPLICATED, MODEL, WorkloadSettings(), DispatchSettings(), StepSettings()
        )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("device", "h1000", "unknown device 'h1000'; did you mean 'h100'"),
        ("overlap", "two-batches", "unknown overlap 'two-batches'; did you mean 'two-batch'"),
        ("collective_overhead", -1.0, "collective_overhead must be finite and >= 0, got -1"),
        ("mtu", np.inf, "mtu must be finite and >= 0, got inf"),
        ("tile_tokens", -1, "tile_tokens must be finite and >= 0, got -1"),
        ("context_tokens", -1, "context_tokens must be finite and >= 0, got -1"),
    ],
)
def test_step_settings_name_the_field(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StepSettings(**{field: value})


def test_steps_of_a_measured_trace(trace_folder: Any) -> None:
    """Real routing: finite times, the bound below them, more requests than one behind them."""
    trace = tm.load_trace(trace_folder("deepseek-v2-lite"))
    train, test = trace.split(0.5, 0)
    placement = tm.place(train, devices=8, slots=80)
    result = tm.simulate(test, network(), placement, batch_tokens=2048, batches=8)
    samples: NDArray[np.float64] = result.times.step
    assert np.isfinite(samples).all()
    assert result.requests > 1
    assert (result.times.bound <= result.times.dispatch + result.times.combine).all()


def test_max_min_steps_are_no_faster_than_the_bottleneck_without_latency() -> None:
    trace = tm.synthetic_trace("mixtral-8x7b", requests=8, positions=16).filter(layers=(0, 1))
    placement = tm.place(trace, devices=8, slots=16, method="eplb")
    torus = make("torus", grid=(2, 4), latency=0)
    common = {"batch_tokens": 256, "batches": 3, "model": "mixtral-8x7b"}
    plain, exact, fast = (
        tm.simulate(trace, torus, placement, step=StepSettings(mtu=0.0, **chosen), **common)
        for chosen in (
            {},
            {"fidelity": "max-min", "max_min_rtol": 0.0},
            {"fidelity": "max-min"},
        )
    )
    for part in ("dispatch", "combine"):
        bound, fair = getattr(plain.times, part), getattr(exact.times, part)
        assert (fair >= bound * (1 - 1e-6)).all()
        np.testing.assert_allclose(getattr(fast.times, part), fair, rtol=2e-3)
    assert (exact.times.dispatch > plain.times.dispatch * (1 + 1e-6)).any()


def test_no_fast_max_min_time_is_below_what_the_busiest_link_takes() -> None:
    trace = tm.synthetic_trace("mixtral-8x7b", requests=6, positions=16)
    placement = tm.place(trace, devices=16, slots=32, method="exact")
    fabric = make("jellyfish", grid=(4, 4), latency=0)
    common = {"batch_tokens": 256, "batches": 2, "model": "mixtral-8x7b"}
    plain, fast = (
        tm.simulate(trace, fabric, placement, step=StepSettings(mtu=0.0, **chosen), **common)
        for chosen in ({}, {"fidelity": "max-min", "max_min_rtol": 0.1})
    )
    for part in ("dispatch", "combine"):
        assert (getattr(fast.times, part) >= getattr(plain.times, part) * (1 - 1e-6)).all()


def test_an_unknown_fidelity_is_named() -> None:
    with pytest.raises(InputError, match="unknown fidelity 'maxmin'"):
        StepSettings(fidelity="maxmin")
    with pytest.raises(InputError, match="max_min_rtol must be in"):
        StepSettings(max_min_rtol=1.0)
