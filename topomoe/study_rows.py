"""The rows of a study's results, one function a record; study.py says what each record is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from topomoe.inputs import expert_load
from topomoe.patterns import pattern_demand
from topomoe.placement import Placement, certificate
from topomoe.step import SimulationResult
from topomoe.study_networks import StudyNetwork
from topomoe.study_settings import StudySettings
from topomoe.trace import RoutingTrace

if TYPE_CHECKING:
    import pandas as pd

PATTERN_BYTES_PER_PAIR = 65536.0  # mean bytes between two devices in a traffic pattern
COLUMNS = (
    "record",
    "topology",
    "routing",
    "placement",
    "replica_routing",
    "pattern",
    "level",
    "batch",
    "layer",
    "index",
    "source",
    "target",
    "tokens",
    "dispatch_s",
    "compute_s",
    "combine_s",
    "backward_s",
    "other_s",
    "moe_s",
    "step_s",
    "network_bound_s",
    "moe_p50_s",
    "moe_p95_s",
    "moe_p99_s",
    "step_p50_s",
    "step_p95_s",
    "step_p99_s",
    "step_low_s",
    "step_high_s",
    "max_over_mean",
    "train_max_over_mean",
    "bound_max_over_mean",
    "remote_bytes",
    "cross_row_bytes",
    "dropped_share",
    "rerouted_share",
    "pre_drop_cv",
    "capacity_bytes_per_s",
    "load_bytes",
    "load_pairs",
    "share",
    "time_s",
    "requests",
    "positions",
    "optimum_s",
    "cut_s",
    "volume_bound_s",
    "virtual_channels",
    "dollars",
    "watts",
    "scenario",
    "draw",
    "devices",
    "parts",
    "ratio",
    "same_routing_ratio",
)


def step_rows(result: SimulationResult) -> pd.DataFrame:
    """Return a row a batch: the parts of the step in seconds."""
    import pandas as pd

    times = result.times
    return pd.DataFrame(
        {
            "record": "step",
            "batch": np.arange(len(result.tokens)),
            "tokens": result.tokens,
            "dispatch_s": times.dispatch.sum(axis=1),
            "compute_s": times.compute.sum(axis=1),
            "combine_s": times.combine.sum(axis=1),
            "backward_s": times.backward.sum(axis=1),
            "other_s": times.other,
            "moe_s": times.moe,
            "step_s": times.step,
            "network_bound_s": times.bound.sum(axis=1),
            "max_over_mean": result.max_over_mean.mean(axis=1),
            "remote_bytes": result.remote_bytes.sum(axis=1),
            "cross_row_bytes": result.cross_row_bytes.sum(axis=1),
            "dropped_share": result.dropped_share.mean(axis=1),
            "rerouted_share": result.rerouted_share.mean(axis=1),
            "pre_drop_cv": result.pre_drop_cv.mean(axis=1),
        }
    )


def layer_rows(result: SimulationResult) -> pd.DataFrame:
    """Return a row a layer: means over batches."""
    import pandas as pd

    times = result.times
    return pd.DataFrame(
        {
            "record": "layer",
            "layer": np.arange(times.dispatch.shape[1]),
            "dispatch_s": times.dispatch.mean(axis=0),
            "compute_s": times.compute.mean(axis=0),
            "combine_s": times.combine.mean(axis=0),
            "backward_s": times.backward.mean(axis=0),
            "network_bound_s": times.bound.mean(axis=0),
            "max_over_mean": result.max_over_mean.mean(axis=0),
            "remote_bytes": result.remote_bytes.mean(axis=0),
            "cross_row_bytes": result.cross_row_bytes.mean(axis=0),
            "dropped_share": result.dropped_share.mean(axis=0),
            "rerouted_share": result.rerouted_share.mean(axis=0),
            "pre_drop_cv": result.pre_drop_cv.mean(axis=0),
        }
    )


def summary_row(result: SimulationResult) -> pd.DataFrame:
    """Return one row: means, percentiles and the interval."""
    import pandas as pd

    moe, step = result.moe_time, result.step_time
    low, high = result.mean_interval or (np.nan, np.nan)
    return pd.DataFrame(
        [
            {
                "record": "summary",
                "dispatch_s": float(result.times.dispatch.sum(axis=1).mean()),
                "compute_s": float(result.times.compute.sum(axis=1).mean()),
                "combine_s": float(result.times.combine.sum(axis=1).mean()),
                "backward_s": float(result.times.backward.sum(axis=1).mean()),
                "other_s": float(result.times.other.mean()),
                "network_bound_s": float(result.times.bound.sum(axis=1).mean()),
                "moe_s": moe.mean,
                "moe_p50_s": moe.p50,
                "moe_p95_s": moe.p95,
                "moe_p99_s": moe.p99,
                "step_s": step.mean,
                "step_p50_s": step.p50,
                "step_p95_s": step.p95,
                "step_p99_s": step.p99,
                "step_low_s": low,
                "step_high_s": high,
                "max_over_mean": float(result.max_over_mean.mean()),
                "remote_bytes": float(result.remote_bytes.sum(axis=1).mean()),
                "cross_row_bytes": float(result.cross_row_bytes.sum(axis=1).mean()),
                "dropped_share": float(result.dropped_share.mean()),
                "rerouted_share": float(result.rerouted_share.mean()),
                "pre_drop_cv": float(result.pre_drop_cv.mean()),
                "tokens": float(result.tokens.mean()),
                "requests": result.requests,
                "positions": result.positions,
            }
        ]
    )


def link_rows(network: StudyNetwork, result: SimulationResult) -> pd.DataFrame:
    """Return a row a link: mean bytes a layer."""
    import pandas as pd

    topology = network.topology
    there, back = network.parts
    load = there.link_load(result.dispatch_demand[None]) + back.link_load(
        result.combine_demand[None]
    )
    return pd.DataFrame(
        {
            "record": "link",
            "index": np.arange(topology.num_links),
            "source": topology.links[:, 0],
            "target": topology.links[:, 1],
            "capacity_bytes_per_s": topology.capacity,
            "load_bytes": load[0],
        }
    )


def device_rows(result: SimulationResult) -> pd.DataFrame:
    """Return a row a device: mean token-expert pairs of a layer and step."""
    import pandas as pd

    load = result.device_load.mean(axis=0)
    return pd.DataFrame({"record": "device", "index": np.arange(len(load)), "load_pairs": load})


def placement_rows(
    train: RoutingTrace, test: RoutingTrace, placement: Placement, shared_expert: str
) -> pd.DataFrame:
    """Return balance a layer: held-out and training max/mean, and what is proven possible."""
    import pandas as pd

    train_load = expert_load(train, shared_expert)
    test_load = expert_load(test, shared_expert)
    proof = certificate(placement, train_load)
    return pd.DataFrame(
        {
            "record": "placement",
            "layer": np.arange(placement.num_layers),
            "max_over_mean": 1.0 / placement.balancedness(test_load),
            "train_max_over_mean": 1.0 / placement.balancedness(train_load),
            "bound_max_over_mean": proof.bound / (train_load.sum(axis=1) / placement.num_devices),
        }
    )


def expert_rows(trace: RoutingTrace) -> pd.DataFrame:
    """Return a row a layer and expert: its share of the load."""
    import pandas as pd

    load = trace.load()
    layers, experts = load.shape
    return pd.DataFrame(
        {
            "record": "expert",
            "layer": np.repeat(np.arange(layers), experts),
            "index": np.tile(np.arange(experts), layers),
            "share": (load / load.sum(axis=1, keepdims=True)).ravel(),
        }
    )


def cost_rows(settings: StudySettings, networks: Sequence[StudyNetwork]) -> pd.DataFrame:
    """Return a row a topology: what it costs and draws, by the bill of materials."""
    import pandas as pd

    from topomoe.topologies.cost import bill_of_materials

    bills = [bill_of_materials(network.topology, settings.prices) for network in networks]
    return pd.DataFrame(
        {
            "record": "cost",
            "topology": [network.name for network in networks],
            "dollars": [bill.dollars for bill in bills],
            "watts": [bill.watts for bill in bills],
        }
    )


def pattern_rows(
    settings: StudySettings,
    grid: tuple[int, int],
    networks: Sequence[StudyNetwork],
    patterns: Sequence[str],
    progress: Callable[[str, int, int], None],
) -> pd.DataFrame:
    """Return the transfer time of every pattern, level and draw on every network."""
    import pandas as pd

    from topomoe.network import bottleneck

    devices = grid[0] * grid[1]
    total_bytes = PATTERN_BYTES_PER_PAIR * devices * (devices - 1)
    frames = []
    cells = [(pattern, level) for pattern in patterns for level in settings.levels]
    for number, (pattern, level) in enumerate(cells):
        rng = np.random.default_rng([settings.seed, number])
        demand = np.stack(
            [
                pattern_demand(pattern, grid, level, total_bytes, rng)
                for _ in range(settings.pattern_draws)
            ]
        ).astype(np.float32)
        for network in networks:
            routing = network.parts[0]
            time = bottleneck(network.topology, routing, demand, mtu=settings.step.mtu or None)
            frames.append(
                pd.DataFrame(
                    {
                        "record": "pattern",
                        "topology": network.name,
                        "routing": network.routing_name,
                        "pattern": pattern,
                        "level": level,
                        "batch": np.arange(settings.pattern_draws),
                        "time_s": time,
                    }
                )
            )
        progress("patterns", number + 1, len(cells))
    return pd.concat(frames, ignore_index=True)
