"""A model's choices as a routing trace: each token's experts, heaviest first, and none made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from topomoe.moe.evaluation import evaluate
from topomoe.moe.language_model import LanguageModel
from topomoe.moe.profiling import experts_of, profile
from topomoe.moe.routers import names
from topomoe.moe.routers.selection import Selection
from topomoe.moe.text import Corpora, Requests
from topomoe.routing_trace import RoutingTrace
from topomoe.trace import load_trace, save_trace

Build = Callable[..., LanguageModel]
COUNT, LENGTH = 10, 21


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def requests(small_corpora: Callable[..., Corpora]) -> Requests:
    return small_corpora().test.requests(COUNT, LENGTH, seed=0)


def traced(small_model: Build, router: str, requests: Requests) -> RoutingTrace:
    return profile(small_model(router, capacity_factor=0.7), requests, batch_sequences=4)


@pytest.mark.parametrize("router", names())
def test_rows_are_the_routers_choices_heaviest_first(
    small_model: Build, requests: Requests, router: str
) -> None:
    model = small_model(router, capacity_factor=0.7)
    trace = profile(model, requests, batch_sequences=4)
    assert trace.num_experts == 6
    assert trace.num_layers == 2
    for start in range(0, COUNT, 4):
        batch = torch.from_numpy(requests.tokens[start : start + 4])
        with torch.no_grad():
            output = model(batch)
        for m, layer in enumerate(output.layers):
            pairs: dict[int, dict[int, float]] = {t: {} for t in range(batch.numel())}
            chosen = layer.selection
            for t, e, w in zip(
                chosen.token.tolist(), chosen.expert.tolist(), chosen.weight.tolist(), strict=True
            ):
                pairs[t][e] = w
            for t, weights in pairs.items():
                row = trace.experts[m, start * LENGTH + t].tolist()
                there = row[: len(weights)]
                assert set(there) == weights.keys()
                assert row[len(weights) :] == [-1] * (len(row) - len(weights))
                heaviness = [weights[e] for e in there]
                assert heaviness == sorted(heaviness, reverse=True)


def test_only_expert_choice_has_tokens_with_fewer_experts(
    small_model: Build, requests: Requests
) -> None:
    for router in names():
        trace = traced(small_model, router, requests)
        assert bool((trace.experts < 0).any()) == (router == "expert-choice")
        if router != "expert-choice":
            assert trace.top_k == (1 if router == "top1" else 2)
    # ceil(0.7 * 84 * 2 / 6) = 20 of 84 tokens, and ceil(0.7 * 42 * 2 / 6) = 10 of the last 42.
    trace = traced(small_model, "expert-choice", requests)
    assert (trace.load() == 20 + 20 + 10).all()
    assert (trace.experts >= 0).sum(axis=2).max() == trace.top_k


@pytest.mark.parametrize("router", names())
def test_loads_are_those_that_an_evaluation_counts_before_any_drop(
    small_model: Build, requests: Requests, small_corpora: Callable[..., Corpora], router: str
) -> None:
    model = small_model(router, capacity_factor=0.7)
    longer = np.concatenate([requests.tokens, requests.tokens[:, :1]], axis=1)
    found = evaluate(model, longer, batch_sequences=4).routing
    assert (profile(model, requests, batch_sequences=4).load() == found.load).all()
    if router != "expert-choice":
        assert found.kept.sum() < found.load.sum()


@pytest.mark.parametrize("router", names())
def test_a_trace_survives_being_saved(
    small_model: Build, requests: Requests, tmp_path: Path, router: str
) -> None:
    trace = traced(small_model, router, requests)
    save_trace(trace, tmp_path)
    loaded = load_trace(tmp_path)
    assert (loaded.experts == trace.experts).all()
    assert loaded.num_experts == trace.num_experts
    assert loaded.request_ids == trace.request_ids
    assert loaded.domain_names == trace.domain_names
    for field in ("request_start", "request_domain", "position", "prompt_len", "repetition"):
        assert (getattr(loaded, field) == getattr(trace, field)).all(), field
    for one, other in zip(loaded.requests, trace.requests, strict=True):
        assert one.prompt_token_ids is not None
        assert one.output_token_ids is not None
        assert other.prompt_token_ids is not None
        assert (one.prompt_token_ids == other.prompt_token_ids).all()
        assert (one.output_token_ids == other.output_token_ids).all()


def test_requests_keep_their_domains_and_tokens_under_names_of_their_own(
    small_model: Build, requests: Requests
) -> None:
    trace = traced(small_model, "softk", requests)
    assert trace.domain_names == ("letters", "signs")
    assert len(set(requests.names)) < COUNT  # several windows of a document
    assert len(set(trace.request_ids)) == COUNT
    for q, request in enumerate(trace.requests):
        assert request.domain == requests.domain_names[requests.domain[q]]
        assert request.request_id.startswith(requests.names[q])
        assert request.prompt_token_ids is not None
        assert request.output_token_ids is not None
        whole = np.concatenate([request.prompt_token_ids, request.output_token_ids])
        assert (whole == requests.tokens[q]).all()
        assert request.prompt_len == len(request.prompt_token_ids) == LENGTH // 2
        assert (request.position == np.arange(LENGTH)).all()
    parts = [trace.filter(part=part).num_positions for part in ("prompt", "output")]
    assert parts == [COUNT * 10, COUNT * 11]


def test_an_assignment_is_what_is_traced(small_model: Build, requests: Requests) -> None:
    def last_two(layer: int, scores: Tensor, top_k: int) -> Tensor:
        return torch.tensor([4, 5]).expand(len(scores), top_k)

    trace = profile(small_model(), requests, last_two)
    assert (np.sort(trace.experts, axis=2) == [4, 5]).all()


def test_experts_of_sorts_by_weight_and_pads() -> None:
    selection = Selection(
        logits=None,
        probabilities=torch.zeros(4, 9),
        token=torch.tensor([0, 0, 0, 2, 3, 3]),
        expert=torch.tensor([1, 5, 8, 0, 7, 2]),
        weight=torch.tensor([0.1, 0.7, 0.2, 0.5, 0.5, 0.5]),
    )
    assert experts_of(selection).tolist() == [[5, 8, 1], [-1, -1, -1], [0, -1, -1], [2, 7, -1]]
