"""What ``topomoe train`` does: build the scenario's problems, train each seed, keep all of it."""

from __future__ import annotations

from collections.abc import Callable

from topomoe.commands.settings import TrainSettings
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario import build_problems
from topomoe.run_folder import RunFolder

TRAINING, TEST = "training.npz", "test.npz"
Progress = Callable[[str, int, int], None]


def train_agents(
    settings: TrainSettings,
    problems: tuple[SwitchingProblem, SwitchingProblem],
    folder: RunFolder,
    progress: Progress,
) -> None:
    """Train what is not yet there into folder/seed-S; results hold the learning curves."""
    import pandas as pd

    from topomoe.agents.learned import load_agent
    from topomoe.agents.rl import train

    training, test = problems
    training.save(folder.path / TRAINING)
    test.save(folder.path / TEST)
    frames = []
    for seed in range(settings.seeds):
        home = folder.path / f"seed-{seed}"
        if (home / "agent.json").is_file():
            agent = load_agent(home, training)
        else:

            def count(done: int, total: int, seed: int = seed) -> None:
                progress(f"{settings.agent}, seed {seed}", done, total)

            agent = train(training, settings.ppo, seed, count)
            agent.save(home)
        curve = pd.DataFrame(agent.curve, columns=["timesteps", "cost_relative_to_never_switch"])
        frames.append(
            curve.assign(
                record="curve", agent=settings.agent, seed=seed, switching=training.switching
            )
        )
    folder.finish(pd.concat(frames, ignore_index=True))


def prepare_training(settings: TrainSettings) -> tuple[SwitchingProblem, SwitchingProblem]:
    """Return the scenario's training and held-out problems."""
    return build_problems(settings.problem)
