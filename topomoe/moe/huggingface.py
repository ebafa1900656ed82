"""Pretrained Mixture-of-Experts models of Hugging Face transformers: their routing and perplexity.

Nothing is downloaded and no code of a model's folder is run: weights are read from safetensors in
a local folder, or the model comes from the caller. The families that are known are those of
``topomoe.moe.huggingface_families``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from topomoe.moe.huggingface_families import check_family, routers
from topomoe.moe.huggingface_hooks import Capture, capture, reassign
from topomoe.moe.language_model import Assigner
from topomoe.moe.sequence_trace import check_sequences, trace_of_sequences
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.checked import whole, whole_numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import FloatArray, IntArray

__all__ = [
    "Assigner",
    "Capture",
    "SequenceLosses",
    "capture",
    "load_pretrained",
    "perplexity",
    "profile_huggingface",
    "reassign",
]


@dataclass(frozen=True, eq=False)
class SequenceLosses:
    """What a model loses on Q sequences: every token after the first is predicted."""

    nats: FloatArray  # [Q], summed over the predicted tokens
    tokens: IntArray  # [Q], predicted tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean loss of a token, all sequences together."""
        return float(np.exp(self.nats.sum() / self.tokens.sum()))


def load_pretrained(path: str | Path) -> tuple[Any, Any]:
    """Return (model, tokenizer) of a local folder as ``save_pretrained`` writes it, for inference.

    Only safetensors are read, in the precision they are stored in, and no code of the folder is
    run. MXFP4 weights (gpt-oss) are expanded to bfloat16: their fused kernels call no router.

    Raises InputError where transformers is not installed, for a path that is no folder, a family
    that is not known, and files that are missing or cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder with a model's config.json and safetensors")
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.quantization_config import Mxfp4Config
    except ImportError:
        raise InputError(
            "pretrained models need transformers: pip install 'topomoe[huggingface]'"
        ) from None
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        check_family(config)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        if not any((folder / file).is_file() for file in tokenizer.vocab_files_names.values()):
            raise InputError("the tokenizer's vocabulary is missing")
        options: dict[str, Any] = {"config": config, "dtype": "auto", "use_safetensors": True}
        quantization = getattr(config, "quantization_config", None) or {}
        if quantization.get("quant_method") == "mxfp4":
            options["quantization_config"] = Mxfp4Config(dequantize=True)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, **options, **local
        )
        model, report = loaded
        missing = sorted(report["missing_keys"])
        if missing:  # transformers would draw them at random
            raise InputError(f"weights are missing: {missing[0]} ({len(missing)} in all)")
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    except Exception as error:  # transformers raises whatever the file at fault leads to
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        raise InputError(f"{folder}: cannot be loaded: {reason}") from None
    return model.eval(), tokenizer


def profile_huggingface(
    model: nn.Module,
    sequences: Sequence[ArrayLike],
    domains: Sequence[str],
    names: Sequence[str],
    batch: int = 8,
) -> RoutingTrace:
    """Return the trace of the experts that ``model`` chooses for the tokens of each sequence.

    sequences: token ids, one array [L] each, of any lengths; domains, names: one text a sequence.
    At most ``batch`` sequences make a forward pass, all of one length: nothing is padded, so no
    routed position is other than a token's. The model runs where it lies, in inference mode.

    Raises InputError as ``capture`` does, and for sequences, domains or names that do not fit.
    """
    gates = routers(model)
    tokens = _sequences(model, sequences, least=1)
    check_sequences(tokens, domains, names)
    # The layers without the language model's head, whose logits no one reads here.
    backbone = getattr(model, "base_model", model)
    experts: list[Any] = [None] * len(tokens)
    for chosen, ids in _batches(model, tokens, batch):
        with _inference(model), capture(model) as captured:
            backbone(input_ids=ids, use_cache=False)
        routed = captured.experts().astype(np.int16)
        for q, rows in zip(chosen, np.split(routed, len(chosen)), strict=True):
            experts[q] = rows
    return trace_of_sequences(experts, tokens, domains, names, int(gates[0].num_experts))


def perplexity(
    model: nn.Module,
    sequences: Sequence[ArrayLike],
    assigner: Assigner | None = None,
    batch: int = 8,
) -> SequenceLosses:
    """Return what ``model`` loses on each sequence (token ids [L], L >= 2), by its own logits.

    With an ``assigner`` the experts are those it chooses (see ``reassign``), from the tokens of one
    forward pass: at most ``batch`` sequences of one length, never padded. None: the model's own.

    Raises InputError as ``reassign`` does, and for sequences that do not fit.
    """
    tokens = _sequences(model, sequences, least=2)
    nats = np.zeros(len(tokens))
    for chosen, ids in _batches(model, tokens, batch):
        changed = nullcontext() if assigner is None else reassign(model, assigner)
        with _inference(model), changed:
            logits = model(input_ids=ids, use_cache=False).logits
            for q, row, target in zip(chosen, logits, ids, strict=True):
                loss = nn.functional.cross_entropy(row[:-1].float(), target[1:], reduction="none")
                nats[q] = float(loss.double().sum())
    return SequenceLosses(nats, np.array([len(ids) - 1 for ids in tokens], dtype=np.int64))


def _sequences(model: Any, sequences: Sequence[ArrayLike], least: int) -> list[NDArray[np.int64]]:
    check_family(getattr(model, "config", None))
    vocabulary = int(model.config.get_text_config().vocab_size)
    tokens = []
    for q, ids in enumerate(sequences):
        array = whole_numbers(ids, f"sequence {q}")
        if array.ndim != 1 or len(array) < least:
            raise InputError(f"sequence {q} must be [L] token ids, L >= {least}: {array.shape}")
        if array.min() < 0 or array.max() >= vocabulary:
            raise InputError(
                f"sequence {q}: token ids must be in 0..{vocabulary - 1}, "
                f"got {array.min()}..{array.max()}"
            )
        tokens.append(array)
    if not tokens:
        raise InputError("sequences must hold at least one sequence, got none")
    return tokens


def _batches(
    model: Any, tokens: list[NDArray[np.int64]], batch: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (indices into ``tokens``, ids [B, L]) of the sequences of one length after another."""
    batch = whole(batch, "batch", least=1)
    same: dict[int, list[int]] = {}
    for q, ids in enumerate(tokens):
        same.setdefault(len(ids), []).append(q)
    for members in same.values():
        for first in range(0, len(members), batch):
            chosen = members[first : first + batch]
            stacked = np.stack([tokens[q] for q in chosen])
            yield chosen, torch.from_numpy(stacked).to(model.device)


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Without gradients, dropout and jitter; each module's mode is put back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
