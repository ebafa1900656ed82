"""The device grid before and after a placement: as text, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topomoe.commands.grid_text import device_grid, text_grids
from topomoe.commands.place import PlaceInput, before_name
from topomoe.place_settings import PlaceSettings
from topomoe.placement import Placement
from topomoe.step import FloatArray


def relative_load(placement: Placement, load: FloatArray) -> FloatArray:
    """Return each device's load over the mean device's, [M, N]; 1 in a layer without load."""
    device_load = placement.device_load(load)
    mean = device_load.mean(axis=1, keepdims=True)
    ratio: FloatArray = np.ones_like(device_load)
    np.divide(device_load, mean, out=ratio, where=mean > 0)
    return ratio


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """Device load / mean [M, N] under both placements, and the layer that was worst before."""

    names: tuple[str, str]
    loads: tuple[FloatArray, FloatArray]
    grid: tuple[int, int]
    layer: int
    scored_on: str

    @staticmethod
    def of(
        settings: PlaceSettings, given: PlaceInput, before: Placement, placement: Placement
    ) -> BeforeAfter:
        """Return the comparison on the held-out load, on the training load without one."""
        loads = relative_load(before, given.scored), relative_load(placement, given.scored)
        return BeforeAfter(
            (before_name(settings), settings.method),
            loads,
            device_grid(given.devices, given.grid),
            int(loads[0].max(axis=1).argmax()),
            "training load" if given.held_out is None else "held-out load",
        )

    def text(self) -> list[str]:
        """Return the worst layer before, and the same layer after, as lines of text."""
        panels = {
            f"{when}: {name}, layer {self.layer}, max/mean {load[self.layer].max():.3f}": load[
                self.layer
            ]
            for when, name, load in zip(("before", "after"), self.names, self.loads, strict=True)
        }
        return [f"Device load / mean on the grid, {self.scored_on}", *text_grids(panels, self.grid)]

    def draw(self, path: Path) -> None:
        """Write the picture: that layer, and the mean over layers; before left, after right."""
        from topomoe.plots.placement_grid import GridPanel, draw_grids

        worst = [
            GridPanel(
                f"{name}, layer {self.layer}, {self.scored_on}: max/mean "
                f"{load[self.layer].max():.3f}",
                load[self.layer],
            )
            for name, load in zip(self.names, self.loads, strict=True)
        ]
        mean = [
            GridPanel(
                f"{name}, mean of {len(load)} layers (a layer's max/mean: "
                f"{load.max(axis=1).mean():.3f})",
                load.mean(axis=0),
            )
            for name, load in zip(self.names, self.loads, strict=True)
        ]
        draw_grids([worst, mean], self.grid, path)
