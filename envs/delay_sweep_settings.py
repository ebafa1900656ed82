"""The settings of a delay sweep: fabric, workloads, and the delays at which policies compete."""

from __future__ import annotations

from dataclasses import dataclass

from topomoe.origins import ORIGINS
from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown

WIRING_ROUTINGS = ("default", "optimal", "both")
WORKLOADS = ("prefill", "decode", "training", "cluster")
_POSITIVE = (
    "ports",
    "clusters",
    "steps",
    "prefill_tokens",
    "decode_tokens",
    "training_tokens",
    "row_tokens",
    "phase_steps",
    "pool",
    "epochs",
    "epoch_steps",
    "points_per_decade",
    "synthetic_requests",
)


@dataclass(frozen=True)
class DelaySweepSettings:
    """One optical fabric, several workloads, reconfiguration delays from 10 ns to 6 s."""

    trace: str = ""
    """Routing trace: folder, .npz file or bundled name; empty: the synthetic one of the model."""
    model: str = ""
    """Model preset; empty: the one the trace matches, deepseek-v3 without a trace."""
    grid: str = "8x8"
    """Devices as rows x columns."""
    slots: int = 0
    """Expert slots on all devices; 0: the least that always allows exact balance."""
    placement: str = "eplb"
    """Placement method; experts are placed by the training requests."""
    workloads: tuple[str, ...] = WORKLOADS
    """Any of prefill, decode, training, and cluster (prefill and decode in phases)."""
    wirings: tuple[str, ...] = ("mesh", "torus", "torus-twist-2", "rows", "columns", "expander")
    """Named wirings of the library; those chosen from training traffic are added."""
    methods: tuple[str, ...] = ("b-matching", "topo-opt")
    """How wirings are chosen from training traffic: b-matching, topo-opt or mixnet."""
    clusters: int = 3
    """Groups of alike collectives that get wirings of their own."""
    wiring_routing: str = "both"
    """How wirings are routed: default, optimal splits for the mean training demand, or both."""
    optimal_wirings: int = 3
    """Wirings that get optimal splits, those with least relaying; 0: all (each takes seconds)."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device, split over circuits and base."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    base_share: float = 0.1
    """Share of the bandwidth that the fabric gives its electrical base."""
    ports: int = 4
    """Circuit ports a device."""
    origins: str = "uniform"
    """Device a token starts on: uniform, round-robin or domain-affine."""
    steps: int = 16
    """Steps of the training timeline and of the held-out one, each through all layers."""
    layers: int = 0
    """MoE layers, evenly spaced over the trace's; 0: all."""
    prefill_tokens: int = 32768
    """Tokens a prefill step."""
    decode_tokens: int = 8192
    """Tokens a decode step."""
    training_tokens: int = 65536
    """Tokens a training step."""
    phase_steps: int = 4
    """Decode steps that one dominant domain lasts."""
    row_tokens: int = 4096
    """Tokens a prefill step of one row's group (cluster)."""
    pool: int = 6
    """Steps of each phase priced; epochs draw from them (cluster)."""
    epochs: int = 400
    """Epochs of the training timeline and of the held-out one (cluster)."""
    epoch_steps: int = 64
    """Steps an epoch (cluster)."""
    phase_epochs: float = 12.0
    """Mean epochs that a mix of mostly prompts or mostly answers lasts (cluster)."""
    points_per_decade: int = 4
    """Delays a decade, beside those of the technologies."""
    synthetic_requests: int = 96
    """Requests of the synthetic trace (without --trace)."""
    seed: int = 0
    """Seed of every random draw."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        for name in self.workloads:
            if name not in WORKLOADS:
                raise unknown("workload", name, WORKLOADS)
        for field in ("workloads", "wirings"):
            values = getattr(self, field)
            if len(set(values)) != len(values) or not values:
                raise InputError(f"{field} must name one or more different {field}")
        if self.origins not in ORIGINS:
            raise unknown("origins", self.origins, ORIGINS)
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.wiring_routing not in WIRING_ROUTINGS:
            raise unknown("wiring routing", self.wiring_routing, WIRING_ROUTINGS)
        for name in ("slots", "layers", "optimal_wirings", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.steps < 2:
            raise InputError(f"steps must be >= 2 for an interval, got {self.steps}")
        if not self.phase_epochs >= 1:
            raise InputError(f"phase_epochs must be >= 1, got {self.phase_epochs}")
        if not 0 < self.base_share < 1:
            raise InputError(f"base_share must be in (0, 1), got {self.base_share}")
