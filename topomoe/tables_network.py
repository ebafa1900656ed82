"""Tables of a study on routing optima, failures and cost."""

from __future__ import annotations

from topomoe.study_results import StudyResults
from topomoe.table_columns import number_column, table_of, text_column
from topomoe.table_text import Table


def optimum_table(results: StudyResults) -> Table:
    """Return every routing's time of the mean demand beside the least time of any routing."""
    rows = results.rows("optimum")
    order = {name: number for number, name in enumerate(results.topologies)}
    rows = rows.sort_values("topology", key=lambda names: names.map(order), kind="stable")
    columns = [
        text_column("topology", map(results.topology_label, rows["topology"])),
        text_column("routing", rows["routing"]),
        number_column("time (us)", 1e6 * rows["time_s"]),
        number_column("optimum (us)", 1e6 * rows["optimum_s"], best=False),
        number_column("time / optimum", rows["time_s"] / rows["optimum_s"]),
        number_column("cut (us)", 1e6 * rows["cut_s"], best=False),
        number_column("volume bound (us)", 1e6 * rows["volume_bound_s"], best=False),
        text_column("virtual channels", rows["virtual_channels"].astype(int), numeric=True),
    ]
    return table_of(
        "optimum",
        "Each routing against the best possible",
        "Transfer of a layer's mean dispatch and combine with "
        f"{results.group_label(results.last_group)}, without latency, packets and overheads. "
        "Optimum: the least time of any routing, by a linear programme with a proven bound; the "
        "optimum of the mean demand is at most the mean of the optima. Cut: what "
        "leaves or reaches the busiest device, node, board or group; cut and volume bound are "
        "simpler lower bounds. Virtual channels: with which the routing cannot deadlock. "
        "Bold: the least of a column.",
        columns,
    )


def failures_table(results: StudyResults) -> Table:
    """Return what each failure scenario does to each topology, means over its draws."""
    import pandas as pd

    rows = results.rows("failure").drop_duplicates(["topology", "scenario", "draw"])
    keys = ["topology", "scenario"]
    grouped = rows.groupby(keys, sort=False)
    table = pd.DataFrame(
        {
            "draws": grouped["draw"].nunique(),
            "routing": grouped["routing"].agg(lambda r: ", ".join(dict.fromkeys(r))),
            "devices": grouped["devices"].min(),
            "parts": grouped["parts"].max(),
            "moe": 1e3 * grouped["moe_s"].mean(),
            "mean": grouped["ratio"].mean(),
            "worst": grouped["ratio"].max(),
            "same": grouped["same_routing_ratio"].mean(),
        }
    ).reset_index()
    columns = [
        text_column("topology", map(results.topology_label, table["topology"])),
        text_column("failed", table["scenario"]),
        text_column("routing", table["routing"]),
        text_column("draws", table["draws"], numeric=True),
        text_column("least devices", table["devices"].map("{:.0f}".format), numeric=True),
        text_column("most parts", table["parts"].map("{:.0f}".format), numeric=True),
        number_column("MoE mean (ms)", table["moe"], best=False),
        number_column("over intact, mean", table["mean"], best=False),
        number_column("over intact, worst draw", table["worst"], best=False),
        number_column("over intact, same routing", table["same"], best=False),
    ]
    return table_of(
        "failures",
        "What failures cost",
        "Mean MoE time after the failures over that of the intact topology. Survivors hold all "
        "experts, placed anew; batches keep their tokens. Same routing: against the intact "
        "topology under the routing that goes around the failure, so that the loss of links and "
        "the change of routing stand apart. Parts: more than 1 where the network falls apart, of "
        "which the largest goes on.",
        columns,
    )


def cost_table(results: StudyResults) -> Table:
    """Return what each topology costs and draws, and its time times both."""
    cost = results.rows("cost").set_index("topology").loc[list(results.topologies)]
    rows = results.of_group(results.last_group)
    devices = results.grid[0] * results.grid[1]
    dollars, watts = cost["dollars"] / devices, cost["watts"] / devices
    columns = [
        text_column("topology", map(results.topology_label, cost.index)),
        number_column("dollars a device", dollars),
        number_column("watts a device", watts),
        number_column("MoE mean (ms)", 1e3 * rows["moe_s"]),
        number_column("MoE ms x dollars", 1e3 * rows["moe_s"] * dollars),
        number_column("MoE ms x watts", 1e3 * rows["moe_s"] * watts),
    ]
    return table_of(
        "cost",
        "Per dollar and per watt",
        "Network equipment alone, by the bill of materials in the settings; MoE time with "
        f"{results.group_label(results.last_group)} under default routings. Time times dollars "
        "(watts) compares topologies of unequal cost: half of it is twice as fast for the money. "
        "Bold: the least of a column.",
        columns,
    )
