"""Speed and balance of the load-aware placements, beside a plain restatement of their peer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from topomoe.placement import PlacementOptions, place
from topomoe.synthetic import calibrated_loads

LAYERS, EXPERTS, DEVICES, SLOTS = 58, 256, 128, 384


@pytest.fixture(scope="module")
def load() -> NDArray[np.float64]:
    """Loads of a measured spread: standard deviation .7 of the log load."""
    return np.random.default_rng(0).lognormal(0, 0.7, (LAYERS, EXPERTS))


def published_greedy(load: NDArray[np.float64], devices: int, slots: int) -> NDArray[np.float64]:
    """The published EPLB rules, layer by layer in numpy and Python; returns device loads [M, N]."""
    layers, experts = load.shape
    count = np.ones(load.shape)
    replica = np.tile(np.arange(slots), (layers, 1))
    for slot in range(experts, slots):
        replica[:, slot] = np.argmax(load / count, axis=1)
        count[np.arange(layers), replica[:, slot]] += 1
    weight = np.take_along_axis(load / count, replica, axis=1)
    total = np.zeros((layers, devices))
    for layer, order in enumerate(np.argsort(-weight, axis=1)):
        sums, used = [0.0] * devices, [0] * devices
        for r in order:
            free = (d for d in range(devices) if used[d] < slots // devices)
            device = min(free, key=sums.__getitem__)
            sums[device] += weight[layer, r]
            used[device] += 1
        total[layer] = sums
    return total


def note_balance(benchmark: BenchmarkFixture, device_load: NDArray[np.float64]) -> None:
    """Store the largest over the mean device load beside the time."""
    ratio = device_load.max(axis=1) / device_load.mean(axis=1)
    benchmark.extra_info["max/mean, mean of layers"] = float(ratio.mean())
    benchmark.extra_info["max/mean, worst layer"] = float(ratio.max())


@pytest.mark.parametrize("method", ["exact", "eplb", "local-search"])
def test_place(benchmark: BenchmarkFixture, load: NDArray[np.float64], method: str) -> None:
    """All layers in one call, compiled beforehand."""
    place(load, DEVICES, SLOTS, method=method)
    placement = benchmark(place, load, DEVICES, SLOTS, method=method)
    note_balance(benchmark, placement.device_load(load))


def test_local_search_on_calibrated_loads(benchmark: BenchmarkFixture) -> None:
    """The same search on loads drawn like those of DeepSeek-V3."""
    calibrated = calibrated_loads("deepseek-v3")
    place(calibrated, DEVICES, SLOTS, method="local-search")
    placement = benchmark(place, calibrated, DEVICES, SLOTS, method="local-search")
    note_balance(benchmark, placement.device_load(calibrated))


def test_local_search_to_a_tenth_of_a_percent(
    benchmark: BenchmarkFixture, load: NDArray[np.float64]
) -> None:
    """Half the default tolerance."""
    options = PlacementOptions(tolerance=0.001)
    place(load, DEVICES, SLOTS, method="local-search", options=options)
    placement = benchmark(place, load, DEVICES, SLOTS, method="local-search", options=options)
    note_balance(benchmark, placement.device_load(load))


def test_anneal(benchmark: BenchmarkFixture, load: NDArray[np.float64]) -> None:
    """The yardstick of the local search."""
    place(load[:1], DEVICES, SLOTS, method="anneal")
    placement = benchmark.pedantic(place, (load, DEVICES, SLOTS), {"method": "anneal"}, rounds=1)
    note_balance(benchmark, placement.device_load(load))


def test_published_greedy_in_numpy(benchmark: BenchmarkFixture, load: NDArray[np.float64]) -> None:
    """The peer of `eplb`."""
    note_balance(benchmark, benchmark.pedantic(published_greedy, (load, DEVICES, SLOTS), rounds=3))
