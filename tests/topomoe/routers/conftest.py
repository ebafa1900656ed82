"""A made-up run of the router bench: every record, numbers that nothing was measured for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from topomoe.run_folder import RunFolder, write_parquet

ROUTERS = ("top1", "softk", "topk-hard", "hash", "expert-choice", "bias-balanced")
CAPACITIES = (0.9, 1.0, 1.25, 1.5)
SEEDS = (0, 1, 2)
TOPOLOGIES = ("torus", "leaf-spine")
BASE = dict(zip(ROUTERS, (31.0, 27.0, 28.5, 36.0, 24.0, 27.8), strict=True))
TIME = dict(zip(ROUTERS, (0.9e-3, 2.1e-3, 1.9e-3, 1.2e-3, 1.05e-3, 1.3e-3), strict=True))
LAYERS = 6
LOSSES = ("switch", "gini", "variance", "cv", "entropy", "none")
ASSIGNMENTS = (
    "original",
    "balanced",
    "round-robin",
    "random",
    "filtered",
    "load-aware",
    "reroute",
)
Row = dict[str, Any]


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """Results, timing, what they are of, and ``folder`` to write a run of them."""
    return SimpleNamespace(
        results=made_results(),
        timing=made_timing(),
        routers=ROUTERS,
        capacities=CAPACITIES,
        seeds=SEEDS,
        topologies=TOPOLOGIES,
        layers=LAYERS,
        losses=LOSSES,
        assignments=ASSIGNMENTS,
        folder=made_folder,
    )


def made_results() -> pd.DataFrame:
    """Return the results of all parts, the same on every call."""
    rng = np.random.default_rng(0)
    rows = [*_pareto(rng), *_sweeps(rng), *_layers(rng), *_changes(rng)]
    return pd.DataFrame(rows)


def made_timing() -> pd.DataFrame:
    """Return timing.csv of the parts pareto and capacity."""
    rng = np.random.default_rng(1)
    rows = [
        {"part": "pareto", "router": router, "capacity_factor": factor, "experts": 64, "top_k": 6}
        | {"seed": seed, "phase": phase, "tokens": 100_000, "wall_seconds": seconds}
        for router in ROUTERS
        for factor in CAPACITIES
        for seed in SEEDS
        for phase, seconds in (("train", rng.uniform(8, 12)), ("evaluate", rng.uniform(2, 3)))
    ] + [
        {"part": "capacity", "router": "softk", "capacity_factor": factor, "experts": experts}
        | {"top_k": top_k, "seed": 0, "phase": "train", "tokens": 100_000}
        | {"wall_seconds": (0.05 * experts + 2 * top_k) * rng.uniform(0.9, 1.1)}
        for experts in (64, 128, 256)
        for top_k in (1, 2, 4)
        for factor in (0.9, 1.1, 1.3, 1.5)
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(tokens_per_second=frame["tokens"] / frame["wall_seconds"])


def made_folder(
    path: Path, results: pd.DataFrame | None = None, timing: pd.DataFrame | None = None
) -> RunFolder:
    """Write a run's folder with these results and timing, the made-up ones where none are given."""
    folder = RunFolder.start(path, "routers", {})
    write_parquet(path / "results.parquet", made_results() if results is None else results)
    (made_timing() if timing is None else timing).to_csv(path / "timing.csv", index=False)
    return folder


def _pareto(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for router in ROUTERS:
        for factor in CAPACITIES:
            for seed in SEEDS:
                key: Row = {"router": router, "capacity_factor": factor, "seed": seed}
                drop = max(0.0, 1.4 - factor) * (0.02 if router == "expert-choice" else 0.15)
                perplexity = BASE[router] * (1 + 0.3 * drop) + rng.normal(0, 0.3)
                rows.append(
                    _quality(rng, "pareto", perplexity, drop)
                    | key
                    | {"experts": 64, "top_k": 1 if router == "top1" else 6}
                )
                for step in range(0, 1001, 100):
                    measured = step % 200 == 0
                    rows.append(
                        key
                        | {"record": "curve", "part": "pareto", "step": step, "tokens": 512 * step}
                        | {"train_loss": np.log(perplexity), "experts": 64, "top_k": 6}
                        | {"perplexity": _learning(perplexity, step) if measured else np.nan}
                    )
                rows += [
                    key
                    | {"record": "document", "part": "pareto", "request": request, "tokens": 128}
                    | {"domain": "code" if request % 2 else "prose"}
                    | {"loss": np.log(perplexity) + 0.3 * np.sin(request) + rng.normal(0, 0.02)}
                    for request in range(12)
                ]
                for topology in TOPOLOGIES:
                    seconds = TIME[router] * (0.6 if topology == "leaf-spine" else 1.0)
                    p99 = seconds * (0.7 + 0.3 * factor) * rng.uniform(0.97, 1.03)
                    rows.append(
                        key
                        | {"record": "step", "part": "pareto", "topology": topology}
                        | {"placement": "eplb", "moe_s": 0.9 * p99, "moe_p50_s": 0.88 * p99}
                        | {"moe_p99_s": p99, "dispatch_s": 0.3 * p99, "compute_s": 0.3 * p99}
                        | {"combine_s": 0.3 * p99, "bound_s": 0.5 * p99, "dropped_share": drop}
                    )
    return rows


def _learning(perplexity: float, step: int) -> float:
    return perplexity * (1 + 60 * float(np.exp(-step / 120)))


def _quality(rng: np.random.Generator, part: str, perplexity: float, drop: float) -> Row:
    return {
        "record": "quality",
        "part": part,
        "perplexity": perplexity,
        "loss": np.log(perplexity),
        "causal_perplexity": 1.7 * perplexity if 23 < perplexity < 25.5 else np.nan,
        "token_drop_rate": drop**2,
        "assignment_drop_rate": drop,
        "load_cv": rng.uniform(0.1, 0.8),
        "gate_entropy": rng.uniform(0.3, 0.99),
        "gini": rng.uniform(0.1, 0.4),
        "max_over_mean": rng.uniform(1.2, 3),
        "parameters": 6.1e6,
        "active_parameters": 1.4e6,
    }


def _sweeps(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for experts in (64, 128, 256):
        for top_k in (1, 2, 4):
            for factor in (0.9, 1.1, 1.3, 1.5):
                drop = 0.25 * np.exp(-2 * (factor - 0.9)) / top_k**0.5 * (experts / 64) ** 0.3
                rows.append(
                    _quality(rng, "capacity", 30.0 + 10 * drop, drop)
                    | {"router": "softk", "capacity_factor": factor, "experts": experts}
                    | {"top_k": top_k, "seed": 0, "causal_perplexity": np.nan}
                )
    for experts in (8, 16, 32):
        for router in ROUTERS:
            for seed in SEEDS:
                rows.append(
                    _quality(rng, "size", BASE[router] + 20 / experts + rng.normal(0, 0.6), 0.0)
                    | {"router": router, "capacity_factor": 1.25, "experts": experts}
                    | {"top_k": 2, "seed": seed}
                )
                if router == "expert-choice":
                    rows[-1]["causal_perplexity"] = rows[-1]["perplexity"] + 6
    return rows


def _layers(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for router in ROUTERS:
        for seed in SEEDS:
            for layer in range(LAYERS):
                for domain in ("all", "code", "prose"):
                    gini = 0.1 + 0.04 * ROUTERS.index(router) + 0.01 * layer
                    rows.append(
                        _layer(layer, gini + rng.normal(0, 0.01), domain)
                        | {"router": router, "capacity_factor": 1.25, "seed": seed}
                        | {"source": "trained", "tokens": 20_000, "experts": 64}
                    )
    for source, layers, gini in (("deepseek-v2-lite", 26, 0.27), ("gpt-oss-20b", 24, 0.4)):
        rows += [
            _layer(layer, gini + rng.normal(0, 0.04), "all") | {"source": source}
            for layer in range(layers)
        ]
    return rows


def _layer(layer: int, gini: float, domain: str) -> Row:
    return {
        "record": "layer",
        "part": "profile",
        "layer": layer,
        "domain": domain,
        "gini": gini,
        "load_cv": 1.9 * gini,
        "max_over_mean": 1 + 5 * gini,
        "max_over_min": np.inf if layer == 2 else 1 + 50 * gini,
        "uniform_gini": 0.02,
    }


def _changes(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for seed in SEEDS:
        for number, loss in enumerate(LOSSES):
            for weight in (0.0,) if loss == "none" else (0.01, 0.1):
                before, gini = 27.0 + 0.2 * seed, 0.35 + 0.01 * seed
                after = before - 0.8 + 6 * weight * (1 + number / 3) + rng.normal(0, 0.05)
                rows.append(
                    {"record": "loss", "part": "losses", "router": "softk", "balance_loss": loss}
                    | {"weight": weight, "seed": seed, "gini_before": gini}
                    | {"perplexity_before": before, "perplexity_after": after}
                    | {"gini_after": gini * (1 - 7 * weight**0.9 / (1 + number / 2))}
                )
        for router in ("softk", "bias-balanced"):
            for number, assignment in enumerate(ASSIGNMENTS):
                key: Row = {"router": router, "assignment": assignment, "seed": seed}
                key["part"] = "assignments"
                worse = (0, 0.02, 0.6, 0.9, 0.15, 0.05, 0.01)[number]
                rows.append(
                    key
                    | {
                        "record": "assignment",
                        "perplexity": BASE[router] * (1 + worse) + 0.1 * seed,
                    }
                    | {"load_cv": 0.5 / (1 + number), "gini": 0.3 / (1 + number)}
                )
                for topology in TOPOLOGIES:
                    saved = (0, 0.2, 0.33, 0.3, 0.1, 0.17, 0.12)[number] * rng.uniform(0.9, 1.1)
                    p99 = TIME[router] * (1 - saved) * (0.6 if topology == "leaf-spine" else 1)
                    rows.append(
                        key
                        | {"record": "assignment_step", "topology": topology, "moe_p99_s": p99}
                        | {"moe_s": 0.9 * p99}
                    )
        for variant, size in (
            ("full", 6e6),
            ("routed", 3e4),
            ("shared", 2e4),
            ("router-only", 4e3),
        ):
            for rank in (4, 8, 16) if variant in ("routed", "shared") else (0,):
                trained = size * max(rank, 1)
                rows.append(
                    {"record": "adapter", "part": "adapters", "variant": variant, "rank": rank}
                    | {"trained_parameters": trained, "seed": seed, "perplexity_before": 29.0}
                    | {"perplexity_after": 30 - np.log10(trained) + 0.2 * rng.normal()}
                )
    return rows
