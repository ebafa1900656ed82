"""What a study found, in sentences computed from its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topomoe.study_results import StudyResults, gains
from topomoe.tables import placement_balance

if TYPE_CHECKING:
    import pandas as pd

_PARTS = {"dispatch_s": "dispatch", "combine_s": "combine", "compute_s": "expert compute"}
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
    text += f" The next combination, {combination(results, second)}, takes {_more(second, best)}"
    if worst.name != second.name:
        text += f", the slowest, {combination(results, worst)}, {_more(worst, best)}"
    return text + "."


def _parts(results: StudyResults) -> str:
    best = _ordered(results).iloc[0]
    parts = sorted(((float(best[c]), name) for c, name in _PARTS.items()), reverse=True)
    total = sum(seconds for seconds, _ in parts)
    network = float(best["dispatch_s"]) + float(best["combine_s"])
    bound = float(best["network_bound_s"])
    named = ", ".join(f"{name} {100 * seconds / total:.0f} %" for seconds, name in parts)
    return (
        f"There the largest part is {parts[0][1]} (of the forward MoE time: {named}); dispatch and "
        f"combine together take {_ms(network)} ms, {network / bound:.2f} times their lower bound, "
        f"so another routing of that traffic on that topology could save {_ms(network - bound)} ms "
        "at most."
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
        f"{_and(parts)}; holding means at most {100 * (_HOLDS - 1):.0f} % worse on requests that "
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
        return f"It rests on {results.num_batches} batches of {requests:,} held-out requests."
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
    wins = int((first < other).sum())
    text = (
        f"Batch by batch the best is faster than the next in {wins} of {len(first)}; "
        f"{requests:,} distinct held-out requests stand behind them"
    )
    if best["step_low_s"] > 0:
        low, mean, high = (float(best[c]) for c in ("step_low_s", "step_s", "step_high_s"))
        text += (
            f", and over {results.config.get('resamples', 'some')} bootstrap resamples of the "
            f"requests the best's mean step has the 95 % interval {_ms(low)} to {_ms(high)} ms"
        )
        if not low <= mean <= high:
            text += f", which does not hold the mean itself ({_ms(mean)} ms)"
    return text + "."


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
            named = [
                f"{r['ratio']:.2f} ({label(str(r['topology']))})" for _, r in slower.iterrows()
            ]
            sentences.append(
                f"With {results.group_label(group)}, {label(str(slower.iloc[0]['reference']))} is "
                f"the fastest; the others take {_and(named)} times as long."
            )
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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= _SAME or share == 0 else "less than 0.05 %"


def _ms(seconds: object) -> str:
    return f"{1e3 * float(str(seconds)):.4g}"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
