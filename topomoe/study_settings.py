"""The settings of a study: what is compared with what, on which trace, at which budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from topomoe.demand import DispatchSettings
from topomoe.placement.options import MethodOptions, PlacementOptions
from topomoe.served_options import served_options
from topomoe.step import StepSettings
from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown
from topomoe.workload import WorkloadSettings

SHARED_EXPERT = ("local", "routed")


@dataclass(frozen=True)
class StudySettings:
    """Topologies x placements x replica routings on one trace at one budget a device."""

    trace: str = ""
    """Routing trace: folder, .npz file or bundled name; empty: the synthetic one of the model."""
    model: str = ""
    """Model preset; empty: the one the trace matches, deepseek-v3 without a trace."""
    grid: str = "16x8"
    """Devices as rows x columns."""
    slots: int = 0
    """Expert slots on all devices; 0: the least with which exact balance is always possible."""
    topologies: tuple[str, ...] = (
        "fat-tree",
        "leaf-spine",
        "mesh",
        "torus",
        "twisted-torus",
        "optical",
    )
    """Topologies to compare; a name ending in .csv, .edges or .txt is an edge-list file."""
    placements: tuple[str, ...] = ("contiguous", "random", "eplb", "exact")
    """Placement methods, made on training requests and scored on held-out ones."""
    replica_routings: tuple[str, ...] = ("weighted",)
    """How tokens pick replicas: even, weighted, local-first, least-loaded, lp."""
    shared_expert: str = "local"
    """local (a copy on every device) or routed (placed and dispatched to as one more expert)."""
    routings: tuple[str, ...] = ("ecmp", "ecmp-hash")
    """Routings beside each topology's default, run with the last placement; none: no others.

    optimal and ugal are fitted to training requests, dispatch and combine apart.
    """
    optimum: bool = False
    """Solve for the least time of any routing on each topology, with the last placement."""
    failures: tuple[str, ...] = ()
    """What fails, a scenario each: links:1,2,4 (as many at random), switches:1, device:5; + joins.
    """
    failure_draws: int = 5
    """Seeded draws of each random failure scenario."""
    normalise: str = "iso-injection"
    """What is equal for all topologies: iso-injection, iso-port, iso-cost or iso-power."""
    prices: str = ""
    """Bill of materials (.toml) behind dollars and watts; empty: the one that is shipped."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device, split over its links."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    base_share: float = 0.5
    """Share of the bandwidth that an optical fabric gives its electrical base."""
    ports: int = 4
    """Circuit ports a device (optical), all ports a device (iso-port)."""
    circuits: str = "expander"
    """Wiring of the optical fabric: mesh, torus, torus-twist-T, rows, columns, expander, a file
    (.csv, .txt) of circuits, or how to choose them for training traffic: b-matching, mixnet,
    topo-opt."""
    layers: tuple[int, ...] = ()
    """MoE layers of the trace to run; empty: all."""
    domains: tuple[str, ...] = ()
    """Domains of the trace to run; empty: all."""
    test_fraction: float = 0.5
    """Share of the requests held out: placements never see them."""
    levels: tuple[float, ...] = (0.0, 0.2, 0.5, 0.8)
    """Imbalance levels of the four traffic patterns."""
    pattern_draws: int = 100
    """Seeded draws of each pattern and level."""
    resamples: int = 20
    """Bootstrap resamples of the requests behind the interval of a mean; 0: no interval."""
    synthetic_requests: int = 128
    """Requests of the synthetic trace (without --trace)."""
    seed: int = 0
    """Seed of every random draw."""
    node_limit: int = 0
    """Of 8 groups of experts, from how many a synthetic token's come (DeepSeek-V3: 4); 0: all."""
    node_bandwidth: units.Bandwidth = 450e9
    """Scale-up bytes/s of a device inside a node (rails)."""
    workload: WorkloadSettings = field(default_factory=WorkloadSettings)
    """How batches are cut from the trace."""
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    """What is sent once."""
    step: StepSettings = field(default_factory=StepSettings)
    """What a step costs beside the bytes on the links."""
    options: MethodOptions = field(default_factory=MethodOptions)
    """What placement methods take."""

    def __post_init__(self) -> None:
        """Check what no other part checks; InputError names the field."""
        required = ("topologies", "placements", "replica_routings", "levels")
        for name in (*required, "routings", "layers", "domains"):
            chosen = getattr(self, name)
            if name in required and not chosen:
                raise InputError(f"{name} must name at least one")
            if len(set(chosen)) != len(chosen):
                twice = ",".join(map(str, chosen))
                raise InputError(f"{name} must not name anything twice, got {twice}")
        if self.resamples == 1:
            raise InputError("resamples must be 0 (no interval) or >= 2, got 1")
        if self.shared_expert not in SHARED_EXPERT:
            raise unknown("shared_expert", self.shared_expert, SHARED_EXPERT)
        for name in ("slots", "seed", "resamples"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("pattern_draws", "synthetic_requests", "ports", "failure_draws"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"test_fraction must be in (0, 1), got {self.test_fraction}")
        if any(not (np.isfinite(v) and 0 <= v <= 1) for v in self.levels):
            raise InputError(f"levels must be in 0..1, got {self.levels}")

    def placement_options(self) -> PlacementOptions:
        """Return what placement methods take: their options, for this batch, device and network."""
        names = sorted(self.topologies, key=lambda name: name != "torus")  # a torus before others
        return served_options(
            self.options, self.workload, self.step, names, self.bandwidth, self.model
        )
