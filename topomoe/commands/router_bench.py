"""What the parts of ``topomoe routers`` share: the text, trained models, and rows about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.commands.router_network import step_rows
from topomoe.commands.router_tasks import Task, tasks_of
from topomoe.commands.routers_settings import RoutersSettings
from topomoe.moe.evaluation import Evaluation, evaluate
from topomoe.moe.language_model import Assigner, LanguageModel
from topomoe.moe.profiling import profile
from topomoe.moe.settings import LanguageModelSettings, TrainingSettings
from topomoe.moe.text import Corpora, Corpus, Requests
from topomoe.moe.training import Point, read_seconds, train
from topomoe.routing_trace import RoutingTrace
from topomoe.run_folder import RunFolder
from topomoe.stats import gini, max_over_mean
from topomoe.trace import save_trace

Row = dict[str, Any]
Rows = list[Row]
Progress = Callable[[int], None]  # steps of the task that are done
MODELS, TRACES = "models", "traces"


@dataclass(frozen=True, eq=False)
class Bench:
    """The settings and the text of a run, and the folder that it writes to."""

    settings: RoutersSettings
    corpora: Corpora
    folder: Path

    @property
    def context(self) -> int:
        """Tokens that a model sees of a window."""
        return self.settings.training.context

    @cached_property
    def held_out(self) -> Requests:
        """Test windows [Q, context + 1], the same for every model."""
        return windows(self.corpora.test, self.settings.requests, self.context + 1)

    @cached_property
    def calibration(self) -> Requests:
        """As many training windows, for what an assignment knows of a model's load."""
        return windows(self.corpora.training, self.settings.requests, self.context + 1)

    @cached_property
    def validation(self) -> Requests:
        """Validation windows, by which trials are judged."""
        return windows(self.corpora.validation, self.settings.requests, self.context + 1)

    def training(self, router: str) -> TrainingSettings:
        """Return how models with a router are trained: as its best trial was, if it had any."""
        from topomoe.commands.router_tuning import best_training

        trials = [
            RunFolder(self.folder).part(task.name)
            for task in tasks_of(self.settings)[0]
            if task.router == router
        ]
        return best_training(self.settings.training, router, trials)

    def train(
        self,
        home: str,
        model: LanguageModel,
        training: TrainingSettings,
        seed: int,
        progress: Progress,
        corpora: Corpora | None = None,
    ) -> list[Point]:
        """Train a model in models/``home``, or take up what is there; return its curve."""
        folder = self.folder / MODELS / home
        return train(
            model,
            corpora or self.corpora,
            training,
            seed,
            folder,
            lambda done, of: progress(done),
        )

    def untrained(self, shape: LanguageModelSettings, seed: int) -> LanguageModel:
        """Return a model with its first weights."""
        return LanguageModel(shape, self.corpora.training.vocabulary, seed)

    def base(self, task: Task, progress: Progress) -> tuple[LanguageModel, list[Point]]:
        """Return the trained model that a task is about, and its curve."""
        shape = self.settings.shape(task.router, task.capacity_factor)
        model = self.untrained(shape, task.seed)
        curve = self.train(task.model, model, self.training(task.router), task.seed, progress)
        return model, curve

    def trace(
        self, model: LanguageModel, task: Task, assignment: Assigner | None = None, name: str = ""
    ) -> RoutingTrace:
        """Return the trace of the held-out windows; it is written to traces/."""
        seen = replace(self.held_out, tokens=self.held_out.tokens[:, :-1])
        found = profile(model, seen, assignment)
        save_trace(found, self.folder / TRACES / f"{task.name}{name}.npz")
        return found

    def steps(self, trace: RoutingTrace, task: Task) -> Rows:
        """Return what the trace costs on the networks."""
        factor = 0.0 if task.router == "expert-choice" else task.capacity_factor
        return step_rows(trace, self.settings.network, factor, task.seed)

    def seconds(self, home: str) -> tuple[float, int]:
        """Return the seconds of a training's steps, and their tokens."""
        return read_seconds(self.folder / MODELS / home)


def shifted(progress: Progress, before: int) -> Progress:
    """Return what reports the steps of one of a task's trainings, with ``before`` done already."""
    return lambda done: progress(before + done)


def windows(corpus: Corpus, count: int, length: int) -> Requests:
    """Return the same windows of a corpus for every model."""
    return corpus.requests(count, length, seed=0)


def only_domain(corpora: Corpora, domain: str) -> Corpora:
    """Return the corpora's documents of one domain."""

    def own(corpus: Corpus) -> Corpus:
        chosen = corpus.select(corpus.document_domain == corpus.domain_names.index(domain))
        zeros = np.zeros_like(chosen.document_domain)
        return replace(chosen, document_domain=zeros, domain_names=(domain,))

    return replace(
        corpora,
        training=own(corpora.training),
        validation=own(corpora.validation),
        test=own(corpora.test),
        facts={**corpora.facts, "only": domain},
    )


def timed_evaluation(model: LanguageModel, requests: Requests) -> tuple[Evaluation, float]:
    """Return the evaluation of windows [Q, L + 1] and its seconds."""
    began = time.perf_counter()
    found = evaluate(model, requests.tokens)
    return found, time.perf_counter() - began


def key(task: Task, **others: Any) -> Row:
    """Return the columns that say which model a row is about."""
    return {
        "part": task.part,
        "router": task.router,
        "capacity_factor": task.capacity_factor,
        "experts": task.experts,
        "top_k": task.top_k,
        "seed": task.seed,
        **others,
    }


def quality_row(task: Task, model: LanguageModel, found: Evaluation, causal: float) -> Row:
    """Return a row of record "quality"; ``causal`` is the perplexity of a causal model."""
    everything, active = model.parameter_counts()
    return {
        "record": "quality",
        **key(task, experts=model.settings.experts, top_k=model.settings.top_k),
        "perplexity": found.perplexity,
        "loss": float(found.loss.mean()),
        "causal_perplexity": causal,
        **found.routing.summary(),
        **load_measures(found.routing.load),
        "parameters": everything,
        "active_parameters": active,
    }


def load_measures(load: ArrayLike) -> Row:
    """Return means over layers of loads [M, E]."""
    return {"gini": float(gini(load).mean()), "max_over_mean": float(max_over_mean(load).mean())}


def timing_row(task: Task, phase: str, tokens: int, seconds: float, **others: Any) -> Row:
    """Return a row of timing.csv."""
    return {
        **key(task, **others),
        "phase": phase,
        "tokens": tokens,
        "wall_seconds": round(seconds, 4),
        "tokens_per_second": round(tokens / seconds, 1) if seconds > 0 else float("nan"),
    }
