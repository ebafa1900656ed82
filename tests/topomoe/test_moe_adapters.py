"""Adapters: nothing changes when they are attached, only they learn, and each follows its gate."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from topomoe.moe.adapter_settings import VARIANTS, AdapterSettings
from topomoe.moe.adapters import Adapters, attach
from topomoe.moe.language_model import LanguageModel
from topomoe.moe.settings import LanguageModelSettings
from topomoe.topologies.errors import InputError

VOCABULARY = 50


def small(router: str = "softk", **given: Any) -> LanguageModel:
    shape = {"layers": 2, "hidden": 16, "heads": 2, "expert_hidden": 8, "experts": 6, "top_k": 2}
    return LanguageModel(LanguageModelSettings(**(shape | {"router": router} | given)), VOCABULARY)


def text(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (4, 12), generator=generator)


def loss_of(model: LanguageModel) -> Tensor:
    tokens = text()
    logits = model(tokens).logits[:, :-1]
    return functional.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1))


def train(model: LanguageModel, parameters: list[torch.nn.Parameter], steps: int = 20) -> None:
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(model).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("router", ["softk", "topk-hard", "hash", "expert-choice", "bias-balanced"])
def test_attaching_changes_no_bit_of_the_output(variant: str, router: str) -> None:
    model = small(router)
    before = model(text())
    attach(model, AdapterSettings(variant, rank=3), seed=1)
    after = model(text())
    assert torch.equal(before.logits, after.logits)
    for one, other in zip(before.layers, after.layers, strict=True):
        assert torch.equal(one.selection.expert, other.selection.expert)
        assert torch.equal(one.kept, other.kept)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_adapters_learn_and_the_loss_falls(variant: str) -> None:
    model = small()
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = attach(model, AdapterSettings(variant, rank=3), seed=1)
    drawn = [value.detach().clone() for value in parameters]
    before = loss_of(model).item()
    train(model, parameters)
    assert loss_of(model).item() < before - 0.05
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in parameters}
    assert all(not torch.equal(p, q) for p, q in zip(parameters, drawn, strict=True))


@pytest.mark.parametrize(
    ("variant", "each"),
    [("routed", 5 * (2 * 16 * 3 + 16)), ("embedded", 6 * 96), ("dense", 5 * 96), ("shared", 96)],
)
def test_trained_parameters_in_closed_form(variant: str, each: int) -> None:
    settings = AdapterSettings(variant, rank=3, adapters=5)
    parameters = attach(small(), settings, seed=1)
    assert sum(p.numel() for p in parameters) == 2 * each
    assert settings.trained_parameters(layers=2, hidden=16, experts=6) == 2 * each


def perturbed(model: LanguageModel, settings: AdapterSettings) -> list[Adapters]:
    """Attach adapters whose output is not 0."""
    attach(model, settings, seed=1)
    generator = torch.Generator().manual_seed(5)
    found: list[Adapters] = [layer.adapters for layer in model.expert_layers]  # type: ignore[misc]
    with torch.no_grad():
        for adapters in found:
            adapters.up.normal_(generator=generator)
    return found


@pytest.mark.parametrize("router", ["softk", "expert-choice"])
@pytest.mark.parametrize("capacity_factor", [0.7, 3.0])
def test_an_embedded_adapter_is_part_of_its_expert(router: str, capacity_factor: float) -> None:
    model = small(router, capacity_factor=capacity_factor)
    adapters = perturbed(model, AdapterSettings("embedded", rank=3))[0]
    layer = model.expert_layers[0]
    hidden = torch.randn(40, 16, generator=torch.Generator().manual_seed(2))
    output, routing = layer(hidden, torch.zeros(40, dtype=torch.int64))
    expected = torch.zeros_like(output)
    chosen = routing.selection
    for pair in routing.kept.nonzero()[:, 0].tolist():
        token, expert = int(chosen.token[pair]), int(chosen.expert[pair])
        h = hidden[token]
        own = torch.relu(h @ layer.w_in[expert]) @ layer.w_out[expert]
        beside = adapters.down[expert] @ h @ adapters.up[expert]
        expected[token] += chosen.weight[pair] * (own + beside)
    assert torch.allclose(output, expected, atol=1e-5)
    if capacity_factor < 1 and router == "softk":
        assert not routing.kept.all()


def test_a_routed_adapter_serves_the_tokens_that_its_router_gives_it() -> None:
    model = small()
    adapters = perturbed(model, AdapterSettings("routed", rank=3, adapters=5, top_k=2))[0]
    hidden = torch.randn(9, 16, generator=torch.Generator().manual_seed(2))
    _, routing = model.expert_layers[0](hidden, torch.zeros(9, dtype=torch.int64))
    for h, out in zip(hidden, adapters(hidden, routing), strict=True):
        gate = (adapters.gate @ h).softmax(dim=0)
        best = gate.argsort(descending=True)[:2].tolist()
        expected = sum(gate[n] * (adapters.down[n] @ h @ adapters.up[n]) for n in best)
        assert torch.allclose(out, torch.as_tensor(expected), atol=1e-5)


def test_the_routers_of_routed_adapters_learn_with_one_adapter_a_token() -> None:
    model = small()
    adapters = perturbed(model, AdapterSettings("routed", rank=3, top_k=1))
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    for each in adapters:
        assert each.gate.grad is not None
        assert each.gate.grad.abs().max() > 0


def test_dense_adapters_are_one_shared_adapter_of_all_their_ranks() -> None:
    dense = perturbed(small(), AdapterSettings("dense", rank=3, adapters=4))[0]
    model = small()
    shared = perturbed(model, AdapterSettings("shared", rank=12))[0]
    hidden = torch.randn(9, 16, generator=torch.Generator().manual_seed(2))
    _, routing = model.expert_layers[0](hidden, torch.zeros(9, dtype=torch.int64))
    with torch.no_grad():
        shared.down.copy_(dense.down.reshape(1, 12, 16))
        shared.up.copy_(dense.up.reshape(1, 12, 16))
    assert torch.allclose(dense(hidden, routing), shared(hidden, routing), atol=1e-5)


def test_the_same_seed_draws_the_same_adapters() -> None:
    drawn = [attach(small(), AdapterSettings("routed"), seed) for seed in (3, 3, 4)]
    assert all(torch.equal(p, q) for p, q in zip(drawn[0], drawn[1], strict=True))
    assert not torch.equal(drawn[0][0], drawn[2][0])


def test_a_copy_has_adapters_of_its_own_and_states_load() -> None:
    model = small()
    parameters = attach(model, AdapterSettings("embedded"), seed=1)
    before = copy.deepcopy(model)
    train(model, parameters, steps=3)
    assert not torch.equal(model(text()).logits, before(text()).logits)
    before.load_state_dict(model.state_dict())
    assert torch.equal(model(text()).logits, before(text()).logits)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="unknown adapter variant 'route'; did you mean 'routed'"):
        AdapterSettings("route")
    with pytest.raises(InputError, match="rank must be >= 1, got 0"):
        AdapterSettings(rank=0)
    with pytest.raises(InputError, match="top_k must be <= adapters, got 5 of 4"):
        AdapterSettings(top_k=5)
    model = small()
    attach(model, AdapterSettings(), seed=1)
    with pytest.raises(InputError, match="the model has adapters already"):
        attach(model, AdapterSettings(), seed=1)
