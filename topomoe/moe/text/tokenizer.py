"""Text as token ids and back, without loss: bytes, or byte pairs fitted to the training text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from topomoe.moe.text.document import Document
from topomoe.moe.text.settings import TOKENIZERS
from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.files import write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer as BytePairModel

BYTES = 256
AT_ONCE = 64  # texts
TokenIds = NDArray[np.int32]


class Encoder(Protocol):
    """What turns text into token ids 0..vocabulary-1."""

    @property
    def vocabulary(self) -> int:
        """Distinct tokens, V."""

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids int32 of each text."""


class Tokenizer(Encoder, Protocol):
    """What turns text into token ids and back, and can be stored."""

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids; halves of a character come out as U+FFFD."""

    def to_json(self) -> str:
        """Return what ``tokenizer_from_json`` takes."""


@dataclass(frozen=True)
class BytesTokenizer:
    """A token a byte of UTF-8."""

    vocabulary: int = field(default=BYTES, init=False)

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the bytes of each text as int32."""
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of bytes; halves of a character come out as U+FFFD."""
        return bytes(map(int, token_ids)).decode("utf-8", errors="replace")

    def to_json(self) -> str:
        """Return what ``tokenizer_from_json`` takes."""
        return json.dumps({"kind": "bytes"})


@dataclass(frozen=True, eq=False)
class BytePairTokenizer:
    """Byte-level byte-pair encoding: frequent pairs of tokens merged, from the 256 bytes up.

    Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units",
    2016; over bytes and within words as in GPT-2 (Radford et al., 2019), so that any text can be
    written and none is lost. No token has a meaning of its own (no end of text).
    """

    model: BytePairModel

    @property
    def vocabulary(self) -> int:
        """Distinct tokens, V: fewer than were asked for where the text has too few pairs."""
        return int(self.model.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids int32 of each text."""
        token_ids = []
        for first in range(0, len(texts), AT_ONCE):  # an encoding takes far more than its ids
            some = list(texts[first : first + AT_ONCE])
            encodings = self.model.encode_batch_fast(some, add_special_tokens=False)
            token_ids += [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return token_ids

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids; halves of a character come out as U+FFFD."""
        return str(self.model.decode([int(t) for t in token_ids], skip_special_tokens=False))

    def to_json(self) -> str:
        """Return what ``tokenizer_from_json`` takes; "model" is the library's own format."""
        return json.dumps({"kind": "bpe", "model": json.loads(self.model.to_str())})


def make_tokenizer(kind: str, vocabulary: int, documents: Iterable[Document]) -> Tokenizer:
    """Return a tokenizer: ``bytes``, or ``bpe`` with ``vocabulary`` tokens fitted to documents.

    The same documents give the same tokens. Raises InputError for any other kind, a vocabulary of
    256 (the bytes) or fewer, and for no text.
    """
    if kind == "bytes":
        return BytesTokenizer()
    if kind != "bpe":
        raise unknown("tokenizer", kind, TOKENIZERS)
    whole(vocabulary, "vocabulary", least=BYTES + 1)
    texts = [document.text for document in documents]
    if not any(texts):
        raise InputError("tokenizer bpe needs text to fit its tokens to, got none")
    from tokenizers import Tokenizer as Model
    from tokenizers import decoders, models, pre_tokenizers, trainers

    model = Model(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return BytePairTokenizer(model)


def tokenizer_from_json(text: str, where: str = "tokenizer") -> Tokenizer:
    """Return the tokenizer that ``to_json`` wrote; InputError names ``where`` it was read from."""
    try:
        stored = json.loads(text)
        kind = stored["kind"]
        if kind == "bytes":
            return BytesTokenizer()
        model = json.dumps(stored["model"]) if kind == "bpe" else ""
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{where}: holds no tokenizer written by topomoe") from None
    if kind != "bpe":
        raise unknown(f"{where}: tokenizer", kind, TOKENIZERS)
    from tokenizers import Tokenizer as Model

    try:
        return BytePairTokenizer(Model.from_str(model))
    except Exception as error:  # the library raises Exception itself for a model it cannot read
        raise InputError(f"{where}: holds no byte-pair model ({error})") from None


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer as JSON."""
    write_atomic(path, tokenizer.to_json() + "\n")


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer saved at ``path``; InputError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the tokenizer ({error})") from None
    return tokenizer_from_json(text, str(path))
