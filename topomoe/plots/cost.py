"""Time of the MoE layers against what each topology costs and draws."""

from __future__ import annotations

from matplotlib.figure import Figure

from topomoe.plots.style import GREY, columns_of, new_figure, topology_styles
from topomoe.study_results import StudyResults

NAME = "cost"
TITLE = "Time against dollars and watts"
CAPTION = (
    "Mean MoE time under each topology's default routing, against what its network costs and draws "
    "a device by the bill of materials in the settings; with the study's last placement. Nothing "
    "lies below and left of the grey line: those topologies are the cheapest for their speed."
)


def draw(results: StudyResults) -> Figure:
    """Return two panels, dollars and watts a device, a marker a topology."""
    rows = results.of_group(results.last_group)
    cost = results.rows("cost").set_index("topology").loc[list(results.topologies)]
    devices = results.grid[0] * results.grid[1]
    styles = topology_styles(results.topologies)
    figure = new_figure(3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axis, column, unit in zip(panels, ("dollars", "watts"), ("dollars", "watts"), strict=True):
        x = cost[column].to_numpy() / devices
        y = 1e3 * rows["moe_s"].to_numpy()
        edge = [
            i
            for i in range(len(x))
            if not any((x[j] <= x[i]) & (y[j] < y[i]) for j in range(len(x)))
        ]
        edge.sort(key=lambda i: (x[i], y[i]))
        axis.step(x[edge], y[edge], where="post", color=GREY, linewidth=1.0, zorder=1)
        for i, name in enumerate(results.topologies):
            axis.plot(
                x[i],
                y[i],
                linestyle="",
                markersize=7,
                marker=styles[name]["marker"],
                color=styles[name]["color"],
                label=results.topology_label(name),
            )
        axis.set_xlabel(f"{unit} a device")
        axis.set_xlim(left=0)
        axis.grid()
    panels[0].set_ylim(0, 1.1 * float(1e3 * rows["moe_s"].max()))
    panels[0].set_ylabel("mean MoE time (ms)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns_of(len(labels), 7))
    return figure
