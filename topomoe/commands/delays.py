"""What ``topomoe delays`` does: policies against never switching over reconfiguration delays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topomoe.agents.delay_sweep import NEVER, UNROUTED, SweepResult, sweep
from topomoe.durations import duration_text
from topomoe.envs.delay_sweep import Progress, phase_timelines, prepare_sweep
from topomoe.envs.delay_sweep_cluster import cluster_timelines
from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.run_folder import RunFolder
from topomoe.settings import to_dict
from topomoe.table_files import write_each
from topomoe.table_text import Cell, Table
from topomoe.topologies.reconfiguration import DELAYS, ReconfigurationDelay

if TYPE_CHECKING:
    import pandas as pd

PORT_BOUND = "port-bound"


@dataclass(frozen=True, eq=False)
class DelaySweep:
    """The policies' results by workload."""

    results: Mapping[str, SweepResult]
    notes: tuple[str, ...]
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return a row a workload, policy and delay."""
        import pandas as pd

        frames = []
        for workload, result in self.results.items():
            for policy, score in result.held_out.items():
                low, high = result.intervals(policy, self.seed).T
                own, base = result.training[policy].seconds, result.training[NEVER].seconds
                training = own.sum(axis=1) / base.sum(axis=1)
                frames.append(
                    pd.DataFrame(
                        {
                            "workload": workload,
                            "policy": policy,
                            "delay_s": result.delays,
                            "step_s": score.seconds.mean(axis=1),
                            "rewiring_s": score.rewiring.mean(axis=1),
                            "ratio_to_never_switch": result.ratio(policy),
                            "ratio_to_never_switch_low": low,
                            "ratio_to_never_switch_high": high,
                            "network_ratio_to_never_switch": result.ratio(policy, network=True),
                            "training_ratio_to_never_switch": training,
                            "chosen": np.array([name == policy for name in result.best]),
                            "never_switch_keeps": result.never,
                            "never_switch_routing": result.never_routing,
                        }
                    )
                )
            base = result.held_out[NEVER].seconds
            frames.append(
                pd.DataFrame(
                    {
                        "workload": workload,
                        "policy": PORT_BOUND,
                        "delay_s": result.delays,
                        "step_s": result.bound.mean(),
                        "rewiring_s": 0.0,
                        "ratio_to_never_switch": result.bound.sum() / base.sum(axis=1),
                        "network_ratio_to_never_switch": (result.bound - result.rest).sum()
                        / (base - result.rest).sum(axis=1),
                        "chosen": False,
                        "never_switch_keeps": result.never,
                        "never_switch_routing": result.never_routing,
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    def rows(self) -> list[dict[str, str]]:
        """Return the chosen policy and its ratio at each technology's delay, a row a workload."""
        return [self._row(workload, result) for workload, result in self.results.items()]

    def _row(self, workload: str, result: SweepResult) -> dict[str, str]:
        row = {"workload": workload}
        for delay, at, policy in _technologies(result):
            row[f"{delay.name} {duration_text(delay.total)}"] = (
                f"{policy} {result.ratio(policy)[at]:.3f}" if policy != NEVER else NEVER
            )
        row["never-switch wins from"] = _from(result)
        row["never-switch, default routing"] = f"{result.ratio(UNROUTED)[0]:.3f}"
        return row


def _technologies(result: SweepResult) -> Iterator[tuple[ReconfigurationDelay, int, str]]:
    """Yield each technology, fastest first, with its place among the delays and the best policy."""
    for delay in sorted(DELAYS.values(), key=lambda delay: delay.total):
        at = int(np.flatnonzero(result.delays == delay.total)[0])
        yield delay, at, result.best[at]


def _from(result: SweepResult) -> str:
    least = result.never_wins_from()
    return duration_text(least) if np.isfinite(least) else "none tried"


def run_delays(settings: DelaySweepSettings, progress: Progress) -> DelaySweep:
    """Price every workload's timelines and score the policies on them."""
    given = prepare_sweep(settings)
    results = {}
    for workload in settings.workloads:
        training, held_out = (
            cluster_timelines(given, progress)
            if workload == "cluster"
            else phase_timelines(given, workload, progress)
        )
        results[workload] = sweep(training, held_out, given.delays)
    return DelaySweep(results, given.notes, settings.seed)


def write_delays(
    settings: DelaySweepSettings, found: DelaySweep, out: str, overwrite: bool
) -> RunFolder:
    """Write config, results and table into a run folder."""
    frame, table = found.to_frame(), _table(found)
    folder = RunFolder.start(out, "delays", to_dict(settings), False, overwrite, found.notes)
    write_each(folder.path, [table])
    folder.finish(frame)
    return folder


def _table(found: DelaySweep) -> Table:
    rows = []
    for workload, result in found.results.items():
        for delay, at, policy in _technologies(result):
            low, high = result.intervals(policy, found.seed)[at]
            bound = result.ratio("clairvoyant")[at]
            rows.append(
                (
                    Cell(workload),
                    Cell(delay.name),
                    Cell(duration_text(delay.total)),
                    Cell(policy),
                    Cell(f"{result.ratio(policy)[at]:.3f}"),
                    Cell(f"{low:.3f} to {high:.3f}"),
                    Cell(f"{bound:.3f}"),
                    Cell(_from(result)),
                    Cell(f"{result.ratio(UNROUTED)[at]:.3f}"),
                )
            )
    return Table(
        name="reconfiguration_delay",
        title="Step time over never-switch's",
        note="Held-out steps. The policy is the one that was fastest in training. Intervals: 95 %, "
        "over blocks of held-out steps. Clairvoyant: the optimum over the same actions, "
        "everything known beforehand. Default routing: the best fixed wiring whose routing knows "
        "no traffic, over never-switch.",
        columns=(
            "workload",
            "technology",
            "delay",
            "best policy",
            "ratio",
            "95 % interval",
            "clairvoyant",
            "never-switch wins from",
            "default routing",
        ),
        numeric=(False, False, True, False, True, True, True, True, True),
        rows=tuple(rows),
    )
