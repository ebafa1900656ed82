"""The part profile of ``topomoe routers``, and what it does with a pretrained model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.commands.processes import cores
from topomoe.commands.router_bench import (
    TRACES,
    Bench,
    Progress,
    Row,
    Rows,
    key,
    load_measures,
    windows,
)
from topomoe.commands.router_changes import assignment_rows, assignment_steps
from topomoe.commands.router_tasks import Task
from topomoe.moe import assignment
from topomoe.moe.load_profile import TRAINED, layer_rows
from topomoe.moe.text import Requests, divided_documents, make_corpus
from topomoe.routing_trace import RoutingTrace
from topomoe.stats import coefficient_of_variation
from topomoe.trace import save_trace

TRACE = "trace.npz"


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A Hugging Face model with windows of the run's text, in its own tokens."""

    name: str
    model: Any
    held_out: Requests
    calibration: Requests

    def trace(self, requests: Requests, rule: assignment.Assigner | None = None) -> RoutingTrace:
        """Return what the routers choose, or what ``rule`` chooses instead of them."""
        from topomoe.moe.huggingface import profile_huggingface, reassign

        domains, names = requests.window_domains, requests.window_names
        with nullcontext() if rule is None else reassign(self.model, rule):
            return profile_huggingface(self.model, list(requests.tokens), domains, names)

    def losses(self, rule: assignment.Assigner | None = None) -> NDArray[np.float64]:
        """Return the mean loss of each held-out window, nats a token, [Q]."""
        from topomoe.moe.huggingface import perplexity

        found = perplexity(self.model, list(self.held_out.tokens), rule)
        return np.asarray(found.nats / found.tokens)


@dataclass(frozen=True)
class _OwnTokenizer:
    """A Hugging Face tokenizer as what encodes text."""

    tokenizer: Any

    @property
    def vocabulary(self) -> int:
        return len(self.tokenizer)

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [
            np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
            for text in texts
        ]


def load_model(bench: Bench) -> Pretrained:
    """Return the pretrained model of the settings, with the same documents held out as ever."""
    import torch

    from topomoe.moe.huggingface import load_pretrained

    torch.set_num_threads(cores())  # a large model is one task alone
    settings, text = bench.settings, bench.settings.text
    model, tokenizer = load_pretrained(settings.pretrained)
    documents, part = divided_documents(text)
    own = _OwnTokenizer(tokenizer)
    training, test = (
        windows(
            make_corpus(
                [d for d, p in zip(documents, part, strict=True) if p == number],
                text.domains,
                own,
            ),
            settings.requests,
            bench.context + 1,
        )
        for number in (0, 2)
    )
    return Pretrained(Path(settings.pretrained).name, model, test, training)


def profile_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return the load of each layer of one model; its trace is the run's trace.npz."""
    if bench.settings.pretrained:
        given = load_model(bench)
        trace, source = given.trace(given.held_out), given.name
        task_key: Row = {"part": task.part}
    else:
        model, _ = bench.base(task, lambda done: None)
        trace, source, task_key = bench.trace(model, task), TRAINED, key(task)
    save_trace(trace, bench.folder / TRACE)
    progress(1)
    return [{**row, **task_key} for row in layer_rows(trace, source)], []


def pretrained_assignment_rows(bench: Bench, task: Task, progress: Progress) -> tuple[Rows, Rows]:
    """Return what ``assignment_rows`` does, of the pretrained model."""
    if not bench.settings.pretrained:
        return assignment_rows(bench, task, progress)
    given = load_model(bench)
    counted = given.trace(given.calibration).load()
    rows: Rows = []
    for number, name in enumerate(bench.settings.assignments):

        def rule(name: str = name) -> assignment.Assigner | None:
            # The router's own choice may be limited to groups of experts, or have a bias.
            factor = bench.settings.base_factor
            return None if name == "original" else assignment.make(name, counted, factor, 0)

        losses = given.losses(rule())
        trace = given.trace(given.held_out, rule())
        save_trace(trace, bench.folder / TRACES / f"{task.name}-{name}.npz")
        about = {**key(task), "router": given.name}
        about |= {"experts": trace.num_experts, "top_k": trace.top_k, "assignment": name}
        rows.append(
            {
                "record": "assignment",
                **about,
                "perplexity": float(np.exp(losses.mean())),
                "loss": float(losses.mean()),
                "load_cv": float(coefficient_of_variation(trace.load()).mean()),
                **load_measures(trace.load()),
            }
        )
        steps = assignment_steps(task, bench.steps(trace, task), name)
        rows += [{**row, **about, "record": "assignment_step"} for row in steps]
        progress(number + 1)
    return rows, []
