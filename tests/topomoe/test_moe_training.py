"""Training: it learns, the same seed gives the same bytes, and a killed one ends with them too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from topomoe import checkpoint_file
from topomoe.moe import training
from topomoe.moe.balance_loss import balance_loss, z_loss
from topomoe.moe.balance_loss import names as balance_losses
from topomoe.moe.evaluation import evaluate
from topomoe.moe.language_model import LanguageModel
from topomoe.moe.routers import names
from topomoe.moe.settings import BALANCE_LOSSES, TrainingSettings
from topomoe.moe.text import Corpora
from topomoe.moe.training import CHECKPOINT, MODEL, auxiliary_loss, learning_rate, read_seconds
from topomoe.topologies.errors import InputError

Build = Callable[..., LanguageModel]
BuildText = Callable[..., Corpora]
SHORT = TrainingSettings(
    steps=7,
    batch_sequences=3,
    context=12,
    warmup_steps=2,
    curve_points=3,
    validation_sequences=4,
    checkpoint_steps=2,
)


class Killed(Exception):
    pass


def kill_after(calls: int) -> Callable[..., None]:
    """Return a function that stops the training in its ``calls``-th call."""
    left = [calls]

    def count(*_: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed

    return count


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def text(small_corpora: BuildText) -> Corpora:
    return small_corpora()


@pytest.fixture(scope="module")
def whole_run(
    small_model: Build, text: Corpora, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, list[dict[str, float]]]:
    """Return the file and the curve of a short training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    curve = training.train(small_model(), text, SHORT, 0, folder)
    assert sorted(p.name for p in folder.iterdir()) == [MODEL, training.TIMING]
    return (folder / MODEL).read_bytes(), curve


@pytest.mark.parametrize("router", names())
def test_every_router_learns(
    small_model: Build, text: Corpora, tmp_path: Path, router: str
) -> None:
    model = small_model(router, hidden=32)
    settings = replace(SHORT, steps=30, context=32, batch_sequences=8, learning_rate=2e-2)
    start = evaluate(model, text.test.requests(8, 33, seed=1).tokens).perplexity
    curve = training.train(model, text, settings, 0, tmp_path)
    assert [point["step"] for point in curve] == [10, 20, 30]
    assert [point["tokens"] for point in curve] == [10 * 256, 20 * 256, 30 * 256]
    losses = [point["train_loss"] for point in curve]
    assert losses == sorted(losses, reverse=True)
    # Better than the shares of the letters and signs alone, from which no context is learned.
    share = np.bincount(text.training.token_ids) / text.training.tokens
    without_context = np.exp(-sum(p * np.log(p) for p in share if p > 0))
    end = evaluate(model, text.test.requests(8, 33, seed=1).tokens).perplexity
    assert max(curve[-1]["perplexity"], end) < 0.6 * without_context < start


def test_the_curve_holds_means_over_the_steps_since_the_point_before(
    small_model: Build, text: Corpora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def watched(*arguments: Any) -> dict[str, float]:
        steps.append(step(*arguments))
        return steps[-1]

    step = training._step
    monkeypatch.setattr(training, "_step", watched)
    curve = training.train(small_model(), text, SHORT, 0, tmp_path)
    assert [point["step"] for point in curve] == [2, 5, 7]
    for point, span in zip(curve, (slice(0, 2), slice(2, 5), slice(5, 7)), strict=True):
        for name in ("train_loss", "load_cv", "gate_entropy", "token_drop_rate"):
            assert point[name] == pytest.approx(np.mean([values[name] for values in steps[span]]))


def test_same_seed_same_bytes_other_seed_others(
    small_model: Build,
    text: Corpora,
    tmp_path: Path,
    whole_run: tuple[bytes, list[dict[str, float]]],
) -> None:
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002  (nothing may come from the global generators)
    curve = training.train(small_model(), text, SHORT, 0, tmp_path / "same")
    assert (tmp_path / "same" / MODEL).read_bytes() == whole_run[0]
    assert curve == whole_run[1]
    training.train(small_model(), text, SHORT, 1, tmp_path / "batches")
    training.train(small_model(seed=1), text, SHORT, 0, tmp_path / "weights")
    files = {(tmp_path / name / MODEL).read_bytes() for name in ("same", "batches", "weights")}
    assert len(files) == 3


@pytest.mark.parametrize("step", range(1, 8))
def test_killed_after_any_step_it_ends_with_the_same_bytes_and_curve(
    small_model: Build,
    text: Corpora,
    tmp_path: Path,
    whole_run: tuple[bytes, list[dict[str, float]]],
    step: int,
) -> None:
    with pytest.raises(Killed):
        training.train(small_model(), text, SHORT, 0, tmp_path, kill_after(step))
    assert (tmp_path / CHECKPOINT).exists() == (step > 1)
    done = []
    curve = training.train(
        small_model(), text, SHORT, 0, tmp_path, lambda at, total: done.append((at, total))
    )
    first = min(step // 2 * 2, 6) + 1
    assert done == [(s, 7) for s in range(first, 8)]  # from the last checkpoint on
    assert (tmp_path / MODEL).read_bytes() == whole_run[0]
    assert curve == whole_run[1]
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("place", "call"),
    [
        *(("_step", call) for call in (1, 4, 7)),
        *(("evaluate", call) for call in (1, 2, 3)),
        *(("write_atomic", call) for call in (1, 2, 3, 4)),
        *(("Checkpoint.write", call) for call in (1, 2, 3, 4)),
    ],
)
def test_killed_within_a_step_or_a_write_it_ends_with_the_same_bytes(
    small_model: Build,
    text: Corpora,
    tmp_path: Path,
    whole_run: tuple[bytes, list[dict[str, float]]],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    call: int,
) -> None:
    module: Any = checkpoint_file if place == "Checkpoint.write" else training
    name = "write_atomic" if place == "Checkpoint.write" else place
    count, real = kill_after(call), getattr(module, name)

    def killing(*arguments: Any, **named: Any) -> Any:
        count()
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killing)
        with pytest.raises(Killed):
            training.train(small_model(), text, SHORT, 0, tmp_path)
    assert not (tmp_path / MODEL).exists()
    curve = training.train(small_model(), text, SHORT, 0, tmp_path)
    assert (tmp_path / MODEL).read_bytes() == whole_run[0]
    assert curve == whole_run[1]


@pytest.mark.parametrize("router", [name for name in names() if name != "softk"])
def test_killed_again_and_again_every_router_ends_with_the_same_bytes(
    small_model: Build, text: Corpora, tmp_path: Path, router: str
) -> None:
    whole = training.train(small_model(router), text, SHORT, 0, tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Killed):
            training.train(small_model(router), text, SHORT, 0, tmp_path / "cut", kill_after(3))
    assert training.train(small_model(router), text, SHORT, 0, tmp_path / "cut") == whole
    files = [(tmp_path / name / MODEL).read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_finished_training_is_read_back(
    small_model: Build, text: Corpora, tmp_path: Path
) -> None:
    trained = small_model("bias-balanced")
    curve = training.train(trained, text, SHORT, 0, tmp_path)
    model = small_model("bias-balanced")
    (tmp_path / CHECKPOINT).write_bytes(b"left by a kill between two writes")
    calls: list[int] = []
    again = training.train(model, text, SHORT, 0, tmp_path, lambda *_: calls.append(1))
    assert again == curve
    assert calls == []
    assert not (tmp_path / CHECKPOINT).exists()
    for (name, one), other in zip(
        trained.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    assert any(bool(layer.router.bias.abs().sum() > 0) for layer in model.expert_layers)


@pytest.mark.parametrize("left", [CHECKPOINT, MODEL])
@pytest.mark.parametrize(
    "changed", ["steps", "balance_loss", "seed", "initial weights", "router", "text", "frozen"]
)
def test_what_another_training_left_is_refused(
    small_model: Build,
    small_corpora: BuildText,
    text: Corpora,
    tmp_path: Path,
    left: str,
    changed: str,
) -> None:
    if left == CHECKPOINT:
        with pytest.raises(Killed):
            training.train(small_model(), text, SHORT, 0, tmp_path, kill_after(5))
    else:
        training.train(small_model(), text, SHORT, 0, tmp_path)
    model, corpora, settings, seed = small_model(), text, SHORT, 0
    if changed == "steps":
        settings = replace(SHORT, steps=9)
    elif changed == "balance_loss":
        settings = replace(SHORT, balance_loss="gini")
    elif changed == "seed":
        seed = 1
    elif changed == "initial weights":
        with torch.no_grad():
            model.expert_layers[0].w_in[0, 0, 0] += 1e-6
    elif changed == "router":
        model = small_model("topk-hard")
    elif changed == "frozen":
        model.embedding.requires_grad_(False)
    else:
        corpora = small_corpora(1)
    before = (tmp_path / left).read_bytes()
    with pytest.raises(InputError) as refused:
        training.train(model, corpora, settings, seed, tmp_path)
    message = str(refused.value)
    assert str(tmp_path / left) in message
    assert "another training" in message
    assert "\n" not in message
    assert (tmp_path / left).read_bytes() == before


@pytest.mark.parametrize("left", [CHECKPOINT, MODEL])
@pytest.mark.parametrize("damage", ["empty", "cut", "header", "other"])
def test_a_damaged_file_is_refused_by_its_path(
    small_model: Build, text: Corpora, tmp_path: Path, left: str, damage: str
) -> None:
    if left == CHECKPOINT:
        with pytest.raises(Killed):
            training.train(small_model(), text, SHORT, 0, tmp_path, kill_after(5))
    else:
        training.train(small_model(), text, SHORT, 0, tmp_path)
    path = tmp_path / left
    content = path.read_bytes()
    other = tmp_path / "other"
    checkpoint_file.Checkpoint({"a": np.zeros(2)}, {}).write(other, "something else")
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "header": content[:20] + b"\xff" * 40 + content[60:],
            "other": other.read_bytes(),
        }[damage]
    )
    with pytest.raises(InputError) as refused:
        training.train(small_model(), text, SHORT, 0, tmp_path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_of_another_shape_are_refused_by_their_path(
    small_model: Build, tmp_path: Path
) -> None:
    wide = {name: value.numpy() for name, value in small_model(hidden=32).state_dict().items()}
    with pytest.raises(
        InputError, match=r"model\.safetensors: not the weights of this model"
    ) as it:
        training.load_weights(small_model(), wide, tmp_path / MODEL)
    assert "\n" not in str(it.value)


def test_only_parameters_that_take_gradients_change(
    small_model: Build, text: Corpora, tmp_path: Path
) -> None:
    model = small_model()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    gate = model.expert_layers[1].router.gate
    assert isinstance(gate, Tensor)
    gate.requires_grad_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.train(model, text, SHORT, 0, tmp_path)
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    assert changed == ["layers.1.experts.router.gate"]


def test_learning_rate_rises_to_its_peak_and_falls_to_a_tenth() -> None:
    settings = TrainingSettings(steps=100, warmup_steps=10, learning_rate=2.0)
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[:10] == pytest.approx(np.linspace(0.2, 2.0, 10))
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx((2.0 + 0.2) / 2)  # half way down a cosine
    assert rates[100] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(TrainingSettings(warmup_steps=0, learning_rate=2.0), 0) == 2.0
    assert learning_rate(TrainingSettings(steps=5, warmup_steps=20, learning_rate=2.0), 4) == 0.5


def test_tokens_are_counted_once_and_a_kill_between_two_writes_costs_no_seconds_twice(
    small_model: Build, text: Corpora, tmp_path: Path
) -> None:
    assert read_seconds(tmp_path) == (0.0, 0)
    with pytest.raises(Killed):
        training.train(small_model(), text, SHORT, 0, tmp_path, kill_after(5))
    seconds, tokens = read_seconds(tmp_path)
    assert tokens == 4 * 3 * 12
    assert seconds > 0
    # As if step 6 had been timed and its checkpoint not been written: a third belongs to it.
    (tmp_path / training.TIMING).write_text(json.dumps({"seconds": 3e6, "tokens": 6 * 3 * 12}))
    training.train(small_model(), text, SHORT, 0, tmp_path)
    seconds, tokens = read_seconds(tmp_path)
    assert tokens == 7 * 3 * 12
    assert 2e6 < seconds < 2.5e6
    (tmp_path / training.TIMING).write_text("{")
    assert read_seconds(tmp_path) == (0.0, 0)


def test_settings_name_the_balance_losses_there_are() -> None:
    assert ("none", *balance_losses()) == BALANCE_LOSSES


@pytest.mark.parametrize("name", balance_losses())
def test_auxiliary_loss_is_the_weighted_mean_over_layers(
    small_model: Build, text: Corpora, name: str
) -> None:
    model = small_model(layers=3)
    output = model(torch.from_numpy(text.test.requests(4, 12, seed=0).tokens))
    settings = replace(SHORT, balance_loss=name, balance_weight=0.3, z_weight=0.07)
    found = auxiliary_loss(model, output, settings)
    each = []
    for layer in output.layers:
        chosen = layer.selection
        assert chosen.logits is not None
        balance = balance_loss(name, chosen.probabilities, chosen.load())
        each.append(0.3 * float(balance.detach()) + 0.07 * float(z_loss(chosen.logits).detach()))
    assert found.item() == pytest.approx(np.mean(each), rel=1e-5)
    none = replace(settings, balance_loss="none", z_weight=0.0)
    assert auxiliary_loss(model, output, none).item() == 0.0


@pytest.mark.parametrize("router", ["hash", "expert-choice", "bias-balanced"])
def test_routers_that_balance_themselves_take_no_auxiliary_loss(
    small_model: Build, text: Corpora, router: str
) -> None:
    model = small_model(router)
    output = model(torch.from_numpy(text.test.requests(4, 12, seed=0).tokens))
    assert auxiliary_loss(model, output, SHORT).item() == 0.0


def load_cv_after(
    model: LanguageModel, text: Corpora, settings: TrainingSettings, folder: Path
) -> float:
    """Return the load CV at the end of training a model whose gate leans to two experts."""
    with torch.no_grad():
        for layer in model.expert_layers:
            gate = layer.router.gate
            assert isinstance(gate, Tensor)
            gate[2:] *= 0.1
            gate[:2] *= 2.0
    training.train(model, text, settings, 0, folder)
    held_out = text.test.requests(16, settings.context, seed=0).tokens
    return evaluate(model, held_out).routing.summary()["load_cv"]


LONGER = replace(SHORT, steps=40, batch_sequences=8, context=24, curve_points=1)


@pytest.fixture(scope="module")
def skewed_cv(small_model: Build, text: Corpora, tmp_path_factory: pytest.TempPathFactory) -> float:
    none = replace(LONGER, balance_loss="none")
    return load_cv_after(small_model(), text, none, tmp_path_factory.mktemp("none"))


@pytest.mark.parametrize("name", balance_losses())
def test_each_balance_loss_evens_the_load_out(
    small_model: Build, text: Corpora, tmp_path: Path, skewed_cv: float, name: str
) -> None:
    weight = 20.0 if name == "variance" else 1.0
    some = replace(LONGER, balance_loss=name, balance_weight=weight)
    assert load_cv_after(small_model(), text, some, tmp_path) < 0.75 * skewed_cv


def test_bias_balancing_evens_the_load_out(
    small_model: Build, text: Corpora, tmp_path: Path
) -> None:
    still = replace(LONGER, bias_update=0.0)
    moved = replace(LONGER, bias_update=0.01)
    without = load_cv_after(small_model("bias-balanced"), text, still, tmp_path / "still")
    assert load_cv_after(small_model("bias-balanced"), text, moved, tmp_path / "moved") < (
        0.8 * without
    )


def test_text_too_short_for_the_context_is_refused(
    small_model: Build, text: Corpora, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="lower the"):
        training.train(small_model(), text, replace(SHORT, context=5000), 0, tmp_path)
