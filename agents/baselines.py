"""The policies every learned agent is compared with."""

from __future__ import annotations

from collections.abc import Callable

from topomoe.agents import (
    ema_mpc,
    forecast,
    guarded,
    hysteresis,
    lazy_experts,
    threshold_rule,
    work_function,
)
from topomoe.agents.clairvoyant import Clairvoyant
from topomoe.agents.greedy import Greedy
from topomoe.agents.policy import Policy
from topomoe.agents.random_choice import RandomChoice
from topomoe.agents.rotor import Rotor
from topomoe.agents.static import (
    annealing,
    never_switch,
    periodic_eplb,
    static_best,
    static_eplb,
)
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import unknown

HINDSIGHT = ("static-best", "clairvoyant")
"""Those that look at the test timeline."""
FORESIGHTED = ("forecast", "guarded")
"""Those that make use of queue features."""
BASELINES = (
    "static-best",
    "never-switch",
    "random",
    "rotor",
    "eplb",
    "periodic-eplb",
    "greedy",
    "hysteresis",
    "ema-mpc",
    "forecast",
    "guarded",
    "work-function",
    "rule",
    "lazy-experts",
    "annealing",
    "clairvoyant",
)
TUNED = (
    "hysteresis",
    "ema-mpc",
    "forecast",
    "guarded",
    "work-function",
    "rule",
    "lazy-experts",
)
"""Those with parameters, which see the timelines that learners see: training and validation."""
ONLINE = tuple(name for name in BASELINES if name not in HINDSIGHT)
"""Those that use neither the test timeline nor a learned network."""
ONLINE_BLIND = tuple(name for name in ONLINE if name not in FORESIGHTED)
"""Those of them that make no use of queue features."""


def baseline(
    name: str,
    training: SwitchingProblem,
    test: SwitchingProblem,
    observe: str = "before",
    queue: bool = True,
    seed: int = 0,
) -> Policy:
    """Return one of ``BASELINES``, tuned on ``training``.

    Args:
        name: of the baseline.
        training: where parameters come from.
        test: what only static-best and clairvoyant look at.
        observe: when costs are known, as in ``ObservationLayout``.
        queue: whether observations hold queue features.
        seed: of the draws of random and lazy-experts.

    Raises:
        InputError: there is no baseline of that name; or the problem has no placement ``mix`` for
            eplb, no ``recent`` for periodic-eplb, or no concentration and locality of the demand
            for rule.
    """
    layout = ObservationLayout.of(test, observe, queue)
    made: dict[str, Callable[[], Policy]] = {
        "static-best": lambda: static_best(test, observe, queue),
        "never-switch": lambda: never_switch(training, observe, queue),
        "random": lambda: RandomChoice(layout, seed),
        "rotor": lambda: Rotor(layout),
        "eplb": lambda: static_eplb(training, observe, queue),
        "periodic-eplb": lambda: periodic_eplb(training, observe, queue),
        "greedy": lambda: Greedy(layout),
        "hysteresis": lambda: hysteresis.tune(training, observe, queue=queue),
        "ema-mpc": lambda: ema_mpc.tune(training, observe, queue=queue),
        "forecast": lambda: forecast.tune(training, observe, queue),
        "guarded": lambda: guarded.tune(training, observe, queue=queue),
        "work-function": lambda: work_function.tune(training, observe, queue=queue),
        "rule": lambda: threshold_rule.tune(training, observe, queue),
        "lazy-experts": lambda: lazy_experts.tune(training, observe, seed=seed, queue=queue),
        "annealing": lambda: annealing(training, observe, queue),
        "clairvoyant": lambda: Clairvoyant(test, observe, queue),
    }
    if name not in made:
        raise unknown("baseline", name, BASELINES)
    return made[name]()
