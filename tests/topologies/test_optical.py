"""Optical fabrics: circuits within the ports of each device, beside an electrical base."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.topologies import InputError, make
from topomoe.topologies.circuits import named_circuits, wiring_names


@settings(max_examples=60)
@given(
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    degree=st.integers(1, 6),
    bidirectional=st.booleans(),
    data=st.data(),
)
def test_no_wiring_exceeds_the_ports_of_a_device(
    rows: int, columns: int, degree: int, bidirectional: bool, data: st.DataObject
) -> None:
    """`optical` refuses a wiring that needs more ports; those it takes keep to the budget."""
    if rows * columns < 2:
        return
    wiring = data.draw(st.sampled_from(wiring_names((rows, columns))))
    try:
        fabric = make(
            "optical",
            grid=(rows, columns),
            circuits=wiring,
            degree=degree,
            bidirectional=bidirectional,
        )
    except InputError as error:
        assert "ports a device" in str(error) or "degree >= 2" in str(error)  # noqa: PT017
        return
    circuits = fabric.parameters["circuits"]
    for column in (0, 1):
        assert np.bincount(circuits[:, column], minlength=1).max(initial=0) <= degree
    assert not bidirectional or sorted(circuits.tolist()) == sorted(circuits[:, ::-1].tolist())


@pytest.mark.parametrize("wiring", ["mesh", "torus", "torus-twist-2", "rows", "columns"])
def test_grid_wirings_need_at_most_four_ports(wiring: str) -> None:
    fabric = make("optical", grid=(8, 8), circuits=wiring, degree=4, bidirectional=True)
    assert np.all(fabric.device_degree <= 4 + 1)  # and one link to the leaf


def test_torus_circuits_alone_are_a_torus() -> None:
    fabric, torus = (
        make("optical", grid=(8, 4), circuits="torus", base=None),
        make("torus", grid=(8, 4)),
    )
    assert np.array_equal(fabric.links, torus.links)
    assert np.array_equal(fabric.capacity, torus.capacity)
    assert fabric.optical.all()


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_an_expander_uses_every_port_and_joins_all_devices(degree: int) -> None:
    circuits = named_circuits("expander", (5, 7), degree, seed=3)
    for column in (0, 1):
        assert np.all(np.bincount(circuits[:, column], minlength=35) == degree)
    assert nx.is_strongly_connected(nx.DiGraph(circuits.tolist()))
    assert len(np.unique(circuits, axis=0)) == 35 * degree


def test_an_expander_is_drawn_from_its_seed() -> None:
    first, same, other = (
        make("optical", grid=(4, 8), circuits="expander", seed=seed).links for seed in (1, 1, 2)
    )
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("degree", "reach"), [(1, 4), (2, 1), (4, 2), (7, 4), (9, 4)])
def test_row_circuits_reach_the_nearest_on_the_ring(degree: int, reach: int) -> None:
    circuits = named_circuits("rows", (3, 8), degree)
    assert np.array_equal(circuits[:, 0] // 8, circuits[:, 1] // 8)
    ahead = (circuits[:, 1] - circuits[:, 0]) % 8
    assert np.minimum(ahead, 8 - ahead).max() == reach
    assert np.all(np.bincount(circuits[:, 0]) == min(degree, 7))


def test_circuits_and_base_keep_their_own_capacity_and_medium() -> None:
    fabric = make(
        "optical",
        grid=(4, 4),
        circuits=[(0, 5), (0, 5), (3, 9)],
        bandwidth="100Gbps",
        base="leaf-spine",
        base_bandwidth="400Gbps",
    )
    lit = {
        tuple(link): c
        for link, c in zip(
            fabric.links[fabric.optical].tolist(), fabric.capacity[fabric.optical], strict=True
        )
    }
    assert lit == {(0, 5): 25e9, (3, 9): 12.5e9}  # two circuits are one link of twice the speed
    base = make("leaf-spine", grid=(4, 4), bandwidth="400Gbps")
    rest = ~fabric.optical
    assert {*map(tuple, fabric.links[rest].tolist())} == {*map(tuple, base.links.tolist())}
    assert np.all(fabric.capacity[rest] == 50e9)
    assert fabric.num_nodes == base.num_nodes


def test_a_circuit_beside_a_base_link_adds_its_capacity() -> None:
    fabric = make("optical", grid=(2, 2), circuits=[(0, 1)], base="mesh", bandwidth=1.0)
    at = fabric.link_ids(np.array([0, 1]), np.array([1, 0]))
    assert fabric.capacity[at].tolist() == [2.0, 1.0]
    assert fabric.num_links == 8


def test_no_circuits_leave_the_base() -> None:
    fabric = make("optical", grid=(4, 4), circuits=[])
    assert not fabric.optical.any()
    assert fabric.num_links == make("leaf-spine", grid=(4, 4)).num_links


def test_bidirectional_adds_only_the_ways_back_that_lack() -> None:
    fabric = make(
        "optical", grid=(2, 2), circuits=[(0, 1), (1, 0), (2, 3), (2, 3)], bidirectional=True
    )
    assert fabric.parameters["circuits"].tolist() == [
        [0, 1], [1, 0], [2, 3], [2, 3], [3, 2], [3, 2],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"circuits": [(0, 1), (0, 2)], "degree": 1}, "degree=1 transmit ports .* device 0 uses 2"),
        ({"circuits": [(1, 0), (2, 0)], "degree": 1}, "degree=1 receive ports .* device 0 uses 2"),
        ({"circuits": [(1, 0), (0, 2)], "degree": 1, "bidirectional": True}, "device 0 uses 2"),
        ({"circuits": [(0, 16)]}, r"devices 0\.\.15, circuit 0 is 0->16"),
        ({"circuits": [(0, 1), (-1, 2)]}, r"devices 0\.\.15, circuit 1 is -1->2"),
        ({"circuits": [(3, 3)]}, "circuit 0 stays at 3"),
        ({"circuits": [(0, 1, 2), (3, 4, 5)]}, r"pairs \(transmitter, receiver\)"),
        ({"circuits": [(0, 1), (2,)]}, "circuits must be numbers in rows of one length"),
        ({"circuits": [(0, 1.5)]}, "circuits must be whole numbers"),
        ({"circuits": "toruss"}, "unknown wiring 'toruss'; did you mean 'torus'"),
        ({"circuits": "rows", "base": None}, "disconnected, no path"),
        ({"circuits": [], "base": "none"}, "no circuits and no base"),
        ({"base": "leafspine"}, "unknown optical base 'leafspine'; did you mean 'leaf-spine'"),
        ({"base_bandwidth": "fast"}, "base_bandwidth must be a number with a unit"),
        ({"base_bandwidth": 0}, "base_bandwidth must be finite and > 0"),
        ({"base": make("mesh", grid=(2, 2))}, "base must have 16 devices, has 4"),
        ({"degree": 0}, "degree must be >= 1, got 0"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"degree": 1, "bidirectional": True}, "degree >= 2"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make("optical", grid=(4, 4), **options)
