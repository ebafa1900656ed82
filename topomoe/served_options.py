"""What a run's placements are to serve, as placement methods take it."""

from __future__ import annotations

from collections.abc import Sequence

from topomoe.placement.options import MethodOptions, PlacementOptions
from topomoe.step import StepSettings
from topomoe.workload import WorkloadSettings


def served_options(
    options: MethodOptions,
    workload: WorkloadSettings,
    step: StepSettings,
    topologies: Sequence[str],
    bandwidth: float,
    model: str,
) -> PlacementOptions:
    """Return the methods' options for this batch, device and network.

    The network is the first of ``topologies`` that is built in, else a torus: files and variants
    are not what a method can build.
    """
    from topomoe.topologies.registry import BUILDERS

    return PlacementOptions.of(
        options,
        batch_tokens=workload.batch_tokens,
        device=step.device,
        topology=next((name for name in topologies if name in BUILDERS), "torus"),
        bandwidth=bandwidth,
        timed_model=model,
        origins="domain-affine" if workload.origins == "domain-affine" else "uniform",
    )
