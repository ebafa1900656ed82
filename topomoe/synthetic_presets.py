"""What a synthetic routing trace is drawn from, with presets calibrated to published figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from topomoe.model import model_preset
from topomoe.topologies.errors import InputError, unknown


@dataclass(frozen=True)
class SyntheticSettings:
    """Parameters of a synthetic routing trace; `topomoe.synthetic` says how they enter.

    The concentrations, the lift and the memories are the model's own: top-k selection flattens
    what they ask for, so the realised figures are smaller. The presets were searched for the
    settings whose realised figures match. Raises InputError for a value out of range.
    """

    num_layers: int
    """MoE layers, M."""
    num_experts: int
    """Routed experts a layer, E."""
    top_k: int
    """Experts a token, K; less than E."""
    log_load_sd: float
    """Standard deviation of the logarithm of the experts' load in a layer, median over layers."""
    log_load_spread: float
    """How far layers differ: standard deviation of the logarithm of `log_load_sd`."""
    log_load_skew: float
    """Skewness of log load: 0 is lognormal, below 0 the cold tail is longer, as in GPT-OSS."""
    domain_concentration: float
    """Dirichlet concentration from the base load to a domain's: smaller, domains differ more."""
    request_concentration: float
    """Dirichlet concentration from a domain's load to a request's."""
    pair_lift_sd: float
    """Standard deviation over pairs of experts of the log-lift of their co-activation."""
    factor_tail: float
    """Experts' factors are normal draws to this power: above 1, few pairs have most of the lift."""
    latent_rank: int
    """Length of a token's latent vector: small, and experts fall into few groups."""
    memory_shares: tuple[float, ...]
    """Shares of the latent variance that persist from token to token; the rest is drawn anew."""
    memory_tokens: tuple[float, ...]
    """Correlation time of each memory, tokens."""
    num_groups: int = 1
    """Groups of experts of successive ids, as an expert-parallel node holds them; divides E."""
    token_groups: int = 1
    """Groups that a token's experts may come from: node-limited routing (DeepSeek-V3: 4 of 8)."""
    max_load_share: float = 1.0
    """Largest share of a layer's load that one expert may have; more than 1/E."""
    domains: tuple[str, ...] = ("chat", "code", "law", "math")
    """Names of the domains; requests take them in turn."""
    length_log_sd: float = 0.6
    """Standard deviation of the logarithm of a request's length."""
    prompt_share: float = 0.6
    """Part of a request's positions that is its prompt."""

    def __post_init__(self) -> None:
        """Check the ranges; the upper ones keep the router's fixed-point scores in range."""
        ranges = {
            "num_layers": (1, 10_000),
            "num_experts": (2, 32_767),
            "top_k": (1, self.num_experts - 1),
            "log_load_sd": (0, 3),
            "log_load_spread": (0, 1),
            "log_load_skew": (-4, 4),
            "domain_concentration": (1e-3, 1e9),
            "request_concentration": (1e-3, 1e9),
            "num_groups": (1, self.num_experts),
            "token_groups": (1, self.num_groups),
            "pair_lift_sd": (0, 100),
            "factor_tail": (0.1, 3),
            "latent_rank": (1, 32),
            "max_load_share": (1.001 / self.num_experts, 1),
            "length_log_sd": (0, 3),
            "prompt_share": (0, 1),
        }
        for field, (low, high) in ranges.items():
            value = getattr(self, field)
            if not low <= value <= high:
                raise InputError(f"{field} must be in {low:g}..{high:g}, got {value}")
        if self.num_experts % self.num_groups:
            raise InputError(
                f"num_groups must divide num_experts, got num_groups={self.num_groups} and "
                f"num_experts={self.num_experts}"
            )
        if self.top_k > self.token_groups * (self.num_experts // self.num_groups):
            raise InputError(
                f"token_groups must hold top_k experts, got token_groups={self.token_groups} of "
                f"{self.num_experts // self.num_groups} and top_k={self.top_k}"
            )
        if len(self.memory_shares) != len(self.memory_tokens):
            raise InputError(
                f"memory_shares and memory_tokens must be equally long, got "
                f"{len(self.memory_shares)} and {len(self.memory_tokens)}"
            )
        if not all(share >= 0 for share in self.memory_shares) or sum(self.memory_shares) > 1:
            raise InputError(
                f"memory_shares must be >= 0 and sum to <= 1, got {self.memory_shares}"
            )
        if not all(tokens > 0 for tokens in self.memory_tokens):
            raise InputError(f"memory_tokens must be > 0, got {self.memory_tokens}")
        if not self.domains or len(set(self.domains)) != len(self.domains):
            raise InputError(f"domains must be one or more different names, got {self.domains}")


def _shaped(model: str, **parameters: float | tuple[float, ...]) -> SyntheticSettings:
    """Return settings with the layers, experts and top-k of a model preset."""
    shape = model_preset(model)
    return SyntheticSettings(
        num_layers=shape.num_layers,
        num_experts=shape.num_experts,
        top_k=shape.top_k,
        **parameters,  # type: ignore[arg-type]
    )


PRESETS: Mapping[str, SyntheticSettings] = {
    # Load, mean over layers: Gini .33-.45, CV .75-1.07, max/mean 5.6-8.1, SD of log .56-.82; share
    # of the 32 hottest of 256 experts 24.9-49.7 %, median 31.1, of the hottest 1.25-5.19 %, median
    # 2.39 (DeepSeek-V3, DeepSeek-R1 on GPQA). Domains, stickiness and pairs are not published:
    # the concentrations give domain cosines of .6-.97, the rest is as for DeepSeek-V2-Lite.
    "deepseek-v3": _shaped(
        "deepseek-v3",
        log_load_sd=0.70,
        log_load_spread=0.11,
        log_load_skew=0.1,
        max_load_share=0.0519,
        domain_concentration=300.0,
        request_concentration=900.0,
        pair_lift_sd=9.0,
        factor_tail=1.5,
        latent_rank=4,
        memory_shares=(0.70, 0.05),
        memory_tokens=(1.34, 36.0),
    ),
    # Nothing is published: as DeepSeek-V3, with the concentrations in proportion to the experts.
    "kimi-k2": _shaped(
        "kimi-k2",
        log_load_sd=0.70,
        log_load_spread=0.11,
        log_load_skew=0.1,
        max_load_share=0.0519,
        domain_concentration=450.0,
        request_concentration=1350.0,
        pair_lift_sd=9.0,
        factor_tail=1.5,
        latent_rank=4,
        memory_shares=(0.70, 0.05),
        memory_tokens=(1.34, 36.0),
    ),
    # Load: Gini .27, CV .51, max/mean 2.7, SD of log .51; domain cosine .59-.73 (concentrations);
    # overlap of a token's experts with those 1, 2, 4, 8, 16, 64 tokens later .28 .21 .20 .18 .20
    # .17, by chance .118 (memories); SD of log-lift 1.46, and the top 1 % of pairs carry .10 of
    # the mass, .046 if independent (pair lift, tail and rank).
    "deepseek-v2-lite": _shaped(
        "deepseek-v2-lite",
        log_load_sd=0.525,
        log_load_spread=0.12,
        log_load_skew=-0.3,
        domain_concentration=40.0,
        request_concentration=215.0,
        pair_lift_sd=9.8,
        factor_tail=1.8,
        latent_rank=3,
        memory_shares=(0.78, 0.037),
        memory_tokens=(1.34, 36.0),
    ),
    # Load: Gini .40, CV .71, max/mean 2.6, SD of log 1.15 (the skew: a lognormal of that SD has
    # Gini .58); overlap at the same lags .44 .38 .365 .35 .34 .33, by chance .19 (memories, request
    # concentration); domain cosine .43-.97.
    "gpt-oss-20b": _shaped(
        "gpt-oss-20b",
        log_load_sd=1.22,
        log_load_spread=0.15,
        log_load_skew=-1.7,
        domain_concentration=26.5,
        request_concentration=8.0,
        pair_lift_sd=10.7,
        factor_tail=1.6,
        latent_rank=3,
        memory_shares=(0.59, 0.01),
        memory_tokens=(2.3, 13.0),
    ),
    # Load: Gini .08-.15, CV .14-.28, max/mean 1.2-1.45. The rest is mild, as eight experts allow.
    "mixtral-8x7b": _shaped(
        "mixtral-8x7b",
        log_load_sd=0.215,
        log_load_spread=0.15,
        log_load_skew=0.0,
        domain_concentration=60.0,
        request_concentration=60.0,
        pair_lift_sd=1.0,
        factor_tail=1.0,
        latent_rank=3,
        memory_shares=(0.5, 0.05),
        memory_tokens=(1.34, 36.0),
    ),
}


def preset_settings(name: str) -> SyntheticSettings:
    """Return the preset of that name; raises InputError for an unknown one."""
    if name not in PRESETS:
        raise unknown("synthetic preset", name, PRESETS)
    return PRESETS[name]
