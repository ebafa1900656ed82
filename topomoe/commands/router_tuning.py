"""The part tuning of ``topomoe routers``: every router gets its own learning rate and balance.

All routers are tried on the same grid of learning rates, each with its own means of balance, and
judged on validation text; the models that are compared are then trained with what was best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any

from topomoe.commands.router_bench import Bench, Progress, Rows, key, timing_row
from topomoe.commands.router_tasks import Task
from topomoe.moe.evaluation import evaluate
from topomoe.moe.settings import TrainingSettings
from topomoe.moe.training import DivergedError
from topomoe.run_folder import read_parquet


def tuning_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return the validation perplexity of one trial; NaN of one that diverged."""
    settings = bench.settings
    training = tuned(
        settings.training.shortened(settings.tune_steps),
        task.router,
        task.learning_rate,
        task.balance,
    )
    model = bench.untrained(settings.shape(task.router, task.capacity_factor), task.seed)
    row = {
        "record": "tuning",
        **key(task),
        "learning_rate": task.learning_rate,
        "balance": task.balance,
        "perplexity": nan,
        "loss": nan,
    }
    try:
        bench.train(task.model, model, training, task.seed, progress)
    except DivergedError:
        return [row], []
    found = evaluate(model, bench.validation.tokens)
    row |= {"perplexity": found.perplexity, "loss": float(found.loss.mean())}
    row |= found.routing.summary()
    seconds, tokens = bench.seconds(task.model)
    return [row], [timing_row(task, "train", tokens, seconds)]


def tuned(
    training: TrainingSettings, router: str, learning_rate: float, balance: float
) -> TrainingSettings:
    """Return the training with a trial's learning rate and balance."""
    training = replace(training, learning_rate=learning_rate)
    if router == "bias-balanced":
        return replace(training, bias_update=balance)
    return replace(training, balance_weight=balance)


def best_training(
    training: TrainingSettings, router: str, trials: Sequence[Path]
) -> TrainingSettings:
    """Return the training with what was best for a router; as it is where nothing was tried.

    Args:
        training: the settings' own.
        router: the router.
        trials: the tables that ``tuning_rows`` made.
    """
    rows: list[dict[str, Any]] = [dict(read_parquet(path).iloc[0]) for path in trials]
    own = [row for row in rows if row["router"] == router]
    if not own:
        return training
    # A trial that diverged has no loss to compare.
    best = min(own, key=lambda row: (isnan(row["loss"]), row["loss"]))
    return tuned(training, router, float(best["learning_rate"]), float(best["balance"]))
