"""The parts of ``topomoe routers`` that change a trained model: losses, assignments, adapters."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from math import isnan
from typing import TYPE_CHECKING

from topomoe.commands.router_bench import (
    Bench,
    Progress,
    Row,
    Rows,
    key,
    load_measures,
    only_domain,
    shifted,
    windows,
)
from topomoe.commands.router_parts import set_capacity
from topomoe.commands.router_tasks import Task
from topomoe.commands.routers_settings import FULL
from topomoe.moe import assignment
from topomoe.moe.adapter_settings import AdapterSettings
from topomoe.moe.adapters import attach
from topomoe.moe.evaluation import evaluate
from topomoe.moe.training import DivergedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from topomoe.moe.evaluation import Evaluation
    from topomoe.moe.language_model import LanguageModel


def loss_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return perplexity and Gini before and after fine-tuning with one balance loss."""
    settings = bench.settings
    rows: Rows = []
    weights = (0.0,) if task.choice == "none" else settings.loss_weights
    for number, weight in enumerate(weights):
        model, _ = bench.base(task, _silent)
        before = evaluate(model, bench.held_out.tokens)
        training = replace(
            bench.training(task.router).shortened(settings.loss_steps),
            learning_rate=settings.loss_rate,
            balance_loss=task.choice,
            balance_weight=weight,
        )
        done = number * training.steps
        home = f"{task.name}-w{weight:g}"
        bench.train(home, model, training, task.seed, shifted(progress, done))
        after = evaluate(model, bench.held_out.tokens)
        rows.append(
            {
                "record": "loss",
                **key(task),
                "balance_loss": task.choice,
                "weight": weight,
                **_before_and_after(before, after),
            }
        )
    return rows, []


def assignment_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return perplexity, load and step time with each assignment in the router's place."""
    model, _ = bench.base(task, _silent)
    served = replace(task, capacity_factor=bench.settings.assignment_factor)
    set_capacity(model, served.capacity_factor)
    counted = evaluate(model, bench.calibration.tokens).routing.load
    rows: Rows = []
    for number, name in enumerate(bench.settings.assignments):

        def rule(name: str = name) -> assignment.Assigner:
            return assignment.make(name, counted, task.capacity_factor, task.seed)

        found = evaluate(model, bench.held_out.tokens, rule())
        rows.append(
            {
                "record": "assignment",
                **key(served),
                "assignment": name,
                "perplexity": found.perplexity,
                "loss": float(found.loss.mean()),
                **found.routing.summary(),
                **load_measures(found.routing.load),
            }
        )
        trace = bench.trace(model, task, rule(), f"-{name}")
        rows += assignment_steps(served, bench.steps(trace, served), name)
        progress(number + 1)
    return rows, []


def assignment_steps(task: Task, steps: Rows, name: str) -> Rows:
    """Return step rows as of record "assignment_step"."""
    return [{**row, "record": "assignment_step", **key(task), "assignment": name} for row in steps]


def adapter_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return perplexity before and after adapters, or all parameters, are trained on a domain."""
    settings = bench.settings
    ranks = (0,) if task.choice == FULL else settings.adapter_ranks
    corpora = only_domain(bench.corpora, settings.adapter_domain)
    length = bench.context + 1
    judged = windows(corpora.test, settings.requests, length).tokens
    watched = windows(corpora.validation, settings.training.validation_sequences, length).tokens
    chosen = bench.held_out.domain_names.index(settings.adapter_domain)
    others = bench.held_out.tokens[bench.held_out.domain != chosen]
    rows: Rows = []
    done = 0
    for rank in ranks:
        best, least = None, float("inf")
        for rate in settings.adapter_rates:
            model, _ = bench.base(task, _silent)
            if rank:
                attach(model, AdapterSettings(variant=task.choice, rank=rank), task.seed)
            training = replace(
                bench.training(task.router).shortened(settings.adapter_steps), learning_rate=rate
            )
            home = f"{task.name}-r{rank}-l{rate:g}"
            told = shifted(progress, done)
            with suppress(DivergedError):
                bench.train(home, model, training, task.seed, told, corpora)
            done += training.steps
            loss = float(evaluate(model, watched).loss.mean())
            if best is None or loss < least or isnan(least):
                best, least = (model, rate), loss
        assert best is not None
        model, rate = best
        base, _ = bench.base(task, _silent)
        rows.append(
            {
                "record": "adapter",
                **key(task),
                "variant": task.choice,
                "rank": rank,
                "learning_rate": rate,
                "domain": settings.adapter_domain,
                "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
                **_before_and_after(evaluate(base, judged), evaluate(model, judged)),
                "others_perplexity_before": _perplexity(base, others),
                "others_perplexity_after": _perplexity(model, others),
            }
        )
    return rows, []


def _perplexity(model: LanguageModel, sequences: NDArray[np.int64]) -> float:
    return evaluate(model, sequences).perplexity if len(sequences) else float("nan")


def _before_and_after(before: Evaluation, after: Evaluation) -> Row:
    return {
        "perplexity_before": before.perplexity,
        "perplexity_after": after.perplexity,
        "gini_before": load_measures(before.routing.load)["gini"],
        "gini_after": load_measures(after.routing.load)["gini"],
    }


def _silent(done: int) -> None:
    """Take no note: the model is there already."""
