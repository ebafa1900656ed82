"""The settings of a scenario: fabric, groups, traffic over time, what switching costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.reconfiguration import DELAYS

LIBRARIES = ("wirings", "fabrics")
PLACEMENTS = ("mix", "annealed", "domains", "recent")


@dataclass(frozen=True)
class ScenarioSettings:
    """A cluster whose requests, and perhaps whose groups, change in phases."""

    trace: str = ""
    """Routing trace: folder, .npz file or bundled name; empty: a synthetic one of the model."""
    model: str = ""
    """Model preset; empty: the one the trace matches, deepseek-v2-lite without a trace."""
    grid: str = "8x8"
    """Devices as rows x columns."""
    library: str = "wirings"
    """wirings of one optical fabric, or fabrics that no switch turns into each other (marked
    hypothetical)."""
    topologies: tuple[str, ...] = ("mesh", "torus", "torus-twist-4", "expander")
    """Wirings by name, or topology names with library fabrics."""
    fit_circuits: bool = True
    """Add, for each layout, the wiring chosen for its mean demand (library wirings)."""
    placements: tuple[str, ...] = ("mix", "annealed", "domains", "recent")
    """The library, made from requests of its own: mix (EPLB on their mean load), annealed (local
    search on their priced steps), domains (the same from each domain's steps), recent (EPLB on the
    last epochs, made anew every refresh_epochs)."""
    redundancy: float = 1.5
    """Expert slots over experts, rounded up to whole slots a device."""
    refresh_epochs: int = 8
    """Epochs after which the placement recent is made anew."""
    memory: float = 0.3
    """Weight of the newest epoch in the moving average of expert loads."""
    layouts: tuple[str, ...] = ("decode all",)
    """Expert-parallel groups on consecutive devices, such as 'prefill 4x8 + decode 32'; with
    'scattered' at the end devices are drawn at random."""
    layout_epochs: float = 30.0
    """Mean epochs that a layout lasts."""
    domain_weight: float = 0.9
    """Share of the dominant domain in a phase on top of the trace's mix; 0: the mix throughout."""
    phase_epochs: float = 12.0
    """Mean epochs that a domain dominates."""
    phase_regularity: float = 4.0
    """Shape of the gamma distribution of phase lengths; 1: without memory."""
    load_levels: tuple[float, ...] = (1.0,)
    """Tokens of a step over those below, one level drawn at a time."""
    level_epochs: float = 6.0
    """Mean epochs that a level lasts."""
    decode_tokens: int = 128
    """Tokens a device in a decode step."""
    prefill_tokens: int = 1024
    """Tokens a device in a prefill step."""
    kv_bytes: units.Bytes = 0.0
    """Cache that each prefill device sends to the decode groups beside a collective."""
    all_reduce_bytes: units.Bytes = 0.0
    """Bytes that each device passes on in a ring over its row beside a collective."""
    delay: str = "mems-control"
    """Reconfiguration delay: plzt, siph, rotor, mems, mems-control or nic-bring-up."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device, split over circuits and base."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    base_share: float = 0.1
    """Share of the bandwidth that the fabric gives its electrical base."""
    ports: int = 4
    """Circuit ports a device."""
    migration_share: float = 0.1
    """Share of the bandwidth that moving experts take beside the steps."""
    migration_scale: float = 1.0
    """Times the weights that a move takes (optimizer states, copies over hosts)."""
    layers: int = 4
    """MoE layers tabulated, evenly spaced over the model's; 0: all."""
    pool: int = 24
    """Steps tabulated for each kind of epoch; epochs draw from them."""
    draws: int = 4
    """Steps drawn for an epoch."""
    epoch_steps: int = 64
    """Steps that an epoch has; those drawn stand for them."""
    epochs: int = 4000
    """Epochs of the training timeline."""
    test_epochs: int = 800
    """Epochs of the validation timeline and of each held-out one."""
    episode_length: int = 100
    """Epochs an episode."""
    backlog_epochs: int = 2
    """Epochs behind the coming one whose requests already wait in the queue."""
    synthetic_requests: int = 240
    """Requests of the synthetic trace (without --trace)."""
    seed: int = 0
    """Seed of every random draw of the scenario."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        if self.library not in LIBRARIES:
            raise unknown("library", self.library, LIBRARIES)
        if self.delay not in DELAYS:
            raise unknown("reconfiguration delay", self.delay, DELAYS)
        for field in ("topologies", "placements", "layouts"):
            given = getattr(self, field)
            if not given or len(set(given)) != len(given):
                raise InputError(f"{field} must name one or more different ones, got {list(given)}")
        for name in self.placements:
            if name not in PLACEMENTS:
                raise unknown("placement of a library", name, PLACEMENTS)
        if set(self.placements) == {"recent"}:
            raise InputError("placements must hold one beside recent")
        for field in (
            "refresh_epochs",
            "decode_tokens",
            "prefill_tokens",
            "ports",
            "pool",
            "draws",
            "epoch_steps",
            "epochs",
            "test_epochs",
            "episode_length",
            "synthetic_requests",
        ):
            if getattr(self, field) < 1:
                raise InputError(f"{field} must be >= 1, got {getattr(self, field)}")
        for field in ("layers", "seed", "backlog_epochs"):
            if getattr(self, field) < 0:
                raise InputError(f"{field} must be >= 0, got {getattr(self, field)}")
        for field in ("epochs", "test_epochs"):
            if self.episode_length > getattr(self, field):
                raise InputError(
                    f"episode_length must be <= {field}, "
                    f"got {self.episode_length} and {getattr(self, field)}"
                )
        for field in ("layout_epochs", "phase_epochs", "level_epochs"):
            if not 1 <= getattr(self, field) < np.inf:
                raise InputError(f"{field} must be >= 1 and finite, got {getattr(self, field)}")
        if not 0.01 <= self.phase_regularity < np.inf:
            raise InputError(
                f"phase_regularity must be >= 0.01 and finite, got {self.phase_regularity}"
            )
        for field in ("bandwidth", "migration_scale"):
            if not 0 < getattr(self, field) < np.inf:
                raise InputError(f"{field} must be > 0 and finite, got {getattr(self, field)}")
        for field, most in (("kv_bytes", 1e15), ("all_reduce_bytes", 1e15), ("latency", 1e3)):
            if not 0 <= getattr(self, field) <= most:
                raise InputError(f"{field} must be in [0, {most:g}], got {getattr(self, field)}")
        for field in ("base_share", "migration_share"):
            if not 0 < getattr(self, field) < 1:
                raise InputError(f"{field} must be in (0, 1), got {getattr(self, field)}")
        if not 0 < self.memory <= 1:
            raise InputError(f"memory must be in (0, 1], got {self.memory}")
        if not 0 <= self.domain_weight <= 1:
            raise InputError(f"domain_weight must be in [0, 1], got {self.domain_weight}")
        if not 1 <= self.redundancy < np.inf:
            raise InputError(f"redundancy must be >= 1 and finite, got {self.redundancy}")
        if not self.load_levels or not all(0 < level < np.inf for level in self.load_levels):
            raise InputError(f"load_levels must be > 0 and finite, got {list(self.load_levels)}")
