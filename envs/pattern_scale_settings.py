"""The settings of the scale study: sizes, fabrics, and how time is accounted."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown

PATH_LATENCY = "path-latency"
ACCOUNTINGS = (PATH_LATENCY, "iso-injection", "iso-cost", "iso-port")
_LEAST_DEVICES = 8  # the smallest grid whose quadrants all hold two devices is 2x4


def near_square(devices: int) -> tuple[int, int]:
    """Return rows and columns of so many devices, rows <= columns, as near as can be.

    >>> near_square(32), near_square(64)
    ((4, 8), (8, 8))
    """
    rows = next((r for r in range(isqrt(max(devices, 0)), 0, -1) if devices % r == 0), 0)
    return rows, devices // rows if rows else 0


@dataclass(frozen=True)
class ScaleSettings:
    """Fabrics of several sizes under the four patterns in turn."""

    devices: tuple[int, ...] = (16, 32, 64, 128)
    """Devices, each number laid out as square as it can be."""
    fabrics: tuple[str, ...] = ("fat-tree", "mesh", "torus")
    """The library: names of topologies."""
    accountings: tuple[str, ...] = (PATH_LATENCY, "iso-injection", "iso-cost")
    """What an iteration costs: path-latency (a flow's mean path latency, no bandwidth, as OptiMoE
    reckons), or the busiest link's time with fabrics built iso-injection, iso-cost or iso-port."""
    delays: tuple[units.Seconds, ...] = (0.0, 25e-6, 25e-3, 5.739)
    """Reconfiguration delays: not charged, OptiMoE's, MEMS, a NIC's bring-up."""
    device_bytes: units.Bytes = 4.0 * 2**20
    """Bytes that a device sends in an iteration, on average."""
    device_flows: int = 64
    """Flows that these bytes are, on average."""
    phase_iterations: int = 15
    """Iterations a pattern lasts."""
    phases: int = 32
    """Phases of the training timeline and of the held-out one."""
    episode_phases: int = 8
    """Phases an episode."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device (iso-cost: of the leaf-spine that sets the cost)."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    ports: int = 4
    """Ports a device (iso-port)."""
    seeds: int = 5
    """Pairs of a training and a held-out timeline, with seeds 0, 1, ..."""
    optimal_devices: int = 128
    """Devices up to which the patterns' mean demand is also routed optimally; 0: never."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        for name in ("devices", "fabrics", "accountings", "delays"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(f"{name} must hold one or more different values")
        for accounting in self.accountings:
            if accounting not in ACCOUNTINGS:
                raise unknown("accounting", accounting, ACCOUNTINGS)
        for count in self.devices:
            if min(near_square(count)) < 2 or count < _LEAST_DEVICES:
                raise InputError(f"devices must be >= {_LEAST_DEVICES} and no prime, got {count}")
        for name in (
            "device_bytes",
            "device_flows",
            "phase_iterations",
            "phases",
            "episode_phases",
            "ports",
            "seeds",
        ):
            if not getattr(self, name) >= 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.optimal_devices < 0:
            raise InputError(f"optimal_devices must be >= 0, got {self.optimal_devices}")
        if self.episode_phases > self.phases:
            raise InputError(
                f"episode_phases must be <= phases, got {self.episode_phases} and {self.phases}"
            )
