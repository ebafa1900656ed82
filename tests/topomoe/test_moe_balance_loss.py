"""Balance losses: closed forms, the same Gini as the statistics', gradients and their sign."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from topomoe import stats
from topomoe.moe.balance_loss import balance_loss, names, z_loss
from topomoe.topologies.errors import InputError

OF_GATE = ("gini", "variance", "cv", "entropy")


def gate(seed: int, tokens: int, experts: int, skew: float = 2.0) -> Tensor:
    """Return logits [T, E] that prefer the last experts."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(tokens, experts)) + skew * np.linspace(0, 1, experts))


def chosen_load(probabilities: Tensor, top_k: int = 2) -> Tensor:
    picks = probabilities.detach().topk(min(top_k, probabilities.shape[1])).indices
    return picks.flatten().bincount(minlength=probabilities.shape[1])


def test_the_names() -> None:
    assert names() == ("switch", *OF_GATE)
    with pytest.raises(InputError, match="unknown balance loss 'ginni'; did you mean 'gini'"):
        balance_loss("ginni", torch.full((2, 2), 0.5), torch.ones(2))


@pytest.mark.parametrize("experts", [1, 2, 7, 64])
def test_an_even_gate_costs_nothing(experts: int) -> None:
    even = torch.full((5, experts), 1 / experts, dtype=torch.float64)
    load = torch.arange(experts) + 1
    assert balance_loss("switch", even, load).item() == pytest.approx(1, abs=1e-12)
    for name in OF_GATE:
        assert balance_loss(name, even, load).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("experts", [2, 7, 64])
def test_a_gate_on_one_expert_costs_most(experts: int) -> None:
    one = torch.zeros(5, experts, dtype=torch.float64)
    one[:, 1] = 1.0
    load = chosen_load(one, top_k=1)
    expected = {
        "switch": experts,
        "gini": 1 - 1 / experts,
        "variance": (1 - 1 / experts) / experts,
        "cv": sqrt(experts - 1),
        "entropy": 1.0,
    }
    for name in names():
        assert balance_loss(name, one, load).item() == pytest.approx(expected[name], abs=1e-9)


def test_switch_is_e_times_the_sum_of_f_and_p_whatever_k() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], dtype=torch.float64)
    # P = (.4, .4, .2); f = (1, 3, 0) / 4; 3 (.1 + .3) = 1.2
    for scale in (1, 5):
        load = torch.tensor([1, 3, 0]) * scale
        assert balance_loss("switch", probabilities, load).item() == pytest.approx(1.2, rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 40))
def test_the_measures_are_those_of_the_statistics(seed: int, tokens: int, experts: int) -> None:
    probabilities = gate(seed, tokens, experts).softmax(dim=1)
    mean = probabilities.mean(dim=0).numpy()
    expected = {
        "gini": stats.gini(mean),
        "cv": stats.coefficient_of_variation(mean),
        "variance": mean.var(),
        "entropy": 1 - stats.entropy(mean, normalised=True) if experts > 1 else 0.0,
    }
    for name in OF_GATE:
        value = balance_loss(name, probabilities, torch.ones(experts)).item()
        assert value == pytest.approx(float(expected[name]), abs=1e-12)


@pytest.mark.parametrize("name", [*names(), "z"])
def test_the_gradient_is_that_of_the_value(name: str) -> None:
    logits = gate(1, 6, 5).requires_grad_()
    load = chosen_load(logits)

    def loss(x: Tensor) -> Tensor:
        return z_loss(x) if name == "z" else balance_loss(name, x.softmax(dim=1), load)

    assert torch.autograd.gradcheck(loss, (logits,))
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("name", names())
def test_a_step_down_evens_out_the_load(name: str) -> None:
    logits = gate(2, 400, 8).requires_grad_()
    before = chosen_load(logits).numpy()
    for _ in range(30):
        probabilities = logits.softmax(dim=1)
        loss = balance_loss(name, probabilities, chosen_load(probabilities))
        (gradient,) = torch.autograd.grad(loss, logits)
        # One step for all tokens, as of a gate's bias.
        shift = gradient.sum(dim=0)
        logits = (logits - 0.02 * shift / shift.norm()).detach().requires_grad_()
    assert stats.gini(chosen_load(logits).numpy()) < 0.8 * stats.gini(before)


@pytest.mark.parametrize("name", names())
def test_gradients_are_finite_at_an_even_gate_and_at_one_expert(name: str) -> None:
    sure = torch.zeros(4, 6)
    sure[:, 2] = 1e4  # the softmax of the others is exactly 0 in float32
    for logits in (torch.zeros(4, 6), sure):
        leaf = logits.requires_grad_()
        probabilities = leaf.softmax(dim=1)
        (gradient,) = torch.autograd.grad(
            balance_loss(name, probabilities, torch.tensor([0, 0, 4, 0, 0, 0])), leaf
        )
        assert torch.isfinite(gradient).all()


def test_z_loss_is_the_mean_squared_log_of_the_partition_function() -> None:
    # ln(8 e^x) = x + ln 8
    logits = torch.tensor([[0.0] * 8, [2.0] * 8], dtype=torch.float64)
    expected = (log(8) ** 2 + (2 + log(8)) ** 2) / 2
    assert z_loss(logits).item() == pytest.approx(expected, rel=1e-12)
    assert z_loss(torch.full((1, 2), -log(2))).item() == pytest.approx(0, abs=1e-12)
