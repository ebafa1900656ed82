"""From a trace to batches: which tokens run together, and on which device each one starts.

Batches are resampled from the trace by request and offset, so that hundreds of batches stand behind
a percentile; ``coverage`` tells how many distinct requests and tokens stand behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat

import numpy as np
from numpy.typing import NDArray

from topomoe import arrivals, domain_mix, origins
from topomoe.routing_trace import RoutingTrace
from topomoe.sampling import Sampler, has_part
from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown

PHASES = ("decode", "prefill", "training")
SCHEDULES = ("trace", "phases", "drift")
_PART = {"decode": "output", "prefill": "prompt", "training": None}
ARRIVALS = ("fixed", "poisson", "gamma", "recorded")


@dataclass(frozen=True)
class WorkloadSettings:
    """How batches are cut from a trace."""

    phase: str = "decode"
    """decode: one position a request. prefill, training: requests packed one after another."""
    batches: int = 256
    """Batches in all."""
    batch_tokens: int = 16384
    """Tokens a batch over all devices (its mean, where arrivals vary)."""
    origins: str = "uniform"
    """Device a token starts on: uniform, round-robin, or on a grid domain-affine or clustered."""
    schedule: str = "trace"
    """Domain mix over time: as in the trace, in phases of one dominant domain, or drift."""
    phase_batches: int = 15
    """Batches a phase lasts (schedule phases)."""
    dominant_weight: float = 0.9
    """Share of the dominant domain on top of the trace's mix of the rest (schedule phases)."""
    drift_batches: float = 100.0
    """Batches after which the mix has forgotten all but 1/e of its deviation (schedule drift)."""
    drift_spread: float = 1.0
    """Standard deviation of a domain's log weight (schedule drift)."""
    arrivals: str = "fixed"
    """Tokens a batch over time: fixed, poisson, gamma, or recorded in a serving trace."""
    arrival_cv: float = 1.0
    """Coefficient of variation of the time between arrivals (arrivals gamma)."""
    request_rate: float = 100.0
    """Requests a second (arrivals poisson and gamma)."""
    batch_interval: units.Seconds = 0.05
    """Seconds from the start of a batch to the start of the next."""
    arrival_trace: str = ""
    """CSV file with a column of arrival times (arrivals recorded)."""
    most_tokens: int = 0
    """No batch gets more tokens than this; 0 means any number (arrivals other than fixed)."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        for kind, name, choices in (
            ("phase", self.phase, PHASES),
            ("origins", self.origins, origins.ORIGINS),
            ("schedule", self.schedule, SCHEDULES),
            ("arrivals", self.arrivals, ARRIVALS),
        ):
            if name not in choices:
                raise unknown(kind, name, choices)
        for field in ("batches", "batch_tokens", "phase_batches"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{field} must be a whole number >= 1, got {value}")
        for field in ("drift_batches", "arrival_cv", "request_rate", "batch_interval"):
            if not 0 < getattr(self, field) < np.inf:
                raise InputError(f"{field} must be > 0 and finite, got {getattr(self, field)}")
        if not 0 <= self.dominant_weight <= 1:
            raise InputError(f"dominant_weight must be in [0, 1], got {self.dominant_weight}")
        if not 0 <= self.drift_spread < np.inf:
            raise InputError(f"drift_spread must be >= 0 and finite, got {self.drift_spread}")
        if self.most_tokens < 0:
            raise InputError(f"most_tokens must be >= 0, got {self.most_tokens}")
        if (self.arrivals == "recorded") != bool(self.arrival_trace):
            raise InputError(
                "arrivals = recorded and arrival_trace go together, "
                f"got arrivals={self.arrivals} and arrival_trace={self.arrival_trace!r}"
            )


@dataclass(frozen=True, eq=False)
class Batch:
    """The tokens of one step; layer m's experts are ``trace.experts[m, batch.positions]``."""

    positions: NDArray[np.int64]  # [T] indices into the trace's positions
    origin: NDArray[np.int32]  # [T] device each token starts on
    time: float  # seconds, when the batch starts
    domain_mix: NDArray[np.float64]  # [D] the shares that requests were drawn with


def make_batches(
    trace: RoutingTrace,
    num_devices: int,
    grid: tuple[int, int] | None,
    settings: WorkloadSettings,
    rng: np.random.Generator,
    home_rows: NDArray[np.int32] | None = None,
) -> list[Batch]:
    """Return ``settings.batches`` batches; see ``iter_batches``."""
    stream = iter_batches(trace, num_devices, grid, settings, rng, home_rows)
    return list(islice(stream, settings.batches))


def iter_batches(
    trace: RoutingTrace,
    num_devices: int,
    grid: tuple[int, int] | None,
    settings: WorkloadSettings,
    rng: np.random.Generator,
    home_rows: NDArray[np.int32] | None = None,
) -> Iterator[Batch]:
    """Yield batches without end; the first ones are the same however many are taken.

    Decode draws each token anew: a request by the domain mix, evenly within its domain, and one of
    its output positions (any position, where its prompt length is unknown or nothing was routed
    after it). Prefill draws requests alike and lays their prompt positions (under the same
    condition) one after another until the batch is full; training does so with all positions. A
    batch opens at a random position of that sequence, in a long request more often than in a short
    one, and its last request is cut.

    With ``round-robin`` origins, pieces are dealt to devices in turn: a piece is one token in
    decode, else at most ceil(T/N) positions of a request. ``domain-affine`` deals them over the
    rows of the grid that belong to the domain, as ``origins.domain_rows`` shares them out by each
    domain's share of the tokens under the trace's own mix, whatever the schedule. ``clustered``
    deals pieces to the rows of the grid that ``home_rows`` [P] or, best first, [P, H] names for the
    first position that the batch has of the request: what comes later in the batch has no say. All
    rows get as many tokens; see ``home_rows.cluster_rows``.

    Raises InputError where the grid does not match the devices, ``domain-affine`` lacks one, or
    ``clustered`` lacks one or rows of it for every position.
    """
    if num_devices < 1:
        raise InputError(f"devices must be >= 1, got {num_devices}")
    if grid is not None and (min(grid) < 1 or grid[0] * grid[1] != num_devices):
        raise InputError(
            f"grid must be rows x columns = devices, got {grid[0]}x{grid[1]} and {num_devices}"
        )
    if grid is None and settings.origins in ("domain-affine", "clustered"):
        raise InputError(f"origins = {settings.origins} needs a grid")
    if grid is not None and settings.origins == "clustered":
        home_rows = _checked_rows(home_rows, trace.num_positions, grid[0])
    mixes_rng, arrivals_rng, batches_rng = rng.spawn(3)
    mix = _base_mix(trace)
    sampler = Sampler.of(trace, _PART[settings.phase])
    # A request gives a batch one token in decode, else as many as it has positions.
    share = mix if settings.phase == "decode" else sampler.traffic(mix)
    rows = origins.domain_rows(share, grid[0]) if grid is not None else None
    mixes = _mixes(settings, mix, mixes_rng)
    sizes = _sizes(settings, arrivals_rng)
    return _generate(
        sampler, num_devices, grid, settings, rows, home_rows, mixes, sizes, batches_rng
    )


def _checked_rows(
    home_rows: NDArray[np.int32] | None, positions: int, rows: int
) -> NDArray[np.int32]:
    """Return ``home_rows`` as [P, H]; InputError where they are not rows of every position."""
    if home_rows is None:
        raise InputError(
            "origins = clustered needs home_rows, the rows where each position starts: simulate() "
            "takes them, topomoe study and placements make them"
        )
    given = np.asarray(home_rows)
    if given.ndim not in (1, 2) or len(given) != positions or not given.size:
        raise InputError(
            f"home_rows must be [P] or [P, H] with P={positions}, got shape {given.shape}"
        )
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= rows:
        raise InputError(f"home_rows must be integers in 0..{rows - 1}")
    return np.ascontiguousarray(given.reshape(positions, -1), dtype=np.int32)


def check_batches(
    trace: RoutingTrace,
    num_devices: int,
    grid: tuple[int, int] | None,
    settings: WorkloadSettings,
    seed: int,
) -> None:
    """Raise what ``iter_batches`` would, before a placement says where clusters start."""
    rows = np.zeros(trace.num_positions, dtype=np.int32)
    iter_batches(trace, num_devices, grid, settings, np.random.default_rng(seed), rows)


def as_served(trace: RoutingTrace, phase: str) -> RoutingTrace:
    """Return the trace with each position weighted by how often batches of ``phase`` draw it.

    Its loads, and all placements made from it, are then those that the workload expects. Decode
    draws requests evenly and one output position of each, so that a position of a long request
    counts less; prefill and training draw whole requests. Weights have mean 1. Raises InputError
    for an unknown phase.
    """
    if phase not in PHASES:
        raise unknown("phase", phase, PHASES)
    sampler = Sampler.of(trace, _PART[phase])
    each = 1.0 / sampler.length if phase == "decode" else np.ones(trace.num_requests)
    inside = np.arange(trace.num_positions) - np.repeat(sampler.first, np.diff(trace.request_start))
    drawn = (inside >= 0) & (inside < sampler.length[trace.position_request])
    weight = np.where(drawn, each[trace.position_request], 0.0)
    return replace(trace, weight=weight / weight.mean())


def workload_notes(trace: RoutingTrace, settings: WorkloadSettings) -> tuple[str, ...]:
    """Return what to tell of a workload: where the trace lacks the positions its phase asks for."""
    part = _PART[settings.phase]
    missing = 0 if part is None else int((~has_part(trace, part)).sum())
    if not missing:
        return ()
    return (
        f"{missing} of {trace.num_requests} requests have no known {part} positions: "
        f"{settings.phase} draws from all of theirs",
    )


def coverage(trace: RoutingTrace, batches: Sequence[Batch]) -> tuple[int, int]:
    """Return how many distinct (requests, positions) of the trace the batches hold."""
    seen = np.zeros(trace.num_positions, dtype=np.bool_)
    for batch in batches:
        seen[batch.positions] = True
    return len(np.unique(trace.position_request[seen])), int(seen.sum())


def _generate(
    sampler: Sampler,
    num_devices: int,
    grid: tuple[int, int] | None,
    settings: WorkloadSettings,
    rows: NDArray[np.int64] | None,
    home_rows: NDArray[np.int32] | None,
    mixes: Iterator[NDArray[np.float64]],
    sizes: Iterator[int],
    rng: np.random.Generator,
) -> Iterator[Batch]:
    for index, (mix, tokens) in enumerate(zip(mixes, sizes, strict=False)):
        (batch_rng,) = rng.spawn(1)
        if settings.phase == "decode":
            positions, request = sampler.tokens(tokens, mix, batch_rng)
            piece = np.arange(tokens)
            piece_request = request
            known = positions
        else:
            first, length, request = sampler.runs(tokens, mix, batch_rng)
            start = np.cumsum(length) - length
            offset = np.arange(tokens) - np.repeat(start, length)
            positions = np.repeat(first, length) + offset
            longest = -(-tokens // num_devices)
            pieces = -(-length // longest)
            piece = np.repeat(np.cumsum(pieces) - pieces, length) + offset // longest
            piece_request = np.repeat(request, pieces)
            known = np.repeat(first, pieces)  # the run's first position, for all of its pieces
        if settings.origins == "uniform":
            origin = origins.uniform(tokens, num_devices, batch_rng)
        elif settings.origins == "clustered" and home_rows is not None and grid is not None:
            origin = origins.by_row(piece, home_rows[known], *grid)
        elif settings.origins == "round-robin" or grid is None or rows is None:
            origin = origins.round_robin(piece, num_devices)
        else:
            domain = sampler.request_domain[piece_request]
            origin = origins.domain_affine(piece, domain, rows, grid[1])
        yield Batch(positions, origin, index * settings.batch_interval, mix)


def _base_mix(trace: RoutingTrace) -> NDArray[np.float64]:
    size = np.bincount(trace.request_domain, minlength=len(trace.domain_names))
    return np.asarray(size / size.sum())


def _mixes(
    settings: WorkloadSettings, base: NDArray[np.float64], rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    if settings.schedule == "phases":
        return domain_mix.phases(base, settings.phase_batches, settings.dominant_weight, rng)
    if settings.schedule == "drift":
        return domain_mix.drift(base, settings.drift_batches, settings.drift_spread, rng)
    return domain_mix.stationary(base)


def _sizes(settings: WorkloadSettings, rng: np.random.Generator) -> Iterator[int]:
    """Return the tokens of one batch after another, on average ``batch_tokens``, at least 1."""
    if settings.arrivals == "fixed":
        return repeat(settings.batch_tokens)
    if settings.arrivals == "recorded":
        times = arrivals.load_arrivals(settings.arrival_trace)
        counts, mean = arrivals.recorded_counts(times, settings.batch_interval)
    else:
        cv = 1.0 if settings.arrivals == "poisson" else settings.arrival_cv
        mean = settings.request_rate * settings.batch_interval
        counts = arrivals.renewal_counts(settings.request_rate, cv, settings.batch_interval, rng)
    most = settings.most_tokens or None

    def tokens(count: int) -> int:
        wanted = max(1, round(settings.batch_tokens * count / mean))
        return wanted if most is None else min(wanted, most)

    return map(tokens, counts)
