"""The environments' fluid price of a step beside the simulator's, which dispatches every token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import topomoe as tm
from topomoe.demand import DispatchSettings
from topomoe.envs.scenario import build_problems, load_scenario, split_requests
from topomoe.envs.step_price import price_library
from topomoe.inputs import load_or_make
from topomoe.placement import Placement
from topomoe.topologies import budget
from topomoe.workload import WorkloadSettings

DEVICES, LAYERS, TOKENS = 16, 2, 512


@pytest.mark.parametrize("wiring", ["torus", "expander"])
def test_the_fluid_price_is_the_simulators_mean_to_two_percent(wiring: str) -> None:
    settings = replace(
        load_scenario("default"),
        grid="4x4",
        domain_weight=0.0,
        decode_tokens=TOKENS,
        layers=LAYERS,
        pool=24,
        epochs=20,
        test_epochs=20,
        episode_length=10,
        placements=("mix",),
        topologies=(wiring,),
        fit_circuits=False,
        synthetic_requests=40,
    )
    problem = build_problems(settings).training
    cluster = problem.cluster
    fluid = price_library(cluster, problem.pool)[:, :, 0, 0].mean(axis=1)

    model, trace = load_or_make("", "deepseek-v2-lite", settings.synthetic_requests, 0)
    trace = trace.filter(layers=(0, trace.num_layers - 1))
    served = split_requests(trace, settings.seed)["training"]
    slots = cluster.slot_expert[0, 0].astype(np.int32)
    share = np.stack([1.0 / np.bincount(row)[row] for row in slots])
    placement = Placement(slots, share, num_devices=DEVICES, num_experts=trace.num_experts)
    topology = budget.build(
        "optical",
        (4, 4),
        settings.bandwidth,
        settings.latency,
        "iso-injection",
        settings.base_share,
        settings.ports,
        circuits=wiring,
    )
    result = tm.simulate(
        served,
        topology,
        placement,
        model=model.name,
        workload=WorkloadSettings(batches=24, batch_tokens=DEVICES * TOKENS, origins="round-robin"),
        dispatch=DispatchSettings(replica_routing="even", copies="expert"),
    )
    for part, seconds in zip(("dispatch", "compute", "combine"), fluid, strict=False):
        simulated = cluster.layer_scale * getattr(result.times, part).sum(axis=1).mean()
        assert seconds == pytest.approx(simulated, rel=0.02), part
