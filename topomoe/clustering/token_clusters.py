"""K-means clusters of tokens by expert history.

ScaleMoE's dynamic expert clustering (PACT 2025), for any top-K: the distance of a token from a
centroid is the number of layers less their overlap, the part of the token's K picks that the
centroid holds, summed over layers; a centroid holds the K most common picks of its members in every
layer (the mode, for K = 1), which no other K experts beat. So no iteration raises the distance.
Where tokens have different numbers of experts, K is what they have on average.

A token's own picks are known only when it has been routed, so what decides where it starts is its
request's history: the overlap of the earlier positions. A request without one counts as its
domain's most common cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError, unknown

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

UNITS = ("token", "request")
MOST_POSITIONS = 32768  # of the training trace that clusters are fitted to, evenly spaced
_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class TokenClusters:
    """C clusters; ``objective`` is the mean distance of a token after each iteration, in layers."""

    centroids: NDArray[np.int16]  # [C, M, K] expert ids, ascending; K: what tokens usually have
    objective: FloatArray  # [iterations]
    domain_names: tuple[str, ...]
    domain_cluster: IntArray  # [D] the most common cluster of each domain's tokens
    num_experts: int

    @property
    def num_clusters(self) -> int:
        """C."""
        return len(self.centroids)

    def overlaps(self, trace: RoutingTrace, positions: IntArray | None = None) -> NDArray[np.int32]:
        """Return the picks that each position shares with each centroid over all layers, [n, C]."""
        from topomoe.clustering import token_clusters_kernel as kernels

        # Where tokens have different numbers of experts, any trace has a usual number of its own.
        top_k = self.centroids.shape[2] if trace.has_absent else trace.top_k
        if (trace.num_layers, trace.num_experts, top_k) != (
            *self.centroids.shape[1:2],
            self.num_experts,
            self.centroids.shape[2],
        ):
            raise InputError(
                f"clusters are of {self.centroids.shape[1]} layers of {self.num_experts} experts, "
                f"top-{self.centroids.shape[2]}; the trace has {trace.num_layers} of "
                f"{trace.num_experts}, top-{trace.top_k}"
            )
        chosen = np.arange(trace.num_positions) if positions is None else positions
        return kernels.overlaps(trace.experts, chosen, _members(self.centroids, self.num_experts))

    def assign(
        self,
        trace: RoutingTrace,
        capacity: int | None = None,
        causal: bool = True,
        pin_after: int | None = None,
    ) -> IntArray:
        """Return the cluster of every position, [P]: the one its request's history overlaps most.

        Only earlier positions of the same request count (all of them, or the first ``pin_after``,
        after which the request stays where it is). ``causal`` False: the position's own picks
        instead, which only hindsight knows. A cluster takes ``capacity`` positions, first come.
        Raises InputError where the capacity is too small for all, or for a trace of another shape.
        """
        from topomoe.clustering import token_clusters_kernel as kernels

        positions = trace.num_positions
        most = positions if capacity is None else capacity
        if most * self.num_clusters < positions:
            raise InputError(
                f"capacity must be >= positions / clusters, got {most} for {positions} positions "
                f"and {self.num_clusters} clusters"
            )
        if pin_after is not None and pin_after < 1:
            raise InputError(f"pin_after must be >= 1 position, got {pin_after}")
        known = dict(zip(self.domain_names, self.domain_cluster.tolist(), strict=True))
        usual = int(np.bincount(self.domain_cluster).argmax())
        of_domain = np.array([known.get(name, usual) for name in trace.domain_names])
        return kernels.assign_in_order(
            self.overlaps(trace),
            trace.request_start,
            of_domain[trace.request_domain].astype(np.int64),
            causal,
            -1 if pin_after is None else pin_after,
            most,
        )


def _members(centroids: NDArray[np.int16], num_experts: int) -> NDArray[np.uint8]:
    """Return which experts the centroids [C, M, K] hold, [M, E, C]."""
    clusters, layers, _ = centroids.shape
    member = np.zeros((layers, num_experts, clusters), dtype=np.uint8)
    cluster, layer, _ = np.indices(centroids.shape)
    member[layer, centroids, cluster] = 1
    return member


def fit(
    trace: RoutingTrace,
    clusters: int,
    seed: int = 0,
    unit: str = "token",
    restarts: int = 4,
) -> TokenClusters:
    """Cluster the tokens of a trace; the closest of ``restarts`` runs from seeded centroids.

    ``unit`` "request" keeps all tokens of a request in one cluster. The first centroids are drawn
    like k-means++'s (Arthur and Vassilvitskii, 2007), in proportion to the distance from those
    drawn. Raises InputError for fewer units than clusters.
    """
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    stride = -(-trace.num_positions // MOST_POSITIONS)
    positions = np.arange(0, trace.num_positions, stride)
    owner = np.arange(len(positions))
    if unit == "request":
        owner = np.unique(trace.position_request[positions], return_inverse=True)[1].reshape(-1)
    if not 1 <= clusters <= owner[-1] + 1:
        raise InputError(
            f"clusters must be in 1..{owner[-1] + 1}, the {unit}s at hand, got {clusters}"
        )
    if restarts < 1:
        raise InputError(f"restarts must be >= 1, got {restarts}")
    runs = [
        _run(trace, positions, owner, clusters, rng)
        for rng in np.random.default_rng(seed).spawn(restarts)
    ]
    centroids, label, objective = min(runs, key=lambda run: float(run[2][-1]))
    domains = len(trace.domain_names)
    table = np.zeros((domains, clusters), dtype=np.int64)
    np.add.at(table, (trace.position_domain[positions], label), 1)
    table[table.sum(axis=1) == 0] = table.sum(axis=0)  # a domain unseen: the commonest of all
    return TokenClusters(
        centroids, objective, trace.domain_names, table.argmax(axis=1), trace.num_experts
    )


def _run(
    trace: RoutingTrace,
    positions: IntArray,
    owner: IntArray,
    clusters: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int16], IntArray, FloatArray]:
    """Return centroids [C, M, K], the label of each position [n] and the mean distances."""
    from topomoe.clustering import token_clusters_kernel as kernels

    layers, top_k, experts = trace.num_layers, trace.usual_top_k, trace.num_experts
    size = np.bincount(owner)
    own_picks = (trace.experts[:, positions] >= 0).sum(axis=(0, 2))

    def modes(label: IntArray, keep: NDArray[np.int16] | None, count: int) -> NDArray[np.int16]:
        counts = np.zeros((count, layers, experts), dtype=np.int64)
        kernels.pick_counts(trace.experts, positions, label, counts)
        best = np.argsort(-counts, axis=2, kind="stable")[..., :top_k]
        made = np.sort(best, axis=2).astype(np.int16)
        if keep is not None:
            empty = counts.sum(axis=(1, 2)) == 0
            made[empty] = keep[empty]
        return made

    def shared(centroids: NDArray[np.int16]) -> IntArray:
        """Return the picks that each unit shares with each centroid, [U, C]."""
        each = kernels.overlaps(trace.experts, positions, _members(centroids, experts))
        starts = np.cumsum(size) - size  # owners are ascending
        return np.add.reduceat(each, starts, axis=0, dtype=np.int64)

    # k-means++: the units nearest to what is drawn are the least likely to be drawn next.
    drawn = [int(rng.integers(len(size)))]
    near = np.zeros(len(size), dtype=np.int64)
    all_picks = np.bincount(owner, own_picks).astype(np.int64)
    centroids = np.zeros((0, layers, top_k), dtype=np.int16)
    while True:
        new = modes(np.where(owner == drawn[-1], 0, -1), None, 1)
        centroids = np.concatenate([centroids, new])
        if len(centroids) == clusters:
            break
        near = np.maximum(near, shared(new)[:, 0])
        far = (all_picks - near).astype(np.float64)
        far[drawn] = 0.0
        if not far.any():  # fewer distinct units than clusters
            far[:] = 1.0
            far[drawn] = 0.0
        drawn.append(int(rng.choice(len(size), p=far / far.sum())))

    objective = []
    label = np.full(len(size), -1, dtype=np.int64)
    for _ in range(_ITERATIONS):
        score = shared(centroids)
        before, label = label, score.argmax(axis=1)
        picks = int(np.take_along_axis(score, label[:, None], axis=1).sum())
        objective.append(layers - layers * picks / int(all_picks.sum()))
        if np.array_equal(before, label):
            break
        centroids = modes(label[owner], centroids, clusters)
    return centroids, label[owner], np.array(objective)
