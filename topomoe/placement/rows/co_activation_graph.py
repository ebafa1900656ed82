"""The co-activation graph of a trace: who fires with whom, and on which row the tokens start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.origins import ORIGINS, domain_rows
from topomoe.routing_trace import RoutingTrace
from topomoe.sampling import Sampler
from topomoe.stats import co_activation
from topomoe.topologies.errors import unknown


@dataclass(frozen=True, eq=False)
class CoActivationGraph:
    """Experts of one layer as vertices, tokens that chose two of them as weights of edges.

    Both by the row of devices where the tokens start. G is 1 where all rows see the same tokens,
    each 1/R of them, else R.
    """

    demand: NDArray[np.float64]  # [R, E] token-expert pairs
    pairs: NDArray[np.float64]  # [G, E, E] tokens a row that chose both; diagonal 0


def co_activation_graphs(
    trace: RoutingTrace, rows: int = 1, origins: str = "uniform"
) -> list[CoActivationGraph]:
    """Return the co-activation graph of every layer for tokens that start on ``rows`` rows.

    ``origins`` as in ``WorkloadSettings``: ``domain-affine`` gives each domain rows of its own, in
    proportion to its share of what decode draws; under the others all rows see the same mix.
    Raises InputError for an unknown name of origins.

    >>> import topomoe as tm
    >>> graphs = co_activation_graphs(tm.synthetic_trace("mixtral-8x7b", requests=4), rows=2)
    >>> len(graphs), graphs[0].demand.shape, graphs[0].pairs.shape
    (32, (2, 8), (1, 8, 8))
    """
    if origins not in ORIGINS:
        raise unknown("origins", origins, ORIGINS)
    layers, experts = range(trace.num_layers), trace.num_experts
    if origins != "domain-affine":
        counts = [_counts(trace, m) for m in layers]
        return [
            CoActivationGraph(np.tile(demand / rows, (rows, 1)), pairs[None] / rows)
            for demand, pairs in counts
        ]
    requests = np.bincount(trace.request_domain, minlength=len(trace.domain_names))
    share = Sampler.of(trace, "output").traffic(requests / requests.sum())
    demand = np.zeros((trace.num_layers, rows, experts))
    pairs = np.zeros((trace.num_layers, rows, experts, experts))
    for domain, (first, count) in enumerate(domain_rows(share, rows)):
        if not requests[domain]:
            continue
        own = trace.select(np.flatnonzero(trace.request_domain == domain))
        for m in layers:
            of_expert, of_pair = _counts(own, m)
            demand[m, first : first + count] += of_expert / count
            pairs[m, first : first + count] += of_pair / count
    return [CoActivationGraph(demand[m], pairs[m]) for m in layers]


def _counts(trace: RoutingTrace, layer: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return tokens by expert [E] and by two experts [E, E]."""
    pairs = co_activation(trace, layer)[0].astype(np.float64)
    load = np.diagonal(pairs).copy()
    np.fill_diagonal(pairs, 0.0)
    return load, pairs
