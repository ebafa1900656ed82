"""What failures cost: step times on degraded topologies beside the intact ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.demand import DispatchSettings
from topomoe.groups import own_grid
from topomoe.model import MoEModel
from topomoe.placement import place
from topomoe.pricing import make_job
from topomoe.routed_network import Network
from topomoe.routing_trace import RoutingTrace
from topomoe.simulation import collect, run_batches
from topomoe.step import SimulationResult, StepSettings
from topomoe.topologies.errors import InputError
from topomoe.topologies.failed_parts import Failures, surviving
from topomoe.topologies.failure_scenarios import FailureScenario
from topomoe.topologies.failures import components, fail
from topomoe.topologies.routing import route
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology
from topomoe.workload import WorkloadSettings, coverage, make_batches

if TYPE_CHECKING:
    import pandas as pd

INTACT = "intact"
COLUMNS = (
    "record",
    "topology",
    "routing",
    "scenario",
    "draw",
    "devices",
    "parts",
    "dispatch_s",
    "compute_s",
    "combine_s",
    "moe_s",
    "step_s",
    "ratio",
    "same_routing_ratio",
)


@dataclass(frozen=True, eq=False)
class Degraded:
    """A topology after a scenario's failures, and the devices that go on."""

    name: str  # of the topology before
    scenario: str
    draw: int
    topology: Topology
    devices: NDArray[np.int64]  # [n] survivors that reach each other: the largest part
    parts: int  # 1: not partitioned


def degraded_topologies(
    topologies: Sequence[tuple[str, Topology]], scenarios: Sequence[FailureScenario]
) -> list[Degraded]:
    """Return every named topology intact and after every scenario, those that it can suffer.

    A scenario that asks for what a topology has none of (circuits of a torus) is left out there.
    Where it falls into parts, the devices outside the largest one count as failed. Raises
    InputError for names that a topology does not have.
    """
    found = []
    for name, topology in topologies:
        found.append(Degraded(name, INTACT, 0, topology, surviving(topology), 1))
        for scenario in scenarios:
            if _suffers(topology, scenario.failures):
                found.append(_after(name, topology, scenario))
    return found


def _suffers(topology: Topology, failures: Failures) -> bool:
    """Return whether the topology has the kinds of part that fail."""
    switches = topology.num_nodes > topology.num_devices
    asked = {
        "switches": bool(failures.random_switches or failures.switches),
        "circuits": bool(failures.random_circuits or failures.circuits),
        "links": bool(failures.random_links),
    }
    has = {
        "switches": switches,
        "circuits": bool(topology.optical.any()),
        "links": not topology.optical.all(),
    }
    return all(has[kind] or not wanted for kind, wanted in asked.items())


def _after(name: str, topology: Topology, scenario: FailureScenario) -> Degraded:
    broken = fail(topology, scenario.failures, allow_partition=True)
    parts = components(broken)
    if len(parts) > 1:
        if len(parts[0]) < 2:
            raise InputError(
                f"{name}: no two devices reach each other after {scenario.name}, "
                f"draw {scenario.draw}"
            )
        cut_off = tuple(int(d) for part in parts[1:] for d in part)
        broken = fail(broken, Failures(devices=cut_off))
    return Degraded(name, scenario.name, scenario.draw, broken, parts[0], len(parts))


def failure_rows(
    trace: RoutingTrace,
    load: ArrayLike,
    topologies: Sequence[tuple[str, Topology]],
    scenarios: Sequence[FailureScenario],
    slots: int,
    model: str | MoEModel | None = None,
    method: str = "exact",
    routing: str | None = None,
    workload: WorkloadSettings | None = None,
    dispatch: DispatchSettings | None = None,
    step: StepSettings | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> pd.DataFrame:
    """Return a row a topology and scenario (and draw), those of the intact topologies first.

    The survivors of the largest part hold all experts: the placement is made anew for ``load``
    [M, E] with as many slots a device (``slots`` on all devices together, S), and the batches keep
    their tokens. Times are means over the trace's batches, in seconds. ``ratio`` is ``moe_s`` over
    that of the intact topology; where going around failures needs another routing than the intact
    topology's own, the intact topology is priced under that one too and ``same_routing_ratio`` is
    over it, so that the loss of links and the change of routing stand apart. ``parts`` > 1 marks a
    partition. ``routing`` fixes the policy of all. Where the survivors have fewer slots than
    experts, the times are NaN. ``progress(done, of)`` counts batches.

    Raises InputError as ``simulate``, ``place``, ``route`` and ``fail`` do.
    """
    import pandas as pd

    given = np.asarray(load, dtype=np.float64)
    cases = degraded_topologies(topologies, scenarios)
    networks: list[tuple[Degraded, Routing]] = []
    for case in cases:
        if case.scenario != INTACT or routing is not None:
            networks.append((case, route(case.topology, routing)))
            continue
        own = route(case.topology)
        networks.append((case, own))
        others = {c.topology.default_routing for c in cases if c.name == case.name}
        for policy in sorted(others - {case.topology.default_routing}):
            networks.append((case, route(case.topology, policy)))
    # All cases with the same survivors share their placement, batches and dispatch.
    together: dict[bytes, list[int]] = {}
    for number, (case, _) in enumerate(networks):
        together.setdefault(case.devices.tobytes(), []).append(number)
    chosen = workload or WorkloadSettings()
    total, done = len(together) * chosen.batches, 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    results: dict[int, SimulationResult] = {}
    for members in together.values():
        priced = _priced(
            trace,
            given,
            [networks[number] for number in members],
            slots,
            model,
            method,
            chosen,
            dispatch or DispatchSettings(),
            step or StepSettings(),
            seed,
            count,
        )
        results |= dict(zip(members, priced, strict=False))
    rows = [_row(*network, results.get(n)) for n, network in enumerate(networks)]
    return _with_ratios(pd.DataFrame(rows)).reindex(columns=list(COLUMNS))


def _priced(
    trace: RoutingTrace,
    load: NDArray[np.float64],
    networks: Sequence[tuple[Degraded, Routing]],
    slots: int,
    model: str | MoEModel | None,
    method: str,
    workload: WorkloadSettings,
    dispatch: DispatchSettings,
    step: StepSettings,
    seed: int,
    count: Callable[[], None],
) -> list[SimulationResult]:
    """Return a result a network, all with the same survivors; none where the experts do not fit."""
    topology, devices = networks[0][0].topology, networks[0][0].devices
    if slots % topology.num_devices:
        raise InputError(
            f"slots must be a multiple of devices, got slots={slots} "
            f"and devices={topology.num_devices}"
        )
    own_slots = slots // topology.num_devices * len(devices)
    if own_slots < load.shape[-1]:
        return []
    grid = own_grid(devices, topology.grid)
    placement = place(load, len(devices), own_slots, method, grid, seed)
    job = make_job(trace, [], placement, model, workload, dispatch, step, seed)
    job = replace(
        job,
        networks=tuple(
            Network.of(case.topology, routing, placement.num_experts, step.mtu, devices)
            for case, routing in networks
        ),
        grid=topology.grid or (1, topology.num_devices),
        devices=devices,
    )
    batches = make_batches(trace, len(devices), grid, workload, np.random.default_rng(seed))
    results = run_batches(job, enumerate(batches), count)
    seen = coverage(trace, batches)
    return [collect(results, n, *seen, None) for n in range(len(networks))]


def _row(case: Degraded, routing: Routing, result: SimulationResult | None) -> dict[str, object]:
    row: dict[str, object] = {
        "record": "failure",
        "topology": case.name,
        "routing": routing.name,
        "scenario": case.scenario,
        "draw": case.draw,
        "devices": len(case.devices),
        "parts": case.parts,
    }
    if result is None:
        return row
    times = result.times
    return row | {
        "dispatch_s": float(times.dispatch.sum(axis=1).mean()),
        "compute_s": float(times.compute.sum(axis=1).mean()),
        "combine_s": float(times.combine.sum(axis=1).mean()),
        "moe_s": result.moe_time.mean,
        "step_s": result.step_time.mean,
    }


def _with_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with ``ratio`` and ``same_routing_ratio``."""
    intact = frame[frame["scenario"] == INTACT]
    own = intact.drop_duplicates("topology").set_index("topology")["moe_s"]
    same = intact.set_index(["topology", "routing"])["moe_s"]
    keys = list(zip(frame["topology"], frame["routing"], strict=True))
    return frame.assign(
        ratio=frame["moe_s"] / frame["topology"].map(own),
        same_routing_ratio=frame["moe_s"] / same.reindex(keys).to_numpy(),
    )
