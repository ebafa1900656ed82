"""What a study found, in sentences computed from its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topomoe.report.findings_network import failures, listed, optimum
from topomoe.study_results import EQUAL, StudyResults, counted, gains
from topomoe.tables import placement_balance

if TYPE_CHECKING:
    import pandas as pd

_PARTS = {
    "dispatch_s": "dispatch",
    "combine_s": "combine",
    "compute_s": "expert compute",
    "backward_s": "backward",
}
_WORTH = 0.02  # share of the MoE time up to which what another routing could save is not counted
_LISTED = 8  # losing changes named one by one
_HOLDS = 1.05  # held-out over training balance up to which a placement is said to hold
_SAME = 0.0005  # relative change that is called none
_BLIND = ("contiguous", "random", "round-robin")  # placements that look at no load


def findings(results: StudyResults) -> list[str]:
    """Return the answer of the study: a handful of sentences, each a number in its place."""
    return [
        _best(results),
        _parts(results),
        *_placements(results),
        *_routings(results),
        *optimum(results),
        *failures(results),
        _certainty(results),
    ]


def combination(results: StudyResults, row: pd.Series[Any]) -> str:
    """Return ``placement on topology``, with the routing where it is not the default."""
    topology = str(row["topology"])
    group = (str(row["placement"]), str(row["replica_routing"]))
    text = f"{results.group_label(group)} on {results.topology_label(topology)}"
    routing = row["routing"]
    return text if routing == results.default_routing[topology] else f"{text} under {routing}"


def _best(results: StudyResults) -> str:
    ordered = _ordered(results)
    best = ordered.iloc[0]
    text = (
        f"In this run {combination(results, best)} has the fastest MoE layers: "
        f"{_ms(best['moe_s'])} ms a step, {_ms(best['step_s'])} ms with attention and dense layers."
    )
    if len(ordered) == 1:
        return text
    second, worst = _second(results), ordered.iloc[-1]
    if len(ordered) > 2 and _equal(worst, best):
        return f"{text} All {len(ordered)} combinations are equal in that."
    if _equal(second, best):
        text += f" It and {combination(results, second)} are equal in that"
    else:
        text += f" The next combination, {combination(results, second)}, takes "
        text += _more(second, best)
    if worst.name != second.name:
        text += f"; the slowest, {combination(results, worst)}, takes {_more(worst, best)}"
    return text + "."


def _parts(results: StudyResults) -> str:
    best = _ordered(results).iloc[0]
    parts = sorted(((float(best[c]), n) for c, n in _PARTS.items() if best[c] > 0), reverse=True)
    total = sum(seconds for seconds, _ in parts)
    network = float(best["dispatch_s"]) + float(best["combine_s"])
    named = ", ".join(f"{name} {100 * seconds / total:.0f} %" for seconds, name in parts)
    overlaps = results.config.get("step", {}).get("overlap", "none") != "none"
    backward = (
        "; backward is two more all-to-alls and twice the expert compute"
        if best["backward_s"] > 0
        else ""
    )
    return (
        f"On the fastest, the largest part is {parts[0][1]} (of the MoE time"
        f"{' before overlap' if overlaps else ''}: {named}{backward}); dispatch and combine "
        f"together take {_ms(network)} ms, "
        f"{_over_bound(network, float(best['network_bound_s']), total)}."
    )


def _over_bound(network: float, bound: float, moe: float) -> str:
    """Say how far dispatch and combine are from their bound, and what that can come to."""
    if network - bound > _WORTH * moe:
        ratio = f"{network / bound:.2f} times their lower bound, so " if bound > 0 else ""
        return (
            f"{ratio}another routing of that traffic on that topology could save "
            f"{_ms(network - bound)} ms at most"
        )
    if network - bound <= _WORTH * bound:
        return f"within {100 * _WORTH:.0f} % of their lower bound"
    return (
        f"{_ms(network - bound)} ms above their lower bound, less than {100 * _WORTH:.0f} % of the "
        "MoE time"
    )


def _placements(results: StudyResults) -> list[str]:
    """Say whether balance holds on held-out requests, for placements that look at the training."""
    balance = placement_balance(results)
    fitted = balance[~balance.index.isin(_BLIND)]
    if fitted.empty:
        return []
    parts = []
    for name, row in fitted.iterrows():
        ratio = row["test_mean"] / row["train_mean"]
        verdict = "holds" if ratio <= _HOLDS else "does not hold"
        parts.append(
            f"{name} {verdict} ({row['train_mean']:.3f} on the training requests, "
            f"{row['test_mean']:.3f} on held-out ones)"
        )
    text = (
        "Balance (busiest device over the mean) of the placements made from measured loads: "
        f"{listed(parts)}; holding means at most {100 * (_HOLDS - 1):.0f} % worse on requests that "
        "the placement has not seen."
    )
    trained, tested = fitted["train_mean"].idxmin(), fitted["test_mean"].idxmin()
    if trained != tested:
        text += (
            f" {str(trained).capitalize()} is the most even on the training requests, "
            f"{tested} on held-out ones."
        )
    return [text]


def _routings(results: StudyResults) -> list[str]:
    table = gains(results)
    rows = table[table["kind"] == "routing"]
    if rows.empty:
        return []
    ordered = rows.sort_values("ratio", kind="stable")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    label = results.topology_label
    if low["ratio"] < 1 - _SAME:
        text = (
            f"Routing alone buys at most {_percent(1 - low['ratio'])} "
            f"({low['choice']} instead of {low['reference']} on {label(low['topology'])})"
        )
    else:
        text = "No other routing that was tried beats a topology's default"
    if high["ratio"] > 1 + _SAME:
        text += (
            f" and costs up to {_percent(high['ratio'] - 1)} "
            f"({high['choice']} instead of {high['reference']} on {label(high['topology'])})"
        )
    return [f"{text}; tried with {results.group_label(results.last_group)} only."]


def _certainty(results: StudyResults) -> str:
    """Say how often the best beats the next on the same batches, and how wide the interval is."""
    ordered = _ordered(results)
    best = ordered.iloc[0]
    requests = int(best["requests"])
    if len(ordered) == 1:
        return (
            f"It rests on {counted(results.num_batches, 'batch')} of "
            f"{counted(requests, 'held-out request')}{_interval(results, best)}."
        )
    second = _second(results)
    first, other = (
        results.rows(
            "step",
            (str(row["placement"]), str(row["replica_routing"])),
            topology=row["topology"],
            routing=row["routing"],
        ).set_index("batch")["moe_s"]
        for row in (best, second)
    )
    level = (first - other).abs() <= EQUAL * other
    wins, ties, count = int(((first < other) & ~level).sum()), int(level.sum()), len(first)
    if ties == count:
        text = f"Batch by batch the two fastest are equal in all of {count}"
    else:
        text = f"Batch by batch the best is faster than the next in {wins} of {count}"
        text += f" and equal in {ties}" if ties else ""
    stand = "stands" if requests == 1 else "stand"
    text += f"; {counted(requests, 'distinct held-out request')} {stand} behind them"
    return f"{text}{_interval(results, best)}."


def _interval(results: StudyResults, best: pd.Series[Any]) -> str:
    """Return the clause on the interval of the best's mean step; empty without resamples."""
    if not results.config.get("resamples", 0):
        return ""
    if not results.has_intervals:
        return ", too few requests for an interval"
    low, mean, high = (float(best[c]) for c in ("step_low_s", "step_s", "step_high_s"))
    text = (
        f", and over {results.config['resamples']} bootstrap resamples of the "
        f"requests the best's mean step has the 95 % interval {_ms(low)} to {_ms(high)} ms"
    )
    outside = f", which does not hold the mean itself ({_ms(mean)} ms)"
    return text if low <= mean <= high else text + outside


def losing(results: StudyResults) -> list[str]:
    """Return what made the MoE layers slower: the changes that lose, worst first."""
    table = gains(results)
    label = results.topology_label
    sentences = []
    for kind in ("placement", "replica routing", "routing"):
        rows = table[table["kind"] == kind]
        worse = rows[rows["ratio"] > 1 + _SAME].sort_values("ratio", ascending=False, kind="stable")
        if rows.empty:
            continue
        if worse.empty:
            sentences.append(f"No change of {kind} made the MoE layers slower.")
            continue
        named = [
            f"{row['choice']} instead of {row['reference']} on {label(str(row['topology']))} "
            f"(+{_percent(float(row['ratio']) - 1)})"
            for _, row in worse.head(_LISTED).iterrows()
        ]
        rest = f" and {len(worse) - _LISTED} more" if len(worse) > _LISTED else ""
        sentences.append(
            f"{len(worse)} of {len(rows)} changes of {kind} made the MoE layers slower: "
            f"{'; '.join(named)}{rest}."
        )
    rows = table[table["kind"] == "topology"]
    for group in results.groups:
        own = rows[(rows["placement"] == group[0]) & (rows["replica_routing"] == group[1])]
        slower = own.sort_values("ratio", kind="stable")
        if not slower.empty:
            same = slower["ratio"] <= 1 + EQUAL
            level = [label(str(name)) for name in slower.loc[same, "topology"]]
            named = [
                f"{r['ratio']:.2f} ({label(str(r['topology']))})"
                for _, r in slower[~same].iterrows()
            ]
            first = label(str(slower.iloc[0]["reference"]))
            text = f"With {results.group_label(group)}, " + (
                f"{listed([first, *level])} are equally fast"
                if level
                else f"{first} is the fastest"
            )
            if named:
                others = "the other takes" if len(named) == 1 else "the others take"
                text += f"; {others} {listed(named)} times as long"
            sentences.append(f"{text}.")
    return sentences


def _ordered(results: StudyResults) -> pd.DataFrame:
    return results.summary.sort_values("moe_s", kind="stable")


def _second(results: StudyResults) -> pd.Series[Any]:
    """Return the fastest row of another topology or placement; else of another routing."""
    ordered = _ordered(results)
    best, rest = ordered.iloc[0], ordered.iloc[1:]
    keys = ["topology", "placement", "replica_routing"]
    different = rest[(rest[keys] != best[keys]).any(axis=1)]
    return (different if len(different) else rest).iloc[0]


def _more(row: pd.Series[Any], best: pd.Series[Any]) -> str:
    ratio = float(str(row["moe_s"])) / float(str(best["moe_s"]))
    return f"{_percent(ratio - 1)} longer" if ratio < 2 else f"{ratio:.1f} times as long"


def _equal(row: pd.Series[Any], best: pd.Series[Any]) -> bool:
    return float(row["moe_s"]) <= float(best["moe_s"]) * (1 + EQUAL)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= _SAME or share == 0 else "less than 0.05 %"


def _ms(seconds: object) -> str:
    return f"{1e3 * float(str(seconds)):.4g}"
