"""Speed of max-min completion times beside a straightforward compiled version.

The peer fills all rates from nothing at every completion, over all flows under way, compiled with
the same numba. Both run in this process on one thread. ``extra_info`` holds CPU-seconds of the
exact and the fast mode, the fast mode's largest error, and the peer's CPU-seconds where it is run:
on one network, as it takes some ten seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from topomoe.network import completion_times
from topomoe.topologies import make, route
from topomoe.topologies.kernel import kernel

BYTES, CAPACITY = 65536.0, 12.5e9
NETWORKS = {
    "torus": ("torus", "dimension-order"),
    "leaf-spine": ("leaf-spine", "ecmp"),
    "leaf-spine d-mod-k": ("leaf-spine", "d-mod-k"),
    "fat-tree": ("fat-tree", "ecmp"),
}
Flows = dict[str, Any]


@kernel
def plain_times(
    capacity: NDArray[Any],
    ptr: NDArray[Any],
    links: NDArray[Any],
    fraction: NDArray[Any],
    remaining: NDArray[Any],
    fct: NDArray[Any],
) -> None:
    """Progressive filling from nothing at every completion; all flows start at 0."""
    flows, count = len(remaining), len(capacity)
    rate = np.zeros(flows)
    # The flows of each link, so that a saturated link fixes its own only.
    first = np.zeros(count + 1, dtype=np.int64)
    for link in links:
        first[link + 1] += 1
    for i in range(count):
        first[i + 1] += first[i]
    filled, member = first.copy(), np.zeros(len(links), dtype=np.int64)
    for f in range(flows):
        for e in range(ptr[f], ptr[f + 1]):
            member[filled[links[e]]] = f
            filled[links[e]] += 1
    clock = 0.0
    open_flows = int((remaining > 0).sum())
    while open_flows > 0:
        left, use = capacity.copy(), np.zeros(count)
        users = np.zeros(count, dtype=np.int64)
        rate[:] = 0.0
        for f in range(flows):
            if remaining[f] > 0:
                for e in range(ptr[f], ptr[f + 1]):
                    use[links[e]] += fraction[e]
                    users[links[e]] += 1
        rising = open_flows
        while rising > 0:
            level, full = np.inf, 0
            for i in range(count):
                if users[i] > 0 and left[i] < level * use[i]:
                    level, full = left[i] / use[i], i
            for at in range(first[full], first[full + 1]):
                f = member[at]
                if remaining[f] > 0 and rate[f] == 0:
                    rate[f] = level
                    rising -= 1
                    for e in range(ptr[f], ptr[f + 1]):
                        left[links[e]] -= level * fraction[e]
                        use[links[e]] -= fraction[e]
                        users[links[e]] -= 1
        step = np.inf
        for f in range(flows):
            if remaining[f] > 0:
                step = min(step, remaining[f] / rate[f])
        clock += step
        for f in range(flows):
            if remaining[f] > 0:
                remaining[f] -= rate[f] * step
                if remaining[f] <= 1e-12 * rate[f] * clock:
                    remaining[f], fct[f] = 0.0, clock
                    open_flows -= 1


def zipf(devices: int) -> NDArray[np.float64]:
    """Each source sends as much as under uniform traffic, to destinations by Zipf's law."""
    weight = np.empty(devices)
    weight[np.random.default_rng(0).permutation(devices)] = 1.0 / np.arange(1, devices + 1)
    share = weight * (1.0 - np.eye(devices))
    return np.rint(share / share.sum(axis=1, keepdims=True) * (devices - 1) * BYTES)


def uniform(devices: int) -> NDArray[np.float64]:
    """The same bytes between every ordered pair: all flows are done in a few events."""
    return BYTES * (1.0 - np.eye(devices))


def exponential(devices: int) -> NDArray[np.float64]:
    """Every size another: no two flows are done together, and most links saturate."""
    return np.random.default_rng(0).exponential(BYTES, (devices, devices)) * (1 - np.eye(devices))


def flows_of(network: str, demand: Callable[[int], NDArray[np.float64]]) -> Flows:
    """Return the arrays of all-to-all traffic over 16 x 8 devices."""
    name, policy = NETWORKS[network]
    topology = make(name, grid=(16, 8), bandwidth=CAPACITY, latency=0.0)
    sizes = demand(topology.num_devices).reshape(-1)
    pair = np.flatnonzero(sizes)
    path = route(topology, policy).matrix.T.tocsr()[pair]
    return {
        "capacity": topology.capacity,
        "ptr": path.indptr,
        "links": path.indices,
        "sizes": sizes[pair],
        "fraction": path.data,
    }


def cpu_seconds(run: Callable[[], Any], rounds: int = 3) -> float:
    """Return the fewest of several runs."""
    spent = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        spent.append(time.process_time() - begin)
    return min(spent)


@pytest.mark.parametrize("demand", [zipf, uniform, exponential])
@pytest.mark.parametrize("network", NETWORKS)
def test_all_to_all_on_128_devices(
    benchmark: BenchmarkFixture, network: str, demand: Callable[[int], NDArray[np.float64]]
) -> None:
    """16,256 flows from time 0, latency 0."""
    flows = flows_of(network, demand)
    exact = completion_times(**flows)
    fast = completion_times(**flows, rtol=1e-3)
    benchmark.pedantic(completion_times, kwargs=flows, rounds=3)
    seconds = cpu_seconds(lambda: completion_times(**flows))
    quick = cpu_seconds(lambda: completion_times(**flows, rtol=1e-3))
    benchmark.extra_info["exact, CPU-seconds"] = round(seconds, 3)
    benchmark.extra_info["rtol=1e-3, CPU-seconds"] = round(quick, 3)
    error = float(np.abs(fast / exact - 1).max())
    benchmark.extra_info["rtol=1e-3, largest error"] = f"{error:.1e}"
    assert error <= 1.2e-3
    if (network, demand) == ("torus", zipf):
        plain = np.zeros(len(exact))
        ptr, links = flows["ptr"].astype(np.int64), flows["links"].astype(np.int64)

        def from_nothing(sizes: NDArray[np.float64]) -> None:
            plain_times(flows["capacity"], ptr, links, flows["fraction"], sizes, plain)

        from_nothing(np.zeros(len(exact)))  # compiles
        peer = cpu_seconds(lambda: from_nothing(flows["sizes"].copy()), rounds=1)
        assert plain == pytest.approx(exact, rel=1e-9)
        benchmark.extra_info["from nothing at every event, CPU-seconds"] = round(peer, 2)
        benchmark.extra_info["times as fast, exact"] = round(peer / seconds, 1)
        benchmark.extra_info["times as fast, rtol=1e-3"] = round(peer / quick, 1)
