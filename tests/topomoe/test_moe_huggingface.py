"""Tiny, randomly initialised models of every family that is known; nothing is downloaded."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("transformers")

import torch
from safetensors.torch import load, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from topomoe.moe import assignment
from topomoe.moe.huggingface import (
    capture,
    load_pretrained,
    perplexity,
    profile_huggingface,
    reassign,
)
from topomoe.moe.huggingface_families import FAMILIES, routers
from topomoe.topologies.errors import InputError
from topomoe.trace import load_trace, save_trace

EXPERTS, TOP_K, VOCABULARY = 8, 3, 128
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": TOP_K,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN = {"num_experts": EXPERTS, "moe_intermediate_size": 16, "head_dim": 8}
LATENT = {
    "num_key_value_heads": 4,
    "n_routed_experts": EXPERTS,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "routed_scaling_factor": 1.7,
}
GROUPS = {"n_group": 4, "topk_group": 2}
# name: (family, its settings, layers with a router)
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "mixtral": ("mixtral", {"num_local_experts": EXPERTS, "router_jitter_noise": 0.3}, 3),
    "qwen2_moe": (
        "qwen2_moe",
        {**QWEN, "shared_expert_intermediate_size": 16, "mlp_only_layers": [1]},
        2,
    ),
    "qwen3_moe": ("qwen3_moe", {**QWEN, "norm_topk_prob": True}, 3),
    "olmoe": ("olmoe", {"num_experts": EXPERTS, "tie_word_embeddings": True}, 3),
    "deepseek_v2": ("deepseek_v2", {**LATENT, "topk_method": "greedy"}, 2),
    "deepseek_v2 groups": (
        "deepseek_v2",
        {**LATENT, **GROUPS, "topk_method": "group_limited_greedy"},
        2,
    ),
    "deepseek_v3": ("deepseek_v3", {**LATENT, **GROUPS}, 2),
    "deepseek_v3 not normalised": (
        "deepseek_v3",
        {**LATENT, **GROUPS, "norm_topk_prob": False},
        2,
    ),
    "gpt_oss": (
        "gpt_oss",
        {
            "num_local_experts": EXPERTS,
            "head_dim": 8,
            "sliding_window": 8,
            "intermediate_size": 64,
        },
        3,
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model of random weights whose routers have clear preferences, biases among them."""
    family, settings, _ = MODELS[name]
    config = AutoConfig.for_model(family, **{**COMMON, **settings})
    torch.manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for gate in routers(model):
            torch.nn.init.normal_(gate.weight, std=0.4)
            if family == "gpt_oss":
                torch.nn.init.normal_(gate.bias)
            if family == "deepseek_v3":
                torch.nn.init.normal_(gate.e_score_correction_bias, std=0.3)
    return model.to(dtype)


def token_ids(sequences: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    ids = np.random.default_rng(seed).integers(3, VOCABULARY, (sequences, length))
    return torch.from_numpy(ids)


@torch.no_grad()
def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits


Array = NDArray[np.float64]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def largest(scores: Array, k: int) -> NDArray[np.int64]:
    return np.sort(np.argsort(-scores, axis=-1)[:, :k], axis=-1)


def chosen_by_hand(name: str, gate: Any, logits: Array) -> NDArray[np.int64]:
    """The experts of each token, sorted, as the papers of the families define the choice."""
    if name.startswith("deepseek_v3"):
        scores = 1 / (1 + np.exp(-logits)) + gate.e_score_correction_bias.double().numpy()
        grouped = np.sort(scores.reshape(-1, 4, EXPERTS // 4))[..., -2:].sum(-1)
    else:
        scores = softmax(logits)
        grouped = scores.reshape(-1, 4, EXPERTS // 4).max(-1)
    if name == "deepseek_v2 groups" or name.startswith("deepseek_v3"):
        allowed = np.zeros_like(grouped, dtype=bool)
        np.put_along_axis(allowed, largest(grouped, 2), True, axis=-1)
        scores = np.where(np.repeat(allowed, EXPERTS // 4, axis=-1), scores, -np.inf)
    return largest(scores, TOP_K)


def weights_by_hand(name: str, logits: Array, experts: NDArray[np.int64]) -> Array:
    def at(scores: Array) -> Array:
        return np.take_along_axis(scores, experts, axis=-1)

    def to_one(weights: Array) -> Array:
        return weights / weights.sum(-1, keepdims=True)

    sigmoid = 1 / (1 + np.exp(-logits))
    return {
        "mixtral": lambda: to_one(at(softmax(logits))),
        "qwen2_moe": lambda: at(softmax(logits)),
        "qwen3_moe": lambda: to_one(at(softmax(logits))),
        "olmoe": lambda: at(softmax(logits)),
        "deepseek_v2": lambda: 1.7 * at(softmax(logits)),
        "deepseek_v2 groups": lambda: 1.7 * at(softmax(logits)),
        "deepseek_v3": lambda: 1.7 * to_one(at(sigmoid)),
        "deepseek_v3 not normalised": lambda: 1.7 * at(sigmoid),
        "gpt_oss": lambda: softmax(at(logits)),
    }[name]()


def gate_logits(gate: Any, hidden: torch.Tensor) -> Array:
    logits = hidden.reshape(-1, 32).double().numpy() @ gate.weight.detach().double().numpy().T
    return logits + (gate.bias.detach().double().numpy() if hasattr(gate, "bias") else 0)


def test_every_known_family_is_tried() -> None:
    assert {family for family, _, _ in MODELS.values()} == set(FAMILIES)


@every_model
def test_captured_experts_are_those_that_the_family_defines(name: str) -> None:
    model, ids = make(name), token_ids()
    seen: list[torch.Tensor] = []
    gates = routers(model)
    hooks = [gate.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for gate in gates]
    with capture(model) as captured:
        logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    experts = captured.experts()
    assert experts.dtype == np.int64
    assert experts.shape == (ids.numel(), MODELS[name][2], TOP_K)
    for m, (gate, hidden) in enumerate(zip(gates, seen, strict=True)):
        by_hand = chosen_by_hand(name, gate, gate_logits(gate, hidden))
        assert np.array_equal(np.sort(experts[:, m]), by_hand)
    assert len(np.unique(experts)) == EXPERTS


@every_model
def test_captured_experts_are_the_choice_from_the_router_logits_that_transformers_returns(
    name: str,
) -> None:
    model, ids = make(name), token_ids()
    with capture(model) as captured, torch.no_grad():
        # Asking for logits registers hooks of transformers' own on the same routers.
        output = model.model(input_ids=ids, use_cache=False, output_router_logits=True)
    assert len(output.router_logits) == MODELS[name][2]
    for m, logits in enumerate(output.router_logits):
        by_hand = chosen_by_hand(name, routers(model)[m], logits.double().numpy())
        assert np.array_equal(np.sort(captured.experts()[:, m]), by_hand)


@pytest.mark.parametrize("name", ["deepseek_v2 groups", "deepseek_v3"])
def test_a_limit_to_groups_is_seen_in_what_is_captured(name: str) -> None:
    model = make(name)
    with capture(model) as captured, torch.no_grad():
        output = model.model(input_ids=token_ids(), output_router_logits=True)
    experts = captured.experts()
    plain = np.stack([largest(x.double().numpy(), TOP_K) for x in output.router_logits], axis=1)
    assert not np.array_equal(np.sort(experts), plain)
    groups = np.sort(experts // (EXPERTS // 4))
    assert np.all((np.diff(groups) > 0).sum(-1) + 1 <= 2)


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reassigning_the_own_choice_changes_no_bit(name: str, dtype: torch.dtype) -> None:
    model, ids = make(name, dtype), token_ids()
    with capture(model) as captured:
        unhooked = logits_of(model, ids)
    own = captured.experts()
    with reassign(model, lambda layer, logits, top_k: torch.from_numpy(own[:, layer])):
        assert torch.equal(logits_of(model, ids), unhooked)
    assert torch.equal(logits_of(model, ids), unhooked)


@every_model
def test_the_largest_scores_that_an_assigner_sees_are_the_own_choice(name: str) -> None:
    model, ids = make(name), token_ids()
    with capture(model) as captured:
        unhooked = logits_of(model, ids)
    layers = MODELS[name][2]
    original = assignment.make("original", load=np.ones((layers, EXPERTS)))
    with reassign(model, original), capture(model) as again:
        torch.testing.assert_close(logits_of(model, ids), unhooked)
    assert np.array_equal(np.sort(again.experts()), np.sort(captured.experts()))


@pytest.mark.parametrize("name", ["deepseek_v2 groups", "deepseek_v3"])
def test_no_assignment_by_scores_leaves_the_groups_of_a_token(name: str) -> None:
    model = make(name)
    load = np.random.default_rng(0).integers(1, 99, (2, EXPERTS))
    for rule in ("balanced", "load-aware", "reroute"):
        assigner = assignment.make(rule, load, capacity_factor=1.1)
        with reassign(model, assigner), capture(model) as captured:
            logits_of(model, token_ids())
        groups = np.sort(captured.experts() // (EXPERTS // 4))
        assert np.all((np.diff(groups) > 0).sum(-1) + 1 <= 2)


def last_experts(layer: int, scores: torch.Tensor, top_k: int) -> torch.Tensor:
    return (-scores).topk(top_k, dim=-1).indices


@every_model
def test_reassigned_experts_weigh_as_the_family_weighs_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = make(name), token_ids()
    unhooked = logits_of(model, ids)
    chosen = {}

    def assigner(layer: int, scores: torch.Tensor, top_k: int) -> torch.Tensor:
        chosen[layer] = last_experts(layer, scores, top_k)
        return chosen[layer]

    with reassign(model, assigner):
        changed = logits_of(model, ids)
    assert float((changed - unhooked).abs().max()) > 1e-3

    def by_hand(layer: int, gate: Any) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
        def forward(hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits = gate_logits(gate, hidden)
            experts = chosen[layer].numpy()
            weights = weights_by_hand(name, logits, experts)
            return (
                torch.from_numpy(logits).float(),
                torch.from_numpy(weights).float(),
                torch.from_numpy(experts),
            )

        return forward

    for layer, gate in enumerate(routers(model)):
        monkeypatch.setattr(gate, "forward", by_hand(layer, gate))
    torch.testing.assert_close(logits_of(model, ids), changed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("capture_first", [True, False])
def test_what_is_captured_is_what_was_reassigned(capture_first: bool) -> None:
    model, ids = make("mixtral"), token_ids()
    seen = {}

    def assigner(layer: int, logits: torch.Tensor, top_k: int) -> torch.Tensor:
        seen[layer] = last_experts(layer, logits, top_k)
        return seen[layer]

    if capture_first:
        with capture(model) as captured, reassign(model, assigner):
            logits_of(model, ids)
    else:
        with reassign(model, assigner), capture(model) as captured:
            logits_of(model, ids)
    for m in range(3):
        assert np.array_equal(captured.experts()[:, m], seen[m].numpy())


def test_generated_tokens_are_captured_after_their_prompt() -> None:
    model, ids = make("qwen3_moe"), token_ids(1, 10)
    with capture(model) as captured:
        whole = model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    step_by_step = captured.experts()
    assert len(step_by_step) == 10 + 4 - 1  # the last token is never routed
    trace = profile_huggingface(model, [whole[0].numpy()], ["all"], ["a"])
    assert np.array_equal(trace.experts[:, :-1].transpose(1, 0, 2), step_by_step)


def test_hooks_are_gone_after_the_context_also_by_an_exception() -> None:
    model, ids = make("olmoe"), token_ids()
    unhooked = logits_of(model, ids)

    def fails(layer: int, logits: torch.Tensor, top_k: int) -> torch.Tensor:
        raise RuntimeError("an assigner of the user's")

    with pytest.raises(RuntimeError, match="user's"), capture(model), reassign(model, fails):
        logits_of(model, ids)
    with pytest.raises(RuntimeError, match="user's"):
        perplexity(model, list(ids), fails)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(logits_of(model, ids), unhooked)


@every_model
def test_a_profile_is_a_trace_that_survives_its_files(name: str, tmp_path: Path) -> None:
    model = make(name)
    sequences = [token_ids(1, length, seed=length)[0].numpy() for length in (9, 12, 9, 5, 9)]
    domains, names = ["code", "prose", "code", "prose", "manual"], list("abcde")
    trace = profile_huggingface(model, sequences, domains, names, batch=2)
    assert (trace.num_experts, trace.num_layers, trace.top_k) == (EXPERTS, MODELS[name][2], TOP_K)
    assert trace.request_ids == tuple(names)
    assert trace.domain_names == ("code", "manual", "prose")
    save_trace(trace, tmp_path)
    loaded = load_trace(tmp_path)
    assert loaded.num_experts == EXPERTS
    for a, b, ids, domain in zip(trace.requests, loaded.requests, sequences, domains, strict=True):
        assert a.domain == b.domain == domain
        assert np.array_equal(a.routed_experts, b.routed_experts)
        assert np.array_equal(a.position, np.arange(len(ids)))
        assert a.prompt_token_ids is not None
        assert b.prompt_token_ids is not None
        assert np.array_equal(a.prompt_token_ids, ids)
        assert np.array_equal(b.prompt_token_ids, ids)
        with capture(model) as captured:
            logits_of(model, torch.from_numpy(ids)[None])
        assert np.array_equal(a.routed_experts, captured.experts())


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_perplexity_is_the_loss_that_transformers_reports(name: str) -> None:
    model = make(name).train()  # Mixtral's jitter must not take part
    sequences = [token_ids(1, length, seed=length)[0] for length in (9, 12, 9, 2)]
    losses = perplexity(model, sequences, batch=2)
    assert all(module.training for module in model.modules())
    model.eval()
    assert losses.tokens.tolist() == [8, 11, 8, 1]
    with torch.no_grad():
        means = [float(model(input_ids=x[None], labels=x[None]).loss) for x in sequences]
    np.testing.assert_allclose(losses.nats / losses.tokens, means, rtol=1e-5)
    mean = np.dot(means, losses.tokens) / losses.tokens.sum()
    assert losses.perplexity == pytest.approx(np.exp(mean), rel=1e-5)


def test_perplexity_under_an_assigner_is_that_of_the_reassigned_model() -> None:
    model, ids = make("qwen2_moe"), token_ids(3, 10)
    losses = perplexity(model, list(ids), last_experts, batch=1)
    for q, sequence in enumerate(ids):
        with reassign(model, last_experts), torch.no_grad():
            mean = float(model(input_ids=sequence[None], labels=sequence[None]).loss)
        assert losses.nats[q] / 9 == pytest.approx(mean, rel=1e-5)
    assert not np.allclose(losses.nats, perplexity(model, list(ids)).nats, rtol=1e-4)


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        (torch.zeros(24, 2, dtype=torch.int64), "whole numbers \\[24, 3\\]"),
        (torch.zeros(24, 3), "whole numbers"),
        (torch.tensor([[0, 1, 8]] * 24), "in 0..7"),
        (torch.tensor([[0, 1, -1]] * 24), "in 0..7"),
        (torch.tensor([[5, 1, 5]] * 24), "distinct"),
    ],
)
def test_an_assigner_must_name_distinct_experts(experts: torch.Tensor, message: str) -> None:
    model = make("mixtral")
    with (
        pytest.raises(InputError, match=f"MoE layer 0 must be .*{message}"),
        reassign(model, lambda layer, logits, top_k: experts),
    ):
        logits_of(model, token_ids())


def test_an_unknown_family_is_refused_naming_the_known_ones() -> None:
    config = AutoConfig.for_model("llama", **{**COMMON, "num_hidden_layers": 1})
    model = AutoModelForCausalLM.from_config(config)
    ids = list(token_ids())
    for attempt in (
        lambda: capture(model).__enter__(),
        lambda: reassign(model, last_experts).__enter__(),
        lambda: profile_huggingface(model, ids, ["all"] * 2, ["a", "b"]),
        lambda: capture(torch.nn.Linear(2, 2)).__enter__(),
    ):
        with pytest.raises(InputError, match=r"unknown Mixture-of-Experts family.*deepseek_v3"):
            attempt()


def test_a_model_without_moe_layers_is_refused() -> None:
    family, settings, _ = MODELS["qwen2_moe"]
    dense = {**COMMON, **settings, "mlp_only_layers": [0, 1, 2]}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **dense))
    with pytest.raises(InputError, match="qwen2_moe model has no router: no MoE layer"):
        routers(model)


def test_routers_that_are_not_called_are_told_of() -> None:
    model = make("mixtral")
    with capture(model) as captured, pytest.raises(InputError, match="no router was called"):
        captured.experts()
    layer = model.model.layers[1].mlp
    layer.forward = lambda hidden: hidden  # as a fused kernel that does its own routing
    with capture(model) as captured:
        logits_of(model, token_ids())
    with pytest.raises(InputError, match="MoE layer 1 was called 0 times"):
        captured.experts()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": []}, "at least one sequence"),
        ({"sequences": [[3, 4], [VOCABULARY]]}, "sequence 1: token ids must be in 0..127"),
        ({"sequences": [[3, 4], [[5]]]}, "sequence 1 must be"),
        ({"sequences": [[3, 4], [5.5]]}, "sequence 1 must be whole"),
        ({"names": ["a", "a"]}, "'a' is there twice"),
        ({"domains": ["x"]}, "domains must be one a sequence"),
        ({"batch": 0}, "batch must be >= 1"),
    ],
)
def test_bad_sequences_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    arguments = {"sequences": [[3, 4], [5]], "domains": ["x", "y"], "names": ["a", "b"]}
    with pytest.raises(InputError, match=message):
        profile_huggingface(make("mixtral"), **{**arguments, **change})
    with pytest.raises(InputError, match="L >= 2"):
        perplexity(make("mixtral"), [[3]])


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def save_model(folder: Path, name: str = "olmoe") -> Any:
    model = make(name)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_a_loaded_model_routes_as_the_saved_one_and_runs_no_code(tmp_path: Path) -> None:
    model = save_model(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass M: pass\nclass C: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.M", "AutoConfig": "evil.C"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded, tokenizer = load_pretrained(tmp_path)
    assert not ran.exists()
    assert not loaded.training
    ids = tokenizer("w5 w9 w77 w3")["input_ids"]
    assert ids == [5, 9, 77, 3]
    a, b = (profile_huggingface(m, [ids], ["all"], ["a"]) for m in (model, loaded))
    assert np.array_equal(a.experts, b.experts)


@pytest.mark.usefixtures("no_network")
def test_what_cannot_be_loaded_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            load_pretrained(folder)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "is not a folder")
    refused(tmp_path, "cannot be loaded")
    dense = tmp_path / "dense"
    AutoConfig.for_model("llama").save_pretrained(dense)
    refused(dense, "unknown Mixture-of-Experts family 'llama'")
    folder = tmp_path / "model"
    model = save_model(folder)
    weights = (folder / "model.safetensors").read_bytes()
    incomplete = load(weights)
    del incomplete["model.layers.2.mlp.gate.weight"]
    save_file(incomplete, folder / "model.safetensors", {"format": "pt"})
    refused(folder, r"weights are missing: model\.layers\.2\.mlp\.gate\.weight \(1 in all\)")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").unlink()
    refused(folder, "cannot be loaded: .*tokenizer")
    (folder / "tokenizer_config.json").unlink()  # transformers would make an empty one
    refused(folder, "the tokenizer's vocabulary is missing")
    save_tokenizer(folder)
    (folder / "model.safetensors").write_bytes(weights[:-64])
    refused(folder, "cannot be loaded")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")  # a pickle is never read
    refused(folder, "cannot be loaded")
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(folder, r"pip install 'topomoe\[huggingface\]'")


@pytest.mark.usefixtures("no_network")
def test_gpt_oss_in_mxfp4_is_expanded_so_that_its_routers_are_called(tmp_path: Path) -> None:
    save_model(tmp_path, "gpt_oss")
    state = load((tmp_path / "model.safetensors").read_bytes())
    rng = np.random.default_rng(0)
    for key in [k for k in state if k.endswith(("gate_up_proj", "down_proj"))]:
        experts, inward, outward = state.pop(key).shape
        blocks = rng.integers(0, 256, (experts, outward, inward // 32, 16), dtype=np.uint8)
        state[f"{key}_blocks"] = torch.from_numpy(blocks)
        state[f"{key}_scales"] = torch.full(blocks.shape[:3], 122, dtype=torch.uint8)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _ = load_pretrained(tmp_path)
    trace = profile_huggingface(model, list(token_ids()), ["all"] * 2, ["a", "b"])
    assert (trace.num_layers, trace.num_positions, trace.top_k) == (3, 24, TOP_K)
