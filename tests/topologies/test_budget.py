"""Fair comparison: the same bandwidth, or the same ports, leave a device on every topology."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topomoe.topologies import InputError, Topology, budget, costs, make, names, route
from topomoe.topologies.prices import ITEMS

B = 50e9
SWITCHED = ("fat-tree", "leaf-spine")
FIXED = (*SWITCHED, "mesh", "torus", "twisted-torus")
GRIDS = [(16, 8), (4, 4), (2, 4), (8, 2), (5, 3)]


def build(name: str, grid: tuple[int, int] = (16, 8), **options: object) -> Topology:
    return budget.build(name, grid, B, 1e-6, **options)  # type: ignore[arg-type]


def entry(topology: Topology) -> np.ndarray:
    """Bytes/s that can reach each device, [N]."""
    into = np.bincount(topology.links[:, 1], topology.capacity, topology.num_nodes)
    return into[: topology.num_devices]


# The same injection bandwidth.


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", FIXED)
def test_the_most_that_leaves_a_device_is_the_budget(name: str, grid: tuple[int, int]) -> None:
    topology = build(name, grid)
    assert topology.injection.max() == pytest.approx(B, rel=1e-12)
    assert (topology.injection <= B * (1 + 1e-12)).all()
    np.testing.assert_allclose(entry(topology), topology.injection, rtol=1e-12)
    assert (topology.latency == 1e-6).all()


@pytest.mark.parametrize("grid", GRIDS[:3])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("ports", [1, 2, 4])
def test_an_optical_fabric_splits_the_budget_between_base_and_circuits(
    grid: tuple[int, int], share: float, ports: int
) -> None:
    """An expander lights every port: all devices inject the budget, the share of it by the base."""
    topology = build("optical", grid, base_share=share, ports=ports)
    devices = topology.num_devices
    np.testing.assert_allclose(topology.injection, B, rtol=1e-12)
    np.testing.assert_allclose(entry(topology), B, rtol=1e-12)
    assert int(topology.optical.sum()) == ports * devices
    np.testing.assert_allclose(topology.capacity[topology.optical], (1 - share) * B / ports)
    base = ~topology.optical & (topology.links[:, 0] < devices)
    np.testing.assert_allclose(topology.capacity[base], share * B, rtol=1e-12)


@pytest.mark.parametrize("circuits", ["mesh", "torus", "torus-twist-2", "rows", "columns"])
def test_no_wiring_of_a_fabric_exceeds_the_budget(circuits: str) -> None:
    topology = build("optical", (8, 8), base_share=0.2, circuits=circuits)
    assert topology.injection.max() == pytest.approx(B, rel=1e-12)


def test_the_edge_devices_of_a_mesh_leave_ports_dark() -> None:
    topology = build("mesh", (4, 6))
    injection = topology.injection.reshape(4, 6)
    np.testing.assert_allclose(injection[1:-1, 1:-1], B)
    np.testing.assert_allclose(injection[[0, 0, -1, -1], [0, -1, 0, -1]], B / 2)
    np.testing.assert_allclose(injection[0, 1:-1], 0.75 * B)
    assert set(topology.capacity) == {B / 4}


def test_a_link_of_two_ports_counts_twice() -> None:
    """Boards one device wide have both ports of a row on its switch."""
    thin = build("hamming-mesh", (4, 4), board=(1, 1))
    np.testing.assert_allclose(thin.injection, B)
    np.testing.assert_allclose(thin.capacity, B / 2)


@pytest.mark.parametrize(
    "name", ["jellyfish", "hypercube", "dragonfly", "torus-3d", "hamming-mesh"]
)
def test_direct_and_switched_networks_of_other_kinds_keep_the_budget_too(name: str) -> None:
    for grid in ((16, 8), (4, 4), (2, 4)):
        topology = build(name, grid)
        np.testing.assert_allclose(topology.injection, B, rtol=1e-12)
        np.testing.assert_allclose(entry(topology), topology.injection, rtol=1e-12)


def test_a_torus_of_two_rows_has_three_links_a_device() -> None:
    """One link joins the two rows, so that each link gets a third."""
    assert set(build("torus", (2, 8)).capacity) == {B / 3}


@given(factor=st.floats(1e-3, 1e3))
def test_capacities_follow_the_budget(factor: float) -> None:
    for name in names():
        fixed = {"node_bandwidth": B} if name == "rails" else {}
        one, other = (budget.build(name, (4, 4), b, 0.0, **fixed) for b in (B, factor * B))
        if name == "rails":  # the links inside a node are no part of the budget
            nic = (one.links >= 16 + 2).any(axis=1)
            assert (other.capacity[~nic] == B).all()
            np.testing.assert_allclose(other.capacity[nic], factor * B, rtol=1e-12)
            continue
        np.testing.assert_allclose(other.capacity, factor * one.capacity, rtol=1e-12)


# The same ports.


@pytest.mark.parametrize("name", FIXED)
def test_ports_of_the_same_rate_carry_one_link_each(name: str) -> None:
    topology = build(name, normalise="iso-port", ports=4)
    of_devices = topology.links[:, 0] < topology.num_devices
    wanted = B if name in SWITCHED else B / 4
    np.testing.assert_allclose(topology.capacity[of_devices], wanted)
    assert topology.injection.max() == pytest.approx(B, rel=1e-12)


def test_unused_ports_stay_dark() -> None:
    topology = build("torus", (2, 8), normalise="iso-port", ports=4)
    np.testing.assert_allclose(topology.injection, 0.75 * B)
    wide = build("torus", normalise="iso-port", ports=8)
    np.testing.assert_allclose(wide.injection, B / 2)


@pytest.mark.parametrize(
    ("share", "ports", "base_ports"),
    [(0.5, 4, 2), (0.1, 4, 1), (0.95, 4, 3), (0.5, 2, 1), (0.25, 8, 2)],
)
def test_an_optical_fabric_gives_whole_ports_to_its_base(
    share: float, ports: int, base_ports: int
) -> None:
    topology = build("optical", normalise="iso-port", base_share=share, ports=ports)
    np.testing.assert_allclose(topology.injection, B, rtol=1e-12)
    np.testing.assert_allclose(topology.capacity[topology.optical], B / ports)
    assert int(topology.optical.sum()) == (ports - base_ports) * 128
    base = ~topology.optical & (topology.links[:, 0] < 128)
    np.testing.assert_allclose(topology.capacity[base], base_ports * B / ports)


# The same dollars, the same watts.


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(
    ("normalise", "what"), [("iso-cost", "dollars_per_device"), ("iso-power", "watts_per_device")]
)
def test_every_topology_costs_what_the_leaf_spine_costs(
    name: str, normalise: str, what: str
) -> None:
    reference = costs(make("leaf-spine", (4, 4), B, 1e-6))
    assert costs(build(name, (4, 4), normalise=normalise))[what] == pytest.approx(reference[what])


def test_at_the_same_cost_the_reference_is_itself() -> None:
    topology = build("leaf-spine", (4, 4), normalise="iso-cost")
    np.testing.assert_allclose(topology.capacity, B, rtol=1e-12)
    assert topology.parameters["injection"] == pytest.approx(B)


@pytest.mark.parametrize("name", ["torus", "optical", "hamming-mesh", "fat-tree"])
def test_at_the_same_cost_only_the_bandwidth_differs(name: str) -> None:
    one, other = (build(name, (4, 4), normalise=n) for n in ("iso-injection", "iso-cost"))
    np.testing.assert_array_equal(one.links, other.links)
    scale = other.parameters["injection"] / B
    np.testing.assert_allclose(other.capacity, scale * one.capacity, rtol=1e-12)
    assert other.injection.max() == pytest.approx(other.parameters["injection"])


def test_at_the_same_cost_a_nodes_links_keep_their_bandwidth() -> None:
    topology = build("rails", (4, 8), normalise="iso-cost", node_bandwidth=300e9)
    inside = (topology.links >= 32).any(axis=1) & (topology.links < 36).all(axis=1)
    assert set(topology.capacity[inside]) == {300e9}
    assert topology.parameters["injection"] < B  # the leaf-spine has no such links to pay for


def test_a_larger_budget_buys_more_bandwidth() -> None:
    speeds = [
        build("optical", (4, 4), normalise="iso-cost", per_device=dollars).parameters["injection"]
        for dollars in (4000, 5000, 6000)
    ]
    assert speeds[0] < speeds[1] < speeds[2]
    assert speeds[1] - speeds[0] == pytest.approx(speeds[2] - speeds[1])


def test_prices_decide_what_a_budget_buys(tmp_path: Path) -> None:
    """Where only NIC ports cost anything, the same NIC bandwidth is the same cost."""
    path = tmp_path / "nics.toml"
    path.write_text(
        "\n".join(
            f'[{item}]\ndollars = {float(item == "nic_port")}\nwatts = 0\nper = "Gbps"\n'
            'source = "test"\n'
            for item in ITEMS
        )
    )
    for name in names():
        one = build(name, (4, 4), normalise="iso-cost", prices=str(path))
        if name != "mesh":  # whose edge ports are dark, and cost nothing
            assert one.parameters["injection"] == pytest.approx(B), name
    with pytest.raises(InputError, match="torus: prices must rise with bandwidth to spend 0 watts"):
        build("torus", (4, 4), normalise="iso-power", prices=str(path))


@pytest.mark.parametrize("per_device", [0.0, 100.0, 1999.0, float("nan")])
def test_a_budget_below_what_any_bandwidth_costs_is_refused(per_device: float) -> None:
    """Four ports of an optical switch are 2000 dollars a device, however slow."""
    message = "^optical: a device must be allowed more than the 2000 dollars that it takes at any"
    with pytest.raises(InputError, match=message):
        build("optical", (4, 4), normalise="iso-cost", per_device=per_device)


# Edge lists.


@pytest.fixture
def ring(tmp_path: Path) -> str:
    """Eight devices on a ring whose link 0-1 is twice as fast."""
    lines = [f"{a} {(a + 1) % 8} {'20Gbps' if a == 0 else '10Gbps'} 2us" for a in range(8)]
    path = tmp_path / "ring.edges"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("normalise", ["iso-injection", "iso-port"])
def test_an_edge_list_is_scaled_to_the_budget_in_proportion(ring: str, normalise: str) -> None:
    topology = build(ring, (2, 4), normalise=normalise)
    given = make(ring)
    assert topology.injection.max() == pytest.approx(B, rel=1e-12)
    np.testing.assert_allclose(topology.injection, [B, B, *[B * 2 / 3] * 6])
    np.testing.assert_allclose(topology.capacity / given.capacity, B / 3.75e9)
    np.testing.assert_array_equal(topology.links, given.links)
    assert (topology.latency == 2e-6).all()
    assert route(topology).reachable.all()


def test_an_edge_list_is_scaled_to_the_same_cost(ring: str) -> None:
    topology = build(ring, (2, 4), normalise="iso-cost")
    reference = costs(make("leaf-spine", (2, 4), B, 1e-6))["dollars"]
    assert costs(topology)["dollars"] == pytest.approx(reference)


def test_the_devices_of_an_edge_list_lie_on_a_grid_of_as_many(ring: str) -> None:
    assert build(ring, (2, 4)).grid == (2, 4)
    assert build(ring, (4, 4)).grid is None


# Errors.


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torus", {"normalise": "iso-inject"}, "unknown normalisation 'iso-inject'; did you mean"),
        ("tours", {}, "unknown topology 'tours'; did you mean 'torus'"),
        ("optical", {"base_share": 0.0}, r"base_share must be in \(0, 1\), got 0"),
        ("optical", {"base_share": 1.0}, r"base_share must be in \(0, 1\), got 1"),
        ("optical", {"base_share": float("nan")}, r"base_share must be in \(0, 1\), got nan"),
        ("torus", {"ports": 0}, "ports must be >= 1, got 0"),
        (
            "torus",
            {"normalise": "iso-port", "ports": 3},
            "torus needs 4 ports a device, iso-port gives 3",
        ),
        (
            "optical",
            {"normalise": "iso-port", "ports": 1},
            r"optical needs ports >= 2 \(circuits and base\), got 1",
        ),
        ("optical", {"circuits": "meshh"}, "unknown wiring 'meshh'; did you mean 'mesh'"),
        (
            "optical",
            {"circuits": "torus", "ports": 2},
            "circuits must use at most degree=2 transmit ports a device",
        ),
        ("none.edges", {}, "none.edges: cannot read the edge list"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
