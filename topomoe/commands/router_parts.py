"""The parts of ``topomoe routers`` that train models from nothing: pareto, size and capacity."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from topomoe.commands.router_bench import (
    Bench,
    Progress,
    Rows,
    key,
    quality_row,
    shifted,
    timed_evaluation,
    timing_row,
)
from topomoe.commands.router_tasks import Task
from topomoe.moe.evaluation import Evaluation, evaluate
from topomoe.moe.language_model import LanguageModel
from topomoe.moe.load_profile import layer_rows

_TIMED = 11  # tells the draws of timed batches from others


def base_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Train a model that other tasks need; nothing is said of it but its curve and its time."""
    _, curve = bench.base(task, progress)
    seconds, tokens = bench.seconds(task.model)
    rows = [{"record": "curve", **key(task), **point} for point in curve]
    return rows, [timing_row(task, "train", tokens, seconds)]


def pareto_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return everything about one trained model: curve, quality, layers and step times."""
    model, curve = bench.base(task, progress)
    found, seconds = timed_evaluation(model, bench.held_out)
    causal = causal_evaluation(bench, model, found)
    rows = [{"record": "curve", **key(task), **point} for point in curve]
    rows.append(quality_row(task, model, found, causal.perplexity))
    rows += document_rows(bench, task, found, causal)
    trace = bench.trace(model, task)
    rows += [{**row, **key(task)} for row in layer_rows(trace)]
    rows += [{**row, **key(task)} for row in bench.steps(trace, task)]
    trained, tokens = bench.seconds(task.model)
    times = [
        timing_row(task, "train", tokens, trained),
        timing_row(task, "evaluate", len(found.loss) * bench.context, seconds),
    ]
    return rows, times


def size_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return the quality of one router with each number of experts."""
    rows: Rows = []
    times: Rows = []
    settings = bench.settings
    training = bench.training(task.router).shortened(settings.size_steps)
    for number, experts in enumerate(settings.size_experts):
        shape = settings.shape(task.router, task.capacity_factor, experts)
        model = bench.untrained(shape, task.seed)
        home = f"{task.name}-{experts}"
        before = number * training.steps
        bench.train(home, model, training, task.seed, shifted(progress, before))
        found, _ = timed_evaluation(model, bench.held_out)
        causal = causal_evaluation(bench, model, found)
        rows.append(quality_row(task, model, found, causal.perplexity))
        seconds, tokens = bench.seconds(home)
        times.append(timing_row(task, "train", tokens, seconds, experts=experts))
    return rows, times


def capacity_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return one model's drops, perplexity and throughput at each capacity factor."""
    settings = bench.settings
    shape = settings.shape(task.router, task.capacity_factor, task.experts, task.top_k)
    model = bench.untrained(shape, task.seed)
    training = bench.training(task.router).shortened(settings.sweep_steps)
    bench.train(task.model, model, training, task.seed, progress)
    rows: Rows = []
    times: Rows = []
    for number, factor in enumerate(settings.sweep_factors):
        set_capacity(model, factor)
        here = replace(task, capacity_factor=factor)
        found, seconds = timed_evaluation(model, bench.held_out)
        rows.append(quality_row(here, model, found, found.perplexity))
        spent, tokens = _timed_passes(bench, model)
        times.append(timing_row(here, "train", tokens, spent))
        times.append(timing_row(here, "evaluate", len(found.loss) * bench.context, seconds))
        progress(training.steps + number + 1)
    return rows, times


def set_capacity(model: LanguageModel, capacity_factor: float) -> None:
    """Let a trained model whose tokens choose run at another capacity factor, 0: none."""
    for layer in model.expert_layers:
        layer.capacity_factor = capacity_factor


def _timed_passes(bench: Bench, model: LanguageModel) -> tuple[float, int]:
    """Return the seconds of forward and backward passes over training batches, and their tokens."""
    training, count = bench.settings.training, bench.settings.timed_steps
    spent = 0.0
    for step in range(count + 1):
        rng = np.random.default_rng([_TIMED, step])
        drawn = bench.corpora.training.batch(rng, training.batch_sequences, training.context + 1)
        tokens = torch.from_numpy(drawn)
        model.zero_grad(set_to_none=True)
        began = time.perf_counter()
        logits = model(tokens[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        spent += (time.perf_counter() - began) * (step > 0)  # the first warms up
    model.zero_grad(set_to_none=True)
    return spent, count * training.batch_sequences * training.context


def causal_evaluation(bench: Bench, model: LanguageModel, found: Evaluation) -> Evaluation:
    """Return the evaluation in which no token's experts follow from later tokens."""
    if model.settings.router != "expert-choice":
        return found
    return evaluate(model, bench.held_out.tokens, causal=True)


def document_rows(bench: Bench, task: Task, found: Evaluation, causal: Evaluation) -> Rows:
    """Return each held-out window's loss."""
    held_out = bench.held_out
    return [
        {
            "record": "document",
            **key(task),
            "request": number,
            "domain": held_out.domain_names[held_out.domain[number]],
            "loss": float(found.loss[number]),
            "causal_loss": float(causal.loss[number]),
            "tokens": bench.context,
        }
        for number in range(len(found.loss))
    ]
