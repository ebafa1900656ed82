"""Routings with structure at a thousand devices: exact times, and nothing of size [L, N*N]."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from topomoe.network import bottleneck
from topomoe.topologies import make, route
from topomoe.topologies.routing.lanes import LANES, lanes_for

SIDE = 32
DEVICES = SIDE * SIDE
# Bytes on the busiest link when every device sends a byte to every other. A ring of k devices
# carries k/8 of what one sends on each link; in a mesh the middle of a line of k, k^2/4 pairs each
# way; under a switch, all of a device's own bytes.
BUSIEST = {
    ("torus", "dimension-order"): DEVICES * SIDE / 8,
    ("torus", "o1turn"): DEVICES * SIDE / 8,
    ("torus", "valiant"): DEVICES * SIDE / 4 * (DEVICES - 1) / DEVICES,
    ("mesh", "dimension-order"): DEVICES * SIDE / 4,
    ("leaf-spine", "ecmp"): DEVICES - 1,
    ("leaf-spine", "d-mod-k"): DEVICES - 1,
    ("fat-tree", "ecmp"): DEVICES - 1,
    ("fat-tree", "d-mod-k"): DEVICES - 1,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "policy"), BUSIEST)
def test_uniform_traffic_takes_its_closed_form_and_no_matrix(
    name: str, policy: str, dtype: Any
) -> None:
    uniform = np.ones((DEVICES, DEVICES), dtype=dtype)
    bottleneck(*_network(name, policy), uniform, mtu=4096)  # compile
    tracemalloc.start()
    topology, routing = _network(name, policy)
    without_latency = routing.transfer_time(uniform[None])[0] * topology.capacity[0]
    assert bottleneck(topology, routing, uniform, mtu=4096) > 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert without_latency == pytest.approx(BUSIEST[name, policy], rel=1e-5)
    assert peak < 10 * DEVICES**2 * 8
    assert not {"matrix", "tables"} & set(vars(routing))


def _network(name: str, policy: str) -> tuple[Any, Any]:
    topology = make(name, grid=(SIDE, SIDE))
    return topology, route(topology, policy)


def test_a_demand_gets_the_same_loads_alone_as_beside_others() -> None:
    topology = make("twisted-torus", grid=(4, 4))
    routing = route(topology, "ecmp")
    demand = np.random.default_rng(0).exponential(1.0, (20, 16, 16))
    assert len(lanes_for(demand)) == LANES
    assert len(lanes_for(demand[:1])) == 1
    together = routing.link_load(demand)
    for b in range(20):
        assert routing.link_load(demand[b : b + 1])[0] == pytest.approx(together[b], rel=1e-12)
        alone = routing.transfer_time(demand[b : b + 1], routing.latency)
        beside = routing.transfer_time(demand, routing.latency)[b]
        assert alone[0] == pytest.approx(beside, rel=1e-12)


def test_the_path_offset_is_kept_for_the_packet_size_it_was_asked_for() -> None:
    routing = route(make("torus", grid=(4, 4), latency="1us"))
    assert routing.path_offset(None) is not routing.path_offset(4096.0)
    small, large = (routing.path_offset(mtu) for mtu in (1024.0, 4096.0))
    assert small is not None
    assert large is not None
    assert large - routing.latency == pytest.approx(4 * (small - routing.latency))
    single = routing.path_offset(4096.0, np.float32)
    assert single is not None
    assert single.dtype == np.float32
    assert routing.path_offset(4096.0, np.float32) is single
    assert route(make("torus", grid=(4, 4), latency=0.0)).path_offset(None) is None
