"""How far each routing is from the least time that any routing needs on its topology."""

from __future__ import annotations

from matplotlib.figure import Figure

from topomoe.plots.style import BLACK, GREY, MARKERS, ROUTINGS, columns_of, new_figure
from topomoe.study_results import StudyResults

NAME = "routing_optimum"
TITLE = "Routing against its optimum, topology against topology"
CAPTION = (
    "Transfer time of a layer's mean dispatch and combine, without latency and packets. A marker "
    "is a routing; the black line is the least time of any routing on that topology (a linear "
    "programme). From a marker to its line is what routing can still gain, from line to line what "
    "topology can. Dashed: what the busiest device, node or board needs for its own bytes."
)
_BOUNDS = (("optimum_s", "optimum", BLACK, "-"), ("cut_s", "busiest cut", GREY, "--"))


def applies(results: StudyResults) -> bool:
    """Return whether the study solved for the optimum."""
    return not results.rows("optimum").empty


def draw(results: StudyResults) -> Figure:
    """Return a column a topology: its routings, their optimum and the device cut."""
    rows = results.rows("optimum")
    routings = list(dict.fromkeys(rows["routing"]))
    figure = new_figure(4.2)
    axis = figure.add_subplot()
    for at, name in enumerate(results.topologies):
        own = rows[rows["topology"] == name]
        for column, label, colour, style in _BOUNDS:
            axis.hlines(
                1e6 * own[column].iloc[0],
                at - 0.4,
                at + 0.4,
                color=colour,
                linestyle=style,
                label=label,
            )
        for place, (routing, seconds) in enumerate(
            zip(own["routing"], own["time_s"], strict=True), start=1
        ):
            number = routings.index(routing)
            axis.plot(
                at - 0.4 + 0.8 * place / (len(own) + 1),
                1e6 * seconds,
                linestyle="",
                marker=MARKERS[number % len(MARKERS)],
                color=ROUTINGS[number % len(ROUTINGS)],
                markersize=6,
                label=routing,
            )
    labels = [results.topology_label(name) for name in results.topologies]
    axis.set_xticks(range(len(labels)), labels, rotation=20 if len(labels) > 6 else 0)
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y")
    axis.set_ylabel("dispatch + combine of a mean layer (us)")
    handles = {text: line for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    order = [*routings, *(label for _, label, _, _ in _BOUNDS)]
    figure.legend(
        [handles[text] for text in order],
        order,
        loc="outside upper center",
        ncols=columns_of(len(order), 8),
    )
    return figure
