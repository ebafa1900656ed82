"""What placement methods take beside loads, devices and slots; each field names who reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown

OBJECTIVES = ("shift", "batch", "mixes", "mean", "max", "regret", "cvar", "deviation")


@dataclass(frozen=True)
class MethodOptions:
    """Options that only placement methods have; one that does not read an option ignores it."""

    objective: str = "shift"
    """What several loads are planned for (robust): shift, batch, mixes, mean, max, regret..."""
    tail: float = 0.25
    """Share of the worst loads that cvar averages (robust)."""
    deviations: float = 1.0
    """Standard deviations above the mean load that replicas are planned for (robust)."""
    tolerance: float = 0.002
    """A largest device load this part above its lower bound is good enough (local-search)."""
    sweeps: int = 1000
    """Proposals for each slot (anneal, locality)."""
    nodes: int = 1000
    """Branch-and-bound nodes a layer (milp)."""
    least_balancedness: float = 0.98
    """Mean over largest device load on the training load that must be kept (locality)."""
    goal: str = "makespan"
    """What remapping lowers (genetic): makespan (bottleneck seconds) or sum (over pairs)."""
    generations: int = 200
    """Generations of the remapping (genetic)."""
    moves: int = -1
    """Most expert copies that may move to new devices in a layer; -1: any number (rebalance,
    locality)."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        if self.goal not in ("makespan", "sum"):
            raise unknown("goal", self.goal, ("makespan", "sum"))
        for name, least in (
            ("sweeps", 1),
            ("nodes", 1),
            ("generations", 1),
            ("moves", -1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not 0 <= self.tolerance < float("inf"):
            raise InputError(f"tolerance must be >= 0 and finite, got {self.tolerance}")
        if not 0 < self.tail <= 1:
            raise InputError(f"tail must be in (0, 1], got {self.tail}")
        if not 0 <= self.deviations < float("inf"):
            raise InputError(f"deviations must be >= 0 and finite, got {self.deviations}")
        if not 0 < self.least_balancedness <= 1:
            raise InputError(f"least_balancedness must be in (0, 1], got {self.least_balancedness}")


@dataclass(frozen=True)
class PlacementOptions(MethodOptions):
    """All that placement methods take: their options, and what the placement is to serve."""

    batch_tokens: int = 16384
    """Tokens of a batch over all devices (exact-time, locality, genetic)."""
    device: str = "h100"
    """Accelerator whose roofline counts (exact-time, locality, genetic)."""
    topology: str = "torus"
    """Network whose step time is lowered (locality, genetic)."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device, split over its links (locality, genetic)."""
    timed_model: str = ""
    """Model preset that is timed (exact-time); empty: the one with as many experts, if any."""
    origins: str = "uniform"
    """Where tokens start (locality, genetic): uniform, or domain-affine (a trace on a grid)."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        super().__post_init__()
        if self.batch_tokens < 1:
            raise InputError(f"batch_tokens must be >= 1, got {self.batch_tokens}")
        if not 0 < self.bandwidth < float("inf"):
            raise InputError(f"bandwidth must be > 0 and finite, got {self.bandwidth}")
        if self.origins not in ("uniform", "domain-affine"):
            raise unknown("origins", self.origins, ("uniform", "domain-affine"))

    @staticmethod
    def of(options: MethodOptions, **served: Any) -> PlacementOptions:
        """Return a method's options with what the placement is to serve, by field name."""
        own = {field.name: getattr(options, field.name) for field in fields(MethodOptions)}
        return PlacementOptions(**own, **served)
