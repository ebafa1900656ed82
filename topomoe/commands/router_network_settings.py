"""The settings by which ``topomoe routers`` prices a routing trace on networks."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from topomoe.demand import DispatchSettings
from topomoe.model import model_preset
from topomoe.placement.registry import check_method
from topomoe.step import StepSettings
from topomoe.study_settings import StudySettings
from topomoe.topologies import units
from topomoe.topologies.errors import InputError
from topomoe.topologies.registry import parse_grid
from topomoe.workload import WorkloadSettings


@dataclass(frozen=True)
class NetworkPriceSettings:
    """What a trained router's decisions cost on a cluster, at the width of a real model.

    The defaults price prefill: a batch is packed with whole held-out windows of text, as the router
    saw them, and a capacity factor is a matter of steps of many tokens. Decode would draw single
    positions of all windows evenly, so that one batch had the loads of the next.
    """

    grid: str = "16x8"
    """Devices as rows x columns."""
    topologies: tuple[str, ...] = ("torus", "leaf-spine")
    """Networks that each trace is priced on; a name ending in .csv, .edges or .txt is a file."""
    placements: tuple[str, ...] = ("eplb", "contiguous")
    """Placement methods, made on some of the captured requests and scored on the others: one that
    follows the load, and one that gives every expert alike."""
    slots: int = 0
    """Expert slots on all devices; 0: the least that always allows exact balance."""
    width: str = "deepseek-v2-lite"
    """Model preset whose hidden and expert sizes are priced; layers, experts, top-k: the trace's.
    """
    device: str = "h100"
    """Accelerator preset: h100, h800, h200, a100 or b200."""
    phase: str = "prefill"
    """prefill or training: whole windows, one after another; decode: single positions."""
    batches: int = 200
    """Batches behind a percentile of the step time."""
    batch_tokens: int = 16384
    """Tokens a batch over all devices."""
    scored_fraction: float = 0.5
    """Share of the captured requests that steps are simulated on; experts are placed by the rest.
    """
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device, split over its links, on every network."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field."""
        parse_grid(self.grid)
        for method in self.placements:
            check_method(method)
        model_preset(self.width)
        if not 0 < self.scored_fraction < 1:
            raise InputError(f"scored_fraction must be in (0, 1), got {self.scored_fraction}")
        if not 0 < self.bandwidth < inf:
            raise InputError(f"bandwidth must be > 0 and finite, got {self.bandwidth}")
        if not 0 <= self.latency < inf:
            raise InputError(f"latency must be >= 0 and finite, got {self.latency}")
        self.study(0.0)

    def study(self, capacity_factor: float) -> StudySettings:
        """Return the study of these networks and placements, at iso-injection.

        Tokens start on any device alike. Were a window's all on the device that holds the sequence,
        a capacity, first come first served, would drop what the last devices send and nothing else,
        and the ones that are left with all theirs would set the time.
        """
        return StudySettings(
            grid=self.grid,
            topologies=self.topologies,
            placements=self.placements,
            slots=self.slots,
            bandwidth=self.bandwidth,
            latency=self.latency,
            workload=WorkloadSettings(
                phase=self.phase,
                batches=self.batches,
                batch_tokens=self.batch_tokens,
                origins="uniform",
            ),
            dispatch=DispatchSettings(capacity_factor=capacity_factor, overflow="drop"),
            step=StepSettings(device=self.device),
        )
