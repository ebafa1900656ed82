"""Balance against traffic between rows against migration: what each buys of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from topomoe.plots.style import BLACK, GREY, MARKERS, ROUTINGS, columns_of, new_figure

if TYPE_CHECKING:
    import pandas as pd

RECORD = "front"
NAME = "placement_front"
TITLE = "Balance, traffic and migration"
CAPTION = (
    "Every candidate under every replica routing on the same held-out batches: balancedness of a "
    "batch (1 is even) and migrated bytes against the bytes between rows, a token through all "
    "layers. Filled: no other is as good in all three. Dotted: a fifth below eplb with weighted "
    "replicas; black: proven for any placement on these slots, where it is known."
)


def draw(rows: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Return two panels: balancedness and migration, each against bytes between rows."""
    candidates = list(dict.fromkeys(rows["candidate"]))
    routings = list(dict.fromkeys(rows["replica_routing"]))
    figure = new_figure(5.0)
    axes = figure.subplots(1, 2, sharey=True)
    kilobytes = 1e-3 * rows["cross_row_bytes_per_token"]
    reference = rows[(rows["candidate"] == "eplb") & (rows["replica_routing"] == "weighted")]
    for axis, values, label in (
        (axes[0], rows["batch_balancedness"], "balancedness of a held-out batch"),
        (axes[1], 1e-9 * rows["migration_bytes"], "migration (GB)"),
    ):
        for number, candidate in enumerate(candidates):
            for place, routing in enumerate(routings):
                own = (rows["candidate"] == candidate) & (rows["replica_routing"] == routing)
                on_front = bool(rows.loc[own, "on_front"].any())
                colour = ROUTINGS[number % len(ROUTINGS)]
                axis.plot(
                    values[own],
                    kilobytes[own],
                    MARKERS[place % len(MARKERS)],
                    color=colour,
                    markerfacecolor=colour if on_front else "none",
                    markersize=6,
                )
        if len(reference):
            axis.axhline(
                0.8e-3 * float(reference["cross_row_bytes_per_token"].iloc[0]),
                color=GREY,
                linestyle=":",
            )
        if "least_cross_row_bytes_per_token" in rows:
            least = 1e-3 * rows["least_cross_row_bytes_per_token"].iloc[0]
            axis.axhline(least, color=BLACK, linewidth=1.2)
        axis.set_xlabel(label)
        axis.grid()
    axes[0].set_ylabel("between rows (KB a token)")
    entries = [
        axes[0].plot([], [], color=ROUTINGS[n % len(ROUTINGS)], linewidth=5, label=candidate)[0]
        for n, candidate in enumerate(candidates)
    ]
    entries += [
        axes[0].plot(
            [], [], MARKERS[n % len(MARKERS)], color=BLACK, markerfacecolor="none", label=routing
        )[0]
        for n, routing in enumerate(routings)
    ]
    figure.legend(
        entries,
        [str(entry.get_label()) for entry in entries],
        loc="outside upper center",
        ncols=columns_of(len(entries), 6),
    )
    return figure
