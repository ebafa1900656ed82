"""Seconds of placements from several loads, of the share programme, and of rebalancing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from topomoe.placement import PlacementOptions, place
from topomoe.placement.shift.share_program import best_shares
from topomoe.synthetic_domains import calibrated_domain_loads

DEVICES, SLOTS = 128, 384


@pytest.fixture(scope="module")
def loads() -> NDArray[np.float64]:
    """Eight workloads of DeepSeek-V3's 58 layers; the last is left out of every placement."""
    return calibrated_domain_loads(workloads=8)


@pytest.mark.parametrize("objective", ["mixes", "shift", "batch"])
def test_robust(benchmark: BenchmarkFixture, loads: NDArray[np.float64], objective: str) -> None:
    """All layers from seven workloads; max/mean of the eighth beside the time."""
    options = PlacementOptions(objective=objective)
    place(loads[:7, :1], DEVICES, SLOTS, method="robust", options=options)
    placement = benchmark.pedantic(
        place,
        (loads[:7], DEVICES, SLOTS),
        {"method": "robust", "options": options},
        rounds=1,
    )
    benchmark.extra_info["max/mean, unseen"] = float(np.mean(1 / placement.balancedness(loads[7])))


def test_share_programme(benchmark: BenchmarkFixture, loads: NDArray[np.float64]) -> None:
    """Best shares of 58 layers on eight loads, with their proof."""
    slots = place(loads.mean(axis=0), DEVICES, SLOTS, method="eplb").slot_expert
    best_shares(slots[:1], loads[:, :1], DEVICES)
    found = benchmark.pedantic(best_shares, (slots, loads, DEVICES), rounds=1)
    benchmark.extra_info["largest gap"] = float((found.value / found.bound - 1).max())


@pytest.mark.parametrize("moves", [1, 4])
def test_rebalance(benchmark: BenchmarkFixture, loads: NDArray[np.float64], moves: int) -> None:
    """58 layers from the loads of one workload towards those of another."""
    previous = place(loads[0], DEVICES, SLOTS, method="exact")
    given = {
        "method": "rebalance",
        "previous": previous,
        "options": PlacementOptions(moves=moves),
    }
    place(loads[1], DEVICES, SLOTS, **given)
    placement = benchmark.pedantic(place, (loads[1], DEVICES, SLOTS), given, rounds=1)
    benchmark.extra_info["max/mean"] = float(np.mean(1 / placement.balancedness(loads[1])))
