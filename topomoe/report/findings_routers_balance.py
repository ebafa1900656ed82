"""What a bench found of balance: routers beside real models, and what balance losses do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.moe.published_loads import PUBLISHED, PublishedLoad
from topomoe.report.findings_network import listed
from topomoe.report.router_words import apart, at_capacity, change_text, counted_of
from topomoe.router_results import TRAINED, UNIFORM, RouterResults, at_reference, layer_rows
from topomoe.tables_routers_balance import LOSS

if TYPE_CHECKING:
    import pandas as pd

_WITHOUT = "none"  # fine-tuning without a balance loss


def balance_findings(results: RouterResults) -> list[str]:
    """Say how uneven the experts' load is, of trained routers, real models and published ones."""
    rows = layer_rows(results)
    if rows.empty:
        return []
    trained = at_reference(rows[rows["source"] == TRAINED])
    own = _means(trained, "router")
    real = _means(rows[rows["source"] != TRAINED], "source")
    return [
        *(_trained(trained, own) if len(own) else []),
        *([_captured(real, own)] if len(real) else []),
        *([_beside_published(own)] if len(own) else []),
    ]


def _means(rows: pd.DataFrame, column: str) -> pd.Series[float]:
    """Return the Gini coefficient by name, ascending: the mean over layers of that over seeds."""
    if rows.empty:
        return rows["gini"]
    layers = rows.groupby([column, "layer"])["gini"].mean()
    return layers.groupby(level=0).mean().sort_values(kind="stable")


def _trained(rows: pd.DataFrame, gini: pd.Series[float]) -> list[str]:
    named = f"{gini.iloc[0]:.3f} ({gini.index[0]})"
    if len(gini) > 1:
        named += f" to {gini.iloc[-1]:.3f} ({gini.index[-1]})"
    factor = (
        f" {at_capacity(float(rows['capacity_factor'].iloc[0]))}"
        if "capacity_factor" in rows
        else ""
    )
    text = (
        f"The experts' load of the routers trained here{factor} has a Gini coefficient, before any "
        f"drop and as a mean over layers, of {named}"
    )
    even = float(rows[UNIFORM].mean())
    if np.isfinite(even):
        text += f"; picking evenly at random would show {even:.3f}"
    return [f"{text}."]


def _captured(real: pd.Series[float], own: pd.Series[float]) -> str:
    named = listed([f"{name} {value:.3f}" for name, value in real.items()])
    text = f"By the same measure, captured routing of models in use has {named}"
    if own.empty:
        return f"{text}."
    below = int((own < real.min()).sum())
    if len(own) == 1:
        return (
            f"{text}; {own.index[0]} lies {'below' if below else 'at or above'} {real.min():.3f}."
        )
    verb = "lies" if below == 1 else "lie"
    return f"{text}; {counted_of(below, len(own))} trained here {verb} below {real.min():.3f}."


def _beside_published(
    own: pd.Series[float], published: tuple[PublishedLoad, ...] = PUBLISHED
) -> str:
    """Hold the most uneven router against each published range."""
    router, gini = str(own.index[-1]), float(own.iloc[-1])
    who = router if len(own) == 1 else f"the most uneven router here, {router} ({gini:.3f}),"
    parts = []
    for verb, models in (
        ("more even than", [model for model in published if gini < model.gini[0]]),
        ("within the range of", [m for m in published if m.gini[0] <= gini <= m.gini[1]]),
        ("less even than", [model for model in published if gini > model.gini[1]]),
    ):
        if models:
            parts.append(f"{verb} {listed([_published(model) for model in models])}")
    return f"Held against what is published, {who} is {'; '.join(parts)}."


def _published(model: PublishedLoad) -> str:
    low, high = model.gini
    return f"{model.model} ({low:g}{f' to {high:g}' if high > low else ''})"


def loss_findings(results: RouterResults) -> list[str]:
    """Say which balance loss evens the load out, at what perplexity, against none."""
    rows = results.rows("loss", LOSS)
    if rows.empty:
        return []
    plain = rows[rows["balance_loss"] == _WITHOUT].groupby("seed")[
        ["gini_after", "perplexity_after"]
    ]
    against = "as much fine-tuning without a balance loss"
    first = plain.mean()
    if first.empty:
        first = rows.groupby("seed")[["gini_before", "perplexity_before"]].mean()
        first.columns = rows[["gini_after", "perplexity_after"]].columns
        against = "before fine-tuning"
    changes = {}
    for key, own in rows[rows["balance_loss"] != _WITHOUT].groupby(
        ["balance_loss", "weight"], sort=False
    ):
        seeds = own.set_index("seed")[["gini_after", "perplexity_after"]]
        changes[key] = (seeds / first.reindex(seeds.index) - 1).dropna()
    if not changes:
        return []
    even = {key: own for key, own in changes.items() if own["gini_after"].mean() < 0}
    sure = sum(apart(own["gini_after"]) for own in even.values())
    text = f"Against {against}, {counted_of(len(even), len(changes))} balance losses and weights "
    text += (
        f"lower the Gini coefficient, {sure} of them so that the 95 % interval over seeds leaves "
    )
    text += "out 0, each tested by itself"
    (loss, weight), most = min(changes.items(), key=lambda item: item[1]["gini_after"].mean())
    cost = max(changes.values(), key=lambda own: float(own["perplexity_after"].mean()))
    return [
        f"{text}; it falls most with {loss} at weight {weight:g} "
        f"({change_text(most['gini_after'])}, perplexity {change_text(most['perplexity_after'])}). "
        f"The most that any costs is {change_text(cost['perplexity_after'])} of perplexity."
    ]
