"""Trains a language model; one that was killed goes on from its checkpoint to the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from topomoe.checkpoint_file import Arrays, Checkpoint
from topomoe.moe.balance_loss import balance_loss, z_loss
from topomoe.moe.evaluation import count_routing, evaluate
from topomoe.moe.language_model import LanguageModel, Output
from topomoe.moe.settings import TrainingSettings
from topomoe.moe.text import Corpora
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
TIMING = "timing.json"
_KIND, _MODEL_KIND = "topomoe language model training 1", "topomoe language model 1"
_LEAST_RATE = 0.1  # of the peak learning rate, at the end
_DRAWS = 7  # tells the draws of training batches from others of the same seed

Progress = Callable[[int, int], None]
Point = dict[str, float]  # one point of a training curve


class DivergedError(InputError):
    """A training's loss is no longer finite."""


@dataclass
class _Running:
    """What a training counts between two points of its curve."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: total / self.steps for name, total in self.sums.items()}


def train(
    model: LanguageModel,
    corpora: Corpora,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> list[Point]:
    """Train the parameters of ``model`` that take gradients; return the training curve.

    What a training of the same model, text, settings and seed left in ``folder`` is taken up: a
    finished one is read, an unfinished one goes on from its last checkpoint. Step s takes its batch
    from a generator of (seed, s), so nothing but the checkpoint need be kept.

    Raises:
        InputError: the folder holds a training of something else, or a damaged file.
        DivergedError: the loss is no longer finite.
    """
    wanted = _fingerprint(model, corpora, settings, seed)
    done = Checkpoint.read(folder / MODEL, _MODEL_KIND)
    if done is not None:
        _check(folder / MODEL, done, wanted)
        load_weights(model, done.arrays, folder / MODEL)
        (folder / CHECKPOINT).unlink(missing_ok=True)  # where it was killed just before
        return list(done.values["curve"])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(trained, settings)
    curve, running, start = list[Point](), _Running(), 0
    stored = Checkpoint.read(folder / CHECKPOINT, _KIND)
    if stored is not None:
        _check(folder / CHECKPOINT, stored, wanted)
        start, curve = stored.values["step"], list(stored.values["curve"])
        running = _Running(**stored.values["running"])
        _restore(model, optimizer, stored.arrays, folder / CHECKPOINT)
    seconds = _seconds_until(folder, start, settings)
    points = _points(settings)
    count, length = settings.validation_sequences, settings.context + 1
    watched = corpora.validation.requests(count, length, seed=0).tokens
    for step in range(start, settings.steps):
        began = time.perf_counter()
        running.add(_step(model, optimizer, trained, corpora, settings, seed, step))
        seconds += time.perf_counter() - began
        if step + 1 in points:
            found = evaluate(model, watched)
            tokens = (step + 1) * settings.batch_sequences * settings.context
            point = {"step": step + 1, "tokens": tokens, "perplexity": found.perplexity}
            curve.append({**point, **running.means()})
            running = _Running()
        if (step + 1) % settings.checkpoint_steps == 0 and step + 1 < settings.steps:
            values = {
                "fingerprint": wanted,
                "step": step + 1,
                "curve": curve,
                "running": asdict(running),
            }
            _write_seconds(folder, seconds, step + 1, settings)
            Checkpoint(_state(model, optimizer), values).write(folder / CHECKPOINT, _KIND)
        if progress is not None:
            progress(step + 1, settings.steps)
    _write_seconds(folder, seconds, settings.steps, settings)
    values = {"fingerprint": wanted, "curve": curve}
    Checkpoint(_weights(model), values).write(folder / MODEL, _MODEL_KIND)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return curve


def _step(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    trained: list[torch.nn.Parameter],
    corpora: Corpora,
    settings: TrainingSettings,
    seed: int,
    step: int,
) -> dict[str, float]:
    """Take one optimiser step; return what the training curve shows of it."""
    rng = np.random.default_rng([_DRAWS, seed, step])
    sequences = corpora.training.batch(rng, settings.batch_sequences, settings.context + 1)
    tokens = torch.from_numpy(sequences)
    output = model(tokens[:, :-1])
    loss = functional.cross_entropy(output.logits.flatten(0, 1), tokens[:, 1:].flatten())
    if not torch.isfinite(loss):
        raise DivergedError(
            f"learning_rate {settings.learning_rate:g} is too much: the loss is {loss:g} at step "
            f"{step} of a model with router {model.settings.router}"
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settings, step)
    optimizer.zero_grad(set_to_none=True)
    (loss + auxiliary_loss(model, output, settings)).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
    optimizer.step()
    for layer, routing in zip(model.expert_layers, output.layers, strict=True):
        layer.router.after_step(routing.selection.load(), settings.bias_update)
    counts = count_routing(output)
    return {"train_loss": float(loss.detach()), **counts.summary()}


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to a tenth."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    rest = max(settings.steps - settings.warmup_steps, 1)
    fall = 0.5 * (1 + math.cos(math.pi * (step - settings.warmup_steps) / rest))
    return settings.learning_rate * (_LEAST_RATE + (1 - _LEAST_RATE) * fall)


def auxiliary_loss(model: LanguageModel, output: Output, settings: TrainingSettings) -> Tensor:
    """Return the balance loss and the z-loss, means over layers, weighted; 0 where none apply."""
    total = output.logits.new_zeros(())
    for layer, routing in zip(model.expert_layers, output.layers, strict=True):
        chosen = routing.selection
        if layer.router.balances_itself or chosen.logits is None:
            continue
        if settings.balance_loss != "none" and settings.balance_weight:
            value = balance_loss(settings.balance_loss, chosen.probabilities, chosen.load())
            total = total + settings.balance_weight * value
        if settings.z_weight:
            total = total + settings.z_weight * z_loss(chosen.logits)
    return total / len(output.layers)


def _optimizer(trained: list[torch.nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only."""
    groups = [
        {
            "params": [p for p in trained if (p.ndim > 1) == matrices],
            "weight_decay": settings.weight_decay if matrices else 0.0,
        }
        for matrices in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=True
    )


def _points(settings: TrainingSettings) -> frozenset[int]:
    """Return the steps after which the curve has a point, the last one among them."""
    spaced = np.linspace(0, settings.steps, min(settings.curve_points, settings.steps) + 1)[1:]
    return frozenset(round(float(step)) for step in spaced)


def _fingerprint(
    model: LanguageModel, corpora: Corpora, settings: TrainingSettings, seed: int
) -> str:
    """Return the SHA-256 of all that a training's result follows from."""
    digest = hashlib.sha256()
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    told = [asdict(model.settings), asdict(settings), seed, learned]
    digest.update(json.dumps(told, sort_keys=True).encode())
    for corpus in (corpora.training, corpora.validation):
        digest.update("\0".join(corpus.domain_names).encode())
        for array in (corpus.token_ids, corpus.document_start, corpus.document_domain):
            digest.update(np.ascontiguousarray(array).tobytes())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.numpy()).tobytes())
    return digest.hexdigest()


def _check(path: Path, stored: Checkpoint, wanted: str) -> None:
    if stored.values.get("fingerprint") != wanted:
        raise InputError(f"{path}: is of another training (other settings, text, seed or start)")


def _weights(model: LanguageModel) -> Arrays:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def _state(model: LanguageModel, optimizer: torch.optim.Optimizer) -> Arrays:
    """Return the weights, and AdamW's moments of every parameter."""
    arrays = {f"model.{name}": value for name, value in _weights(model).items()}
    for index, moments in optimizer.state_dict()["state"].items():
        arrays |= {f"adam.{index}.{name}": value.numpy() for name, value in moments.items()}
    return arrays


def _restore(
    model: LanguageModel, optimizer: torch.optim.Optimizer, arrays: Arrays, path: Path
) -> None:
    def named(prefix: str) -> Arrays:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    load_weights(model, named("model."), path)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in named("adam.").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = torch.from_numpy(value.copy())
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def load_weights(model: LanguageModel, arrays: Arrays, path: Path) -> None:
    """Give a model stored weights; InputError, naming ``path``, where they are of another shape."""
    try:
        model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()})
    except (RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not the weights of this model ({why})") from None


def _write_seconds(folder: Path, seconds: float, steps: int, settings: TrainingSettings) -> None:
    tokens = steps * settings.batch_sequences * settings.context
    write_atomic(folder / TIMING, json.dumps({"seconds": seconds, "tokens": tokens}))


def _seconds_until(folder: Path, step: int, settings: TrainingSettings) -> float:
    """Return the part of the seconds in ``folder`` that the steps before ``step`` took.

    A training killed between writing its seconds and its checkpoint takes some steps again.
    """
    seconds, tokens = read_seconds(folder)
    return seconds * step * settings.batch_sequences * settings.context / tokens if tokens else 0.0


def read_seconds(folder: Path) -> tuple[float, int]:
    """Return the wall seconds of a training's steps, validation excluded, and their tokens.

    Zeros where they are not known.
    """
    try:
        found: dict[str, Any] = json.loads((folder / TIMING).read_text(encoding="utf-8"))
        return float(found["seconds"]), int(found["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0
