"""Groups on one network: alone where they share nothing, slower where they share links."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import topomoe as tm
from topomoe.demand import DispatchSettings, all_gather_bytes
from topomoe.groups import Group, partition, simulate_groups
from topomoe.model import MODELS
from topomoe.network import bottleneck
from topomoe.simulation import simulate_networks
from topomoe.step import SimulationResult, StepSettings
from topomoe.topologies import InputError, Routing, Topology, from_links, make, route
from topomoe.workload import WorkloadSettings

GRID = (4, 4)
MODEL = MODELS["mixtral-8x7b"]
TRACE = tm.synthetic_trace(MODEL.name, requests=12, positions=24).filter(layers=(0, 31))
WORKLOAD = WorkloadSettings(batches=6, batch_tokens=512)
PHASES = ("decode", "prefill", "training")


def placed(devices: int) -> tm.Placement:
    return tm.place(TRACE, devices=devices, slots=max(16, 2 * devices))


def group(devices: Any, **workload: Any) -> Group:
    ids = np.asarray(devices)
    return Group(ids, TRACE, placed(len(ids)), replace(WORKLOAD, **workload), MODEL)


def network(name: str = "torus", bandwidth: float = 2e9) -> Topology:
    return make(name, GRID, bandwidth, 1e-6)


def network_time(result: SimulationResult) -> NDArray[np.float64]:
    return result.times.dispatch + result.times.combine


def assert_same_times(first: SimulationResult, second: SimulationResult) -> None:
    for part in ("dispatch", "compute", "combine", "backward", "other", "bound"):
        np.testing.assert_array_equal(getattr(first.times, part), getattr(second.times, part))


# Partition.


@pytest.mark.parametrize("groups", [1, 2, 4, 16])
def test_a_partition_gives_every_device_to_one_group(groups: int) -> None:
    rng = np.random.default_rng(0)
    for layout in ("contiguous", "scattered"):
        parts = partition(16, groups, layout, rng)
        assert [len(part) for part in parts] == [16 // groups] * groups
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(16))
        for part in parts:
            assert (np.diff(part) > 0).all()
    contiguous = partition(16, groups, "contiguous", rng)
    np.testing.assert_array_equal(np.concatenate(contiguous), np.arange(16))


def test_scattered_groups_follow_the_seed() -> None:
    first, again, other = (
        np.concatenate(partition(64, 4, "scattered", np.random.default_rng(s))) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != np.arange(64)).any()


@pytest.mark.parametrize("groups", [0, -1, 3, 32])
def test_a_partition_that_does_not_divide_is_refused(groups: int) -> None:
    with pytest.raises(InputError, match=f"groups must divide devices, got groups={groups}"):
        partition(16, groups, "contiguous", np.random.default_rng(0))


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(InputError, match="unknown group layout 'scatter'; did you mean"):
        partition(16, 2, "scatter", np.random.default_rng(0))


# One group, and groups that share nothing.


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("overlap", ["none", "two-batch"])
def test_one_group_of_all_devices_is_the_simulation_of_the_same_seed(
    phase: str, overlap: str
) -> None:
    topology = network()
    whole = group(range(16), phase=phase)
    step = StepSettings(overlap=overlap)
    grouped = simulate_groups([whole], topology, step=step, seed=5)[0]
    plain = simulate_networks(
        TRACE,
        [(topology, None)],
        whole.placement,
        MODEL,
        whole.workload,
        DispatchSettings(),
        step,
        seed=5,
    )[0]
    assert_same_times(grouped, plain)
    np.testing.assert_array_equal(grouped.step_time.samples, plain.step_time.samples)
    np.testing.assert_array_equal(grouped.mean_demand, plain.mean_demand)
    np.testing.assert_array_equal(grouped.remote_bytes, plain.remote_bytes)
    assert (grouped.requests, grouped.positions) == (plain.requests, plain.positions)


@pytest.mark.parametrize("name", ["leaf-spine", "mesh"])
@pytest.mark.parametrize("phase", PHASES)
def test_groups_on_disjoint_links_take_exactly_as_long_as_alone(name: str, phase: str) -> None:
    """One row each: a leaf, or a line of the mesh."""
    topology = network(name)
    rows = [group(row, phase=phase) for row in np.arange(16).reshape(GRID)]
    for order in (rows, rows[::-1]):
        together = simulate_groups(order, topology, seed=2)
        # Draws follow a group's number, so a group keeps its own as the first of any list.
        alone = simulate_groups(order[:1], topology, seed=2)[0]
        assert_same_times(together[0], alone)
        assert not np.allclose(together[1].times.dispatch, alone.times.dispatch)


def test_groups_may_sit_on_islands_without_links_between_them() -> None:
    pairs = [(a, b) for a in range(16) for b in range(16) if a != b and a // 4 == b // 4]
    topology = from_links(np.array(pairs), 2e9, 1e-6, devices=16, name="islands")
    among = np.arange(len(pairs))
    routing = Routing.from_paths(topology, np.arange(len(pairs) + 1), among, *np.array(pairs).T)
    rows = [group(row) for row in np.arange(16).reshape(GRID)]
    results = simulate_groups(rows, topology, routing)
    assert all(np.isfinite(r.step_time.samples).all() for r in results)
    with pytest.raises(InputError, match=r"islands: .* has no path from device 0 to device 4"):
        simulate_groups([group(range(8))], topology, routing)


def test_counts_are_gathered_within_a_group_only() -> None:
    topology = network()
    row = Group(np.arange(4), TRACE, tm.place(TRACE, devices=4), WORKLOAD, MODEL)  # no replicas
    by_share, by_load = (
        simulate_groups([row], topology, dispatch=DispatchSettings(routing))[0].times.dispatch
        for routing in ("weighted", "least-loaded")
    )
    counts = np.zeros((16, 16))
    counts[:4, :4] = all_gather_bytes(8)
    gather = 10e-6 + bottleneck(topology, route(topology), counts, mtu=4096)
    np.testing.assert_allclose(by_load - by_share, gather, rtol=1e-9)


# Groups that share links.


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["torus", "mesh", "leaf-spine", "optical"])
def test_sharing_links_costs_between_nothing_and_sending_at_once(name: str, phase: str) -> None:
    """Alone <= sharing, step by step; sharing <= at once on the mean of steps.

    At once is the worst case for all-to-alls that meet; rates are those of whole steps, in which
    dispatch and combine load different links, so their sum may be a little above it.
    """
    topology = network(name, bandwidth=1e8)  # slow, so that steps are mostly communication
    parts = partition(16, 2, "scattered", np.random.default_rng(1))
    groups = [group(part, phase=phase) for part in parts]
    sharing = simulate_groups(groups, topology, seed=3)
    at_once = simulate_groups(groups, topology, synchronous=True, seed=3)
    alone = simulate_groups(groups[:1], topology, seed=3)[0]
    assert (network_time(sharing[0]) >= network_time(alone) * (1 - 1e-6)).all()
    assert (network_time(at_once[0]) >= network_time(alone) * (1 - 1e-6)).all()
    for shared, worst in zip(sharing, at_once, strict=True):
        assert network_time(shared).mean() <= 1.05 * network_time(worst).mean()
        np.testing.assert_array_equal(shared.times.compute, worst.times.compute)
        np.testing.assert_array_equal(shared.times.other, worst.times.other)
        np.testing.assert_array_equal(shared.device_load, worst.device_load)


def line(devices: int) -> Topology:
    """Devices on a line, of 100 MB/s a link and direction."""
    return make("mesh", (1, devices), 1e8, 0.0)


def interleaved(**second: Any) -> list[Group]:
    """Two groups whose devices take turns on a line of 8."""
    return [group(range(0, 8, 2)), group(range(1, 8, 2), **second)]


def test_groups_that_take_turns_on_a_line_slow_each_other() -> None:
    topology = line(8)
    alone = simulate_groups(interleaved()[:1], topology)[0]
    for synchronous in (False, True):
        shared = simulate_groups(interleaved(), topology, synchronous=synchronous)[0]
        assert network_time(shared).mean() > 1.5 * network_time(alone).mean()


def test_a_group_that_hardly_sends_hardly_slows_another() -> None:
    topology = line(8)
    alone = simulate_groups(interleaved()[:1], topology)[0].moe_time.mean
    slowdown = [
        simulate_groups(interleaved(batch_tokens=tokens), topology)[0].moe_time.mean / alone
        for tokens in (1, 64, 1024)
    ]
    assert slowdown == sorted(slowdown)
    assert slowdown[0] == pytest.approx(1, abs=0.02)
    assert slowdown[-1] > 1.5


@pytest.mark.parametrize("phase", PHASES)
def test_a_group_keeps_what_the_mean_rate_of_another_leaves(phase: str) -> None:
    """Two pairs of devices that cross on one link: 0->2 and 1->3 on 1->2, and back.

    The rate counts all that the other sends in a step, in training the backward pass too, and each
    keeps its part of the bytes at least.
    """
    step = StepSettings(collective_overhead=0.0, mtu=0.0)
    pairs = [group([0, 2]), group([1, 3], phase=phase, batch_tokens=64)]
    own, other = simulate_groups(pairs, line(4), step=step)
    alone = simulate_groups(pairs[:1], line(4), step=step)[0]
    slowdown = []
    for pair, crossing in (((0, 2), (1, 3)), ((2, 0), (3, 1))):
        mine, theirs = own.mean_demand[pair], other.mean_demand[crossing]
        rate = TRACE.num_layers * theirs / other.step_time.mean
        slowdown.append(1e8 / max(1e8 - rate, 1e8 * mine / (mine + theirs)))
    low, high = sorted(slowdown)
    measured = own.times.dispatch / alone.times.dispatch
    assert low > 1.05
    assert (measured >= low * (1 - 1e-3)).all()
    assert (measured <= high * (1 + 1e-3)).all()


def test_the_same_seed_gives_the_same_bytes() -> None:
    topology = network()
    groups = [group(part) for part in partition(16, 2, "scattered", np.random.default_rng(1))]
    for synchronous in (False, True):
        first, again, other = (
            simulate_groups(groups, topology, synchronous=synchronous, seed=seed)
            for seed in (1, 1, 2)
        )
        for one, two, three in zip(first, again, other, strict=True):
            assert one.times.step.tobytes() == two.times.step.tobytes()
            assert one.times.step.tobytes() != three.times.step.tobytes()


def test_groups_may_differ_in_size_phase_and_batches() -> None:
    groups = [
        group(range(4), phase="prefill", batches=3),
        group(range(4, 16), batches=5, batch_tokens=256),
    ]
    prefill, decode = simulate_groups(groups, network())
    assert (len(prefill.tokens), len(decode.tokens)) == (3, 5)
    assert (prefill.device_load.shape, decode.device_load.shape) == ((2, 4), (2, 12))


# Errors.

HALVES = (group(range(8)), group(range(8, 16)))
OTHER_MODEL = replace(HALVES[1], model="gpt-oss-20b")
ONE_LAYER = replace(
    HALVES[1], trace=TRACE.filter(layers=(0,)), placement=tm.place(TRACE.load()[:1], 8, 16)
)
WRONG: dict[str, tuple[list[Group], dict[str, Any], str]] = {
    "no group": ([], {}, "groups must name at least one group"),
    "a device twice": ([HALVES[0], group(range(7, 15))], {}, "groups must not share a device"),
    "a device twice in a group": (
        [replace(HALVES[0], devices=np.array([0, 1, 2, 3, 4, 5, 6, 6]))],
        {},
        "groups must not share a device",
    ),
    "an unknown device": ([group(range(9, 17))], {}, r"groups must use devices 0\.\.15"),
    "a negative device": ([group(range(-1, 7))], {}, r"groups must use devices 0\.\.15"),
    "a placement of another size": (
        [HALVES[0], replace(HALVES[1], placement=placed(16))],
        {},
        "group 1 has 8 devices, its placement 16",
    ),
    "other batches at once": (
        [HALVES[0], group(range(8, 16), batches=2)],
        {"synchronous": True},
        "must have the same number of batches",
    ),
    "other phases at once": (
        [HALVES[0], group(range(8, 16), phase="training")],
        {"synchronous": True},
        "must run the same model in the same phase",
    ),
    "other models at once": (
        [HALVES[0], OTHER_MODEL],
        {"synchronous": True},
        "must run the same model in the same phase",
    ),
    "other layers at once": (
        [HALVES[0], ONE_LAYER],
        {"synchronous": True},
        "must have the same number of layers",
    ),
    "halves at once": (
        list(HALVES),
        {"synchronous": True, "step": StepSettings(overlap="two-batch")},
        "need overlap=none, got two-batch",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_groups_that_do_not_fit_are_refused_in_one_line(case: str) -> None:
    groups, options, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        simulate_groups(groups, network(), **options)
    assert "\n" not in str(caught.value)
