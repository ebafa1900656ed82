"""Moving experts on one topology as a Gymnasium environment."""

from __future__ import annotations

from pathlib import Path

from topomoe.envs.cluster import CoDesignProblem
from topomoe.envs.codesign_env import FreePlacementEnv
from topomoe.envs.codesign_source import resolve_codesign
from topomoe.envs.codesign_task import CoDesignTask


class PlacementEnv(FreePlacementEnv):
    """Move experts, or rebalance, before every epoch, on one topology.

    Action: ``Discrete(1 + C + 1)``: 0 keeps the placement, then come C proposed moves, best first,
    and the last rebalances now. Masks, observation, reward, episode and info are those of
    ``CoDesignEnv``; episodes start in the library placement that is best on the topology in
    training, and costs observed are those of the library's placements on it.

    >>> env = PlacementEnv(topology="torus")
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.n - 1)
    >>> info["topology"], info["reconfiguration"], info["migration"] > 0
    ('torus', 0.0, True)

    Args:
        problem: see ``CoDesignEnv``.
        scenario: see ``CoDesignEnv``.
        trace: see ``CoDesignEnv``.
        seed: see ``CoDesignEnv``.
        part: see ``CoDesignEnv``.
        topology: its name; None: that of the configuration which is best in training.
        moves: C, proposals.
        observe: see ``CoDesignEnv``.
        queue: see ``CoDesignEnv``.
        render_mode: see ``CoDesignEnv``.

    Raises:
        InputError: the problem, an option, an action or ``render_mode`` is wrong.
    """

    def __init__(
        self,
        problem: CoDesignProblem | None = None,
        scenario: str | Path | None = None,
        trace: str = "",
        seed: int = 0,
        part: str = "training",
        topology: str | None = None,
        moves: int = 8,
        observe: str = "before",
        queue: bool = True,
        render_mode: str | None = None,
    ) -> None:
        resolved = resolve_codesign(problem, scenario, trace, seed, part)
        task = CoDesignTask.of(resolved, moves, topology, True, observe, queue)
        super().__init__(task, render_mode)
