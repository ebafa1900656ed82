"""A made-up switching problem with phases, for examples, tests and negative controls."""

from __future__ import annotations

import numpy as np

from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError


def phase_problem(
    num_configurations: int = 4,
    epochs: int = 1000,
    episode_length: int = 50,
    phase: float = 20.0,
    penalty: float = 0.5,
    noise: float = 0.05,
    switch: float = 0.5,
    seed: int = 0,
) -> SwitchingProblem:
    """Return a problem in which every kind of phase has one best configuration.

    Phases of random kind follow each other. Under kind j an epoch takes 1 s with configuration j
    and up to ``penalty`` more with others, times log-normal noise. The queue features are the
    kind's one-hot, blurred, as a domain mix of admitted requests would be. With ``penalty=0`` there
    is nothing to gain from switching.

    Args:
        num_configurations: K >= 1.
        epochs: T.
        episode_length: epochs an episode has.
        phase: mean phase length in epochs (geometric), >= 1.
        penalty: largest extra cost of a wrong configuration, seconds.
        noise: standard deviation of the logarithm of the cost.
        switch: cost of any switch, seconds.
        seed: of everything random.

    Raises:
        InputError: a number is out of range.
    """
    if num_configurations < 1 or epochs < 1 or phase < 1 or min(penalty, noise, switch) < 0:
        raise InputError(
            "phase_problem needs num_configurations, epochs, phase >= 1 and penalty, noise, "
            f"switch >= 0, got {num_configurations}, {epochs}, {phase}, {penalty}, {noise} and "
            f"{switch}"
        )
    random = np.random.default_rng(seed)
    extra = penalty * random.uniform(0.4, 1.0, (num_configurations, num_configurations))
    np.fill_diagonal(extra, 0.0)
    kind = np.zeros(epochs, dtype=np.int64)
    for epoch in range(epochs):
        again = epoch > 0 and random.random() >= 1.0 / phase
        kind[epoch] = kind[epoch - 1] if again else random.integers(num_configurations)
    cost = (1.0 + extra[kind]) * np.exp(
        noise * random.standard_normal((epochs, num_configurations))
    )
    mix = 0.5 * np.eye(num_configurations)[kind]
    mix += 0.5 * random.dirichlet(np.ones(num_configurations), epochs)
    return SwitchingProblem(
        names=tuple(f"wiring {k}" for k in range(num_configurations)),
        cost=cost,
        switch_cost=switch * (1.0 - np.eye(num_configurations)),
        components={"dispatch": 0.4 * cost, "compute": 0.2 * cost, "combine": 0.4 * cost},
        features=mix.astype(np.float32),
        feature_names=tuple(f"share of domain {d}" for d in range(num_configurations)),
        episode_length=episode_length,
    )
