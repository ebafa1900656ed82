from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO

from topomoe.agents import fitted_q
from topomoe.agents.clairvoyant import plan
from topomoe.agents.hysteresis import tune
from topomoe.agents.learned import LearnedPolicy, load_agent
from topomoe.agents.policy import BatchPolicy, Policy
from topomoe.agents.regret import EpochRegret
from topomoe.agents.rl import train
from topomoe.agents.rollout import rollout
from topomoe.agents.sb3_export import export_sb3
from topomoe.agents.settings import DQNSettings, PPOSettings
from topomoe.agents.static import never_switch
from topomoe.agents.value_settings import FittedQSettings
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.envs.transition import begin, observe
from topomoe.topologies.errors import InputError

WHOLE = phase_problem(num_configurations=3, epochs=900, episode_length=25, seed=1)
TRAINING = WHOLE.part(0, 600)
TRAINING = TRAINING.calibrated(TRAINING)
TEST = WHOLE.part(600, 900).calibrated(TRAINING)
VALIDATION = WHOLE.part(500, 600).calibrated(TRAINING)
SHORT = PPOSettings(timesteps=2048, copies=16, rollout=32, batch_size=128, passes=2, hidden=(16,))
SHORT_DQN = DQNSettings(
    dqn_timesteps=2048,
    dqn_copies=16,
    dqn_rollout=32,
    dqn_learning_starts=512,
    dqn_buffer=1024,
    dqn_batch_size=64,
    dqn_hidden=(16,),
)
SETTINGS = {"ppo": SHORT, "maskable-ppo": SHORT, "dqn": SHORT_DQN}
FILES = ("agent.json", "learning_curve.csv", "policy.safetensors")


@pytest.fixture(scope="module")
def agent() -> LearnedPolicy:
    return train("ppo", TRAINING, SHORT, seed=3)


@pytest.fixture
def folder(agent: LearnedPolicy, tmp_path: Path) -> Path:
    agent.save(tmp_path / "agent")
    return tmp_path / "agent"


def total_cost(policy: Policy, problem: SwitchingProblem = TEST) -> float:
    return float(rollout(policy, problem).cost.sum())


@pytest.mark.parametrize(
    ("algorithm", "settings", "beaten", "ratio"),
    [
        ("ppo", PPOSettings(timesteps=32_768, copies=64, batch_size=512), tune, 0.99),
        ("maskable-ppo", PPOSettings(timesteps=32_768, copies=64, batch_size=512), tune, 0.99),
        (
            "dqn",
            DQNSettings(dqn_timesteps=65_536, dqn_learning_starts=4096),
            never_switch,
            0.97,
        ),
    ],
)
def test_some_training_beats_a_baseline_and_stays_above_the_optimum(
    algorithm: str,
    settings: PPOSettings | DQNSettings,
    beaten: Callable[[SwitchingProblem], Policy],
    ratio: float,
) -> None:
    trained = train(algorithm, TRAINING, settings, seed=0, validation=VALIDATION)
    cost = rollout(trained, TEST).cost.sum(axis=1)
    assert cost.sum() < ratio * total_cost(beaten(TRAINING))
    assert (cost >= plan(TEST)[1] * (1 - 1e-12)).all()
    assert trained.curve[-1][1] < 0.95 * trained.curve[0][1]


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_where_nothing_is_gained_validation_makes_an_agent_that_never_switches(
    algorithm: str,
) -> None:
    whole = phase_problem(num_configurations=3, epochs=900, episode_length=25, penalty=0.0)
    training = whole.part(0, 500)
    trained = train(algorithm, training, SETTINGS[algorithm], validation=whole.part(500, 700))
    test = whole.part(700, 900).calibrated(training)
    assert trained.margin == inf
    assert not rollout(trained, test).switched.any()


def test_the_policy_that_validation_chooses_costs_no_more_there_than_the_last_one() -> None:
    chosen = train("ppo", TRAINING, SHORT, seed=3, validation=VALIDATION)
    last = train("ppo", TRAINING, SHORT, seed=3)
    assert total_cost(chosen, VALIDATION) <= total_cost(last, VALIDATION)
    assert 1024 < chosen.selected <= 2048
    assert (last.selected, last.margin) == (2048, 0.0)


def test_a_larger_margin_means_fewer_switches_and_an_infinite_one_none() -> None:
    agent = train("ppo", TRAINING, replace(SHORT, stay=0.0))
    switches = []
    for margin in (0.0, 0.1, inf):
        agent.margin = margin
        switches.append(int(rollout(agent, TEST).switched.sum()))
    assert switches[0] > switches[1] > switches[2] == 0


def test_a_warm_start_acts_like_its_teacher_before_it_learns_anything_itself() -> None:
    class Teacher(BatchPolicy):
        """Prefers the configuration whose last cost was the least, but for a sure stay."""

        def action_logits(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
            batch = np.atleast_2d(observation)
            return -9.0 * batch[:, self.layout["last"]] + 2.0 * batch[:, self.layout["current"]]

        def choose(
            self,
            observation: NDArray[np.float32],
            state: Any,
            episode_start: NDArray[np.bool_],
            deterministic: bool,
        ) -> tuple[NDArray[np.int64], Any]:
            return self.action_logits(observation).argmax(axis=1), state

    teacher = Teacher(ObservationLayout.of(TRAINING))
    one = PPOSettings(timesteps=1, copies=2, rollout=2, batch_size=4, learning_rate=1e-3)
    cold, warm = (train("ppo", TRAINING, one, warm_start=given) for given in (None, teacher))
    wanted = rollout(teacher, TEST).choice
    alike = [float((rollout(policy, TEST).choice == wanted).mean()) for policy in (cold, warm)]
    assert alike[1] > 0.9 > alike[0]


def test_a_warm_start_is_refused_by_dqn_and_from_a_teacher_that_sees_something_else(
    agent: LearnedPolicy,
) -> None:
    teacher: Any = agent
    with pytest.raises(InputError, match="warm_start"):
        train("dqn", TRAINING, SHORT_DQN, warm_start=teacher)
    teacher = fitted_q.train(TRAINING, FittedQSettings(queue=False, ridge=(0.1,)))
    with pytest.raises(InputError, match="warm start's teacher"):
        train("ppo", TRAINING, SHORT, warm_start=teacher)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(
    agent: LearnedPolicy,
) -> None:
    again = train("ppo", TRAINING, SHORT, seed=3)
    other = train("ppo", TRAINING, SHORT, seed=4)
    assert again.curve == agent.curve
    for key, value in agent.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    assert other.curve != agent.curve


def test_progress_counts_up_to_the_whole_training() -> None:
    seen: list[tuple[int, int]] = []
    train("ppo", TRAINING, SHORT, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(512, 2048), (1024, 2048), (1536, 2048), (2048, 2048)]


def test_training_leaves_the_number_of_torch_threads_alone(agent: LearnedPolicy) -> None:
    before = torch.get_num_threads()
    train("ppo", TRAINING, SHORT, seed=1)
    assert torch.get_num_threads() == before


def test_the_training_reward_differs_from_the_true_one_by_nothing_the_action_does() -> None:
    plain, shaped = SB3VecEnv(4, TRAINING), EpochRegret(SB3VecEnv(4, TRAINING))
    for env in (plain, shaped):
        env.seed(5)
        env.reset()
    for step in range(60):  # past the end of an episode
        actions = np.array([0, step % 3, (step // 2) % 3, 1])
        true, changed = (env.step(actions)[1] for env in (plain, shaped))
        cheapest = TRAINING.cost[plain.epochs].min(axis=1) / TRAINING.scale
        np.testing.assert_allclose(changed * shaped.unit - true, cheapest, atol=1e-5)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_a_saved_agent_acts_as_before(algorithm: str, tmp_path: Path) -> None:
    settings = SETTINGS[algorithm]
    agent = train(algorithm, TRAINING, settings, 3, validation=VALIDATION, folder=tmp_path / "a")
    loaded = load_agent(tmp_path / "a", TEST)
    assert isinstance(loaded, LearnedPolicy)
    np.testing.assert_array_equal(rollout(loaded, TEST).choice, rollout(agent, TEST).choice)
    assert (loaded.settings, loaded.seed, loaded.curve) == (settings, 3, agent.curve)
    assert (loaded.margin, loaded.selected) == (agent.margin, agent.selected)
    loaded.save(tmp_path / "again")
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_saved_agent_holds_only_json_csv_and_safetensors(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == list(FILES)
    config = json.loads((folder / "agent.json").read_text())
    assert config["switching"] == "reachable"
    assert set(config["versions"]) >= {"topomoe", "torch", "stable-baselines3", "numpy"}
    lines = (folder / "learning_curve.csv").read_text().splitlines()
    assert lines[0] == "timesteps,cost_relative_to_never_switch"
    assert len(lines) == 5


def test_agents_learned_from_full_information_are_loaded_by_the_same_call(tmp_path: Path) -> None:
    settings = FittedQSettings(ridge=(0.1,), horizons=(8,), margins=(1.0,))
    trained = fitted_q.train(TRAINING, settings)
    trained.save(tmp_path)
    loaded = load_agent(tmp_path, TEST)
    np.testing.assert_array_equal(rollout(loaded, TEST).choice, rollout(trained, TEST).choice)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_stable_baselines3_loads_what_is_exported_for_it(algorithm: str, tmp_path: Path) -> None:
    agent = train(algorithm, TRAINING, SETTINGS[algorithm])
    path = export_sb3(agent, tmp_path / "policy")
    kind: Any = {"ppo": PPO, "maskable-ppo": MaskablePPO, "dqn": DQN}[algorithm]
    seen = observe(TEST, begin(TEST, TEST.episodes()), agent.layout)
    np.testing.assert_array_equal(
        kind.load(path, device="cpu").predict(seen, deterministic=True)[0], agent.predict(seen)[0]
    )


def test_an_agent_of_another_environment_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="another environment"):
        load_agent(folder, phase_problem(num_configurations=4, epochs=100))
    renamed = SwitchingProblem(("x", "y", "z"), TEST.cost, TEST.switch_cost)
    with pytest.raises(InputError, match="names"):
        load_agent(folder, renamed)


@pytest.mark.parametrize("file", ["agent.json", "policy.safetensors", "learning_curve.csv"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty"])
def test_a_damaged_agent_is_refused_by_file(folder: Path, file: str, damage: str) -> None:
    path = folder / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:-9], "garbage": b"\xff\x00,x"}.get(damage, b""))
    if file == "learning_curve.csv" and damage in ("truncated", "empty"):
        content = b"timesteps,cost_relative_to_never_switch\n512,"
        path.write_bytes(content)
    with pytest.raises(InputError, match=file) as caught:
        load_agent(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_or_not_finite_are_refused(folder: Path) -> None:
    path = folder / "policy.safetensors"
    weights = load(path.read_bytes())
    for key, value in (
        ("action_net.bias", torch.zeros(7)),
        ("action_net.bias", torch.full((3,), float("nan"))),
        ("extra", torch.zeros(1)),
    ):
        path.write_bytes(save({**weights, key: value}))
        with pytest.raises(InputError, match=key):
            load_agent(folder)
    path.write_bytes(save({**weights, "action_net.bias": torch.ones(3)}))
    with pytest.raises(InputError, match="SHA-256"):
        load_agent(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"settings": {"timestep": 1}},
        {"settings": {"gamma": 2.0}},
        {"names": ["a", "b"]},
        {"observation": {}},
        {"switching": "maybe"},
        {"seed": None},
        {"settings": {"hidden": [10**9]}},
        {"settings": {"hidden": [4096] * 99}},
        {"algorithm": "magic"},
        {"algorithm": ["ppo"]},
        {"algorithm": "dqn"},
        {"margin": -1.0},
        {"margin": "nan"},
        {"num_demand": 3},
        {"observe": "during"},
    ],
)
def test_a_wrong_configuration_is_refused(folder: Path, change: dict[str, object]) -> None:
    path = folder / "agent.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"agent\.json"):
        load_agent(folder)


@pytest.mark.parametrize(
    "setting",
    [
        {"timesteps": 0},
        {"copies": 0},
        {"gamma": 1.5},
        {"learning_rate": 0.0},
        {"hidden": (0,)},
        {"batch_size": 1000},
        {"hidden": (1,) * 9},
        {"warm_start": "magic"},
        {"checkpoint_every": 0},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        PPOSettings(**setting)  # type: ignore[arg-type]


def test_settings_of_different_learners_have_different_names() -> None:
    assert not {field.name for field in fields(PPOSettings)} & {
        field.name for field in fields(DQNSettings)
    }
