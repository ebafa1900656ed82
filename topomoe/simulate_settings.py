"""The settings of ``topomoe simulate``: one topology, one placement, one or several groups."""

from __future__ import annotations

from dataclasses import dataclass, field

from topomoe.demand import DispatchSettings
from topomoe.placement.options import MethodOptions, PlacementOptions
from topomoe.served_options import served_options
from topomoe.step import StepSettings
from topomoe.topologies import units
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings


@dataclass(frozen=True)
class SimulateSettings:
    """One placement on one topology at a budget a device."""

    trace: str = ""
    """Routing trace: folder, .npz file or bundled name; empty: the synthetic one of the model."""
    model: str = ""
    """Model preset; empty: the one the trace matches, deepseek-v3 without a trace."""
    grid: str = "16x8"
    """Devices as rows x columns."""
    slots: int = 0
    """Expert slots on all devices of a group; 0: the least that always allows exact balance."""
    topology: str = "torus"
    """Topology name, or an edge-list file (.csv, .edges, .txt)."""
    routing: str = ""
    """Routing policy; empty: the topology's default."""
    placement: str = "exact"
    """Placement method, or a placement file (.npz, or what an engine loads)."""
    groups: int = 1
    """Expert-parallel groups of equal size on disjoint devices, all serving this trace."""
    group_layout: str = "contiguous"
    """Where a group's devices are: contiguous, or scattered as on a fragmented cluster."""
    synchronous: bool = False
    """All groups send at once (the worst case) instead of at their mean rates."""
    normalise: str = "iso-injection"
    """What the budget fixes: iso-injection, iso-port, iso-cost or iso-power."""
    prices: str = ""
    """Bill of materials (.toml) behind iso-cost and iso-power; empty: the one that is shipped."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device, split over its links."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    base_share: float = 0.5
    """Share of the bandwidth that an optical fabric gives its electrical base."""
    ports: int = 4
    """Circuit ports a device (optical), all ports a device (iso-port)."""
    circuits: str = "expander"
    """Wiring of the optical fabric: mesh, torus, torus-twist-T, rows, columns, expander, or a file
    (.csv, .txt) of circuits."""
    test_fraction: float = 0.5
    """Share of the requests held out: the placement is made on the others."""
    synthetic_requests: int = 128
    """Requests of the synthetic trace (without --trace)."""
    seed: int = 0
    """Seed of every random draw."""
    node_limit: int = 0
    """Of 8 groups of experts, from how many a synthetic token's come (DeepSeek-V3: 4); 0: all."""
    node_bandwidth: units.Bandwidth = 450e9
    """Scale-up bytes/s of a device inside a node (rails)."""
    workload: WorkloadSettings = field(default_factory=lambda: WorkloadSettings(batches=64))
    """How batches are cut from the trace."""
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    """How tokens pick replicas and what is sent once."""
    step: StepSettings = field(default_factory=StepSettings)
    """What a step costs beside the bytes on the links."""
    options: MethodOptions = field(default_factory=MethodOptions)
    """What a placement method takes."""

    def __post_init__(self) -> None:
        """Check what no other part checks; InputError names the field."""
        for name in ("slots", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("groups", "ports", "synthetic_requests"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"test_fraction must be in (0, 1), got {self.test_fraction}")

    def placement_options(self) -> PlacementOptions:
        """Return what a placement method takes: its options, for this batch, device and network."""
        return served_options(
            self.options, self.workload, self.step, [self.topology], self.bandwidth, self.model
        )
