"""What a step costs under any placement of the experts: the kernel behind all tables.

For step q with layout v under topology a and a placement, layer by layer: a device computes
``w[d]``, the sum over its slots of ``counts[g, e] / replicas(g, e)``. Dispatch keeps a link busy
for ``x[l] = sum_d pull[0, d, l] w[d] + sum_b pull[0, N + b, l] background[b]`` seconds, and group g
waits for ``overhead + max_l (x[l] + offset[0, g, l])``; combine alike with direction 1. Compute of
g is the shared expert's seconds and then the slowest device's, which takes
``max(tokens * token_seconds, weight_seconds)`` for every slot with tokens. Layers add up, times
``layer_scale``; a step's part is the mean over groups by ``cluster.weight``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, Cluster, StepPool
from topomoe.topologies.errors import InputError
from topomoe.topologies.kernel import kernel, nan_free_kernel

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StepLoads:
    """What one step puts on each part of the cluster.

    Attributes:
        device_tokens: float32 [M, N], tokens each device computes.
        link_seconds: float32 [2, M, L], seconds each link is busy in dispatch and in combine.
    """

    device_tokens: NDArray[np.float32]
    link_seconds: NDArray[np.float32]


def price_steps(
    cluster: Cluster,
    pool: StepPool,
    steps: NDArray[Any],
    topology: NDArray[Any],
    slot_expert: NDArray[np.int16],
    which: NDArray[Any] | None = None,
) -> FloatArray:
    """Return seconds [4, n] of each step under a topology and a placement of its own.

    The parts are ``PARTS``: dispatch, compute, combine, other. The same step, topology and
    placement give the same bits, whatever else is priced beside them.

    Args:
        cluster: the devices and networks.
        pool: the steps.
        steps: int [n], numbers of steps; or [n, J], J steps under each choice: then [4, n, J].
        topology: int [n].
        slot_expert: int16 [B, M, S], the expert in each slot; -1: none.
        which: int [n], the row of ``slot_expert`` of each; by default B = n, one after another.

    Raises:
        InputError: an array has another shape, or a number is out of range.
    """
    steps = np.asarray(steps)
    rows = np.ascontiguousarray(steps if steps.ndim == 2 else steps[:, None], dtype=np.int64)
    row = np.arange(len(rows)) if which is None else np.ascontiguousarray(which, dtype=np.int64)
    topologies = np.ascontiguousarray(topology, dtype=np.int64)
    _check(cluster, pool, rows, topologies, slot_expert, row)
    out = np.empty((len(PARTS), *rows.shape))
    slots = np.require(slot_expert, np.int16, ["C", "W"])
    _price_steps(rows, topologies, slots, row, out, *_arrays(cluster, pool))
    return out.reshape(len(PARTS), *steps.shape)


def price_library(cluster: Cluster, pool: StepPool) -> FloatArray:
    """Return seconds [4, Q, A, P] of every step under every configuration of the library."""
    placements, layouts, layers, slots = cluster.slot_expert.shape
    shape = (len(pool.layout), placements, len(cluster.topologies))
    step, placement, topology = (axis.ravel() for axis in np.indices(shape))
    parts = price_steps(
        cluster,
        pool,
        step,
        topology,
        cluster.slot_expert.reshape(placements * layouts, layers, slots),
        placement * layouts + pool.layout[step],
    )
    return np.ascontiguousarray(parts.reshape(len(PARTS), *shape).swapaxes(2, 3))


def step_loads(
    cluster: Cluster, pool: StepPool, step: int, topology: int, slot_expert: NDArray[np.int16]
) -> StepLoads:
    """Return what one step puts on devices and links; slot_expert [M, S]."""
    steps, topologies = np.array([[step]]), np.array([topology])
    _check(cluster, pool, steps, topologies, slot_expert[None], np.array([0]))
    layers, devices, links = cluster.num_layers, cluster.num_devices, cluster.pull.shape[-1]
    tokens = np.zeros((layers, devices), dtype=np.float32)
    seconds = np.zeros((2, layers, links), dtype=np.float32)
    layout = int(pool.layout[step])
    groups, experts = pool.counts.shape[1], pool.counts.shape[3]
    slots = np.require(slot_expert, np.int16, ["C", "W"])
    share = np.zeros((layers, groups, experts), dtype=np.float32)
    _count_replicas(slots, cluster.slot_device[layout], cluster.group_of[layout], share)
    _device_tokens(
        pool.counts[step],
        slots,
        cluster.slot_device[layout],
        cluster.group_of[layout],
        cluster.token_seconds,
        cluster.weight_seconds,
        share,
        np.zeros(devices),
        np.zeros(groups),
        tokens,
        np.zeros(groups),
    )
    for direction in (0, 1):
        pull = cluster.pull[layout, topology, direction]
        _link_seconds(pull, tokens, pool.background[step], seconds[direction])
    return StepLoads(tokens, seconds)


def _check(
    cluster: Cluster,
    pool: StepPool,
    steps: NDArray[np.int64],
    topology: NDArray[np.int64],
    slot_expert: NDArray[np.int16],
    which: NDArray[np.int64],
) -> None:
    shape = (cluster.num_layers, cluster.slot_device.shape[1])
    if slot_expert.shape[1:] != shape:
        raise InputError(
            f"slot_expert must have shape [B, {shape[0]}, {shape[1]}], "
            f"got {list(slot_expert.shape)}"
        )
    for name, values, least, count in (
        ("steps", steps, 0, len(pool.layout)),
        ("topology", topology, 0, len(cluster.topologies)),
        ("which", which, 0, len(slot_expert)),
        ("slot_expert", slot_expert, -1, pool.counts.shape[3]),
    ):
        if name in ("topology", "which") and values.shape != (len(steps),):
            raise InputError(f"{name} must have shape [{len(steps)}], got {list(values.shape)}")
        if values.size and not (least <= values.min() and values.max() < count):
            raise InputError(f"{name} must be {least}..{count - 1}")


def _arrays(cluster: Cluster, pool: StepPool) -> tuple[Any, ...]:
    return (
        cluster.pull,
        cluster.offset,
        cluster.group_of,
        cluster.weight,
        cluster.slot_device,
        float(cluster.overhead),
        float(cluster.token_seconds),
        float(cluster.weight_seconds),
        float(cluster.layer_scale),
        pool.counts,
        pool.background,
        pool.shared,
        pool.other,
        pool.layout,
    )


@kernel
def _count_replicas(
    slot_expert: NDArray[np.int16],
    slot_device: NDArray[np.int16],
    group_of: NDArray[np.int16],
    share: NDArray[np.float32],
) -> None:
    """Fill ``share`` [M, G, E]: what part of an expert's tokens each of a group's slots gets."""
    layers, slots = slot_expert.shape
    share[:] = 0.0
    for m in range(layers):
        for s in range(slots):
            d, e = slot_device[s], slot_expert[m, s]
            if d >= 0 and e >= 0 and group_of[d] >= 0:
                share[m, group_of[d], e] += np.float32(1.0)
    for m in range(layers):
        for g in range(share.shape[1]):
            for e in range(share.shape[2]):
                if share[m, g, e] > 0.0:
                    share[m, g, e] = np.float32(1.0) / share[m, g, e]


@kernel
def _device_tokens(
    counts: NDArray[np.float32],
    slot_expert: NDArray[np.int16],
    slot_device: NDArray[np.int16],
    group_of: NDArray[np.int16],
    token_seconds: float,
    weight_seconds: float,
    share: NDArray[np.float32],
    busy: FloatArray,
    slowest: FloatArray,
    tokens: NDArray[np.float32],
    compute: FloatArray,
) -> None:
    """Fill ``tokens`` [M, N] and ``compute`` [G], seconds over all layers without shared experts.

    ``share`` [M, G, E] is of ``_count_replicas``; scratch: busy [N], slowest [G].
    """
    layers, slots = slot_expert.shape
    devices = len(group_of)
    compute[:] = 0.0
    tokens[:] = 0.0
    for m in range(layers):
        busy[:] = 0.0
        for s in range(slots):
            d, e = slot_device[s], slot_expert[m, s]
            if d < 0 or e < 0 or group_of[d] < 0:
                continue
            part = counts[group_of[d], m, e] * share[m, group_of[d], e]
            tokens[m, d] += part
            if part > 0.0:
                busy[d] += max(part * token_seconds, weight_seconds)
        slowest[:] = 0.0
        for d in range(devices):
            g = group_of[d]
            if g >= 0:
                slowest[g] = max(slowest[g], busy[d])
        for g in range(len(slowest)):
            compute[g] += slowest[g]


@kernel
def _link_seconds(
    pull: NDArray[np.float32],
    tokens: NDArray[np.float32],
    background: NDArray[np.float32],
    seconds: NDArray[np.float32],
) -> None:
    """Fill ``seconds`` [M, L] from pull [N + X, L], tokens [M, N] and background bytes [X]."""
    layers, devices = tokens.shape
    links = pull.shape[1]
    first = seconds[0]
    for link in range(links):
        first[link] = 0.0
    for kind in range(len(background)):
        for link in range(links):
            first[link] += background[kind] * pull[devices + kind, link]
    for m in range(1, layers):
        row = seconds[m]
        for link in range(links):
            row[link] = first[link]
    # Eight devices at a time: the sums of a layer are then read and written an eighth as often.
    whole = devices - devices % 8
    for d in range(0, whole, 8):
        for m in range(layers):
            row = seconds[m]
            w0, w1, w2, w3, w4, w5, w6, w7 = tokens[m, d : d + 8]
            for link in range(links):
                row[link] += (
                    w0 * pull[d, link]
                    + w1 * pull[d + 1, link]
                    + w2 * pull[d + 2, link]
                    + w3 * pull[d + 3, link]
                    + w4 * pull[d + 4, link]
                    + w5 * pull[d + 5, link]
                    + w6 * pull[d + 6, link]
                    + w7 * pull[d + 7, link]
                )
    for d in range(whole, devices):
        for m in range(layers):
            row = seconds[m]
            for link in range(links):
                row[link] += tokens[m, d] * pull[d, link]


@nan_free_kernel
def _slowest_link(
    seconds: NDArray[np.float32], offset: NDArray[np.float32], weight: FloatArray, overhead: float
) -> float:
    """Return seconds of one direction, over layers and by groups' ``weight`` [G]."""
    total = 0.0
    layers, links = seconds.shape
    for g in range(len(weight)):
        if weight[g] == 0.0:
            continue
        waited = 0.0
        for m in range(layers):
            worst = seconds[m, 0] + offset[g, 0]
            for link in range(1, links):
                worst = max(worst, seconds[m, link] + offset[g, link])
            waited += max(worst, 0.0)  # a group that uses no link waits for none
        total += weight[g] * (waited + layers * overhead)
    return total


@kernel
def _fill(
    pull: NDArray[np.float32],
    offset: NDArray[np.float32],
    weight: FloatArray,
    overhead: float,
    layer_scale: float,
    shared: FloatArray,
    other: FloatArray,
    background: NDArray[np.float32],
    tokens: NDArray[np.float32],
    compute: FloatArray,
    seconds: NDArray[np.float32],
    parts: FloatArray,
) -> None:
    """Fill ``parts`` [4] of one step under one topology, whose pull is [2, N + X, L]."""
    layers = len(tokens)
    for direction in range(2):
        _link_seconds(pull[direction], tokens, background, seconds)
        waited = _slowest_link(seconds, offset[direction], weight, overhead)
        parts[2 * direction] = layer_scale * waited
    parts[1] = 0.0
    parts[3] = 0.0
    for g in range(len(weight)):
        if weight[g] > 0.0:
            parts[1] += layer_scale * weight[g] * (compute[g] + layers * shared[g])
            parts[3] += weight[g] * other[g]


@kernel
def _price_steps(
    steps: NDArray[np.int64],
    topology: NDArray[np.int64],
    slot_expert: NDArray[np.int16],
    which: NDArray[np.int64],
    out: FloatArray,
    pull: NDArray[np.float32],
    offset: NDArray[np.float32],
    group_of: NDArray[np.int16],
    weight: FloatArray,
    slot_device: NDArray[np.int16],
    overhead: float,
    token_seconds: float,
    weight_seconds: float,
    layer_scale: float,
    counts: NDArray[np.float32],
    background: NDArray[np.float32],
    shared: FloatArray,
    other: FloatArray,
    layout: NDArray[np.int16],
) -> None:
    """Fill out [4, n, J]; tokens that the row before had already are not dealt again."""
    layers, devices, links = slot_expert.shape[1], group_of.shape[1], pull.shape[4]
    groups, experts = counts.shape[1], counts.shape[3]
    share = np.zeros((layers, groups, experts), dtype=np.float32)
    busy, slowest, compute = np.zeros(devices), np.zeros(groups), np.zeros(groups)
    tokens = np.zeros((layers, devices), dtype=np.float32)
    seconds = np.zeros((layers, links), dtype=np.float32)
    parts = np.zeros(4)
    last_step, last_row, last_layout = -1, -1, -1
    for n in range(len(steps)):
        a = topology[n]
        for j in range(steps.shape[1]):
            q = steps[n, j]
            v = layout[q]
            if v != last_layout or which[n] != last_row:
                _count_replicas(slot_expert[which[n]], slot_device[v], group_of[v], share)
            if q != last_step or which[n] != last_row:
                _device_tokens(
                    counts[q],
                    slot_expert[which[n]],
                    slot_device[v],
                    group_of[v],
                    token_seconds,
                    weight_seconds,
                    share,
                    busy,
                    slowest,
                    tokens,
                    compute,
                )
                last_step, last_row, last_layout = q, which[n], v
            _fill(
                pull[v, a],
                offset[v, a],
                weight[v],
                overhead,
                layer_scale,
                shared[q],
                other[q],
                background[q],
                tokens,
                compute,
                seconds,
                parts,
            )
            for part in range(4):
                out[part, n, j] = parts[part]
