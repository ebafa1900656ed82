"""Figure of ``topomoe network``: when flows finish under each routing, beside the bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topomoe.plots.style import BLACK, GREY, ROUTINGS, columns_of, look, new_figure, save
from topomoe.run_folder import RunFolder

_BOUNDS = {"optimal": ("optimum", BLACK, "-"), "node_cut": ("node cut", GREY, "--")}


def draw_network(folder: RunFolder) -> list[Path]:
    """Draw flow_time, the bytes of flows finished by a time; nothing without max-min."""
    results = folder.results()
    flows = results[results["record"] == "flow"]
    if flows.empty:
        return []
    with look():
        figure = new_figure(4.0)
        axis = figure.add_subplot()
        for number, routing in enumerate(dict.fromkeys(flows["routing"])):
            own = flows[flows["routing"] == routing].sort_values("fct_s", kind="stable")
            axis.step(
                1e6 * own["fct_s"],
                np.cumsum(own["bytes"]) / own["bytes"].sum(),
                where="post",
                color=ROUTINGS[number % len(ROUTINGS)],
                label=str(routing),
            )
        bounds = results[results["record"] == "bound"].set_index("bound")["time_s"]
        for name, (label, colour, style) in _BOUNDS.items():
            if name in bounds:
                axis.axvline(1e6 * bounds[name], color=colour, linestyle=style, label=label)
        axis.set_xlabel("completion time under max-min fair sharing (us)")
        axis.set_ylabel("bytes of finished flows, share")
        axis.set_xlim(left=0)
        axis.set_ylim(0, 1.02)
        axis.grid()
        handles, labels = axis.get_legend_handles_labels()
        columns = columns_of(len(labels), 6)
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)
        return save(figure, folder.path / "figures", "flow_time")
