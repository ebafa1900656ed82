"""Tables of a comparison of placement methods, from its folder alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from topomoe.run_folder import RunFolder
from topomoe.table_columns import Column, number_column, table_of, text_column
from topomoe.table_files import titled_rows, write_each
from topomoe.table_text import Cell, Table, decimals
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def write_placement_tables(folder: RunFolder) -> list[Path]:
    """Write tables/*.md and tables/*.tex; InputError where the results are missing or damaged."""
    return write_each(folder.path, placement_tables(folder))


def printed_tables(folder: RunFolder) -> list[tuple[str, list[dict[str, str]]]]:
    """Return the tables as titled rows of text."""
    return titled_rows(placement_tables(folder))


def placement_tables(folder: RunFolder) -> list[Table]:
    """Return the tables of the records that the run has."""
    results, timing = folder.results(), read_timing(folder)
    tables: list[Table] = []
    for record, build in _TABLES.items():
        rows = results[results["record"] == record].dropna(axis=1, how="all")
        if not rows.empty:
            try:
                tables += build(rows, results, timing)
            except KeyError as error:
                raise InputError(
                    f"{folder.path}: results.parquet lacks column {error.args[0]}"
                ) from None
    return tables


def read_timing(folder: RunFolder) -> dict[str, float]:
    """Return the CPU milliseconds of each method; none where the file is missing."""
    import pandas as pd

    path = folder.path / "timing.csv"
    if not path.is_file():
        return {}
    try:
        frame = pd.read_csv(path)
        return dict(zip(frame["method"].astype(str), frame["cpu_ms"].astype(float), strict=True))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not the timing of placements ({error})") from None


def method_tables(
    rows: pd.DataFrame, results: pd.DataFrame, timing: dict[str, float]
) -> list[Table]:
    """Return the table of methods for each replica routing."""
    steps = results[results["record"] == "step"]
    return [
        _method_table(
            rows[rows["replica_routing"] == name], steps[steps["replica_routing"] == name], timing
        )
        for name in rows["replica_routing"].unique()
    ]


def _method_table(rows: pd.DataFrame, steps: pd.DataFrame, timing: dict[str, float]) -> Table:
    """Return balance, gap, traffic, step time, migration and CPU time of every method."""
    import pandas as pd

    routing = rows["replica_routing"].iloc[0]
    columns = [
        text_column("method", rows["method"]),
        greatest_column("balancedness, train", rows["train_balancedness_mean"]),
        greatest_column("worst layer", rows["train_balancedness_worst"]),
        text_column("gap (%)", [f"{100 * gap:.2f}" for gap in rows["train_gap_mean"]], True),
        greatest_column("held out", rows["test_balancedness_mean"]),
        greatest_column("its worst layer", rows["test_balancedness_worst"]),
        number_column("other rows a token", rows["rows_per_token"]),
        number_column("cross-row (KB a token)", 1e-3 * rows["cross_row_bytes"]),
    ]
    for name in steps["topology"].unique():
        own = steps[steps["topology"] == name].set_index("method").loc[rows["method"]]
        columns.append(number_column(f"{name} p50 (ms)", 1e3 * own["moe_p50_s"]))
        columns.append(number_column(f"{name} p99 (ms)", 1e3 * own["moe_p99_s"]))
    columns.append(number_column("migration (GB)", 1e-9 * rows["migration_bytes"]))
    if set(rows["method"]) <= set(timing):
        columns.append(number_column("CPU (ms)", pd.Series([timing[m] for m in rows["method"]])))
    return table_of(
        f"methods_{routing}",
        f"Placement methods, replicas by {routing}",
        "Made on training requests. Balancedness is mean over largest device load, its mean and "
        "least over layers; gap: largest device load over a proven bound, less 1, mean over "
        "layers, training requests. Traffic and time are of batches of held-out requests: rows of "
        "the grid other than its own that a token is sent to in a layer, bytes between rows a "
        "token and layer, dispatch and combine together, and the time of the MoE layers of a step. "
        "Migration: expert copies new to their device, from eplb made on the earlier half of the "
        "training requests. CPU time differs from run to run. Bold: the best of a column.",
        columns,
    )


def greatest_column(header: str, values: pd.Series[float]) -> Column:
    """Return a column of ratios up to 1, the greatest bold."""
    texts = [f"{value:.4f}" for value in values]
    best = f"{values.max():.4f}"
    return header, True, [Cell(text, text == best) for text in texts]


def compute_tables(
    rows: pd.DataFrame, results: pd.DataFrame, timing: dict[str, float]
) -> list[Table]:
    """Return expert seconds of each method, a column a batch size, for both sources of batches."""
    import pandas as pd

    tables = []
    for served in rows["served"].unique():
        own = rows[rows["served"] == served]
        methods = list(dict.fromkeys(own["method"]))
        columns = [text_column("method", [*methods, "bound"])]
        for tokens in own["batch_tokens"].unique():
            at = own[own["batch_tokens"] == tokens].set_index("method")
            values = pd.Series([*at.loc[methods, "compute_s"], at["bound_s"].iloc[0]]) * 1e6
            columns.append(_column_but_last(f"{int(tokens):,} tokens (us)", values))
        tables.append(
            table_of(
                f"compute_{served.replace('-', '_')}",
                f"Expert compute by batch size, batches from {served} loads",
                "Seconds of the routed experts on the worst device, mean over layers and sampled "
                "batches of so many tokens over all devices. Bound: for the expected loads, no "
                "placement on these slots is faster. Bold: the least of a column.",
                columns,
            )
        )
    return tables


def _column_but_last(header: str, values: pd.Series[float]) -> Column:
    """Return a column whose least value but the last, a bound, is bold."""
    places = decimals(values)
    least = f"{values.iloc[:-1].min():.{places}f}"
    texts = [f"{value:.{places}f}" for value in values]
    cells = [Cell(text, text == least) for text in texts[:-1]]
    return header, True, [*cells, Cell(texts[-1])]


def batch_tables(
    rows: pd.DataFrame, results: pd.DataFrame, timing: dict[str, float]
) -> list[Table]:
    """Return mean and 99th percentile of a batch's balance, a column a batch size."""
    tables = []
    for drawn, what in (("iid", "iid tokens"), ("trace", "held-out requests")):
        own = rows[rows["draw"] == drawn]
        if own.empty:
            continue
        kinds = own[["placement", "replica_routing"]].drop_duplicates()
        columns = [
            text_column("placement", kinds["placement"]),
            text_column("replicas", kinds["replica_routing"]),
        ]
        for size in own["tokens_per_device"].unique():
            at = own[own["tokens_per_device"] == size]
            least = f"{at['max_over_mean_p99'].min():.3f}"
            cells = [
                Cell(f"{mean:.3f} / {p99:.3f}", f"{p99:.3f}" == least)
                for mean, p99 in zip(at["max_over_mean"], at["max_over_mean_p99"], strict=True)
            ]
            columns.append((f"{int(size):,}", True, cells))
        tables.append(
            table_of(
                f"batches_{drawn}",
                f"Largest / mean device load of single batches, {what}",
                "Mean / 99th percentile over batches and layers, by tokens a device. Bold: the "
                "least percentile of a column.",
                columns,
            )
        )
    return tables


def front_tables(
    rows: pd.DataFrame, results: pd.DataFrame, timing: dict[str, float]
) -> list[Table]:
    """Return balance, traffic and migration of every candidate and replica routing."""
    rows = rows.sort_values("cross_row_bytes_per_token", kind="stable")
    eplb = rows[(rows["candidate"] == "eplb") & (rows["replica_routing"] == "weighted")]
    columns = [
        text_column("candidate", rows["candidate"]),
        text_column("replicas", rows["replica_routing"]),
        greatest_column("balancedness, train", rows["balancedness_mean"]),
        greatest_column("held out", rows["test_balancedness_mean"]),
        greatest_column("of a batch", rows["batch_balancedness"]),
        number_column("cross-row (KB a token)", 1e-3 * rows["cross_row_bytes_per_token"]),
    ]
    if len(eplb):
        ratio = rows["cross_row_bytes_per_token"] / eplb["cross_row_bytes_per_token"].iloc[0]
        columns.append(number_column("over eplb's", ratio))
    columns += [
        number_column("other rows a token", rows["remote_rows_per_token"]),
        number_column("migration (GB)", 1e-9 * rows["migration_bytes"]),
        number_column("step (ms)", 1e3 * rows["step_s"]),
        number_column("step p99 (ms)", 1e3 * rows["step_p99_s"]),
        text_column("front", ["yes" if on else "" for on in rows["on_front"].astype(bool)]),
    ]
    return [
        table_of(
            "front",
            "Balance, traffic between rows, migration",
            "Made on training requests; bytes between rows of a held-out token through all layers, "
            "there and back. Front: no other row is as good in balancedness of a batch, bytes "
            "between rows and migration at once. Over eplb's: with weighted replicas.",
            columns,
        )
    ]


def shift_tables(
    rows: pd.DataFrame, results: pd.DataFrame, timing: dict[str, float]
) -> list[Table]:
    """Return balance on what was left out: by method, a column a load left out."""
    tables = []
    for routing in rows["routing"].unique():
        own = rows[rows["routing"] == routing]
        methods, names = list(dict.fromkeys(own["method"])), list(dict.fromkeys(own["left_out"]))
        grouped = own.groupby("method")
        # What is made from the load that it serves is a bound, and so not the best of a column.
        fair = [method for method in methods if method != "hindsight"]

        def column(header: str, values: pd.Series[float], fair: list[str] = fair) -> Column:
            least = f"{values[fair].min():.3f}"
            texts = [(method, f"{value:.3f}") for method, value in values.items()]
            return header, True, [Cell(t, t == least and m in fair) for m, t in texts]

        columns = [
            text_column("made from the others by", methods),
            column("mean", grouped["max_over_mean"].mean()[methods]),
            column("worst load", grouped["max_over_mean"].max()[methods]),
            column("its worst layer", grouped["worst_layer"].max()[methods]),
        ]
        for name in names:
            at = own[own["left_out"] == name].set_index("method")["max_over_mean"]
            columns.append(column(str(name), at[methods]))
        tables.append(
            table_of(
                f"shift_{routing.replace(' ', '_')}",
                f"Largest / mean device load on a load left out, shares {routing}",
                "Each column is served by a placement made from the other loads; mean over layers. "
                "Static: the placement's own shares; per batch: the best shares for the load "
                "served. Hindsight: exact, made from the load it serves. Bold: the least of a "
                "column but hindsight.",
                columns,
            )
        )
    return tables


def moves_tables(
    rows: pd.DataFrame, results: pd.DataFrame, timing: dict[str, float]
) -> list[Table]:
    """Return balance regained by moved copies."""
    limits = ["any" if limit == float("inf") else f"{limit:g}" for limit in rows["most_moves"]]
    return [
        table_of(
            "moves",
            "Balance by moved copies",
            "From eplb made on the earlier half of the training requests to a placement for all of "
            "them. Largest over mean device load, mean and worst layer. Bold: the least of a "
            "column.",
            [
                text_column("placement", rows["candidate"]),
                text_column("copies allowed a layer", limits, True),
                number_column("copies moved a layer", rows["copies_a_layer"], best=False),
                number_column("migration (GB)", 1e-9 * rows["migration_bytes"], best=False),
                number_column("max/mean, train", rows["train_max_over_mean"]),
                number_column("worst layer", rows["train_max_over_mean_worst"]),
                number_column("held out", rows["test_max_over_mean"]),
                number_column("its worst layer", rows["test_max_over_mean_worst"]),
            ],
        )
    ]


_TABLES: Mapping[str, Callable[..., list[Table]]] = {
    "method": method_tables,
    "compute": compute_tables,
    "batch": batch_tables,
    "front": front_tables,
    "shift": shift_tables,
    "moves": moves_tables,
}
