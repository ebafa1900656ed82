"""The language model and its expert layer: against plain loops, and who may see whom."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from topomoe.moe.evaluation import count_routing, evaluate, sequence_loss
from topomoe.moe.expert_layer import ExpertLayer, LayerRouting
from topomoe.moe.language_model import ROTARY_BASE, Attention, LanguageModel
from topomoe.moe.routers import names
from topomoe.moe.settings import LanguageModelSettings, TrainingSettings
from topomoe.stats import coefficient_of_variation
from topomoe.topologies.errors import InputError

LEARNED = tuple(name for name in names() if name != "hash")
TOKEN_CHOICE = tuple(name for name in names() if name != "expert-choice")
Build = Callable[..., LanguageModel]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_tokens(sequences: int, length: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(256, size=(sequences, length)))


def expert_layer(router: str, capacity_factor: float, seed: int = 0) -> ExpertLayer:
    settings = LanguageModelSettings(
        hidden=8,
        heads=2,
        expert_hidden=6,
        experts=5,
        top_k=1 if router == "top1" else 2,
        router=router,
        capacity_factor=capacity_factor,
    )
    layer = ExpertLayer(settings, 30).double()
    layer.draw(torch.Generator().manual_seed(seed), depth=1)
    return layer


def skewed(tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return token vectors that lean to one side, so that some experts overflow, and ids."""
    rng = np.random.default_rng(seed)
    hidden = torch.from_numpy(rng.normal(size=(tokens, 8)) + 0.7)
    return hidden, torch.from_numpy(rng.integers(30, size=tokens))


def loop_over_pairs(
    layer: ExpertLayer, hidden: Tensor, routing: LayerRouting, most: int
) -> tuple[Tensor, list[bool]]:
    """Return the layer's output, pair after pair, and which pairs found one of ``most`` seats."""
    chosen = routing.selection
    taken = [0] * layer.experts
    output = [torch.zeros(8).double() for _ in hidden]
    kept = []
    for pair, (t, e) in enumerate(zip(chosen.token.tolist(), chosen.expert.tolist(), strict=True)):
        taken[e] += 1
        kept.append(taken[e] <= most)
        if kept[-1]:
            inside = torch.relu(hidden[t] @ layer.w_in[e])
            output[t] = output[t] + chosen.weight[pair] * (inside @ layer.w_out[e])
    return torch.stack(output), kept


@pytest.mark.parametrize("router", names())
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.25])
def test_expert_layer_is_the_loop_over_tokens_and_experts(router: str, factor: float) -> None:
    if router == "expert-choice" and not factor:
        factor = 2.0
    layer = expert_layer(router, factor)
    hidden, ids = skewed(23, 1)
    hidden.requires_grad_()
    output, routing = layer(hidden, ids)
    limited = factor and router != "expert-choice"
    most = int(np.ceil(factor * 23 * layer.top_k / 5)) if limited else 23
    expected, kept = loop_over_pairs(layer, hidden, routing, most)
    assert routing.kept.tolist() == kept
    if not limited or factor < 1:
        assert all(kept) == (not limited)
    torch.testing.assert_close(output, expected)
    pull = torch.linspace(-1, 1, output.numel()).double().view_as(output)
    wanted = [hidden, *layer.parameters()]
    mine = torch.autograd.grad((pull * output).sum(), wanted, retain_graph=True)
    plain = torch.autograd.grad((pull * expected).sum(), wanted)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_without_a_seat_get_nothing_and_no_others_do() -> None:
    layer = expert_layer("softk", 0.4)
    hidden, ids = skewed(40, 2)
    output, routing = layer(hidden, ids)
    served = {
        t
        for t, kept in zip(routing.selection.token.tolist(), routing.kept.tolist(), strict=True)
        if kept
    }
    assert 0 < len(served) < 40
    for t in range(40):
        assert bool((output[t] == 0).all()) == (t not in served)


@pytest.mark.parametrize("router", TOKEN_CHOICE)
def test_no_capacity_drops_nothing_and_more_capacity_never_drops_more(router: str) -> None:
    hidden, ids = skewed(60, 3)
    kept = []
    for factor in (0.2, 0.5, 0.9, 1.0, 1.3, 2.0, 5.0, 0.0):
        _, routing = expert_layer(router, factor)(hidden, ids)
        kept.append(set(routing.kept.nonzero()[:, 0].tolist()))
    for fewer, more in pairwise(kept):
        assert fewer <= more
    assert len(kept[0]) < len(kept[-1]) == len(routing.kept)


@settings(max_examples=30)
@given(
    st.sampled_from(TOKEN_CHOICE),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.3, 1.0, 1.25]),
    st.integers(0, 2**31),
)
def test_chosen_pairs_are_conserved_and_no_expert_exceeds_its_capacity(
    router: str, tokens: int, factor: float, seed: int
) -> None:
    layer = expert_layer(router, factor, seed)
    hidden, ids = skewed(tokens, seed)
    _, routing = layer(hidden, ids)
    chosen = routing.selection
    assert int(chosen.load().sum()) == tokens * layer.top_k
    if factor:
        most = int(np.ceil(np.round(factor * tokens * layer.top_k / 5, 6)))
        seated = torch.bincount(chosen.expert[routing.kept], minlength=5)
        assert torch.equal(seated, chosen.load().clamp(max=most))
    else:
        assert routing.kept.all()


@pytest.mark.parametrize("router", LEARNED)
def test_the_language_models_loss_gives_every_gate_a_gradient(
    small_model: Build, router: str
) -> None:
    model = small_model(router, layers=3)
    tokens = random_tokens(4, 17)
    logits = model(tokens[:, :-1]).logits
    functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for layer in model.expert_layers:
        gradient = layer.router.gate.grad
        assert isinstance(gradient, Tensor)
        assert (gradient.abs().sum(dim=1) > 0).all()
        for weights in (layer.w_in, layer.w_out):
            assert weights.grad is not None
            assert (weights.grad.abs().sum(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("router", TOKEN_CHOICE)
@pytest.mark.parametrize("factor", [0.0, 0.7])
def test_no_token_sees_later_ones_where_tokens_choose(
    small_model: Build, router: str, factor: float
) -> None:
    model = small_model(router, capacity_factor=factor)
    tokens = random_tokens(3, 20, seed=4)
    for cut in (1, 9, 19):
        changed = tokens.clone()
        changed[-1, cut:] = (changed[-1, cut:] + 77) % 256
        with torch.no_grad():
            before, after = model(tokens), model(changed)
        torch.testing.assert_close(before.logits[:-1], after.logits[:-1])
        torch.testing.assert_close(before.logits[-1, :cut], after.logits[-1, :cut])
        assert not torch.allclose(before.logits[-1, cut:], after.logits[-1, cut:])
    assert bool(factor) == (not before.layers[0].kept.all())


def test_expert_choice_leaks_later_tokens_unless_positions_compete_apart(
    small_model: Build,
) -> None:
    model = small_model("expert-choice", capacity_factor=1.0)
    tokens = random_tokens(6, 20, seed=5)
    changed = tokens.clone()
    changed[:, 10:] = random_tokens(6, 10, seed=6)
    with torch.no_grad():
        causal = model(tokens, causal=True).logits, model(changed, causal=True).logits
        free = model(tokens).logits, model(changed).logits
    torch.testing.assert_close(causal[0][:, :10], causal[1][:, :10])
    assert not torch.allclose(causal[0][:, 10:], causal[1][:, 10:])
    assert not torch.allclose(free[0][:, :10], free[1][:, :10])


def test_causal_changes_nothing_where_tokens_choose(small_model: Build) -> None:
    model, tokens = small_model("softk"), random_tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, model(tokens, causal=True).logits)


def test_attention_sees_the_past_only_and_only_how_far_back_it_lies() -> None:
    attention = Attention(16, 2).double()
    attention.draw(torch.Generator().manual_seed(0), 1)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(1, 7, 16)))
    angle = torch.arange(50)[:, None] * ROTARY_BASE ** (-torch.arange(4).double() / 4)
    cosine, sine = angle.cos(), angle.sin()
    output = attention(x, cosine[:7], sine[:7])
    torch.testing.assert_close(output, attention(x, cosine[31:38], sine[31:38]))
    spread = attention(x, cosine[:14:2], sine[:14:2])
    assert not torch.allclose(output, spread)  # positions do matter
    later = x.clone()
    later[:, 4:] += 1.0
    torch.testing.assert_close(attention(later, cosine[:7], sine[:7])[:, :4], output[:, :4])


def test_attention_is_the_softmax_over_earlier_positions() -> None:
    attention = Attention(8, 2).double()
    attention.draw(torch.Generator().manual_seed(1), 1)
    x = np.random.default_rng(1).normal(size=(5, 8))
    w_in, w_out = (w.detach().numpy() for w in (attention.w_in, attention.w_out))
    angle = np.arange(5)[:, None] * ROTARY_BASE ** (-np.arange(2) / 2)
    mixed = np.zeros((5, 8))
    for head in range(2):
        span = slice(4 * head, 4 * head + 4)
        query, key, value = (x @ w_in[8 * part : 8 * part + 8][span].T for part in range(3))
        turned = []
        for part in (query, key):  # pairs (i, i + 2) are turned by the angle, as complex numbers
            z = (part[:, :2] + 1j * part[:, 2:]) * np.exp(1j * angle)
            turned.append(np.concatenate([z.real, z.imag], axis=1))
        for t in range(5):
            score = np.array([turned[0][t] @ turned[1][s] / np.sqrt(4) for s in range(t + 1)])
            share = np.exp(score) / np.exp(score).sum()
            mixed[t, span] = share @ value[: t + 1]
    tables = torch.from_numpy(np.cos(angle)), torch.from_numpy(np.sin(angle))
    found = attention(torch.from_numpy(x)[None], *tables)[0]
    assert found.detach().numpy() == pytest.approx(mixed @ w_out.T)


@pytest.mark.parametrize("router", names())
def test_parameters_are_those_of_the_closed_form(small_model: Build, router: str) -> None:
    model = small_model(router)
    layers, d, h, experts, vocabulary = 2, 16, 8, 6, 256
    gate = 0 if router == "hash" else experts * d
    beside = 2 * vocabulary * d + d + layers * (4 * d * d + 2 * d + gate)
    top_k = 1 if router == "top1" else 2
    expected = beside + layers * experts * 2 * d * h, beside + layers * top_k * 2 * d * h
    assert model.parameter_counts() == expected
    assert sum(p.numel() for p in model.parameters()) == expected[0]


def test_weights_follow_from_the_seed_alone(small_model: Build) -> None:
    torch.manual_seed(1)
    one = small_model("bias-balanced", seed=3).state_dict()
    torch.manual_seed(2)
    same, other = (small_model("bias-balanced", seed=s).state_dict() for s in (3, 4))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["embedding"], other["embedding"])
    gate = "layers.1.experts.router.gate"
    assert not torch.equal(one[gate], other[gate])
    assert not torch.equal(one["layers.0.experts.router.gate"], one[gate])


def test_gradients_are_the_same_bytes_with_several_threads(small_model: Build) -> None:
    # Enough tokens that torch shares the embedding's gradient out among threads.
    tokens = random_tokens(8, 65) % 5
    model = small_model("softk", layers=1, hidden=64, experts=2)
    found = []
    torch.set_num_threads(2)
    try:
        for _ in range(2):
            model.zero_grad()
            logits = model(tokens[:, :-1]).logits
            functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            found.append(
                [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None]
            )
    finally:
        torch.set_num_threads(1)
    assert found[0] == found[1]


def test_assignments_are_asked_layer_by_layer(small_model: Build) -> None:
    model, tokens = small_model("softk"), random_tokens(2, 5)
    asked = []

    def first(layer: int, scores: Tensor, top_k: int) -> Tensor:
        asked.append((layer, tuple(scores.shape), top_k))
        assert not scores.requires_grad
        return (torch.arange(top_k) + layer).expand(len(scores), top_k)

    output = model(tokens, first)
    assert asked == [(0, (10, 6), 2), (1, (10, 6), 2)]
    assert [set(layer.selection.expert.tolist()) for layer in output.layers] == [{0, 1}, {1, 2}]


@pytest.mark.parametrize("router", ["top1", "softk", "topk-hard", "bias-balanced"])
def test_the_routers_own_choice_as_an_assignment_changes_nothing(
    small_model: Build, router: str
) -> None:
    model, tokens = small_model(router), random_tokens(3, 8)
    for layer in model.expert_layers:
        if router == "bias-balanced":
            layer.router.after_step(torch.arange(6), 0.3)
    with torch.no_grad():
        own = model(tokens).logits
        assert torch.equal(own, model(tokens, lambda _, s, k: s.topk(k, dim=1).indices).logits)


@pytest.mark.parametrize("router", names())
@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_drop_rates_load_cv_and_entropy_are_those_of_plain_counts(
    small_model: Build, router: str, factor: float
) -> None:
    model = small_model(router, capacity_factor=factor)
    output = model(random_tokens(4, 11))
    found = count_routing(output).summary()
    dropped, pairs, unserved, variation, entropy = 0, 0, 0, [], []
    for layer in output.layers:
        chosen, kept = layer.selection, layer.kept.tolist()
        dropped += kept.count(False)
        pairs += len(kept)
        served = {t for t, k in zip(chosen.token.tolist(), kept, strict=True) if k}
        unserved += 44 - len(served)
        load = np.array([chosen.expert.tolist().count(e) for e in range(6)])
        variation.append(load.std() / load.mean())
        p = chosen.probabilities.numpy(force=True).astype(float)
        logarithm = np.log(np.where(p > 0, p, 1.0))
        entropy.append(-(p * logarithm).sum(axis=1).mean() / np.log(6))
    assert found["assignment_drop_rate"] == pytest.approx(dropped / pairs)
    assert found["token_drop_rate"] == pytest.approx(unserved / 88)
    assert found["load_cv"] == pytest.approx(np.mean(variation), abs=1e-12)
    assert found["gate_entropy"] == pytest.approx(np.mean(entropy), rel=1e-5)
    if factor < 1:
        assert unserved > 0  # with 44 K / 2 seats at most, or tokens that no expert picked
    if router == "expert-choice":
        assert found["assignment_drop_rate"] == found["load_cv"] == 0.0


@pytest.mark.parametrize("router", ["softk", "expert-choice"])
def test_evaluation_is_the_loss_of_each_sequence_in_batches(
    small_model: Build, router: str
) -> None:
    model, sequences = small_model(router, capacity_factor=0.8), random_tokens(7, 10)
    found = evaluate(model, sequences.numpy(), batch_sequences=3)
    losses, load = [], np.zeros((2, 6), dtype=np.int64)
    for start in (0, 3, 6):
        batch = sequences[start : start + 3]
        with torch.no_grad():
            output = model(batch[:, :-1])
        for row, targets in zip(output.logits, batch[:, 1:], strict=True):
            log_p = torch.log_softmax(row.double(), dim=1)
            losses.append(-np.mean([float(log_p[i, t]) for i, t in enumerate(targets.tolist())]))
        for m, layer in enumerate(output.layers):
            load[m] += layer.selection.load().numpy()
    assert found.loss == pytest.approx(np.array(losses), rel=1e-5)
    assert found.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert (found.routing.load == load).all()
    assert found.routing.tokens == 63
    assert found.routing.summary()["load_cv"] == pytest.approx(
        float(coefficient_of_variation(load).mean())
    )


def test_even_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    loss = sequence_loss(torch.zeros(2, 3, 50), torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert loss == pytest.approx(np.log([50.0, 50.0]))


def test_a_diverged_model_has_an_infinite_perplexity(small_model: Build) -> None:
    model = small_model()
    with torch.no_grad():
        model.embedding.mul_(1e4)
        model.norm.weight.mul_(1e4)
    assert evaluate(model, random_tokens(2, 9).numpy()).perplexity == np.inf


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": 0}, "layers must be >= 1, got 0"),
        ({"hidden": 20, "heads": 4}, "hidden must be an even multiple"),
        ({"top_k": 7, "experts": 6}, "top_k must be <= experts, got 7 of 6"),
        ({"router": "soft"}, "softk"),
        ({"router": "top1", "top_k": 2}, "top1"),
        ({"capacity_factor": -0.1}, "capacity_factor must be >= 0"),
        ({"capacity_factor": float("nan")}, "capacity_factor must be >= 0"),
        ({"router": "expert-choice", "capacity_factor": 0.0}, "expert-choice needs"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LanguageModelSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"clip_norm": float("inf")}, "clip_norm must be > 0 and finite"),
        ({"balance_weight": -1.0}, "balance_weight must be >= 0"),
        ({"balance_loss": "gine"}, "gini"),
    ],
)
def test_impossible_trainings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainingSettings(**changes)
