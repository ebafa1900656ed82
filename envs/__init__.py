"""The step as a Gymnasium decision problem."""

from topomoe.envs.layout import ObservationLayout
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.envs.transition import Outcome, State, begin, observe, step
from topomoe.envs.vector import TopologySwitchVectorEnv

__all__ = [
    "ObservationLayout",
    "Outcome",
    "State",
    "SwitchingProblem",
    "TopologySwitchEnv",
    "TopologySwitchVectorEnv",
    "begin",
    "observe",
    "phase_problem",
    "step",
]
