"""Mixtures of circuits and base: what goes where, and in which share."""

from __future__ import annotations

import numpy as np
import pytest

from topomoe.topologies import InputError, Routing, Topology, make, route


@pytest.fixture(scope="module")
def fabric() -> Topology:
    """Circuits of an expander that lead everywhere, over a leaf-spine."""
    return make("optical", grid=(4, 4), circuits="expander", bandwidth=1.0, latency=0.0)


@pytest.fixture(scope="module")
def few() -> Topology:
    """Three circuits over a leaf-spine: 0->5->9 can be relayed."""
    return make("optical", grid=(4, 4), circuits=[(0, 5), (5, 9), (12, 3)], bandwidth=1.0)


def on_circuits(routing: Routing) -> np.ndarray:
    """The hops of each pair over circuits, [N, N]."""
    return routing.path_sum(routing.topology.optical.astype(float))


def test_relay_takes_circuits_wherever_they_lead(few: Topology, fabric: Topology) -> None:
    lit = on_circuits(route(few, "circuit-relay"))
    assert {(a, b): lit[a, b] for a, b in np.argwhere(lit).tolist()} == {
        (0, 5): 1, (5, 9): 1, (12, 3): 1, (0, 9): 2,
    }  # fmt: skip
    everywhere = route(fabric, "circuit-relay")
    assert np.array_equal(on_circuits(everywhere), everywhere.hops)


def test_direct_takes_only_a_pairs_own_circuit(few: Topology, fabric: Topology) -> None:
    for topology in (few, fabric):
        lit = on_circuits(route(topology, "circuit-direct"))
        circuits = topology.links[topology.optical]
        assert sorted(np.argwhere(lit).tolist()) == sorted(circuits.tolist())
        assert lit.max() == 1


def test_hybrid_splits_between_relay_and_base(fabric: Topology) -> None:
    relay, base = (
        route(fabric, "circuit-relay").matrix,
        route(make("leaf-spine", grid=(4, 4)), "ecmp"),
    )
    rest = np.flatnonzero(~fabric.optical)
    for share in (0.0, 0.25, 1.0):
        mixed = route(fabric, "hybrid", base_fraction=share).matrix.toarray()
        wanted = (1 - share) * relay.toarray()
        own = fabric.link_ids(*base.topology.links.T)
        wanted[own] += share * base.matrix.toarray()
        assert mixed == pytest.approx(wanted, abs=1e-12)
        assert mixed[rest].any() == (share > 0)


def test_hybrid_keeps_circuits_and_base_busy_equally_long_under_uniform_traffic(
    fabric: Topology,
) -> None:
    routing = route(fabric, "hybrid")
    load = routing.link_load(np.ones((1, 16, 16)))[0] / fabric.capacity
    assert load[fabric.optical].max() == pytest.approx(load[~fabric.optical].max(), rel=1e-9)
    for share in (0.0, 0.2, 0.8, 1.0):
        other = route(fabric, "hybrid", base_fraction=share)
        assert other.transfer_time(np.ones((1, 16, 16)))[0] >= load.max() * (1 - 1e-12)


def test_the_base_keeps_its_links_where_a_circuit_runs_beside_them() -> None:
    fabric = make("optical", grid=(4, 4), circuits="torus", base="mesh")
    mesh = route(make("mesh", grid=(4, 4)), "ecmp")
    base_only = route(fabric, "hybrid", base_fraction=1.0)
    own = fabric.link_ids(*mesh.topology.links.T)
    assert abs(base_only.matrix[own] - mesh.matrix).max() == pytest.approx(0, abs=1e-12)


def test_packets_are_held_back_on_the_way_they_take() -> None:
    """One link of circuit holds nothing back; four slow links of the base hold three times."""
    fabric = make("optical", (4, 4), 8.0, 1.0, circuits=[(0, 5), (5, 9)], base_bandwidth=2.0)
    held = route(fabric, "hybrid", base_fraction=0.25).store_and_forward(16.0)
    assert held[0, 5] == pytest.approx(0.25 * 3 * 16 / 2)
    assert held[0, 9] == pytest.approx(0.25 * 3 * 16 / 2 + 0.75 * 16 / 8)
    assert held[0, 8] == pytest.approx(3 * 16 / 2)
    assert held[0, 1] == pytest.approx(16 / 2)


def test_circuit_policies_need_circuits_and_a_base() -> None:
    for topology in (
        make("torus", grid=(4, 4)),
        make("optical", grid=(4, 4), circuits=[]),
        make("optical", grid=(4, 4), base=None),
    ):
        for policy in ("hybrid", "circuit-relay", "circuit-direct"):
            with pytest.raises(InputError, match="needs circuits and an electrical base"):
                route(topology, policy)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_the_base_fraction_is_a_fraction(fabric: Topology, share: float) -> None:
    with pytest.raises(InputError, match=r"hybrid: base_fraction must be in 0\.\.1"):
        route(fabric, "hybrid", base_fraction=share)
