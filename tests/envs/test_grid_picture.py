from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topomoe.envs.grid_picture import CELL, GAP, MARGIN, PITCH, grid_picture
from topomoe.topologies import make
from topomoe.topologies.errors import InputError

GRID = (2, 3)
LOAD = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
LINKS = np.array([[0, 1], [1, 0], [1, 2], [0, 3], [2, 7]])


def cell(image: Any, device: int) -> Any:
    """A pixel of a device that no circuit covers."""
    row, column = divmod(device, GRID[1])
    return image[MARGIN + row * PITCH + 3, MARGIN + column * PITCH + 3].astype(int)


def between(image: Any, device: int) -> Any:
    """The pixels of the gap to the right of a device, a column of them."""
    row, column = divmod(device, GRID[1])
    left = MARGIN + column * PITCH + CELL + GAP // 2
    return image[MARGIN + row * PITCH : MARGIN + row * PITCH + CELL, left].astype(int)


def gaps(image: Any) -> list[Any]:
    """The gaps to the right of the first two devices."""
    return [between(image, 0), between(image, 1)]


def test_the_picture_is_a_square_of_pixels_a_device_with_gaps() -> None:
    image = grid_picture(GRID, LOAD)
    assert (image.shape, image.dtype) == ((2 * PITCH + MARGIN, 3 * PITCH + MARGIN, 3), np.uint8)
    assert (between(image, 0) == 255).all()


def test_a_device_is_the_darker_the_more_it_carries_in_whatever_unit() -> None:
    image = grid_picture(GRID, LOAD)
    brightness = [cell(image, device).sum() for device in range(6)]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 6
    np.testing.assert_array_equal(image, grid_picture(GRID, 1e-9 * LOAD))


def test_a_link_is_the_wider_and_the_redder_the_busier_and_shows_its_busier_direction() -> None:
    image = grid_picture(GRID, LOAD, LINKS, [1.0, 4.0, 1.0, 0.0, 4.0])
    wide, narrow = between(image, 0), between(image, 1)
    assert (wide < 255).any(axis=1).sum() > (narrow < 255).any(axis=1).sum() >= 1
    redness = [(column[:, 0] - column[:, 1]).max() for column in (wide, narrow)]
    assert redness[0] > redness[1] > 0
    swapped = grid_picture(GRID, LOAD, LINKS[:, ::-1], [4.0, 1.0, 1.0, 0.0, 4.0])
    np.testing.assert_array_equal(image, swapped)


def test_a_link_to_a_switch_is_not_drawn() -> None:
    np.testing.assert_array_equal(
        grid_picture(GRID, LOAD, [[0, 6], [-1, 2]], [1.0, 2.0]), grid_picture(GRID, LOAD)
    )


def test_circuits_are_orange_and_the_darker_the_busier_and_hide_no_device() -> None:
    plain = grid_picture(GRID, LOAD)
    image = grid_picture(GRID, LOAD, circuits=[[0, 1], [1, 2]], circuit_load=[2.0, 1.0])
    busy, idle = (column[np.argmin(column.sum(axis=1))] for column in gaps(image))
    for colour in (busy, idle):
        assert colour[0] > colour[1] > colour[2]
    assert busy.sum() < idle.sum()
    for device in range(6):
        np.testing.assert_array_equal(cell(image, device), cell(plain, device))
    swapped = grid_picture(GRID, LOAD, circuits=[[1, 0], [2, 1]], circuit_load=[2.0, 1.0])
    np.testing.assert_array_equal(image, swapped)


def test_links_and_circuits_are_measured_by_the_busiest_of_both() -> None:
    alone = grid_picture(GRID, LOAD, LINKS[:1], [1.0])
    beside = grid_picture(GRID, LOAD, LINKS[:1], [1.0], [[4, 5]], [10.0])
    assert (between(alone, 0) < 255).sum() > (between(beside, 0) < 255).sum() > 0


@pytest.mark.parametrize("name", ["mesh", "torus", "twisted-torus", "leaf-spine", "hypercube"])
def test_every_topology_can_be_drawn(name: str) -> None:
    topology = make(name, grid=(8, 4), bandwidth="400Gbps", latency=0.0)
    load = np.linspace(0.0, 1.0, topology.num_links)
    image = grid_picture((8, 4), np.ones(32), topology.links, load, [[0, 31], [3, 4]])
    assert image.shape == (8 * PITCH + MARGIN, 4 * PITCH + MARGIN, 3)


def test_one_device_without_any_load_is_a_picture_too() -> None:
    assert grid_picture((1, 1), [0.0]).shape == (PITCH + MARGIN, PITCH + MARGIN, 3)


WRONG: dict[str, tuple[Any, ...]] = {
    "device_load": ([1.0, 2.0],),
    "device_load finite": ([0, 1, 2, 3, 4, np.nan],),
    "device_load >= 0": ([0, 1, 2, 3, 4, -1],),
    "link_load": (LOAD, LINKS, [1.0]),
    "links": (LOAD, [[0.5, 1.0]], [1.0]),
    "circuits": (LOAD, LINKS, np.ones(5), [[1, 2, 3]]),
    "circuit_load": (LOAD, LINKS, np.ones(5), [[1, 2]], [1.0, 2.0]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_by_name(case: str) -> None:
    with pytest.raises(InputError, match=case.split()[0]):
        grid_picture(GRID, *WRONG[case])
