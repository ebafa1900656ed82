"""Tables of routers' sweeps: capacity, number of experts, adapters, and tokens a second."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from topomoe.router_results import (
    PERPLEXITY,
    RouterResults,
    capacity_text,
    comparable,
    seed_ranks,
)
from topomoe.table_columns import Column, table_of, text_column
from topomoe.table_text import Table
from topomoe.tables_routers_columns import (
    INTERVAL_NOTE,
    known_column,
    mean_column,
    percent_column,
)

if TYPE_CHECKING:
    import pandas as pd

SHAPE = ["router", "experts", "top_k", "capacity_factor"]
CAPACITY = (*SHAPE, "seed", "perplexity", "token_drop_rate", "assignment_drop_rate")
TIMES = (*SHAPE, "seed", "phase", "tokens", "wall_seconds")
SIZE = ("router", "experts", "seed", "perplexity")
ADAPTER = (
    *("variant", "rank", "trained_parameters", "seed"),
    *("perplexity_before", "perplexity_after"),
)
TUNING = ("router", "learning_rate", "balance", "perplexity")
SPEED_NOTE = (
    "Tokens a second: tokens processed over wall time, validation left out; of the machine that "
    "ran it, and different from run to run."
)


def capacity_tables(results: RouterResults) -> list[Table]:
    """Return a row a shape and capacity factor: drops, perplexity, tokens a second."""
    quality = results.rows("quality", CAPACITY, "capacity")
    if quality.empty:
        return []
    quality = comparable(quality)
    groups = dict(iter(quality.groupby(SHAPE, sort=False)))
    own = list(groups.values())
    columns = [
        *_shape_columns(own),
        percent_column("assignments dropped (%)", [rows["assignment_drop_rate"] for rows in own]),
        percent_column("tokens dropped (%)", [rows["token_drop_rate"] for rows in own]),
        mean_column("perplexity", [rows[PERPLEXITY] for rows in own]),
    ]
    speed = _speeds(results.timings(TIMES, "capacity"), "train")
    if speed:
        columns.append(known_column("tokens/s", [speed.get(key, float("nan")) for key in groups]))
    return [
        table_of(
            "capacity",
            "Capacity factor, drops and throughput",
            "Dropped: assignments (a token and one of its experts) that found their expert full, "
            "and tokens all of whose assignments did, on held-out text. Perplexity: of predictions "
            "that see no later token. Tokens a second: of a forward and a backward pass; of the "
            f"machine that ran it, and different from run to run. {INTERVAL_NOTE}",
            columns,
        )
    ]


def size_tables(results: RouterResults) -> list[Table]:
    """Return a row a router: its perplexity and rank at each number of experts."""
    quality = results.rows("quality", SIZE, "size")
    if quality.empty:
        return []
    ranked = seed_ranks(comparable(quality).dropna(subset=[PERPLEXITY]), "experts")
    routers = list(dict.fromkeys(ranked["router"]))
    columns: list[Column] = [text_column("router", routers)]
    for count in sorted(ranked["experts"].unique()):
        at = ranked[ranked["experts"] == count]
        own = [at[at["router"] == router] for router in routers]
        columns.append(
            mean_column(f"{count:g} experts", [rows[PERPLEXITY] for rows in own], best=True)
        )
        columns.append(text_column(f"rank of {count:g}", [_rank_text(rows) for rows in own], True))
    return [
        table_of(
            "size",
            "Rank of the routers by number of experts",
            "Held-out perplexity of predictions that see no later token, and its rank, 1 the "
            "lowest; in brackets the ranks that the router has within single seeds, where they "
            f"differ. {INTERVAL_NOTE} Bold: the least of a column.",
            columns,
        )
    ]


def _rank_text(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "n/a"
    rank, low, high = rows["rank"].iloc[0], rows["seed_rank"].min(), rows["seed_rank"].max()
    return f"{rank}" if low == high == rank else f"{rank} ({low} to {high})"


def tuning_tables(results: RouterResults) -> list[Table]:
    """Return a row a trial: a router's learning rate and balance, and its validation perplexity."""
    rows = results.rows("tuning", TUNING)
    if rows.empty:
        return []
    least = rows.groupby("router")["perplexity"].transform("min")
    perplexity = known_column("validation perplexity", rows["perplexity"])
    cells = zip(perplexity[2], rows["perplexity"] == least, strict=True)
    return [
        table_of(
            "tuning",
            "Learning rate and balance of each router",
            "Short trainings with a seed that no other model has, judged on validation text. "
            "Balance: the weight of the balance loss, of bias-balanced the step of the bias, 0 of "
            "routers that have neither. Bold: each router's best, with which all other models were "
            "trained; n/a: it diverged.",
            [
                text_column("router", rows["router"]),
                text_column("learning rate", [f"{v:g}" for v in rows["learning_rate"]], True),
                text_column("balance", [f"{v:g}" for v in rows["balance"]], True),
                (perplexity[0], True, [replace(cell, best=bool(best)) for cell, best in cells]),
            ],
        )
    ]


def adapter_tables(results: RouterResults) -> list[Table]:
    """Return a row a variant and rank: parameters trained, perplexity before and after."""
    rows = results.rows("adapter", ADAPTER)
    if rows.empty:
        return []
    groups = [own for _, own in rows.groupby(list(ADAPTER[:3]), sort=False)]
    change = [own["perplexity_after"] / own["perplexity_before"] - 1 for own in groups]
    columns = [
        text_column("adapter", [own["variant"].iloc[0] for own in groups]),
        text_column("rank", [f"{own['rank'].iloc[0]:g}" for own in groups], True),
        text_column("seeds", [len(own) for own in groups], True),
        text_column(
            "parameters trained",
            [f"{own['trained_parameters'].mean():,.0f}" for own in groups],
            True,
        ),
        mean_column("perplexity before", [own["perplexity_before"] for own in groups]),
        mean_column("after", [own["perplexity_after"] for own in groups], best=True),
        percent_column("change (%)", change, sign=True),
    ]
    if "others_perplexity_after" in rows:
        others = [
            own["others_perplexity_after"] / own["others_perplexity_before"] - 1 for own in groups
        ]
        columns.append(percent_column("other domains (%)", others, sign=True))
    return [
        table_of(
            "adapters",
            "Adapters",
            "Fine-tuning of low-rank adapters alone, and what is compared with them; perplexity on "
            "held-out text of the domain trained on (other domains: its change there). Changes are "
            f"of each seed. {INTERVAL_NOTE} Bold: the least of a column.",
            columns,
        )
    ]


def throughput_tables(results: RouterResults) -> list[Table]:
    """Return tokens a second of training and evaluation by part and shape, capacity's apart."""
    times = results.timings(("part", *TIMES))
    times = times[times["part"] != "capacity"] if len(times) else times
    if times.empty:
        return []
    keys = ["part", *SHAPE]
    groups = dict(iter(times.groupby(keys, sort=False)))
    own = list(groups.values())
    columns = [text_column("part", [rows["part"].iloc[0] for rows in own]), *_shape_columns(own)]
    for phase, header in (("train", "training (tokens/s)"), ("evaluate", "evaluation (tokens/s)")):
        speed = _speeds(times, phase, keys)
        if speed:
            columns.append(known_column(header, [speed.get(key, float("nan")) for key in groups]))
    return [table_of("throughput", "Tokens a second", f"{SPEED_NOTE} All seeds together.", columns)]


def _shape_columns(groups: list[pd.DataFrame]) -> list[Column]:
    first = [rows.iloc[0] for rows in groups]
    return [
        text_column("router", [row["router"] for row in first]),
        text_column("experts", [f"{row['experts']:g}" for row in first], True),
        text_column("top k", [f"{row['top_k']:g}" for row in first], True),
        text_column("capacity", [capacity_text(row["capacity_factor"]) for row in first], True),
    ]


def _speeds(times: pd.DataFrame, phase: str, keys: list[str] | None = None) -> dict[Any, float]:
    """Return tokens a second by shape: all tokens of a phase over all its wall time."""
    if times.empty:
        return {}
    own = times[times["phase"] == phase].groupby(keys or SHAPE, sort=False)
    sums = own[["tokens", "wall_seconds"]].sum()
    return dict((sums["tokens"] / sums["wall_seconds"]).items())
