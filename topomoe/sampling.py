"""Draws of requests, single tokens and contiguous runs from a trace, with replacement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.routing_trace import RoutingTrace


@dataclass(frozen=True, eq=False)
class Sampler:
    """Requests by domain, and the span of positions each may be drawn from."""

    first: NDArray[np.int64]  # [Q] into P
    length: NDArray[np.int64]  # [Q]
    request_domain: NDArray[np.int32]  # [Q]
    members: NDArray[np.int64]  # [Q] requests, domain after domain
    domain_start: NDArray[np.int64]  # [D] into members
    domain_size: NDArray[np.int64]  # [D]

    @classmethod
    def of(cls, trace: RoutingTrace, part: str | None) -> Sampler:
        """Return the sampler of one part ("prompt", "output") of each request, or of all of it.

        A request none of whose positions are known to be of that part is drawn from as a whole.
        """
        first, last = trace.request_start[:-1], trace.request_start[1:]
        if part is not None:
            part_first, part_last = _spans(trace, part)
            has = has_part(trace, part)
            first, last = np.where(has, part_first, first), np.where(has, part_last, last)
        size = np.bincount(trace.request_domain, minlength=len(trace.domain_names))
        return cls(
            first=first,
            length=last - first,
            request_domain=trace.request_domain,
            members=np.argsort(trace.request_domain, kind="stable"),
            domain_start=np.cumsum(size) - size,
            domain_size=size,
        )

    def traffic(self, mix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each domain's share of the positions of requests drawn by ``mix``, both [D]."""
        mean = np.bincount(self.request_domain, self.length, minlength=len(mix)) / np.maximum(
            self.domain_size, 1
        )
        return np.asarray(mix * mean / (mix @ mean))

    def requests(
        self, count: int, mix: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw requests with replacement: a domain by ``mix``, then evenly within it."""
        cumulative = np.cumsum(mix)
        cumulative[np.flatnonzero(mix)[-1] :] = np.inf  # rounding must not reach an empty domain
        domain = np.searchsorted(cumulative, rng.random(count), side="right")
        within = (rng.random(count) * self.domain_size[domain]).astype(np.int64)
        return np.asarray(self.members[self.domain_start[domain] + within])

    def tokens(
        self, count: int, mix: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw (positions, requests), both [count], each token by itself."""
        request = self.requests(count, mix, rng)
        offset = (rng.random(count) * self.length[request]).astype(np.int64)
        return self.first[request] + offset, request

    def runs(
        self, count: int, mix: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Draw contiguous runs that hold ``count`` positions: (first, length, request), [runs].

        They are a window on an endless sequence of requests. It is as likely to open at any
        position, so that it opens in a long request more often than in a short one; otherwise
        windows shorter than the requests would hold too many positions of short requests.
        """
        chunk = 8 + int(1.2 * count / self.length.mean())
        request = self.requests(chunk, mix, rng)
        request[0] = self._at_position(mix, rng)
        skipped = int(rng.random() * self.length[request[0]])
        while self.length[request].sum() - skipped < count:
            request = np.concatenate([request, self.requests(chunk, mix, rng)])
        first, length = self.first[request], self.length[request]
        first[0] += skipped
        length[0] -= skipped
        filled = np.cumsum(length)
        runs = int(np.searchsorted(filled, count)) + 1
        length[runs - 1] -= filled[runs - 1] - count
        return first[:runs], length[:runs], request[:runs]

    def _at_position(self, mix: NDArray[np.float64], rng: np.random.Generator) -> int:
        """Draw the request of a random position in an endless sequence of requests."""
        share = mix / np.maximum(self.domain_size, 1)
        cumulative = np.cumsum(share[self.request_domain] * self.length)
        drawn = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        return min(int(drawn), int(np.flatnonzero(np.diff(cumulative, prepend=0.0))[-1]))


def has_part(trace: RoutingTrace, part: str) -> NDArray[np.bool_]:
    """Return which requests have positions known to be of ``part``, "prompt" or "output", [Q]."""
    first, last = _spans(trace, part)
    return np.asarray((trace.prompt_len >= 0) & (last > first))


def _spans(trace: RoutingTrace, part: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the span of each request's part in P, (first, last), both [Q]."""
    in_prompt = trace.position < trace.prompt_len[trace.position_request]
    before = np.concatenate([[0], np.cumsum(in_prompt)])
    start, end = trace.request_start[:-1], trace.request_start[1:]
    boundary = start + before[end] - before[start]
    return (start, boundary) if part == "prompt" else (boundary, end)
