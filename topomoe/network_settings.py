"""The settings of ``topomoe network``: one topology, one demand, several routings."""

from __future__ import annotations

from dataclasses import dataclass

from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown

NORMALISE = ("per-link", "iso-injection", "iso-port", "iso-cost", "iso-power")


@dataclass(frozen=True)
class NetworkSettings:
    """What a demand takes on a topology under each routing, and how far that is from the best."""

    topology: str = "torus"
    """Topology name, or an edge-list file (.csv, .edges, .txt)."""
    grid: str = "16x8"
    """Devices as rows x columns."""
    routings: tuple[str, ...] = ()
    """Routing policies; empty: the topology's default."""
    demand: str = "zipf"
    """zipf, uniform, hotspot, regional, skewed, or a file (.npy, .npz, .csv)."""
    bytes_per_pair: units.Bytes = 65536.0
    """Mean bytes between two devices of a named demand."""
    level: float = 1.0
    """Strength of a pattern, 0 (uniform) to 1."""
    max_min: bool = True
    """Simulate fair sharing flow by flow as well."""
    max_min_rtol: float = 0.0
    """Flows within this share of the clock finish together in max-min; 0: exact."""
    optimum: bool = True
    """Solve for the least time of any routing."""
    normalise: str = "per-link"
    """What bandwidth is: per-link (of a link), or a budget: iso-injection, iso-port, iso-cost,
    iso-power."""
    bandwidth: units.Bandwidth = 12.5e9
    """Bytes/s (or 100Gbps) of a link, or that leave a device."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    mtu: units.Bytes = 4096.0
    """Packet bytes, for store-and-forward at each hop; 0 leaves it out."""
    base_share: float = 0.5
    """Share of a budget that an optical fabric gives its electrical base."""
    ports: int = 4
    """Circuit ports a device (optical), all ports a device (iso-port)."""
    circuits: str = "expander"
    """Wiring of the optical fabric: a name, a file (.csv, .txt) of circuits, or how to choose them
    for this demand: b-matching, mixnet, topo-opt."""
    node_size: int = 8
    """Devices a node (rails)."""
    node_bandwidth: units.Bandwidth = 450e9
    """Scale-up bytes/s of a device inside a node (rails)."""
    failures: str = ""
    """What fails, such as links:4 or switches:1; empty: nothing."""
    prices: str = ""
    """Bill of materials (.toml) behind dollars and watts; empty: the one that is shipped."""
    export: tuple[str, ...] = ()
    """Formats to write the network in: simgrid, htsim, astra-sim, graphml (needs --out)."""
    seed: int = 0
    """Seed of every random draw."""

    def __post_init__(self) -> None:
        """Check what no other part checks; InputError names the field."""
        if self.normalise not in NORMALISE:
            raise unknown("normalisation", self.normalise, NORMALISE)
        for name in ("seed", "mtu"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("ports", "node_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.max_min_rtol < 1:
            raise InputError(f"max_min_rtol must be in [0, 1), got {self.max_min_rtol}")
        for name in ("routings", "export"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise InputError(f"{name} must not name anything twice")
