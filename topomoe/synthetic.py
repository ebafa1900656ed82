"""Synthetic routing traces, calibrated to what is published of real ones.

A router prefers some experts always, some in a domain, some in a request, and chooses experts that
go together; what it chooses for one token it likes to choose for the next. The generator has one
term for each of these. In layer m the score of expert e for a token is

    log(share of e in the token's request)     request share ~ Dirichlet(c_r * domain share),
                                               domain share ~ Dirichlet(c_d * base load)
    + latent(token) . factor(m, e)             pairs of experts go together, and tokens are sticky
    + balance(m, e)                            makes the load of the whole trace the base load
    + Gumbel noise                             (the top K of which sample without replacement)

and the token goes to the K experts of the highest score, of the best few groups of experts where
the router is limited to some (node-limited routing). A token has one latent vector for all
layers, so experts of successive layers go together too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.routing_trace import RoutingTrace
from topomoe.synthetic_presets import PRESETS, SyntheticSettings, preset_settings
from topomoe.topologies.errors import InputError

__all__ = ["PRESETS", "SyntheticSettings", "calibrated_loads", "synthetic_trace"]

# Tokens a layer is balanced on, in turn: early corrections are large and need few tokens.
_BALANCE_TOKENS = (512, 512, 1024, 1024, 2048, 4096)
_LOWEST_LOG_SHARE = -6.0  # of an expert in a request or domain, relative to its base load


def synthetic_trace(
    preset: str = "deepseek-v3",
    requests: int = 96,
    positions: float = 140,
    seed: int = 0,
    settings: SyntheticSettings | None = None,
) -> RoutingTrace:
    """Return a routing trace of ``requests`` requests whose lengths have median ``positions``.

    ``preset`` names one of ``PRESETS``; ``settings`` replaces it. Lengths are lognormal, so their
    mean is larger (1.2 times, in the presets). Domains have equally many requests, to within one.
    The load of the trace as a whole is ``calibrated_loads`` of the same seed, up to sampling. The
    same arguments give the same bytes; fewer layers give the same first layers.

    Raises InputError for an unknown preset, and for requests, positions or seed out of range.
    """
    chosen = preset_settings(preset) if settings is None else settings
    if requests < 1:
        raise InputError(f"requests must be >= 1, got {requests}")
    if not 1 <= positions <= 1e6:
        raise InputError(f"positions must be in 1..1e6, got {positions}")
    load_rng, request_rng, layer_rng = _generators(seed)

    length = np.rint(positions * np.exp(chosen.length_log_sd * request_rng.normal(size=requests)))
    length = np.maximum(length, 1).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    names = tuple(sorted(chosen.domains[:requests]))
    domain = request_rng.permutation(np.arange(requests) % len(names)).astype(np.int32)
    latent = _latent(chosen, start, request_rng)
    request = np.repeat(np.arange(requests, dtype=np.int32), length)

    experts = np.empty((chosen.num_layers, len(request), chosen.top_k), dtype=np.int16)
    for layer in range(chosen.num_layers):
        base = _base_load(chosen, load_rng)
        _route_layer(chosen, base, domain, request, latent, layer_rng, experts[layer])

    # A request's last position is always output, as in a served request.
    prompt = np.minimum(np.rint(chosen.prompt_share * length), length - 1)
    return RoutingTrace(
        experts=experts,
        request_start=start,
        request_ids=tuple(f"{names[d]}-{q:05d}" for q, d in enumerate(domain)),
        domain_names=names,
        request_domain=domain,
        position=(np.arange(len(request)) - start[request]).astype(np.int32),
        prompt_len=prompt.astype(np.int32),
        num_experts=chosen.num_experts,
        repetition=np.zeros(requests, dtype=np.bool_),
        notes=(f"synthetic: drawn with seed {seed}, not captured from a model",),
    )


def calibrated_loads(
    preset: str = "deepseek-v3",
    seed: int = 0,
    layers: int | None = None,
    settings: SyntheticSettings | None = None,
) -> NDArray[np.float64]:
    """Return the expected load of ``synthetic_trace(preset, seed=seed)``, without routing a token.

    float64 [M, E], shares of a layer's token-expert pairs: each row sums to 1. ``layers`` (the
    preset's, if None) may be any number. Raises InputError for an unknown preset, layers < 1 or
    seed < 0.
    """
    chosen = preset_settings(preset) if settings is None else settings
    count = chosen.num_layers if layers is None else layers
    if count < 1:
        raise InputError(f"layers must be >= 1, got {count}")
    load_rng = _generators(seed)[0]
    return np.stack([_base_load(chosen, load_rng) for _ in range(count)])


def _generators(seed: int) -> list[np.random.Generator]:
    """Return the streams of loads, of requests and of layers: none needs the others."""
    if seed < 0:
        raise InputError(f"seed must be >= 0, got {seed}")
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]


def _base_load(settings: SyntheticSettings, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a layer's load [E], summing to 1: log load has a Pearson type III distribution.

    A token has an expert at most once, so no share reaches 1/K: larger ones are cut, as are those
    above the settings' ``max_load_share``.
    """
    num_experts, top_k, skew = settings.num_experts, settings.top_k, settings.log_load_skew
    deviation = settings.log_load_sd * np.exp(settings.log_load_spread * rng.normal())
    if abs(skew) < 1e-3:
        shape = rng.normal(size=num_experts)
    else:
        gamma = 4 / skew**2
        shape = np.sign(skew) * (rng.standard_gamma(gamma, num_experts) - gamma) / np.sqrt(gamma)
    load = np.exp(deviation * shape)
    load /= load.sum()
    ceiling = min(settings.max_load_share, 0.9 / top_k + 0.1 / num_experts)
    while load.max() > ceiling * (1 + 1e-12):
        over = load >= ceiling
        load[over] = ceiling
        load[~over] *= (1 - ceiling * np.count_nonzero(over)) / load[~over].sum()
    return np.asarray(load, dtype=np.float64)


def _latent(
    settings: SyntheticSettings, start: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draw the tokens' latent vectors [P, r], fixed point: unit variance, sums of AR(1) sequences.

    Each memory has a share of the variance and a correlation time, and starts afresh with each
    request; the rest of the variance is drawn anew for each token.
    """
    from topomoe.synthetic_kernel import FACTOR_BITS, remember

    shape = (int(start[-1]), settings.latent_rank)
    latent = np.sqrt(max(0.0, 1 - sum(settings.memory_shares))) * rng.normal(size=shape)
    for share, tokens in zip(settings.memory_shares, settings.memory_tokens, strict=True):
        sequence = rng.normal(size=shape)
        remember(sequence, start, float(np.exp(-1 / tokens)))
        latent += np.sqrt(share) * sequence
    return _fixed(latent, FACTOR_BITS)


def _route_layer(
    settings: SyntheticSettings,
    base: NDArray[np.float64],
    domain: NDArray[np.int32],
    request: NDArray[np.int32],
    latent: NDArray[np.int32],
    rng: np.random.Generator,
    experts: NDArray[np.int16],
) -> None:
    """Route every token through one layer, into ``experts`` int16 [P, K]."""
    from topomoe.synthetic_kernel import FACTOR_BITS, SCORE_BITS, gumbel_table, route_tokens

    top_k, rank, num_experts = settings.top_k, settings.latent_rank, settings.num_experts
    mean = np.tile(base, (len(settings.domains), 1))
    domain_share = _dirichlet(settings.domain_concentration, mean, base, rng)
    request_share = _dirichlet(settings.request_concentration, domain_share[domain], base, rng)
    score = np.log(request_share)

    # The log-lift of two experts is their factors' dot product; it has this SD before top-k.
    draws = rng.normal(size=(rank, num_experts))
    draws = np.sign(draws) * np.abs(draws) ** settings.factor_tail
    draws *= np.sqrt(settings.pair_lift_sd / np.sqrt(rank) / np.mean(draws**2))
    factor = _fixed(draws, FACTOR_BITS)

    limit = settings.num_groups, settings.token_groups
    noise = gumbel_table()
    keys = rng.integers(0, 2**62, size=len(_BALANCE_TOKENS) + 1).tolist()
    balance = np.zeros(num_experts)
    for key, tokens in zip(keys, _BALANCE_TOKENS, strict=False):
        sample = np.arange(tokens) * len(request) // tokens
        routed = np.empty((tokens, top_k), dtype=np.int16)
        fixed = _fixed(score + balance, SCORE_BITS)
        route_tokens(fixed, request[sample], latent[sample], factor, noise, key, limit, routed)
        seen = np.bincount(routed.ravel(), minlength=num_experts)
        balance += np.log((base * tokens * top_k + 1) / (seen + 1))
    fixed = _fixed(score + balance, SCORE_BITS)
    route_tokens(fixed, request, latent, factor, noise, keys[-1], limit, experts)


def _dirichlet(
    concentration: float,
    mean: NDArray[np.float64],
    base: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw one Dirichlet(concentration * mean) share [E] for each row of ``mean`` [n, E].

    Gamma draws of a small shape a underflow, so Gamma(a) is drawn as Gamma(a + 1) * U**(1/a)
    (Marsaglia and Tsang 2000, section 6), in logarithms; tiny shares are raised to a floor.
    """
    shape = concentration * mean
    log_share = np.log(rng.standard_gamma(shape + 1)) + np.log1p(-rng.random(shape.shape)) / shape
    share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    share = np.maximum(share, np.exp(_LOWEST_LOG_SHARE) * base)
    return np.asarray(share / share.sum(axis=1, keepdims=True), dtype=np.float64)


def _fixed(values: NDArray[np.float64], bits: int) -> NDArray[np.int32]:
    """Return ``values`` in units of 2**-bits."""
    return np.asarray(np.rint(values * (1 << bits)), dtype=np.int32)
