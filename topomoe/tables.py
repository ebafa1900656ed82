"""Tables of a study as Markdown and LaTeX (with the booktabs package), from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topomoe.run_folder import RunFolder
from topomoe.simulation import LEAST_REQUESTS
from topomoe.study_results import StudyResults, counted, gains, read_study
from topomoe.study_rows import PATTERN_BYTES_PER_PAIR
from topomoe.table_columns import number_column, table_of, text_column
from topomoe.table_files import write_each
from topomoe.table_text import Cell, Table, decimals
from topomoe.tables_network import cost_table, failures_table, optimum_table

if TYPE_CHECKING:
    import pandas as pd


def write_tables(folder: RunFolder) -> list[Path]:
    """Write tables/*.md and tables/*.tex from the results alone and return their paths.

    Raises InputError where the results are missing or damaged.
    """
    return write_each(folder.path, study_tables(read_study(folder)))


def study_tables(results: StudyResults) -> tuple[Table, ...]:
    """Return the tables of a study, the summary first."""
    return (
        summary_table(results),
        gains_table(results),
        placements_table(results),
        *([optimum_table(results)] if not results.rows("optimum").empty else []),
        *([failures_table(results)] if not results.rows("failure").empty else []),
        cost_table(results),
        patterns_table(results),
    )


def summary_table(results: StudyResults) -> Table:
    """Return every combination that was run, fastest MoE layers first."""
    rows = results.summary.sort_values("moe_s", kind="stable")
    network = rows["dispatch_s"] + rows["combine_s"]
    bound = rows["network_bound_s"]
    low, high = decimals(1e3 * rows["step_low_s"]), decimals(1e3 * rows["step_high_s"])
    places = max(low, high)
    interval = [
        f"{1e3 * a:.{places}f} to {1e3 * b:.{places}f}" if results.has_intervals else "n/a"
        for a, b in zip(rows["step_low_s"], rows["step_high_s"], strict=True)
    ]
    columns = [
        text_column("rank", ranks(rows["moe_s"]), numeric=True),
        text_column("topology", map(results.topology_label, rows["topology"])),
        text_column("routing", rows["routing"]),
        text_column("placement", rows["placement"]),
        text_column("replicas", rows["replica_routing"]),
        number_column("MoE mean (ms)", 1e3 * rows["moe_s"]),
        number_column("MoE p50 (ms)", 1e3 * rows["moe_p50_s"]),
        number_column("MoE p95 (ms)", 1e3 * rows["moe_p95_s"]),
        number_column("MoE p99 (ms)", 1e3 * rows["moe_p99_s"]),
        number_column("step mean (ms)", 1e3 * rows["step_s"]),
        text_column("95 % interval (ms)", interval, numeric=True),
        number_column("step p99 (ms)", 1e3 * rows["step_p99_s"]),
        number_column("dispatch + combine (ms)", 1e3 * network),
        number_column("over its bound", network / bound, best=False),
        number_column("max/mean load", rows["max_over_mean"]),
        number_column("remote (GB)", 1e-9 * rows["remote_bytes"]),
    ]
    return table_of(
        "summary",
        "Topology, placement and routing",
        f"Means and percentiles over {counted(results.num_batches, 'batch')}, behind which stand "
        f"{_distinct(rows['requests'], 'distinct held-out request')} and "
        f"{_distinct(rows['positions'], 'distinct token position')}. MoE: all MoE layers of a "
        "step; step: with attention and dense layers; interval: of the mean step, over "
        f"bootstrapped requests (n/a without them, or of fewer than {LEAST_REQUESTS}); over its "
        "bound: dispatch + combine over a time that no routing beats on that topology with that "
        "placement (a bad placement has a high bound); max/mean load: "
        "busiest device, a batch and layer; remote: bytes on the network in a step. Bold: the "
        "least of a column.",
        columns,
    )


def gains_table(results: StudyResults) -> Table:
    """Return what each change alone does: routing, placement, replica routing, topology."""
    rows = gains(results)
    least = rows.groupby("kind")["ratio"].transform("min")
    faster = least.where(least.round(decimals(rows["ratio"])) < 1)  # as written, not 1.000
    columns = [
        text_column("change", rows["kind"]),
        text_column("topology", map(results.topology_label, rows["topology"])),
        text_column("placement", rows["placement"]),
        text_column("replicas", rows["replica_routing"]),
        text_column("from", map(results.topology_label, rows["reference"])),
        text_column("to", map(results.topology_label, rows["choice"])),
        number_column("MoE from (ms)", 1e3 * rows["reference_s"], best=False),
        number_column("MoE to (ms)", 1e3 * rows["moe_s"], best=False),
        number_column("to/from", rows["ratio"], best=faster),
    ]
    first = results.groups[0]
    return table_of(
        "gains",
        "Routing, placement and topology apart",
        "Mean time of the MoE layers after one change alone; to/from below 1 is faster. Routing: "
        f"from the topology's default; placement: from {first[0]}; replica routing: from "
        f"{first[1]}; topology: from the fastest one with the same placement, so 1 is its least. "
        "Bold: the least of each kind of change, where it is faster.",
        columns,
    )


def placements_table(results: StudyResults) -> Table:
    """Return each placement's balance on training and held-out requests, with its bound."""
    rows = placement_balance(results)
    columns = [
        text_column("placement", rows.index),
        number_column("training, mean", rows["train_mean"]),
        number_column("training, worst layer", rows["train_worst"]),
        number_column("least possible, mean", rows["bound_mean"], best=False),
        number_column("held out, mean", rows["test_mean"]),
        number_column("held out, worst layer", rows["test_worst"]),
        number_column("held out / training", rows["test_mean"] / rows["train_mean"], best=False),
    ]
    return table_of(
        "placements",
        "Balance of the placements",
        "Load of the busiest device over the mean device (1 is even), over all requests of a part "
        "at once and over layers; least possible: proven for the training requests. Bold: the "
        "least of a column.",
        columns,
    )


def placement_balance(results: StudyResults) -> pd.DataFrame:
    """Return, a row a placement, max/mean over layers: train_, test_ mean and worst, bound_mean."""
    import pandas as pd

    found = {}
    for placement, replicas in results.groups:
        if placement not in found:
            rows = results.rows("placement", (placement, replicas))
            train, test = rows["train_max_over_mean"], rows["max_over_mean"]
            found[placement] = {
                "train_mean": float(train.mean()),
                "train_worst": float(train.max()),
                "bound_mean": float(rows["bound_max_over_mean"].mean()),
                "test_mean": float(test.mean()),
                "test_worst": float(test.max()),
            }
    return pd.DataFrame.from_dict(found, orient="index")


def patterns_table(results: StudyResults) -> Table:
    """Return the transfer time of each pattern and level, a column a topology."""
    rows = results.rows("pattern")
    keys = rows[["pattern", "level"]].drop_duplicates()
    times = 1e3 * rows.groupby(["pattern", "level", "topology"])["time_s"].agg(
        mean="mean", p99=lambda t: np.percentile(t, 99)
    )
    means = times["mean"].unstack()
    places = {name: decimals(means[name]) for name in results.topologies}
    body = []
    for pattern, level in keys.itertuples(index=False):
        least = float(means.loc[(pattern, level)].min())
        cells = [Cell(str(pattern)), Cell(f"{level:g}")]
        for name in results.topologies:
            mean, p99 = times.loc[(pattern, level, name), ["mean", "p99"]]
            text = f"{mean:.{places[name]}f} ({p99:.{places[name]}f})"
            cells.append(Cell(text, mean <= least * (1 + 1e-9)))
        body.append(tuple(cells))
    draws = int(rows["batch"].max()) + 1
    return Table(
        "patterns",
        "Traffic patterns",
        "Transfer time in ms, mean (99th percentile) of "
        f"{counted(draws, 'seeded draw')}, under default routings, of "
        f"{PATTERN_BYTES_PER_PAIR / 1024:g} KiB a pair of devices on average; level 0 is exactly "
        "uniform, 1 the full pattern. Bold: the least mean of a row.",
        ("pattern", "level", *(f"{results.topology_label(n)} (ms)" for n in results.topologies)),
        (False, *[True] * (1 + len(results.topologies))),
        tuple(body),
    )


def ranks(values: pd.Series[float]) -> list[str]:
    """Return 1 for the least, 2 for the next, equal ranks for equal values."""
    return [str(int(rank)) for rank in values.rank(method="min")]


def _distinct(values: pd.Series[float], noun: str) -> str:
    low, high = int(values.min()), int(values.max())
    return counted(high, noun) if low == high else f"{low:,} to {counted(high, noun)}"
