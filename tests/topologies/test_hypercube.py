"""Hypercube: one link a bit, log2 N hops across, half of all pairs over each cut."""

from __future__ import annotations

import numpy as np
import pytest

from topomoe.topologies import InputError, make, route

GRIDS = [(1, 2), (2, 2), (2, 4), (4, 4), (16, 8)]


@pytest.mark.parametrize("grid", GRIDS)
def test_devices_that_differ_in_one_bit_are_linked_and_no_others(grid: tuple[int, int]) -> None:
    cube = make("hypercube", grid)
    devices = grid[0] * grid[1]
    bits = devices.bit_length() - 1
    wanted = [(a, a ^ (1 << b)) for a in range(devices) for b in range(bits)]
    assert sorted(map(tuple, cube.links.tolist())) == sorted(wanted)
    assert cube.num_nodes == devices
    assert cube.parameters["dimensions"] == (2,) * bits
    assert cube.parameters["wrap"] is False


@pytest.mark.parametrize("grid", GRIDS)
def test_the_distance_is_the_number_of_bits_that_differ(grid: tuple[int, int]) -> None:
    cube = make("hypercube", grid)
    device = np.arange(cube.num_devices)
    apart = np.bitwise_count(device[:, None] ^ device)
    np.testing.assert_array_equal(cube.least_hops, apart)
    np.testing.assert_array_equal(route(cube).hops, apart)


@pytest.mark.parametrize("policy", [None, "ecmp"])
@pytest.mark.parametrize("grid", GRIDS)
def test_uniform_all_to_all_puts_half_the_devices_pairs_on_every_link(
    grid: tuple[int, int], policy: str | None
) -> None:
    cube = make("hypercube", grid, bandwidth=1.0, latency=0.0)
    devices = cube.num_devices
    demand = np.where(np.eye(devices, dtype=bool), 0.0, 1.0)[None]
    np.testing.assert_allclose(route(cube, policy).link_load(demand), devices / 2)


@pytest.mark.parametrize("grid", [(3, 1), (5, 3), (4, 3)])
def test_devices_must_be_a_power_of_two(grid: tuple[int, int]) -> None:
    message = f"^hypercube: devices must be a power of two, got {grid[0] * grid[1]}$"
    with pytest.raises(InputError, match=message):
        make("hypercube", grid)
