"""The published greedy, worked by hand and against a plain restatement of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.placement import place


def published(load: NDArray[np.float64], devices: int, slots: int) -> list[list[int]]:
    """The published rules as they stand: the experts on each device, doubles allowed."""
    count = np.ones(load.size, dtype=int)
    replica = list(range(load.size))
    while len(replica) < slots:
        hottest = int(np.argmax(load / count))
        replica.append(hottest)
        count[hottest] += 1
    if slots == devices:
        return [[expert] for expert in replica]
    weight = (load / count)[replica]
    held: list[list[int]] = [[] for _ in range(devices)]
    total = np.zeros(devices)
    for r in np.argsort(-weight, kind="stable"):
        free = [d for d in range(devices) if len(held[d]) < slots // devices]
        device = min(free, key=lambda d: total[d])
        held[device].append(replica[r])
        total[device] += weight[r]
    return held


def test_replicas_and_packing_by_hand() -> None:
    # Surplus slot to expert 0: 5 and 5. Descending: 1 (7), 2 (6), 0 (5), 0 (5), 3 (3), 4 (2).
    # 7 to device 0; 6 to device 1; 5 to device 1 (11); 5 to device 0 (12); 3 to device 1 (14),
    # now full; 2 to device 0 (14).
    load = [10.0, 7.0, 6.0, 3.0, 2.0]
    placement = place(load, 2, 6, method="eplb")
    np.testing.assert_array_equal(placement.slot_expert, [[1, 0, 4, 2, 0, 3]])
    np.testing.assert_array_equal(placement.slot_share, [[1, 0.5, 1, 1, 0.5, 1]])
    np.testing.assert_allclose(placement.device_load(load), [[14, 14]])


def test_a_device_that_holds_the_expert_is_passed_over_by_hand() -> None:
    # Surplus: expert 0 (45 each), then expert 1 (30 each). Descending: 0, 0 (45), 1, 2, 1 (30), 3
    # (20). Both devices stand at 75 when the second 30 of expert 1 comes; device 0 holds expert 1,
    # so it goes to device 1 (105), and 3 to device 0 (95). The published code gives device 0 both.
    load = [90.0, 60.0, 30.0, 20.0]
    placement = place(load, 2, 6, method="eplb")
    np.testing.assert_array_equal(placement.slot_expert, [[0, 1, 3, 0, 2, 1]])
    np.testing.assert_allclose(placement.device_load(load), [[95, 105]])
    assert published(np.array(load), 2, 6) == [[0, 1, 1], [0, 2, 3]]


def test_a_replica_without_a_free_device_takes_the_slot_of_another_by_hand() -> None:
    # Surplus to expert 1 (4 each): all replicas are of 4, in the order 0, 1, 2, 1. 0 to device 0, 1
    # to device 1, 2 to device 0 (full, 8). The free slot is beside the other replica of expert 1,
    # so 0 moves there and leaves its slot to expert 1.
    placement = place([4.0, 8.0, 4.0], 2, 4, method="eplb")
    np.testing.assert_array_equal(placement.slot_expert, [[1, 2, 1, 0]])


def test_equal_loads_go_to_the_lowest_expert_and_device() -> None:
    placement = place([1.0, 1.0, 1.0], 2, 4, method="eplb")
    # Surplus to expert 0 (1/2 each). 1 to device 0, 2 to device 1, then a half to each.
    np.testing.assert_array_equal(placement.slot_expert, [[1, 0, 2, 0]])


def test_an_expert_has_at_most_one_replica_a_device() -> None:
    # The published rule would give all four surplus slots to expert 0, three replicas too many.
    placement = place([100.0, 1.0, 1.0, 1.0], 2, 6, method="eplb")
    np.testing.assert_array_equal(placement.replicas(), [[2, 2, 1, 1]])


def test_one_slot_a_device_keeps_replicas_in_order() -> None:
    placement = place([2.0, 9.0, 1.0], 5, 5, method="eplb")
    np.testing.assert_array_equal(placement.slot_expert, [[0, 1, 2, 1, 1]])


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 8), st.integers(1, 5), st.data(), st.integers(0, 2**32 - 1))
def test_it_is_the_published_greedy_wherever_that_makes_no_doubles(
    devices: int, per_device: int, data: st.DataObject, seed: int
) -> None:
    experts = data.draw(st.integers(per_device + 1, max(per_device + 1, devices * per_device)))
    if experts > devices * per_device:
        return
    load = np.random.default_rng(seed).lognormal(0, 0.5, experts)
    expected = published(load, devices, devices * per_device)
    if all(len(set(held)) == len(held) for held in expected):
        placement = place(load, devices, devices * per_device, method="eplb")
        assert placement.slot_expert.reshape(devices, -1).tolist() == expected


def test_calibrated_loads_hardly_ever_make_the_published_greedy_double() -> None:
    load = np.random.default_rng(0).lognormal(0, 0.7, (2, 256))
    placement = place(load, 128, 384, method="eplb")
    for layer in range(2):
        held = placement.slot_expert[layer].reshape(128, 3)
        assert [sorted(x) for x in published(load[layer], 128, 384)] == np.sort(held).tolist()
