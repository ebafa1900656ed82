"""The settings of ``topomoe place``, and of ``topomoe placements``, which compares methods."""

from __future__ import annotations

from dataclasses import dataclass, field

from topomoe.demand import DispatchSettings
from topomoe.model import device_preset
from topomoe.placement.options import MethodOptions, PlacementOptions
from topomoe.placement.registry import check_method
from topomoe.served_options import served_options
from topomoe.step import StepSettings
from topomoe.study_settings import SHARED_EXPERT
from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown
from topomoe.workload import PHASES, WorkloadSettings

PARTS = ("method", "compute", "batch", "front", "shift", "moves")


@dataclass(frozen=True)
class PlaceSettings:
    """One placement from a trace or from recorded loads."""

    trace: str = ""
    """Routing trace: folder, .npz file or bundled name; requests are held out to score on."""
    load: str = ""
    """Recorded expert loads instead of a trace: what an engine dumps, .npy, .npz, JSON or CSV; of
    several steps, the later ones are held out."""
    devices: int | None = None
    """Devices; by default those of the grid."""
    grid: str = ""
    """Devices as rows x columns; empty: 16x8, or with --devices no rows."""
    slots: int = 0
    """Expert slots on all devices; 0: those of --previous, else the least that always allows exact
    balance."""
    method: str = "exact"
    """Placement method: contiguous, round-robin, random, eplb, local-search, anneal, milp, exact,
    exact-time, locality, genetic, robust or rebalance."""
    model: str = ""
    """Model preset of the trace or the loads; empty: the one that they match, if any."""
    shared_expert: str = "local"
    """local (a copy on every device) or routed (placed as one more expert)."""
    phase: str = ""
    """What a trace is served in: decode (its requests count alike, whatever their length), prefill
    or training; empty: every recorded position counts once."""
    test_fraction: float = 0.5
    """Share of the requests, or of the steps, held out."""
    format: str = "npz"
    """Format of --out: npz, or what an engine loads: sglang, trtllm, eplb."""
    previous: str = ""
    """Placement served so far (a file): what moving from it costs, and where rebalance starts."""
    figure: str = ""
    """Picture before and after (.png, .pdf); empty: beside --out; none: no picture."""
    seed: int = 0
    """Seed of every random draw."""
    options: PlacementOptions = field(default_factory=PlacementOptions)
    """What the method takes."""

    def __post_init__(self) -> None:
        """Check what no other part checks; InputError names the field."""
        check_method(self.method)
        if self.phase and self.phase not in PHASES:
            raise unknown("phase", self.phase, PHASES)
        if self.shared_expert not in SHARED_EXPERT:
            raise unknown("shared_expert", self.shared_expert, SHARED_EXPERT)
        for name, least in (("devices", 1), ("slots", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be >= {least}, got {value}")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"test_fraction must be in (0, 1), got {self.test_fraction}")
        device_preset(self.options.device)


@dataclass(frozen=True)
class PlacementsSettings:
    """Placement methods compared on one trace, made on training requests, scored on held-out."""

    trace: str = ""
    """Routing trace: folder, .npz file or bundled name; empty: the synthetic one of the model."""
    model: str = ""
    """Model preset; empty: the one the trace matches, deepseek-v3 without a trace."""
    grid: str = "16x8"
    """Devices as rows x columns."""
    slots: int = 0
    """Expert slots on all devices; 0: the least that always allows exact balance."""
    methods: tuple[str, ...] = (
        "contiguous",
        "eplb",
        "local-search",
        "exact",
        "exact-time",
        "locality",
        "genetic",
        "robust",
        "rebalance",
    )
    """Placement methods to compare."""
    parts: tuple[str, ...] = PARTS
    """What to run: method (the table), compute (seconds by batch size), batch (balance of single
    batches), front (balance x remote bytes), shift (leave one domain out), moves (migration)."""
    replica_routings: tuple[str, ...] = ("weighted", "local-first")
    """How tokens pick replicas: even, weighted, local-first, least-loaded, lp."""
    topologies: tuple[str, ...] = ("torus", "leaf-spine")
    """Networks whose step time is compared."""
    tokens: tuple[int, ...] = (1024, 4096, 16384, 65536)
    """Batch sizes over all devices (part compute)."""
    device_tokens: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    """Batch sizes a device (part batch)."""
    batch_methods: tuple[str, ...] = ("eplb", "exact")
    """Methods whose single batches are looked at (part batch)."""
    batch_layers: int = 6
    """Layers behind that, evenly spaced (part batch)."""
    shift_workloads: int = 8
    """Workloads to leave out one by one without a trace (part shift)."""
    test_fraction: float = 0.5
    """Share of the requests held out: placements never see them."""
    synthetic_requests: int = 128
    """Requests of the synthetic trace (without --trace)."""
    seed: int = 0
    """Seed of every random draw."""
    normalise: str = "iso-injection"
    """What is equal for all topologies: iso-injection, iso-port, iso-cost or iso-power."""
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
    node_bandwidth: units.Bandwidth = 450e9
    """Scale-up bytes/s of a device inside a node (rails)."""
    workload: WorkloadSettings = field(default_factory=lambda: WorkloadSettings(batches=64))
    """How batches are cut from the trace."""
    dispatch: DispatchSettings = field(default_factory=DispatchSettings)
    """What is sent once."""
    step: StepSettings = field(default_factory=StepSettings)
    """What a step costs beside the bytes on the links."""
    options: MethodOptions = field(default_factory=MethodOptions)
    """What the methods take."""

    def __post_init__(self) -> None:
        """Check what no other part checks; InputError names the field."""
        for name in (
            "methods",
            "parts",
            "replica_routings",
            "topologies",
            "tokens",
            "device_tokens",
        ):
            chosen = getattr(self, name)
            if not chosen:
                raise InputError(f"{name} must name at least one")
            if len(set(chosen)) != len(chosen):
                twice = ",".join(map(str, chosen))
                raise InputError(f"{name} must not name anything twice, got {twice}")
        for method in (*self.methods, *self.batch_methods):
            check_method(method)
        for part in self.parts:
            if part not in PARTS:
                raise unknown("part", part, PARTS)
        for name in ("tokens", "device_tokens"):
            if min(getattr(self, name)) < 1:
                raise InputError(f"{name} must be >= 1, got {min(getattr(self, name))}")
        for name, least in (
            ("slots", 0),
            ("seed", 0),
            ("ports", 1),
            ("synthetic_requests", 4),
            ("shift_workloads", 2),
            ("batch_layers", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"test_fraction must be in (0, 1), got {self.test_fraction}")
        for name in self.replica_routings:
            DispatchSettings(replica_routing=name)

    def placement_options(self) -> PlacementOptions:
        """Return what the methods take: their options, for this batch, device and network."""
        return served_options(
            self.options, self.workload, self.step, self.topologies, self.bandwidth, self.model
        )
