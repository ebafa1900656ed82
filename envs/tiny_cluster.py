"""A small made-up cluster with phases of traffic, for examples, tests and speed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, Cluster, CoDesignProblem, StepPool, moving_cost
from topomoe.envs.cluster_picture import drawn_links
from topomoe.envs.group_layout import Layout, parse_layout
from topomoe.envs.migration import Migration
from topomoe.envs.moves import moved_seconds, rebalance
from topomoe.envs.network_tables import BACKGROUND, network_tables
from topomoe.envs.placement_library import slot_devices
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.step_price import price_library
from topomoe.envs.timeline import semi_markov
from topomoe.topologies import budget
from topomoe.topologies.errors import InputError
from topomoe.topologies.matching import choose_circuits
from topomoe.topologies.topology import Topology

GRID, PORTS = (4, 4), 4
EXPERTS = 16
DOMAINS = 3
STEPS = 8  # tabulated of each domain and layout
DRAWS = 2  # steps that stand for an epoch
DISPATCH_BYTES, COMBINE_BYTES = 7168.0, 14336.0  # a token of 7168 in FP8 and in BF16
TOKENS = 4096.0  # token-expert pairs a layer


@lru_cache(maxsize=8)
def tiny_problem(
    epochs: int = 400,
    episode_length: int = 50,
    layouts: tuple[str, ...] = ("decode 16", "prefill 8 + decode 8 scattered"),
    layers: int = 4,
    expert_bytes: float = 2e7,
    seed: int = 0,
) -> CoDesignProblem:
    """Return 16 devices in a 4x4 grid whose circuits make a torus, an expander, or fit a layout.

    A topic holds for some ten epochs and makes a third of the experts hot, others in every layer;
    layouts take turns every forty epochs or so. The library: EPLB for all topics together, and one
    placement a topic.

    Raises:
        InputError: a number is too small, or a text is no layout.
    """
    if epochs < 1 or layers < 1:
        raise InputError(f"epochs and layers must be >= 1, got {epochs} and {layers}")
    rng = np.random.default_rng(seed)
    groups = [parse_layout(text, 16, np.random.default_rng(seed)) for text in layouts]
    most = max(len(layout.kinds) for layout in groups)
    topic = rng.dirichlet(np.full(EXPERTS, 0.5), (DOMAINS, layers)) + 0.2 / EXPERTS
    pool = _pool(topic, groups, rng)
    names, networks, fitted = _networks(groups)
    pull, offset = network_tables(networks, groups, DISPATCH_BYTES, COMBINE_BYTES, 0.0)
    links, optical = drawn_links(networks)
    weight = np.zeros((len(groups), most))
    for v, layout in enumerate(groups):
        weight[v, : len(layout.kinds)] = layout.sizes / layout.sizes.sum()
    slot_device = slot_devices(groups, EXPERTS, 1.5)
    placements = ("mix", *(f"topic-{d}" for d in range(DOMAINS)))
    cluster = Cluster(
        topologies=names,
        placements=placements,
        layouts=layouts,
        pull=pull,
        offset=offset,
        group_of=np.stack([layout.group_of for layout in groups]),
        weight=weight,
        slot_device=slot_device,
        slot_expert=np.full(
            (len(placements), len(groups), layers, slot_device.shape[1]), -1, dtype=np.int16
        ),
        overhead=5e-6,
        token_seconds=8.8e-8,
        weight_seconds=6e-6,
        layer_scale=58.0 / layers,
        reconfiguration=0.05 * (1.0 - np.eye(len(names))),
        expert_bytes=expert_bytes,
        nic=5e10,
        migration_share=0.2,
        grid=GRID,
        links=links,
        optical=optical,
    )
    loads = np.concatenate([topic.mean(axis=0)[None], topic])
    for v in range(len(groups)):
        cluster.slot_expert[:, v] = rebalance(cluster, loads, np.full(len(loads), v))
    topics = semi_markov(DOMAINS, epochs, 10.0, 2.0, rng)
    stands = semi_markov(len(groups), epochs, 40.0, 2.0, rng)
    drawn = rng.integers(STEPS, size=(epochs, DRAWS))
    steps = ((stands * DOMAINS + topics)[:, None] * STEPS + drawn).astype(np.int32)
    features = np.concatenate([np.eye(DOMAINS)[topics], np.eye(len(groups))[stands]], axis=1)
    feature_names = (
        *(f"topic {d}" for d in range(DOMAINS)),
        *(f"layout {name}" for name in layouts),
    )
    table = price_library(cluster, pool)
    repeat = 64.0
    usual = repeat * DRAWS * float(table.sum(axis=0).mean(axis=0).min())
    switching = _library_problem(
        cluster, table, steps, stands, repeat, usual, features, feature_names, episode_length
    )
    share = pool.counts.sum(axis=1)
    share = share / share.sum(axis=2, keepdims=True)
    forecast = np.empty((epochs, layers, EXPERTS), dtype=np.float32)
    expected = topic.mean(axis=0)
    for t in range(epochs):
        forecast[t] = expected
        expected = 0.7 * expected + 0.3 * share[steps[t]].mean(axis=0)
    return CoDesignProblem(cluster, pool, steps, repeat, forecast, usual, switching, fitted)


def _networks(
    layouts: Sequence[Layout],
) -> tuple[tuple[str, ...], list[Topology], NDArray[np.int16]]:
    """Return wirings of one optical fabric: a torus, an expander, circuits inside the groups."""
    wanted: dict[str, str | NDArray[np.int64]] = {"torus": "torus", "expander": "expander"}
    for v, layout in enumerate(layouts):
        same = (layout.group_of[:, None] == layout.group_of) & (layout.group_of >= 0)
        demand = same * (1.0 - np.eye(len(same)))
        wanted[f"fitted-{v}"] = choose_circuits(demand, PORTS, connected=True)
    made = [
        budget.build("optical", GRID, 5e10, 1e-6, "iso-injection", 0.2, PORTS, circuits=circuits)
        for circuits in wanted.values()
    ]
    return tuple(wanted), made, np.arange(2, len(wanted), dtype=np.int16)


def _pool(
    topic: NDArray[np.float64], layouts: Sequence[Layout], rng: np.random.Generator
) -> StepPool:
    """Return STEPS steps of each topic [D, M, E] under each layout: counts about its shares."""
    groups = max(len(layout.kinds) for layout in layouts)
    kinds = len(layouts) * len(topic)
    counts = np.zeros((kinds * STEPS, groups, *topic.shape[1:]), dtype=np.float32)
    share = topic / topic.sum(axis=2, keepdims=True)
    for kind in range(kinds):
        v, d = divmod(kind, len(topic))
        for g, size in enumerate(layouts[v].sizes.tolist()):
            tokens = TOKENS * size / layouts[v].sizes.sum()
            drawn = rng.poisson(tokens * share[d], (STEPS, *share[d].shape))
            counts[kind * STEPS : (kind + 1) * STEPS, g] = drawn
    steps = len(counts)
    return StepPool(
        counts=counts,
        background=np.full((steps, len(BACKGROUND)), 1e5, dtype=np.float32),
        shared=np.full((steps, groups), 1e-5),
        other=np.full((steps, groups), 2e-3),
        layout=(np.arange(steps) // (STEPS * len(topic))).astype(np.int16),
        context=(np.arange(steps) // STEPS).astype(np.int16),
    )


def _library_problem(
    cluster: Cluster,
    table: NDArray[np.float64],
    steps: NDArray[np.int32],
    layout: NDArray[np.int64],
    repeat: float,
    usual: float,
    features: NDArray[np.float64],
    feature_names: tuple[str, ...],
    episode_length: int,
) -> SwitchingProblem:
    """Return the timeline with the library alone; table [4, Q, A, P]."""
    count = len(cluster.placements)
    names = tuple(f"{a}/{p}" for a in cluster.topologies for p in cluster.placements)
    topology = np.arange(len(names)) // count
    parts = repeat * table[:, steps].sum(axis=2).reshape(len(PARTS), len(steps), len(names))
    pairs = np.indices((count, count)).reshape(2, -1)
    seconds = np.stack(
        [
            moved_seconds(
                cluster,
                cluster.slot_expert[pairs[0], v],
                cluster.slot_expert[pairs[1], v],
                np.full(len(pairs[0]), v),
            ).reshape(count, count)
            for v in range(len(cluster.layouts))
        ]
    )
    share = cluster.migration_share
    problem = SwitchingProblem(
        names=names,
        cost=parts.sum(axis=0),
        switch_cost=cluster.reconfiguration[np.ix_(topology, topology)],
        components=dict(zip(PARTS, parts, strict=True)),
        features=features.astype(np.float32),
        feature_names=feature_names,
        episode_length=min(episode_length, len(steps)),
        placements=cluster.placements,
        migration=Migration(*moving_cost(seconds[layout], usual, share), share / (1.0 - share)),
    )
    return problem.calibrated(problem)
