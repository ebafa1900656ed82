"""The settings of learning from full information: what is tried on the validation episodes."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from topomoe.envs.layout import OBSERVE
from topomoe.topologies.errors import InputError, unknown

FEATURES = ("linear", "queue", "queue-products", "queue-random", "random")
TRIED = ("linear", "queue-products", "queue-random")
TARGETS = ("realised", "expected")
MOST_UNITS, MOST_EPOCHS = 4096, 4096


@dataclass(frozen=True)
class FullInformationSettings:
    """What is tried: settings that hold several values are chosen from on validation episodes.

    Features, ridge and targets are tried in all combinations with the first horizon and margin,
    then the other horizons, then the other margins, each with the best of what came before: 15
    policies by default.

    Raises:
        InputError: a setting is out of range; the message names it.
    """

    features: tuple[str, ...] = TRIED
    """What values are linear in: all that is observed (linear); that without past costs, which
    suits noise (queue), with products of queue features (queue-products) and random features of
    them (queue-random); or all, with random features beside it: tanh of random mixtures (random;
    Rahimi and Recht 2007)."""

    ridge: tuple[float, ...] = (0.001, 0.01)
    """Penalty on squared weights of features with variance 1, beside the mean squared error."""

    horizons: tuple[int, ...] = (8, 16)
    """Epochs looked ahead at most, after an episode's first ones, which look further."""

    margins: tuple[float, ...] = (1.0, 1.5, 2.0)
    """Times its expected cost that a switch has to gain."""

    units: int = 256
    """Random features, with features random."""

    proof: float = 1.0
    """Standard errors by which validation episodes must gain, or the agent never switches."""

    observe: str = "before"
    """Whether the coming epoch's costs are observed: before (no) or after (yes)."""

    queue: bool = True
    """Whether the queue features of the coming epoch are observed."""

    def __post_init__(self) -> None:
        for name in ("features", "ridge", "horizons", "margins"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values:
                raise InputError(f"{name} must hold at least one value")
        for features in self.features:
            if features not in FEATURES:
                raise unknown("features", features, FEATURES)
        if not isinstance(self.units, int) or not 1 <= self.units <= MOST_UNITS:
            raise InputError(f"units must be a whole number 1..{MOST_UNITS}, got {self.units!r}")
        for horizon in self.horizons:
            if not isinstance(horizon, int) or not 1 <= horizon <= MOST_EPOCHS:
                raise InputError(
                    f"horizons must be whole numbers 1..{MOST_EPOCHS}, got {list(self.horizons)}"
                )
        if not all(isfinite(ridge) and ridge > 0 for ridge in self.ridge):
            raise InputError(f"ridge must be finite and > 0, got {list(self.ridge)}")
        if not all(isfinite(margin) and margin >= 1 for margin in self.margins):
            raise InputError(f"margins must be finite and >= 1, got {list(self.margins)}")
        if not (isfinite(self.proof) and self.proof >= 0):
            raise InputError(f"proof must be finite and >= 0, got {self.proof}")
        if self.observe not in OBSERVE:
            raise unknown("observe", self.observe, OBSERVE)


@dataclass(frozen=True)
class FittedQSettings(FullInformationSettings):
    """How fitted Q learns."""

    targets: tuple[str, ...] = TARGETS
    """What values are fitted to: costs that the policy realised, or its own expectation of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "targets", tuple(self.targets))
        if not self.targets:
            raise InputError("targets must hold at least one value")
        for target in self.targets:
            if target not in TARGETS:
                raise unknown("targets", target, TARGETS)


@dataclass(frozen=True)
class HindsightSettings(FullInformationSettings):
    """How hindsight learning learns."""


@dataclass(frozen=True)
class Choice:
    """One combination of what the settings try, see there; ``target`` may be ``hindsight`` too.

    Raises:
        InputError: a value is out of range.
    """

    features: str
    ridge: float
    horizon: int
    margin: float
    target: str

    def __post_init__(self) -> None:
        if self.target not in (*TARGETS, "hindsight"):
            raise unknown("target", self.target, (*TARGETS, "hindsight"))
        FullInformationSettings(
            features=(self.features,),
            ridge=(self.ridge,),
            horizons=(self.horizon,),
            margins=(self.margin,),
        )
