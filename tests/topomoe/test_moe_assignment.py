"""Assignment rules: what each promises, plain restatements, and the edges of the input."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from math import ceil, log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from topomoe.moe import assignment
from topomoe.moe.language_model import LanguageModel
from topomoe.moe.settings import LanguageModelSettings
from topomoe.topologies.errors import InputError

FACTORS = ("0.5", "0.9", "1", "1.1", "1.25", "3")


def random_logits(seed: int, tokens: int, experts: int, skew: float = 1.0) -> Tensor:
    """Return logits [T, E] whose later experts are the less liked, the more so with ``skew``."""
    rng = np.random.default_rng(seed)
    liked = -skew * np.arange(experts) / experts
    return torch.from_numpy(rng.normal(size=(tokens, experts)) + liked).float()


def counts(experts: Tensor, number: int) -> NDArray[np.int64]:
    return np.bincount(experts.numpy().ravel(), minlength=number)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, int, NDArray[np.float64], Fraction]:
    """Return logits [T, E], K, calibration counts [1, E] (zeros among them) and a factor."""
    experts = draw(st.integers(1, 12))
    top_k = draw(st.integers(1, experts))
    tokens = draw(st.integers(0, 30))
    logits = random_logits(draw(st.integers(0, 2**32 - 1)), tokens, experts, skew=3.0)
    if draw(st.booleans()):
        logits = logits.round()  # many ties
    load = np.array([draw(st.lists(st.integers(0, 50), min_size=experts, max_size=experts))])
    return logits, top_k, load.astype(float), Fraction(draw(st.sampled_from(FACTORS)))


@pytest.mark.parametrize("name", assignment.names())
@settings(max_examples=25, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**40))
def test_rows_are_distinct_experts_and_the_same_calls_give_the_same(
    name: str, case: Any, seed: int
) -> None:
    logits, top_k, load, factor = case
    tokens, experts = logits.shape
    one, two = (assignment.make(name, load, float(factor), seed) for _ in range(2))
    for _ in range(2):
        chosen = one(0, logits, top_k)
        assert chosen.dtype == torch.int64
        assert chosen.shape == (tokens, top_k)
        ordered = np.sort(chosen.numpy(), axis=1)
        assert (np.diff(ordered, axis=1) > 0).all()
        assert tokens == 0 or (ordered.min() >= 0 and ordered.max() < experts)
        assert torch.equal(chosen, two(0, logits, top_k))
    assert one.assigned.sum() == 2 * tokens * top_k


@pytest.mark.parametrize("name", assignment.names())
def test_with_all_experts_chosen_nothing_is_left_to_choose(name: str) -> None:
    chosen = assignment.make(name, [[5, 0, 0, 9]], 0.5, 3)(0, random_logits(1, 7, 4), 4)
    assert (chosen.sort(dim=1).values == torch.arange(4)).all()


@pytest.mark.parametrize("name", ["balanced", "load-aware"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("load", [0.0, 7.0])
def test_even_calibration_loads_change_nothing(name: str, dtype: torch.dtype, load: float) -> None:
    logits = random_logits(2, 200, 16).to(dtype)
    even = np.full((3, 16), load)
    own = assignment.make("original", even)(1, logits, 4)
    assert torch.equal(own, logits.topk(4).indices)
    assert torch.equal(assignment.make(name, even)(1, logits, 4), own)


def test_balanced_and_load_aware_follow_their_formulas() -> None:
    load = np.array([[1.0, 2.0, 3.0, 10.0], [4.0, 3.0, 2.0, 7.0]])
    logits = random_logits(3, 100, 4).double()
    mean = load.mean(axis=1)
    for layer in range(2):
        plain = logits - torch.from_numpy(np.log(load[layer] / mean[layer]))
        chosen = assignment.make("balanced", load)(layer, logits, 2)
        assert torch.equal(chosen, plain.topk(2).indices)
        linear = logits / 2 - torch.from_numpy((load[layer] - mean[layer]) / mean[layer])
        chosen = assignment.make("load-aware", load)(layer, logits, 2)
        assert torch.equal(chosen, linear.topk(2).indices)


def test_balanced_divides_the_gate_by_the_load() -> None:
    # ln 8 apart in logits, 8 apart in load: level; a little to either side decides.
    for nudge, expert in ((1e-3, 0), (-1e-3, 1)):
        logits = torch.tensor([[log(8) + nudge, 0.0]], dtype=torch.float64)
        assert assignment.make("balanced", [[80, 10]])(0, logits, 1).item() == expert


def test_balanced_counts_an_expert_never_seen_as_one_pair() -> None:
    logits = random_logits(4, 300, 5).double()
    unseen = assignment.make("balanced", [[400, 30, 0, 90, 7]])(0, logits, 2)
    once = logits - torch.tensor([400.0, 30.0, 1.0, 90.0, 7.0], dtype=torch.float64).log()
    assert torch.equal(unseen, once.topk(2).indices)
    shares = assignment.make("balanced", [[0.7, 0.2, 0.0, 0.08, 0.02]])(0, logits, 2)
    least = logits - torch.tensor([0.7, 0.2, 0.02, 0.08, 0.02], dtype=torch.float64).log()
    assert torch.equal(shares, least.topk(2).indices)


def calibrated(name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return test loads [E] before and under a rule; expert 0 is the hottest, the last coldest."""
    calibration, test = (random_logits(seed, 2000, 16, skew=2.0) for seed in (5, 6))
    load = [counts(calibration.topk(2).indices, 16)]
    before = counts(test.topk(2).indices, 16)
    after = counts(assignment.make(name, load)(0, test, 2), 16)
    assert after.sum() == before.sum() == 4000
    return before, after


@pytest.mark.parametrize("name", ["filtered", "round-robin", "random"])
def test_skewed_routing_comes_out_more_even(name: str) -> None:
    before, after = calibrated(name)
    assert after.std() < 0.5 * before.std()


@pytest.mark.parametrize("name", ["balanced", "load-aware"])
def test_calibration_moves_load_from_hot_experts_to_cold_ones(name: str) -> None:
    before, after = calibrated(name)
    assert after[:4].sum() < 0.5 * before[:4].sum()
    assert after[-4:].sum() > 2 * before[-4:].sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.data())
def test_round_robin_loads_differ_by_at_most_one(experts: int, data: st.DataObject) -> None:
    rule = assignment.make("round-robin", np.zeros((2, experts)))
    total = np.zeros(experts, dtype=int)
    for _ in range(3):
        tokens, top_k = data.draw(st.integers(0, 20)), data.draw(st.integers(1, experts))
        total += counts(rule(1, torch.zeros(tokens, experts), top_k), experts)
        assert total.max() - total.min() <= 1
    assert (rule.assigned == [np.zeros(experts), total]).all()


def test_random_draws_every_expert_alike_and_anew_for_each_seed_layer_and_call() -> None:
    logits = random_logits(7, 4000, 8, skew=9.0)
    rule = assignment.make("random", np.zeros((2, 8)), seed=1)
    draws = [rule(0, logits, 3), rule(0, logits, 3), rule(1, logits, 3)]
    draws.append(assignment.make("random", np.zeros((2, 8)), seed=2)(0, logits, 3))
    for i, chosen in enumerate(draws):
        # 4000 x 3/8 = 1500 each; a deviation of sqrt(4000 x 3/8 x 5/8) = 31.
        assert np.abs(counts(chosen, 8) - 1500).max() < 5 * 31
        assert all(not torch.equal(chosen, other) for other in draws[:i])


def test_layers_do_not_disturb_one_another() -> None:
    logits = random_logits(8, 50, 6)
    for name in assignment.names():
        mixed, alone = (assignment.make(name, np.ones((2, 6)), 1.0, 4) for _ in range(2))
        mixed(0, logits, 2)
        assert torch.equal(mixed(1, logits, 2), alone(1, logits, 2))


@settings(max_examples=80, deadline=None)
@given(cases())
def test_filtered_takes_the_least_loaded_of_the_best_2k(case: Any) -> None:
    logits, top_k, load, _ = case
    tokens, experts = logits.shape
    rule = assignment.make("filtered", load)
    prior = load[0] / load.mean() if load.any() else np.ones(experts)
    count = np.zeros(experts, dtype=int)
    for _ in range(2):
        best = logits.topk(min(2 * top_k, experts)).indices.tolist()
        chosen = rule(0, logits, top_k).tolist()
        for t in range(tokens):
            now = prior + count
            ranked = sorted(best[t], key=lambda e: (now[e], best[t].index(e)))[:top_k]
            assert sorted(chosen[t]) == sorted(ranked)
            count[ranked] += 1


def test_filtered_in_two_calls_is_filtered_in_one() -> None:
    logits = random_logits(10, 400, 12, skew=3.0)
    load = np.random.default_rng(1).random((1, 12))
    once, twice = (assignment.make("filtered", load) for _ in range(2))
    halves = torch.cat([twice(0, half, 3) for half in logits.chunk(2)])
    assert torch.equal(once(0, logits, 3), halves)


def rerouted(logits: Tensor, top_k: int, factor: Fraction) -> list[list[int]]:
    """Restate re-routing pair by pair."""
    tokens, experts = logits.shape
    capacity = ceil(factor * tokens * top_k / experts)
    count = [0] * experts
    rows = []
    for row, own in zip(logits.tolist(), logits.topk(top_k).indices.tolist(), strict=True):
        got: list[int] = []
        for expert in own:
            room = [e for e in range(experts) if count[e] < capacity and e not in own + got]
            if count[expert] >= capacity and room:
                expert = max(room, key=lambda e: (row[e], -e))
            count[expert] += 1
            got.append(expert)
        rows.append(got)
    return rows


@settings(max_examples=100, deadline=None)
@given(cases())
def test_reroute_is_the_sequential_rule(case: Any) -> None:
    logits, top_k, load, factor = case
    chosen = assignment.make("reroute", load, float(factor))(0, logits, top_k)
    assert chosen.tolist() == rerouted(logits, top_k, factor)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_reroute_overfills_no_expert_while_the_token_has_another_with_room(case: Any) -> None:
    logits, top_k, load, factor = case
    tokens, experts = logits.shape
    capacity = ceil(factor * tokens * top_k / experts)
    count = np.zeros(experts, dtype=int)
    for row in assignment.make("reroute", load, float(factor))(0, logits, top_k).numpy():
        before = count.copy()
        count[row] += 1
        if (before[row] >= capacity).any():
            with_room = before < capacity
            with_room[row] = False
            assert not with_room.any()
    if top_k == 1 and factor >= 1:
        assert count.max(initial=0) <= capacity


def test_reroute_leaves_alone_what_fits() -> None:
    logits = random_logits(9, 300, 8, skew=4.0)
    own = logits.topk(2).indices
    assert torch.equal(assignment.make("reroute", np.zeros((1, 8)), 0.0)(0, logits, 2), own)
    assert torch.equal(assignment.make("reroute", np.zeros((1, 8)), 8.0)(0, logits, 2), own)
    tight = assignment.make("reroute", np.zeros((1, 8)), 1.0)(0, logits, 2)
    assert counts(own, 8).max() > 75
    assert not torch.equal(tight, own)


def test_reroute_never_chooses_an_expert_that_the_router_forbids() -> None:
    logits = torch.full((6, 4), -torch.inf)
    logits[:, 1] = 0.0
    chosen = assignment.make("reroute", np.zeros((1, 4)), 1.0)(0, logits, 1)
    assert chosen.flatten().tolist() == [1] * 6


def test_a_language_model_takes_every_rule() -> None:
    shape = LanguageModelSettings(
        layers=2, hidden=16, heads=2, expert_hidden=8, experts=8, top_k=2, capacity_factor=1.0
    )
    model = LanguageModel(shape, vocabulary=40)
    tokens = torch.randint(40, (4, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own = model(tokens)
        load = np.stack([layer.selection.load().numpy() for layer in own.layers])
        outputs = {
            name: model(tokens, assignment.make(name, load, 1.0)) for name in assignment.names()
        }
    assert torch.equal(outputs["original"].logits, own.logits)
    for name, output in outputs.items():
        assert name == "original" or not torch.equal(output.logits, own.logits)
    # An expert takes 4 x 32 x 2 / 8 = 32 pairs: re-routing loses next to none.
    dropped = [int((~layer.kept).sum()) for layer in own.layers]
    still = [int((~layer.kept).sum()) for layer in outputs["reroute"].layers]
    assert min(dropped) > 5
    assert max(still) <= 2
    assert all(layer.kept.all() for layer in outputs["round-robin"].layers)


def test_the_calibration_is_a_copy_and_gradients_stay_out() -> None:
    load = np.array([[1.0, 9.0]])
    rule = assignment.make("balanced", load)
    load[:] = 5.0
    logits = torch.tensor([[0.0, 1.0]], requires_grad=True)
    chosen = rule(0, logits, 1)
    assert chosen.item() == 0
    assert not chosen.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("balancd", [[1.0]]), "unknown assignment 'balancd'; did you mean 'balanced'"),
        (("random", [1.0, 2.0]), r"load must be \[layers, experts\], got shape \(2,\)"),
        (("random", [[1.0, -2.0]]), "load must be finite and >= 0"),
        (("random", [[1.0, float("nan")]]), "load must be finite and >= 0"),
        (("random", [["a"]]), "load must be numbers, got text"),
        (("reroute", [[1.0]], -1.0), "capacity_factor must be finite and >= 0, got -1.0"),
        (("random", [[1.0]], 1.0, -3), "seed must be >= 0, got -3"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        assignment.make(*arguments)


@pytest.mark.parametrize(
    ("layer", "shape", "top_k", "message"),
    [
        (2, (3, 4), 1, r"layer must be in 0\.\.1, got 2"),
        (-1, (3, 4), 1, r"layer must be in 0\.\.1, got -1"),
        (0, (3, 5), 1, r"logits must be \[tokens, 4\], got \[3, 5\]"),
        (0, (4,), 1, r"logits must be \[tokens, 4\], got \[4\]"),
        (0, (3, 4), 5, r"top_k must be in 1\.\.4, got 5"),
        (0, (3, 4), 0, r"top_k must be in 1\.\.4, got 0"),
    ],
)
def test_calls_that_do_not_fit_are_refused(
    layer: int, shape: tuple[int, ...], top_k: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        assignment.make("original", np.ones((2, 4)))(layer, torch.zeros(shape), top_k)


def test_the_package_loads_no_torch() -> None:
    code = (
        "import sys, topomoe.moe.assignment as a, topomoe.moe.balance_loss as b; "
        "a.names(); b.names(); "
        "print([m for m in ('torch', 'numba', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
