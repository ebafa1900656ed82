"""What a bench's sweeps found: capacity and drops, adapters, learning rates, tokens a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topomoe.report.findings_network import listed
from topomoe.report.router_words import change_text, counted_of, percent_text
from topomoe.router_results import PERPLEXITY, RouterResults, comparable
from topomoe.study_results import counted
from topomoe.tables_routers_sweeps import ADAPTER, CAPACITY, TIMES

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd

TUNING = ("router", "learning_rate", "balance", "loss")
_MODEL = ["experts", "top_k"]


def sweep_findings(results: RouterResults) -> list[str]:
    """Say what the sweeps of capacity, adapters and learning rates found, and how fast all ran."""
    return [
        *capacity_findings(results),
        *adapter_findings(results),
        *tuning_findings(results),
        *throughput_findings(results),
    ]


def capacity_findings(results: RouterResults) -> list[str]:
    """Say what is dropped at the smallest and the largest capacity factor, and what that costs."""
    rows = results.rows("quality", CAPACITY, "capacity")
    if rows.empty:
        return []
    rows = comparable(rows)
    limited = rows[rows["capacity_factor"] > 0]
    if limited.empty:
        return []
    text = "Assignments dropped: " + listed(
        [
            f"{_drops(rows[rows['capacity_factor'] == factor])} at capacity factor {factor:g}"
            for factor in dict.fromkeys(
                (limited["capacity_factor"].min(), limited["capacity_factor"].max())
            )
        ]
    )
    table = limited.pivot_table(index=_MODEL, columns="capacity_factor", values=PERPLEXITY)
    text += "."
    if table.shape[1] > 1:
        cost = (table.iloc[:, 0] / table.iloc[:, -1] - 1).dropna().sort_values(kind="stable")
        if len(cost):
            named = [f"{change_text([cost.iloc[i]])} ({_shape(cost.index[i])})" for i in (0, -1)]
            reach = f"{named[0]} to {named[1]}" if len(cost) > 1 else named[0]
            text += (
                f" Against the largest factor, the same model's perplexity at the smallest "
                f"changes by {reach}."
            )
    return [text, *_capacity_speed(results)]


def _drops(rows: pd.DataFrame) -> str:
    means = rows.groupby(_MODEL)["assignment_drop_rate"].mean().sort_values(kind="stable")
    named = [f"{percent_text(means.iloc[i])} ({_shape(means.index[i])})" for i in (0, -1)]
    return f"{named[0]} to {named[1]}" if len(means) > 1 else named[0]


def _shape(key: object) -> str:
    experts, top_k = key if isinstance(key, tuple) else (key, 1)
    return f"{experts:g} experts, {top_k:g} a token"


def _capacity_speed(results: RouterResults) -> list[str]:
    """Say by how much tokens a second differ over the capacity sweep's shapes."""
    times = results.timings(TIMES, "capacity")
    speed = _speed(times[times["phase"] == "train"], _MODEL) if len(times) else times
    if len(speed) < 2:
        return []
    slow, fast = speed.index[0], speed.index[-1]
    return [
        f"A forward and a backward pass do {speed.iloc[-1]:,.0f} tokens a second with "
        f"{_shape(fast)} and {speed.iloc[0]:,.0f} with {_shape(slow)}, all capacity factors "
        "together."
    ]


def _speed(times: pd.DataFrame, by: list[str]) -> pd.Series[float]:
    """Return tokens a second, ascending: all tokens over all wall time of each group."""
    sums = times.groupby(by, sort=False)[["tokens", "wall_seconds"]].sum()
    return (sums["tokens"] / sums["wall_seconds"]).sort_values(kind="stable")


def adapter_findings(results: RouterResults) -> list[str]:
    """Say which adapter leaves the lowest perplexity, by what number of parameters."""
    rows = results.rows("adapter", ADAPTER)
    if rows.empty:
        return []
    rows = rows.assign(change=rows["perplexity_after"] / rows["perplexity_before"] - 1)
    groups = dict(iter(rows.groupby(["variant", "rank"], sort=False)))
    whole = [key for key in groups if key[0] == "full"]
    adapters = sorted(
        (key for key in groups if key not in whole),
        key=lambda key: float(groups[key]["perplexity_after"].mean()),
    )
    text = []
    if adapters:
        named = [_adapter(key, groups[key]) for key in (adapters[0], adapters[-1])]
        text.append(
            f"Of {counted(len(adapters), 'adapter')}, by kind and rank, the lowest "
            f"perplexity after fine-tuning has {named[0]}"
            + (f"; the highest has {named[1]}." if len(adapters) > 1 else ".")
        )
        better = sum(groups[key]["change"].mean() < 0 for key in adapters)
        verb = "lowers" if better == 1 else "lower"
        text.append(f"Against the model before, {counted_of(better, len(adapters))} {verb} it.")
    for key in whole:
        text.append(f"Training the whole model instead: {_effect(groups[key])}.")
    return [" ".join(text)]


def _adapter(key: tuple[Hashable, ...], rows: pd.DataFrame) -> str:
    return f"{key[0]} of rank {float(str(key[1])):g} ({_effect(rows)})"


def _effect(rows: pd.DataFrame) -> str:
    trained = round(float(rows["trained_parameters"].mean()))
    text = f"{change_text(rows['change'])}, {counted(trained, 'parameter')}"
    if "others_perplexity_after" in rows:
        others = rows["others_perplexity_after"] / rows["others_perplexity_before"] - 1
        text += f", other domains {change_text(others)}"
    return text


def tuning_findings(results: RouterResults) -> list[str]:
    """Say which learning rate and balance each router's models were trained with."""
    rows = results.rows("tuning", TUNING)
    if rows.empty:
        return []
    chosen: dict[str, list[str]] = {}
    for router, own in rows.groupby("router", sort=False):
        known = own.dropna(subset=["loss"])
        if known.empty:
            chosen.setdefault("none, all diverged", []).append(str(router))
            continue
        best = known.sort_values("loss", kind="stable").iloc[0]
        balance = f" and balance {best['balance']:g}" if own["balance"].nunique() > 1 else ""
        chosen.setdefault(f"{best['learning_rate']:g}{balance}", []).append(str(router))
    rates = [f"{rate:g}" for rate in sorted(rows["learning_rate"].unique())]
    named = [f"{what} for {listed(routers)}" for what, routers in chosen.items()]
    return [
        f"Learning rates were chosen for each router on validation text, of {listed(rates)}: "
        f"{'; '.join(named)}."
    ]


def throughput_findings(results: RouterResults) -> list[str]:
    """Say how fast which router trained, and how much was trained in all."""
    times = results.timings(("part", *TIMES))
    if times.empty:
        return []
    trained = times[times["phase"] == "train"]
    if trained.empty:
        return []
    main = trained[trained["part"] == "pareto"]
    speed = _speed(main if len(main) else trained, ["router"])
    text = f"Training did {speed.iloc[-1]:,.0f} tokens a second with {speed.index[-1]}"
    if len(speed) > 1:
        text += f", the fastest router, and {speed.iloc[0]:,.0f} with {speed.index[0]}, the slowest"
    amount = _duration(float(trained["wall_seconds"].sum()))
    return [
        f"{text} (validation left out; of the machine that ran it); all trainings together: "
        f"{trained['tokens'].sum():,.0f} tokens in {amount} of wall time, those of processes side "
        "by side added up."
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} seconds"
    return f"{seconds / 60:.3g} minutes" if seconds < 7200 else f"{seconds / 3600:.3g} hours"
