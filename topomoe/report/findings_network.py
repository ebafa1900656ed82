"""What a study found of routing optima and failures, in sentences computed from its results."""

from __future__ import annotations

from topomoe.study_results import StudyResults


def optimum(results: StudyResults) -> list[str]:
    """Say how far the routings are from the best, and what the best would make of topologies."""
    rows = results.rows("optimum")
    if rows.empty:
        return []
    best = rows.sort_values("time_s", kind="stable").drop_duplicates("topology")
    over = (best["time_s"] / best["optimum_s"]).to_numpy()
    named = [
        f"{ratio:.3f} on {results.topology_label(str(row['topology']))} ({row['routing']})"
        for ratio, (_, row) in zip(over, best.iterrows(), strict=True)
    ]
    least = best.sort_values("optimum_s", kind="stable").iloc[0]
    return [
        "For the mean demand of a layer, the best routing tried takes this many times the least "
        f"time of any routing: {listed(named)}. Were every topology routed at its optimum, "
        f"{results.topology_label(str(least['topology']))} would be the fastest "
        f"({1e6 * float(least['optimum_s']):.4g} us for dispatch and combine)."
    ]


def failures(results: StudyResults) -> list[str]:
    """Say which failure hurts most and least among those that part nothing, and which part."""
    rows = results.rows("failure")
    rows = rows[rows["scenario"] != "intact"]
    if rows.empty:
        return []
    label = results.topology_label
    sentences = []
    grouped = rows.groupby(["topology", "scenario"], sort=False)
    mean = grouped["ratio"].mean()[grouped["parts"].max() <= 1].dropna()
    ordered = mean.sort_values(kind="stable")
    if len(ordered) > 1:
        (least_on, least), (most_on, most) = ordered.index[0], ordered.index[-1]
        sentences.append(
            f"Of the failures that cut no device off, {least} on {label(least_on)} costs least "
            f"({ordered.iloc[0]:.3f} times the MoE time of the intact topology, a mean over "
            f"draws) and {most} on {label(most_on)} most ({ordered.iloc[-1]:.3f} times)."
        )
    elif len(ordered):
        on, scenario = ordered.index[0]
        sentences.append(
            f"After {scenario}, {label(on)} takes {ordered.iloc[0]:.3f} times the MoE time of the "
            "intact topology, a mean over draws."
        )
    parted = rows[rows["parts"] > 1].drop_duplicates(["topology", "scenario"])
    if not parted.empty:
        named = [
            f"{label(str(name))} ({', '.join(own['scenario'])})"
            for name, own in parted.groupby("topology", sort=False)
        ]
        sentences.append(
            "In some draw these fall apart, and the largest part goes on without the others: "
            f"{listed(named)}."
        )
    return sentences


def listed(parts: list[str]) -> str:
    """Return the parts as a list in a sentence: ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
