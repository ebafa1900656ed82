"""A routing trace in memory, and what can be cut from it.

All requests lie one after another in a single array, layer by layer, because every consumer reads
one layer of many tokens: ``trace.experts[m, positions]``. A token of a router that gives tokens
different numbers of experts (expert choice) has ``NO_EXPERT`` after its own: no pair, which loads
nothing, sends nothing and computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.errors import InputError, unknown

PARTS = ("prompt", "output")
NO_EXPERT = -1
TokenIds = tuple[NDArray[np.int64] | None, ...]


@dataclass(frozen=True, eq=False)
class Request:
    """One request of a trace; arrays are views of the trace's."""

    request_id: str
    domain: str
    routed_experts: NDArray[np.int16]  # [positions, M, K] logical expert ids
    position: NDArray[np.int32]  # [positions], index in the sequence
    prompt_len: int  # tokens; -1: unknown
    prompt_token_ids: NDArray[np.int64] | None
    output_token_ids: NDArray[np.int64] | None


@dataclass(frozen=True, eq=False)
class RoutingTrace:
    """The routing of Q requests with P positions in all, through M layers of E experts, top-K."""

    experts: NDArray[np.int16]  # [M, P, K] C-contiguous, request after request; -1: no expert
    request_start: NDArray[np.int64]  # [Q+1] offsets into P
    request_ids: tuple[str, ...]
    domain_names: tuple[str, ...]  # sorted
    request_domain: NDArray[np.int32]  # [Q] index into domain_names
    position: NDArray[np.int32]  # [P], index in the request's sequence
    prompt_len: NDArray[np.int32]  # [Q] tokens; -1: unknown
    num_experts: int
    repetition: NDArray[np.bool_]  # [Q]: the request's output loops
    notes: tuple[str, ...] = ()  # what was adapted on loading
    prompt_token_ids: TokenIds | None = None
    output_token_ids: TokenIds | None = None
    weight: NDArray[np.float64] | None = None  # [P], how often loads count a position; None: once

    @property
    def num_layers(self) -> int:
        """MoE layers, M."""
        return int(self.experts.shape[0])

    @property
    def top_k(self) -> int:
        """Experts a token, K: the most, where tokens have different numbers of them."""
        return int(self.experts.shape[2])

    @cached_property
    def pairs_per_token(self) -> float:
        """Experts a token and layer on average; K where all tokens have as many."""
        return int(np.count_nonzero(self.experts >= 0)) / (self.num_layers * self.num_positions)

    @property
    def usual_top_k(self) -> int:
        """The number of experts that tokens have on average, rounded, at least 1."""
        return max(1, round(self.pairs_per_token))

    @property
    def has_absent(self) -> bool:
        """Whether some token has fewer than K experts."""
        return self.pairs_per_token < self.top_k

    @property
    def tokens(self) -> float:
        """Positions by ``weight``: what a shared expert serves in every layer."""
        return float(self.num_positions if self.weight is None else self.weight.sum())

    @property
    def num_requests(self) -> int:
        """Requests, Q."""
        return len(self.request_ids)

    @property
    def num_positions(self) -> int:
        """Routed positions of all requests, P."""
        return int(self.experts.shape[1])

    @property
    def position_request(self) -> NDArray[np.int32]:
        """Request of every position, [P]."""
        return np.repeat(np.arange(self.num_requests, dtype=np.int32), np.diff(self.request_start))

    @property
    def position_domain(self) -> NDArray[np.int32]:
        """Domain of every position, [P]."""
        return np.repeat(self.request_domain, np.diff(self.request_start))

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests one by one, as views."""
        return tuple(self._request(q) for q in range(self.num_requests))

    def _request(self, q: int) -> Request:
        span = slice(self.request_start[q], self.request_start[q + 1])
        return Request(
            request_id=self.request_ids[q],
            domain=self.domain_names[self.request_domain[q]],
            routed_experts=self.experts[:, span].transpose(1, 0, 2),
            position=self.position[span],
            prompt_len=int(self.prompt_len[q]),
            prompt_token_ids=self.prompt_token_ids[q] if self.prompt_token_ids else None,
            output_token_ids=self.output_token_ids[q] if self.output_token_ids else None,
        )

    def load(self, layers: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Token-expert pairs of every layer (or of ``layers``) and expert by ``weight``, [M, E]."""
        chosen, weight = self.layer_indices(layers), self._pair_weight()
        return np.stack(
            [
                np.bincount(_shifted(self.experts[m]).ravel(), weight, self.num_experts + 1)[1:]
                for m in chosen
            ]
        ).astype(np.float64)

    def domain_load(self) -> NDArray[np.float64]:
        """Token-expert pairs of every domain, layer and expert, [D, M, E], by ``weight``."""
        domains, bins = len(self.domain_names), self.num_experts + 1
        weight = self._pair_weight()
        offset = (self.position_domain.astype(np.int64) * bins)[:, None]
        counts = np.stack(
            [
                np.bincount((_shifted(layer) + offset).ravel(), weight, minlength=domains * bins)
                for layer in self.experts
            ]
        )
        by_domain = counts.reshape(-1, domains, bins)[..., 1:].swapaxes(0, 1)
        return np.ascontiguousarray(by_domain, dtype=np.float64)

    def _pair_weight(self) -> NDArray[np.float64] | None:
        return None if self.weight is None else np.repeat(self.weight, self.top_k)

    def select(self, request_indices: ArrayLike) -> RoutingTrace:
        """Return the trace of these requests (indices into Q), in this order, all domains kept.

        Raises InputError where no request is left or an index is out of range.
        """
        chosen = np.asarray(request_indices, dtype=np.int64).reshape(-1)
        if not chosen.size:
            raise InputError("a trace must keep at least one request, none was selected")
        if chosen.min() < 0 or chosen.max() >= self.num_requests:
            raise InputError(f"request indices must be in 0..{self.num_requests - 1}")
        length = np.diff(self.request_start)[chosen]
        start = np.concatenate([[0], np.cumsum(length)])
        take = self.positions_of(chosen)
        return replace(
            self,
            experts=np.ascontiguousarray(self.experts[:, take]),
            request_start=start,
            request_ids=tuple(self.request_ids[q] for q in chosen),
            request_domain=self.request_domain[chosen],
            position=self.position[take],
            prompt_len=self.prompt_len[chosen],
            repetition=self.repetition[chosen],
            prompt_token_ids=_take(self.prompt_token_ids, chosen),
            output_token_ids=_take(self.output_token_ids, chosen),
            weight=None if self.weight is None else self.weight[take],
        )

    def positions_of(self, request_indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions, indices into P, of these requests one after another."""
        length = np.diff(self.request_start)[request_indices]
        start = np.cumsum(length) - length
        first = self.request_start[request_indices] - start
        return np.asarray(np.arange(int(length.sum())) + np.repeat(first, length))

    def filter(
        self,
        domains: Sequence[str] | None = None,
        layers: Sequence[int] | None = None,
        part: str | None = None,
        skip: int = 0,
    ) -> RoutingTrace:
        """Keep some domains, layers, or one ``part`` of each request ("prompt" or "output").

        ``skip`` drops that many first positions of what is kept of each request (the header that
        all outputs of a chat model share). Requests of which nothing is left are dropped.

        Raises InputError for unknown names, a request whose prompt length is unknown where
        ``part`` needs it, and where nothing is left.
        """
        trace = self
        if domains is not None:
            trace = trace._only_domains(tuple(domains))
        if layers is not None:
            trace = replace(
                trace, experts=np.ascontiguousarray(trace.experts[self.layer_indices(layers)])
            )
        if part is None and not skip:
            return trace
        keep = np.ones(trace.num_positions, dtype=np.bool_)
        if part is not None:
            if part not in PARTS:
                raise unknown("part", part, PARTS)
            blank = np.flatnonzero(trace.prompt_len < 0)
            if blank.size:
                raise InputError(
                    f"part={part!r} needs prompt_len, unknown of {trace.request_ids[blank[0]]}"
                )
            in_prompt = trace.position < trace.prompt_len[trace.position_request]
            keep = in_prompt if part == "prompt" else ~in_prompt
        if skip < 0:
            raise InputError(f"skip must be >= 0, got {skip}")
        kept = np.concatenate([[0], np.cumsum(keep)])
        before = kept[:-1] - np.repeat(kept[trace.request_start[:-1]], np.diff(trace.request_start))
        return trace._keep_positions(keep & (before >= skip))

    def split(self, test_fraction: float = 0.5, seed: int = 0) -> tuple[RoutingTrace, RoutingTrace]:
        """Split into (train, test) by request, each domain in proportion, in the trace's order.

        A domain of two or more requests has at least one on each side; domains of a single request
        are drawn together.

        Raises InputError for a fraction outside (0, 1) and for a trace of one request.
        """
        if not 0 < test_fraction < 1:
            raise InputError(f"test_fraction must be in (0, 1), got {test_fraction}")
        if self.num_requests < 2:
            raise InputError("a split needs at least 2 requests, the trace has 1")
        rng = np.random.default_rng(seed)
        size = np.bincount(self.request_domain, minlength=len(self.domain_names))
        stratum = np.where(size[self.request_domain] > 1, self.request_domain, -1)
        in_test = np.zeros(self.num_requests, dtype=np.bool_)
        for value in np.unique(stratum):
            members = rng.permutation(np.flatnonzero(stratum == value))
            if len(members) > 1:
                count = min(max(round(len(members) * test_fraction), 1), len(members) - 1)
                in_test[members[:count]] = True
        return self.select(np.flatnonzero(~in_test)), self.select(np.flatnonzero(in_test))

    def layer_indices(self, layers: Sequence[int] | None) -> list[int]:
        """Return the layers, or all for None; InputError where one is out of range."""
        chosen = list(range(self.num_layers)) if layers is None else [int(m) for m in layers]
        if not chosen or min(chosen) < 0 or max(chosen) >= self.num_layers:
            raise InputError(f"layers must be in 0..{self.num_layers - 1}, got {chosen}")
        return chosen

    def _only_domains(self, domains: tuple[str, ...]) -> RoutingTrace:
        for name in domains:
            if name not in self.domain_names:
                raise unknown("domain", name, self.domain_names)
        names = tuple(name for name in self.domain_names if name in domains)
        number = np.array([names.index(n) if n in names else -1 for n in self.domain_names])
        renumbered = number[self.request_domain].astype(np.int32)
        trace = replace(self, request_domain=renumbered, domain_names=names)
        return trace.select(np.flatnonzero(renumbered >= 0))

    def _keep_positions(self, keep: NDArray[np.bool_]) -> RoutingTrace:
        if not keep.any():
            raise InputError("the filter leaves no position of the trace")
        kept = np.concatenate([[0], np.cumsum(keep)])
        start = kept[self.request_start]
        trace = replace(
            self,
            experts=np.ascontiguousarray(self.experts[:, keep]),
            position=self.position[keep],
            request_start=start,
            weight=None if self.weight is None else self.weight[keep],
        )
        return trace.select(np.flatnonzero(np.diff(start)))


def early_absences(experts: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which tokens [...] have -1 before one of their experts [..., K]."""
    early = (experts[..., :-1] < 0) & (experts[..., 1:] >= 0)
    return np.asarray(early.any(axis=-1))


def _shifted(experts: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return expert ids + 1, so that 0 counts what is no expert."""
    return np.add(experts, 1, dtype=np.int64)


def _take(ids: TokenIds | None, chosen: NDArray[np.int64]) -> TokenIds | None:
    return None if ids is None else tuple(ids[q] for q in chosen)
