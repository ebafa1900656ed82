"""The true step time of a placement's layers: dispatch, compute and combine of sampled batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import DispatchSettings, replica_tables
from topomoe.model import MODELS, MoEModel, model_preset
from topomoe.placement.placement import Placement
from topomoe.placement.problem import PlacementProblem
from topomoe.pricing import Job, make_job, run_batch
from topomoe.routing_trace import RoutingTrace
from topomoe.step import StepSettings
from topomoe.topologies.budget import build
from topomoe.topologies.errors import InputError
from topomoe.workload import Batch, WorkloadSettings, make_batches

BATCHES = 2  # tokens enough for a mean: a batch has thousands
LATENCY = 1e-6  # seconds of a link
_DEFAULT_MODEL = "deepseek-v3"  # whose sizes count where a trace fits no preset


@dataclass(frozen=True, eq=False)
class StepSeconds:
    """A function from slots to the seconds of each layer, always for the same batches."""

    job: Job
    batches: tuple[Batch, ...]

    @staticmethod
    def of(trace: RoutingTrace, problem: PlacementProblem) -> StepSeconds:
        """Return the function for what ``problem.options`` names; the trace must be on a grid."""
        if problem.grid is None:
            raise InputError("step times need a grid: rows x columns of devices")
        options = problem.options
        topology = build(options.topology, problem.grid, options.bandwidth, LATENCY)
        if topology.num_devices != problem.num_devices:
            raise InputError(
                f"{topology.name} has {topology.num_devices} devices, "
                f"the placement {problem.num_devices}"
            )
        workload = WorkloadSettings(
            batches=BATCHES, batch_tokens=options.batch_tokens, origins=options.origins
        )
        slots = np.arange(problem.num_slots, dtype=np.int32) % problem.num_experts
        held = np.bincount(slots, minlength=problem.num_experts)
        any_placement = Placement(
            np.tile(slots, (problem.num_layers, 1)),
            np.tile(1.0 / held[slots], (problem.num_layers, 1)),
            problem.num_devices,
            problem.num_experts,
        )
        job = make_job(
            trace,
            [(topology, None)],
            any_placement,
            trace_model(trace),
            workload,
            DispatchSettings(replica_routing="local-first"),
            StepSettings(device=options.device),
            problem.seed,
        )
        rng = np.random.default_rng([problem.seed, 1])
        batches = make_batches(trace, problem.num_devices, problem.grid, workload, rng)
        return StepSeconds(job, tuple(batches))

    def __call__(
        self, slot_expert: NDArray[np.int32], slot_share: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the mean seconds [M] of each layer with these slots [M, S]."""
        tables = self.job.tables
        placement = Placement(slot_expert, slot_share, tables.num_devices, tables.num_experts)
        job = replace(self.job, tables=replica_tables(placement, "local-first"))
        seconds = np.zeros(len(slot_expert))
        for index, batch in enumerate(self.batches):
            result = run_batch(job, index, batch)
            seconds += result.dispatch[0] + result.compute + result.combine[0]
        return seconds / len(self.batches)


def trace_model(trace: RoutingTrace) -> MoEModel:
    """Return the first preset of the trace's experts and top-k, else DeepSeek-V3's sizes."""
    for model in MODELS.values():
        if (model.num_experts, model.top_k) == (trace.num_experts, trace.usual_top_k):
            return model
    shape = model_preset(_DEFAULT_MODEL)
    return replace(shape, num_experts=trace.num_experts, top_k=trace.usual_top_k)
