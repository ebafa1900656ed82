"""The policies every learned agent is compared with."""

from __future__ import annotations

from topomoe.agents.clairvoyant import Clairvoyant
from topomoe.agents.greedy import Greedy
from topomoe.agents.hysteresis import tune
from topomoe.agents.policy import Policy
from topomoe.agents.random_choice import RandomChoice
from topomoe.agents.rotor import Rotor
from topomoe.agents.static import never_switch, static_best
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import unknown

BASELINES = (
    "never-switch",
    "static-best",
    "random",
    "rotor",
    "greedy",
    "hysteresis",
    "clairvoyant",
)
ONLINE = ("never-switch", "random", "rotor", "greedy", "hysteresis")
"""Those that use neither the test timeline nor a learned network."""


def baseline(
    name: str, training: SwitchingProblem, test: SwitchingProblem, observe: str = "before"
) -> Policy:
    """Return one of ``BASELINES``; only static-best and clairvoyant look at ``test``.

    Raises:
        InputError: there is no baseline of that name.
    """
    layout = ObservationLayout.of(test, observe)
    if name == "never-switch":
        return never_switch(training, observe)
    if name == "static-best":
        return static_best(test, observe)
    if name == "random":
        return RandomChoice(layout)
    if name == "rotor":
        return Rotor(layout)
    if name == "greedy":
        return Greedy(layout)
    if name == "hysteresis":
        return tune(training, observe)
    if name == "clairvoyant":
        return Clairvoyant(test, observe)
    raise unknown("baseline", name, BASELINES)
